"""How the process is asked to end, and the promise that it does.

The process's signals are blocked in every thread, and one thread of this module waits for them.
So a signal is never lost, it interrupts no code, and it is answered whatever the event loop and
the standard streams do. Only the daemon uses this: a library has no business with signals.
"""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Final

import structlog

from asynchost.service.exits import ExitStatus
from asynchost.service.logs import fatal_line
from asynchost.service.streams import finish_errors
from asynchost_command import HELD, STOPPING, hold_signals

_log = structlog.get_logger("asynchost.service")


STATE: Final = signal.SIGUSR1
"""The signal that asks a daemon to write its state into the log."""


class Stop:
    """A stop request; once made, it is never cleared."""

    def __init__(self) -> None:
        self._requested = False
        self._scopes: list[asyncio.Timeout] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._show_state: Callable[[], None] | None = None

    @property
    def requested(self) -> bool:
        """Whether somebody asked."""
        return self._requested

    def request(self) -> None:
        """Ask: every block inside :meth:`interrupts` ends now. Asking again changes nothing."""
        self._requested = True
        for scope in self._scopes:
            scope.reschedule(asyncio.get_running_loop().time())

    def request_soon(self) -> None:
        """Ask from another thread, also before there is a block to end."""
        self._requested = True
        self.call_soon(self.request)

    def on_state_wanted(self, callback: Callable[[], None]) -> None:
        """Have this called on the loop whenever somebody wants to see the state of the daemon."""
        self._show_state = callback

    def show_state_soon(self) -> bool:
        """Show the state, from another thread; False where there is none to show yet."""
        if self._show_state is None:
            return False
        self.call_soon(self._show_state)
        return True

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call on the loop of the blocks, from another thread; nothing where there is none."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed, so all has ended
                self._loop.call_soon_threadsafe(callback)

    @asynccontextmanager
    async def interrupts(self) -> AsyncIterator[None]:
        """Run a block that a stop cancels from inside; the code after the block goes on.

        So what the block opened on an outer exit stack is closed in order, by code that is not
        being cancelled itself. A block that is entered after the request ends at its first wait.
        """
        self._loop = asyncio.get_running_loop()
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


class _Receiver:
    """The thread that waits for the process's signals, and what it does with each."""

    def __init__(self) -> None:
        self.act: Callable[[int | None], None] = _end_at_once
        """Called with the number of each signal, and with None once ``deadline`` has passed."""
        self.deadline: float | None = None
        self.hung_up = False
        """Whether a SIGHUP that shall not end the process came before the work had begun."""
        self.ends_at_once = False
        """Whether the thread is about to end the process, with a status of its own."""
        self._thread: threading.Thread | None = None

    def start(self, act: Callable[[int | None], None]) -> None:
        """Act on signals like this from now on."""
        hold_signals()
        self.act = act
        if self._thread is None:
            self._thread = threading.Thread(target=self._wait, name="signals", daemon=True)
            self._thread.start()

    def let_end(self) -> None:
        """Return at once, or never where the thread is about to end the process."""
        if self.ends_at_once and self._thread is not None:
            self._thread.join()

    def _wait(self) -> None:
        while True:
            if self.deadline is None:
                number: int | None = signal.sigwaitinfo(HELD).si_signo
            else:
                left = max(self.deadline - monotonic(), 0.0)
                received = signal.sigtimedwait(HELD, left)
                number = None if received is None else received.si_signo
            self.act(number)


def _end_at_once(number: int | None) -> None:
    if number in STOPPING:
        os._exit(128 + number)


_receiver: Final = _Receiver()


def end_on_signals(*, orderly: bool, hang_up_ends: bool = True) -> None:
    """End the process at once on each signal that asks for the end.

    For a command that has nothing to finish; it may wait for anything, also for the reader of its
    output. The exit status is 128 + n. If ``orderly``, it is 0: that is for a daemon which has not
    begun its work yet. If not ``hang_up_ends``, SIGHUP is kept for :func:`stop_on_signals`.
    """

    def end(number: int | None) -> None:
        if number == signal.SIGHUP and not hang_up_ends:
            _receiver.hung_up = True
        elif number in STOPPING:
            _log.info("stopped", signal=_name(number))
            finish_errors()
            os._exit(ExitStatus.OK)

    _receiver.start(end if orderly else _end_at_once)


def let_signals_end() -> None:
    """Call this before the process ends: a second signal may be about to end it already.

    Then this never returns, so that the status is the signal's.
    """
    _receiver.let_end()


def stop_on_signals(
    stop: Stop,
    *,
    grace_seconds: float,
    last_act: Callable[[], None] | None = None,
    reload: Callable[[], None] | None = None,
) -> None:
    """Let the signals in :data:`STOPPING` request ``stop`` from now until the process ends.

    The second one ends the process at once with 128 + n. ``grace_seconds`` after the first one
    the process ends in any case, with :attr:`ExitStatus.FAULT`: a name server or a disk that does
    not answer must not keep it. ``last_act`` is called before an end that is not orderly, to
    remove what must not stay. SIGUSR1 shows the state that ``stop`` was given; every other signal
    in :data:`HELD` is only logged. With ``reload``, SIGHUP has it called, in another
    thread; a SIGHUP that came before counts, too.
    """

    def end(status: int) -> None:
        _receiver.ends_at_once = True
        try:
            if last_act is not None:
                last_act()
        finally:
            # Not sys.exit: nothing may be waited for any more, least of all threads.
            os._exit(status)

    def act(number: int | None) -> None:
        if number is None:
            reason = f"not stopped {grace_seconds:g} s after the signal"
            print(fatal_line(reason, ExitStatus.FAULT), file=sys.stderr)
            finish_errors()
            end(ExitStatus.FAULT)
        elif number == signal.SIGHUP and reload is not None:
            reload()
        elif number == STATE and stop.show_state_soon():
            pass
        elif number not in STOPPING:
            _log.info("signal ignored", signal=_name(number))
        elif _receiver.deadline is not None:
            end(128 + number)
        else:
            # The deadline first: nothing that comes after it may keep the process.
            _receiver.deadline = monotonic() + grace_seconds
            _log.info("stopping; a second signal ends at once", signal=_name(number))
            stop.request_soon()

    _receiver.start(act)
    if _receiver.hung_up and reload is not None:
        reload()


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"
