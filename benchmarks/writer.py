"""How many hosts' rows one writer keeps true, and what a row costs on both sides.

The hosts are doubles in this process, their rows are there and owned from the beginning, and the
database is a private MariaDB, or one node of a Galera cluster of three on this machine. All
contenders write the same four columns of the same rows.
"""

import asyncio
import logging
import os
import time
from argparse import Namespace
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import aiomysql

from asynchost.database import ComputeNodeWriter, PrivateMariaDB, WriterSettings, apply_schema
from asynchost.database.attachment import Attachment
from asynchost.database.identity import Claim, How
from asynchost.database.rows import RowEncoder, named
from asynchost.database.schema import FENCE, TABLE
from asynchost.database.session import Session
from asynchost.database.statements import FenceKey, RowWrite, literal
from asynchost.database.url import DatabaseUrl
from asynchost.model import HostSnapshot, Usage
from asynchost.service.collector import calm_collector
from asynchost.testing import FakeHost
from benchmarks.figures import quantile, ratio_interval
from benchmarks.report import Goal, Result, Table, microseconds
from tests.storms import galera

SERVER = (
    "--innodb-buffer-pool-size=256M",
    "--innodb-log-file-size=96M",
    "--innodb-log-buffer-size=16M",
)
"""What a private server has less of. The log is as large as MariaDB makes it by itself: a smaller
one is full every second here, and then the server stands still until its pages are on the disk."""
BULK = 1000
LOADS, QUICK_LOADS = (30_000, 100_000), (300,)
LOAD_SECONDS, QUICK_LOAD_SECONDS = 30.0, 3.0
TICK_SECONDS = 0.01
MOST_OWED_SECONDS = 0.1
MOST_LATE_SECONDS = 0.2
MOST_BYTES_A_HOST = 1024
TIMES_ONE_AT_A_TIME = 10
SHARE_OF_LIMIT = 0.5
MOST_TIMES_BARE = 2.0
AT_ONCE = WriterSettings(quiet_seconds=0, maximum_delay_seconds=0)
DEADLINE_SECONDS = 60.0


