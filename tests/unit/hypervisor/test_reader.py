"""The reader: what an event marked first, one read at a time per domain, and stuck ones apart."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from asynchost.accounting import Policy
from asynchost.agenda import Mark
from asynchost.errors import HypervisorUnavailableError
from asynchost.hypervisor import read_lanes
from asynchost.hypervisor import reader as reader_module
from asynchost.hypervisor.connection import Connection
from asynchost.hypervisor.domain_events import DomainEvent
from asynchost.hypervisor.reader import Reader
from asynchost.model import Cause, DomainState, Observation
from asynchost.settings import MonitorSettings
from tests.support.libvirtd import silence_libvirt
from tests.support.waiting import eventually, eventually_equal
from tests.unit.hypervisor.domains import DEADLINE_SECONDS, Domain

EVENT = Mark(Cause.EVENT, "event")
AUDIT = Mark(Cause.AUDIT)
UNKNOWN = "6f000000-0000-4000-8000-00000000dead"
TEST_UUID = "6695eb01-f6a4-8304-79aa-97f2502e193f"
"""The one domain that libvirt's test driver begins with."""
# A deadline that no read misses but one that hangs, and looks that come soon after.
SETTINGS = MonitorSettings(call_deadline_seconds=0.5, look_again_seconds=0.05)


class Sink:
    """Everything that was told, in its order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.marks: list[Mark] = []
        self.observations: list[Observation] = []

    def observed(self, observation: Observation, mark: Mark) -> None:
        """A domain was read."""
        self.told.append(("observed", observation.uuid))
        self.observations.append(observation)
        self.marks.append(mark)

    def gone(self, uuid: str, mark: Mark) -> None:
        """There is no such domain."""
        self.told.append(("gone", uuid))
        self.marks.append(mark)

    def unreadable(self, uuid: str, reason: str, *, stuck: bool) -> None:
        """A read failed, or hangs."""
        self.told.append(("stuck" if stuck else "failed", uuid))


@pytest.fixture
def sink() -> Sink:
    """Who is told."""
    return Sink()


async def opened() -> Connection:
    """A connection to libvirt's test driver, inside this process."""
    connection = Connection("test:///default", SETTINGS)
    await connection.open()
    return connection


@pytest.fixture
async def reader(sink: Sink, gated: "Gated") -> AsyncIterator[Reader]:
    """A reader of two connections, as of a libvirtd; they share the one host of this process."""
    silence_libvirt()
    events, listing = await opened(), await opened()
    # As of a daemon: another connection is the same host.
    events.in_process = listing.in_process = False
    reader = Reader(events, lambda: Connection(events.uri, SETTINGS), sink, SETTINGS)
    reader.list_through(listing)
    yield reader
    gated.open_all()
    await reader.aclose()
    await events.aclose()
    await listing.aclose()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No read is late, however long the machine takes over a test: none is made elsewhere."""
    for module in (reader_module, read_lanes):
        monkeypatch.setattr(module, "PATIENCE_SECONDS", DEADLINE_SECONDS)


class Gated:
    """Domains whose reads wait for the test."""

    def __init__(self) -> None:
        self._domains: list[Domain] = []

    def __call__(self, uuid: str) -> Domain:
        self._domains.append(Domain(uuid, open_gate=False))
        return self._domains[-1]

    def open_all(self) -> None:
        """Let every read return."""
        for domain in self._domains:
            domain.gate.set()


@pytest.fixture
def gated() -> Iterator[Gated]:
    """Make domains that block until their gate is opened, or the test ends."""
    gated = Gated()
    yield gated
    gated.open_all()


def event(domain: Domain, **more: bool) -> DomainEvent:
    """An event of the domain."""
    return DomainEvent(domain.uuid, domain, "event", **more)


def happens(reader: Reader, *events: DomainEvent) -> None:
    """They come in one go, as a connection hands them on."""
    for one in events:
        reader.event(one)
    reader.pump()


async def test_an_events_domain_is_read_and_told(reader: Reader, sink: Sink) -> None:
    """Through the event's own object, with the event's word for it."""
    domain = Domain("a")
    happens(reader, event(domain))
    await reader.settle()
    assert sink.told == [("observed", "a")]
    assert sink.marks == [EVENT]
    assert sink.observations[0].vcpus == 2
    assert reader.reads == 1


async def test_where_names_decide_a_domain_is_looked_up(sink: Sink) -> None:
    """The object that came with an event has the name of then; a look-up has today's."""
    settings = replace(SETTINGS, policy=Policy(include=("te*",)))
    connection = Connection("test:///default", settings)
    await connection.open()
    reader = Reader(connection, lambda: connection, sink, settings)
    domain = Domain(TEST_UUID)
    happens(reader, event(domain))
    await eventually_equal(lambda: sink.told, [("observed", TEST_UUID)], DEADLINE_SECONDS)
    assert (sink.observations[0].name, domain.reads) == ("test", 0)
    await reader.aclose()
    await connection.aclose()


