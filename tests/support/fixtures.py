"""The fixtures of real libvirt hosts, for every folder of tests that needs them.

A ``conftest.py`` imports them by name. All are synchronous: they run outside a test's loop.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd, why_unavailable

__all__ = [
    "libvirtd",
    "lxc_connection",
    "private_libvirtd",
    "qemu_connection",
    "test_connection",
]


def _need_libvirtd() -> None:
    reason = why_unavailable()
    if reason is None:
        return
    if "CI" in os.environ:
        # A machine that can run none of these tests must not look as if they had passed.
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def libvirtd(request: pytest.FixtureRequest) -> Iterator[PrivateLibvirtd]:
    """The session's private libvirtd, shared by all tests that leave the daemon itself alone."""
    _need_libvirtd()
    with PrivateLibvirtd(capabilities_folder=_capabilities(request)) as daemon:
        yield daemon


@pytest.fixture
def private_libvirtd(request: pytest.FixtureRequest) -> Iterator[Callable[..., PrivateLibvirtd]]:
    """Make daemons of the test's own, to be killed and stopped at will: ``make(hooks=True)``.

    Takes :class:`PrivateLibvirtd`'s arguments, returns it started (0.1 s); all of them are gone
    after the test, their guests too.
    """
    _need_libvirtd()
    daemons: list[PrivateLibvirtd] = []

    def make(**options: Any) -> PrivateLibvirtd:
        daemon = PrivateLibvirtd(capabilities_folder=_capabilities(request), **options)
        daemons.append(daemon)
        daemon.start()
        return daemon

    yield make
    for daemon in daemons:
        daemon.stop()


@pytest.fixture
def qemu_connection(libvirtd: PrivateLibvirtd) -> Iterator[libvirt.virConnect]:
    """A read-write connection to the shared daemon's QEMU driver: no guests before and after."""
    yield from _clean_connection(libvirtd, "qemu")


@pytest.fixture
def test_connection(libvirtd: PrivateLibvirtd) -> Iterator[libvirt.virConnect]:
    """A read-write connection to the shared daemon's test driver, emptied of its one domain.

    While it is open, all clients of ``libvirtd.uri("test")`` share this one host.
    """
    yield from _clean_connection(libvirtd, "test")


@pytest.fixture
def lxc_connection(libvirtd: PrivateLibvirtd) -> Iterator[libvirt.virConnect]:
    """A read-write connection to the shared daemon's LXC driver: no containers before, after."""
    if not libvirtd.privileged:
        pytest.skip("libvirt's LXC driver runs as root only")
    yield from _clean_connection(libvirtd, "lxc")


def _clean_connection(
    libvirtd: PrivateLibvirtd, driver: guests.Kind
) -> Iterator[libvirt.virConnect]:
    with libvirtd.connection(driver) as connection:
        guests.remove_all(connection)
        yield connection
        guests.remove_all(connection)


def _capabilities(request: pytest.FixtureRequest) -> Path:
    # Kept between runs: libvirt checks by itself whether it still holds, and asking QEMU takes
    # it more than a second. One for each of the processes that tests may be spread over: two
    # daemons that find out the same at the same time write to one file, and the one that then
    # cannot rename it starts no guest.
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    return request.config.cache.mkdir(f"libvirt-capabilities-{worker}")
