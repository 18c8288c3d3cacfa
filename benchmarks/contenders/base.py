"""What every contender can be asked."""

import asyncio
import gc
import time
from typing import Any

from asynchost.settings import MonitorSettings

_DEFAULTS = MonitorSettings()
KEEPALIVE = (_DEFAULTS.keepalive_interval_seconds, _DEFAULTS.keepalive_count)
"""The same for all: a connection that answers keepalives has more to do."""

_DRAIN_DEADLINE_SECONDS = 15.0


class Contender:
    """One way of following a host's events, in this process and on this loop."""

    def __init__(self) -> None:
        self.marks: list[tuple[str, int, int]] = []
        """What was noticed: UUID, ``time.monotonic_ns()``, and +1 for a start, -1 for an end."""
        self._cpu = 0.0

    @property
    def handled(self) -> int:
        """How many events it has dealt with since it began to watch."""
        raise NotImplementedError

    async def watch(self, uri: str) -> dict[str, Any]:
        """Connect; returns when every event from now on will be seen."""
        raise NotImplementedError

    async def unwatch(self) -> None:
        """Disconnect."""
        raise NotImplementedError

    async def begin(self) -> dict[str, Any]:
        """From here on count and note."""
        gc.collect()
        self.marks.clear()
        self._before = self.handled
        self._cpu = time.process_time()
        return {}

    async def end(self, expected: int, settle: float) -> dict[str, Any]:
        """Wait until ``expected`` events are dealt with and ``settle`` seconds more; then tell.

        ``cpu`` is the CPU time of the whole process, all threads, since :meth:`begin`.
        """
        give_up_at = time.monotonic() + _DRAIN_DEADLINE_SECONDS
        # Looked at now and then: to be woken at each event would cost what is measured.
        while self.handled - self._before < expected and time.monotonic() < give_up_at:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await asyncio.sleep(settle)
        cpu = time.process_time() - self._cpu
        return {"cpu": cpu, "handled": self.handled - self._before, "marks": self.marks}
