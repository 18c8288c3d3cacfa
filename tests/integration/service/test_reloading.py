"""SIGHUP reads the configuration again: hosts come and go, and nobody else is touched."""

import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from asynchost.service.declared import CONFIG_VARIABLE
from tests.integration.service.processes import Command, asynchost, command
from tests.integration.service.rows import Database
from tests.support.waiting import eventually, eventually_equal

RELOADED = ("configuration reloaded", "configuration not reloaded, nothing is changed")


class Reloads:
    """A daemon with a configuration file, which is written anew and reloaded."""

    def __init__(self, daemon: Command, path: Path, database: Database) -> None:
        self.daemon = daemon
        self._path = path
        self._database = database
        self._seen = 0

    async def reload(self, *hosts: str, more: str = "") -> dict[str, Any]:
        """Write the file, ask for a reload, and return the line that tells of it."""
        self._path.write_text(text_of(self._database, hosts, more))
        return await self.again()

    async def again(self) -> dict[str, Any]:
        """Ask for a reload of the file as it is."""
        self.daemon.send(signal.SIGHUP)
        lines = await eventually(self._news, 30, "a line that tells of the reload")
        self._seen += 1
        return lines

    def _news(self) -> dict[str, Any] | None:
        told = [line for line in self.daemon.err if any(words in line for words in RELOADED)]
        return json.loads(told[self._seen]) if len(told) > self._seen else None

    def events(self, words: str) -> list[str]:
        """The hosts of which the log says so, in order."""
        records = [json.loads(line) for line in self.daemon.err]
        return [one["host"] for one in records if one["event"] == words and "host" in one]


def text_of(database: Database, hosts: Sequence[str], more: str = "") -> str:
    """A configuration file with these hosts; a name may be followed by further lines."""
    lines = [f'database = "{database.url()}"', 'disk = "none"', more]
    for host in hosts:
        name, *own = host.splitlines()
        uri = f"test:///default?{name}"
        lines += ["[[host]]", f'name = "{name}"', f'connect = "{uri}"', *own]
    return "\n".join(lines)


@pytest.fixture
def start(database: Database, tmp_path: Path) -> Callable[..., Any]:
    """Starts a daemon with a configuration file, and waits for its rows."""

    @asynccontextmanager
    async def starting(*hosts: str, more: str = "") -> AsyncIterator[Reloads]:
        path = tmp_path / "asynchost.toml"
        path.write_text(text_of(database, hosts, more))
        environment = {CONFIG_VARIABLE: str(path)}
        async with command(*asynchost("run"), environment=environment) as daemon:
            await eventually_equal(lambda: names(database), sorted(hosts))
            yield Reloads(daemon, path, database)
            assert (await daemon.stops(signal.SIGTERM))[0] == 0

    return starting


def names(database: Database) -> list[str]:
    """The hosts that have a row."""
    return sorted(row["hypervisor_hostname"] for row in database.rows())


def states(database: Database) -> dict[str, str]:
    """What the guard rows say of each host."""
    return {row["node"]: row["state"] for row in database.execute("SELECT * FROM asynchost_fence")}


async def test_hosts_come_and_go_and_nobody_else_is_touched(
    database: Database, start: Callable[..., Any]
) -> None:
    """A new host gets its row, one that goes is let go of, one that changes is watched anew."""
    async with start("a", "b", "c") as reloads:
        line = await reloads.reload("a", "c\nreserved-vcpus = 5", "d")
        assert (line["added"], line["removed"], line["changed"]) == (["d"], ["b"], ["c"])
        assert line["hosts"] == 3
        await eventually_equal(lambda: names(database), ["a", "b", "c", "d"])
        await eventually_equal(
            lambda: {row["hypervisor_hostname"]: row["vcpus_used"] for row in database.rows()},
            {"a": 2, "b": 2, "c": 7, "d": 2},
        )
        assert reloads.events("connected").count("a") == 1
        assert reloads.events("row claimed").count("a") == 1
        line = await reloads.reload("b")
        assert (line["added"], line["removed"]) == (["b"], ["a", "c", "d"])
        await eventually_equal(lambda: states(database)["b"], "fresh")


async def test_a_bad_file_changes_nothing_and_is_told(
    database: Database, start: Callable[..., Any]
) -> None:
    """Every mistake; the next good file is taken over."""
    async with start("a") as reloads:
        line = await reloads.reload("a", "b", more='debounse = 1\ncount = "all"')
        assert line["level"] == "error"
        assert ["debounse" in line["mistakes"][0], "count" in line["mistakes"][1]] == [True, True]
        line = await reloads.reload()
        assert "--connect is missing" in line["mistakes"][0]
        assert states(database) == {"a": "fresh"}
        line = await reloads.reload("a", "b")
        assert line["added"] == ["b"]
        await eventually_equal(lambda: states(database), {"a": "fresh", "b": "fresh"})


