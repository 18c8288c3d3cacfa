"""Who is active, also where there are too many for one answer."""

from collections.abc import Iterator
from typing import Any

import libvirt
import pytest

from asynchost.hypervisor.listing import list_active

UUID = "6695eb01-f6a4-8304-79aa-97f2502e193f"
"""The one domain of libvirt's test driver."""


@pytest.fixture
def connection() -> Iterator[libvirt.virConnect]:
    """libvirt's test driver, inside this process."""
    connection = libvirt.openReadOnly("test:///default")
    yield connection
    connection.close()


class Refusing:
    """A connection that gives no answer to the listing of all, as libvirtd does for very many."""

    def __init__(self, connection: libvirt.virConnect, *, alive: bool) -> None:
        self._connection = connection
        self._alive = alive
        self.flags: list[int] = []

    def listAllDomains(self, flags: int) -> Any:  # noqa: N802 - libvirt's name
        """Parts of it can be had."""
        self.flags.append(flags)
        if flags == libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE:
            raise libvirt.libvirtError("internal error: too many domains")
        return self._connection.listAllDomains(flags)

    def isAlive(self) -> bool:  # noqa: N802 - libvirt's name
        """Whether there is any point in asking."""
        return self._alive


def test_the_active_domains_are_listed_by_uuid(connection: libvirt.virConnect) -> None:
    """Each with the object that saves a look-up."""
    listed = list_active(connection)
    assert list(listed) == [UUID]
    assert listed[UUID].name() == "test"


def test_too_many_domains_are_listed_in_parts(connection: libvirt.virConnect) -> None:
    """Parts that do not overlap and together are all."""
    refusing = Refusing(connection, alive=True)
    assert list(list_active(refusing)) == [UUID]
    assert len(set(refusing.flags)) == len(refusing.flags) == 7


def test_a_dead_connection_lists_nothing(connection: libvirt.virConnect) -> None:
    """The error is told, and no part is asked for."""
    refusing = Refusing(connection, alive=False)
    with pytest.raises(libvirt.libvirtError, match="too many domains"):
        list_active(refusing)
    assert len(refusing.flags) == 1
