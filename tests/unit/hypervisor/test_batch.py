"""Reading domains in a row: what one read asks, and what can be taken from a batch at work."""

import threading
from collections.abc import Iterator

import libvirt
import pytest

from asynchost.agenda import Mark
from asynchost.hypervisor.batch import Batch, Read, read_domain
from asynchost.model import Cause, DomainState, Observation
from tests.unit.hypervisor.domains import DEADLINE_SECONDS, Domain

MARK = Mark(Cause.EVENT)
UNKNOWN = "6f000000-0000-4000-8000-00000000dead"


@pytest.fixture
def connection() -> Iterator[libvirt.virConnect]:
    """libvirt's test driver, inside this process."""
    connection = libvirt.openReadOnly("test:///default")
    yield connection
    connection.close()


def read(domain: Domain, *, ask_reason: bool = False) -> Read:
    """A domain that an event marked."""
    return Read(domain.uuid, MARK, domain, ask_reason)


def observation(state: int, reason: int = 0, active: bool | None = None) -> Observation:
    """What reading ``Domain("a")`` returns."""
    return Observation("a", "guest a", 7, state, reason, active, 2, 2048, 4096)


def test_a_running_domain_costs_one_call(connection: libvirt.virConnect) -> None:
    """Its state has no reason that would decide anything."""
    domain = Domain("a")
    assert read_domain(connection, read(domain)) == observation(DomainState.RUNNING)
    assert domain.calls == ["info"]


def test_a_paused_domains_reason_is_asked_for(connection: libvirt.virConnect) -> None:
    """The state that came with the reason counts: it is the newer one."""
    domain = Domain("a")
    domain.values[0] = DomainState.PAUSED
    domain.state_values = (DomainState.RUNNING, 5)
    assert read_domain(connection, read(domain)) == observation(DomainState.RUNNING, 5)
    assert domain.calls == ["info", "state"]


def test_a_reason_that_is_known_is_not_asked_for(connection: libvirt.virConnect) -> None:
    """It says nothing of a domain that runs by now, and is not enough for one that migrates."""
    known, domain = Read("a", MARK, Domain("a"), False, paused_reason=2), Domain("a")
    assert read_domain(connection, known) == observation(DomainState.RUNNING)
    domain.values[0] = DomainState.PAUSED
    paused = known._replace(domain=domain)
    assert read_domain(connection, paused) == observation(DomainState.PAUSED, 2)
    assert domain.calls == ["info"]
    domain.state_values = (DomainState.PAUSED, 12)
    migrating = paused._replace(ask_reason=True)
    assert read_domain(connection, migrating) == observation(DomainState.PAUSED, 12)


def test_a_migrating_domains_reason_is_asked_for(connection: libvirt.virConnect) -> None:
    """Whatever its state: post-copy runs."""
    domain = Domain("a")
    domain.state_values = (DomainState.RUNNING, 10)
    told = read_domain(connection, read(domain, ask_reason=True))
    assert told == observation(DomainState.RUNNING, 10)


@pytest.mark.parametrize("active", [True, False])
def test_a_crashed_domain_is_asked_whether_it_is_active(
    connection: libvirt.virConnect, active: bool
) -> None:
    """The state alone does not tell."""
    domain = Domain("a")
    domain.values[0] = DomainState.CRASHED
    domain.active = active
    told = read_domain(connection, read(domain))
    assert told == observation(DomainState.CRASHED, active=active)


def test_without_an_object_the_domain_is_looked_up(connection: libvirt.virConnect) -> None:
    """By its UUID; the test driver has one domain."""
    domain = connection.lookupByName("test")
    told = read_domain(connection, Read(domain.UUIDString(), MARK, None, False))
    assert told is not None
    state, maximum, memory, vcpus, _ = domain.info()
    assert (told.name, told.domain_id, told.state) == ("test", domain.ID(), state)
    assert (told.vcpus, told.memory_kib, told.max_memory_kib) == (vcpus, memory, maximum)


def test_no_such_domain_is_none(connection: libvirt.virConnect) -> None:
    """The only error that means "gone"."""
    assert read_domain(connection, Read(UNKNOWN, MARK, None, False)) is None


def test_any_other_error_is_an_error(connection: libvirt.virConnect) -> None:
    """Of a connection that is alive: the domain is there, and cannot be read now."""
    domain = Domain("a")
    domain.failures = 1
    with pytest.raises(libvirt.libvirtError):
        read_domain(connection, read(domain))


def test_a_batch_reads_all_and_keeps_errors_apart(connection: libvirt.virConnect) -> None:
    """One domain that fails does not keep the others from being read."""
    first, second, third = (Domain(uuid) for uuid in "abc")
    second.failures = 1
    batch = Batch(connection, [read(one) for one in (first, second, third)], [], lambda: False)
    batch()
    results = batch.take_results()
    assert [result.uuid for result in results] == ["a", "b", "c"]
    assert [result.error is None for result in results] == [True, False, True]
    assert [result.observation is None for result in results] == [False, True, False]
    assert all(result.mark == MARK for result in results)
    assert batch.take_results() == []
    assert batch.current is None


def test_a_batch_stops_before_a_backlog_of_events(connection: libvirt.virConnect) -> None:
    """The answer to its next read would come behind them all; the rest can be had back."""
    first, second, third = (Domain(uuid) for uuid in "abc")
    reads = [read(one) for one in (first, second, third)]
    batch = Batch(connection, list(reads), [], lambda: second.reads > 0)
    batch()
    assert [result.uuid for result in batch.take_results()] == ["a", "b"]
    assert batch.take_back() == [reads[2]]
    assert third.reads == 0


def test_what_a_batch_has_not_begun_with_can_be_taken_back(connection: libvirt.virConnect) -> None:
    """While its thread hangs in a read; what was read already can be had as well."""
    first, second, third = Domain("a"), Domain("b", open_gate=False), Domain("c")
    batch = Batch(connection, [read(one) for one in (first, second, third)], [], lambda: False)
    thread = threading.Thread(target=batch)
    thread.start()
    try:
        assert second.entered.wait(DEADLINE_SECONDS)
        assert batch.current is not None
        assert batch.current[0] == "b"
        assert [result.uuid for result in batch.take_results()] == ["a"]
        assert batch.take_back() == [read(third)]
        assert batch.take_back() == []
    finally:
        second.gate.set()
        thread.join(DEADLINE_SECONDS)
    assert [result.uuid for result in batch.take_results()] == ["b"]
    assert third.reads == 0
