"""Which lifecycle events wait for which read, and what is told once the read has returned.

Pure: no loop, no libvirt. Works only while somebody listens. Memory: one entry for each lifecycle
event whose read has not returned; a read that outlives its deadline gives its events up.

Each lifecycle event gets a number, and the mark that makes the domain be read carries the number
of the newest event that the read answers. So an event that comes while the domain is being read
waits for the next read, which began after the event.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from itertools import count
from typing import Final, NamedTuple, Protocol

from asynchost.agenda import Mark
from asynchost.domains import ORIGINS, Domain, DomainEvent, EventKind, Lifecycle, Origin
from asynchost.ledger import Record
from asynchost.model import Cause

_NO_LIFECYCLE: Final = (EventKind.CHANGED, None, None, None)
_RESYNC: Final = Mark(Cause.RESYNC)


class DomainListeners(Protocol):
    """The streams of a monitor's domain events."""

    def __bool__(self) -> bool:
        """Whether anybody listens."""

    def push(self, item: DomainEvent) -> None:
        """Tell one event."""

    def begin(self, records: Mapping[str, Record]) -> None:
        """The first totals are there: the streams so far begin with these records."""


class _Waiting(NamedTuple):
    """A lifecycle event whose read has not returned."""

    number: int
    lifecycle: Lifecycle
    name: str


class DomainFeed:
    """Makes the domain events of one host."""

    __slots__ = (
        "_answered",
        "_epoch",
        "_host",
        "_listeners",
        "_numbers",
        "_received",
        "_utc_now",
        "_waiting",
        "generation",
        "make",
    )

    def __init__(
        self,
        host: str,
        epoch: str,
        listeners: DomainListeners,
        utc_now: Callable[[], datetime],
    ) -> None:
        self.generation = 0
        self.make: Callable[[Record], Domain] | None = None
        """Makes domains of records, once there are records."""
        self._host = host
        self._epoch = epoch
        self._listeners = listeners
        self._utc_now = utc_now
        self._numbers = count(1)
        self._received = count(1)
        self._waiting: dict[str, deque[_Waiting]] = {}
        self._answered: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._listeners)

    # -- events, and the reads that answer them ---------------------------------------------------

    def received(self, uuid: str, lifecycle: Lifecycle, name: Callable[[], str]) -> int:
        """libvirt sent a lifecycle event; returns its number for the mark of the domain."""
        if not self:
            return 0
        number = next(self._received)
        self._waiting.setdefault(uuid, deque()).append(_Waiting(number, lifecycle, name()))
        return number

    def read(self, uuid: str, before: Record | None, after: Record | None, mark: Mark) -> None:
        """A read of the domain has returned, and its record was replaced."""
        waiting = self._take(uuid, mark.number)
        if waiting:
            self._tell_answered(uuid, waiting, before, after)
        elif _differ(before, after):
            self._tell_changed(uuid, before, after, mark)

    def staged(self, uuid: str, mark: Mark) -> None:
        """A read has returned whose result comes with the resync."""
        if mark.number:
            self._answered[uuid] = mark.number

    def resynced(
        self, before: Mapping[str, Record], after: Mapping[str, Record], *, first: bool
    ) -> None:
        """A listing has taken the place of all records."""
        answered, self._answered = self._answered, {}
        told = {uuid: self._take(uuid, number) for uuid, number in answered.items()}
        if first:
            self._listeners.begin(after)
            return
        for uuid, waiting in told.items():
            if waiting:
                self._tell_answered(uuid, waiting, before.get(uuid), after.get(uuid))
        for uuid in {**before, **after}:
            if not told.get(uuid) and _differ(before.get(uuid), after.get(uuid)):
                self._tell_changed(uuid, before.get(uuid), after.get(uuid), _RESYNC)

    def give_up(self, uuid: str, record: Record | None) -> None:
        """The domain cannot be read in time: tell the events that wait for a read of it."""
        for one in self._waiting.pop(uuid, ()):
            before = self._domain(record)
            name = one.name if before is None else before.name
            self._tell(uuid, name, (before, None), Origin.EVENT, one.lifecycle, known=False)

    def forget(self) -> None:
        """Forget the events that wait: nobody has listened since, or nothing was ever listed."""
        self._waiting.clear()
        self._answered.clear()

    def give_up_all(self, records: Mapping[str, Record]) -> None:
        """The connection is lost, so nothing that waits for a read will be answered."""
        self._answered.clear()
        for uuid in tuple(self._waiting):
            self.give_up(uuid, records.get(uuid))

    def _take(self, uuid: str, number: int) -> list[_Waiting]:
        """The waiting events up to ``number``, in their order."""
        waiting = self._waiting.get(uuid)
        if waiting is None:
            return []
        taken = []
        while waiting and waiting[0].number <= number:
            taken.append(waiting.popleft())
        if not waiting:
            del self._waiting[uuid]
        return taken

    # -- telling ----------------------------------------------------------------------------------

    def _tell_answered(
        self, uuid: str, waiting: Iterable[_Waiting], before: Record | None, after: Record | None
    ) -> None:
        """The first event has the step, the others find the domain as the first left it."""
        old, new = self._domain(before), self._domain(after)
        for one in waiting:
            known = new or old
            name = one.name if known is None else known.name
            self._tell(uuid, name, (old, new), Origin.EVENT, one.lifecycle)
            old = new

    def _tell_changed(
        self, uuid: str, before: Record | None, after: Record | None, mark: Mark
    ) -> None:
        old, new = self._domain(before), self._domain(after)
        known = new or old
        name = "" if known is None else known.name
        self._tell(uuid, name, (old, new), ORIGINS[mark.cause])

    def _domain(self, record: Record | None) -> Domain | None:
        return None if record is None or self.make is None else self.make(record)

    def _tell(
        self,
        uuid: str,
        name: str,
        step: tuple[Domain | None, Domain | None],
        origin: Origin,
        lifecycle: Lifecycle | None = None,
        *,
        known: bool = True,
    ) -> None:
        kind, reason, raw_kind, raw_reason = lifecycle or _NO_LIFECYCLE
        self._listeners.push(
            DomainEvent(
                next(self._numbers),
                self._epoch,
                self._utc_now(),
                self.generation,
                self._host,
                uuid,
                name,
                kind,
                reason,
                raw_kind,
                raw_reason,
                *step,
                known,
                origin,
            )
        )


def _differ(before: Record | None, after: Record | None) -> bool:
    """Whether the two say something else of the domain."""
    if before is None or after is None:
        return before is not after
    old, new = before.observation, after.observation
    # The reason of a state is no part of a domain; what it decides is in the cost.
    return (
        old.name != new.name
        or old.domain_id != new.domain_id
        or old.state != new.state
        or old.vcpus != new.vcpus
        or old.memory_kib != new.memory_kib
        or old.max_memory_kib != new.max_memory_kib
        or before.cost != after.cost
    )
