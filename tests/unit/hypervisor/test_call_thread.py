"""Calls in a thread: deadlines, order, late results and ends, with functions that block."""

import asyncio
import gc
import socket
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial

import libvirt
import pytest

from asynchost.hypervisor import call_thread
from asynchost.hypervisor.call_thread import (
    Call,
    CallThread,
    ThreadClosedError,
    ThreadNotStartedError,
    held_threads,
)
from asynchost.hypervisor.event_loop import EVENT_LOOP
from tests.support.waiting import eventually, eventually_equal

DEADLINE_SECONDS = 20.0
"""Longer than any call here takes, however busy the machine is."""


class Gate:
    """A blocking call that returns once it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.thread: threading.Thread | None = None

    def __call__(self) -> str:
        self.thread = threading.current_thread()
        self.entered.set()
        if not self.opened.wait(DEADLINE_SECONDS):
            raise AssertionError("nobody opened the gate")
        return "the result"


MakeGate = Callable[[], Gate]


@pytest.fixture
def gate() -> Iterator[MakeGate]:
    """Make gates, all of which are open after the test."""
    gates: list[Gate] = []

    def make() -> Gate:
        gates.append(Gate())
        return gates[-1]

    yield make
    for one in gates:
        one.opened.set()


@pytest.fixture
async def thread(gate: MakeGate) -> AsyncIterator[CallThread]:
    """A thread that has ended after the test, once the gates are open."""
    thread = CallThread("test")
    yield thread
    await thread.aclose(grace_seconds=0)


class Watched:
    """A connection's socket, as the event loop knows it from the calls of a thread."""

    def __init__(self) -> None:
        self._ours, self.libvirtd = socket.socketpair()
        self._ours.setblocking(False)
        self._number: int | None = None
        self.heard = 0

    def ask(self) -> None:
        """What libvirt does at each call; the first one opens the connection."""
        if self._number is None:
            self._number = EVENT_LOOP._add_handle(
                self._ours.fileno(), libvirt.VIR_EVENT_HANDLE_READABLE, self._hear, None
            )
        EVENT_LOOP._update_handle(self._number, 0)
        EVENT_LOOP._update_handle(self._number, libvirt.VIR_EVENT_HANDLE_READABLE)

    def _hear(self, *_: object) -> None:
        self.heard += 1
        self._ours.recv(4096)

    def forget(self) -> None:
        """Have it watched no more."""
        assert self._number is not None
        EVENT_LOOP._remove_handle(self._number)

    def close(self) -> None:
        """Close it, once nobody watches it."""
        self._ours.close()
        self.libvirtd.close()


