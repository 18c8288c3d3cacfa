"""From a libvirt event to a Python callback: asynchost's event loop beside the others."""

import os
import signal
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median
from typing import Any

from benchmarks.contenders.inside import URI as INSIDE_URI
from benchmarks.contenders.limit import beat as beat_limit
from benchmarks.contenders.limit import built
from benchmarks.figures import quantile
from benchmarks.hosts import Host, host
from benchmarks.latency import matched
from benchmarks.peers import Peer, peer
from benchmarks.report import Goal, Result, Table, milliseconds

BINDINGS = {"ours": "asynchost", "libvirtaio": "libvirtaio", "default": "default, in a thread"}
LIMIT = "limit"
LOADS = ("idle", "busy", "reading")
DOMAINS = 100
INTERVAL_SECONDS = 0.005
MOST_TIMES_LIMIT = 1.5
# A tie is not a loss: closer than this, two of them differ by what else the machine did.
TIE = 1.1
# Three that are equal, with a hundred operations in a block: one is called worse in every fifth
# cell. A busy loop's p50 lies where the latency begins to grow, and a p99 is the second longest.
TIMES_OPERATIONS = 4
BACKLOG_RATE = 10_000.0
BACKLOG_SECONDS = 0.5

Cells = dict[tuple[str, str, str], list[list[float]]]


def run(options: Namespace) -> Result:
    """Latency in every cell of where, load and binding, in interleaved blocks; then backlogs."""
    cells: Cells = {}
    count = TIMES_OPERATIONS * options.operations
    drained: dict[str, list[float]] = {binding: [] for binding in BINDINGS}
    lost = 0
    with ExitStack() as stack:
        there = stack.enter_context(host(DOMAINS))
        limit = stack.enter_context(built())
        # Each in a process of its own: libvirt takes one implementation per process.
        outside = {
            name: stack.enter_context(peer("benchmarks.contenders", "bound", name))
            for name in BINDINGS
        }
        inside = {
            name: stack.enter_context(peer("benchmarks.contenders", "inside", name))
            for name in BINDINGS
        }

        def measure(where: str, load: str, name: str) -> tuple[list[Any], list[Any]]:
            if name == LIMIT:
                assert limit is not None
                return beat_limit(limit, there, count, INTERVAL_SECONDS)
            if where == "socket":
                return _over_socket(outside[name], there, count, load)
            answer = inside[name].ask(
                "measure",
                uri=INSIDE_URI,
                count=count,
                interval=INTERVAL_SECONDS,
                load_kind=load,
            )
            return answer["operations"], answer["marks"]

        plan = [
            (where, load, name)
            for where in ("socket", "inside")
            for load in LOADS
            for name in BINDINGS
        ]
        if limit is not None:
            plan.insert(0, ("socket", "idle", LIMIT))
        for number in range(options.rounds + 1):
            for cell in plan[number % len(plan) :] + plan[: number % len(plan)]:
                operations, marks = measure(*cell)
                seconds = matched(operations, marks)
                if number:
                    cells.setdefault(cell, []).append(seconds)
                    lost += len(operations) - len(seconds)
            for name in BINDINGS:
                rate = _drain(outside[name], there)
                if number:
                    drained[name].append(rate)
    return _result(options, cells, drained, lost)


def _over_socket(one: Peer, there: Host, count: int, load: str) -> tuple[list[Any], list[Any]]:
    one.ask("watch", uri=there.uri)
    one.ask("load", kind=load)
    one.ask("begin")
    done = there.generator.ask("beat", count=count, interval=INTERVAL_SECONDS)
    found = one.ask("end", expected=count, settle=0.05)
    one.ask("unwatch")
    return done["operations"], found["marks"]


def _drain(one: Peer, there: Host) -> float:
    """Events/s of a process that was stopped while they were made."""
    one.ask("watch", uri=there.uri)
    one.ask("begin")
    os.kill(one.pid, signal.SIGSTOP)
    try:
        count = there.generator.ask("storm", rate=BACKLOG_RATE, seconds=BACKLOG_SECONDS)["events"]
        time.sleep(0.2)  # until libvirtd has queued the last of them
    finally:
        os.kill(one.pid, signal.SIGCONT)
    before = time.monotonic_ns()
    found = one.ask("end", expected=count, settle=0.0)
    one.ask("unwatch")
    return float(count / ((found["marks"][-1][1] - before) / 1e9))


def _result(options: Namespace, cells: Cells, drained: dict[str, list[float]], lost: int) -> Result:
    def figure(where: str, load: str, name: str, of: Callable[[list[float]], float]) -> float:
        # Of all rounds' together. A cell in which nothing arrived is as slow as can be.
        together = [seconds for block in cells[where, load, name] for seconds in block]
        return of(together) if together else float("inf")

    def p99(block: list[float]) -> float:
        return quantile(block, 0.99)

    rows, longest, beaten = [], [], []
    for where in ("socket", "inside"):
        for load in LOADS:
            row = [f"{where}, {load}"]
            longest.append(
                [row[0], *(milliseconds(figure(where, load, name, max)) for name in BINDINGS)]
            )
            for name in BINDINGS:
                figures = [figure(where, load, name, of) for of in (median, p99)]
                row.append(" / ".join(map(milliseconds, figures)))
            rows.append(row)
            for label, of in (("p50", median), ("p99", p99)):
                mine = figure(where, load, "ours", of)
                best = min(figure(where, load, name, of) for name in BINDINGS if name != "ours")
                if mine > best * TIE:
                    beaten.append(f"{where} {load} {label} {mine / best:.2f} x")
    goals = [
        Goal(
            "p50 and p99 no worse than the best of the others in each cell (10 % is a tie)",
            f"worse in {len(beaten)} of {4 * len(LOADS)}"
            + (f" ({', '.join(beaten)})" if beaten else ""),
            not beaten,
        )
    ]
    limit = ("socket", "idle", LIMIT)
    if limit in cells:
        ratios = {
            label: figure("socket", "idle", "ours", of) / figure(*limit, of)
            for label, of in (("p50", median), ("p99", p99))
        }
        rows.append(
            [
                "socket, idle: in C",
                " / ".join(milliseconds(figure(*limit, of)) for of in (median, p99)),
                "",
                "",
            ]
        )
        goals.append(
            Goal(
                f"p50 and p99 at most {MOST_TIMES_LIMIT:g} x of the same in C",
                f"{ratios['p50']:.2f} x and {ratios['p99']:.2f} x",
                max(ratios.values()) <= MOST_TIMES_LIMIT,
            )
        )
    rates = ["backlog, events/s"] + [f"{median(drained[name]):,.0f}" for name in BINDINGS]
    return Result(
        "bindings",
        "From just before the call that starts or ends a domain until the callback runs in"
        " Python: over libvirtd's socket, and with the test driver inside the process. Busy: the"
        " loop works half of the time, 1 ms at a time. Reading: a thread calls info() on the same"
        " connection. Backlog: the process was stopped while the events were made.",
        {
            "rounds": options.rounds,
            "operations each": TIMES_OPERATIONS * options.operations,
            "domains": DOMAINS,
            "not noticed": lost,
        },
        [
            Table("milliseconds, p50 / p99", ["", *BINDINGS.values()], rows),
            Table(
                "milliseconds, longest; and events/s of a backlog",
                ["", *BINDINGS.values()],
                [*longest, rates],
            ),
        ],
        goals,
        raw={
            "latency_seconds": {" ".join(cell): blocks for cell, blocks in cells.items()},
            "backlog_events_per_second": drained,
        },
    )
