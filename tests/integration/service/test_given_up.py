"""A host whose row cannot be written is given up for the time being; the process stays for others.

The table in docs/operating.md, "When a host is given up", line by line; that one host that cannot
be told apart from the beginning ends the process with 2 stands in test_refusals.py, and that the
last fenced one ends it with 3 in test_run.py.
"""

import json
import signal

import pytest

from tests.integration.service.processes import Command, asynchost, command, run_to_the_end
from tests.integration.service.rows import Database
from tests.support.waiting import eventually

GOOD, BAD = ("--connect", "good=test:///default"), ("--connect", "bad=test:///default?second")
AMBIGUOUS = (
    "INSERT INTO compute_nodes (deleted, service_id, vcpus, memory_mb, local_gb, vcpus_used,"
    " memory_mb_used, local_gb_used, hypervisor_type, hypervisor_version, cpu_info,"
    " hypervisor_hostname) VALUES (0, {}, 1, 1, 1, 0, 0, 0, 'x', 1, '{{}}', '{}')"
)


def make_ambiguous(database: Database, *names: str) -> None:
    """Two live rows of each name."""
    for name in names:
        database.execute(
            f"DELETE FROM compute_nodes WHERE hypervisor_hostname = '{name}'",
            AMBIGUOUS.format(4, name),
            AMBIGUOUS.format(5, name),
        )


def used(database: Database, name: str) -> list[int]:
    """What the rows of this host say."""
    return [r["vcpus_used"] for r in database.rows() if r["hypervisor_hostname"] == name]


async def assert_is_refused(daemon: Command, host: str, times: int = 1) -> None:
    """The daemon says so."""
    line = await daemon.says("row refused")
    assert json.loads(line)["host"] == host
    assert len([line for line in daemon.err if "row refused" in line]) == times


@pytest.mark.parametrize("hosts", [BAD, (*GOOD, *BAD)], ids=["one host", "two hosts"])
async def test_what_becomes_ambiguous_while_running_ends_no_process(
    database: Database, hosts: tuple[str, ...]
) -> None:
    """It is told once, and the process goes on, also where there is no other host."""
    arguments = asynchost(
        *("run", *hosts, "--database", database.url(), "--audit-interval", "1"),
    )
    async with command(*arguments) as daemon:
        await eventually(lambda: len(database.rows()) == len(hosts) // 2)
        make_ambiguous(database, "bad")
        await assert_is_refused(daemon, "bad")
        if len(hosts) > 2:
            # What somebody else changes in the other row is still put right.
            database.execute("UPDATE compute_nodes SET vcpus_used = 77 WHERE vcpus_used = 2")
            await eventually(lambda: used(database, "good") == [2])
        status, _ = await daemon.stops(signal.SIGTERM)
    assert status == 0


async def test_one_of_two_that_is_ambiguous_from_the_beginning_ends_no_process(
    database: Database,
) -> None:
    """The other one is written."""
    make_ambiguous(database, "bad")
    arguments = asynchost("run", *GOOD, *BAD, "--database", database.url())
    async with command(*arguments) as daemon:
        await eventually(lambda: used(database, "good") == [2])
        await assert_is_refused(daemon, "bad")
        status, _ = await daemon.stops(signal.SIGTERM)
    assert status == 0
    assert used(database, "bad") == [0, 0]


async def test_all_that_are_ambiguous_from_the_beginning_end_the_process(
    database: Database,
) -> None:
    """With status 2: starting it again as things stand would not help."""
    make_ambiguous(database, "good", "bad")
    status, _, err = await run_to_the_end("run", *GOOD, *BAD, "--database", database.url())
    assert status == 2
    assert json.loads(err[-1])["exit_status"] == 2
