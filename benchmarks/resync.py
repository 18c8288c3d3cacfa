"""How long until a host's totals are there, and what its domains weigh in memory."""

from argparse import Namespace
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import Interval, ratio_interval
from benchmarks.hosts import hosts
from benchmarks.peers import peer
from benchmarks.report import Goal, Result, Table, milliseconds, ratios

MOST_TIMES_LISTING = 1.1
_CONTENDERS = ("monitor", "listing", "calls")


def run(options: Namespace) -> Result:
    """From nothing to ready, against a bare listing with one ``info()`` each."""
    sizes = options.domains
    seconds: dict[str, dict[int, list[float]]] = {
        name: {size: [] for size in sizes} for name in _CONTENDERS
    }
    cpu: dict[str, dict[int, list[float]]] = {
        name: {size: [] for size in sizes} for name in _CONTENDERS
    }
    with hosts(sizes) as there, ExitStack() as stack:
        monitor = stack.enter_context(peer("benchmarks.contenders", "monitor"))
        listing = stack.enter_context(peer("benchmarks.contenders", "listing"))
        for number in range(options.rounds + 1):
            for size, host in there.items():
                answers: dict[str, dict[str, Any]] = {
                    "monitor": monitor.ask("watch", uri=host.uri),
                    "listing": listing.ask("measure", uri=host.uri, same_calls=False),
                    "calls": listing.ask("measure", uri=host.uri, same_calls=True),
                }
                monitor.ask("unwatch")
                for name, answer in answers.items() if number else ():
                    seconds[name][size].append(answer["seconds"])
                    cpu[name][size].append(answer["cpu"])
        memory = _memory({size: host.uri for size, host in there.items()}, options.rounds)
    return _result(options, seconds, cpu, memory)


def _memory(uris: dict[int, str], rounds: int) -> dict[int, list[int]]:
    """KiB that a fresh process holds once its monitor is ready."""
    found: dict[int, list[int]] = {size: [] for size in uris}
    for _ in range(min(rounds, 3)):
        for size, uri in uris.items():
            with peer("benchmarks.contenders", "monitor") as monitor:
                monitor.ask("watch", uri=uri)
                monitor.ask("begin")  # which collects garbage
                found[size].append(_resident_kib(monitor.pid))
                monitor.ask("unwatch")
    return found


def _resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise LookupError(pid)


def _result(
    options: Namespace,
    seconds: dict[str, dict[int, list[float]]],
    cpu: dict[str, dict[int, list[float]]],
    memory: dict[int, list[int]],
) -> Result:
    sizes = options.domains
    of_sizes: list[Interval] = [
        ratio_interval(seconds["monitor"][size], seconds["listing"][size]) for size in sizes
    ]
    of_calls = [ratio_interval(seconds["monitor"][size], seconds["calls"][size]) for size in sizes]

    def line(label: str, values: dict[int, list[float]]) -> list[str]:
        return [label, *(milliseconds(median(values[size])) for size in sizes)]

    kib = {size: median(memory[size]) for size in sizes}
    rows = [
        line("HostMonitor until ready, ms", seconds["monitor"]),
        line("bare listing with info(), ms", seconds["listing"]),
        line("the monitor's calls, bare, ms", seconds["calls"]),
        line("HostMonitor, CPU ms", cpu["monitor"]),
        line("bare listing with info(), CPU ms", cpu["listing"]),
        line("the monitor's calls, bare, CPU ms", cpu["calls"]),
        ["resident memory, MiB", *(f"{kib[size] / 1024:.1f}" for size in sizes)],
    ]
    notes = []
    least, most = min(sizes), max(sizes)
    if most > least:
        each = (kib[most] - kib[least]) / (most - least) * 1000
        notes.append(f"memory per 1,000 domains: {each / 1024:.2f} MiB, of which 750 are active")
    worst = max(range(len(sizes)), key=lambda i: of_sizes[i].value)
    return Result(
        "resync",
        "From nothing to the totals of a host, over libvirtd's socket: connection opened, events"
        " registered, domains listed and read. Beside it a loop that opens one connection, lists"
        " and calls info() for each, and does nothing else; and one that makes all the calls of"
        " the monitor until then: keepalive, the registrations, and why the paused domains are,"
        " which decides whether they are at work. Taking turns.",
        {"rounds": options.rounds},
        [
            Table("median, by domains on the host", ["", *(f"{n:,}" for n in sizes)], rows),
            ratios(
                "HostMonitor until ready, wall time",
                sizes,
                {"over bare listing": of_sizes, "over its own calls, bare": of_calls},
            ),
        ],
        [
            Goal(
                f"resync at most {MOST_TIMES_LISTING:g} x a bare listing with info()",
                f"at worst {of_sizes[worst].value:.2f} x ({sizes[worst]:,} domains)",
                of_sizes[worst].value <= MOST_TIMES_LISTING,
            )
        ],
        notes,
        raw={"seconds": seconds, "cpu_seconds": cpu, "resident_kib": memory},
    )
