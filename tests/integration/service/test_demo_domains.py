"""The pretended domains: always something to see, never more than is good."""

import socket
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from random import Random

import libvirt
import pytest

from asynchost.hypervisor.demo_domains import DEMO_URI, MOST_DOMAINS, DemoDomains, answers
from tests.support.libvirtd import PrivateLibvirtd, silence_libvirt
from tests.support.waiting import eventually


@pytest.fixture
def connection() -> Iterator[libvirt.virConnect]:
    """The host that all of this process share, for as long as the test has it open."""
    silence_libvirt()
    connection = libvirt.open(DEMO_URI)
    yield connection
    connection.close()


def names(connection: libvirt.virConnect) -> set[str]:
    """Of the active domains: no domain is asked, which may be gone by then."""
    domains = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
    return {domain.name() for domain in domains}


def seen(connection: libvirt.virConnect) -> dict[str, tuple[int, int, int]]:
    """State, memory and vCPUs of every active domain, by name."""
    domains = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
    information = {domain.name(): domain.info() for domain in domains}
    return {
        name: (state, memory, vcpus) for name, (state, _, memory, vcpus, _) in information.items()
    }


def test_the_domains_come_and_go_within_bounds(connection: libvirt.virConnect) -> None:
    """Every kind of action happens, no action fails, and the number stays bounded."""
    domains = DemoDomains(Random(1))
    histories = [seen(connection)]
    for _ in range(300):
        domains.act(connection)
        histories.append(seen(connection))
    sizes = {len(history) for history in histories}
    assert min(sizes) >= 1
    assert max(sizes) == MOST_DOMAINS
    states = {state for history in histories for state, *_ in history.values()}
    assert states == {libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_PAUSED}
    pairs = list(pairwise(histories))
    sizes_of_one = [
        (before[name][1:], after[name][1:])
        for before, after in pairs
        for name in before.keys() & after.keys()
    ]
    assert any(before != after for before, after in sizes_of_one)


async def test_they_live_in_a_thread_that_ends_with_the_block(
    connection: libvirt.virConnect,
) -> None:
    """Leaving stops them at once; the process is as it was."""
    threads = set(threading.enumerate())
    before = names(connection)
    with DemoDomains(Random(2), interval_seconds=0.01):
        await eventually(lambda: names(connection) != before)
    await eventually(lambda: set(threading.enumerate()) <= threads)


async def test_whether_a_libvirt_answers(libvirtd: PrivateLibvirtd, tmp_path: Path) -> None:
    """Yes, no, and no within the deadline where somebody listens and says nothing."""
    silence_libvirt()
    assert await answers(libvirtd.uri("test"), 10)
    assert not await answers(f"test+unix:///default?socket={tmp_path}/none", 10)
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "mute"))
        mute.listen()
        assert not await answers(f"test+unix:///default?socket={tmp_path}/mute", 0.1)
