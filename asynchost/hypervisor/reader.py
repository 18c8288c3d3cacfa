"""Reads the domains of one connection: those that events marked first, each within a deadline.

The agenda says which domain is next; threads read; what they return goes to one sink, on the
loop. A read that outlives its deadline marks its domain *stuck* and holds one thread until
libvirt answers; the other domains go on through the others.

Memory: one agenda entry per marked domain, one ``virDomain`` for each event until the next
batch, one for each domain that is to be looked at again, and a few batches in the threads.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from math import ceil
from time import monotonic
from typing import Any, Final, Protocol

from asynchost.accounting import RUNNING_POSTCOPY
from asynchost.agenda import Agenda, Mark
from asynchost.errors import HypervisorUnavailableError
from asynchost.hypervisor.batch import Batch, Read, Result
from asynchost.hypervisor.call_thread import Call, CallNotMadeError, stood_still
from asynchost.hypervisor.connection import Connection, no_thread
from asynchost.hypervisor.domain_events import DomainEvent
from asynchost.hypervisor.read_lanes import PATIENCE_SECONDS, Lane, ReadLanes
from asynchost.model import Cause, DomainState, Observation
from asynchost.settings import MonitorSettings

# Handing over costs as much as reading two domains. So where many wait, more go at a time: those
# wait for each other anyway, and the results of the largest keep the loop for a millisecond. In
# the background, where nobody waits for one of them, as many as make the largest.
_BATCH: Final = 16
_LARGEST_BATCH: Final = 64
_BATCH_SHARE: Final = 4
# By this share of the look-again time a look may come later than planned.
_LOOK_GRID: Final = 0.25
_RETRY_BOUND_SECONDS: Final = 30.0
_MOST_DOUBLINGS: Final = 10
_MOST_SPENT: Final = 1000
_UNREACHED: Final = (
    "the reads of others hang, and no further connection is opened to read it through"
)
_IN_POSTCOPY: Final = (DomainState.RUNNING, RUNNING_POSTCOPY)


class ReadSink(Protocol):
    """Who is told what the reads returned. Called on the loop."""

    def observed(self, observation: Observation, mark: Mark) -> None:
        """The domain was read."""

    def gone(self, uuid: str, mark: Mark) -> None:
        """libvirt knows no such domain: the only error that means so."""

    def unreadable(self, uuid: str, reason: str, *, stuck: bool) -> None:
        """The read failed, or outlived its deadline; the last record stands."""


class Reader:
    """The reads of one connection."""

    def __init__(
        self,
        events: Connection,
        make_spare: Callable[[], Connection],
        sink: ReadSink,
        settings: MonitorSettings,
    ) -> None:
        self._connection = events
        self._sink = sink
        self._deadline_seconds = settings.call_deadline_seconds
        self._look_again_seconds = settings.look_again_seconds
        # An object keeps the name that it came with; one that is looked up has today's.
        self._look_up = settings.policy.by_name
        self._loop = asyncio.get_running_loop()
        self._agenda = Agenda()
        self._lanes = ReadLanes(events, make_spare, on_more=self.pump)
        self._domains: dict[str, tuple[Lane, Any]] = {}
        self._to_look_at: dict[str, Any] = {}
        self._paused_reasons: dict[str, int] = {}
        # Freeing one of libvirt's objects gives up the interpreter's lock, for which the loop
        # may then have to wait. So those that are not needed are freed with the next batch.
        self._spent: list[Any] = []
        self._migrating: set[str] = set()
        self._failures: dict[str, int] = {}
        self._waiters: list[_Waiter] = []
        self._pump_scheduled = False
        self._tick: asyncio.TimerHandle | None = None
        self._tick_due = 0.0
        self._look: asyncio.TimerHandle | None = None
        self._closed = False
        self.stuck: set[str] = set()
        """Domains whose read has not come back within its deadline."""
        self.reads = 0
        """How many reads have returned."""

    @property
    def events_wait(self) -> bool:
        """Whether a domain that an event marked waits to be read."""
        return self._agenda.waiting(background=False) > 0

    def event_that_waits(self, uuid: str) -> Mark | None:
        """The mark of an event for which the domain waits to be read; None if there is none."""
        mark = self._agenda.urgent_mark(uuid)
        return mark if mark is not None and mark.cause is Cause.EVENT else None

    def has_events_of(self, connection: Connection) -> bool:
        """Whether it is the connection that has the events."""
        return connection is self._connection

    def list_through(self, listing: Connection) -> None:
        """Read for audits through another connection from now on."""
        self._lanes.list_through(listing)

    # -- what is to be read ---------------------------------------------------------------------

    def event(self, event: DomainEvent, number: int = 0) -> None:
        """libvirt said that something happened to a domain: read it at the next :meth:`pump`.

        ``number`` is the event's for those who listen to events.
        """
        if self._closed:
            return
        if event.migration:
            self._migrating.add(event.uuid)
        if event.look_again:
            self.look_again(event.uuid)
        if event.look_again or event.uuid in self._to_look_at:
            # The newest object, since it has the newest name.
            self._spend(self._to_look_at.get(event.uuid))
            self._to_look_at[event.uuid] = event.domain
        if event.uuid not in self._domains:
            self._domains[event.uuid] = (self._lanes.events, event.domain)
        else:
            self._spend(event.domain)
        self._agenda.mark(event.uuid, Mark(Cause.EVENT, event.detail, number))

    def _spend(self, domain: Any) -> None:
        if domain is not None and len(self._spent) < _MOST_SPENT:
            self._spent.append(domain)

    def mark(self, uuid: str, mark: Mark) -> None:
        """Read the domain soon."""
        if self._closed:
            return
        self._agenda.mark(uuid, mark)
        self._pump_soon()

    def _pump_soon(self) -> None:
        # One round later, so that many are handed out at once and in one go.
        if not self._pump_scheduled:
            self._pump_scheduled = True
            self._loop.call_soon(self.pump)

    def look_again(self, uuid: str, delay_seconds: float | None = None) -> None:
        """Read the domain once more after a delay; the look-again time by default."""
        delay = self._look_again_seconds if delay_seconds is None else delay_seconds
        # On a grid, so that those of a storm share one hand-over to the thread and back.
        grid = self._look_again_seconds * _LOOK_GRID
        self._agenda.look_again(uuid, ceil((self._loop.time() + delay) / grid) * grid)
        self._plan_look()

    async def read_all(
        self, uuids: Iterable[str], mark: Mark, domains: MutableMapping[str, Any] | None = None
    ) -> None:
        """Read each domain once, from now on; returns when each was read, or proved unreadable.

        ``domains`` are the objects of the connection that lists; they are taken out of it.
        Raises :class:`HypervisorUnavailableError` when the connection is lost meanwhile.
        Cancelling is safe: the reads go on, and nobody waits for them.
        """
        marked = list(uuids)
        self._mark_all(marked, mark, {} if domains is None else domains)
        await self._wait({uuid: self._agenda.reads_due(uuid) for uuid in marked})

    async def read_first(
        self,
        uuids: Iterable[str],
        mark: Mark,
        domains: MutableMapping[str, Any],
        paused_reasons: Mapping[str, int],
    ) -> None:
        """Like :meth:`read_all`, before all that events mark, and only once.

        So events that come faster than domains can be read hold it up for the length of one
        batch: a read that was under way when this was called counts as well, and a domain that an
        event marks after its read is read again later.

        ``paused_reasons`` are good for this read of each; those of domains that are marked
        already, or will be by an event, are asked for.
        """
        marked = list(uuids)
        due = {uuid: self._agenda.reads_due(uuid) for uuid in marked}
        if not self._closed:
            self._paused_reasons = {
                uuid: reason for uuid, reason in paused_reasons.items() if not due.get(uuid)
            }
        self._agenda.background_first = True
        try:
            # One under way has begun since the events were registered: it need not come again.
            waiting = [uuid for uuid in marked if not self._agenda.in_flight_now(uuid)]
            self._mark_all(waiting, mark, domains)
            domains.clear()  # each one left keeps the connection open
            await self._wait(dict.fromkeys(marked, 1))
        finally:
            self._agenda.background_first = False
            self._paused_reasons.clear()

    def _mark_all(
        self, uuids: Iterable[str], mark: Mark, domains: MutableMapping[str, Any]
    ) -> None:
        # Not within the coroutine: a traceback may keep its frame, and that the last domain.
        if self._closed:
            domains.clear()
            return
        for uuid in uuids:
            domain = domains.pop(uuid, None)
            if domain is not None:
                self._domains.setdefault(uuid, (self._lanes.listing, domain))
            self._agenda.mark(uuid, mark)
        self._pump_soon()

    async def settle(self) -> None:
        """Wait until every domain that is marked *now* was read. Cancelling is safe."""
        # A read that is under way began before now: a domain marked meanwhile takes another.
        await self._wait({uuid: self._agenda.reads_due(uuid) for uuid in self._agenda.pending()})

    async def _wait(self, reads: Mapping[str, int]) -> None:
        """Wait until so many reads of each domain have come back."""
        if self._closed:
            raise HypervisorUnavailableError(self._connection.uri, "the connection was lost")
        # One that is stuck is not waited for: it may hang for ever.
        expected = {uuid: due for uuid, due in reads.items() if due and uuid not in self.stuck}
        if not expected:
            return
        waiter = _Waiter(expected, self._loop.create_future())
        self._waiters.append(waiter)
        try:
            await waiter.future
        finally:
            self._waiters.remove(waiter)

    # -- handing out ----------------------------------------------------------------------------

    def pump(self) -> None:
        """Hand out what is marked, as far as there are free lanes."""
        self._pump_scheduled = False
        if self._closed:
            return
        order = (True, False) if self._agenda.background_first else (False, True)
        lacking = [background for background in order if not self._hand_out(background)]
        waits = self._agenda.in_flight > len(self.stuck) or lacking
        if waits and self._tick is None:
            self._tick_due = self._loop.time() + PATIENCE_SECONDS
            self._tick = self._loop.call_at(self._tick_due, self._look_for_late)

    def _hand_out(self, background: bool) -> bool:
        """Hand marked domains to free lanes; False when one is lacking."""
        while self._agenda.waiting(background):
            lane = self._lanes.free(background=background)
            if lane is None or not self._submit(lane, self._take_batch(lane, background)):
                return False
        return True

    def _take_batch(self, lane: Lane, background: bool) -> list[Read]:
        waiting = self._agenda.waiting(background)
        share = 1 if background else _BATCH_SHARE
        size = min(max(waiting // share, _BATCH), _LARGEST_BATCH)
        reads: list[Read] = []
        for uuid, mark in self._agenda.take(background, size):
            # libvirt's objects belong to the connection that they came through.
            home, domain = self._domains.pop(uuid, (lane, None))
            if uuid in self._to_look_at:
                if domain is None:
                    home, domain = self._lanes.events, self._to_look_at[uuid]
                # Not only by the look itself, which may have become one with an event's read.
                if not self._agenda.looks_at(uuid):
                    self._spend(self._to_look_at.pop(uuid))
            if self._look_up or home is not lane:
                self._spend(domain)
                domain = None
            reason = self._paused_reasons.pop(uuid, None)
            if mark.cause is not Cause.RESYNC:
                reason = None
            reads.append(Read(uuid, mark, domain, uuid in self._migrating, reason))
        return reads

    def _submit(self, lane: Lane, reads: list[Read]) -> bool:
        """Hand the reads to the lane; False where it does not take them."""
        is_behind = lane.connection.is_behind if self._lanes.leaves_off(lane) else _never
        batch = Batch(lane.connection.handle, reads, self._spent, is_behind)
        self._spent = []

        def done(call: Call) -> None:
            if call.error is not None:  # no domain's read: the thread could not do its work
                self._take_back(lane, batch)
                self._connection.declare_lost(f"reading failed: {call.error!r}")
                raise call.error
            self._returned(lane, batch)

        try:
            lane.submit(batch, done)
        except CallNotMadeError as error:
            # An outage: what is not read now would be wrong, and called fresh.
            self._take_back(lane, batch)
            self._connection.declare_lost(no_thread(error))
            return False
        return True

    def _take_back(self, lane: Lane, batch: Batch) -> None:
        for read in batch.take_back():
            if read.domain is not None:
                self._domains.setdefault(read.uuid, (lane, read.domain))
            self._agenda.put_back(read.uuid, read.mark)
            # Two reads that were due may have become one.
            for waiter in self._waiters:
                waiter.expect_at_most(read.uuid, self._agenda.reads_due(read.uuid))

    # -- what came back -------------------------------------------------------------------------

    def _returned(self, lane: Lane, batch: Batch) -> None:
        if self._closed:
            return
        self._read(batch.take_results())
        self._take_back(lane, batch)  # what it left to a connection that is not behind
        if self._agenda.in_flight <= len(self.stuck):
            self._spent.clear()  # nothing is under way that the lock could be lost to
        self._lanes.tend()
        self.pump()

    def _read(self, results: list[Result]) -> None:
        self.reads += len(results)
        for uuid, mark, observation, error in results:
            self.stuck.discard(uuid)
            self._agenda.done(uuid)
            try:
                if error is None:
                    self._tell(uuid, mark, observation)
                elif isinstance(error, HypervisorUnavailableError):
                    self._connection.declare_lost(error.reason)
                else:
                    self._failed(uuid, str(error))
            except Exception as fault:  # noqa: BLE001 - a listener's stops no other domain's read
                self._loop.call_exception_handler(
                    {"message": "asynchost: telling of a read failed", "exception": fault}
                )
        for waiter in self._waiters:
            waiter.came_back(results)

    def _tell(self, uuid: str, mark: Mark, observation: Observation | None) -> None:
        self._failures.pop(uuid, None)
        # A mark that came during the read may be the migration's.
        if uuid in self._migrating and not (
            _is_in_postcopy(observation) or self._agenda.reads_due(uuid)
        ):
            self._migrating.discard(uuid)
        if observation is None:
            self._sink.gone(uuid, mark)
        else:
            self._sink.observed(observation, mark)

    def _failed(self, uuid: str, reason: str) -> None:
        """Anything but "no such domain" means: try again, and never "gone"."""
        failures = self._failures[uuid] = self._failures.get(uuid, 0) + 1
        doublings = min(failures - 1, _MOST_DOUBLINGS)
        self.look_again(uuid, min(self._look_again_seconds * 2**doublings, _RETRY_BOUND_SECONDS))
        self._sink.unreadable(uuid, reason, stuck=False)

    # -- reads that are late --------------------------------------------------------------------

    def _look_for_late(self) -> None:
        self._tick = None
        now = monotonic()
        standstill = stood_still(self._loop.time() - self._tick_due)
        for lane in list(self._lanes):
            lane.count_anew(now, standstill=standstill)
            if lane.stands_still(now, self._deadline_seconds):
                self._connection.declare_lost("reads that were handed over were not begun")
            late = lane.late(now)
            if late is None:
                continue
            batch, uuid, seconds = late
            # The others need not wait for this one.
            for waiting in lane.batches:
                self._take_back(lane, waiting)
            results = batch.take_results()
            self._read(results)
            came_back = any(result.uuid == uuid for result in results)
            if seconds >= self._deadline_seconds and not came_back and uuid not in self.stuck:
                self._call_stuck(uuid)
        self._lanes.tend()
        self.pump()
        self._name_unreached()

    def _name_unreached(self) -> None:
        """Name the domains that wait for a connection while each one hangs in a read.

        An audit does not wait for them: a locked domain of which no event came is named by it, and
        so are those that come after it.
        """
        for background in (False, True):
            if self._agenda.waiting(background) and self._lanes.hang(
                self._deadline_seconds, background=background
            ):
                for uuid in self._agenda.line(background):
                    self._sink.unreadable(uuid, _UNREACHED, stuck=False)
                    if background:
                        for waiter in self._waiters:
                            waiter.give_up(uuid)

    def _call_stuck(self, uuid: str) -> None:
        self.stuck.add(uuid)
        reason = f"no answer within {self._deadline_seconds:g} s"
        self._sink.unreadable(uuid, reason, stuck=True)
        for waiter in self._waiters:
            waiter.give_up(uuid)

    # -- looking again --------------------------------------------------------------------------

    def _plan_look(self) -> None:
        at = self._agenda.next_look
        if at is not None and (self._look is None or at < self._look.when()):
            if self._look is not None:
                self._look.cancel()
            self._look = self._loop.call_at(at, self._wake)

    def _wake(self) -> None:
        self._look = None
        # A millisecond of grace: the loop rounds its timers to its clock's resolution.
        self._agenda.wake(self._loop.time() + 0.001)
        self._plan_look()
        self.pump()

    def close(self) -> None:
        """Read no more. What is still under way is forgotten; waiters are let go."""
        self._closed = True
        if self._loop.is_closed():
            return
        for timer in (self._tick, self._look):
            if timer is not None:
                timer.cancel()
        for lane in self._lanes:
            for batch in lane.batches:
                batch.take_back()
                batch.spent.clear()
        self._domains.clear()
        self._to_look_at.clear()
        self._spent.clear()
        self._lanes.close()
        for waiter in self._waiters:
            if not waiter.future.done():
                waiter.future.set_exception(
                    HypervisorUnavailableError(self._connection.uri, "the connection was lost")
                )

    async def aclose(self) -> None:
        """:meth:`close`, and wait for the spare connections to close. Cancelling is safe."""
        self.close()
        await self._lanes.aclose()


def _never() -> bool:
    return False


def _is_in_postcopy(observation: Observation | None) -> bool:
    return observation is not None and (observation.state, observation.reason) == _IN_POSTCOPY


class _Waiter:
    """Somebody who waits for a set of domains to be read."""

    __slots__ = ("expected", "future")

    def __init__(self, expected: dict[str, int], future: asyncio.Future[None]) -> None:
        self.expected = expected  # the number of reads that must come back, per domain
        self.future = future

    def expect_at_most(self, uuid: str, reads: int) -> None:
        if uuid in self.expected:
            self.expected[uuid] = min(self.expected[uuid], reads)

    def came_back(self, results: list[Result]) -> None:
        """Reads have returned."""
        for result in results:
            remaining = self.expected.pop(result.uuid, 0)
            if remaining > 1:
                self.expected[result.uuid] = remaining - 1
        self._settle()

    def give_up(self, uuid: str) -> None:
        """The domain's reads will not return in time."""
        self.expected.pop(uuid, None)
        self._settle()

    def _settle(self) -> None:
        if not self.expected and not self.future.done():
            self.future.set_result(None)
