"""What a storm of events, and a backlog of them, do to the loop of the program that watches."""

from argparse import Namespace
from collections.abc import Callable
from statistics import median
from typing import Any

from benchmarks.report import Goal, Result, Table, milliseconds
from tests.support.storms import Host, Report, host

GENERATORS = 3
STORM_SECONDS, QUICK_STORM_SECONDS = 60.0, 5.0
BACKLOG, QUICK_BACKLOG = 50_000, 5_000
STOPPED_SECONDS, QUICK_STOPPED_SECONDS = 20.0, 2.0
# A machine that makes fewer events than this in so long has other trouble.
BACKLOG_DEADLINE_SECONDS = 120.0

_SHARED = (
    "Generators, libvirtd and the watching process share the machine's processors: a pause is"
    " also the time in which the loop wanted to run and none was free. Only one thread of a process"
    " runs Python at a time: where that one, or the one whose turn is next, waits for a processor,"
    " the loop waits for it. What is taken off for this is the time in which the loop neither ran"
    " nor waited for a processor, at most as long as the one thread waited that waited longest."
)

LONGEST_PAUSE_SECONDS = 0.020
RIGHT_WITHIN_SECONDS = 2.0
MOST_MORE_BYTES = 32 * 2**20


def run(options: Namespace) -> Result:
    """Storms and backlogs in turn on the largest host, a fresh watching process for each."""
    quick = options.quick
    rounds = max(1, options.rounds // 3)
    reports: dict[str, list[Report]] = {"storm": [], "backlog": []}
    with host(max(options.domains), GENERATORS) as there:
        for _ in range(rounds):
            reports["storm"].append(
                _watched(there, QUICK_STORM_SECONDS if quick else STORM_SECONDS)
            )
            reports["backlog"].append(
                _watched(
                    there,
                    BACKLOG_DEADLINE_SECONDS,
                    most=QUICK_BACKLOG if quick else BACKLOG,
                    stop_for=QUICK_STOPPED_SECONDS if quick else STOPPED_SECONDS,
                )
            )
    return _result(options, rounds, reports)


def _watched(there: Host, seconds: float, **limits: Any) -> Report:
    # As many seconds as a backlog of this size may take to be worked off, and more.
    with there.watcher() as watcher:
        return there.storm(watcher, seconds, deadline=120.0, **limits)


def _result(options: Namespace, rounds: int, reports: dict[str, list[Report]]) -> Result:
    rows = [[label, *(figure(kind) for kind in reports.values())] for label, figure in _FIGURES]
    every = [report for kind in reports.values() for report in kind]
    pauses = {kind: _pauses(found)["longest"] for kind, found in reports.items()}
    worst = max(pauses, key=lambda kind: pauses[kind])
    unhindered = _pauses(reports[worst], "unhindered")["longest"]
    late = max(report.right_after_seconds for report in every)
    memory = max(report.more_bytes for report in every)
    wrong = sum(not report.right for report in every)
    goals = [
        Goal(
            f"the loop's longest pause below {milliseconds(LONGEST_PAUSE_SECONDS)} ms",
            f"{milliseconds(pauses[worst])} ms in the median {worst}, without the waits for a"
            f" processor {milliseconds(unhindered)} ms",
            pauses[worst] < LONGEST_PAUSE_SECONDS,
        ),
        Goal(
            f"totals right within {RIGHT_WITHIN_SECONDS:g} s of the end",
            f"at the latest {late:.2f} s; {wrong} of {len(every)} ended wrong",
            late <= RIGHT_WITHIN_SECONDS and wrong == 0,
        ),
        Goal(
            f"memory flat: at most {MOST_MORE_BYTES // 2**20} MiB more",
            f"at most {memory / 2**20:.1f} MiB",
            memory <= MOST_MORE_BYTES,
        ),
    ]
    return Result(
        "storm",
        "Several processes move the domains of one libvirtd at random, as fast as it lets them;"
        " one process does nothing but watch, and a task in it beats every millisecond. The"
        " backlog is made while that process is stopped. Beside them beats a process that"
        " watches nothing: the noise of the machine.",
        {
            "rounds": rounds,
            "domains": max(options.domains),
            "generators": GENERATORS,
        },
        [
            Table(
                "medians of the rounds",
                ["", *reports],
                rows,
            )
        ],
        goals,
        notes=[_SHARED],
        raw={kind: [vars(report) for report in found] for kind, found in reports.items()},
    )


def _pauses(kind: list[Report], without: str | None = None) -> dict[str, float]:
    found = [report.found["pauses"] for report in kind]
    taken = found if without is None else [pauses[without] for pauses in found]
    return {figure: median(pauses[figure] for pauses in taken) for figure in ("longest", "p999")}


def _pause(figure: str, without: str | None = None) -> Callable[[list[Report]], str]:
    return lambda kind: milliseconds(_pauses(kind, without)[figure])


def _noise(figure: str) -> Callable[[list[Report]], str]:
    return lambda kind: milliseconds(median(report.noise[figure] for report in kind))


_FIGURES: list[tuple[str, Callable[[list[Report]], str]]] = [
    ("events", lambda kind: f"{median(r.events for r in kind):,.0f}"),
    ("events/s", lambda kind: f"{median(r.rate for r in kind):,.0f}"),
    ("reads", lambda kind: f"{median(r.found['reads'] for r in kind):,.0f}"),
    (
        "CPU per event, microseconds",
        lambda kind: f"{median(r.found['cpu'] / r.events for r in kind) * 1e6:,.0f}",
    ),
    ("longest pause, ms", _pause("longest")),
    ("  without the loop's waits for a processor", _pause("longest", "net")),
    ("  and those of whom the loop waited for", _pause("longest", "unhindered")),
    ("  of a process that watches nothing", _noise("longest")),
    ("99.9 % of pauses below, ms", _pause("p999")),
    ("  without the loop's waits for a processor", _pause("p999", "net")),
    ("  and those of whom the loop waited for", _pause("p999", "unhindered")),
    ("  of a process that watches nothing", _noise("p999")),
    (
        "totals right after, s",
        lambda kind: f"{median(r.right_after_seconds for r in kind):.2f}",
    ),
    (
        "  after the last event came in",
        lambda kind: f"{median(r.right_after_last_event_seconds for r in kind):.2f}",
    ),
    ("memory more, MiB", lambda kind: f"{median(r.more_bytes for r in kind) / 2**20:.1f}"),
]
