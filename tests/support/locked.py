"""Locked guests: the fault that blocks every listing of a libvirt host.

While a ``qemu`` hook runs for a guest, libvirt holds that guest's lock: reads of it wait, and so
does each listing, on any connection. A hook that waits for a file to vanish makes as many of
them as wanted, for as long as wanted, and ends without a sleep that somebody has to guess.
"""

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from typing import Literal

from tests.support.libvirtd import PrivateLibvirtd

_HOOK = """\
#!/bin/sh
case "$2" in {operation}) ;; *) exit 0 ;; esac
for held in {names}; do
    [ "$1" = "$held" ] || continue
    touch "/etc/libvirt/hooks/waiting-$1"
    while [ -e /etc/libvirt/hooks/hold ]; do sleep 0.02; done
    rm -f "/etc/libvirt/hooks/waiting-$1"
done
exit 0
"""


class Lock:
    """Guests that stay locked once they start or stop, until the end of the block."""

    def __init__(self, daemon: PrivateLibvirtd) -> None:
        self._daemon = daemon

    def waiting(self) -> set[str]:
        """The guests that are locked at the moment: poll this to know that it took hold."""
        found = self._daemon.hooks_folder.glob("waiting-*")
        return {path.name.removeprefix("waiting-") for path in found}

    def release(self) -> None:
        """Let all of them go on. Harmless when repeated."""
        (self._daemon.hooks_folder / "hold").unlink(missing_ok=True)


@contextlib.contextmanager
def locking(
    daemon: PrivateLibvirtd,
    names: Sequence[str],
    operation: Literal["start", "release"] = "start",
) -> Iterator[Lock]:
    """Lock each of ``names`` when it next starts (``start``) or has stopped (``release``).

    ``daemon`` was made with ``hooks=True``; names are plain words. The starting or stopping
    call, made in a thread of its own, returns after the end of the block (or ``release()``).
    """
    hold = daemon.hooks_folder / "hold"
    hold.touch()
    daemon.install_hook(
        _HOOK.format(operation=operation, names=" ".join(shlex.quote(name) for name in names))
    )
    lock = Lock(daemon)
    try:
        yield lock
    finally:
        lock.release()
        daemon.remove_hook()
