"""What a process holds that somebody could have left behind: descriptors, threads, tasks."""

import asyncio
import contextlib
import gc
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.waiting import eventually

DEADLINE_SECONDS = 30.0


class Held(NamedTuple):
    """Everything of this process that has to be let go of by whoever took it."""

    descriptors: Counter[str]
    threads: Counter[str]
    tasks: set["asyncio.Task[object]"]

    def beyond(self, before: "Held") -> str:
        """What there is more than before, in words; empty if nothing."""
        parts = {
            "descriptors": self.descriptors - before.descriptors,
            "threads": self.threads - before.threads,
            "tasks": {task for task in self.tasks - before.tasks if not task.done()},
        }
        return ", ".join(f"{name}: {found}" for name, found in parts.items() if found)


def held() -> Held:
    """What this process holds now, seen from the running loop."""
    descriptors: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            descriptors[str(entry.readlink()).partition(":")[0]] += 1
    threads = Counter(
        thread.name
        for thread in threading.enumerate()
        # asyncio.to_thread keeps its threads: the tests' own.
        if not thread.name.startswith("asyncio_")
    )
    return Held(descriptors, threads, asyncio.all_tasks())


@asynccontextmanager
async def nothing_left_behind(describe: str = "") -> AsyncIterator[None]:
    """Whatever the block took is gone after it, at the latest a while later.

    libvirt lets go of a socket on a later round of the loop, and a thread that was told to end
    needs a moment; so it is waited for. Not asked where the block itself fails.
    """
    before = held()
    yield

    def gone() -> bool:
        left = held().beyond(before)
        assert not left, left
        return True

    await eventually(gone, DEADLINE_SECONDS, describe or "nothing is left")


@asynccontextmanager
async def nothing_complained() -> AsyncIterator[None]:
    """What a loop would only print is a failure: an error in a callback, one never fetched."""
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    try:
        yield
        gc.collect()
    finally:
        loop.set_exception_handler(None)
    assert not complaints
