"""Storms of events: several processes move the domains of one libvirtd, one watches.

May live here: the putting together, and the figures. Must not: what is demanded of them, which
the tests and the benchmark say. Everything here blocks.
"""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import libvirt

from benchmarks.peers import Peer, peer
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.recount import recount_over

ROLES = "tests.support.storm_roles"
NO_LIMIT = 10**9
MEMORY_KIB = 1024


@dataclass(frozen=True)
class Report:
    """What the watching process saw of one storm."""

    events: int
    """How many were emitted."""
    seconds: float
    right_after_seconds: float
    """When its totals were right, counted from the storm's end; negative before it."""
    right_after_last_event_seconds: float
    """The same, counted from the last event's coming in, give or take a hundredth."""
    truth: list[int]
    found: dict[str, Any]
    noise: dict[str, Any]
    """The pauses of a process that only measures them, at the same time."""

    @property
    def rate(self) -> float:
        return self.events / self.seconds

    @property
    def right(self) -> bool:
        """Whether every total and every record is."""
        return self.truth == self.found["totals"] and self.found["drift"] == 0

    @property
    def more_bytes(self) -> int:
        """How much more memory it held after all than before."""
        return int(self.found["memory"]["resident"] - self.found["memory_before"]["resident"])


class Host:
    """A libvirtd full of domains, and the processes that move them."""

    def __init__(
        self, libvirtd: PrivateLibvirtd, connection: libvirt.virConnect, generators: list[Peer]
    ) -> None:
        self.uri = libvirtd.uri("test")
        self._connection = connection
        self._generators = generators

    def watcher(self, *, spy: bool = False, **settings: Any) -> Any:
        """A process that watches the host: a context manager."""
        return peer(ROLES, "watch", self.uri, json.dumps(settings), "spy" * spy)

    def storm(
        self,
        watcher: Peer,
        seconds: float,
        most: int = NO_LIMIT,
        *,
        stop_for: float | None = None,
        deadline: float = 60.0,
    ) -> Report:
        """As many events as can be made, for so long or until there are ``most``.

        ``stop_for`` stops the watching process at the beginning: for so long at least, and until
        the storm is over.
        """
        with peer(ROLES, "beat") as noise:
            watcher.ask("begin")
            begun = time.monotonic()
            if stop_for is not None:
                os.kill(watcher.pid, signal.SIGSTOP)
            try:
                noise.ask("begin")
                for generator in self._generators:
                    share = most if most == NO_LIMIT else most // len(self._generators)
                    generator.tell("storm", seconds=seconds, most=share)
                answers = [generator.answer() for generator in self._generators]
                ended = max(answer["ended_at"] for answer in answers)
                if stop_for is not None:
                    time.sleep(max(0.0, begun + stop_for - time.monotonic()))
                # Before the process goes on, lest it has to share libvirtd with this.
                truth = list(recount_over(self._connection))
                if stop_for is not None:
                    ended = time.monotonic()
            finally:
                if stop_for is not None:
                    os.kill(watcher.pid, signal.SIGCONT)
            events = sum(answer["events"] for answer in answers)
            found = watcher.ask("end", expected=truth, events=events, deadline=deadline)
            return Report(
                events,
                ended - begun,
                found["right_at"] - ended,
                found["right_at"] - found["all_in_at"],
                truth,
                found,
                noise.ask("end")["pauses"],
            )


@contextmanager
def host(domains: int, generators: int) -> Iterator[Host]:
    """A private libvirtd with so many active domains of the test driver."""
    # A slow machine takes longer for a backlog than libvirtd keeps the connection of a process
    # that is stopped.
    with (
        PrivateLibvirtd(drops_the_silent=False) as libvirtd,
        libvirtd.connection("test") as connection,
    ):
        guests.remove_all(connection)
        for number in range(domains):
            xml = guests.guest_xml(f"d{number}", vcpus=2, memory_kib=MEMORY_KIB, kind="test")
            guests.start(connection, xml)
        share = domains // generators
        with ExitStack() as stack:
            uri = libvirtd.uri("test")
            peers = [
                stack.enter_context(
                    peer(ROLES, "generate", uri, str(number * share), str(share), str(number))
                )
                for number in range(generators)
            ]
            yield Host(libvirtd, connection, peers)
