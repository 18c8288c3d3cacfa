"""Events of the test driver inside the own process, which nobody else can move."""

import asyncio
import random
import time
from typing import Any

import libvirt

from benchmarks.contenders.bare import Bare
from benchmarks.contenders.loads import load

URI = "test:///default"


class Inside(Bare):
    """A bare callback, and a plain thread that starts and ends the driver's one domain."""

    async def measure(
        self, uri: str, count: int, interval: float, load_kind: str
    ) -> dict[str, Any]:
        """``count`` times: when each was done, and when it was noticed."""
        await self.watch(uri)
        await self.begin()
        async with load(load_kind, self._connection):
            operations = await asyncio.to_thread(self._beat, uri, count, interval)
            found = await self.end(expected=count, settle=0.05)
        await self.unwatch()
        return {"operations": operations, "marks": found["marks"]}

    @staticmethod
    def _beat(uri: str, count: int, interval: float) -> list[Any]:
        connection = libvirt.open(uri)
        domain = connection.lookupByName("test")
        operations = []
        for _ in range(count):
            time.sleep(interval * random.uniform(0.5, 1.5))
            starts = not domain.isActive()
            act = domain.create if starts else domain.destroy
            before = time.monotonic_ns()
            act()
            operations.append([domain.UUIDString(), before, 1 if starts else -1])
        del domain, act
        connection.close()
        return operations
