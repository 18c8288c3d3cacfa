"""The connections that reads go through: two at rest, and spare ones in need.

One has the events, and reads what they mark. Another one lists, and reads for the audit, so
that the two never wait for each other. Answers come behind the events that libvirtd sent before
them, so what they mark waits until a backlog is worked off; or, where that takes too long, is
read through the other one.

A read that hangs holds its connection's only thread until libvirt answers; meanwhile spare
connections read the domains that libvirt still answers for. They are closed when they are no
longer needed.

Memory: up to six spare connections. libvirtd has twenty workers for all its clients, and each
read that hangs takes one. On a host with more locked domains than these lanes hold, what else
events mark waits until one of them is answered, and is named until then.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from time import monotonic
from typing import Final

from asynchost.errors import HypervisorRefusedError, HypervisorUnavailableError
from asynchost.hypervisor.batch import Batch
from asynchost.hypervisor.call_thread import Call, CallNotMadeError
from asynchost.hypervisor.connection import Connection

# A thousand times what a healthy read takes, and more than a busy machine lets a thread wait for
# its turn: this one is waiting for something else.
PATIENCE_SECONDS: Final = 0.1
# Then it is worth a connection, which takes a few milliseconds to open.
_HELD_SECONDS: Final = 0.3
# While a backlog of events is worked off, what they mark is not read: a later event of the same
# backlog would mark most of it again, and the reading would hold up the loop. After so long it is a
# storm, of which no end is known. Then one batch is read every so often.
_BACKLOG_SECONDS: Final = 1.0
_STORM_SPACING_SECONDS: Final = 0.1
# More than any backlog takes that libvirtd keeps a connection for.
_CATCH_UP_SECONDS: Final = 30.0
_MOST_SPARES: Final = 6
_OPEN_AGAIN_SECONDS: Final = 5.0


class Lane:
    """One connection, and the batches handed to its thread."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.batches: set[Batch] = set()
        self._calls: set[Call] = set()
        self._late_seconds = 0.0
        self.counted_from = float("-inf")
        """Before this the process stood still: no read is late for it."""
        self._catches_up_until = float("-inf")
        self._handed_on = 0

    @property
    def held(self) -> bool:
        """Whether the thread hangs in a read, or in a listing that was given up."""
        return self._late_seconds >= _HELD_SECONDS or any(
            call.abandoned for call in self.connection.thread.in_flight
        )

    def hangs(self, seconds: float) -> bool:
        """Whether it has been held for so long."""
        now = monotonic()
        return self._late_seconds >= seconds or any(
            call.abandoned_at is not None and now - call.abandoned_at >= seconds
            for call in self.connection.thread.in_flight
        )

    @property
    def free(self) -> bool:
        """Whether a batch can be handed over: one is being read, and one more may wait, so that
        the thread need not wait for the loop in between. A listing goes alone."""
        return (
            self._late_seconds == 0
            and len(self.batches) < 2
            and self.connection.thread.in_flight <= self._calls
        )

    def submit(self, batch: Batch, done: Callable[[Call], None]) -> None:
        """Hand the batch to the thread; ``done`` is called on the loop when it came back.

        Raises :class:`CallNotMadeError`.
        """

        def came_back(call: Call) -> None:
            self._calls.discard(call)
            self.batches.discard(batch)
            self.late(monotonic())
            done(call)

        call = Call(batch, came_back)
        self._calls.add(call)
        self.batches.add(batch)
        try:
            self.connection.thread.submit(call)
        except CallNotMadeError:
            self._calls.discard(call)
            self.batches.discard(batch)
            raise

    def count_anew(self, now: float, *, standstill: bool) -> None:
        """No read is late for the time in which the process stood still, nor for the time that
        it takes to read what has come meanwhile: the answer may stand behind it.

        libvirtd, which has most of that, may be slower than the loop, so that there is seldom
        much in the socket. And in a storm there is no end of it.
        """
        if standstill:
            self._catches_up_until = now + _CATCH_UP_SECONDS
        elif now >= self._catches_up_until:
            return
        self.counted_from = now
        before, self._handed_on = self._handed_on, self.connection.handed_on
        if not (standstill or self.connection.unread or self._handed_on > before):
            self._catches_up_until = now

    def late(self, now: float) -> tuple[Batch, str, float] | None:
        """The batch whose present read takes suspiciously long: (batch, domain, seconds)."""
        self._late_seconds = 0.0
        for batch in self.batches:
            if batch.current is not None:
                uuid, since = batch.current
                since = max(since, self.counted_from)
                if now - since >= PATIENCE_SECONDS:
                    self._late_seconds = now - since
                    return batch, uuid, now - since
        return None

    def stands_still(self, now: float, seconds: float) -> bool:
        """Whether it was given batches, and for so long has begun with none of their reads.

        A read that hangs is another matter: see :meth:`late`. Here the thread itself is gone, or
        is in something that nobody knows of.
        """
        waiting = [max(batch.moved_at, self.counted_from) for batch in self.batches]
        return (
            bool(waiting)
            and all(batch.current is None for batch in self.batches)
            and now - max(waiting) >= seconds
        )


