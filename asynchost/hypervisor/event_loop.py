"""libvirt's event loop implementation on top of asyncio, callable from any thread.

Why not ``libvirtaio``: every blocking call on a remote connection updates the loop's handles
and timers *from the calling thread*, and libvirtaio touches the asyncio loop right there, in
libvirt-python 12.8.0 too. It then misses wake-ups, loses every event in asyncio's debug mode and
can remove a reader that another thread has just asked for. Here an entry point only records what
is wanted, under one lock; an asyncio loop is touched on its own thread alone, woken by one
coalesced ``call_soon_threadsafe``: see :mod:`.loop_server`.

libvirt allows one registration per process and no way back, so there is one instance,
:data:`EVENT_LOOP`, and asyncio loops *attach* to it and *detach* again, as many as come and go
in one process. Each serves what its own threads asked for, so that a loop that stands still is
no other's matter. What nobody in particular asked for, or whose loop is gone, is served by any
loop that is attached; with none, it is remembered until the next one comes.
"""

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any, Final

import libvirt

from asynchost.hypervisor.loop_server import Calls, Handle, LoopServer, Timer


class _CallingFor(threading.local):
    """Whom the calls of a thread are made for."""

    loop: asyncio.AbstractEventLoop | None = None
    calls: Calls | None = None


class LibvirtEventLoop:
    """What libvirt calls to have descriptors and timers watched. One per process."""

    def __init__(self) -> None:
        # Re-entrant, because a garbage collection inside a locked region may close a forgotten
        # connection, and closing comes back into the entry points on the same thread.
        self._lock = threading.RLock()
        self._ids = count(1)  # libvirt takes 0 for "no timer" in places
        self._handles: dict[int, Handle] = {}
        self._timers: dict[int, Timer] = {}
        self._servers: dict[asyncio.AbstractEventLoop, LoopServer] = {}
        self._unfreed: list[Handle | Timer] = []
        """Objects that libvirt has released and that no thread could be started to free."""
        self._calling_for = _CallingFor()
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

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the running ``loop`` serve libvirt. To be called on its thread; counts."""
        with self._lock:
            for server in [one for one in self._servers.values() if one.loop.is_closed()]:
                self._retire(server)
            server = self._servers.get(loop) or LoopServer(loop, self._lock)
            server.attached += 1
            if server.attached == 1:
                self._servers[loop] = server
                unfreed, self._unfreed = self._unfreed, []
                for item in (*self._items(), *unfreed):
                    if item.server is None:
                        item.server = server
                        self._change(item)

    def detach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Undo one :meth:`attach`, on the loop's thread. The last one takes everything out."""
        with self._lock:
            server = self._servers.get(loop)
        if server is None:
            return
        server.apply_changes()
        with self._lock:
            server.attached -= 1
            if server.attached == 0:
                for item in self._items():
                    if item.server is server:
                        item.put_down()
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
                        handle.put_down()

    def calls_end(self, calls: Calls) -> None:
        """The thread has made all its calls."""
        with self._lock:
            calls.under_way = False
            for handle in calls.handles:
                self._want(handle)

    def cut_off(self, calls: Calls) -> None:
        """Shut down the sockets that these calls go through, so that no call waits for an answer.

        libvirt goes on owning the descriptors, and closes them.
        """
        with self._lock:  # while a handle is registered, its descriptor is open
            for handle in calls.handles:
                with suppress(OSError), socket.socket(fileno=os.dup(handle.fd)) as its_socket:
                    its_socket.shutdown(socket.SHUT_RDWR)

    def _items(self) -> list[Handle | Timer]:
        return [*self._handles.values(), *self._timers.values()]

    def _server_of_caller(self) -> LoopServer | None:
        loop = self._calling_for.loop
        if loop is not None and loop in self._servers:
            return self._servers[loop]
        thread = threading.get_ident()
        servers = list(self._servers.values())
        mine = [server for server in servers if server.thread == thread]
        return next(iter(mine + servers), None)

    def _retire(self, server: LoopServer) -> None:
        """The loop serves no more: hand on what it had, to any other one there is."""
        self._servers.pop(server.loop, None)
        heir = next(iter(self._servers.values()), None)
        left, server.changed = server.changed, {}
        for item in self._items():
            if item.server is server:
                left[item.number] = item
        for item in left.values():
            item.forget_loop()
            item.server = heir
            if heir is not None or item.removed:
                self._change(item)

    # -- the six entry points: any thread, any of libvirt's locks held, so no call into libvirt ---

    def _add_handle(self, fd: int, events: int, callback: Callable[..., Any], opaque: Any) -> int:
        with self._lock:
            handle = Handle(next(self._ids), fd, events, callback, opaque)
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
            if not handle.read_by_thread:  # else the loop is told when the thread is through
                self._asked_by_caller(handle)

    def _asked_by_caller(self, handle: Handle) -> None:
        calls = self._calling_for.calls
        if calls is not None and calls is not handle.calls:
            if handle.calls is not None:
                handle.calls.handles.discard(handle)
            handle.calls = calls
            calls.handles.add(handle)
        self._want(handle)

    def _want(self, handle: Handle) -> None:
        if handle.read_by_thread:
            return  # and told of it when the thread is through
        if handle.lacks:
            self._change(handle)
        elif handle.events:
            handle.spurious = 0
        # Wanting less is never urgent: see SPURIOUS_WAKEUPS_ENDURED.

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

    def _add_timeout(self, interval: int, callback: Callable[..., Any], opaque: Any) -> int:
        with self._lock:
            timer = Timer(next(self._ids), callback, opaque)
            timer.server = self._server_of_caller()
            self._timers[timer.number] = timer
            self._update_timeout(timer.number, interval)
            return timer.number

    def _update_timeout(self, timer_id: int, interval: int) -> None:
        with self._lock:
            timer = self._timers.get(timer_id)
            if timer is None:
                return
            if timer.set_interval(interval):
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

    def _change(self, item: Handle | Timer) -> None:
        server = item.server
        if server is None:
            # No thread can be started any more while the interpreter goes down: waiting for it
            # would be for ever. What is not freed then goes with the process.
            if item.removed and not sys.is_finalizing():
                # Nobody serves it, so nobody else would let go of what libvirt waits to have
                # freed. In a thread of its own: whoever removes holds libvirt's locks, and
                # freeing takes them.
                thread = threading.Thread(
                    target=libvirt.virEventInvokeFreeCallback,
                    args=(item.opaque,),
                    name="asynchost-libvirt-free",
                    daemon=True,
                )
                try:
                    thread.start()
                except (RuntimeError, MemoryError):
                    self._unfreed.append(item)  # the next loop that is attached frees it
            return
        if not server.change(item):  # its loop was closed without a detach
            self._retire(server)


EVENT_LOOP: Final = LibvirtEventLoop()
