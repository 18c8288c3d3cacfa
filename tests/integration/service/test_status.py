"""``asynchost status`` and ``asynchost watch``: what daemons on this machine know and do."""

import asyncio
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import libvirt
import pytest

from asynchost.service.control import FOLDER_VARIABLE
from tests.integration.service.processes import asynchost, command, run_to_the_end
from tests.integration.service.rows import Database
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.waiting import eventually

HOSTILE = "a\u202eb\u009bc"


def run(uri: str, database: Database, *further: str) -> tuple[str, ...]:
    """A daemon of one host, named ``a``."""
    return asynchost(
        *("run", "--connect", f"a={uri}", "--database", database.url(), "--disk", "none"),
        *further,
    )


async def status(folder: Path) -> tuple[int, dict[str, Any]]:
    """The exit status, and what is told."""
    code, out, _ = await run_to_the_end(
        "status", "--json", environment={FOLDER_VARIABLE: str(folder)}
    )
    return code, json.loads("\n".join(out))


async def test_status_follows_what_becomes_of_a_row(
    database: Database, libvirtd: PrivateLibvirtd, tmp_path: Path
) -> None:
    """No daemon, kept, frozen, kept again, claimed by another agent."""
    assert (await status(tmp_path))[0] == 3
    environment = {FOLDER_VARIABLE: str(tmp_path)}

    async def becomes(expected: int, words: str) -> None:
        async def probe() -> bool:
            code, said = await status(tmp_path)
            return code == expected and words in json.dumps(said)

        await eventually(probe, describe=f"status {expected} with {words!r}")

    arguments = run(libvirtd.uri("test"), database, "--when-fenced", "wait")
    async with command(*arguments, environment=environment) as daemon:
        await becomes(0, '"state": "owned"')
        code, out, _ = await run_to_the_end("status", environment=environment)
        assert (code, out[-1]) == (0, "ok")
        assert max(map(len, out)) <= 80
        await asyncio.to_thread(libvirtd.kill)
        await becomes(1, "totals frozen")
        await asyncio.to_thread(libvirtd.start)
        await becomes(0, '"state": "owned"')
        database.execute("UPDATE asynchost_fence SET term = term + 1, owner = 'rival'")
        connection = await asyncio.to_thread(libvirt.open, libvirtd.uri("test"))
        xml = guests.guest_xml("one", vcpus=3, kind="test")
        await asyncio.to_thread(guests.start, connection, xml)
        await asyncio.to_thread(connection.close)
        await becomes(1, "standing by; rival owns the row")
        daemon.send(signal.SIGUSR1)
        record = json.loads(await daemon.says("status of host"))
        assert (record["host"], record["row"]["state"]) == ("a", "standing by")
        assert (await daemon.stops(signal.SIGTERM))[0] == 0


async def test_a_daemon_that_is_stopped_is_told_within_two_seconds(
    database: Database, tmp_path: Path
) -> None:
    """A frozen daemon keeps no row, whatever it said before."""
    environment = {FOLDER_VARIABLE: str(tmp_path)}
    async with command(*run("test:///default", database), environment=environment) as daemon:
        await daemon.says("row claimed")
        daemon.send(signal.SIGSTOP)
        try:
            code, said = await status(tmp_path)
        finally:
            daemon.send(signal.SIGCONT)
    assert code == 3
    assert "did not answer within 1.5 s" in said["problems"][0]


async def test_status_shows_no_secret_of_a_uri(database: Database, tmp_path: Path) -> None:
    """Not in libvirt's own text either, which repeats a command of the URI."""
    environment = {FOLDER_VARIABLE: str(tmp_path)}
    uri = "test+ext://user:hush@host/default?command=/hush-hush&token=hush-hush"
    arguments = run("test:///default", database, "--connect", f"b={uri}")
    async with command(*arguments, environment=environment) as daemon:
        await daemon.says("row claimed")

        async def told() -> bool:
            said = (await status(tmp_path))[1]
            assert (said["format"], said["daemons"][0]["format"]) == (1, 1)
            assert "hush" not in json.dumps(said)
            return "cannot execute binary /***" in json.dumps(said)

        await eventually(told)
        _, out, _ = await run_to_the_end("status", environment=environment)
        assert "hush" not in "\n".join(out)
        assert (await daemon.stops(signal.SIGTERM))[0] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user")
async def test_a_member_of_the_daemons_group_may_ask_for_the_status_alone(
    database: Database, tmp_path: Path
) -> None:
    """As a monitoring agent does; what the daemon was told to open is not told."""
    member, group = 65001, 65002
    folder = Path("/tmp") / f"asynchost-group-{os.getpid()}"
    os.mkdir(folder, 0o755)  # noqa: PTH102 - not for async code
    environment = {FOLDER_VARIABLE: str(folder)}
    drop = (sys.executable, "-c", _AS_ANOTHER, str(member), str(group))
    serve = (sys.executable, "-c", _AS_ANOTHER, "0", str(group))
    try:
        async with command(
            *serve, *run("test:///default", database), environment=environment
        ) as daemon:
            await daemon.says("row claimed")
            async with command(*drop, *asynchost("status"), environment=environment) as asking:
                assert await asking.ends() == 0, (asking.out, asking.err)
            async with command(*drop, *asynchost("explain"), environment=environment) as asking:
                assert await asking.ends() == 2
            assert "own user and root" in asking.err[-1]
            assert (await daemon.stops(signal.SIGTERM))[0] == 0
    finally:
        shutil.rmtree(folder)


