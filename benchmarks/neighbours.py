"""What one row's trouble costs the others: a healthy host's writes, and all signs of life.

Also a program that measures the asynchost that it imports, whatever its commit: ``python
neighbours.py SCENARIO SECONDS`` prints one JSON object. So it uses the public API alone.
"""

import asyncio
import json
import os
import socket
import sys
import threading
import time
from argparse import Namespace
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pymysql

from asynchost.database import ComputeNodeWriter, PrivateMariaDB, WriterSettings, apply_schema
from asynchost.testing import FakeHost

HOSTS = 200
RENEWAL_SECONDS = 5.0
LOOK_SECONDS = 0.02
CHANGE_SECONDS = 0.3
SCENARIOS = (
    "nothing wrong",
    "1 row locked",
    "20 rows locked",
    "200 rows locked",
    "10 guards locked",
    "1 row poisoned",
    "a mute first server",
)
MOST_LATENCY_SECONDS = 1.5
MOST_SILENCE_SECONDS = RENEWAL_SECONDS + 2.0
_POISON = (
    "CREATE TRIGGER poison BEFORE UPDATE ON compute_nodes FOR EACH ROW BEGIN"
    " IF NEW.hypervisor_hostname = 'h0' AND NEW.vcpus_used <> OLD.vcpus_used THEN"
    " SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 5001, MESSAGE_TEXT = 'quota'; END IF; END"
)


class Found(NamedTuple):
    """What one scenario came to, in seconds."""

    latency: float
    """The worst from a change of the healthy host to its committed row."""
    silence: float
    """The longest of a sign of life, of guards that nobody has locked."""


class Observer:
    """A client of its own in a thread: what the database holds, look by look."""

    def __init__(self, server: PrivateMariaDB, spared: str) -> None:
        self.used = 0
        self.silence = 0.0
        self._connection = _connect(server)
        self._spared = spared
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ends.set()
        self._thread.join()
        self._connection.close()

    def _look(self) -> None:
        silence = (
            "SELECT MAX(TIMESTAMPDIFF(MICROSECOND, GREATEST(seen_at, updated_at),"
            f" UTC_TIMESTAMP(6))) FROM asynchost_fence WHERE {self._spared}"
        )
        used = "SELECT vcpus_used FROM compute_nodes WHERE hypervisor_hostname = 'healthy'"
        with self._connection.cursor() as cursor:
            while not self._ends.wait(LOOK_SECONDS):
                cursor.execute(used)
                self.used = cursor.fetchone()[0]  # type: ignore[index]
                cursor.execute(silence)
                found = cursor.fetchone()[0]  # type: ignore[index]
                self.silence = max(self.silence, float(found) / 1e6)


def _connect(server: PrivateMariaDB) -> "pymysql.Connection[Any]":
    return pymysql.connect(
        unix_socket=str(server.socket), user=server.user, database="nova", autocommit=True
    )


def _is_mysql() -> bool:
    return bool(os.environ.get("ASYNCHOST_MYSQL"))


def _servers() -> type[PrivateMariaDB]:
    """MariaDB, or MySQL where the tests take that and the asynchost that is measured has it."""
    if not _is_mysql():
        return PrivateMariaDB
    from tests.support.mysql import PrivateMySQL  # noqa: PLC0415 - not at every commit

    return PrivateMySQL


@asynccontextmanager
async def _database(scenario: str) -> AsyncIterator[tuple[PrivateMariaDB, str]]:
    """A private server with the tables, and the URL for the writer."""
    with socket.create_server(("127.0.0.1", 0)) as mute, socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        listening = ("--skip-networking=OFF", "--bind-address=127.0.0.1", f"--port={port}")
        async with _servers()(arguments=listening) as server:
            with pymysql.connect(
                unix_socket=str(server.socket), user=server.user, autocommit=True
            ) as admin:
                for statement in (
                    "CREATE DATABASE nova",
                    "CREATE USER agent@'127.0.0.1' IDENTIFIED BY 'pw'",
                    "GRANT ALL ON nova.* TO agent@'127.0.0.1'",
                ):
                    admin.cursor().execute(statement)
            url = server.url("nova")
            await apply_schema(url)
            if scenario == "a mute first server":
                first = mute.getsockname()[1]
                url = f"mysql://agent:pw@127.0.0.1:{first},127.0.0.1:{port}/nova"
                if _is_mysql():
                    url += "?fetch_server_public_key=1"
            yield server, url


