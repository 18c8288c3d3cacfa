"""What is sent to a service manager: one datagram each, to the socket that it has named."""

import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asynchost.service.systemd import Manager, is_under_manager


@pytest.fixture(params=["path", "abstract"])
def listening(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[str, socket.socket]]:
    """A manager's socket, and its name as the manager writes it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@asynchost-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name[1:]}" if name[0] == "@" else name)
        receiver.settimeout(10)
        yield name, receiver


def heard(receiver: socket.socket) -> str:
    """The next message."""
    return receiver.recv(4096).decode()


def test_every_message_is_one_datagram(listening: tuple[str, socket.socket]) -> None:
    """In the words of the protocol; the reload has the time of the monotonic clock."""
    name, receiver = listening
    manager = Manager({"NOTIFY_SOCKET": name})
    assert manager.listens
    manager.ready("2 hosts: 2 written")
    assert heard(receiver) == "READY=1\nSTATUS=2 hosts: 2 written"
    before = time.monotonic_ns() // 1000
    manager.reloading()
    found = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", heard(receiver))
    assert found is not None
    assert before <= int(found[1]) <= time.monotonic_ns() // 1000
    manager.alive()
    assert heard(receiver) == "WATCHDOG=1"
    manager.stopping()
    assert heard(receiver).startswith("STOPPING=1\n")


def test_a_status_is_one_short_line_and_is_sent_once(listening: tuple[str, socket.socket]) -> None:
    """A host's name holds no further field of the protocol."""
    name, receiver = listening
    manager = Manager({"NOTIFY_SOCKET": name})
    manager.status("a\nREADY=1\x1b")
    assert heard(receiver) == "STATUS=a?READY=1?"
    manager.status("a\nREADY=1\x1b")
    manager.status("x" * 1000)
    assert heard(receiver) == f"STATUS={'x' * 399}…"


@pytest.mark.parametrize(
    "name", ["", "vsock:2:1", "@", "/nowhere/at/all", "/" + "x" * 300, "/a\0b"]
)
def test_a_manager_that_cannot_be_told_holds_up_nothing(name: str) -> None:
    """Nothing of it is needed for the work."""
    manager = Manager({"NOTIFY_SOCKET": name})
    manager.ready("")
    manager.alive()


def test_a_manager_that_does_not_read_is_not_waited_for(tmp_path: Path) -> None:
    """Its queue is full after some datagrams."""
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name)
        manager = Manager({"NOTIFY_SOCKET": name})
        for _ in range(10_000):
            manager.alive()


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_this_processs_own(
    variables: dict[str, str], seconds: float | None
) -> None:
    """A child inherits the variables, and is not meant."""
    assert Manager({"NOTIFY_SOCKET": "/x", **variables}).watchdog_seconds == seconds
    assert Manager(variables).watchdog_seconds is None


def test_a_manager_is_known_by_its_variables() -> None:
    """Also one that is not told anything."""
    assert is_under_manager({"INVOCATION_ID": "f00"})
    assert is_under_manager({"NOTIFY_SOCKET": "/x"})
    assert not is_under_manager({"NOTIFY_SOCKET": ""})
