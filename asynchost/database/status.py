"""How a writer is doing, for whoever shows it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from asynchost.plain import PlainRecord


class RowState(StrEnum):
    """What becomes of one host's row."""

    WAITING = "waiting"
    """No row yet: the host is not known completely, or the database does not answer."""
    OWNED = "owned"
    """The row is ours and is written."""
    PARTIAL = "partial"
    """The row is ours; some of its columns are left out, because the database refuses them."""
    REFUSED = "refused"
    """The database takes nothing of this row for now."""
    STANDING_BY = "standing by"
    """Another agent owns the row, and this one waits for that agent's end."""
    GIVEN_UP = "given up"
    """The row is not written any more: another agent has claimed it, or a person must mend it."""


@dataclass(frozen=True, slots=True)
class RowStatus(PlainRecord):
    """How the row of one host is doing, at one moment."""

    host: str
    state: RowState
    row_id: int | None
    """The row's ``id``; None while no row is ours."""
    term: int | None
    """The number of the row's ownership; None while no row is ours."""
    owner: str | None
    """The other agent that owns the row, as far as it was seen; None where there is none."""
    reason: str | None
    """Why the row is given up; None otherwise."""
    dirty: bool
    """Whether the row differs, or may differ, from what the host is."""
    unwritten_seconds: float | None
    """The age of the oldest change that is not written; None where there is none."""
    written_seconds: float | None
    """How long ago a write of the row was acknowledged last; None: never."""
    writes: int
    """Writes and claims of the row that were acknowledged."""
    unknown_outcomes: int
    """Writes of which nobody can say whether they landed. Each is read back."""
    foreign_edits: int
    """How often the row was found changed or deleted by others."""


class RowHistory:
    """What has become of one host's row so far. Synchronous.

    ``clock`` is the loop's time, as is each ``at``.
    """

    __slots__ = ("_changed_at", "_clock", "_written_at", "owner", "unknown_outcomes", "writes")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._changed_at: float | None = None
        self._written_at: float | None = None
        self.owner: str | None = None
        self.writes = 0
        self.unknown_outcomes = 0

    def changed(self, at: float, *, pending: bool) -> None:
        """The host changed; ``pending``: an older change is not written yet."""
        if not pending or self._changed_at is None:
            self._changed_at = at

    def written(self, at: float, *, is_current: bool = True) -> None:
        """A write or a claim was acknowledged; ``is_current``: no change came since."""
        self._written_at = at
        self._changed_at = None if is_current else at
        self.owner = None
        self.writes += 1

    @property
    def unwritten_seconds(self) -> float | None:
        """The age of the oldest change that was not acknowledged."""
        return None if self._changed_at is None else self._clock() - self._changed_at

    @property
    def written_seconds(self) -> float | None:
        """How long ago a write was acknowledged; None: never."""
        return None if self._written_at is None else self._clock() - self._written_at


@dataclass(frozen=True, slots=True)
class WriterStatus(PlainRecord):
    """A writer's hosts and what has befallen their rows, at one moment."""

    hosts: int
    """How many are attached."""
    owned: int
    """Of how many the row is ours."""
    dirty: int
    """How many rows differ, or may differ, from what their hosts are."""
    standing_by: int
    """Of how many the row is another agent's, and waited for."""
    given_up: int
    """How many are not written: fenced ones for good; those that are refused, ambiguous or Nova's
    for the time being."""
    foreign_edits: int
    """How often a row was found changed or deleted by others, each standing change once."""
    refused: int = 0
    """Of how many nothing is written for now: the database takes the row from nobody. Their guards
    say so."""
    partial: int = 0
    """Of how many rows some columns are left out, because the database refuses their values or
    another program insists on its own. Their guards say so."""
    connected: bool = False
    """Whether a database server serves this writer."""
    connection_seconds: float | None = None
    """For how long that has been so; None before the first attempt."""
    reason: str | None = None
    """Why no server serves it; None while one does."""
    connects: int = 0
    """Connections that were made."""
    connect_failures: int = 0
    """Attempts that failed, and connections that were lost."""
    unwritten_seconds: float | None = None
    """The age of the oldest change of all hosts that is not written; None where there is none."""
    writes: int = 0
    """Writes and claims of rows that were acknowledged, of the hosts that are attached."""
    unknown_outcomes: int = 0
    """Writes of which nobody can say whether they landed, of the hosts that are attached."""
