"""What the daemon tells the service manager that started it, by systemd's notification protocol.

A message is one datagram to the socket that ``NOTIFY_SOCKET`` names. May live here: the messages.
Must not: what they are about. Nothing of it is needed for the work: a manager that cannot be
reached is told nothing. Every method may be called from any thread and never waits.
"""

import os
import socket
import time
from collections.abc import Mapping
from typing import Final

SOCKET_VARIABLE: Final = "NOTIFY_SOCKET"
WATCHDOG_VARIABLE: Final = "WATCHDOG_USEC"
WATCHDOG_PID_VARIABLE: Final = "WATCHDOG_PID"
INVOCATION_VARIABLE: Final = "INVOCATION_ID"
_LONGEST_STATUS: Final = 400
"""Characters: ``systemctl status`` shows one line."""


def is_under_manager(environment: Mapping[str, str]) -> bool:
    """Whether a service manager has started this process."""
    return bool(environment.get(SOCKET_VARIABLE) or environment.get(INVOCATION_VARIABLE))


class Manager:
    """The service manager of this process, as far as there is one that listens."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        name = environment.get(SOCKET_VARIABLE, "")
        # A name that begins with @ is in the abstract namespace; other kinds are no Unix sockets.
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        self.listens = name.startswith(("@", "/"))
        """Whether the manager wants to be told."""
        self.watchdog_seconds = _watchdog_seconds(environment) if self.listens else None
        """Within which time the manager wants a sign of life; None: it wants none."""
        self.is_ready = False
        """Whether the manager was told that the start is complete."""
        self._status = ""

    def ready(self, status: str) -> None:
        """The start, or the reload, is complete."""
        self._status = status
        self.is_ready = True
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def status(self, status: str) -> None:
        """One line for people; the same line is not sent again."""
        if status != self._status:
            self._status = status
            self._send(f"STATUS={_line(status)}")

    def reloading(self) -> None:
        """A reload begins; :meth:`ready` ends it."""
        # Without the time, a manager that asked for the reload waits for it for ever.
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The end begins."""
        self._status = ""
        self._send("STOPPING=1\nSTATUS=writing what is left, closing")

    def alive(self) -> None:
        """A sign of life."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self.listens:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(message.encode(errors="backslashreplace"), self._address)
        except (OSError, ValueError):
            # Its queue is full, or it is gone. ValueError: the name cannot be one.
            pass


def _line(status: str) -> str:
    line = "".join(one if one.isprintable() else "?" for one in status)
    return line if len(line) <= _LONGEST_STATUS else f"{line[: _LONGEST_STATUS - 1]}…"


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    pid = environment.get(WATCHDOG_PID_VARIABLE)
    if pid and pid != str(os.getpid()):
        return None
    try:
        microseconds = int(environment.get(WATCHDOG_VARIABLE, ""))
    except ValueError:
        return None
    return microseconds / 1_000_000 if microseconds > 0 else None
