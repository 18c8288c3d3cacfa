"""Which row is a host's, and what is known of a row that was claimed.

Pure: candidates in, a choice out. Carrying it out is :mod:`asynchost.database.claim`'s matter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from asynchost.database.rows import Value, Values
from asynchost.database.statements import FenceKey
from asynchost.errors import AmbiguousRowError


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
    """None: whatever the single live row of that name has, 0 where there is none."""
    values: Mapping[str, Value]
    """What it is created with: every owned column, with its real value."""
    known_term: int = 0
    """The highest term that this agent ever held for it."""
    host: str = ""
    """The host's name in logs and errors."""
    beside_nova: bool = False
    """Whether to claim the row though a nova-compute keeps it."""


@dataclass(frozen=True, slots=True)
class NovaService:
    """A compute service in Nova's table ``services``."""

    service_id: int
    host: str
    alive: bool
    """Whether it has reported lately."""


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


def choose_service(name: str, services: Sequence[NovaService]) -> NovaService | None:
    """The host's service among those that share its name up to the first dot: the one of exactly
    that name, else the only one there is."""
    exact = [service for service in services if service.host.lower() == name.lower()]
    chosen = exact or services
    return chosen[0] if len(chosen) == 1 else None