_AS_ANOTHER = """
import os, sys
user, group, *command = sys.argv[1:]
os.setgroups([])
os.setgid(int(group))
os.setuid(int(user))
os.execv(command[0], command)
"""


async def test_watch_shows_each_change_with_its_guest(
    database: Database,
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    tmp_path: Path,
) -> None:
    """As text and as JSON; a hostile name is escaped, and the end of the daemon is the end."""
    environment = {FOLDER_VARIABLE: str(tmp_path)}
    arguments = run(libvirtd.uri("test"), database)
    async with command(*arguments, environment=environment) as daemon:
        await daemon.says("row claimed")
        async with (
            command(*asynchost("watch"), environment=environment) as people,
            command(*asynchost("watch", "a", "--json"), environment=environment) as machine,
        ):
            xml = guests.guest_xml(HOSTILE, vcpus=3, kind="test")
            domain = await asyncio.to_thread(guests.start, test_connection, xml)

            async def both() -> bool:
                # A watcher that has not begun yet hears the next change.
                await asyncio.to_thread(domain.destroy)
                await asyncio.to_thread(domain.create)
                return bool(people.out and machine.out)

            await eventually(both)
            line = await people.says("started")
            assert line.isprintable()
            assert "\\u202e" in line
            assert "vCPUs 0 -> 3" in line
            change = json.loads(await machine.says('"started"'))
            assert (change["host"], change["domain_name"]) == ("a", HOSTILE)
            assert (await daemon.stops(signal.SIGTERM))[0] == 0
            assert [await people.ends(), await machine.ends()] == [0, 0]


async def test_watch_ends_with_its_reader_and_without_a_daemon(
    database: Database, tmp_path: Path
) -> None:
    """Also while nothing changes."""
    environment = {FOLDER_VARIABLE: str(tmp_path)}
    async with command(*asynchost("watch"), environment=environment) as nobody:
        assert await nobody.ends() == 3
    async with command(*run("test:///default", database), environment=environment) as daemon:
        await daemon.says("row claimed")
        shell = ("/bin/bash", "-c", '"$@" | true; exit "${PIPESTATUS[0]}"', "bash")
        for name in ("watch", ("status", "--watch")):
            words = (name,) if isinstance(name, str) else name
            async with command(*shell, *asynchost(*words), environment=environment) as watching:
                assert await watching.ends() == 0
            assert watching.err == []
        assert (await daemon.stops(signal.SIGTERM))[0] == 0


async def test_the_doctor_says_what_the_daemon_knows(
    database: Database, libvirtd: PrivateLibvirtd, tmp_path: Path
) -> None:
    """Patterns that match nothing, and a row that another agent owns; nothing of it is an ok."""
    environment = {FOLDER_VARIABLE: str(tmp_path)}
    connection = await asyncio.to_thread(libvirt.open, libvirtd.uri("test"))
    xml = guests.guest_xml("web-1", kind="test")
    domain = await asyncio.to_thread(guests.start, connection, xml)
    arguments = run(libvirtd.uri("test"), database, "--when-fenced", "wait", "--only", "wbe-*")
    async with command(*arguments, environment=environment) as daemon:
        await daemon.says("row claimed")
        line = json.loads(await daemon.says("patterns match no domain"))
        assert (line["level"], line["patterns"]) == ("warning", ["wbe-*"])
        database.execute("UPDATE asynchost_fence SET term = term + 1, owner = 'rival'")
        # The next read back or renewal finds it, or this change of the host's state.
        await asyncio.to_thread(libvirtd.kill)
        await daemon.says("row fenced")
        await asyncio.to_thread(libvirtd.start)

        async def told() -> bool:
            _, out, _ = await run_to_the_end("doctor", environment=environment)
            text = "\n".join(out)
            assert "standing by; rival owns the row" in text
            return "ok    daemon" not in text

        await eventually(told)
        assert (await daemon.stops(signal.SIGTERM))[0] == 0
    del domain, connection


async def test_the_doctor_finds_a_daemon_that_does_not_answer(
    database: Database, tmp_path: Path
) -> None:
    """That must be mended, and is said after ten seconds."""
    environment = {FOLDER_VARIABLE: str(tmp_path)}
    async with command(*run("test:///default", database), environment=environment) as daemon:
        await daemon.says("row claimed")
        daemon.send(signal.SIGSTOP)
        try:
            async with command(
                *asynchost("doctor", "--connect", "test:///default"), environment=environment
            ) as doctor:
                assert await doctor.ends() == 2
        finally:
            daemon.send(signal.SIGCONT)
    assert doctor.said("MEND  daemon") is not None
    assert doctor.said("did not answer within 10 s") is not None
