"""Stand-ins for ``virDomain`` that block, fail and change when a test says so.

An event hands its own domain object to the reader, so these come in by the front door; the
connection beside them is libvirt's test driver, inside this process.
"""

import threading
from collections.abc import Callable

import libvirt

from asynchost.model import DomainState

DEADLINE_SECONDS = 20.0

RUNNING = DomainState.RUNNING


class Domain:
    """A domain that answers as libvirt does, once its gate is open."""

    def __init__(self, uuid: str, *, open_gate: bool = True) -> None:
        self.uuid = uuid
        self.values = [int(RUNNING), 4096, 2048, 2, 0]
        self.state_values = (int(RUNNING), 1)
        self.active = True
        self.failures = 0
        self.calls: list[str] = []
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.on_read: Callable[[], object] = lambda: None
        if open_gate:
            self.gate.set()

    @property
    def reads(self) -> int:
        """How many reads have begun."""
        return self.calls.count("info")

    def UUIDString(self) -> str:  # noqa: N802 - libvirt's name
        """Its UUID."""
        return self.uuid

    def info(self) -> list[int]:
        """State, maximum memory, memory, vCPUs, CPU time."""
        self.calls.append("info")
        self.on_read()
        self.entered.set()
        if not self.gate.wait(DEADLINE_SECONDS):
            raise AssertionError("nobody opened the gate")
        if self.failures:
            self.failures -= 1
            raise libvirt.libvirtError("internal error: for this test")
        return self.values

    def state(self) -> tuple[int, int]:
        """State and reason."""
        self.calls.append("state")
        return self.state_values

    def isActive(self) -> int:  # noqa: N802 - libvirt's name
        """Whether it runs."""
        self.calls.append("isActive")
        return int(self.active)

    def name(self) -> str:
        """Its name."""
        return f"guest {self.uuid}"

    def ID(self) -> int:  # noqa: N802 - libvirt's name
        """Its number."""
        return 7
