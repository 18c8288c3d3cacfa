"""One host attached to a writer: what its row should hold and what it is known to hold.

Synchronous: it decides, the lane carries out. Memory: the values of one row, once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

from asynchost.backoff import Backoff
from asynchost.database.acknowledged import Acknowledged
from asynchost.database.foreign_edits import Edit, ForeignEdits, OnForeignEdit
from asynchost.database.identity import Claim, Wanted
from asynchost.database.rows import RowEncoder, Values
from asynchost.database.statements import FenceKey, RowWrite, Sign
from asynchost.debounce import Debouncer
from asynchost.errors import AsynchostError, FencedError
from asynchost.model import HostSnapshot, SnapshotSource

_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class OwnedRow:
    """The row that a claim made ours."""

    row_id: int
    key: FenceKey
    term: int


class Record(NamedTuple):
    """What the database holds for one host: its fence row and its row, read in one statement."""

    key: FenceKey
    row_id: int | None
    term: int
    seq: int
    owner: str
    live: bool
    values: Values


class Verdict(Enum):
    """What a record means for the one who reads it."""

    KEPT = "kept"
    """The row is ours; what the record holds is acknowledged."""
    LOST = "lost"
    """The row or its guard is gone or older than what we knew: claim again."""
    FENCED = "fenced"
    """Another agent owns the row now."""


class Attachment:
    """A host's place in a writer; :meth:`ComputeNodeWriter.attach` makes it."""

    def __init__(
        self,
        source: SnapshotSource,
        service_id: int | None,
        debouncer: Debouncer,
        backoff: Backoff,
        *,
        on_foreign_edit: OnForeignEdit,
        waits_when_fenced: bool,
        beside_nova: bool,
        clock: Callable[[], float],
        touched: Callable[["Attachment"], None],
        failed: Callable[[AsynchostError], None],
    ) -> None:
        self.service_id = service_id
        self.given_name = source.snapshot().name
        """The row's ``hypervisor_hostname`` as far as it was known on attaching."""
        self.error: AsynchostError | None = None
        """Why the row is no longer written; None as long as it is."""
        self.row: OwnedRow | None = None
        self.standby: FenceKey | None = None
        """The guard that another agent holds, whose end this one waits for; None: it does not."""
        self.suspect = False
        """Whether the last write was not taken: then it stands in no statement with others, lest
        a lock on this one row hold up theirs."""
        self.edit: Edit | None = None
        """What somebody else had changed in the row when it was last read back."""
        self._beside_nova = beside_nova
        self._waits_when_fenced = waits_when_fenced
        self._edits = ForeignEdits(on_foreign_edit)
        self._source = source
        self._debouncer = debouncer
        self._backoff = backoff
        self._clock = clock
        self._touched = touched
        self._failed = failed
        self._encoder = RowEncoder()
        self._acknowledged = Acknowledged()
        self._offered: Values | None = None
        self._refused: Values | None = None
        self._known_term = 0
        self._told_state: str | None = None
        self._retry_at: float | None = None
        self._remove_listener = source.add_listener(self._on_change)

    @property
    def host(self) -> str:
        """The host's name in logs."""
        return self._source.host

    @property
    def row_id(self) -> int | None:
        """The row's ``id``; None while no row is claimed."""
        return None if self.row is None else self.row.row_id

    @property
    def term(self) -> int | None:
        """The number of the row's ownership; None while no row is claimed."""
        return None if self.row is None else self.row.term

    @property
    def foreign_edits(self) -> int:
        """How many times somebody else was found to have changed the row."""
        return self._edits.count

    @property
    def dirty(self) -> bool:
        """Whether the row differs, or may differ, from what the host is now.

        False while the host is stale or incomplete: what is unknown is not written.
        """
        snapshot = self._writable()
        if snapshot is None:
            return False
        values = self._encoder.encode(snapshot)
        if values == self._refused:
            return False
        return self.row is None or bool(self._acknowledged.difference(values))

    # -- when ---------------------------------------------------------------------------------

    @property
    def due_at(self) -> float:
        """The loop's time at which to write; infinity when nothing is pending."""
        if self._retry_at is not None:
            return self._retry_at
        deadline = self._debouncer.deadline
        return _NEVER if deadline is None else deadline

    def take(self) -> None:
        """The write begins: a change from here on asks for another one."""
        self._retry_at = None
        self._debouncer.take()

    def retry(self) -> None:
        """Something else was in the way: write at the next turn."""
        self._retry_at = 0.0
        self._touched(self)

    def postpone(self, at_least_seconds: float = 0.0) -> None:
        """The database would not take it: write after a delay, and not before."""
        self.suspect = True
        self._retry_at = self._clock() + at_least_seconds + self._backoff.next_delay()
        self._touched(self)

    @property
    def retrying(self) -> bool:
        """Whether the last attempt failed and another one is to come."""
        return self._retry_at is not None

    # -- what ---------------------------------------------------------------------------------

    def wanted(self) -> Wanted | None:
        """What to claim; None when a row is owned already, or cannot be made yet."""
        snapshot = self._writable()
        if self.row is not None or snapshot is None or snapshot.name is None:
            return None
        values = self._encoder.encode(snapshot)
        if values == self._refused:
            return None
        self._offered = values
        return Wanted(
            snapshot.name,
            self.service_id,
            values,
            self._known_term,
            self.host,
            self._beside_nova,
        )

    def plan(self) -> RowWrite | None:
        """The write that makes the row true now, numbered anew; None when none is needed."""
        snapshot = self._writable()
        if self.row is None or snapshot is None:
            return None
        values = self._encoder.encode(snapshot)
        dirty = self._acknowledged.difference(values)
        if not dirty or values == self._refused:
            return None
        self._offered = values
        return RowWrite(self.row.row_id, self.row.term, self._acknowledged.next_seq(), dirty)

    def sign(self) -> Sign | None:
        """A sign of life; None where no row is owned."""
        if self.row is None or self.error is not None:
            return None
        snapshot = self._source.snapshot()
        age = snapshot.stale_seconds
        stale = None if snapshot.fresh or age is None else int(age * 1_000_000)
        return Sign(self.row.row_id, self.row.term, _state(snapshot), stale)

    @property
    def state_moved(self) -> bool:
        """Whether the host became stale or fresh since the last sign of life."""
        return self.row is not None and _state(self._source.snapshot()) != self._told_state

    # -- what came of it ----------------------------------------------------------------------

    def own(self, claim: Claim) -> None:
        """The claim went through: the row is ours, and this is what it holds."""
        self.row = OwnedRow(claim.row_id, claim.key, claim.term)
        self._known_term = max(self._known_term, claim.term)
        self._acknowledged.begin(claim.values)
        self._went_well()
        self._told_state = "fresh"

    def acknowledge(self, write: RowWrite) -> None:
        """The database said that the write has landed."""
        self._acknowledged.confirm(write)
        self._went_well()

    def doubt(self, write: RowWrite) -> None:
        """Nobody knows whether the write has landed, or still will."""
        self._acknowledged.doubt(write)

    def refuse(self) -> None:
        """The database takes the values of the last claim or write from nobody: they are not sent
        again until one of them differs, as it may do by now."""
        self._refused = self._offered

    def told(self, sign: Sign) -> None:
        """The sign of life was taken."""
        self._told_state = sign.state

    def judge(self, record: Record | None, owner: str) -> Verdict:
        """Compare with what the database holds, and take that as acknowledged where it is ours."""
        row = self.row
        if row is None or record is None or record.term < row.term:
            return Verdict.LOST
        if record.owner != owner:
            return Verdict.FENCED
        if record.row_id != row.row_id or not record.live:
            return Verdict.LOST
        # A higher term of our own: a claim whose answer was lost.
        self.row = replace(row, term=record.term)
        self._known_term = max(self._known_term, record.term)
        self.edit = self._edit_in(record)
        self._acknowledged.read(record.seq, record.values)
        if self.edit is not None and not self.edit.repaired:
            self._acknowledged.tolerate(self.edit.wanted)
        return Verdict.KEPT

    def _edit_in(self, record: Record) -> Edit | None:
        found = self._acknowledged.overwritten(record.seq, record.values)
        if not found:
            self._edits.none_left()
            return None
        return self._edits.noticed(found, self._acknowledged.values, self._clock())

    def landed(self, write: RowWrite) -> bool:
        """Whether the last reading back showed this write, or a later one."""
        return self._acknowledged.has_landed(write)

    def lost_writes(self, record: Record) -> bool:
        """Whether the database lost what it had acknowledged, as a crash or failover can do."""
        return self._acknowledged.is_ahead_of(record.seq)

    def lose(self) -> None:
        """The row must be claimed again."""
        self.row = None

    def fence(self, record: Record) -> FencedError:
        """Another agent owns the row: stop, or stand by."""
        error = FencedError(record.key.node, record.owner, record.term)
        if self._waits_when_fenced:
            self.standby = record.key
            self.row = None
            self.take()
        else:
            self.fail(error)
        return error

    def stand_in(self) -> None:
        """The agent that had claimed the row is gone: claim it."""
        self.standby = None
        self.touch()

    def fail(self, error: AsynchostError) -> None:
        """Stop writing this host."""
        self.error = error
        self.row = None
        self.take()
        self._failed(error)

    def close(self) -> None:
        """Stop listening."""
        self._remove_listener()

    def _on_change(self) -> None:
        if self.error is None:
            self._debouncer.touch(self._clock())
            self._touched(self)

    def touch(self) -> None:
        """Look at this host, though nothing is known to have changed."""
        self._on_change()

    def _writable(self) -> HostSnapshot | None:
        if self.error is not None or self.standby is not None:
            return None
        snapshot = self._source.snapshot()
        return snapshot if snapshot.writable else None

    def _went_well(self) -> None:
        self._refused = None
        self.suspect = False
        self._backoff.reset()


def _state(snapshot: HostSnapshot) -> str:
    return "fresh" if snapshot.fresh else "stale"
