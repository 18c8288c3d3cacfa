"""One storm: hosts that move, a writer, faults in between, and a verdict.

May live here: what begins when, and the figures. Must not: single faults, single invariants.
"""

import asyncio
import gc
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import pymysql
import structlog

from asynchost.database import ComputeNodeWriter
from asynchost.model import SnapshotSource
from tests.storms.faults import NETWORK, SERVER, Fault
from tests.storms.invariants import (
    MOST_TOLD,
    TABLES,
    TRIGGERS,
    InvariantError,
    Log,
    Reader,
    wrong_at_rest,
)
from tests.storms.load import Load, StormHost
from tests.storms.scene import HURRIED, ImpossibleError, Scene, one_server
from tests.support.waiting import eventually

_TOLD_AT_REST = 10
_CALM_SECONDS = 60.0
"""By then the rows must be right, once nothing moves and nothing breaks."""
_OUTAGE_MOVES = 100
"""How often each host moves in the outage that memory is measured in."""
_BLOCKS_PER_HOST = 20
"""How many blocks of memory each host may cost more in it: one for each move would be five times
as many."""


class Writer(Protocol):
    """What a storm needs of a writer."""

    def attach(self, source: SnapshotSource) -> object:
        """Write this host from now on."""

    async def flush(self) -> None:
        """Return when what is dirty now is written."""


MakeWriter = Callable[[str], AbstractAsyncContextManager[Writer]]
OpenScene = Callable[[Load, random.Random], AbstractAsyncContextManager[Scene]]


@dataclass(frozen=True)
class Plan:
    """What a storm shall be."""

    seconds: float
    hosts: int
    rate: float
    """Changes a second, over all hosts."""
    seed: int
    calm_seconds: float = 1.5
    """The longest pause between two faults of a kind."""
    least_faults: int = 0
    """It goes on beyond its time until there were so many, however slow the machine is."""
    server: Mapping[str, Fault[Any]] = field(default_factory=lambda: SERVER)
    network: Mapping[str, Fault[Any]] = field(default_factory=lambda: NETWORK)


@dataclass
class Report:
    """What a storm was."""

    plan: Plan
    faults: Counter[str] = field(default_factory=Counter)
    changes: int = 0
    seconds: float = 0.0
    right_after_seconds: float = 0.0
    """How long after the last fault and the last change all rows were right."""
    sampled: int = 0
    blocks_per_host: float = 0.0
    """Blocks of memory that an outage cost for each host."""
    log: Log = field(default_factory=Log)

    def __str__(self) -> str:
        faults = ", ".join(f"{name} {times}" for name, times in sorted(self.faults.items()))
        counts = self.log.counts
        return "\n".join(
            (
                (
                    f"seed {self.plan.seed}: {self.changes} changes of {self.plan.hosts} hosts in"
                    f" {self.seconds:.1f} s ({self.changes / self.seconds:.0f}/s)"
                ),
                f"{self.faults.total()} faults: {faults}",
                (
                    f"{counts['row written'] + counts['rows written']} rows written,"
                    f" {counts['row claimed']} claims,"
                    f" {counts['database connected']} connections,"
                    f" {counts['the database lost acknowledged writes']} rows whose acknowledged"
                    " writes were lost"
                ),
                f"{self.sampled} rows read meanwhile, each of one state",
                f"an outage cost {self.blocks_per_host:.1f} blocks of memory for each host",
                f"all rows right {self.right_after_seconds:.2f} s after the end",
            )
        )


def our_writer(url: str) -> ComputeNodeWriter:
    """The one that must hold."""
    return ComputeNodeWriter(url, settings=HURRIED)


async def storm(
    plan: Plan, make_writer: MakeWriter = our_writer, open_scene: OpenScene = one_server
) -> Report:
    """Carry it out.

    :raises InvariantError: something did not hold; its text begins with the seed.
    """
    report = Report(plan)
    rng = random.Random(plan.seed)
    load = Load([StormHost(f"n{n:04}") for n in range(plan.hosts)], plan.rate, rng)
    with _logging_to(report.log):
        async with open_scene(load, rng) as there:
            try:
                await _storm(there, plan, report, make_writer)
            except InvariantError as error:
                raise InvariantError(
                    [f"seed {plan.seed}, after {dict(report.faults)}:", *error.violations]
                ) from None
    return report


