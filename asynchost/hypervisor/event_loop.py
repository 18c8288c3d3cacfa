"""libvirt's event loop implementation on top of asyncio, callable from any thread.

Why not ``libvirtaio``: every blocking call on a remote connection updates the loop's handles
and timers *from the calling thread*, and libvirtaio touches the asyncio loop right there. It
then misses wake-ups, loses every event in asyncio's debug mode and can remove a reader that
another thread has just asked for. Here an entry point only records what is wanted, under one
lock; an asyncio loop is touched on its own thread alone, woken by one coalesced
``call_soon_threadsafe``.

libvirt allows one registration per process and no way back, so there is one instance,
:data:`EVENT_LOOP`, and asyncio loops *attach* to it and *detach* again, as many as come and go
in one process. Each serves what its own threads asked for, so that a loop that stands still is
no other's matter. What nobody in particular asked for, or whose loop is gone, is served by any
loop that is attached; with none, it is remembered until the next one comes.

Memory: one record per handle and timer that libvirt has; a connection has one or two of each.
"""

import asyncio
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from fcntl import ioctl
from itertools import count
from termios import FIONREAD
from time import monotonic
from typing import Any, Final

import libvirt

_READABLE: Final = libvirt.VIR_EVENT_HANDLE_READABLE
_WRITABLE: Final = libvirt.VIR_EVENT_HANDLE_WRITABLE

# A thread that makes a call reads the socket itself, and asks for the loop's reader to be off
# for that time. Taking the reader out and in again for every call would wake the loop twice a
# call; so it stays in, and a wake-up that nobody wants is shrugged off, this many times in a row.
# Where the calls come from a thread that says so beforehand, there are none: see :class:`Calls`.
_SPURIOUS_WAKEUPS_ENDURED: Final = 4

# Of an implementation that the program registered: what is wrong with it, and what would do.
_NOT_RUN: Final = (
    "this program has registered a libvirt event loop that nothing runs",
    "run it in a thread (virEventRunDefaultImpl), or do not register it",
)
_REFUSES_THREADS: Final = (
    "this program's own libvirt event loop fails in threads, as libvirtaio's in debug mode",
    "do not register it, or turn debug mode off",
)

# One call of libvirt's reads one message. What many messages have in common is done once, for as
# many as take half a millisecond. Most have less than a hundred bytes.
_MESSAGES_AT_ONCE: Final = 32
_MESSAGE_BYTES: Final = 256

_Callback = Callable[..., Any]


def _unread_bytes(fd: int) -> int:
    """How much has come that nobody has read yet; 0 where that cannot be told."""
    try:
        return int.from_bytes(ioctl(fd, FIONREAD, bytes(4)), sys.byteorder)
    except OSError:
        return 0


class _Handle:
    """One file descriptor that libvirt wants watched."""

    __slots__ = (
        "callback",
        "calls",
        "events",
        "fd",
        "installed",
        "number",
        "opaque",
        "removed",
        "server",
        "spurious",
    )

    def __init__(self, number: int, fd: int, events: int, callback: _Callback, opaque: Any) -> None:
        self.number = number
        self.server: _Server | None = None
        self.fd = fd
        self.events = events  # what libvirt wants
        self.installed = 0  # what the asyncio loop watches; changed on its thread alone
        self.callback = callback
        self.opaque = opaque
        self.removed = False
        self.spurious = 0
        self.calls: Calls | None = None  # of the thread that made the last call through it

    @property
    def read_by_thread(self) -> bool:
        return self.calls is not None and self.calls.under_way


class _Timer:
    """One repeating timer of libvirt's. An interval of -1 means that it is off."""

    __slots__ = (
        "armed",
        "armed_at",
        "callback",
        "due",
        "interval",
        "number",
        "opaque",
        "removed",
        "server",
    )

    def __init__(self, number: int, callback: _Callback, opaque: Any) -> None:
        self.number = number
        self.server: _Server | None = None
        self.interval = -1  # milliseconds
        self.due = 0.0
        self.callback = callback
        self.opaque = opaque
        self.armed: asyncio.Handle | None = None  # changed on the loop's thread alone
        self.armed_at = float("inf")
        self.removed = False


