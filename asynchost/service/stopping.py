"""How the process is asked to end, and the promise that it does.

The first SIGINT or SIGTERM asks for an orderly stop; the second one ends the process at once,
and so does a stop that takes longer than its grace time. Only the daemon uses this: a library
has no business with signals.
"""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import structlog

from asynchost.service.exits import ExitStatus
from asynchost.service.terminal import error_line

_log = structlog.get_logger("asynchost.service")


class Stop:
    """The wish to end, once uttered."""

    def __init__(self) -> None:
        self._requested = False
        self._scopes: list[asyncio.Timeout] = []

    @property
    def requested(self) -> bool:
        """Whether somebody asked."""
        return self._requested

    def request(self) -> None:
        """Ask: every block inside :meth:`interrupts` ends now. Asking again changes nothing."""
        self._requested = True
        for scope in self._scopes:
            scope.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def interrupts(self) -> AsyncIterator[None]:
        """Run a block that a stop cancels from inside; the code after the block goes on.

        So what the block opened on an outer exit stack is closed in order, by code that is not
        being cancelled itself. A block that is entered after the request ends at its first wait.
        """
        # A timeout without a time is asyncio's own cancel scope; the request gives it one.
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._scopes.append(scope)
                if self._requested:
                    self.request()
                try:
                    yield
                finally:
                    self._scopes.remove(scope)
        except TimeoutError:
            if not scope.expired():
                raise


def stop_on_signals(
    stop: Stop,
    *,
    grace_seconds: float,
    signals: Iterable[signal.Signals] = (signal.SIGINT, signal.SIGTERM),
    last_act: Callable[[], None] | None = None,
) -> None:
    """Let signals request ``stop`` from now until the running loop is closed.

    ``grace_seconds`` after the first one the process ends in any case, with
    :attr:`ExitStatus.FAULT`: a name server or a disk that does not answer must not keep it.
    ``last_act`` is called before an end that is not orderly, to remove what must not stay.
    """
    loop = asyncio.get_running_loop()

    def end(status: int) -> None:
        if last_act is not None:
            last_act()
        # Not sys.exit: nothing may be waited for any more, least of all threads.
        os._exit(status)

    def too_late() -> None:
        sys.stderr.write(error_line(f"not stopped {grace_seconds:g} s after the signal") + "\n")
        end(ExitStatus.FAULT)

    def on_signal(number: signal.Signals) -> None:
        if stop.requested:
            end(128 + number)
        _log.info("stopping; a second signal ends at once", signal=number.name)
        # A daemon thread, not a timer of the loop: the loop may be what does not answer, and
        # the joins that asyncio.run ends with come after the loop's last turn.
        watchdog = threading.Timer(grace_seconds, too_late)
        watchdog.daemon = True
        watchdog.start()
        stop.request()

    for number in signals:
        loop.add_signal_handler(number, on_signal, number)