async def _storm(there: Scene, plan: Plan, report: Report, make_writer: MakeWriter) -> None:
    load = there.load
    for statement in (*TABLES, *TRIGGERS):
        await there.execute(statement)
    async with make_writer(there.url) as writer:
        for host in load.hosts:
            writer.attach(host)
        async with asyncio.timeout(_CALM_SECONDS):
            await writer.flush()
        report.blocks_per_host = await _outage(there)
        readers = [Reader(database, load.versions) for database in there.databases]
        for reader in readers:
            reader.start()
        try:
            await _weather(there, plan, report)
            began = time.monotonic()
            try:
                await eventually(lambda: _at_rest(there), _CALM_SECONDS)
            except AssertionError as error:
                raise InvariantError([*str(error).splitlines(), *report.log.last]) from None
            report.right_after_seconds = time.monotonic() - began
        finally:
            for reader in readers:
                await asyncio.to_thread(reader.stop)
    report.sampled = sum(reader.samples for reader in readers)
    await eventually(lambda: _at_rest(there), _CALM_SECONDS)
    violations = there.violations + report.log.violations
    violations += [violation for reader in readers for violation in reader.violations]
    if report.blocks_per_host > _BLOCKS_PER_HOST:
        violations.append(f"an outage cost {report.blocks_per_host:.0f} blocks for each host")
    if violations:
        raise InvariantError(violations)


async def _recorded(there: Scene) -> list[str]:
    found = await there.execute(f"SELECT what FROM violations ORDER BY id LIMIT {MOST_TOLD}")
    return [row["what"] for row in found]


async def _at_rest(there: Scene) -> bool:
    try:
        wrong = []
        for database in there.databases:
            rows = await asyncio.to_thread(database.rows)
            wrong += wrong_at_rest(rows, there.load.hosts)
        # What went wrong once is not made right by what comes later.
        recorded = await _recorded(there)
    except (pymysql.err.Error, OSError) as error:
        # On a busy machine the others may give a node up once more; it is to come back.
        raise AssertionError(f"not all serve: {error}") from error
    if recorded:
        raise InvariantError([*recorded, *wrong[:_TOLD_AT_REST]])
    assert not wrong, "\n".join(wrong[:_TOLD_AT_REST])
    return True


async def _outage(there: Scene) -> float:
    """How many blocks of memory each host costs more, nothing being answered and all moving."""
    for proxy in there.proxies:
        proxy.hold()
    try:
        # The exceptions and tracebacks of an outage are there by then.
        there.load.move_all()
        await asyncio.sleep(2 * HURRIED.statement_deadline_seconds)
        before = _blocks()
        for _ in range(_OUTAGE_MOVES):
            there.load.move_all()
            await asyncio.sleep(0)
        return (_blocks() - before) / len(there.load.hosts)
    finally:
        for proxy in there.proxies:
            proxy.release()


def _blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


async def _weather(there: Scene, plan: Plan, report: Report) -> None:
    """Moves and faults until the time is over; every fault has mended itself by the end."""
    began, before = time.monotonic(), there.load.changes
    there.ended = lambda: (
        time.monotonic() - began >= plan.seconds and report.faults.total() >= plan.least_faults
    )
    moving = asyncio.create_task(there.load.run())
    try:
        await asyncio.gather(
            _faults(there, plan.server, plan.calm_seconds, report.faults),
            _faults(there, plan.network, plan.calm_seconds, report.faults),
        )
        report.seconds = time.monotonic() - began
    finally:
        moving.cancel()
        await asyncio.wait([moving])
    report.changes = there.load.changes - before


async def _faults(
    there: Scene, faults: Mapping[str, Fault[Any]], calm_seconds: float, done: Counter[str]
) -> None:
    """One after another, each once before any comes again."""
    waiting: list[str] = []
    while not there.ended():
        if not faults:
            await asyncio.sleep(0.1)
            continue
        if not waiting:
            waiting = there.rng.sample(sorted(faults), len(faults))
        name = waiting.pop()
        try:
            await faults[name](there)
            done[name] += 1
        except ImpossibleError:
            done[f"{name} (not possible here)"] += 1
        await there.pause(0.0, calm_seconds)


@contextmanager
def _logging_to(log: Log) -> Iterator[None]:
    """Every line of the log goes to one place."""
    structlog.configure(processors=[log], logger_factory=_Nowhere)
    try:
        yield
    finally:
        structlog.reset_defaults()


class _Nowhere:
    """A logger that takes lines and keeps none."""

    def __init__(self, *_: Any) -> None:
        self.debug = self.info = self.warning = self.error = lambda _line: None
