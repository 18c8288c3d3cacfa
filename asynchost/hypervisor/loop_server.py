"""One asyncio loop that serves libvirt, and the handles and timers that it serves.

This is the half of :mod:`.event_loop` that touches asyncio: it does so on the loop's own thread
alone. What a handle or a timer is wanted for is written by any thread, under the one lock of all.

Memory: one record per handle and timer that libvirt has; a connection has one or two of each.
"""

import asyncio
import sys
import threading
from collections.abc import Callable
from fcntl import ioctl
from termios import FIONREAD
from time import monotonic
from typing import Any, Final

import libvirt

_READABLE: Final = libvirt.VIR_EVENT_HANDLE_READABLE
_WRITABLE: Final = libvirt.VIR_EVENT_HANDLE_WRITABLE
_NEVER: Final = float("inf")

# A thread that makes a call reads the socket itself, and asks for the loop's reader to be off
# for that time. Taking the reader out and in again for every call would wake the loop twice a
# call; so it stays in, and a wake-up that nobody wants is shrugged off, this many times in a row.
# Where the calls come from a thread that says so beforehand, there are none: see :class:`Calls`.
SPURIOUS_WAKEUPS_ENDURED: Final = 4

# The system may be out of memory or of watches for a moment.
_APPLY_AGAIN_SECONDS: Final = 0.1

# One call of libvirt's reads one message. What many messages have in common is done once, for as
# many as take half a millisecond. Most have less than a hundred bytes.
_MESSAGES_AT_ONCE: Final = 32
_MESSAGE_BYTES: Final = 256


def _unread_bytes(fd: int) -> int:
    """How much has come that nobody has read yet; 0 where that cannot be told."""
    try:
        return int.from_bytes(ioctl(fd, FIONREAD, bytes(4)), sys.byteorder)
    except OSError:
        return 0


class Calls:
    """The calls that one thread makes for an asyncio loop, and what they go through.

    While there are any, what they go through is read by the thread, and the loop keeps out of
    it: each reply would wake it for nothing, and for each it would take the interpreter's lock
    from the thread that waits for that reply.
    """

    __slots__ = ("handles", "under_way")

    def __init__(self) -> None:
        self.handles: set[Handle] = set()
        self.under_way = False

    @property
    def unread_bytes(self) -> int:
        """How much has come through what they go through, and nobody has read; in any thread."""
        return sum(_unread_bytes(handle.fd) for handle in tuple(self.handles))


class LoopServer:
    """An attached asyncio loop, and what is to be changed on it."""

    __slots__ = ("attached", "changed", "due", "lock", "loop", "thread", "wakeup_scheduled")

    def __init__(self, loop: asyncio.AbstractEventLoop, lock: threading.RLock) -> None:
        self.loop = loop
        self.thread = threading.get_ident()
        self.lock = lock
        self.attached = 0
        self.changed: dict[int, Handle | Timer] = {}
        self.due: list[Timer] | None = None
        """The timers that became due in what is being done, where they are fired right after it:
        libvirt hands out an event by one, which then need not wait for another round."""
        self.wakeup_scheduled = False

    @property
    def on_its_thread(self) -> bool:
        """Whether it is asked on the loop's thread, the only one that may touch the loop."""
        return threading.get_ident() == self.thread

    def change(self, item: "Handle | Timer") -> bool:
        """Do to the loop what the item needs: at once on its thread, else soon.

        A removed one always waits: freeing it takes locks that libvirt holds now. Any thread,
        with the lock. False when the loop is closed.
        """
        on_its_thread = self.on_its_thread
        if on_its_thread and not item.removed and not self.loop.is_closed():
            self._apply(item)
            return True
        self.changed[item.number] = item
        if not self.wakeup_scheduled:
            call_soon = self.loop.call_soon if on_its_thread else self.loop.call_soon_threadsafe
            try:
                call_soon(self._wake)
            except RuntimeError:
                return False
            self.wakeup_scheduled = True
        return True

    # -- on the loop's thread ---------------------------------------------------------------------

    def _wake(self) -> None:
        self.due = []
        try:
            self.apply_changes()
        finally:
            self.fire_due()

    def _apply(self, item: "Handle | Timer") -> None:
        """Do to the loop what the item needs; where that fails, soon once more. With the lock."""
        try:
            item.apply()
        except Exception as fault:  # noqa: BLE001 - libvirt and the other items go on
            self._report(fault)
            self.changed[item.number] = item
            self.loop.call_later(_APPLY_AGAIN_SECONDS, self._wake)

    def _report(self, fault: Exception) -> None:
        context = {"message": "asynchost: serving libvirt failed", "exception": fault}
        # Not at once: a handler of the program's may do anything, and libvirt's locks are held.
        self.loop.call_soon(self.loop.call_exception_handler, context)

    def apply_changes(self) -> None:
        """Do what was asked for by other threads."""
        freed = []
        with self.lock:
            self.wakeup_scheduled = False
            changed, self.changed = self.changed, {}
            for item in changed.values():
                if item.server is not self:
                    continue  # another loop has taken it over
                if item.removed:
                    item.put_down()
                    freed.append(item.opaque)
                else:
                    self._apply(item)
        for opaque in freed:
            # Only now, without the lock and after the reader is gone: this may close the
            # descriptor, whose number the next connection may get.
            libvirt.virEventInvokeFreeCallback(opaque)

    def fire_due(self) -> None:
        """Fire the timers that became due in what has been done."""
        due, self.due = self.due, None
        for timer in due or ():
            try:
                timer.fire()
            except Exception as fault:  # noqa: BLE001 - the others are fired all the same
                self._report(fault)


