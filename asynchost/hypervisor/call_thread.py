"""Blocking calls in a daemon thread of one's own, one after another, each with a deadline.

Why not an executor: its threads are joined when the interpreter exits, so one call that libvirt
never answers would keep the process alive; and the loop's shared executor is so small that a
few wedged hosts would stop every other.

Memory: one thread, started when there is work and ended after a time without. What waits for
it is bounded by the callers: behind a call that was given up nothing is queued.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Final, TypeVar
from weakref import WeakSet, WeakValueDictionary

from asynchost.hypervisor.event_loop import EVENT_LOOP
from asynchost.hypervisor.loop_server import Calls

T = TypeVar("T")

# Long enough that the audit's rhythm does not start a thread each time, short enough that a
# thousand idle hosts do not hold a thousand threads.
_IDLE_SECONDS: Final = 3.0


# For a call that must be made, though the system starts no thread at the moment.
_START_AGAIN_SECONDS: Final = 0.5
# A thread that has nothing left to do ends in an instant. Each look at it lets it run.
_LOOKS_AT_THE_END: Final = 100
_LOOK_SPACING_SECONDS: Final = 0.001

STANDSTILL_SECONDS: Final = 0.5


def stood_still(late_seconds: float) -> bool:
    """Whether a timer that fired so late says that the loop, or the whole process, was stopped.

    Deadlines have then passed without anything being slow: what was under way gets another chance.
    """
    return late_seconds > STANDSTILL_SECONDS


class CallNotMadeError(RuntimeError):
    """The call was not made, and will not be."""


class ThreadClosedError(CallNotMadeError):
    """The thread takes no more calls."""


class ThreadNotStartedError(CallNotMadeError):
    """The system starts no thread at the moment: too many processes, or too little memory."""


class Call:
    """One blocking call, from its submission until the thread came back."""

    __slots__ = (
        "_on_done",
        "_run",
        "abandoned_at",
        "begun",
        "error",
        "must_run",
        "result",
    )

    def __init__(
        self,
        run: Callable[[], Any],
        on_done: "Callable[[Call], None]",
        *,
        must_run: bool = False,
    ) -> None:
        self._run = run
        self._on_done = on_done
        self.must_run = must_run
        self.abandoned_at: float | None = None
        """Since when nobody waits for it any more, by ``time.monotonic()``."""
        self.begun = False
        self.result: Any = None
        self.error: BaseException | None = None

    @property
    def abandoned(self) -> bool:
        """Nobody waits for it any more. Unless it must run, it is then not begun with."""
        return self.abandoned_at is not None

    def make(self) -> None:
        """Make the call; in the thread."""
        self.begun = True
        try:
            self.result = self._run()
        except BaseException as error:  # noqa: BLE001 - handed to whoever asked for the call
            self.error = error

    def finish(self) -> None:
        """Tell whoever asked; on the loop."""
        self._on_done(self)


class CallThread:
    """One call at a time, its end told on the loop.

    What the calls make libvirt ask of its event loop is served by the asyncio loop that this
    belongs to. The results of several short calls reach that loop by one wake-up.
    """

    def __init__(self, name: str, host: str = "") -> None:
        """``name`` is the thread's; ``host`` says whose it is: see :func:`held_threads`."""
        self._name = name
        self.host = host
        self._loop = asyncio.get_running_loop()
        self._calls = Calls()
        self._lock = threading.Lock()
        self._queue: SimpleQueue[Call | None] = SimpleQueue()
        self._finished: deque[Call] = deque()
        self._wakeup_scheduled = False
        self._thread: threading.Thread | None = None
        self._moved = asyncio.Event()
        self._closed = False
        self.in_flight: set[Call] = set()
        """The calls that were submitted and have not come back, abandoned ones included."""
        self._of_host = _add_to_host(host, self)

    def submit(self, call: Call) -> None:
        """Make the call after those submitted before. To be called on the loop.

        Raises :class:`ThreadClosedError`, and :class:`ThreadNotStartedError` where the system
        starts no thread. Starting is tried again for a call that must run, as long as the loop
        is not closed.
        """
        if self._closed:
            raise ThreadClosedError
        self.in_flight.add(call)
        EVENT_LOOP.calls_begin(self._calls)
        try:
            with self._lock:  # so that an idle thread does not end in between
                self._start(call.must_run)
                self._queue.put(call)
        except CallNotMadeError:
            self._forget(call)
            raise

    def _start(self, must_run: bool) -> None:
        """Start the thread unless there is one; with the lock."""
        if self._thread is not None and self._thread.is_alive():
            return
        thread = threading.Thread(target=self._work, name=f"asynchost-{self._name}", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:
            self._thread = None
            if not must_run or self._loop.is_closed():
                raise ThreadNotStartedError(str(error)) from error
            self._loop.call_later(_START_AGAIN_SECONDS, self._start_again)
        else:
            self._thread = thread  # only now: one that was not started never takes a call

    def _start_again(self) -> None:
        with self._lock, suppress(ThreadNotStartedError):
            if self.in_flight:
                self._start(must_run=True)

    def _forget(self, call: Call) -> None:
        self.in_flight.discard(call)
        if not self.in_flight:
            EVENT_LOOP.calls_end(self._calls)

    async def call(
        self,
        run: Callable[[], T],
        deadline_seconds: float,
        *,
        must_run: bool = False,
    ) -> T:
        """Make one call and wait for it, at most ``deadline_seconds`` from now.

        Raises :class:`TimeoutError` after that, :class:`ThreadClosedError` when the thread was
        closed before it began, :class:`ThreadNotStartedError` where the system starts no thread,
        and whatever the call raised. Cancelling is safe. When it timed out or was cancelled, the
        thread stays in the call until that returns, and lets go of what it returns. A call that
        was not begun is then not made, unless it ``must_run``. While an earlier call that was
        given up still holds the thread, the call is not even submitted.
        """
        until = self._loop.time() + deadline_seconds
        if not must_run:
            await self._wait_while_held(until)
        came_back: asyncio.Future[bool] = self._loop.create_future()

        def tell(in_time: bool) -> None:
            if not came_back.done():
                came_back.set_result(in_time)

        def expire() -> None:
            if stood_still(self._loop.time() - timer.when()):
                self._loop.call_later(STANDSTILL_SECONDS, tell, False)
            else:
                tell(in_time=False)

        call = Call(run, lambda _: tell(in_time=True), must_run=must_run)
        self.submit(call)
        timer = self._loop.call_at(until, expire)
        try:
            in_time = await came_back
        except BaseException:
            self.abandon(call)
            raise
        finally:
            timer.cancel()
        if not in_time:
            self.abandon(call)
            raise TimeoutError
        if call.abandoned:  # by close(): it was not made
            raise ThreadClosedError
        if call.error is not None:
            raise call.error
        # Taken out of the call: a traceback may keep the frames that know it alive for long.
        result: T = call.result
        call.result = None
        return result

    async def _wait_while_held(self, until: float) -> None:
        """Wait while a call that was given up holds the thread.

        What is submitted meanwhile would pile up behind that call, for as long as it hangs.
        """
        async with asyncio.timeout_at(until):
            while any(call.begun and call.abandoned for call in self.in_flight):
                if self._closed:
                    raise ThreadClosedError
                self._moved.clear()
                await self._moved.wait()

    @property
    def held(self) -> bool:
        """Whether it is in a call that nobody waits for any more; asked on any loop."""
        return any(
            call.begun and (call.abandoned or (self._closed and not call.must_run))
            for call in tuple(self.in_flight)
        )

    @property
    def unread_bytes(self) -> int:
        """How much has come for those who call here, and nobody has read; in any thread."""
        return self._calls.unread_bytes

    def abandon(self, call: Call) -> None:
        """Wait for the call no longer; its result is let go of whenever it comes."""
        call.abandoned_at = monotonic()  # first: a result that comes now is let go of by the thread
        call.result = None

    def cut_off(self) -> None:
        """End what the thread waits for, by shutting down the sockets of its calls; in any thread.

        The connection is lost by that.
        """
        EVENT_LOOP.cut_off(self._calls)

    def close(self) -> None:
        """Take no more calls, and let the thread end when it is through. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for call in self.in_flight:
            if not (call.begun or call.must_run):
                call.abandoned_at = monotonic()
        self._queue.put(None)
        if not self._loop.is_closed():
            self._moved.set()  # who waits for the thread to be free waits in vain

    async def aclose(self, grace_seconds: float = 0.5) -> bool:
        """:meth:`close`, and wait for the call that is being made, but not for an abandoned one.

        Returns whether the thread has ended. One that is held by a call is a daemon thread,
        ends with the call, and never delays the process's exit. Cancelling is safe.
        """
        self.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                while any(call.begun and not call.abandoned for call in self.in_flight):
                    self._moved.clear()
                    await self._moved.wait()
        if any(call.begun or call.must_run for call in self.in_flight):
            return False
        # It has nothing left to do but to end. Not by join(), which would hold the loop.
        thread = self._thread
        for _ in range(_LOOKS_AT_THE_END):
            if thread is None or not thread.is_alive():
                break
            await asyncio.sleep(_LOOK_SPACING_SECONDS)
        return True

    # -- in the thread --------------------------------------------------------------------------

    def _work(self) -> None:
        EVENT_LOOP.serve_this_thread_from(self._loop, self._calls)
        while (call := self._next()) is not None:
            if call.must_run or not call.abandoned:
                call.make()
            if call.abandoned:
                call.result = None
            self._finished.append(call)
            del call  # its result may hold what must not live on while this thread waits
            if not self._wakeup_scheduled:
                self._wakeup_scheduled = True
                try:
                    self._loop.call_soon_threadsafe(self._tell)
                except RuntimeError:  # the loop is closed: nobody is left to be told
                    EVENT_LOOP.calls_end(self._calls)

    def _next(self) -> Call | None:
        """The next call; None when the thread is to end."""
        while True:
            with suppress(Empty):
                return self._queue.get(timeout=_IDLE_SECONDS)
            with self._lock:
                if self._queue.empty():
                    self._thread = None
                    return None

    # -- on the loop ----------------------------------------------------------------------------

    def _tell(self) -> None:
        # First the flag, then the results: one that is added in between wakes the loop again.
        self._wakeup_scheduled = False
        try:
            while self._finished:
                call = self._finished.popleft()
                self.in_flight.discard(call)
                try:
                    call.finish()
                except Exception as fault:  # noqa: BLE001 - the others are told all the same
                    self._loop.call_exception_handler(
                        {"message": "asynchost: telling of a call failed", "exception": fault}
                    )
        finally:
            if not self.in_flight:
                EVENT_LOOP.calls_end(self._calls)
        self._moved.set()


class _Host:
    """The threads of one host, which live as long as they do, and it as long as one of them.

    A thread that is held by a call keeps its own :class:`CallThread` alive.
    """

    __slots__ = ("__weakref__", "threads")

    def __init__(self) -> None:
        self.threads: WeakSet[CallThread] = WeakSet()


_HOSTS: Final[WeakValueDictionary[str, _Host]] = WeakValueDictionary()
_HOSTS_LOCK: Final = threading.Lock()


def _add_to_host(host: str, thread: CallThread) -> _Host:
    with _HOSTS_LOCK:
        of_host = _HOSTS.get(host)
        if of_host is None:
            of_host = _HOSTS[host] = _Host()
        of_host.threads.add(thread)
        return of_host


def held_threads(host: str) -> int:
    """How many threads of this host are in a call that nobody waits for any more; on any loop."""
    with _HOSTS_LOCK:
        of_host = _HOSTS.get(host)
        threads = [] if of_host is None else list(of_host.threads)
    return sum(thread.held for thread in threads)
