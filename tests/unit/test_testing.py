"""The doubles behave as what they stand for."""

import pytest

from asynchost.model import Usage
from asynchost.testing import FakeHost


def test_a_fake_host_adds_up_its_domains() -> None:
    """Sums over what runs, told at each change."""
    host, told = FakeHost("h"), []
    remove = host.add_listener(lambda: told.append(host.usage.vcpus_used))
    number = host.start(vcpus=2, memory_kib=5)
    host.start(vcpus=1, memory_kib=1)
    assert host.snapshot().usage == Usage(3, 6, 2, 0)
    host.stop(number)
    remove()
    remove()
    host.start(vcpus=9)
    assert told == [2, 3, 1]
    with pytest.raises(KeyError):
        host.stop(number)


def test_a_fake_host_is_writable_while_it_is_fresh_and_complete() -> None:
    """Lost and incomplete hosts are not."""
    host = FakeHost("h", name="n")
    snapshot = host.snapshot()
    assert (host.host, snapshot.host, snapshot.name, snapshot.writable) == ("h", "h", "n", True)
    host.lose()
    assert (host.snapshot().writable, host.snapshot().stale_seconds) == (False, 0.0)
    host.find()
    assert (host.snapshot().writable, host.snapshot().generation) == (True, 2)
    host.set_facts(None)
    assert not host.snapshot().writable


def test_unknown_disk_does_not_keep_a_fake_host_from_its_row() -> None:
    """It was looked at, and nothing was found."""
    host = FakeHost()
    host.set_disk(None)
    assert host.snapshot().writable
