"""``asynchost run`` as a process: it keeps the row, ends when told, and waits for servers.

Status 0 says that an end was prompt: one that is not in order after eight seconds has another.
"""

import asyncio
import json
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.integration.service.processes import asynchost, command
from tests.integration.service.rows import Database
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.waiting import eventually, eventually_equal

DEFAULT_HOST = {"vcpus_used": 2, "memory_mb_used": 2048, "running_vms": 1}
"""What libvirt's test driver begins with: one domain."""


def used(row: dict[str, Any] | None) -> dict[str, int] | None:
    """The three usage columns."""
    return None if row is None else {column: row[column] for column in DEFAULT_HOST}


def running(database: Database) -> dict[str, int]:
    """``running_vms`` by host: which of two hosts is written first is nobody's promise."""
    return {row["hypervisor_hostname"]: row["running_vms"] for row in database.rows()}


def command_line(pid: int) -> bytes:
    """Of a process, as anybody sees it."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()


async def row_is(database: Database, expected: dict[str, int]) -> None:
    """Wait until the only row says ``expected``."""
    await eventually_equal(lambda: used(database.row()), expected)


async def test_a_row_appears_and_sigterm_ends_it_orderly(
    database: Database, tmp_path: Path
) -> None:
    """From nothing to a whole row; then a clean end with everything said as JSON."""
    arguments = asynchost(
        *("run", "--connect", "node1=test:///default", "--database", database.url()),
        *("--instances-path", str(tmp_path)),
    )
    async with command(*arguments) as daemon:
        await row_is(database, DEFAULT_HOST)
        row = database.row()
        assert row is not None
        assert (row["hypervisor_hostname"], row["service_id"]) == ("node1", 0)
        assert row["local_gb"] > 0
        status, _ = await daemon.stops(signal.SIGTERM)
    assert (status, daemon.out) == (0, [])
    records = [json.loads(line) for line in daemon.err]
    assert [record["event"] for record in records][-1] == "stopped"
    assert all({"timestamp", "level", "event"} <= record.keys() for record in records)
    assert not [record for record in records if record["level"] in ("warning", "error")]


async def test_a_dry_run_prints_the_statements_and_writes_nothing(
    database: Database, libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """On standard output, one for each flush; both tables stay empty."""
    arguments = asynchost(
        *("run", "--dry-run", "--connect", f"a={libvirtd.uri('test')}"),
        *("--database", database.url()),
    )
    async with command(*arguments) as daemon:
        await eventually(lambda: daemon.out, 30)
        xml = guests.guest_xml("one", vcpus=3, kind="test")
        await asyncio.to_thread(guests.start, test_connection, xml)
        await daemon.says("vcpus_used = 3")
        insert, *updates = daemon.out
        assert insert.startswith("INSERT INTO compute_nodes")
        assert all(line.startswith("UPDATE asynchost_fence") for line in updates)
        assert (await daemon.stops(signal.SIGTERM))[0] == 0
    assert database.rows() == []


async def test_changes_reach_the_row_and_the_log_says_them(
    database: Database, libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """A guest starts and stops; each flush is one line with the columns and their values."""
    arguments = asynchost(
        *("run", "--connect", libvirtd.uri("test"), "--database", database.url()),
        *("--log-format", "console", "--log-level", "debug", "--service-id", "7"),
    )
    async with command(*arguments) as daemon:
        await row_is(database, {"vcpus_used": 0, "memory_mb_used": 0, "running_vms": 0})
        xml = guests.guest_xml("one", vcpus=3, memory_kib=65536, kind="test")
        domain = await asyncio.to_thread(guests.start, test_connection, xml)
        await row_is(database, {"vcpus_used": 3, "memory_mb_used": 64, "running_vms": 1})
        assert "vcpus_used=3" in await daemon.says("vcpus_used=3")
        await asyncio.to_thread(domain.destroy)
        await row_is(database, {"vcpus_used": 0, "memory_mb_used": 0, "running_vms": 0})
        row = database.row()
        assert row is not None
        assert row["service_id"] == 7
        assert (await daemon.stops(signal.SIGINT))[0] == 0


def is_connection(pid: int, number: int) -> bool:
    """Whether the process has a socket under this number."""
    return str(Path(f"/proc/{pid}/fd/{number}").readlink()).startswith("socket:")


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- >&- 2>&-"])
async def test_it_runs_without_input_or_output(database: Database, closed: str) -> None:
    """Some supervisors start their programs so; no connection takes the place of a stream."""
    arguments = asynchost("run", "--connect", "test:///default", "--database", database.url())
    shell = ("/bin/sh", "-c", f'exec "$@" {closed}', "sh")
    async with command(*shell, *arguments) as daemon:
        await row_is(database, DEFAULT_HOST)
        assert not any(is_connection(daemon.pid, number) for number in range(3))
        assert (await daemon.stops(signal.SIGTERM))[0] == 0


async def test_several_hosts_have_several_rows(database: Database, tmp_path: Path) -> None:
    """One process, one row per host, each with the service id given for its name."""
    for name, memory in (("a", 1024), ("b", 2048)):
        (tmp_path / f"{name}.xml").write_text(
            f"<node><cpu><mhz>1</mhz><model>i686</model><active>{memory // 512}</active>"
            f"<nodes>1</nodes><sockets>1</sockets><cores>1</cores><threads>1</threads></cpu>"
            f"<memory>{memory * 1024}</memory></node>"
        )
    arguments = asynchost(
        "run",
        *("--connect", f"a=test://{tmp_path}/a.xml", "--connect", f"b=test://{tmp_path}/b.xml"),
        *("--service-id", "b=9", "--database", database.url()),
    )
    async with command(*arguments) as daemon:
        rows = await eventually(lambda: len(rows := database.rows()) == 2 and rows, 30)
        found = {row["hypervisor_hostname"]: (row["memory_mb"], row["service_id"]) for row in rows}
        assert found == {"a": (1024, 0), "b": (2048, 9)}
        assert (await daemon.stops(signal.SIGTERM))[0] == 0


async def test_a_libvirtd_that_is_not_up_is_waited_for(
    database: Database, private_libvirtd: Callable[..., PrivateLibvirtd]
) -> None:
    """It says so, goes on when libvirtd comes, and says so again when that ends."""
    libvirtd = await asyncio.to_thread(private_libvirtd)
    uri = libvirtd.uri("test")
    await asyncio.to_thread(libvirtd.terminate)
    async with command(*asynchost("run", "--connect", uri, "--database", database.url())) as daemon:
        await daemon.says("not connected, trying again")
        assert database.rows() == []
        await asyncio.to_thread(libvirtd.start)
        await row_is(database, DEFAULT_HOST)
        await asyncio.to_thread(libvirtd.kill)
        await daemon.says("connection lost")
        assert (await daemon.stops(signal.SIGTERM))[0] == 0


async def test_a_database_that_is_not_up_is_waited_for(database: Database) -> None:
    """The daemon starts without its database, and writes as soon as that comes."""
    await database.server.kill()
    arguments = asynchost("run", "--connect", "test:///default", "--database", database.url())
    async with command(*arguments) as daemon:
        line = json.loads(await daemon.says(str(database.server.socket)))
        assert line["level"] == "warning"
        await daemon.says("totals ready")
        await database.server.start()
        await row_is(database, DEFAULT_HOST)
        assert (await daemon.stops(signal.SIGTERM))[0] == 0


async def test_it_ends_while_it_waits_for_everything(tmp_path: Path) -> None:
    """With neither server there, the end is as quick and as clean."""
    arguments = asynchost(
        *("run", "--connect", f"test+unix:///default?socket={tmp_path}/none"),
        *("--database", f"mysql://nova@localhost/nova?unix_socket={tmp_path}/none"),
    )
    async with command(*arguments) as daemon:
        await daemon.says("not connected, trying again")
        status, _ = await daemon.stops(signal.SIGTERM)
    assert (status, json.loads(daemon.err[-1])["event"]) == (0, "stopped")


async def test_a_libvirtd_that_never_answers_does_not_delay_the_end(
    database: Database, tmp_path: Path
) -> None:
    """A thread that is stuck inside libvirt is left behind."""
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "mute"))
        mute.listen()
        uri = f"test+unix:///default?socket={tmp_path}/mute"
        arguments = asynchost("run", "--connect", uri, "--database", database.url())
        async with command(*arguments) as daemon:
            await daemon.says("running")
            await eventually(lambda: is_in_a_call(daemon.pid))
            status, _ = await daemon.stops(signal.SIGTERM)
    assert (status, json.loads(daemon.err[-1])["event"]) == (0, "stopped")


async def test_a_libvirtd_that_hangs_does_not_delay_the_end(
    database: Database, private_libvirtd: Callable[..., PrivateLibvirtd]
) -> None:
    """A connection that was good and whose other side has stopped is let go as well."""
    libvirtd = await asyncio.to_thread(private_libvirtd)
    arguments = ("run", "--connect", libvirtd.uri("test"), "--database", database.url())
    async with command(*asynchost(*arguments)) as daemon:
        await row_is(database, DEFAULT_HOST)
        libvirtd.pause()
        try:
            status, _ = await daemon.stops(signal.SIGTERM)
        finally:
            libvirtd.resume()
    assert (status, json.loads(daemon.err[-1])["event"]) == (0, "stopped")


def is_in_a_call(pid: int) -> bool:
    """Whether a thread of the process waits inside a libvirt call."""
    names = [path.read_text() for path in Path("/proc").glob(f"{pid}/task/*/comm")]
    return len(names) > 1


async def test_a_second_signal_ends_it_at_once(database: Database) -> None:
    """With a database that no longer answers, the last write would take its whole deadline."""
    arguments = asynchost(
        *("run", "--connect", "test:///default", "--database", database.url()),
        *("--debounce", "60", "--max-delay", "60", "--disk", "none"),
    )
    async with command(*arguments) as daemon:
        # The last that a row needs, without a disk; with no row to write, one signal is enough.
        await daemon.says("host facts read")
        database.server.suspend()
        try:
            daemon.send(signal.SIGTERM)
            await daemon.says("stopping; a second signal ends at once")
            status, _ = await daemon.stops(signal.SIGINT)
        finally:
            database.server.resume()
    # After the last write's deadline it would have ended with another status.
    assert status == 128 + signal.SIGINT


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPWR]
)
async def test_a_last_write_is_made_before_the_end(
    database: Database, number: signal.Signals
) -> None:
    """What is dirty when the signal comes is in the row when the process has ended, and the guard
    says that nobody watches the host any more."""
    arguments = asynchost(
        *("run", "--connect", "test:///default", "--database", database.url()),
        *("--debounce", "60", "--max-delay", "60", "--disk", "none"),
    )
    async with command(*arguments) as daemon:
        # The last that a row needs, where no disk is wanted.
        await daemon.says("host facts read")
        assert (await daemon.stops(number))[0] == 0
    assert used(database.row()) == DEFAULT_HOST
    assert database.execute("SELECT state FROM asynchost_fence") == [{"state": "stopped"}]


async def test_signals_that_mean_nothing_end_nothing(database: Database) -> None:
    """By default each of them kills a process at once, without a last write."""
    arguments = asynchost("run", "--connect", "test:///default", "--database", database.url())
    async with command(*arguments) as daemon:
        await row_is(database, DEFAULT_HOST)
        for number in (signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF):
            daemon.send(number)
            line = json.loads(await daemon.says(number.name))
            assert (line["event"], line["signal"]) == ("signal ignored", number.name)
        daemon.send(signal.Signals(signal.SIGRTMIN))
        await daemon.says("SIGRTMIN")
        assert (await daemon.stops(signal.SIGTERM))[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT])
async def test_a_signal_at_the_very_start_is_not_lost(
    database: Database, number: signal.Signals
) -> None:
    """Before anything is loaded: it is held until there is somebody to answer it."""
    script = str(Path(sys.executable).parent / "asynchost")
    arguments = (script, "run", "--connect", "test:///default", "--database", database.url())
    async with command(*arguments) as daemon:
        # Python has begun; what is imported after this takes a good part of a second.
        await eventually(lambda: holds(daemon.pid, number))
        daemon.send(number)
        if number == signal.SIGUSR1:
            await row_is(database, DEFAULT_HOST)
            assert (await daemon.stops(signal.SIGTERM))[0] == 0
        else:
            assert await daemon.ends() == 0
    assert "Traceback" not in "".join(daemon.err)


def holds(pid: int, number: signal.Signals) -> bool:
    """Whether the process has blocked a signal, and is not further than that."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("SigBlk:"))
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


