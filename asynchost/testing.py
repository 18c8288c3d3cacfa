"""Doubles with behaviour, for the tests of those who embed asynchost.

No mock that records calls: each behaves as the real thing does, without its server.
"""

from collections.abc import Callable
from itertools import count

from asynchost.model import DiskUsage, HostFacts, HostSnapshot, Usage
from asynchost.observers import Observers
from asynchost.subscription import report_to_loop

_GIB = 1024**3


class FakeHost:
    """A host without libvirt: what a writer attaches to, with domains that you start and stop.

    It begins fresh and complete, with no domain. ``name`` is what the row is called, None for
    the same as ``host``. Listeners are called at once, on each change, as a monitor does.
    """

    def __init__(self, host: str = "fake", *, name: str | None = None) -> None:
        self._host = host
        self._name = host if name is None else name
        self._facts: HostFacts | None = HostFacts(
            hostname=self._name,
            hypervisor_type="fake",
            hypervisor_version=1_002_003,
            vcpus=16,
            memory_mb=32_768,
            cpu_info={
                "arch": "x86_64",
                "model": None,
                "vendor": None,
                "topology": {"cells": 1, "sockets": 1, "cores": 8, "threads": 2},
                "features": [],
            },
        )
        self._disk: DiskUsage | None = DiskUsage(100 * _GIB, 10 * _GIB, 80 * _GIB)
        self._domains: dict[int, tuple[int, int]] = {}
        self._numbers = count(1)
        self._listeners: Observers[[]] = Observers(report_to_loop)
        self._generation = 1
        self._fresh = True

    @property
    def host(self) -> str:
        """The host's name in logs."""
        return self._host

    @property
    def usage(self) -> Usage:
        """The sums over the running domains."""
        return Usage(
            vcpus_used=sum(vcpus for vcpus, _ in self._domains.values()),
            memory_kib_used=sum(memory for _, memory in self._domains.values()),
            running_vms=len(self._domains),
        )

    def start(self, vcpus: int = 1, memory_kib: int = 1024 * 1024) -> int:
        """Start a domain; returns its number, for :meth:`stop`."""
        number = next(self._numbers)
        self._domains[number] = (vcpus, memory_kib)
        self._listeners()
        return number

    def stop(self, number: int) -> None:
        """Stop a domain.

        :raises KeyError: it does not run.
        """
        del self._domains[number]
        self._listeners()

    def set_facts(self, facts: HostFacts | None) -> None:
        """What the host is; None: not known yet, so that no row can be made."""
        self._facts = facts
        self._listeners()

    def set_disk(self, disk: DiskUsage | None) -> None:
        """The space for instances; None: not known, though it was looked at."""
        self._disk = disk
        self._listeners()

    def lose(self) -> None:
        """The connection breaks: the totals are frozen, and not written."""
        self._fresh = False
        self._listeners()

    def find(self) -> None:
        """The connection is back, and a resync is done."""
        self._fresh = True
        self._generation += 1
        self._listeners()

    def snapshot(self) -> HostSnapshot:
        """The state now."""
        return HostSnapshot(
            host=self._host,
            name=self._name,
            generation=self._generation,
            fresh=self._fresh,
            stale_seconds=None if self._fresh else 0.0,
            usage=self.usage,
            facts=self._facts,
            disk=self._disk,
            disk_settled=True,
            disks_settled=True,
        )

    def add_listener(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` on each change; returns the function that removes it."""
        return self._listeners.add(listener)