class Handle:
    """One file descriptor that libvirt wants watched."""

    __slots__ = (
        "_installed",
        "callback",
        "calls",
        "events",
        "fd",
        "number",
        "opaque",
        "removed",
        "server",
        "spurious",
    )

    def __init__(
        self, number: int, fd: int, events: int, callback: Callable[..., Any], opaque: Any
    ) -> None:
        self.number = number
        self.server: LoopServer | None = None
        self.fd = fd
        self.events = events  # what libvirt wants
        self.callback = callback
        self.opaque = opaque
        self.removed = False
        self.calls: Calls | None = None  # of the thread that made the last call through it
        self._installed = 0  # what the asyncio loop watches; changed on its thread alone
        self.spurious = 0  # wake-ups in a row that nobody wanted

    @property
    def read_by_thread(self) -> bool:
        """Whether a thread makes calls through it, and reads it itself meanwhile."""
        return self.calls is not None and self.calls.under_way

    @property
    def lacks(self) -> bool:
        """Whether libvirt wants more than the loop watches."""
        return bool(self.events & ~self._installed)

    # -- on the loop's thread ---------------------------------------------------------------------

    def apply(self) -> None:
        """Make the loop watch what is wanted."""
        if not self.read_by_thread:
            self._install(self.events)

    def put_down(self) -> None:
        """Take it out of the loop."""
        self._install(0)

    def forget_loop(self) -> None:
        """The loop has gone, and took along what was installed in it; in any thread."""
        self._installed = 0
        self.calls = None  # a loop that is gone says nothing any more

    def _install(self, events: int) -> None:
        if self.server is None or self.server.loop.is_closed():
            return
        loop = self.server.loop
        wanted = events & (_READABLE | _WRITABLE)
        if wanted & _READABLE and not self._installed & _READABLE:
            loop.add_reader(self.fd, self._ready, _READABLE)
        elif self._installed & _READABLE and not wanted & _READABLE:
            loop.remove_reader(self.fd)
        if wanted & _WRITABLE and not self._installed & _WRITABLE:
            loop.add_writer(self.fd, self._ready, _WRITABLE)
        elif self._installed & _WRITABLE and not wanted & _WRITABLE:
            loop.remove_writer(self.fd)
        self._installed = wanted
        self.spurious = 0

    def _ready(self, event: int) -> None:
        server = self.server
        if server is None:
            return
        with server.lock:
            if self.read_by_thread or not self.events & event:
                self.spurious += 1
                if self.spurious > SPURIOUS_WAKEUPS_ENDURED:
                    self._install(self.events & ~event)
                return
            self.spurious = 0
            server.due = []
        try:
            self.callback(self.number, self.fd, event, self.opaque)
            if event == _READABLE:
                self._read_on()
        finally:
            server.fire_due()

    def _read_on(self) -> None:
        """Read what else has come, as far as it is not too much for one round."""
        left = _MESSAGES_AT_ONCE - 1
        while left and self.events & _READABLE and (unread := _unread_bytes(self.fd)):
            # To ask after each would give up the interpreter's lock once more. One call too many
            # finds nothing, which is no harm.
            for _ in range(min(left, unread // _MESSAGE_BYTES + 1)):
                self.callback(self.number, self.fd, _READABLE, self.opaque)
                left -= 1
                if not self.events & _READABLE:
                    break


class Timer:
    """One repeating timer of libvirt's. An interval of -1 means that it is off."""

    __slots__ = (
        "_armed",
        "_armed_at",
        "_due",
        "callback",
        "interval",
        "number",
        "opaque",
        "removed",
        "server",
    )

    def __init__(self, number: int, callback: Callable[..., Any], opaque: Any) -> None:
        self.number = number
        self.server: LoopServer | None = None
        self.interval = -1  # milliseconds
        self.callback = callback
        self.opaque = opaque
        self.removed = False
        self._due = 0.0
        self._armed: asyncio.Handle | None = None  # changed on the loop's thread alone
        self._armed_at = _NEVER

    def set_interval(self, interval: int) -> bool:
        """Take a new interval; whether that needs the loop. In any thread, with the lock."""
        self.interval = interval
        if interval < 0:
            return False
        self._due = monotonic() + interval / 1000
        # Re-armed for later, as with every message of a keepalive: the earlier wake-up that is
        # armed finds that out by itself. Only an earlier time needs the loop.
        return self._due < self._armed_at

    # -- on the loop's thread ---------------------------------------------------------------------

    def apply(self) -> None:
        """Make the loop wake up for it."""
        server = self.server
        if server is None or self.interval < 0 or self._armed_at <= self._due:
            return
        self.put_down()
        self._armed_at = self._due
        delay = self._due - monotonic()
        if delay > 0:
            self._armed = server.loop.call_later(delay, self.fire)
        elif server.due is not None:
            server.due.append(self)
        else:
            self._armed = server.loop.call_soon(self.fire)

    def put_down(self) -> None:
        """Take it out of the loop."""
        if self._armed is not None:
            self._armed.cancel()
        self.forget_loop()

    def forget_loop(self) -> None:
        """The loop has gone, and took along what was armed in it; in any thread."""
        self._armed, self._armed_at = None, _NEVER

    def fire(self) -> None:
        """Tell libvirt, if it is due."""
        server = self.server
        if server is None:
            return
        with server.lock:
            if self._armed_at == _NEVER:
                return  # it was due, and put down before its turn
            self.forget_loop()
            if self.interval < 0:
                return
            # A millisecond of grace: the loop's clock is coarser than ours.
            if self._due > monotonic() + 0.001:
                self.apply()
                return
            self._due = monotonic() + self.interval / 1000  # it repeats until told not to
        try:
            self.callback(self.number, self.opaque)
        finally:
            with server.lock:
                self.apply()
