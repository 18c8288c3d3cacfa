"""Another commit of this repository, to be measured beside this one in one run.

Each side is a process of its own, with its own checkout, environment and servers; they take turns.
"""

import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.figures import ratio_interval
from benchmarks.report import Goal, Result, Table

T = TypeVar("T")
HERE = Path(__file__).parents[1]
CHECKOUTS = HERE / ".against"
MOST_RATIO = 1.10
_WRITER = """
import asyncio, json, logging, sys
from asynchost.service.collector import calm_collector
from benchmarks.writer import _ours, bench

async def serve(size):
    async with bench(size) as there:
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await _ours(there, int(line))), flush=True)

calm_collector()
logging.getLogger("asynchost").setLevel(logging.ERROR)
asyncio.run(serve(int(sys.argv[1])))
"""
"""Measures the writer of the checkout that it is run in, once for each line of its input."""


def checkout(commit: str) -> Path:
    """A worktree of that commit, with an environment of its own; made at the first call."""
    found = subprocess.run(
        ["git", "rev-parse", "--verify", f"{commit}^{{commit}}"],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    folder = CHECKOUTS / found[:12]
    if not folder.exists():
        subprocess.run(
            ["git", "worktree", "add", "--detach", "--quiet", str(folder), found],
            cwd=HERE,
            check=True,
        )
    # What needs the environment makes it; nothing is collected, and nothing is run.
    subprocess.run(
        ["./dev", "test", "--version"], cwd=folder, check=True, stdout=subprocess.DEVNULL
    )
    return folder


def python_of(folder: Path, program: Path, *arguments: str, parse: Callable[[Any], T]) -> T:
    """Run a program with the asynchost and the environment of a checkout; returns its JSON."""
    done = subprocess.run(
        [str(_python(folder)), str(program), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return parse(json.loads(done.stdout.splitlines()[-1]))


def _python(folder: Path) -> Path:
    return Path(sys.executable) if folder == HERE else folder / ".venv" / "bin" / "python"


@contextmanager
def _serving(folder: Path, size: int) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [str(_python(folder)), "-c", _WRITER, str(size)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            _answer(process, "ready")
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()


def _answer(process: "subprocess.Popen[str]", expected: str | None = None) -> str:
    """The next line that is no log line of its servers."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == expected or (expected is None and line.startswith("[")):
            return line
    raise RuntimeError(f"the process that measures ended with {process.wait()}")


def _measure(process: "subprocess.Popen[str]", rows: int) -> list[float]:
    assert process.stdin is not None
    process.stdin.write(f"{rows}\n")
    process.stdin.flush()
    costs: list[float] = json.loads(_answer(process))
    return costs


def writer(options: Namespace) -> Result:
    """The writer of this checkout against that of ``options.against``, in turns."""
    folders = [HERE, checkout(options.against)]
    costs: dict[int, list[list[list[float]]]] = {}
    for size in options.hosts:
        rows = max(1, options.rows // size) * size
        costs[size] = [[], []]
        with ExitStack() as stack:
            sides = [stack.enter_context(_serving(folder, size)) for folder in folders]
            for number in range(options.rounds + 1):
                for side in (0, 1) if number % 2 else (1, 0):
                    cost = _measure(sides[side], rows)
                    if number:
                        costs[size][side].append(cost)
    lines, goals = [], []
    for size, (ours, theirs) in costs.items():
        line = [f"{size:,} hosts"]
        for place, what in enumerate(("time", "client's CPU")):
            ratio = ratio_interval(
                [cost[place] for cost in ours], [max(cost[place], 1e-9) for cost in theirs]
            )
            shown = f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
            line.append(shown)
            goals.append(
                Goal(
                    f"{size:,} hosts, {what} a row at most {MOST_RATIO:.2f} x, or not known to be"
                    " more than 1",
                    shown,
                    ratio.value <= MOST_RATIO or ratio.low <= 1,
                )
            )
        lines.append(line)
    return Result(
        "writer, against",
        f"The writer's rows of this checkout over those of {options.against}: median of the paired"
        " ratios with its 95 % interval. Below 1 this checkout is the quicker one.",
        {"rounds": options.rounds, "rows a measurement, at least": options.rows},
        [Table("a row costs", ["", "time", "client's CPU"], lines)],
        goals,
        raw={"costs": costs},
    )