@pytest.fixture
async def watched(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    """A socket that the test's loop watches."""
    monkeypatch.setattr(libvirt, "virEventInvokeFreeCallback", lambda _: None)
    loop = asyncio.get_running_loop()
    EVENT_LOOP.attach(loop)
    watched = Watched()
    yield watched
    watched.forget()
    EVENT_LOOP.detach(loop)
    watched.close()


def threads_alive() -> int:
    """How many threads of the kind under test there are."""
    return sum(one.name == "asynchost-test" for one in threading.enumerate())


def abandoned(thread: CallThread) -> int:
    """How many calls are in flight that nobody waits for."""
    return sum(call.abandoned for call in thread.in_flight)


def ignore(_: Call) -> None:
    """Nobody waits for the call."""


async def given_up(thread: CallThread, run: Callable[[], object], entered: threading.Event) -> None:
    """Make a call that does not come back in time, though it has begun."""
    waiting = asyncio.create_task(thread.call(run, 0.02))
    await asyncio.sleep(0)
    # The loop stands still until then, and with it the deadline.
    assert entered.wait(DEADLINE_SECONDS)
    with pytest.raises(TimeoutError):
        await waiting


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    """Whatever a test did: with its gates open, every thread ends."""
    yield
    for one in threading.enumerate():
        if one.name == "asynchost-test":
            one.join(DEADLINE_SECONDS)
    assert threads_alive() == 0


# -- one call -------------------------------------------------------------------------------------


async def test_a_call_runs_in_a_daemon_thread_and_returns_its_result(
    thread: CallThread, gate: MakeGate
) -> None:
    """The loop goes on meanwhile, and the process could end."""
    call = gate()
    assert threads_alive() == 0
    task = asyncio.create_task(thread.call(call, DEADLINE_SECONDS))
    await eventually(call.entered.is_set)
    assert call.thread is not None
    assert call.thread.daemon
    assert call.thread is not threading.current_thread()
    call.opened.set()
    assert await task == "the result"
    assert thread.in_flight == set()


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
async def test_what_a_call_raises_is_handed_over(thread: CallThread, error: BaseException) -> None:
    """Also what would otherwise end a thread in silence."""
    told = asyncio.Event()

    def fail() -> None:
        raise error

    call = Call(fail, lambda _: told.set())
    thread.submit(call)
    await told.wait()
    assert call.error is error
    assert await thread.call(lambda: "goes on", DEADLINE_SECONDS) == "goes on"


async def test_an_error_reaches_who_waits(thread: CallThread) -> None:
    """As it was raised."""
    with pytest.raises(ZeroDivisionError):
        await thread.call(lambda: 1 // 0, DEADLINE_SECONDS)


async def test_a_call_that_outlives_its_deadline_is_abandoned(
    thread: CallThread, gate: MakeGate
) -> None:
    """It stays in flight for as long as it holds its thread."""
    call = gate()
    await given_up(thread, call, call.entered)
    assert (abandoned(thread), len(thread.in_flight)) == (1, 1)
    call.opened.set()
    await eventually_equal(lambda: (abandoned(thread), len(thread.in_flight)), (0, 0))


async def test_a_loop_that_stood_still_gives_up_no_call(thread: CallThread, gate: MakeGate) -> None:
    """Its deadline passed meanwhile: an answer that is there counts, one that is due may come."""
    held = gate()
    answered = asyncio.create_task(thread.call(lambda: "there", 0.1))
    due = asyncio.create_task(thread.call(held, 0.1))
    await asyncio.sleep(0)
    time.sleep(1.0)  # noqa: ASYNC251 - the fault under test
    assert await answered == "there"
    # Both deadlines have been seen to have passed by now.
    held.opened.set()
    await due
    assert abandoned(thread) == 0


async def test_a_cancelled_call_is_abandoned(thread: CallThread, gate: MakeGate) -> None:
    """Cancelling is at once; the thread stays in the call until that returns."""
    call = gate()
    task = asyncio.create_task(thread.call(call, DEADLINE_SECONDS))
    await eventually(call.entered.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert abandoned(thread) == 1
    assert not call.opened.is_set()


async def test_a_call_that_must_run_is_made_though_nobody_waits(
    thread: CallThread, gate: MakeGate
) -> None:
    """Closing a connection behind a listing that hangs: given up, and done in the end."""
    first, second = gate(), gate()
    thread.submit(Call(first, ignore))
    with pytest.raises(TimeoutError):
        await thread.call(second, 0, must_run=True)
    thread.close()
    first.opened.set()
    await eventually(second.entered.is_set)


async def test_a_result_is_not_kept(thread: CallThread) -> None:
    """A virDomain that outlived its read would keep its connection open."""

    class Result:
        """Something that can be watched going away."""

    kept = weakref.ref(await thread.call(Result, DEADLINE_SECONDS))
    await eventually(lambda: kept() is None)


async def test_a_result_that_comes_too_late_is_not_kept(thread: CallThread) -> None:
    """Nor one that a cancellation overtakes: it has come back, and nobody has taken it yet."""

    class Result:
        """Something that can be watched going away."""

    kept: list[weakref.ref[Result]] = []
    entered, opened = threading.Event(), threading.Event()

    def late() -> Result:
        entered.set()
        opened.wait(DEADLINE_SECONDS)
        result = Result()
        kept.append(weakref.ref(result))
        return result

    await given_up(thread, late, entered)
    opened.set()
    await eventually(lambda: not thread.in_flight)
    task = asyncio.create_task(thread.call(late, DEADLINE_SECONDS))
    await asyncio.sleep(0)
    (call,) = thread.in_flight
    tell = call._on_done

    def tell_and_cancel(call: Call) -> None:
        tell(call)
        task.cancel()

    call._on_done = tell_and_cancel
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: [one() for one in kept] == [None, None])


# -- many calls -----------------------------------------------------------------------------------


async def test_an_abandoned_call_still_holds_the_thread(thread: CallThread, gate: MakeGate) -> None:
    """One call at a time on one connection; what waited behind it in vain is never made.

    Nor does it pile up: however many come while it hangs, none is queued.
    """
    first = gate()
    await given_up(thread, first, first.entered)
    second = gate()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await thread.call(second, 0.02)
    assert (len(thread.in_flight), abandoned(thread)) == (1, 1)
    first.opened.set()
    await eventually_equal(lambda: len(thread.in_flight), 0)
    assert not second.entered.is_set()
    assert await thread.call(lambda: "well again", DEADLINE_SECONDS) == "well again"


async def test_a_call_that_waits_for_a_given_up_one_is_made_when_that_returns(
    thread: CallThread, gate: MakeGate
) -> None:
    """Or is told that the thread was closed meanwhile."""
    first = gate()
    await given_up(thread, first, first.entered)
    waiting = asyncio.create_task(thread.call(lambda: "made", DEADLINE_SECONDS))
    await asyncio.sleep(0)
    first.opened.set()
    assert await waiting == "made"
    second = gate()
    await given_up(thread, second, second.entered)
    waiting = asyncio.create_task(thread.call(lambda: "made", DEADLINE_SECONDS))
    await asyncio.sleep(0)
    thread.close()
    with pytest.raises(ThreadClosedError):
        await waiting


class NoThreads:
    """A system that starts no thread for a while."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused = 0
        self.recovered = False
        start = threading.Thread.start

        def starts(thread: threading.Thread) -> None:
            if not self.recovered:
                self.refused += 1
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", starts)


async def test_a_thread_that_cannot_be_started_is_started_for_the_next_call(
    thread: CallThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call that it was wanted for fails at once and leaves nothing behind."""
    system = NoThreads(monkeypatch)
    with pytest.raises(ThreadNotStartedError, match="can't start new thread"):
        await thread.call(lambda: 42, DEADLINE_SECONDS)
    assert not thread.in_flight
    system.recovered = True
    assert await thread.call(lambda: 42, DEADLINE_SECONDS) == 42


async def test_a_call_that_must_run_waits_for_a_thread(
    thread: CallThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As closing a connection must: starting is tried again until there is one."""
    monkeypatch.setattr(call_thread, "_START_AGAIN_SECONDS", 0.01)
    system = NoThreads(monkeypatch)
    made = threading.Event()
    thread.submit(Call(made.set, ignore, must_run=True))
    thread.close()
    await eventually(lambda: system.refused >= 3)
    system.recovered = True
    await eventually(made.is_set)
    assert await thread.aclose()


async def test_a_call_whose_end_surprises_keeps_no_other_from_being_told(
    thread: CallThread,
) -> None:
    """It goes to the loop's exception handler."""
    faults: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    told: list[Call] = []

    def raises(_: Call) -> None:
        raise ValueError("odd")

    both = threading.Event()
    thread.submit(Call(lambda: both.wait(DEADLINE_SECONDS), raises))
    thread.submit(Call(lambda: None, told.append))
    both.set()
    await eventually(lambda: told)
    assert [str(fault["exception"]) for fault in faults] == ["odd"]
    assert not thread.in_flight


async def test_hosts_that_are_gone_leave_nothing_behind() -> None:
    """A program may watch other hosts every day."""
    before = set(call_thread._HOSTS)
    for number in range(10):
        thread = CallThread("test", f"host{number}")
        await thread.call(lambda: None, DEADLINE_SECONDS)
        assert await thread.aclose()
    del thread
    gc.collect()
    assert set(call_thread._HOSTS) <= before


async def test_closing_many_holds_the_loop_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread is joined on the loop: others have their turn between any two looks."""
    threads = [CallThread("test") for _ in range(10)]
    for thread in threads:
        await thread.call(lambda: None, DEADLINE_SECONDS)

    def join(_: threading.Thread, _timeout: float | None = None) -> None:
        raise AssertionError("the loop stood still for it")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "join", join)
        assert all(await asyncio.gather(*(thread.aclose() for thread in threads)))
    assert threads_alive() == 0


async def test_calls_are_made_one_after_another_in_their_order(thread: CallThread) -> None:
    """First come, first served."""
    made = list[int]()
    for number in range(50):
        thread.submit(Call(partial(made.append, number), ignore))
    assert threads_alive() == 1
    await eventually_equal(lambda: made, list(range(50)))


async def test_many_results_are_told_by_one_wake_up(
    thread: CallThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storm of short calls does not cost the loop a wake-up each."""
    loop, wakeups = asyncio.get_running_loop(), list[object]()
    wake = loop.call_soon_threadsafe

    def count(callback: Callable[..., object], *arguments: object) -> asyncio.Handle:
        wakeups.append(callback)
        return wake(callback, *arguments)

    monkeypatch.setattr(loop, "call_soon_threadsafe", count)
    ended, told = threading.Semaphore(0), list[Call]()
    for _ in range(20):
        thread.submit(Call(ended.release, told.append))
    # The loop stands still meanwhile, as it does while it works on something else.
    for _ in range(20):
        assert ended.acquire(timeout=DEADLINE_SECONDS)
    await eventually_equal(lambda: len(told), 20)
    # The last results may come after the loop has gone on.
    assert len(wakeups) <= 2


async def test_the_loop_keeps_out_of_what_calls_go_through_until_the_last_one(
    thread: CallThread, gate: MakeGate, watched: Watched
) -> None:
    """The thread reads the answers itself; what comes after them is the loop's."""
    first, second = gate(), gate()
    await thread.call(watched.ask, DEADLINE_SECONDS)
    for call in (first, second):
        thread.submit(Call(call, ignore))
    watched.libvirtd.send(b"event")
    await eventually(first.entered.is_set)
    first.opened.set()
    await eventually(second.entered.is_set)
    assert watched.heard == 0
    second.opened.set()
    await eventually(lambda: watched.heard)


async def test_a_listeners_error_leaves_the_loop_listening(
    thread: CallThread, watched: Watched
) -> None:
    """A connection does not go deaf by it."""
    loop, failures = asyncio.get_running_loop(), list[dict[str, object]]()
    loop.set_exception_handler(lambda _, context: failures.append(context))
    await thread.call(watched.ask, DEADLINE_SECONDS)

    def fail(_: Call) -> None:
        raise ValueError("a listener's fault")

    thread.submit(Call(watched.ask, fail))
    await eventually(lambda: failures)
    watched.libvirtd.send(b"event")
    await eventually(lambda: watched.heard)


async def test_an_error_of_one_listener_does_not_lose_the_wake_up(thread: CallThread) -> None:
    """A later result is still told."""
    told = list[Call]()
    loop, failures = asyncio.get_running_loop(), list[dict[str, object]]()
    loop.set_exception_handler(lambda _, context: failures.append(context))

    def fail(_: Call) -> None:
        raise ValueError("a listener's fault")

    thread.submit(Call(lambda: None, fail))
    await eventually(lambda: failures)
    thread.submit(Call(lambda: None, told.append))
    await eventually(lambda: told)


# -- the ends -------------------------------------------------------------------------------------


async def test_an_idle_thread_ends_and_comes_back(
    thread: CallThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand idle hosts do not hold a thousand threads."""
    monkeypatch.setattr(call_thread, "_IDLE_SECONDS", 0.01)
    for _ in range(3):
        assert await thread.call(lambda: 1, DEADLINE_SECONDS) == 1
        await eventually_equal(threads_alive, 0)


async def test_closing_ends_the_thread(thread: CallThread) -> None:
    """An idle one at once; a call afterwards is an error of the caller."""
    await thread.call(lambda: None, DEADLINE_SECONDS)
    assert await thread.aclose()
    assert threads_alive() == 0
    thread.close()
    with pytest.raises(ThreadClosedError):
        await thread.call(lambda: None, DEADLINE_SECONDS)
    assert await thread.aclose()


async def test_closing_what_was_never_used_is_nothing(thread: CallThread) -> None:
    """No thread was started for it."""
    assert await thread.aclose()


async def test_closing_waits_for_a_call_that_returns_in_time(
    thread: CallThread, gate: MakeGate
) -> None:
    """Its result is told; what had not begun is never made."""
    first, second, told = gate(), gate(), list[Call]()
    thread.submit(Call(first, told.append))
    thread.submit(Call(second, told.append))
    await eventually(first.entered.is_set)
    closing = asyncio.create_task(thread.aclose(DEADLINE_SECONDS))
    await asyncio.sleep(0)
    first.opened.set()
    assert await closing
    assert told[0].result == "the result"
    assert not second.entered.is_set()
    assert threads_alive() == 0


async def test_a_call_that_closing_keeps_from_being_made_is_an_error(
    thread: CallThread, gate: MakeGate
) -> None:
    """Whoever waits for it is told, and does not take nothing for a result."""
    first = gate()
    thread.submit(Call(first, ignore))
    await eventually(first.entered.is_set)
    waiting = asyncio.create_task(thread.call(lambda: "the result", DEADLINE_SECONDS))
    await asyncio.sleep(0)
    thread.close()
    first.opened.set()
    with pytest.raises(ThreadClosedError):
        await waiting


async def test_a_thread_held_past_the_grace_time_is_let_go(
    thread: CallThread, gate: MakeGate
) -> None:
    """It is a daemon, so it never delays the process's exit, and it ends with its call."""
    call = gate()
    thread.submit(Call(call, ignore))
    await eventually(call.entered.is_set)
    assert not await thread.aclose(grace_seconds=0.02)
    assert call.thread is not None
    assert call.thread.is_alive()
    assert call.thread.daemon
    call.opened.set()
    await eventually_equal(threads_alive, 0)


async def test_closing_says_that_a_call_that_must_run_has_not_run_yet(
    thread: CallThread, gate: MakeGate
) -> None:
    """The thread has not ended: it goes on to that call when the one that holds it returns."""
    first, second = gate(), gate()
    await given_up(thread, first, first.entered)
    thread.submit(Call(second, ignore, must_run=True))
    assert not await thread.aclose(grace_seconds=0)
    first.opened.set()
    await eventually(second.entered.is_set)


async def test_closing_does_not_wait_for_an_abandoned_call(
    thread: CallThread, gate: MakeGate
) -> None:
    """It had its time already."""
    call = gate()
    await given_up(thread, call, call.entered)
    async with asyncio.timeout(DEADLINE_SECONDS / 2):
        assert not await thread.aclose(grace_seconds=DEADLINE_SECONDS)


async def test_cancelling_the_close_still_ends_the_thread(
    thread: CallThread, gate: MakeGate
) -> None:
    """The order to end is given before the wait."""
    call = gate()
    thread.submit(Call(call, ignore))
    await eventually(call.entered.is_set)
    closing = asyncio.create_task(thread.aclose(DEADLINE_SECONDS))
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    call.opened.set()
    await eventually_equal(threads_alive, 0)


def test_a_loop_that_closes_early_is_no_error_in_the_thread(
    gate: MakeGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is left to be told; an exception in a thread would fail this test."""
    monkeypatch.setattr(call_thread, "_IDLE_SECONDS", 0.01)
    call = gate()

    async def submit_and_leave() -> None:
        CallThread("test").submit(Call(call, ignore))
        await eventually(call.entered.is_set)

    asyncio.run(submit_and_leave())
    call.opened.set()
    assert call.thread is not None
    call.thread.join(DEADLINE_SECONDS)
    assert not call.thread.is_alive()


async def test_threads_that_nobody_waits_for_are_counted_by_host(gate: MakeGate) -> None:
    """Those of a host; not one that is closing in good order."""
    held, other = CallThread("test", "held"), CallThread("test", "other")
    hangs, farewell = gate(), gate()
    call = Call(hangs, ignore)
    held.submit(call)
    other.submit(Call(farewell, ignore, must_run=True))
    other.close()
    for one in (hangs, farewell):
        await eventually(one.entered.is_set)
    assert (held_threads("held"), held_threads("other")) == (0, 0)
    held.abandon(call)
    assert (held_threads("held"), held_threads("other")) == (1, 0)
    for one in (hangs, farewell):
        one.opened.set()
    await eventually_equal(lambda: held_threads("held"), 0)
    for thread in (held, other):
        await thread.aclose()
