"""Which domains may count, also where there are too many for one answer."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import libvirt
import pytest

from asynchost.accounting import Counted, Policy
from asynchost.hypervisor.listing import list_domains
from tests.support import guests

UUID = "6695eb01-f6a4-8304-79aa-97f2502e193f"
"""The one domain of libvirt's test driver."""


@pytest.fixture
def connection() -> Iterator[libvirt.virConnect]:
    """libvirt's test driver, inside this process."""
    connection = libvirt.open("test:///default")
    yield connection
    connection.close()


class Refusing:
    """A connection that gives no answer to the listing of all, as libvirtd does for very many."""

    def __init__(self, connection: libvirt.virConnect, *, alive: bool) -> None:
        self._connection = connection
        self._alive = alive
        self.flags: list[int] = []
        self.parts: list[Any] = []

    def listAllDomains(self, flags: int) -> Any:  # noqa: N802 - libvirt's name
        """Parts of it can be had."""
        self.flags.append(flags)
        if flags in (0, libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
            raise libvirt.libvirtError("internal error: too many domains")
        self.parts.append(self._connection.listAllDomains(flags))
        return self.parts[-1]

    def isAlive(self) -> bool:  # noqa: N802 - libvirt's name
        """Whether there is any point in asking."""
        return self._alive


def test_the_active_domains_are_listed_by_uuid(connection: libvirt.virConnect) -> None:
    """Each with the object that saves a look-up."""
    listed = list_domains(connection, Policy())
    assert list(listed) == [UUID]
    assert listed[UUID].name() == "test"


@pytest.fixture
def stopped(connection: libvirt.virConnect) -> Iterator[str]:
    """A second domain, which does not run."""
    domain = connection.defineXML(guests.guest_xml("build-1", kind="test"))
    yield domain.UUIDString()
    domain.undefine()


def test_inactive_domains_are_listed_where_they_count(
    connection: libvirt.virConnect, stopped: str
) -> None:
    """And nowhere else: each would be read."""
    assert list_domains(connection, Policy()).keys() == {UUID}
    assert list_domains(connection, Policy(count=Counted.DEFINED)).keys() == {UUID, stopped}


def test_names_that_cannot_count_are_not_listed(
    connection: libvirt.virConnect, stopped: str
) -> None:
    """Nothing of theirs is to be read."""
    defined = Policy(count=Counted.DEFINED, exclude=("build-*",))
    assert list_domains(connection, defined).keys() == {UUID}
    assert list_domains(connection, replace(defined, exclude=("*",))) == {}
    assert list_domains(connection, Policy(include=("t?st",))).keys() == {UUID}


@pytest.mark.parametrize("count", Counted)
def test_too_many_domains_are_listed_in_parts(
    connection: libvirt.virConnect, stopped: str, count: Counted
) -> None:
    """Parts that do not overlap and together are all."""
    refusing, policy = Refusing(connection, alive=True), Policy(count=count)
    assert list_domains(refusing, policy).keys() == list_domains(connection, policy).keys()
    assert len(set(refusing.flags)) == len(refusing.flags) == 9
    listed = [domain.UUIDString() for part in refusing.parts for domain in part]
    assert len(listed) == len(set(listed))


def test_a_dead_connection_lists_nothing(connection: libvirt.virConnect) -> None:
    """The error is told, and no part is asked for."""
    refusing = Refusing(connection, alive=False)
    with pytest.raises(libvirt.libvirtError, match="too many domains"):
        list_domains(refusing, Policy())
    assert len(refusing.flags) == 1