@contextmanager
def _trouble(server: PrivateMariaDB, scenario: str) -> Iterator[None]:
    """What is wrong, until the block ends."""
    connection = _connect(server)
    words = scenario.split()
    cursor = connection.cursor()
    try:
        if scenario.endswith("locked"):
            column = "hypervisor_hostname" if "row" in scenario else "node"
            table = "compute_nodes" if "row" in scenario else "asynchost_fence"
            names = ", ".join(f"'h{number}'" for number in range(int(words[0])))
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            cursor.execute("BEGIN")
            cursor.execute(f"SELECT * FROM {table} WHERE {column} IN ({names}) FOR UPDATE")
        elif scenario.endswith("poisoned"):
            cursor.execute(_POISON)
        yield
    finally:
        connection.rollback()
        if scenario.endswith("poisoned"):
            cursor.execute("DROP TRIGGER poison")
        connection.close()


async def measure(scenario: str, seconds: float) -> Found:
    """The healthy host changes again and again while the trouble lasts; the others do at first."""
    settings = WriterSettings(
        quiet_seconds=0.0,
        maximum_delay_seconds=0.0,
        renewal_interval_seconds=RENEWAL_SECONDS,
        connection_age_seconds=3.0 if "mute" in scenario else 3600.0,
    )
    guards = [f"'h{number}'" for number in range(10)] if "guards" in scenario else ["''"]
    hosts, healthy = [FakeHost(f"h{number}") for number in range(HOSTS)], FakeHost("healthy")
    worst = 0.0
    async with (
        _database(scenario) as (server, url),
        ComputeNodeWriter(url, settings=settings) as writer,
    ):
        for host in (*hosts, healthy):
            writer.attach(host)
        await writer.flush()
        with _trouble(server, scenario):
            observer = Observer(server, f"node NOT IN ({', '.join(guards)})")
            for host in hosts:
                host.start(vcpus=1, memory_kib=0)
            ends_at = time.monotonic() + seconds
            while time.monotonic() < ends_at:
                healthy.start(vcpus=1, memory_kib=0)
                began = time.monotonic()
                while (  # noqa: ASYNC110 - the observer is a thread
                    observer.used != healthy.usage.vcpus_used and time.monotonic() < ends_at
                ):
                    await asyncio.sleep(LOOK_SECONDS / 4)
                worst = max(worst, time.monotonic() - began)
                await asyncio.sleep(CHANGE_SECONDS)
            observer.close()
    return Found(worst, observer.silence)


def run(options: Namespace) -> Any:
    """Each scenario in turn, of this checkout and, with ``--against``, of that commit."""
    from benchmarks.against import checkout, python_of  # noqa: PLC0415 - the program needs neither
    from benchmarks.report import Goal, Result, Table  # noqa: PLC0415

    here = Path(__file__).parents[1]
    sides = {"this": here}
    if options.against:
        sides[options.against[:8]] = checkout(options.against)
    seconds = 8.0 if options.quick else 25.0
    found: dict[str, dict[str, Found]] = {}
    for scenario in SCENARIOS:
        found[scenario] = {}
        for side, folder in sides.items():
            found[scenario][side] = python_of(
                folder, Path(__file__), scenario, str(seconds), parse=lambda got: Found(*got)
            )
    rows = [
        [scenario, *(f"{x:.2f}" for by_side in found[scenario].values() for x in by_side)]
        for scenario in SCENARIOS
    ]
    heads = [f"{what}, {side}" for side in sides for what in ("write", "sign")]
    worst = [found[scenario]["this"] for scenario in SCENARIOS]
    return Result(
        "neighbours",
        f"{HOSTS} hosts beside a healthy one, a sign of life every {RENEWAL_SECONDS:g} s, while"
        f" something is wrong for {seconds:g} s. Worst time from a change of the healthy host to"
        " its committed row, and longest silence of a guard that nobody has locked; in seconds.",
        {"server": "MySQL" if _is_mysql() else "MariaDB"},
        [Table("seconds", ["", *heads], rows)],
        [
            Goal(
                f"a healthy host's write within {MOST_LATENCY_SECONDS:g} s",
                f"{max(one.latency for one in worst):.2f} s",
                max(one.latency for one in worst) <= MOST_LATENCY_SECONDS,
            ),
            Goal(
                f"a sign of life within {MOST_SILENCE_SECONDS:g} s",
                f"{max(one.silence for one in worst):.2f} s",
                max(one.silence for one in worst) <= MOST_SILENCE_SECONDS,
            ),
        ],
        raw={"found": found},
    )


if __name__ == "__main__":
    import logging

    logging.getLogger("asynchost").setLevel(logging.CRITICAL)
    print(json.dumps(asyncio.run(measure(sys.argv[1], float(sys.argv[2])))))
