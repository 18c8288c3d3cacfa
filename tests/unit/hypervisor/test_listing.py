"""Which domains may count, also where there are too many for one answer."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import libvirt
import pytest

from asynchost.accounting import Counted, Policy
from asynchost.hypervisor.listing import list_domains, paused_reasons, survey
from tests.support import guests
from tests.unit.hypervisor.domains import Domain

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

    def getAllDomainStats(self, *_: int) -> Any:  # noqa: N802 - libvirt's name
        """Not here."""
        raise libvirt.libvirtError("this function is not supported by the connection driver")

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


def test_a_survey_reads_those_that_are_not_known(
    connection: libvirt.virConnect, stopped: str
) -> None:
    """Active or not; a known one is left alone: it may be the one that is locked."""

    def surveyed(*known: str) -> set[str]:
        found = survey(connection, frozenset(known))
        assert (found.failures, found.incomplete) == ({}, None)
        return {one.uuid for one in found.observations}

    assert surveyed() == {UUID, stopped}
    assert surveyed(UUID) == {stopped}
    assert surveyed(UUID, stopped) == set()


def test_a_survey_goes_on_after_a_domain_that_cannot_be_read(
    connection: libvirt.virConnect, stopped: str
) -> None:
    """Which is named with the reason; one that has gone meanwhile is none."""
    failing = Domain("failing")
    failing.failures = 1

    class Listing:
        def listAllDomains(self, _: int) -> list[Any]:  # noqa: N802 - libvirt's name
            return [failing, Gone(), connection.lookupByUUIDString(stopped)]

        def isAlive(self) -> bool:  # noqa: N802 - libvirt's name
            return True

    class Gone:
        def UUIDString(self) -> str:  # noqa: N802 - libvirt's name
            return "gone"

        def info(self) -> list[int]:
            return connection.lookupByUUIDString("6f000000-0000-4000-8000-00000000dead").info()

    found = survey(Listing(), frozenset())
    assert [one.uuid for one in found.observations] == [stopped]
    assert list(found.failures) == ["failing"]
    assert "for this test" in found.failures["failing"]


def test_why_the_paused_ones_are_is_one_call(connection: libvirt.virConnect) -> None:
    """The same as each says by itself; the others are not named."""
    assert paused_reasons(connection) == {}
    domain = connection.lookupByUUIDString(UUID)
    domain.suspend()
    try:
        state, reason = domain.state()
        assert state == libvirt.VIR_DOMAIN_PAUSED
        assert paused_reasons(connection) == {UUID: reason}
    finally:
        domain.resume()


def test_a_driver_that_does_not_tell_why_is_no_error(connection: libvirt.virConnect) -> None:
    """Each domain is then asked by itself; a connection that is dead is told of."""
    assert paused_reasons(Refusing(connection, alive=True)) == {}
    with pytest.raises(libvirt.libvirtError, match="not supported"):
        paused_reasons(Refusing(connection, alive=False))
