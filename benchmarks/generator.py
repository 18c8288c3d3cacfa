"""Makes domains come, pause, go on and go: ``python -m benchmarks.generator URI``.

A process of its own, so that its CPU time is nobody else's. Its clock is everybody's:
``time.monotonic`` is the same in all processes of a machine. Each operation emits exactly one
event on the test driver.
"""

import json
import random
import sys
import time
from typing import Any

import libvirt

from tests.support.guests import guest_xml
from tests.support.libvirtd import silence_libvirt

MEMORY_KIB = 1024
# What is done to a domain next, by the phase that it is in.
SUSPEND, RESUME, DESTROY, CREATE = range(4)


class Generator:
    """The domains of one host, each somewhere in the circle of suspend, resume, destroy, create."""

    def __init__(self, uri: str) -> None:
        self._connection = libvirt.open(uri)
        self._domains: list[tuple[str, Any]] = []
        self._phases: list[int] = []
        self._next = 0
        self._chance = random.Random(1)

    def define(self, count: int) -> dict[str, Any]:
        """Make ``count`` persistent domains, spread evenly over the circle: 3 of 4 are active."""
        for name in self._connection.listAllDomains():
            name.destroy()
            name.undefine()
        for number in range(count):
            xml = guest_xml(f"d{number}", vcpus=2, memory_kib=MEMORY_KIB, kind="test")
            domain = self._connection.defineXML(xml)
            self._domains.append((domain.UUIDString(), domain))
            phase = (SUSPEND, RESUME, DESTROY, CREATE)[number % 4]
            self._phases.append(phase)
            if phase != CREATE:
                domain.create()
            if phase == RESUME:
                domain.suspend()
        return {"active": self._active()}

    def storm(self, rate: float, seconds: float) -> dict[str, Any]:
        """``rate`` operations a second, one domain after the other, each one step on the circle.

        So each kind of event is a quarter of them, whatever the number of domains.
        """
        start = time.monotonic()
        count = int(rate * seconds)
        for number in range(count):
            _sleep_until(start + number / rate)
            at = self._next
            self._next = (at + 1) % len(self._domains)
            domain, phase = self._domains[at][1], self._phases[at]
            self._phases[at] = (phase + 1) % 4
            (domain.suspend, domain.resume, domain.destroy, domain.create)[phase]()
        elapsed = time.monotonic() - start
        return {"events": count, "seconds": elapsed, "active": self._active()}

    def beat(self, count: int, interval: float) -> dict[str, Any]:
        """``count`` single starts and ends, ``interval`` seconds apart give or take a half.

        Answers with what was done to whom and the time just before each call, in nanoseconds.
        """
        operations = []
        due = time.monotonic()
        for _ in range(count):
            due += interval * self._chance.uniform(0.5, 1.5)
            _sleep_until(due)
            at = self._next
            self._next = (at + 1) % len(self._domains)
            uuid, domain = self._domains[at]
            starts = self._phases[at] == CREATE
            self._phases[at] = SUSPEND if starts else CREATE
            act = domain.create if starts else domain.destroy
            before = time.monotonic_ns()
            act()
            operations.append([uuid, before, 1 if starts else -1])
        return {"operations": operations, "active": self._active()}

    def _active(self) -> int:
        return sum(phase != CREATE for phase in self._phases)


def _sleep_until(due: float) -> None:
    wait = due - time.monotonic()
    if wait > 0:
        time.sleep(wait)


def main() -> None:
    """Do what standard input says, line by line."""
    silence_libvirt()
    generator = Generator(sys.argv[1])
    for line in sys.stdin:
        order = json.loads(line)
        answer = getattr(generator, order.pop("do"))(**order)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
