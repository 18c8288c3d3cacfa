"""An emulator that says over QMP what the test wants: for events that QEMU sends too seldom.

It is QEMU, with a relay between its monitor and libvirt that puts in what it finds in a file. So
libvirt and the guest are real, and only that one message is not.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

_EMULATOR = """\
#!/usr/bin/python3
import os, socket, sys, threading, time

QEMU = "/usr/bin/qemu-system-x86_64"
SAYS = sys.argv[0] + "-says"
arguments = sys.argv[1:]
monitor = [each for each in arguments if each.startswith("socket,id=charmonitor,fd=")]
if not monitor:
    os.execv(QEMU, [QEMU, *arguments])  # libvirt asks what it can do
number = int(monitor[0].split("fd=")[1].split(",")[0])
outer = socket.socket(fileno=os.dup(number))
inner = socket.socket(socket.AF_UNIX)
inner.bind(outer.getsockname() + ".inner")
inner.listen()
if os.fork():
    # The parent, whose process libvirt knows.
    os.dup2(inner.fileno(), number)
    os.execv(QEMU, [QEMU, *arguments])

keep = {outer.fileno(), inner.fileno()}
for name in os.listdir("/proc/self/fd"):
    if int(name) > 2 and int(name) not in keep:
        try:
            os.close(int(name))
        except OSError:
            pass
libvirt, _ = outer.accept()
qemu = socket.socket(socket.AF_UNIX)
qemu.connect(inner.getsockname())
inner.close()
lock = threading.Lock()

def commands():
    while piece := libvirt.recv(65536):
        qemu.sendall(piece)
    qemu.shutdown(socket.SHUT_WR)

def says():
    while True:
        time.sleep(0.02)
        try:
            with open(SAYS, "rb") as file:
                message = file.read()
            os.unlink(SAYS)
        except FileNotFoundError:
            continue
        with lock:
            libvirt.sendall(message)

for body in (commands, says):
    threading.Thread(target=body, daemon=True).start()
for line in qemu.makefile("rb"):
    with lock:
        libvirt.sendall(line)
"""


class TalkingEmulator:
    """The emulator, at a place that stays: libvirt keeps what it found out about each."""

    def __init__(self, folder: Path) -> None:
        # One for each of the processes that tests may be spread over.
        self.path = folder / f"qemu-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
        self._says = self.path.with_name(f"{self.path.name}-says")
        self._says.unlink(missing_ok=True)
        if not self.path.exists() or self.path.read_text() != _EMULATOR:
            self.path.write_text(_EMULATOR)
            self.path.chmod(0o755)

    def say(self, event: str, data: Mapping[str, object]) -> None:
        """Send libvirt an event; of one running guest of this emulator at a time."""
        message = {
            "timestamp": {"seconds": 0, "microseconds": 0},
            "event": event,
            "data": data,
        }
        new = self.path.with_name(f"{self.path.name}-new")
        new.write_text(json.dumps(message) + "\r\n")
        new.rename(self._says)  # in one step


def virtio_memory_xml(size_kib: int) -> str:
    """A memory device whose size the host changes, and of which the guest takes nothing yet."""
    return (
        f"<memory model='virtio-mem'><target><size unit='KiB'>{size_kib}</size><node>0</node>"
        "<block unit='KiB'>2048</block><requested unit='KiB'>0</requested></target></memory>"
    )