async def test_a_burst_of_events_of_one_domain_is_one_read(reader: Reader, sink: Sink) -> None:
    """They say the same: read it."""
    domain = Domain("a")
    happens(reader, *[event(domain)] * 50)
    await reader.settle()
    assert domain.reads == 1


@pytest.mark.usefixtures("patient")
async def test_a_domain_marked_while_it_is_read_is_read_once_more(
    reader: Reader, sink: Sink, gated: Gated
) -> None:
    """Never twice at the same time."""
    domain = gated("a")
    happens(reader, event(domain))
    await eventually(domain.entered.is_set)
    happens(reader, *[event(domain)] * 3)
    settled = asyncio.create_task(reader.settle())
    await asyncio.sleep(0)
    assert domain.reads == 1
    domain.gate.set()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await settled
    assert domain.reads == 2
    assert sink.told == [("observed", "a"), ("observed", "a")]


async def test_a_domain_that_libvirt_does_not_know_is_gone(reader: Reader, sink: Sink) -> None:
    """It is looked up by its UUID where no event brought an object."""
    reader.mark(UNKNOWN, AUDIT)
    await reader.settle()
    assert sink.told == [("gone", UNKNOWN)]
    assert sink.marks == [AUDIT]


@pytest.mark.usefixtures("patient")
async def test_an_event_does_not_wait_for_the_audit(
    reader: Reader, sink: Sink, gated: Gated
) -> None:
    """Each has a connection, and so a thread, of its own."""
    first, urgent = gated("audit-0"), Domain("event")
    domains = {"audit-0": first} | {f"audit-{n}": Domain(f"audit-{n}") for n in range(1, 8)}
    audit = asyncio.create_task(reader.read_all(domains, AUDIT, dict(domains)))
    await eventually(first.entered.is_set)
    happens(reader, event(urgent))
    await eventually_equal(lambda: sink.told, [("observed", "event")])
    first.gate.set()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await audit
    assert sorted(uuid for _, uuid in sink.told) == sorted([*domains, "event"])


async def test_a_stuck_domain_is_told_and_is_not_waited_for(
    reader: Reader, sink: Sink, gated: Gated
) -> None:
    """Nor read again before that call has returned; then it is, for what was marked meanwhile."""
    stuck = gated("stuck")
    happens(reader, event(stuck))
    async with asyncio.timeout(DEADLINE_SECONDS):
        await reader.settle()
        assert reader.stuck == {"stuck"}
        happens(reader, event(stuck))
        await reader.settle()
        await reader.read_all(["stuck"], AUDIT)
    assert sink.told == [("stuck", "stuck")]
    assert stuck.reads == 1
    stuck.gate.set()
    await eventually_equal(lambda: sink.told[1:], 2 * [("observed", "stuck")])
    assert reader.stuck == set()


async def test_a_process_that_stood_still_calls_no_domain_stuck(
    reader: Reader, sink: Sink, gated: Gated
) -> None:
    """The deadline has passed, and nothing was slow but the process itself."""
    domain = gated("a")
    happens(reader, event(domain))
    await eventually(domain.entered.is_set)
    time.sleep(3 * SETTINGS.call_deadline_seconds)  # noqa: ASYNC251 - the fault under test
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    domain.gate.set()
    await reader.settle()
    assert sink.told == [("observed", "a")]