async def test_rows_that_others_take_over_are_given_up_one_by_one(
    database: Database,
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    qemu_connection: libvirt.virConnect,
) -> None:
    """The other hosts are still written; with the last one lost, the status says so."""
    arguments = asynchost(
        *("run", "--connect", f"a={libvirtd.uri('test')}"),
        *("--connect", f"b={libvirtd.uri('qemu')}", "--database", database.url()),
    )
    take_over = "UPDATE asynchost_fence SET term = term + 1, owner = 'rival' WHERE node = '{}'"
    async with command(*arguments) as daemon:
        await eventually(lambda: len(database.rows()) == 2, 30)
        database.execute(take_over.format("a"))
        xml = guests.guest_xml("one", vcpus=3, kind="test")
        await asyncio.to_thread(guests.start, test_connection, xml)
        await daemon.says("rival")
        one = await asyncio.to_thread(guests.start, qemu_connection, guests.guest_xml("one"))
        await eventually(lambda: running(database) == {"a": 0, "b": 1})
        database.execute(take_over.format("b"))
        await asyncio.to_thread(one.destroy)
        assert await daemon.ends() == 3
    reason = json.loads(daemon.err[-1])["reason"]
    assert reason.startswith("the row of '")
    assert "claimed by rival" in reason
    assert running(database) == {"a": 0, "b": 1}


