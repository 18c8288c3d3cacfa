"""What one event costs the client in CPU time, in a storm, on hosts of many sizes."""

from argparse import Namespace
from contextlib import ExitStack
from statistics import median
from typing import Any

from benchmarks.figures import median_interval, ratio_interval
from benchmarks.hosts import Host, hosts
from benchmarks.peers import Peer, peer
from benchmarks.report import Goal, Result, Table, microseconds, ratios

CONTENDERS = {
    "monitor": "HostMonitor",
    "subscriber": "HostMonitor, one subscriber",
    "bare": "bare callback",
    "bare-info": "  + info() inside it",
    "bare-info-thread": "  + info() in a thread",
    "classic": "(a) full recount per event",
}
REFERENCES = ("bare-info", "bare-info-thread")
# The look-again comes a second after a start; what it costs belongs to the start.
SETTLE_SECONDS = {"monitor": 1.5, "subscriber": 1.5}
MOST_TIMES_REFERENCE = 3.0
MOST_GROWTH = 1.2


def run(options: Namespace) -> Result:
    """CPU time per event of each contender at each size, in interleaved rounds."""
    figures: dict[str, dict[int, list[float]]] = {
        name: {size: [] for size in options.domains} for name in CONTENDERS
    }
    rates: list[float] = []
    reads: dict[int, list[float]] = {size: [] for size in options.domains}
    served: dict[int, list[float]] = {size: [] for size in options.domains}
    wrong = 0
    with hosts(options.domains) as there, ExitStack() as stack:
        peers = {
            name: stack.enter_context(peer("benchmarks.contenders", name)) for name in CONTENDERS
        }
        # The first round warms everything up and is thrown away.
        for number in range(options.rounds + 1):
            names = list(CONTENDERS)
            names = names[number % len(names) :] + names[: number % len(names)]
            for size, host in there.items():
                for name in names:
                    storm, found = measure(
                        peers[name], host, options, SETTLE_SECONDS.get(name, 0.1)
                    )
                    if number == 0:
                        continue
                    figures[name][size].append(per_event(found))
                    rates.append(storm["events"] / storm["seconds"])
                    if "active" in found:
                        wrong += found["active"] != storm["active"]
                        reads[size].append(found["reads"] / found["handled"])
                    if "served" in found:
                        served[size].append(found["served"] / found["handled"])
    return _result(options, figures, rates, reads, served, wrong)


def measure(
    contender: Peer, host: Host, options: Namespace, settle: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One storm on one host, with one contender watching it."""
    contender.ask("watch", uri=host.uri)
    contender.ask("begin")
    storm = host.generator.ask("storm", rate=options.rate, seconds=options.seconds)
    found = contender.ask("end", expected=storm["events"], settle=settle)
    contender.ask("unwatch")
    return storm, found


def per_event(found: dict[str, Any]) -> float:
    """CPU seconds per event; where not all were served, per event that was."""
    if "served" not in found:
        return float(found["cpu"] / found["handled"])
    receiving = (found["cpu"] - found["served_cpu"]) / found["handled"]
    return float(receiving + found["served_cpu"] / max(1, found["served"]))


def _result(
    options: Namespace,
    figures: dict[str, dict[int, list[float]]],
    rates: list[float],
    reads: dict[int, list[float]],
    served: dict[int, list[float]],
    wrong: int,
) -> Result:
    sizes = options.domains
    heading = [f"{size:,}" for size in sizes]
    cpu = [
        [label, *(microseconds(median(figures[name][size])) for size in sizes)]
        for name, label in CONTENDERS.items()
    ]
    cpu.append(["reads per event, HostMonitor", *(f"{median(reads[size]):.2f}" for size in sizes)])
    cpu.append(
        ["share of events (a) got to", *(f"{100 * median(served[size]):.1f} %" for size in sizes)]
    )
    against = {
        reference: [
            ratio_interval(figures["monitor"][size], figures[reference][size]) for size in sizes
        ]
        for reference in REFERENCES
    }
    worst, beside = (max(one.value for one in against[name]) for name in REFERENCES)
    goals = [
        Goal(
            f"CPU per event at most {MOST_TIMES_REFERENCE:g} x (bare callback + one info())",
            f"at worst {worst:.2f} x with the info() inside the callback, which stops the loop"
            f" ({beside:.2f} x with it in a thread)",
            worst <= MOST_TIMES_REFERENCE,
        )
    ]
    if len(sizes) > 1:
        least, most = min(sizes), max(sizes)
        growth = ratio_interval(figures["monitor"][most], figures["monitor"][least])
        goals.append(
            Goal(
                f"flat from {least:,} to {most:,} domains: ratio at most {MOST_GROWTH:g} within"
                " its 95 % interval",
                f"{growth.value:.2f} ({growth.low:.2f} to {growth.high:.2f},"
                f" {options.rounds} rounds)",
                growth.high <= MOST_GROWTH,
            )
        )
    rate = median_interval(rates)
    return Result(
        "events",
        "Client CPU time per event (user and system, all threads) in a storm of starts, pauses,"
        " resumes and ends in equal parts, over libvirtd's socket. Each contender is a process"
        " of its own; they take turns. The look-agains that starts cause are counted in.",
        {
            "rounds": options.rounds,
            "seconds each": options.seconds,
            "events/s wanted": options.rate,
            "events/s made, median": f"{rate.value:,.0f}",
            "totals wrong afterwards": wrong,
        },
        [
            Table(
                "CPU microseconds per event, median, by domains on the host", ["", *heading], cpu
            ),
            ratios(
                "HostMonitor over bare callback with info()",
                sizes,
                {"inside it": against["bare-info"], "in a thread": against["bare-info-thread"]},
            ),
        ],
        goals,
        raw={"cpu_seconds_per_event": figures, "rates": rates},
    )
