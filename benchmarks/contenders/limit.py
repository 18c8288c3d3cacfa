"""The limit in C: built where a compiler is, run for one block of events each time."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.hosts import Host

_SOURCE = Path(__file__).with_name("callback_limit.c")
_DEADLINE_SECONDS = 30.0


@contextlib.contextmanager
def built() -> Iterator[Path | None]:
    """The program; None where it cannot be built."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    with tempfile.TemporaryDirectory(prefix="asynchost-limit-") as folder:
        program = Path(folder) / "callback_limit"
        command = [str(compiler), "-O2", "-o", str(program), str(_SOURCE), "-lvirt"]
        works = compiler and subprocess.run(command, check=False, capture_output=True)
        yield program if works and works.returncode == 0 else None


def beat(program: Path, host: Host, count: int, interval: float) -> tuple[list[Any], list[Any]]:
    """``count`` starts and ends: what was done, and what the program noticed of it."""
    with subprocess.Popen(
        [str(program), host.uri, str(count)], stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        try:
            if running.stdout.readline() != "ready\n":
                raise RuntimeError("the program in C could not connect")
            operations = host.generator.ask("beat", count=count, interval=interval)["operations"]
            output, _ = running.communicate(timeout=_DEADLINE_SECONDS)
        finally:
            running.kill()
    marks = []
    for line in output.splitlines():
        uuid, at, sign = line.split()
        marks.append((uuid, int(at), int(sign)))
    return operations, marks