class _Server:
    """An attached asyncio loop, and what is to be changed on it."""

    __slots__ = ("attached", "changed", "due", "loop", "thread", "wakeup_scheduled")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.thread = threading.get_ident()
        self.attached = 0
        self.changed: dict[int, _Handle | _Timer] = {}
        self.due: list[_Timer] | None = None
        """The timers that became due in what is being done, where they are fired right after it:
        libvirt hands out an event by one, which then need not wait for another round."""
        self.wakeup_scheduled = False

    @property
    def on_its_thread(self) -> bool:
        return threading.get_ident() == self.thread


class Calls:
    """The calls that one thread makes for an asyncio loop, and what they go through.

    While there are any, what they go through is read by the thread, and the loop keeps out of
    it: each reply would wake it for nothing, and for each it would take the interpreter's lock
    from the thread that waits for that reply.
    """

    __slots__ = ("handles", "under_way")

    def __init__(self) -> None:
        self.handles: set[_Handle] = set()
        self.under_way = False

    @property
    def unread_bytes(self) -> int:
        """How much has come through what they go through, and nobody has read; in any thread."""
        return sum(_unread_bytes(handle.fd) for handle in tuple(self.handles))


class LibvirtEventLoop:
    """What libvirt calls to have descriptors and timers watched. One per process."""

    def __init__(self) -> None:
        # Re-entrant, because a garbage collection inside a locked region may close a forgotten
        # connection, and closing comes back into the entry points on the same thread.
        self._lock = threading.RLock()
        self._ids = count(1)  # libvirt takes 0 for "no timer" in places
        self._handles: dict[int, _Handle] = {}
        self._timers: dict[int, _Timer] = {}
        self._servers: dict[asyncio.AbstractEventLoop, _Server] = {}
        self._calling_for = threading.local()
        self._is_registered: bool | None = None

    # -- registration and the loops that serve ------------------------------------------------

    def register(self) -> bool:
        """Make this the process's event loop implementation; idempotent.

        Returns whether it is. False means that the program registered another one before:
        events then arrive in the threads of that one, which the callers allow for.
        """
        with self._lock:
            if self._is_registered is None:
                try:
                    libvirt.virEventRegisterImpl(
                        self._add_handle,
                        self._update_handle,
                        self._remove_handle,
                        self._add_timeout,
                        self._update_timeout,
                        self._remove_timeout,
                    )
                except (libvirt.libvirtError, RuntimeError):
                    self._is_registered = False
                else:
                    self._is_registered = self._is_asked()
            return self._is_registered

    def _is_asked(self) -> bool:
        """Whether libvirt really asks us: it ignores a second registration in silence."""
        before = len(self._timers)
        probe = libvirt.virEventAddTimeout(-1, lambda *_: None, None)
        asked = len(self._timers) > before
        libvirt.virEventRemoveTimeout(probe)
        return asked

    async def why_unserved(self, deadline_seconds: float = 5.0) -> tuple[str, str] | None:
        """Why libvirt's timers do not fire here, and what to do about it; None if they do.

        Ours always do. Another implementation that the program registered may be one that nothing
        runs, or one that no other thread may ask, as libvirtaio in asyncio's debug mode: there
        events and keepalive would be lost in silence. Cancelling is safe.
        """
        if self._is_registered:
            return None
        loop = asyncio.get_running_loop()
        armed, fired = asyncio.Event(), asyncio.Event()
        timers: list[int] = []
        removed = threading.Event()

        def on_timer(timer: int, _opaque: object) -> None:
            removed.set()
            libvirt.virEventRemoveTimeout(timer)  # here, for it would come again at once
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(fired.set)

        def arm() -> None:
            with suppress(libvirt.libvirtError):
                timers.append(libvirt.virEventAddTimeout(0, on_timer, None))
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(armed.set)

        # In a thread, since that is where calls arm libvirt's own.
        threading.Thread(target=arm, name="asynchost-libvirt-probe", daemon=True).start()
        try:
            async with asyncio.timeout(deadline_seconds):
                await armed.wait()
                if not timers:
                    return _REFUSES_THREADS
                await fired.wait()
        except TimeoutError:
            return _NOT_RUN
        finally:
            if timers and not removed.is_set():
                libvirt.virEventRemoveTimeout(timers[0])
        return None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the running ``loop`` serve libvirt. To be called on its thread; counts."""
        with self._lock:
            for server in [one for one in self._servers.values() if one.loop.is_closed()]:
                self._retire(server)
            server = self._servers.get(loop) or _Server(loop)
            server.attached += 1
            if server.attached == 1:
                self._servers[loop] = server
                for item in self._items():
                    if item.server is None:
                        item.server = server
                        self._change(item)

    def detach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Undo one :meth:`attach`, on the loop's thread. The last one takes everything out."""
        with self._lock:
            server = self._servers.get(loop)
        if server is None:
            return
        self._apply_changes(server)
        with self._lock:
            server.attached -= 1
            if server.attached == 0:
                for item in self._items():
                    if item.server is server:
                        self._put_down(item)
                self._retire(server)

    def serve_this_thread_from(
        self, loop: asyncio.AbstractEventLoop, calls: Calls | None = None
    ) -> None:
        """What calls of this thread make libvirt ask for is to be served by ``loop``.

        With ``calls``, the loop says by :meth:`calls_begin` and :meth:`calls_end` when there are
        any.
        """
        self._calling_for.loop = loop
        self._calling_for.calls = calls

    def calls_begin(self, calls: Calls) -> None:
        """The thread is about to be given calls to make; on its loop."""
        with self._lock:
            if not calls.under_way:
                calls.under_way = True
                for handle in calls.handles:
                    if handle.server is not None and handle.server.on_its_thread:
                        self._install(handle, 0)

    def calls_end(self, calls: Calls) -> None:
        """The thread has made all its calls."""
        with self._lock:
            calls.under_way = False
            for handle in calls.handles:
                self._want(handle)

    def _items(self) -> list[_Handle | _Timer]:
        return [*self._handles.values(), *self._timers.values()]

    def _server_of_caller(self) -> _Server | None:
        loop = getattr(self._calling_for, "loop", None)
        if loop in self._servers:
            return self._servers[loop]
        thread = threading.get_ident()
        servers = list(self._servers.values())
        mine = [server for server in servers if server.thread == thread]
        return next(iter(mine + servers), None)

    def _retire(self, server: _Server) -> None:
        """The loop serves no more: hand on what it had, to any other one there is."""
        self._servers.pop(server.loop, None)
        heir = next(iter(self._servers.values()), None)
        left, server.changed = server.changed, {}
        for item in self._items():
            if item.server is server:
                left[item.number] = item
        for item in left.values():
            self._forget_loop(item)
            item.server = heir
            if heir is not None or item.removed:
                self._change(item)

    # -- the six entry points: any thread, any of libvirt's locks held, so no call into libvirt ---

    def _add_handle(self, fd: int, events: int, callback: _Callback, opaque: Any) -> int:
        with self._lock:
            handle = _Handle(next(self._ids), fd, events, callback, opaque)
            handle.server = self._server_of_caller()
            self._handles[handle.number] = handle
            self._asked_by_caller(handle)
            return handle.number

    def _update_handle(self, watch: int, events: int) -> None:
        with self._lock:
            handle = self._handles.get(watch)
            if handle is None:
                return
            handle.events = events
            self._asked_by_caller(handle)

    def _asked_by_caller(self, handle: _Handle) -> None:
        calls: Calls | None = getattr(self._calling_for, "calls", None)
        if calls is not None:
            handle.calls = calls
            calls.handles.add(handle)
        self._want(handle)

    def _want(self, handle: _Handle) -> None:
        if handle.read_by_thread:
            return  # and told of it when the thread is through
        if handle.events & ~handle.installed:
            self._change(handle)
        elif handle.events:
            handle.spurious = 0
        # Wanting less is never urgent: see _SPURIOUS_WAKEUPS_ENDURED.

    def _remove_handle(self, watch: int) -> int:
        with self._lock:
            handle = self._handles.pop(watch, None)
            if handle is None:
                return -1
            handle.events = 0
            handle.removed = True
            if handle.calls is not None:
                handle.calls.handles.discard(handle)
            self._change(handle)
            return 0

    def _add_timeout(self, interval: int, callback: _Callback, opaque: Any) -> int:
        with self._lock:
            timer = _Timer(next(self._ids), callback, opaque)
            timer.server = self._server_of_caller()
            self._timers[timer.number] = timer
            self._update_timeout(timer.number, interval)
            return timer.number

    def _update_timeout(self, timer_id: int, interval: int) -> None:
        with self._lock:
            timer = self._timers.get(timer_id)
            if timer is None:
                return
            timer.interval = interval
            if interval >= 0:
                timer.due = monotonic() + interval / 1000
                # Re-armed for later, as with every message of a keepalive: the earlier wake-up
                # that is armed finds that out by itself. Only an earlier time needs the loop.
                if timer.due < timer.armed_at:
                    self._change(timer)

    def _remove_timeout(self, timer_id: int) -> int:
        with self._lock:
            timer = self._timers.pop(timer_id, None)
            if timer is None:
                return -1
            timer.interval = -1
            timer.removed = True
            self._change(timer)
            return 0

    def _change(self, item: _Handle | _Timer) -> None:
        server = item.server
        if server is None:
            # No thread can be started any more while the interpreter goes down: waiting for it
            # would be for ever. What is not freed then goes with the process.
            if item.removed and not sys.is_finalizing():
                # Nobody serves it, so nobody else would let go of what libvirt waits to have
                # freed. In a thread of its own: whoever removes holds libvirt's locks, and
                # freeing takes them.
                threading.Thread(
                    target=libvirt.virEventInvokeFreeCallback,
                    args=(item.opaque,),
                    name="asynchost-libvirt-free",
                    daemon=True,
                ).start()
            return
        on_its_thread = server.on_its_thread
        if on_its_thread and not item.removed and not server.loop.is_closed():
            self._apply(item)
            return
        server.changed[item.number] = item
        if server.wakeup_scheduled:
            return
        try:
            if on_its_thread:
                server.loop.call_soon(self._wake, server)
            else:
                server.loop.call_soon_threadsafe(self._wake, server)
        except RuntimeError:  # the loop was closed without a detach
            self._retire(server)
        else:
            server.wakeup_scheduled = True

    # -- on the loop's thread -------------------------------------------------------------------

    def _wake(self, server: _Server) -> None:
        server.due = []
        self._apply_changes(server)
        self._fire_due(server)

    def _apply_changes(self, server: _Server) -> None:
        freed = []
        with self._lock:
            server.wakeup_scheduled = False
            changed, server.changed = server.changed, {}
            for item in changed.values():
                if item.server is not server:
                    continue  # another loop has taken it over
                if item.removed:
                    self._put_down(item)
                    freed.append(item.opaque)
                else:
                    self._apply(item)
        for opaque in freed:
            # Only now, without the lock and after the reader is gone: this may close the
            # descriptor, whose number the next connection may get.
            libvirt.virEventInvokeFreeCallback(opaque)

    def _apply(self, item: _Handle | _Timer) -> None:
        if isinstance(item, _Timer):
            self._arm(item)
        elif not item.read_by_thread:
            self._install(item, item.events)

    def _put_down(self, item: _Handle | _Timer) -> None:
        """Take it out of its asyncio loop."""
        if isinstance(item, _Handle):
            self._install(item, 0)
        else:
            self._disarm(item)

    def _forget_loop(self, item: _Handle | _Timer) -> None:
        """Its asyncio loop has gone, and took along what was installed in it."""
        if isinstance(item, _Handle):
            item.installed = 0
            item.calls = None  # a loop that is gone says nothing any more
        else:
            item.armed, item.armed_at = None, float("inf")

    def _install(self, handle: _Handle, events: int) -> None:
        """Make the asyncio loop watch what is wanted. Idempotent."""
        if handle.server is None or handle.server.loop.is_closed():
            return
        loop = handle.server.loop
        wanted = events & (_READABLE | _WRITABLE)
        if wanted & _READABLE and not handle.installed & _READABLE:
            loop.add_reader(handle.fd, self._ready, handle, _READABLE)
        elif handle.installed & _READABLE and not wanted & _READABLE:
            loop.remove_reader(handle.fd)
        if wanted & _WRITABLE and not handle.installed & _WRITABLE:
            loop.add_writer(handle.fd, self._ready, handle, _WRITABLE)
        elif handle.installed & _WRITABLE and not wanted & _WRITABLE:
            loop.remove_writer(handle.fd)
        handle.installed = wanted
        handle.spurious = 0

    def _ready(self, handle: _Handle, event: int) -> None:
        with self._lock:
            if handle.read_by_thread or not handle.events & event:
                handle.spurious += 1
                if handle.spurious > _SPURIOUS_WAKEUPS_ENDURED:
                    self._install(handle, handle.events & ~event)
                return
            handle.spurious = 0
            server = handle.server
            if server is not None:
                server.due = []
        try:
            handle.callback(handle.number, handle.fd, event, handle.opaque)
            if event == _READABLE:
                self._read_on(handle)
        finally:
            self._fire_due(server)

    def _read_on(self, handle: _Handle) -> None:
        """Read what else has come, as far as it is not too much for one round."""
        left = _MESSAGES_AT_ONCE - 1
        while left and handle.events & _READABLE and (unread := _unread_bytes(handle.fd)):
            # To ask after each would give up the interpreter's lock once more. One call too many
            # finds nothing, which is no harm.
            for _ in range(min(left, unread // _MESSAGE_BYTES + 1)):
                handle.callback(handle.number, handle.fd, _READABLE, handle.opaque)
                left -= 1
                if not handle.events & _READABLE:
                    break

    def _fire_due(self, server: _Server | None) -> None:
        if server is not None:
            due, server.due = server.due, None
            for timer in due or ():
                self._fire(timer)

    def _arm(self, timer: _Timer) -> None:
        server = timer.server
        if server is None or timer.interval < 0 or timer.armed_at <= timer.due:
            return
        self._disarm(timer)
        timer.armed_at = timer.due
        delay = timer.due - monotonic()
        if delay <= 0 and server.due is not None:
            server.due.append(timer)
        elif delay <= 0:
            timer.armed = server.loop.call_soon(self._fire, timer)
        else:
            timer.armed = server.loop.call_later(delay, self._fire, timer)

    def _disarm(self, timer: _Timer) -> None:
        if timer.armed is not None:
            timer.armed.cancel()
        timer.armed, timer.armed_at = None, float("inf")

    def _fire(self, timer: _Timer) -> None:
        with self._lock:
            if timer.armed_at == float("inf"):
                return  # it was due, and put down before its turn
            timer.armed, timer.armed_at = None, float("inf")
            if timer.interval < 0:
                return
            # A millisecond of grace: the loop's clock is coarser than ours.
            if timer.due > monotonic() + 0.001:
                self._arm(timer)
                return
            timer.due = monotonic() + timer.interval / 1000  # it repeats until it is told not to
        try:
            timer.callback(timer.number, timer.opaque)
        finally:
            with self._lock:
                self._arm(timer)


EVENT_LOOP: Final = LibvirtEventLoop()
