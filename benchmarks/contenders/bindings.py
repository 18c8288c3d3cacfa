"""Three ways to have libvirt's events in an asyncio program. One per process: libvirt's rule."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import libvirt
import libvirtaio  # type: ignore[import-untyped, unused-ignore]

from asynchost.hypervisor.event_loop import EVENT_LOOP

Callback = Callable[..., None]


def ours(loop: asyncio.AbstractEventLoop) -> Callable[[Callback], Callback]:
    """asynchost's event loop implementation."""
    if not EVENT_LOOP.register():
        raise RuntimeError("another event loop implementation is registered")
    EVENT_LOOP.attach(loop)
    return _as_it_is


def shipped(_loop: asyncio.AbstractEventLoop) -> Callable[[Callback], Callback]:
    """The implementation that comes with libvirt-python."""
    libvirtaio.virEventRegisterAsyncIOImpl()
    return _as_it_is


def default_in_thread(loop: asyncio.AbstractEventLoop) -> Callable[[Callback], Callback]:
    """libvirt's own loop in a thread, each event handed over by ``call_soon_threadsafe``."""
    libvirt.virEventRegisterDefaultImpl()

    def run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=run, daemon=True).start()

    def hand_over(callback: Callback) -> Callback:
        def receive(*arguments: Any) -> None:
            loop.call_soon_threadsafe(callback, *arguments)

        return receive

    return hand_over


def _as_it_is(callback: Callback) -> Callback:
    return callback


BINDINGS = {"ours": ours, "libvirtaio": shipped, "default": default_in_thread}
