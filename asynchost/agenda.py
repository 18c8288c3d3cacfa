"""Which domains are to be read next: a set of UUIDs, never a queue of values.

Pure: time comes in as an argument. Memory: at most one entry of each kind per domain.

This is the only place where events are merged, and they are merged only by being a set. A
domain that is marked while it is being read is read once more afterwards, so that nothing is
lost and no read is doubled: per domain there is at most one read under way and one waiting.
"""

from collections import OrderedDict
from typing import NamedTuple

from asynchost.model import Cause
from asynchost.timetable import Timetable


class Mark(NamedTuple):
    """Why a domain is to be read."""

    cause: Cause
    detail: str = ""
    number: int = 0
    """The newest lifecycle event that the read answers; 0 where nobody listens to them."""


class Agenda:
    """Hands out the domains to read.

    The caller takes a domain, reads it, and says :meth:`done`; in between the domain is *in
    flight* and is not handed out again. A read that hangs therefore keeps its domain, and only
    its domain, from being read again until the hung call has returned.
    """

    def __init__(self) -> None:
        # Ordered dictionaries give up their oldest entry in constant time; plain ones do not.
        self._urgent: OrderedDict[str, Mark] = OrderedDict()
        self._background: OrderedDict[str, Mark] = OrderedDict()
        self._in_flight: dict[str, Mark | None] = {}  # value: the mark that came meanwhile
        self._looks: Timetable[str] = Timetable()
        self._last_look: dict[str, float] = {}
        self.background_first = False
        """Whether a domain that waits in the background keeps its place there when an event marks
        it too. It is for a resync, during which the background is read first: that read serves
        both marks."""

    def __len__(self) -> int:
        return len(self._urgent) + len(self._background) + len(self._in_flight)

    def waiting(self, background: bool) -> int:
        """How many domains wait: of those that events marked, or of the background's."""
        return len(self._background if background else self._urgent)

    def line(self, background: bool) -> tuple[str, ...]:
        """The domains that wait, in their order: those of events, or the background's."""
        return tuple(self._background if background else self._urgent)

    def urgent_mark(self, uuid: str) -> Mark | None:
        """Why the domain waits before the background does; None if it does not."""
        return self._urgent.get(uuid)

    @property
    def in_flight(self) -> int:
        """How many domains were taken and are not done."""
        return len(self._in_flight)

    def in_flight_now(self, uuid: str) -> bool:
        """Whether the domain was taken and is not done."""
        return uuid in self._in_flight

    def mark(self, uuid: str, mark: Mark) -> None:
        """The domain may have changed: read it. An event outranks an audit's mark."""
        if uuid in self._in_flight:
            waiting = self._in_flight[uuid]
            if waiting is None or _outranks(mark, waiting):
                self._in_flight[uuid] = _newest(mark, waiting)
        elif mark.cause in _BACKGROUND:
            if self.background_first and uuid in self._urgent:
                self._background[uuid] = self._urgent.pop(uuid)
            elif uuid not in self._urgent and _outranks(mark, self._background.get(uuid, mark)):
                self._background[uuid] = mark
        elif self.background_first and uuid in self._background:
            self._background[uuid] = _newest(mark, self._background[uuid])
        else:
            replaced = self._background.pop(uuid, None) or self._urgent.get(uuid)
            self._urgent[uuid] = _newest(mark, replaced)

    def look_again(self, uuid: str, at: float) -> None:
        """Read the domain at the time ``at``.

        Of several times the earliest counts, and then once more the latest: what asked for that
        one may not have been true yet at the first.
        """
        self._last_look[uuid] = max(at, self._last_look.get(uuid, at))
        self._looks.add(uuid, at)

    def looks_at(self, uuid: str) -> bool:
        """Whether a time is planned at which the domain is to be read."""
        return uuid in self._looks

    @property
    def next_look(self) -> float | None:
        """When :meth:`wake` has something to do; None when nothing is planned."""
        return self._looks.next_at if self._looks else None

    def wake(self, now: float) -> None:
        """Mark every domain whose time to be looked at again has come."""
        for uuid in self._looks.take(now, len(self._looks)):
            last = self._last_look.pop(uuid)
            if last > now:
                self.look_again(uuid, last)
            if uuid not in self._urgent:
                self.mark(uuid, Mark(Cause.LOOK_AGAIN))

    def take(self, background: bool, most: int) -> list[tuple[str, Mark]]:
        """The next domains to read, now in flight; fewer than ``most`` where there are no more.

        Events and look-agains mark one set, audits and resyncs the other; each is read in the
        order of marking, and neither waits for the other.
        """
        marks = self._background if background else self._urgent
        taken = [marks.popitem(last=False) for _ in range(min(most, len(marks)))]
        for uuid, _ in taken:
            self._in_flight[uuid] = None
        return taken

    def put_back(self, uuid: str, mark: Mark) -> None:
        """The domain was taken, and its read never began: it waits again, for ``mark``."""
        waiting = self._in_flight.pop(uuid)
        self.mark(uuid, mark)
        if waiting is not None:
            self.mark(uuid, waiting)

    def done(self, uuid: str) -> None:
        """The read returned. A mark that came meanwhile takes its place in the line."""
        waiting = self._in_flight.pop(uuid, None)
        if waiting is not None:
            self.mark(uuid, waiting)

    def reads_due(self, uuid: str) -> int:
        """How many reads of the domain must still end until its marks are served: 0, 1 or 2."""
        if uuid in self._in_flight:
            return 1 if self._in_flight[uuid] is None else 2
        return int(uuid in self._urgent or uuid in self._background)

    def pending(self) -> set[str]:
        """Every domain that is marked or in flight."""
        return {*self._urgent, *self._background, *self._in_flight}


_BACKGROUND = frozenset({Cause.AUDIT, Cause.RESYNC})


def _newest(mark: Mark, replaced: Mark | None) -> Mark:
    """``mark``, with the number of the event that ``replaced`` waits for, if that is newer."""
    if replaced is None or replaced.number <= mark.number:
        return mark
    return mark._replace(number=replaced.number)


def _outranks(new: Mark, old: Mark) -> bool:
    return new.cause not in _BACKGROUND or old.cause in _BACKGROUND
