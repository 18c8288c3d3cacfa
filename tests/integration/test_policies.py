"""Each policy on a real host: by events alone the row is what that policy counts."""

import asyncio
from dataclasses import astuple, replace
from typing import NamedTuple

import libvirt
import pytest

from asynchost import Counted, CountedMemory, Policy
from tests.integration.pipeline import DEADLINE_SECONDS, EVENTS_ONLY, Pipeline, pipeline
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mariadb import Database
from tests.support.waiting import eventually_equal


class Row(NamedTuple):
    """The columns that a policy moves."""

    vcpus_used: int
    memory_mb_used: int
    running_vms: int


async def row_is(host: Pipeline, expected: Row) -> None:
    """Wait for the row; then a recount finds nothing to correct, and explains every number."""

    def found() -> Row:
        row = host.row()
        return Row(*(row[column] for column in Row._fields))

    await eventually_equal(lambda: asyncio.to_thread(found), expected, DEADLINE_SECONDS)
    assert await host.monitor.audit() == []
    explanation = await host.monitor.explain()
    assert explanation.incomplete is None
    costs = [explanation.reserved, *(domain.cost for domain in explanation.domains)]
    assert astuple(explanation.usage) == tuple(
        sum(column) for column in zip(*map(astuple, costs), strict=True)
    )


async def test_defined_domains_count_from_their_definition_on(
    libvirtd: PrivateLibvirtd, qemu_connection: libvirt.virConnect, database: Database
) -> None:
    """Started, paused, destroyed: what was promised stays; undefined: it goes."""
    settings = replace(EVENTS_ONLY, policy=Policy(count=Counted.DEFINED))
    async with pipeline(libvirtd.uri("qemu"), database, settings) as host:
        xml = guests.guest_xml("a", vcpus=2)
        domain = await asyncio.to_thread(guests.define, qemu_connection, xml)
        await row_is(host, Row(2, 16, 0))
        await asyncio.to_thread(domain.createWithFlags, libvirt.VIR_DOMAIN_START_PAUSED)
        await row_is(host, Row(2, 16, 1))
        await asyncio.to_thread(domain.destroy)
        await row_is(host, Row(2, 16, 0))
        # Redefined while it is shut off: the new definition is what is promised.
        larger = guests.guest_xml("a", domain.UUIDString(), vcpus=3, memory_kib=32 * 1024)
        await asyncio.to_thread(guests.define, qemu_connection, larger)
        await row_is(host, Row(3, 32, 0))
        await asyncio.to_thread(domain.undefine)
        await row_is(host, Row(0, 0, 0))


async def test_names_decide_at_a_start_and_at_a_renaming(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, database: Database
) -> None:
    """Only what matches counts, and a renamed domain counts by its new name."""
    policy = Policy(include=("web-*", "db-*"), exclude=("*-test",), count=Counted.DEFINED)
    settings = replace(EVENTS_ONLY, policy=policy)
    async with pipeline(libvirtd.uri("test"), database, settings) as host:
        await row_is(host, Row(0, 0, 0))
        for name in ("web-1", "web-test", "build"):
            xml = guests.guest_xml(name, vcpus=2, memory_kib=4096, kind="test")
            await asyncio.to_thread(guests.start, test_connection, xml)
        await row_is(host, Row(2, 4, 1))
        explanation = await host.monitor.explain()
        rules = {domain.name: domain.rule for domain in explanation.domains}
        assert rules == {
            "web-1": "counted: active",
            "web-test": "not counted: name excluded by '*-test'",
            "build": "not counted: name matches none of 'web-*', 'db-*'",
        }


async def test_a_renamed_qemu_guest_counts_by_its_new_name(
    libvirtd: PrivateLibvirtd, qemu_connection: libvirt.virConnect, database: Database
) -> None:
    """Into the filter and out of it again; the UUID stays the same."""
    settings = replace(EVENTS_ONLY, policy=Policy(include=("web-*",), count=Counted.DEFINED))
    async with pipeline(libvirtd.uri("qemu"), database, settings) as host:
        xml = guests.guest_xml("build", vcpus=2)
        domain = await asyncio.to_thread(guests.define, qemu_connection, xml)
        await row_is(host, Row(0, 0, 0))
        await asyncio.to_thread(domain.rename, "web-1")
        await row_is(host, Row(2, 16, 0))
        await asyncio.to_thread(domain.rename, "build")
        await row_is(host, Row(0, 0, 0))


@pytest.mark.parametrize(
    ("memory", "memory_mb"), [(CountedMemory.CURRENT, 8), (CountedMemory.MAXIMUM, 32)]
)
async def test_current_or_maximum_memory_with_what_is_reserved(
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    database: Database,
    memory: CountedMemory,
    memory_mb: int,
) -> None:
    """The host's own is added once, with a domain and without."""
    policy = Policy(memory=memory, reserved_vcpus=1, reserved_memory_mb=512)
    settings = replace(EVENTS_ONLY, policy=policy)
    async with pipeline(libvirtd.uri("test"), database, settings) as host:
        await row_is(host, Row(1, 512, 0))
        xml = guests.guest_xml(
            "a", vcpus=2, memory_kib=8 * 1024, max_memory_kib=32 * 1024, kind="test"
        )
        domain = await asyncio.to_thread(guests.start, test_connection, xml)
        await row_is(host, Row(3, 512 + memory_mb, 1))
        assert host.row()["free_ram_mb"] == host.row()["memory_mb"] - 512 - memory_mb
        await asyncio.to_thread(domain.destroy)
        await row_is(host, Row(1, 512, 0))