class ReadLanes:
    """All lanes of one host.

    ``events`` belongs to somebody else, and so does what :meth:`list_through` is given; until
    then, and where the driver runs inside this process, there is one for both. ``make`` makes a
    connection that is not open yet; ``on_more`` is called on the loop when a lane has been added.
    """

    def __init__(
        self,
        events: Connection,
        make: Callable[[], Connection],
        on_more: Callable[[], None],
    ) -> None:
        self._make = make
        self._on_more = on_more
        self.events = self.listing = Lane(events)
        self._spares: list[Lane] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._behind_until: float | None = None
        """While the events' connection is behind: until when what they mark waits for it."""
        self._open_again_at = float("-inf")
        self._opening = False
        self._hung: Connection | None = None

    def list_through(self, listing: Connection) -> None:
        """From now on another connection lists, and reads for the audit."""
        self.listing = Lane(listing)

    def __iter__(self) -> Iterator[Lane]:
        yield self.events
        if self.listing is not self.events:
            yield self.listing
        yield from self._spares

    def free(self, *, background: bool) -> Lane | None:
        """A lane that takes a batch of this kind; None when there is none at the moment."""
        if background:
            return self._free_of(self.listing)
        if not self.events.connection.is_behind():
            self._behind_until = None
            return self._free_of(self.events)
        now = monotonic()
        if self._behind_until is None:
            self._behind_until = now + _BACKLOG_SECONDS
        if now < self._behind_until:
            return None
        # The other one may be at a listing, which a locked domain can hold for long.
        lane = self._free_of(self.listing) or self._free_of(self.events)
        if lane is not None:
            self._behind_until = now + _STORM_SPACING_SECONDS
        return lane

    def leaves_off(self, lane: Lane) -> bool:
        """Whether a batch that this lane is given now ends once its answers would come behind a
        backlog of events.

        No other connection has events. And before there is another one, or where that one does
        not serve in a storm, it has to be read behind them.
        """
        return lane is self.events and lane is not self.listing and self._behind_until is None

    def _free_of(self, own: Lane) -> Lane | None:
        if own.free:
            return own
        return next((lane for lane in self._spares if lane.free), None) if own.held else None

    def hang(self, seconds: float, *, background: bool) -> bool:
        """Whether there is none left for what events mark, or for the background, has been none
        for so long, and none is being opened."""
        own = self.listing if background else self.events
        return not self._opening and all(lane.hangs(seconds) for lane in (own, *self._spares))

    def tend(self) -> None:
        """Open a spare connection when one is missing, close those not needed any more."""
        if self.events.connection.in_process:
            return  # another connection may be another host
        if self.events.held or self.listing.held:
            if all(lane.held for lane in self._spares):
                self._open_one_more()
            return
        for lane in [lane for lane in self._spares if not lane.batches]:
            self._spares.remove(lane)
            lane.connection.close()
            self._start(lane.connection.aclose())

    def _open_one_more(self) -> None:
        if self._hung is not None and not self._hung.closed.done():
            return  # so would this one, and hold one more thread
        room = len(self._spares) < _MOST_SPARES
        if room and not self._opening and monotonic() >= self._open_again_at:
            self._opening = True
            self._start(self._open())

    async def _open(self) -> None:
        connection = self._make()
        try:
            await connection.open()
        except BaseException as error:
            connection.close()
            self._hung = connection
            self._open_again_at = monotonic() + _OPEN_AGAIN_SECONDS
            if not isinstance(error, HypervisorUnavailableError | HypervisorRefusedError):
                raise
        else:
            self._spares.append(Lane(connection))
            self._on_more()
        finally:
            self._opening = False

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Begin to close the spare connections."""
        for task in self._tasks:
            task.cancel()
        for lane in self._spares:
            lane.connection.close()

    async def aclose(self) -> None:
        """:meth:`close`, and wait until it is done. Cancelling is safe."""
        self.close()
        await asyncio.gather(
            *self._tasks,
            *(lane.connection.aclose() for lane in self._spares),
            return_exceptions=True,
        )