async def test_what_needs_a_restart_is_named_until_it_comes(
    database: Database, start: Callable[..., Any]
) -> None:
    """And what stands in its default already is no change."""
    async with start("a", more='when-fenced = "exit"') as reloads:
        more = 'when-fenced = "wait"\nlog-level = "debug"\ndebounce = 0.2\nforeign-edits = "repair"'
        line = await reloads.reload("a", more=more)
        assert line["needs_restart"] == ["when-fenced", "log-level"]
        assert (await reloads.again())["needs_restart"] == ["when-fenced", "log-level"]
        assert "needs_restart" not in await reloads.reload("a")


async def test_a_new_password_is_taken_up(database: Database, tmp_path: Path) -> None:
    """The file is read again, and the next connection logs in with what it holds."""
    secret, path = tmp_path / "secret", tmp_path / "asynchost.toml"
    secret.write_text("old\n")
    database.execute(
        "CREATE USER agent@localhost IDENTIFIED BY 'old'",
        "GRANT ALL ON nova.* TO agent@localhost",
    )
    text = text_of(database, ["a"], more=f'database-password-file = "{secret}"\naudit-interval = 1')
    path.write_text(text.replace(database.url(), database.url(user="agent")))
    async with command(*asynchost("run", "--config", str(path), "--debounce", "0")) as daemon:
        reloads = Reloads(daemon, path, database)
        await eventually_equal(lambda: names(database), ["a"])
        database.execute("ALTER USER agent@localhost IDENTIFIED BY 'new'")
        secret.write_text("new\n")
        await reloads.again()
        before = len([line for line in daemon.err if "database connected" in line])
        database.execute(
            *(
                f"KILL {row['id']}"
                for row in database.execute(
                    "SELECT id FROM information_schema.processlist WHERE user = 'agent'"
                )
            )
        )
        await eventually(
            lambda: len([line for line in daemon.err if "database connected" in line]) > before, 30
        )


async def test_a_reload_while_it_starts_does_not_end_it(database: Database, tmp_path: Path) -> None:
    """From the moment on at which the process has begun to hold signals."""
    path = tmp_path / "asynchost.toml"
    path.write_text(text_of(database, ["a"]))
    async with command(*asynchost("run", "--config", str(path))) as daemon:
        await eventually(lambda: is_held(daemon.pid, signal.SIGHUP), 30)
        daemon.send(signal.SIGHUP)
        await daemon.says("running")
        await eventually_equal(lambda: states(database), {"a": "fresh"})
        assert (await daemon.stops(signal.SIGTERM))[0] == 0


def is_held(pid: int, number: signal.Signals) -> bool:
    """Whether the process holds a signal back."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigBlk"))
    return bool(mask >> (number - 1) & 1)


async def test_without_a_file_it_ends_in_order(database: Database) -> None:
    """A terminal that is closed ends what was started on it."""
    arguments = asynchost("run", "--connect", "a=test:///default", "--database", database.url())
    async with command(*arguments, environment={"INVOCATION_ID": ""}) as daemon:
        await eventually_equal(lambda: states(database), {"a": "fresh"})
        status, _ = await daemon.stops(signal.SIGHUP)
    assert status == 0
    assert states(database) == {"a": "stopped"}


async def test_under_a_service_manager_it_reloads_without_a_file(database: Database) -> None:
    """The password may have changed."""
    arguments = asynchost("run", "--connect", "a=test:///default", "--database", database.url())
    async with command(*arguments, environment={"INVOCATION_ID": "f00"}) as daemon:
        await daemon.says("running")
        daemon.send(signal.SIGHUP)
        await daemon.says("configuration reloaded")
        assert (await daemon.stops(signal.SIGTERM))[0] == 0


async def test_a_thousand_reloads_leak_nothing(
    database: Database, start: Callable[..., Any]
) -> None:
    """Neither descriptors nor threads nor memory; in every tenth reload a host comes or goes."""
    async with start("a") as reloads:
        pid = reloads.daemon.pid

        async def many(times: int) -> None:
            for number in range(times):
                if number % 20 == 0:
                    await reloads.reload("a", "b")
                elif number % 20 == 10:
                    await reloads.reload("a")
                else:
                    await reloads.again()
            await reloads.reload("a")

        await many(100)
        before, memory = resources(pid), resident(pid)
        await many(900)
        assert await eventually(lambda: resources(pid) <= before, 30)
        assert resident(pid) - memory < 8 * 2**20
        assert reloads.events("connected").count("a") == 1


def resources(pid: int) -> tuple[int, int]:
    """Descriptors and threads of a process."""
    process = Path(f"/proc/{pid}")
    return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")