@pytest.fixture
def backlog(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> Iterator[set[Connection]]:
    """The connections that have more unread in their socket than can be worked off at once."""
    behind: set[Connection] = set()
    monkeypatch.setattr(Connection, "unread", property(lambda self: self in behind))
    yield behind
    behind.clear()


@pytest.mark.parametrize("in_socket", [True, False], ids=["in the socket", "libvirtd has it"])
async def test_no_domain_is_stuck_while_its_answer_may_stand_behind_a_backlog(
    reader: Reader,
    sink: Sink,
    gated: Gated,
    backlog: set[Connection],
    monkeypatch: pytest.MonkeyPatch,
    in_socket: bool,
) -> None:
    """Of what has come while the process stood still. When that is worked off, one is."""
    ticks: list[None] = []
    look_for_late = reader._look_for_late
    events = reader._lanes.events.connection

    def tick() -> None:
        ticks.append(None)
        if events in backlog and not in_socket:
            events.handed_on += 1
        look_for_late()

    reader._look_for_late = tick  # type: ignore[method-assign]
    domain = gated("a")
    happens(reader, event(domain))
    await eventually(domain.entered.is_set)
    await eventually(lambda: bool(ticks))
    if not in_socket:
        monkeypatch.setattr(Connection, "unread", False)
    backlog.add(events)
    time.sleep(2 * SETTINGS.call_deadline_seconds)  # noqa: ASYNC251 - the fault under test
    ticks.clear()
    # One comes each tenth of a second, so these take three times the deadline.
    await eventually(lambda: len(ticks) > 15)
    assert sink.told == []
    backlog.clear()
    await eventually_equal(lambda: sink.told, [("stuck", "a")])


async def test_what_a_backlog_without_end_marks_is_read_through_the_other_connection(
    reader: Reader, sink: Sink, gated: Gated, backlog: set[Connection]
) -> None:
    """Where that lasts; the rest of the batch that was under way as well. It is looked up there."""
    first, second, third = gated("first"), Domain(TEST_UUID), Domain(UNKNOWN)
    happens(reader, event(first), event(second))
    # The loop stands still until then, and takes the first read for late in no round of its own.
    assert first.entered.wait(DEADLINE_SECONDS)
    backlog.add(reader._lanes.events.connection)
    first.gate.set()
    await eventually_equal(lambda: sink.told, [("observed", "first"), ("observed", TEST_UUID)])
    happens(reader, event(third))
    await eventually_equal(lambda: sink.told[2:], [("gone", UNKNOWN)])
    assert second.reads == third.reads == 0
    backlog.clear()
    last = Domain("last")
    await eventually(lambda: not reader._lanes.events.connection.is_behind())
    happens(reader, event(last))
    await eventually_equal(lambda: sink.told[3:], [("observed", "last")])


async def test_a_storm_does_not_wait_for_a_listing(
    reader: Reader, sink: Sink, backlog: set[Connection]
) -> None:
    """Which a locked domain may hold for long: what is marked is read behind the events then."""
    gate = threading.Event()
    listing = reader._lanes.listing.connection
    listed = asyncio.create_task(listing.ask("list", lambda _: gate.wait(), DEADLINE_SECONDS))
    await eventually(lambda: bool(listing.thread.in_flight))
    backlog.add(reader._lanes.events.connection)
    happens(reader, event(Domain("a")))
    await eventually_equal(lambda: sink.told, [("observed", "a")])
    gate.set()
    await listed


async def test_other_domains_are_read_through_a_spare_connection(
    reader: Reader, sink: Sink, gated: Gated
) -> None:
    """Those that wait behind the one that hangs; libvirt's test driver has but one of its own."""
    stuck, others = gated("stuck"), [f"6f000000-0000-4000-8000-{n:012}" for n in range(5)]
    happens(reader, event(stuck))
    await eventually(stuck.entered.is_set)
    for uuid in (*others, TEST_UUID):
        reader.mark(uuid, EVENT)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await reader.settle()
    assert sorted(told for told in sink.told if told[0] != "stuck") == sorted(
        [*(("gone", uuid) for uuid in others), ("observed", TEST_UUID)]
    )
    stuck.gate.set()
    await eventually(lambda: ("observed", "stuck") in sink.told)
    await eventually_equal(lambda: len(list(reader._lanes)), 2)


async def test_what_no_connection_is_left_for_is_named(
    reader: Reader, sink: Sink, gated: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before those that hang are stuck; and it is read as soon as one of them answers."""
    monkeypatch.setattr("asynchost.hypervisor.read_lanes._MOST_SPARES", 0)
    stuck = gated("stuck")
    happens(reader, event(stuck))
    await eventually(stuck.entered.is_set)
    happens(reader, event(Domain(TEST_UUID)))
    await eventually(lambda: ("failed", TEST_UUID) in sink.told)
    assert sink.told[0] == ("stuck", "stuck")
    assert set(sink.told[1:]) == {("failed", TEST_UUID)}
    stuck.gate.set()
    await eventually_equal(lambda: sink.told[-2:], [("observed", "stuck"), ("observed", TEST_UUID)])


async def test_a_read_that_fails_is_repeated(reader: Reader, sink: Sink) -> None:
    """Soon, and never taken for "gone"; the test driver's own domain stands in the second time."""
    domain = Domain(TEST_UUID)
    domain.failures = 1
    happens(reader, event(domain))
    await eventually_equal(lambda: sink.told, [("failed", domain.uuid), ("observed", domain.uuid)])
    assert sink.marks == [Mark(Cause.LOOK_AGAIN)]


async def test_an_event_that_comes_before_its_number_is_looked_at_again(
    reader: Reader, sink: Sink
) -> None:
    """After the look-again time, however many such events there were, without a look-up."""
    domain = Domain("a")
    happens(reader, *[event(domain, look_again=True)] * 3)
    await eventually_equal(lambda: len(sink.told), 2)
    assert [mark.cause for mark in sink.marks] == [Cause.EVENT, Cause.LOOK_AGAIN]
    assert domain.reads == 2


@pytest.mark.usefixtures("patient")
async def test_an_object_kept_for_a_second_look_goes_with_it(
    reader: Reader, sink: Sink, gated: Gated
) -> None:
    """Also where the look became one with the read for another event: it pins its connection."""
    domain = gated("a")
    happens(reader, event(domain, look_again=True))
    await eventually(lambda: reader._agenda.next_look is None, describe="due during the read")
    happens(reader, event(domain))
    domain.gate.set()
    await reader.settle()
    assert [mark.cause for mark in sink.marks] == [Cause.EVENT, Cause.EVENT]
    assert reader._to_look_at == {}


async def test_a_migrating_domains_reason_is_asked_until_it_is_over(
    reader: Reader, sink: Sink
) -> None:
    """Post-copy stays; any other answer ends it."""
    domain = Domain("a")
    domain.state_values = (DomainState.RUNNING, 10)
    happens(reader, event(domain, migration=True))
    await reader.settle()
    happens(reader, event(domain))
    await reader.settle()
    domain.state_values = (DomainState.RUNNING, 5)
    happens(reader, event(domain))
    await reader.settle()
    happens(reader, event(domain))
    await reader.settle()
    assert domain.calls.count("state") == 3
    assert [one.reason for one in sink.observations] == [10, 10, 5, 0]


@pytest.mark.usefixtures("patient")
async def test_read_all_reads_each_domain_from_now_on(
    reader: Reader, sink: Sink, gated: Gated
) -> None:
    """A read that was under way before does not count."""
    domain = gated("a")
    happens(reader, event(domain))
    await eventually(domain.entered.is_set)
    read = asyncio.create_task(reader.read_all(["a"], AUDIT, {"a": domain}))
    await asyncio.sleep(0)
    domain.gate.set()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await read
    assert domain.reads == 2


async def test_nothing_to_read_is_no_wait(reader: Reader) -> None:
    """An idle host settles at once."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        await reader.settle()
        await reader.read_all([], AUDIT)


@pytest.mark.usefixtures("patient")
async def test_many_domains_are_read_once_each(reader: Reader, sink: Sink) -> None:
    """In batches, without a look-up where the listing brought the object."""
    domains = {f"{n}": Domain(f"{n}") for n in range(500)}
    listed = dict(domains)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await reader.read_all(list(domains), Mark(Cause.RESYNC), listed)
    assert sorted(uuid for _, uuid in sink.told) == sorted(domains)
    assert {domain.reads for domain in domains.values()} == {1}
    assert listed == {}


@pytest.mark.usefixtures("patient")
async def test_a_paused_domains_reason_may_come_with_the_listing(
    reader: Reader, sink: Sink, gated: Gated
) -> None:
    """It is good for the read that follows, unless an event may have changed it."""
    paused, moved, blocking = Domain("paused"), Domain("moved"), gated("blocking")
    for domain in (paused, moved):
        domain.values[0] = DomainState.PAUSED
        domain.state_values = (DomainState.PAUSED, 5)
    happens(reader, event(blocking))
    await eventually(blocking.entered.is_set)
    happens(reader, event(moved))
    listed = {domain.uuid: domain for domain in (paused, moved)}
    reading = asyncio.create_task(
        reader.read_first(list(listed), Mark(Cause.RESYNC), listed, {"paused": 2, "moved": 2})
    )
    await eventually(lambda: sink.observations)
    blocking.gate.set()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await reading
        await reader.read_all(["paused"], Mark(Cause.RESYNC), {"paused": paused})
    reasons = [(one.uuid, one.reason) for one in sink.observations if one.uuid != "blocking"]
    # What its event marked is read once: that read began after the events were registered.
    assert sorted(reasons[:-1]) == [("moved", 5), ("paused", 2)]
    assert reasons[-1] == ("paused", 5)


@pytest.mark.usefixtures("patient")
async def test_a_resync_reads_each_domain_once_however_many_events_come(
    reader: Reader, sink: Sink
) -> None:
    """Each read brings an event of a domain that was read: all others are read before it is
    read again, over the one connection that there is until then."""
    reader._lanes.list_through(reader._lanes.events.connection)
    reader._lanes.listing = reader._lanes.events
    domains = {f"{n:03}": Domain(f"{n:03}") for n in range(300)}
    loop = asyncio.get_running_loop()
    read: list[Domain] = []
    for domain in domains.values():

        def more(domain: Domain = domain) -> None:
            read.append(domain)
            for other in (domain, read[len(read) // 2], domains["299"]):
                loop.call_soon_threadsafe(happens, reader, event(other))

        domain.on_read = more
    async with asyncio.timeout(DEADLINE_SECONDS):
        await reader.read_first(list(domains), Mark(Cause.RESYNC), dict(domains), {})
    order = [domain.uuid for domain in read]
    # Events that were there before the last batch was handed out may be read beside it.
    assert set(order[:300]) == set(domains)
    assert order.index("299") == 299, "an event's mark keeps its place in the line"
    for domain in domains.values():
        domain.on_read = lambda: None
    await reader.settle()
    assert domains["299"].reads >= 2, "what was marked after its read is read again"


@pytest.mark.usefixtures("patient")
async def test_closing_lets_waiters_go_and_tells_nothing_more(
    reader: Reader, sink: Sink, gated: Gated
) -> None:
    """The connection is lost: what still comes back is of no use."""
    domain = gated("a")
    happens(reader, event(domain))
    waiting = asyncio.create_task(reader.settle())
    await eventually(domain.entered.is_set)
    reader.close()
    with pytest.raises(HypervisorUnavailableError, match="the connection was lost"):
        await waiting
    domain.gate.set()
    happens(reader, event(Domain("b")))
    await eventually_equal(lambda: reader._lanes.events.connection.thread.in_flight, set())
    assert sink.told == []