async def test_a_standby_takes_over_from_an_agent_that_is_stopped(
    database: Database, libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """It does not end when it is fenced, writes nothing meanwhile, and then has the row again."""
    arguments = asynchost(
        *("run", "--connect", f"a={libvirtd.uri('test')}", "--database", database.url()),
        *("--when-fenced", "wait"),
    )
    async with command(*arguments) as daemon:
        await eventually(database.rows, 30)
        database.execute("UPDATE asynchost_fence SET term = term + 1, owner = 'rival'")
        xml = guests.guest_xml("one", vcpus=3, kind="test")
        await asyncio.to_thread(guests.start, test_connection, xml)
        await daemon.says("row fenced")
        assert running(database) == {"a": 0}
        database.execute("UPDATE asynchost_fence SET state = 'stopped'")
        await eventually(lambda: running(database) == {"a": 1}, 30)
        await daemon.says("the owner is gone, claiming the row")
        assert (await daemon.stops(signal.SIGTERM))[0] == 0


async def test_the_password_comes_from_file_or_environment(
    database: Database, tmp_path: Path
) -> None:
    """All ways in work, and the password is in no line and in no list of processes."""
    database.execute(
        "CREATE USER agent@localhost IDENTIFIED BY 's3cret'",
        "GRANT ALL ON nova.* TO agent@localhost",
    )
    path = tmp_path / "password"
    path.write_text("s3cret\n")
    url = database.url("agent")
    for arguments, environment in (
        (("--database", url, "--database-password-file", str(path)), {}),
        (("--database", url), {"ASYNCHOST_DATABASE_PASSWORD": "s3cret"}),
        ((), {"ASYNCHOST_DATABASE": url.replace("agent@", "agent:s3cret@")}),
    ):
        database.execute("DELETE FROM compute_nodes", "DELETE FROM asynchost_fence")
        full = asynchost("run", "--connect", "test:///default", *arguments)
        async with command(*full, environment=environment) as daemon:
            await row_is(database, DEFAULT_HOST)
            # What ps shows to every user of the machine, and the server to its own.
            assert b"s3cret" not in command_line(daemon.pid)
            assert "s3cret" not in str(database.execute("SHOW FULL PROCESSLIST"))
            assert (await daemon.stops(signal.SIGTERM))[0] == 0
        assert daemon.said("s3cret") is None


@pytest.mark.parametrize("giver", ["file", "credential"])
async def test_a_password_that_changes_while_it_runs(
    database: Database, tmp_path: Path, giver: str
) -> None:
    """The file is read again before each connection. systemd copies a credential at a start only,
    and the log says so."""
    secret = tmp_path / "database-password"
    secret.write_text("first")
    secret.chmod(0o600)
    database.execute(
        "CREATE USER agent@localhost IDENTIFIED BY 'first'", "GRANT ALL ON *.* TO agent@localhost"
    )
    arguments = asynchost(
        *("run", "--connect", "node1=test:///default", "--database", database.url("agent")),
        *("--audit-interval", "1"),
    )
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    if giver == "file":
        arguments = (*arguments, "--database-password-file", str(secret))
        environment = {}
    async with command(*arguments, environment=environment) as daemon:
        await row_is(database, DEFAULT_HOST)
        database.execute("ALTER USER agent@localhost IDENTIFIED BY 'second'")
        if giver == "file":
            secret.write_text("second")
        sessions = database.execute(
            "SELECT id AS number FROM information_schema.processlist WHERE user = 'agent'"
        )
        database.execute(*(f"KILL {session['number']}" for session in sessions))
        database.execute("UPDATE compute_nodes SET vcpus_used = 7")
        if giver == "file":
            await row_is(database, DEFAULT_HOST)
        else:
            await eventually(lambda: [line for line in daemon.err if "1045" in line])
            (line, *_) = (line for line in daemon.err if "1045" in line)
            assert "systemctl restart asynchost" in line
