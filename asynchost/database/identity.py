"""Which row is a host's, and what is known of a row that was claimed.

Pure: candidates in, a choice out. Carrying it out is :mod:`asynchost.database.claim`'s matter.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from asynchost.database.rows import Value, Values
from asynchost.database.statements import FenceKey, short_name
from asynchost.errors import AmbiguousRowError

T = TypeVar("T")


class StillOwnedError(Exception):
    """A standby's claim was not carried out: the row's owner is alive. Stays in the package."""


class How(StrEnum):
    """How a claim came to its row."""

    CREATED = "created"
    ADOPTED = "adopted"
    """It was there, and no agent of ours had written it before."""
    TAKEN_OVER = "taken over"
    """It was there, and an agent of ours, this one included, had claimed it before."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row that may be the host's: not soft-deleted, and of its name."""

    row_id: int
    service_id: int | None
    deleted: int | None
    host: str | None = None
    """Nova's name of the host whose nova-compute made it; None where the table does not say."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A row that is ours, until another agent's claim raises the term."""

    row_id: int
    service_id: int
    key: FenceKey
    term: int
    how: How
    values: Values
    """The owned columns as the database holds them now."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a host's row must be."""

    name: str
    """Its ``hypervisor_hostname``."""
    service_id: int | None
    """None: whatever the single live row of that name has; where there is none Nova's of that
    host, else 0."""
    values: Mapping[str, Value]
    """What it is created with: every owned column, with its real value."""
    known_term: int = 0
    """The highest term that this agent ever knew of."""
    host: str = ""
    """The host's name in logs and errors."""
    beside_nova: bool = False
    """Whether to claim the row though a nova-compute keeps it."""
    silent_seconds: float | None = None
    """A standby's claim: only if the owner has let go, or given no sign for this long. None:
    from whoever has the row."""
    supported_instances: str = "[]"
    """For a row that is created in one of Nova's wider tables."""


@dataclass(frozen=True, slots=True)
class NovaService:
    """A compute service in Nova's table ``services``."""

    service_id: int
    host: str
    alive: bool
    """Whether it has reported lately."""


class NovaServices:
    """Nova's compute services, as far as they were looked for."""

    def __init__(self, services: Iterable[NovaService]) -> None:
        self._by_id: dict[int, NovaService] = {}
        self._by_short_name: dict[str, list[NovaService]] = {}
        for service in services:
            self._by_id[service.service_id] = service
            self._by_short_name.setdefault(_shortened(service.host), []).append(service)

    def of(self, name: str) -> NovaService | None:
        """The host's: the one of exactly that name, else the only one that shares it up to the
        first dot."""
        chosen = self._named(name) or self._by_short_name.get(_shortened(name), [])
        return chosen[0] if len(chosen) == 1 else None

    def keeper(self, wanted: Wanted, row: Candidate | None) -> NovaService | None:
        """The nova-compute that is alive and keeps the host's row, or will make it: the host's, or
        one that the row itself names: by ``host``, or where it has none by ``service_id``.

        A ``service_id`` that was given is the user's word and not Nova's, and 0 is nobody's.
        """
        suspects = [self.of(wanted.name)]
        if row is not None and row.host:
            suspects += self._named(row.host)
        elif row is not None and row.service_id and wanted.service_id is None:
            suspects.append(self._by_id.get(row.service_id))
        return next((one for one in suspects if one is not None and one.alive), None)

    def _named(self, host: str) -> list[NovaService]:
        sharing = self._by_short_name.get(_shortened(host), [])
        return [service for service in sharing if folded(service.host) == folded(host)]


def live(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that count as live: ``deleted = 0``; NULL only where there is no such row."""
    plain = [candidate for candidate in candidates if candidate.deleted is not None]
    return plain or list(candidates)


def choose(name: str, candidates: Sequence[Candidate], service_id: int | None) -> Candidate | None:
    """The host's row among them; None when it must be created.

    :raises AmbiguousRowError: several could be it.
    """
    matching = [c for c in live(candidates) if service_id is None or c.service_id == service_id]
    if len(matching) > 1:
        raise AmbiguousRowError(name, [(c.row_id, c.service_id) for c in matching])
    return matching[0] if matching else None


def can_share(names: Sequence[str]) -> list[bool]:
    """Which of these hosts may be claimed in one batch, where rows are told apart by name.

    The database compares names by its own rules, without regard to case and trailing spaces, so
    only plain names are let in that no such rule takes for the same.
    """
    keys = [folded(name) for name in names]
    seen: set[str] = set()
    shares = []
    for name, key in zip(names, keys, strict=True):
        shares.append(name.isascii() and name == name.strip() and key not in seen)
        seen.add(key)
    return shares


def matched_by_name(batch: Sequence[Wanted], found: Sequence[tuple[str, T]]) -> list[list[T]]:
    """What was found for each of ``batch``, by the name that comes with it.

    With one wanted everything is its own: the database has compared, by whatever rule.

    :raises KeyError: by a rule that is not ours, something was found under no such name.
    """
    if len(batch) == 1:
        return [[thing for _, thing in found]]
    matched: dict[str, list[T]] = {folded(wanted.name): [] for wanted in batch}
    for name, thing in found:
        matched[folded(name)].append(thing)
    return list(matched.values())


def folded(name: str) -> str:
    """A name without what the database's usual rules leave out of account."""
    return name.casefold().rstrip(" ")


def _shortened(name: str) -> str:
    return folded(short_name(name) or name)