class Host:
    """A host whose totals are set; the least that a writer can be attached to."""

    __slots__ = ("_listeners", "_snapshot", "host", "usage")

    def __init__(self, name: str, like: HostSnapshot) -> None:
        self.host = name
        self.usage = Usage()
        self._snapshot = like
        self._listeners: list[Callable[[], None]] = []

    def snapshot(self) -> HostSnapshot:
        like = self._snapshot
        return HostSnapshot(
            self.host, self.host, 1, True, None, self.usage, like.facts, like.disk, True
        )

    def add_listener(self, listener: Callable[[], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return self._listeners.clear

    def change(self, number: int) -> None:
        """Other totals than before."""
        self.usage = Usage(number, number * 1024, number, 0)
        for listener in self._listeners:
            listener()


class Cost(NamedTuple):
    """What one measurement took, per row; in seconds."""

    wall: float
    client: float
    server: float


class Bench:
    """A database with the rows of so many hosts, twice: ours, and as many for the others."""

    def __init__(self, servers: Sequence[PrivateMariaDB], name: str, hosts: list[Host]) -> None:
        self.server = servers[0]
        self.name = name
        self.url = self.server.url(name)
        self.hosts = hosts
        self._servers = servers
        self._number = 1

    def next(self) -> int:
        """A total that no row has yet."""
        self._number += 1
        return self._number

    async def measure(self, rows: int, work: Callable[[], Awaitable[None]]) -> Cost:
        """Carry out what writes so many rows, and charge it to them."""
        wall, client, server = time.monotonic(), time.process_time(), self._server_seconds()
        await work()
        return Cost(
            (time.monotonic() - wall) / rows,
            (time.process_time() - client) / rows,
            (self._server_seconds() - server) / rows,
        )

    def _server_seconds(self) -> float:
        """Of all nodes together: each applies every row."""
        ticks = 0
        for server in self._servers:
            fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def bench(count: int) -> AsyncIterator[Bench]:
    """With ``count`` hosts, on a server of its own."""
    async with PrivateMariaDB(arguments=SERVER) as server:
        yield await furnish([server], count)


async def furnish(servers: Sequence[PrivateMariaDB], count: int) -> Bench:
    """A database for ``count`` hosts, on the first of these servers."""
    first, name = servers[0], f"nova{count}"
    async with await Session.connect(
        DatabaseUrl.parse(first.url("mysql")), DEADLINE_SECONDS
    ) as session:
        await session.write(f"CREATE DATABASE {name}")
    url = first.url(name)
    await apply_schema(url)
    like = FakeHost("like").snapshot()
    hosts = [Host(f"h{number}", like) for number in range(1, count + 1)]
    async with await Session.connect(DatabaseUrl.parse(url), DEADLINE_SECONDS) as session:
        await _fill(session, hosts)
        await session.write(f"CREATE TABLE bare LIKE {TABLE}")
        await session.write(f"INSERT INTO bare SELECT * FROM {TABLE}")
    return Bench(servers, name, hosts)


async def _fill(session: Session, hosts: Sequence[Host]) -> None:
    for first in range(0, len(hosts), BULK):
        part = hosts[first : first + BULK]
        values = [named(RowEncoder().encode(host.snapshot())) for host in part]
        numbers = range(first + 1, first + 1 + len(part))
        rows = ", ".join(
            f"({number:d}, UTC_TIMESTAMP(), 0, 0, {', '.join(map(literal, one.values()))})"
            for number, one in zip(numbers, values, strict=True)
        )
        names = ", ".join(values[0])
        await session.write(
            f"INSERT INTO {TABLE} (id, created_at, deleted, service_id, {names}) VALUES {rows}"
        )
        now = "UTC_TIMESTAMP(6)"
        fences = ", ".join(
            f"('h{number:d}', '0', {number:d}, 1, 0, 'bench', 'fresh', {now}, {now})"
            for number in numbers
        )
        await session.write(
            f"INSERT INTO {FENCE} (node, service, cn_id, term, seq, owner, state, seen_at,"
            f" updated_at) VALUES {fences}"
        )


@asynccontextmanager
async def owning(there: Bench, settings: WriterSettings) -> AsyncIterator[ComputeNodeWriter]:
    """A writer that owns all the rows, without the time that claiming takes."""
    writer = ComputeNodeWriter(there.url, settings=settings)
    for host in there.hosts:
        host.usage = Usage()
    async with await Session.connect(DatabaseUrl.parse(there.url), DEADLINE_SECONDS) as session:
        await session.write(f"UPDATE {FENCE} SET owner = {literal(writer._worker._owner)}, seq = 0")
        await session.write(f"UPDATE {TABLE} SET vcpus_used = 0, memory_mb_used = 0")
    for number, host in enumerate(there.hosts, 1):
        attachment = writer.attach(host)
        values = named(RowEncoder().encode(host.snapshot()))
        attachment.own(Claim(number, 0, FenceKey(host.host, "0"), 1, How.TAKEN_OVER, values))
    async with writer:
        await writer.flush()
        yield writer


async def _ours(there: Bench, rows: int) -> Cost:
    async with owning(there, AT_ONCE) as writer:

        async def write() -> None:
            for _ in range(rows // len(there.hosts)):
                number = there.next()
                for host in there.hosts:
                    host.change(number)
                await writer.flush()

        return await there.measure(rows, write)


async def _connection(there: Bench) -> Any:
    return await aiomysql.connect(
        unix_socket=str(there.server.socket), user=there.server.user, db=there.name, autocommit=True
    )


_COLUMNS = ("vcpus_used", "memory_mb_used", "free_ram_mb", "running_vms")
_SET = ", ".join(f"{column} = %s" for column in _COLUMNS)


async def _one_at_a_time(there: Bench, rows: int) -> Cost:
    connection = await _connection(there)

    async def write() -> None:
        async with connection.cursor() as cursor:
            for _ in range(rows // len(there.hosts)):
                n = there.next()
                for row in range(1, len(there.hosts) + 1):
                    await cursor.execute(
                        f"UPDATE bare SET {_SET}, updated_at = UTC_TIMESTAMP() WHERE id = %s",
                        (n, n, n, n, row),
                    )

    try:
        return await there.measure(rows, write)
    finally:
        connection.close()


async def _executemany(there: Bench, rows: int) -> Cost:
    connection = await _connection(there)

    async def write() -> None:
        async with connection.cursor() as cursor:
            for _ in range(rows // len(there.hosts)):
                n = there.next()
                await connection.begin()
                await cursor.executemany(
                    f"UPDATE bare SET {_SET}, updated_at = UTC_TIMESTAMP() WHERE id = %s",
                    [(n, n, n, n, row) for row in range(1, len(there.hosts) + 1)],
                )
                await connection.commit()

    try:
        return await there.measure(rows, write)
    finally:
        connection.close()


async def _bulk(there: Bench, rows: int) -> Cost:
    connection = await _connection(there)

    async def write() -> None:
        for _ in range(rows // len(there.hosts)):
            n = there.next()
            for first in range(1, len(there.hosts) + 1, BULK):
                ids = range(first, min(first + BULK, len(there.hosts) + 1))
                selects = " UNION ALL ".join(
                    f"SELECT {row} id, {n} a, {n} b, {n} c, {n} d"
                    if row == first
                    else f"SELECT {row}, {n}, {n}, {n}, {n}"
                    for row in ids
                )
                await connection.query(
                    f"UPDATE ({selects}) v STRAIGHT_JOIN bare t ON t.id = v.id"
                    " SET t.vcpus_used = v.a, t.memory_mb_used = v.b, t.free_ram_mb = v.c,"
                    " t.running_vms = v.d, t.updated_at = UTC_TIMESTAMP()"
                )

    try:
        return await there.measure(rows, write)
    finally:
        connection.close()


CONTENDERS: dict[str, Callable[[Bench, int], Awaitable[Cost]]] = {
    "ComputeNodeWriter": _ours,
    "one UPDATE at a time": _one_at_a_time,
    "executemany": _executemany,
    "in bulk, unguarded": _bulk,
}


Costs = dict[str, dict[int, list[Cost]]]
"""By contender and number of hosts."""


class Load(NamedTuple):
    """What a writer made of a load that it was offered."""

    offered: float
    """Changes a second."""
    written: float
    """Rows a second."""
    late: dict[int, int]
    """How many rows were acknowledged so many milliseconds after the first change that they were
    written for; of the later half of the time."""
    bytes_a_host: float
    """What attaching took."""
    more_bytes: int
    """What the process held more in the end than half-way."""


def _median_late(load: Load) -> float:
    """In milliseconds; infinity where nothing was written."""
    behind = sum(load.late.values()) / 2
    for late, count in sorted(load.late.items()):
        behind -= count
        if behind <= 0:
            return late
    return float("inf")


async def _load(there: Bench, seconds: float) -> Load:
    """Each host changes once a second, evenly spread; what is not yet written is overtaken."""
    changed: dict[Attachment, float] = {}
    late: Counter[int] = Counter()
    count = 0
    acknowledge = Attachment.acknowledge

    def acknowledged(self: Attachment, write: RowWrite, at: float) -> None:
        nonlocal count
        count += 1
        acknowledge(self, write, at)
        late[round(1000 * (time.monotonic() - changed.pop(self, time.monotonic())))] += 1

    before = _resident_bytes()
    async with owning(there, WriterSettings()) as writer:
        attachments = list(writer._worker.attachments)
        bytes_a_host = (_resident_bytes() - before) / len(there.hosts)
        Attachment.acknowledge = acknowledged  # type: ignore[method-assign]
        try:
            begun, position, held, owed, last = time.monotonic(), 0, 0, 0.0, 0.0
            while (now := time.monotonic() - begun) < seconds:
                # What this process cannot offer in time is not made up for: it would offer more
                # and more at once, and let nothing else have a turn.
                owed = min(owed + now - last, MOST_OWED_SECONDS)
                last = now
                upto = position + int(owed * len(there.hosts))
                owed -= (upto - position) / len(there.hosts)
                while position < upto:
                    index = position % len(there.hosts)
                    changed.setdefault(attachments[index], time.monotonic())
                    there.hosts[index].change(2 + position // len(there.hosts))
                    position += 1
                if not held and now > seconds / 2:
                    held = _resident_bytes()
                    late.clear()
                await asyncio.sleep(TICK_SECONDS)
            took = time.monotonic() - begun
            result = Load(
                position / took,
                count / took,
                late,
                bytes_a_host,
                _resident_bytes() - held,
            )
        finally:
            Attachment.acknowledge = acknowledge  # type: ignore[method-assign]
    return result


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def _latencies(there: Bench, count: int) -> tuple[list[float], list[float]]:
    """Change to committed row, and one bare UPDATE; taking turns, of one host."""
    ours: list[float] = []
    bare: list[float] = []
    connection = await _connection(there)
    try:
        async with owning(there, AT_ONCE) as writer:
            for _ in range(count):
                number = there.next()
                began = time.monotonic()
                there.hosts[0].change(number)
                await writer.flush()
                ours.append(time.monotonic() - began)
                began = time.monotonic()
                await connection.query(
                    f"UPDATE bare SET vcpus_used = {number}, memory_mb_used = {number},"
                    f" free_ram_mb = {number}, running_vms = {number},"
                    " updated_at = UTC_TIMESTAMP() WHERE id = 1"
                )
                bare.append(time.monotonic() - began)
    finally:
        connection.close()
    return ours, bare


def run(options: Namespace) -> Result:
    """All sizes, all contenders, in turns; then the loads. With the daemon's garbage collector."""
    calm_collector()
    return asyncio.run(_run(options))


async def _run(options: Namespace) -> Result:
    # A host that is set back is told of as changed by another program.
    logging.getLogger("asynchost").setLevel(logging.ERROR)
    costs, clustered = _no_costs(options), _no_costs(options)
    for size in options.hosts:
        async with bench(size) as there:
            await _in_turns(there, options, size, costs)
    if options.galera:
        async with galera.cluster() as nodes:
            for size in options.hosts:
                await _in_turns(await furnish(nodes, size), options, size, clustered)
    async with bench(1) as there:
        blocks = [await _latencies(there, options.operations) for _ in range(options.rounds)]
    loads = {}
    for size in QUICK_LOADS if options.quick else LOADS:
        async with bench(size) as there:
            seconds = QUICK_LOAD_SECONDS if options.quick else LOAD_SECONDS
            loads[size] = await _load(there, seconds)
    return _result(options, costs, clustered, blocks, loads)


def _no_costs(options: Namespace) -> Costs:
    return {name: {size: [] for size in options.hosts} for name in CONTENDERS}


async def _in_turns(there: Bench, options: Namespace, size: int, costs: Costs) -> None:
    """The first round is thrown away."""
    many = max(1, options.rows // size) * size
    for number in range(options.rounds + 1):
        names = list(CONTENDERS)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            cost = await CONTENDERS[name](there, many)
            if number:
                costs[name][size].append(cost)


def _result(
    options: Namespace,
    costs: Costs,
    clustered: Costs,
    blocks: list[tuple[list[float], list[float]]],
    loads: dict[int, Load],
) -> Result:
    sizes = options.hosts

    def tables(costs: Costs, where: str) -> list[Table]:
        def table(
            title: str, figure: Callable[[Cost], float], shown: Callable[[float], str]
        ) -> Table:
            rows = [
                [name, *(shown(median(map(figure, by[size]))) for size in sizes)]
                for name, by in costs.items()
            ]
            return Table(f"{where}: {title}", ["", *(f"{size:,}" for size in sizes)], rows)

        return [
            table("rows/s, by hosts", lambda cost: 1 / cost.wall, lambda rate: f"{rate:,.0f}"),
            table("client's CPU a row, microseconds", lambda cost: cost.client, microseconds),
            table("server's CPU a row, microseconds", lambda cost: cost.server, microseconds),
        ]

    def times(costs: Costs, name: str, size: int) -> float:
        mine = [cost.wall for cost in costs["ComputeNodeWriter"][size]]
        theirs = [cost.wall for cost in costs[name][size]]
        return ratio_interval(theirs, mine).value

    def goals(costs: Costs, where: str) -> list[Goal]:
        one = times(costs, "one UPDATE at a time", largest)
        bulk = times(costs, "in bulk, unguarded", largest)
        return [
            Goal(
                f"{where}: at least {TIMES_ONE_AT_A_TIME} x the rows of one at a time",
                f"{one:.1f} x at {largest:,} hosts",
                one >= TIMES_ONE_AT_A_TIME,
            ),
            Goal(
                f"{where}: at least {SHARE_OF_LIMIT:.0%} of the rows of the unguarded limit",
                f"{bulk:.0%} at {largest:,} hosts",
                bulk >= SHARE_OF_LIMIT,
            ),
        ]

    largest = max(sizes)
    latency = ratio_interval(
        [quantile(ours, 0.5) for ours, _ in blocks], [quantile(bare, 0.5) for _, bare in blocks]
    )
    first, last = min(loads), max(loads)
    load_rows = [
        ["changes/s offered", *(f"{load.offered:,.0f}" for load in loads.values())],
        ["rows/s written", *(f"{load.written:,.0f}" for load in loads.values())],
        ["late, median, ms", *(f"{_median_late(load):,}" for load in loads.values())],
        ["late, longest, ms", *(f"{max(load.late, default=-1):,}" for load in loads.values())],
        ["bytes a host, attached", *(f"{load.bytes_a_host:,.0f}" for load in loads.values())],
        ["MiB more, later half", *(f"{load.more_bytes / 2**20:.1f}" for load in loads.values())],
    ]
    return Result(
        "writer",
        "Each host changes once, and all rows are written; over a unix socket, flushed to disk at"
        " each commit. Then each of many hosts changes once a second, with the default debouncing;"
        " the changes are made by the process that writes, on the same two processors.",
        {"rounds": options.rounds, "rows a measurement, at least": options.rows},
        [
            *tables(costs, "MariaDB"),
            *(tables(clustered, "three Galera nodes") if options.galera else []),
            Table("hosts that change once a second", ["", *(f"{n:,}" for n in loads)], load_rows),
        ],
        [
            *goals(costs, "MariaDB"),
            *(goals(clustered, "Galera") if options.galera else []),
            Goal(
                f"change to committed row, p50 at most {MOST_TIMES_BARE:g} x one bare UPDATE",
                f"{latency.value:.2f} ({latency.low:.2f} to {latency.high:.2f})",
                latency.value <= MOST_TIMES_BARE,
            ),
            Goal(
                f"{first:,} hosts once a second: median lateness at most {MOST_LATE_SECONDS:g} s",
                f"{_median_late(loads[first]):,} ms",
                _median_late(loads[first]) <= 1000 * MOST_LATE_SECONDS,
            ),
            Goal(
                f"at most {MOST_BYTES_A_HOST} bytes a host",
                f"{loads[first].bytes_a_host:,.0f}",
                loads[first].bytes_a_host <= MOST_BYTES_A_HOST,
            ),
            Goal(
                f"{last:,} hosts offered: no growth without bound",
                f"{loads[last].more_bytes / 2**20:.1f} MiB more in the later half, late"
                f" {_median_late(loads[last]):,} ms",
                loads[last].more_bytes < 2**20 * 16,
            ),
        ],
        raw={
            "costs": costs,
            "costs on Galera": clustered,
            "loads": {n: load._replace(late=dict(load.late)) for n, load in loads.items()},
            "latencies": blocks,
        },
    )
