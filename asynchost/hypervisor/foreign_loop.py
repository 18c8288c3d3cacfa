"""Whether a libvirt event loop that the program registered itself can be relied on.

It may be one that nothing runs, or one that no other thread may ask, as libvirtaio in asyncio's
debug mode: there events and keepalive would be lost in silence.
"""

import asyncio
import threading
from contextlib import suppress
from typing import Final

import libvirt

# What is wrong with it, and what would do.
_NOT_RUN: Final = (
    "this program has registered a libvirt event loop that nothing runs",
    "run it in a thread (virEventRunDefaultImpl), or do not register it",
)
_REFUSES_THREADS: Final = (
    (
        "this program's own libvirt event loop fails in threads: libvirtaio's does in debug mode,"
        " and once its asyncio loop has ended"
    ),
    "do not register it, or turn debug mode off and keep to one asyncio.run",
)


async def why_unserved(deadline_seconds: float = 5.0) -> tuple[str, str] | None:
    """Why libvirt's timers do not fire here, and what to do about it; None if they do.

    Cancelling is safe.
    """
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
