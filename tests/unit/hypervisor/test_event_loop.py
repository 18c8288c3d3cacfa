"""libvirt's event loop on asyncio's: woken from any thread, never deaf, free at the right time.

Each test makes an instance of its own and calls its entry points as libvirt does, with real
sockets; none is registered, which a process can do only once. All of it holds on asyncio's own
loop, in asyncio's debug mode and on uvloop.
"""

import asyncio
import os
import selectors
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

import libvirt
import pytest

from asynchost.hypervisor.event_loop import LibvirtEventLoop
from asynchost.hypervisor.loop_server import SPURIOUS_WAKEUPS_ENDURED, Calls
from tests.support.waiting import eventually

try:
    from uvloop import new_event_loop as new_uvloop
except ImportError:
    new_uvloop = None  # type: ignore[assignment]

READABLE = libvirt.VIR_EVENT_HANDLE_READABLE
WRITABLE = libvirt.VIR_EVENT_HANDLE_WRITABLE

DEADLINE_SECONDS = 10.0
"""Nobody polls here: a wake-up that is missed shows as a wait of this length, which fails."""
LONG = 3_600_000
"""A timer's interval, in milliseconds, that no test lives to see."""


# -- the loops ------------------------------------------------------------------------------------
def debugging_loop() -> asyncio.AbstractEventLoop:
    """asyncio's loop as many test set-ups run it: it raises where a thread must not touch it."""
    loop = asyncio.SelectorEventLoop()
    loop.set_debug(True)
    return loop


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "debug": debugging_loop,
}
"""Where each asynchronous test here runs: ``conftest.py`` looks for this name."""
if new_uvloop is not None:
    LOOPS["uvloop"] = new_uvloop


Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine on a loop of its own, as ``asyncio.run`` does."""

    def run(work: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(work)

    return run


@pytest.fixture
def libvirt_loop(freed: "Freed") -> LibvirtEventLoop:
    """An event loop implementation that nobody serves yet."""
    return LibvirtEventLoop()


Sockets = tuple[socket.socket, socket.socket]


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    """Two connected sockets: libvirt's, and libvirtd's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


@pytest.fixture
async def served(
    libvirt_loop: LibvirtEventLoop, sockets: Sockets
) -> AsyncIterator[LibvirtEventLoop]:
    """One that the test's loop serves, and leaves before the sockets are closed."""
    loop = asyncio.get_running_loop()
    libvirt_loop.attach(loop)
    yield libvirt_loop
    libvirt_loop.detach(loop)


# -- what libvirt does ----------------------------------------------------------------------------


class Freed:
    """What was given back to libvirt to be freed, and in which threads."""

    def __init__(self) -> None:
        self.opaques: list[object] = []
        self.threads: list[int] = []
        self.forbidden = False
        self._new = threading.Event()

    def __call__(self, opaque: object) -> None:
        assert not self.forbidden, "freed while libvirt holds its locks"
        self.opaques.append(opaque)
        self.threads.append(threading.get_ident())
        self._new.set()

    def wait(self) -> None:
        """Until something is freed, in whichever thread."""
        assert self._new.wait(DEADLINE_SECONDS)


@pytest.fixture
def freed(monkeypatch: pytest.MonkeyPatch) -> Freed:
    """In place of libvirt's own way, which takes its own objects only."""
    freed = Freed()
    monkeypatch.setattr(libvirt, "virEventInvokeFreeCallback", freed)
    return freed


class Heard:
    """A callback of libvirt's: notes what it is told, and takes the bytes that there are."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.threads: set[int] = set()
        self.times: list[float] = []
        self.data = b""
        self.then: Callable[[], object] = lambda: None
        self._new = asyncio.Event()
        self._waiting: tuple[asyncio.AbstractEventLoop, int] | None = None

    def __call__(self, *told: Any) -> None:
        self.calls.append(told)
        self.threads.add(threading.get_ident())
        self.times.append(monotonic())
        if len(told) == 4 and told[2] & READABLE:
            self.data += take(told[1])
        if self._waiting is None or self._waiting[1] == threading.get_ident():
            self._new.set()
        else:
            self._waiting[0].call_soon_threadsafe(self._new.set)
        self.then()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until what was told makes the condition true, without ever waking the loop."""
        self._waiting = asyncio.get_running_loop(), threading.get_ident()
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():
                self._new.clear()
                await self._new.wait()

    async def times_called(self, number: int) -> None:
        """Wait for so many calls."""
        await self.until(lambda: len(self.calls) >= number)

    async def received(self, data: bytes) -> None:
        """Wait for exactly these bytes in all."""
        await self.until(lambda: self.data == data)


class Relay:
    """A callback that outlives the loops, and passes on to the one that hears at the moment."""

    def __init__(self) -> None:
        self.heard = Heard()

    def __call__(self, *told: Any) -> None:
        self.heard(*told)


def take(fd: int) -> bytes:
    """What can be read now."""
    try:
        return os.read(fd, 4096)
    except BlockingIOError:
        return b""


def elsewhere(*steps: Callable[[], object]) -> None:
    """Take the steps in another thread, and wait for it; the loop stands still meanwhile."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for step in steps:
                step()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()
    assert not failures


def while_asleep(step: Callable[[], object]) -> None:
    """Take the step in another thread once the loop has most likely fallen asleep.

    If it has not, the test proves less, and does not fail.
    """
    threading.Timer(0.02, step).start()


def woken(served: LibvirtEventLoop) -> bool:
    """Whether anything is to be done on a loop."""
    return any(server.wakeup_scheduled for server in served._servers.values())


async def outlast(served: LibvirtEventLoop, milliseconds: int) -> None:
    """Wait until a timer that is armed now has fired: one due before it would have, too."""
    ticks = Heard()
    timer = served._add_timeout(milliseconds, ticks, None)
    await ticks.times_called(1)
    served._remove_timeout(timer)


async def rounds(number: int = 5) -> None:
    """Let the loop look at its descriptors a few times."""
    for _ in range(number):
        await asyncio.sleep(0)


# -- handles --------------------------------------------------------------------------------------


async def test_a_readable_descriptor_is_told_on_the_loops_thread(
    served: LibvirtEventLoop, sockets: Sockets
) -> None:
    """With its watch, its number, what it is, and libvirt's own word."""
    ours, theirs = sockets
    heard = Heard()
    watch = served._add_handle(ours.fileno(), READABLE, heard, "opaque")
    theirs.send(b"event")
    await heard.received(b"event")
    assert heard.calls[0] == (watch, ours.fileno(), READABLE, "opaque")
    assert heard.threads == {threading.get_ident()}


class Messages:
    """A callback of libvirt's that reads one message of eight bytes and arms a timer for it."""

    def __init__(self, served: LibvirtEventLoop) -> None:
        self._served = served
        self._timer = served._add_timeout(-1, self._handed_out, None)
        self.read = 0
        self.handed_out: list[int] = []
        """How many had been read at each time that the timer fired."""

    def __call__(self, watch: int, fd: int, _events: int, _opaque: object) -> None:
        with suppress(BlockingIOError):
            os.read(fd, 8)
            self.read += 1
            self._served._update_timeout(self._timer, 0)

    def _handed_out(self, timer: int, _opaque: object) -> None:
        self._served._update_timeout(timer, -1)
        self.handed_out.append(self.read)


async def test_what_has_come_is_read_in_one_go(served: LibvirtEventLoop, sockets: Sockets) -> None:
    """One call reads one message; what libvirt does about them is done once for all."""
    ours, theirs = sockets
    theirs.send(20 * b"an event")
    messages = Messages(served)
    served._add_handle(ours.fileno(), READABLE, messages, None)
    await eventually(lambda: messages.read == 20)
    assert messages.handed_out == [20]


async def test_no_more_is_read_in_one_go_than_the_loop_can_bear(
    served: LibvirtEventLoop, sockets: Sockets
) -> None:
    """However much has come: the next round reads on."""
    ours, theirs = sockets
    theirs.send(80 * b"an event")
    messages = Messages(served)
    served._add_handle(ours.fileno(), READABLE, messages, None)
    await eventually(lambda: messages.read == 80)
    assert messages.handed_out == [32, 64, 80]


async def test_what_is_not_wanted_any_more_is_not_read_on(
    served: LibvirtEventLoop, sockets: Sockets
) -> None:
    """As when the first message ends the connection."""
    ours, theirs = sockets
    heard = Heard()
    heard.then = lambda: served._remove_handle(watch)
    watch = served._add_handle(ours.fileno(), READABLE, heard, None)
    theirs.send(3 * 4096 * b".")
    await heard.times_called(1)
    await rounds()
    assert len(heard.calls) == 1


async def test_a_writable_descriptor_is_told(served: LibvirtEventLoop, sockets: Sockets) -> None:
    """Again and again, until it is wanted no more; reading is another matter."""
    ours, theirs = sockets
    heard = Heard()
    watch = served._add_handle(ours.fileno(), READABLE | WRITABLE, heard, None)
    await heard.times_called(2)
    assert {call[2] for call in heard.calls} == {WRITABLE}
    served._update_handle(watch, READABLE)
    heard.calls.clear()
    await rounds()
    assert heard.calls == []
    theirs.send(b"event")
    await heard.received(b"event")
    served._update_handle(watch, WRITABLE)
    theirs.send(b"more")
    heard.calls.clear()
    await heard.times_called(3)
    assert {call[2] for call in heard.calls} == {WRITABLE}


async def test_a_handle_added_by_another_thread_wakes_the_loop(
    served: LibvirtEventLoop, sockets: Sockets
) -> None:
    """Connections are opened in threads."""
    ours, theirs = sockets
    heard = Heard()
    theirs.send(b"event")
    while_asleep(lambda: served._add_handle(ours.fileno(), READABLE, heard, None))
    await heard.received(b"event")
    assert heard.threads == {threading.get_ident()}


async def test_what_another_thread_wants_more_wakes_the_loop(
    served: LibvirtEventLoop, sockets: Sockets
) -> None:
    """A call that has something to send while the socket is full."""
    ours, _ = sockets
    heard = Heard()
    watch = served._add_handle(ours.fileno(), READABLE, heard, None)
    await rounds()
    while_asleep(lambda: served._update_handle(watch, READABLE | WRITABLE))
    await heard.times_called(1)
    assert heard.calls[0][2] == WRITABLE


async def test_disabled_by_another_thread_nothing_is_told(
    served: LibvirtEventLoop, sockets: Sockets
) -> None:
    """The bytes are that thread's, which reads the answer to its call; then all is as before."""
    ours, theirs = sockets
    heard = Heard()
    watch = served._add_handle(ours.fileno(), READABLE, heard, None)
    await rounds()
    elsewhere(lambda: served._update_handle(watch, 0), lambda: theirs.send(b"answer"))
    await rounds(2)
    assert heard.calls == []
    answers: list[bytes] = []
    elsewhere(
        lambda: answers.append(take(ours.fileno())),
        lambda: served._update_handle(watch, READABLE),
    )
    theirs.send(b"event")
    await heard.received(b"event")
    assert answers == [b"answer"]


async def test_calls_do_not_wake_the_loop(served: LibvirtEventLoop, sockets: Sockets) -> None:
    """Off and on again for each call is lazy: the reader stays in, and nothing is to be done."""
    ours, theirs = sockets
    heard = Heard()
    watch = served._add_handle(ours.fileno(), READABLE, heard, None)
    await rounds()
    for _ in range(100):
        elsewhere(
            lambda: served._update_handle(watch, 0),
            lambda: served._update_handle(watch, READABLE),
        )
        assert not woken(served)
    theirs.send(b"event")
    await heard.received(b"event")


async def test_while_a_thread_makes_its_calls_the_loop_keeps_out(
    served: LibvirtEventLoop, sockets: Sockets
) -> None:
    """What comes between two of them is the next one's to read; what is left, the loop's."""
    ours, theirs = sockets
    heard, calls, loop = Heard(), Calls(), asyncio.get_running_loop()
    watch = served._add_handle(ours.fileno(), READABLE, heard, None)
    await rounds()
    answers: list[bytes] = []

    def call() -> None:
        served.serve_this_thread_from(loop, calls)
        served._update_handle(watch, 0)
        answers.append(take(ours.fileno()))
        served._update_handle(watch, READABLE)

    elsewhere(call)  # by the first one it is known what they go through
    for data in (b"first", b"second"):
        served.calls_begin(calls)
        served.calls_begin(calls)
        elsewhere(call)
        theirs.send(data)
        await rounds()
        assert not loop.remove_reader(ours.fileno())
        elsewhere(call)
        assert not woken(served)
        theirs.send(b"left")
        served.calls_end(calls)
        await heard.received(b"left")
        heard.data = b""
    assert answers == [b"", b"", b"first", b"", b"second"]


async def test_what_is_opened_by_a_call_is_watched_after_the_last_one(
    served: LibvirtEventLoop, sockets: Sockets
) -> None:
    """The answers to the first calls of a connection are its thread's to read."""
    ours, theirs = sockets
    heard, calls, loop = Heard(), Calls(), asyncio.get_running_loop()
    served.calls_begin(calls)
    elsewhere(
        lambda: served.serve_this_thread_from(loop, calls),
        lambda: served._add_handle(ours.fileno(), READABLE, heard, None),
    )
    theirs.send(b"event")
    await rounds()
    assert heard.calls == []
    served.calls_end(calls)
    await heard.received(b"event")


async def test_what_was_removed_is_not_watched_after_the_last_call(
    served: LibvirtEventLoop, sockets: Sockets
) -> None:
    """Another descriptor may have its number by then."""
    ours, _ = sockets
    calls, loop = Calls(), asyncio.get_running_loop()
    served.calls_begin(calls)
    elsewhere(
        lambda: served.serve_this_thread_from(loop, calls),
        lambda: served._remove_handle(served._add_handle(ours.fileno(), READABLE, Heard(), None)),
    )
    served.calls_end(calls)
    await rounds()
    assert calls.handles == set()
    assert not loop.remove_reader(ours.fileno())


async def test_a_few_spurious_wake_ups_are_endured(
    served: LibvirtEventLoop, sockets: Sockets
) -> None:
    """The answers of many calls in a row are seen before their threads have read them."""
    ours, theirs = sockets
    heard = Heard()
    watch = served._add_handle(ours.fileno(), READABLE, heard, None)
    await rounds()
    for _ in range(20):
        elsewhere(lambda: served._update_handle(watch, 0))
        theirs.send(b"answer")
        await rounds(SPURIOUS_WAKEUPS_ENDURED // 2)
        elsewhere(lambda: take(ours.fileno()), lambda: served._update_handle(watch, READABLE))
        assert not woken(served)
    assert heard.calls == []


async def test_a_disabled_reader_is_taken_out_after_spurious_wake_ups(
    served: LibvirtEventLoop, sockets: Sockets
) -> None:
    """A thread that leaves bytes unread does not keep the loop busy; enabling puts it back."""
    ours, theirs = sockets
    heard, loop = Heard(), asyncio.get_running_loop()
    watch = served._add_handle(ours.fileno(), READABLE, heard, None)
    await rounds()
    elsewhere(lambda: served._update_handle(watch, 0))
    theirs.send(b"answer")
    await rounds(2 * SPURIOUS_WAKEUPS_ENDURED + 4)
    assert heard.calls == []
    assert not loop.remove_reader(ours.fileno())
    while_asleep(lambda: served._update_handle(watch, READABLE))
    await heard.received(b"answer")


async def test_disabling_before_the_reader_is_in_keeps_it_out(
    served: LibvirtEventLoop, sockets: Sockets
) -> None:
    """What is wanted at the time counts, not what was wanted when the loop was woken."""
    ours, theirs = sockets
    heard, loop = Heard(), asyncio.get_running_loop()

    def add_and_disable() -> None:
        served._update_handle(served._add_handle(ours.fileno(), READABLE, heard, None), 0)

    elsewhere(add_and_disable)
    theirs.send(b"event")
    await rounds()
    assert heard.calls == []
    assert not loop.remove_reader(ours.fileno())


async def test_a_removed_handle_is_freed_later_and_once(
    served: LibvirtEventLoop, sockets: Sockets, freed: Freed
) -> None:
    """Whoever removes holds libvirt's locks, so never inside, and only once the reader is gone."""
    ours, theirs = sockets
    heard, loop = Heard(), asyncio.get_running_loop()
    watch = served._add_handle(ours.fileno(), READABLE, heard, "opaque")
    await rounds()
    theirs.send(b"event")
    freed.forbidden = True
    assert served._remove_handle(watch) == 0
    assert served._remove_handle(watch) == -1
    freed.forbidden = False
    await rounds()
    assert freed.opaques == ["opaque"]
    assert freed.threads == [threading.get_ident()]
    assert heard.calls == []
    assert not loop.remove_reader(ours.fileno())


async def test_a_handle_removed_by_another_thread_is_freed_on_the_loops(
    served: LibvirtEventLoop, sockets: Sockets, freed: Freed
) -> None:
    """Closing is a call like any other, made in a thread."""
    ours, _ = sockets
    watch = served._add_handle(ours.fileno(), READABLE, Heard(), "opaque")
    await rounds()
    freed.forbidden = True
    elsewhere(lambda: served._remove_handle(watch))
    freed.forbidden = False
    await rounds()
    assert freed.opaques == ["opaque"]
    assert freed.threads == [threading.get_ident()]


async def test_a_handle_may_be_removed_in_its_own_callback(
    served: LibvirtEventLoop, sockets: Sockets, freed: Freed
) -> None:
    """A connection that finds its end closes itself; it is freed after the callback."""
    ours, theirs = sockets
    heard = Heard()
    watch = served._add_handle(ours.fileno(), READABLE, heard, "opaque")

    def remove() -> None:
        freed.forbidden = True
        assert served._remove_handle(watch) == 0
        freed.forbidden = False

    heard.then = remove
    theirs.close()
    await heard.times_called(1)
    await rounds()
    assert freed.opaques == ["opaque"]
    assert len(heard.calls) == 1


async def test_a_descriptors_number_can_be_used_again(
    served: LibvirtEventLoop, sockets: Sockets, freed: Freed
) -> None:
    """The next connection may get it at once, and hears its own events alone."""
    ours, theirs = sockets
    first, second = Heard(), Heard()
    watch = served._add_handle(ours.fileno(), READABLE, first, 1)
    await rounds()
    served._remove_handle(watch)
    await rounds()
    assert freed.opaques == [1]
    served._add_handle(ours.fileno(), READABLE, second, 2)
    theirs.send(b"event")
    await second.received(b"event")
    assert first.calls == []


async def test_numbers_begin_with_1_and_never_return(
    served: LibvirtEventLoop, sockets: Sockets
) -> None:
    """libvirt takes 0 for "none" in places."""
    ours, _ = sockets
    numbers = []
    for _ in range(3):
        numbers += [
            served._add_handle(ours.fileno(), 0, Heard(), None),
            served._add_timeout(-1, Heard(), None),
        ]
        served._remove_handle(numbers[-2])
        served._remove_timeout(numbers[-1])
    assert numbers == [1, 2, 3, 4, 5, 6]


async def test_what_is_not_known_is_not_touched(served: LibvirtEventLoop) -> None:
    """An update may be on its way while another thread removes."""
    served._update_handle(7, READABLE)
    served._update_timeout(7, 0)
    assert served._remove_handle(7) == -1
    assert served._remove_timeout(7) == -1


class Interleaving(selectors.DefaultSelector):
    """A selector that lets something happen after the system has told, before the loop knows."""

    def __init__(self) -> None:
        super().__init__()
        self.between: Callable[[], object] | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(timeout)
        if ready and self.between is not None:
            between, self.between = self.between, None
            elsewhere(between)
        return ready


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("wakeups_before", range(SPURIOUS_WAKEUPS_ENDURED + 2))
def test_a_call_that_ends_between_poll_and_handling_does_not_deafen(
    libvirt_loop: LibvirtEventLoop, sockets: Sockets, wakeups_before: int, debug: bool
) -> None:
    """Whatever number of spurious wake-ups came before, the next event is heard."""
    ours, theirs = sockets
    selector = Interleaving()

    async def work() -> None:
        loop = asyncio.get_running_loop()
        libvirt_loop.attach(loop)
        heard = Heard()
        watch = libvirt_loop._add_handle(ours.fileno(), READABLE, heard, None)
        await rounds()
        # A call begins, and its answer arrives.
        elsewhere(lambda: libvirt_loop._update_handle(watch, 0))
        theirs.send(b"answer")
        await rounds(wakeups_before)
        answers: list[bytes] = []

        def end_the_call() -> None:
            answers.append(take(ours.fileno()))
            libvirt_loop._update_handle(watch, READABLE)

        selector.between = end_the_call
        loop.call_soon_threadsafe(lambda: None)  # the loop's own pipe is readable as well
        await rounds()
        assert answers == [b"answer"]
        theirs.send(b"event")
        await heard.received(b"event")
        libvirt_loop.detach(loop)

    with asyncio.Runner(
        loop_factory=lambda: asyncio.SelectorEventLoop(selector), debug=debug
    ) as runner:
        runner.run(work())


# -- timers ---------------------------------------------------------------------------------------


async def test_a_timer_fires_until_it_is_disabled(served: LibvirtEventLoop) -> None:
    """At its interval, never early, on the loop's thread."""
    ticks, start = Heard(), monotonic()
    timer = served._add_timeout(10, ticks, "opaque")
    await ticks.times_called(3)
    served._update_timeout(timer, -1)
    assert ticks.calls[0] == (timer, "opaque")
    assert ticks.threads == {threading.get_ident()}
    # A millisecond each for the resolution of the loop's clock.
    assert all(at - start >= n * 0.009 for n, at in enumerate(ticks.times, 1))
    ticks.calls.clear()
    await outlast(served, 20)
    assert ticks.calls == []


async def test_a_timer_of_0_fires_in_each_round_until_it_is_disabled(
    served: LibvirtEventLoop,
) -> None:
    """That is how libvirt hands out events: it arms 0, and disarms when the queue is empty."""
    ticks = Heard()
    timer = served._add_timeout(0, ticks, None)

    def stop_at_5() -> None:
        if len(ticks.calls) == 5:
            served._update_timeout(timer, -1)

    ticks.then = stop_at_5
    await ticks.times_called(5)
    await rounds(10)
    assert len(ticks.calls) == 5
    served._update_timeout(timer, 0)
    await ticks.times_called(6)


async def test_a_timer_that_a_callback_arms_fires_in_the_same_round(
    served: LibvirtEventLoop, sockets: Sockets
) -> None:
    """libvirt reads an event in the one and hands it out in the other."""
    ours, theirs = sockets
    heard, ticks, loop = Heard(), Heard(), asyncio.get_running_loop()
    timer = served._add_timeout(-1, ticks, None)
    later: list[int] = []

    def read() -> None:
        loop.call_soon(lambda: later.append(len(ticks.calls)))
        served._update_timeout(timer, 0)

    heard.then = read
    ticks.then = lambda: served._update_timeout(timer, -1)
    served._add_handle(ours.fileno(), READABLE, heard, None)
    theirs.send(b"event")
    await heard.received(b"event")
    await eventually(lambda: later)
    assert later == [1]
    served._remove_timeout(timer)


async def test_a_timer_that_a_thread_arms_fires_as_the_loop_wakes_up(
    served: LibvirtEventLoop,
) -> None:
    """A thread that waits for an answer may read an event before it."""
    ticks, loop = Heard(), asyncio.get_running_loop()
    timer = served._add_timeout(-1, ticks, None)
    ticks.then = lambda: served._update_timeout(timer, -1)
    later: list[int] = []
    elsewhere(lambda: served._update_timeout(timer, 0))
    loop.call_soon(lambda: later.append(len(ticks.calls)))
    await eventually(lambda: later)
    assert later == [1]
    served._remove_timeout(timer)


async def test_a_disabled_timer_does_not_fire(served: LibvirtEventLoop) -> None:
    """Added with -1, it waits to be armed."""
    ticks = Heard()
    served._add_timeout(-1, ticks, None)
    await rounds()
    assert ticks.calls == []


async def test_a_timer_armed_by_another_thread_wakes_the_loop(served: LibvirtEventLoop) -> None:
    """An event that a call's thread has read is handed out at once, not at the next wake-up."""
    ticks = Heard()
    timer = served._add_timeout(-1, ticks, None)
    await rounds()
    while_asleep(lambda: served._update_timeout(timer, 0))
    await ticks.times_called(1)
    assert ticks.threads == {threading.get_ident()}


async def test_a_timer_armed_earlier_while_it_sleeps_fires_earlier(
    served: LibvirtEventLoop,
) -> None:
    """From an hour to a moment, by another thread."""
    ticks = Heard()
    timer = served._add_timeout(LONG, ticks, None)
    await rounds()
    while_asleep(lambda: served._update_timeout(timer, 5))
    await ticks.times_called(1)


async def test_a_timer_armed_later_while_it_sleeps_fires_later(served: LibvirtEventLoop) -> None:
    """A keepalive is put off by every message, and the loop is not bothered with each."""
    ticks = Heard()
    timer = served._add_timeout(20, ticks, None)
    for _ in range(100):
        put_off = monotonic()
        elsewhere(lambda: served._update_timeout(timer, 60))
        assert not woken(served)
    await ticks.times_called(1)
    assert ticks.times[0] >= put_off + 0.059


async def test_a_timer_disabled_and_armed_again_keeps_the_last_word(
    served: LibvirtEventLoop,
) -> None:
    """Neither the first interval nor the pause in between shows."""
    ticks = Heard()
    timer = served._add_timeout(10, ticks, None)
    served._update_timeout(timer, -1)
    served._update_timeout(timer, LONG)
    await outlast(served, 20)
    assert ticks.calls == []
    served._update_timeout(timer, 0)
    await ticks.times_called(1)


async def test_a_timer_may_be_armed_anew_in_its_own_callback(served: LibvirtEventLoop) -> None:
    """To another interval, which then counts."""
    ticks = Heard()
    timer = served._add_timeout(0, ticks, None)
    ticks.then = lambda: served._update_timeout(timer, LONG)
    await ticks.times_called(1)
    await rounds(10)
    assert len(ticks.calls) == 1


async def test_a_removed_timer_is_freed_later_and_once(
    served: LibvirtEventLoop, freed: Freed
) -> None:
    """It does not fire any more, however near it was."""
    ticks = Heard()
    timer = served._add_timeout(0, ticks, "opaque")
    freed.forbidden = True
    assert served._remove_timeout(timer) == 0
    assert served._remove_timeout(timer) == -1
    freed.forbidden = False
    await rounds()
    assert freed.opaques == ["opaque"]
    assert ticks.calls == []


async def test_a_timer_may_be_removed_in_its_own_callback(
    served: LibvirtEventLoop, freed: Freed
) -> None:
    """By whichever thread; it is freed after the callback."""
    ticks = Heard()
    timer = served._add_timeout(0, ticks, "opaque")

    def remove() -> None:
        freed.forbidden = True
        elsewhere(lambda: served._remove_timeout(timer))
        freed.forbidden = False

    ticks.then = remove
    await ticks.times_called(1)
    await rounds()
    assert freed.opaques == ["opaque"]
    assert len(ticks.calls) == 1


async def test_a_callback_that_raises_is_called_again(served: LibvirtEventLoop) -> None:
    """The loop is told; libvirt's timer goes on."""
    ticks, failures = Heard(), list[dict[str, Any]]()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(context))

    def fail() -> None:
        raise ValueError("a callback's fault")

    ticks.then = fail
    timer = served._add_timeout(0, ticks, None)
    await ticks.times_called(2)
    served._update_timeout(timer, -1)
    assert isinstance(failures[0]["exception"], ValueError)


async def test_many_changes_are_one_wake_up(served: LibvirtEventLoop, sockets: Sockets) -> None:
    """However many handles and timers a thread asks for at once."""
    ours, _ = sockets
    loop = asyncio.get_running_loop()
    await rounds()
    wakeups: list[Callable[..., object]] = []

    class Counting:
        """The loop, as far as it is woken."""

        def call_soon_threadsafe(self, callback: Callable[..., object]) -> object:
            wakeups.append(callback)
            return loop.call_soon_threadsafe(callback)

        def __getattr__(self, name: str) -> Any:
            return getattr(loop, name)

    server = served._servers[loop]
    server.loop = Counting()  # type: ignore[assignment]
    elsewhere(
        lambda: served._add_handle(ours.fileno(), READABLE, Heard(), None),
        *(lambda: served._add_timeout(LONG, Heard(), None) for _ in range(20)),
    )
    assert len(wakeups) == 1
    server.loop = loop
    await rounds()


# -- loops that come and go -----------------------------------------------------------------------


def test_several_loops_one_after_another_serve_the_same_handles(
    libvirt_loop: LibvirtEventLoop,
    sockets: Sockets,
    run: Run,
) -> None:
    """Each ``asyncio.run`` of a process takes over what libvirt has; detached, nothing is left."""
    ours, theirs = sockets
    relay = Relay()
    libvirt_loop._add_handle(ours.fileno(), READABLE, relay, None)
    timer = libvirt_loop._add_timeout(-1, relay, None)

    async def work() -> None:
        loop = asyncio.get_running_loop()
        heard = relay.heard = Heard()
        libvirt_loop.attach(loop)
        theirs.send(b"event")
        await heard.received(b"event")
        libvirt_loop._update_timeout(timer, 0)
        await heard.until(lambda: len(heard.calls[-1]) == 2)
        libvirt_loop._update_timeout(timer, LONG)
        libvirt_loop.detach(loop)
        assert not loop.remove_reader(ours.fileno())

    for _ in range(5):
        run(work())


def test_what_is_asked_for_while_no_loop_serves_is_remembered(
    libvirt_loop: LibvirtEventLoop,
    sockets: Sockets,
    run: Run,
) -> None:
    """Handles, timers, and their last state."""
    ours, theirs = sockets
    relay = Relay()
    watch = libvirt_loop._add_handle(ours.fileno(), 0, relay, None)
    timer = libvirt_loop._add_timeout(LONG, relay, None)
    elsewhere(
        lambda: libvirt_loop._update_handle(watch, READABLE),
        lambda: libvirt_loop._update_timeout(timer, 0),
    )

    async def work() -> None:
        loop = asyncio.get_running_loop()
        heard = relay.heard = Heard()
        libvirt_loop.attach(loop)
        theirs.send(b"event")
        await heard.received(b"event")
        await heard.until(lambda: (timer, None) in heard.calls)
        libvirt_loop.detach(loop)

    run(work())


def test_a_loop_that_was_closed_without_a_detach_is_replaced(
    libvirt_loop: LibvirtEventLoop,
    sockets: Sockets,
    freed: Freed,
    run: Run,
) -> None:
    """Changes after its end raise nothing and are not lost; the next loop has them."""
    ours, theirs = sockets
    relay = Relay()
    watch = libvirt_loop._add_handle(ours.fileno(), READABLE, relay, None)

    async def leave() -> None:
        libvirt_loop.attach(asyncio.get_running_loop())
        await rounds()

    async def work() -> None:
        loop = asyncio.get_running_loop()
        heard = relay.heard = Heard()
        libvirt_loop.attach(loop)
        theirs.send(b"event")
        await heard.received(b"event")
        await heard.until(lambda: (timer, None) in heard.calls)
        libvirt_loop.detach(loop)

    run(leave())
    elsewhere(
        lambda: libvirt_loop._update_handle(watch, 0),
        lambda: libvirt_loop._update_handle(watch, READABLE),
    )
    timer = libvirt_loop._add_timeout(0, relay, None)
    removed = libvirt_loop._add_timeout(LONG, relay, "removed")
    elsewhere(lambda: libvirt_loop._remove_timeout(removed))
    freed.wait()
    run(work())
    assert freed.opaques == ["removed"]


def test_what_is_removed_while_no_loop_serves_is_freed_by_a_thread_of_its_own(
    libvirt_loop: LibvirtEventLoop, sockets: Sockets, freed: Freed
) -> None:
    """Not by the one that removes, which holds libvirt's locks; otherwise it would never be."""
    ours, _ = sockets
    watch = libvirt_loop._add_handle(ours.fileno(), READABLE, print, "opaque")
    assert libvirt_loop._remove_handle(watch) == 0
    freed.wait()
    assert freed.opaques == ["opaque"]
    assert freed.threads != [threading.get_ident()]


def test_what_was_removed_just_before_the_loop_left_is_freed(
    libvirt_loop: LibvirtEventLoop,
    sockets: Sockets,
    freed: Freed,
    run: Run,
) -> None:
    """The loop's last round is not needed for it."""
    ours, _ = sockets

    async def work() -> None:
        loop = asyncio.get_running_loop()
        libvirt_loop.attach(loop)
        watch = libvirt_loop._add_handle(ours.fileno(), READABLE, Heard(), "opaque")
        await rounds()
        libvirt_loop._remove_handle(watch)
        libvirt_loop.detach(loop)
        assert not loop.remove_reader(ours.fileno())

    run(work())
    freed.wait()
    assert freed.opaques == ["opaque"]


async def test_attaching_counts(served: LibvirtEventLoop, sockets: Sockets) -> None:
    """Two monitors of one loop attach twice; the first one that leaves takes nothing away."""
    ours, theirs = sockets
    loop, heard = asyncio.get_running_loop(), Heard()
    served.attach(loop)
    served._add_handle(ours.fileno(), READABLE, heard, None)
    await rounds()
    served.detach(loop)
    theirs.send(b"event")
    await heard.received(b"event")


class OtherLoop:
    """A second loop, in a thread of its own."""

    def __init__(self, like: asyncio.AbstractEventLoop) -> None:
        self.loop = type(like)()
        self.loop.set_debug(like.get_debug())
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def do(self, step: Callable[[], object]) -> None:
        """Take a step there, and wait for it."""

        async def take_it() -> None:
            step()

        asyncio.run_coroutine_threadsafe(take_it(), self.loop).result(DEADLINE_SECONDS)

    def close(self) -> None:
        """End the loop and its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(DEADLINE_SECONDS)
        self.loop.close()


@pytest.fixture
async def other_loop() -> AsyncIterator[OtherLoop]:
    """A second loop of the same kind that runs in another thread meanwhile."""
    other = OtherLoop(asyncio.get_running_loop())
    yield other
    other.close()


async def test_each_loop_serves_what_was_asked_for_on_it(
    served: LibvirtEventLoop, sockets: Sockets, other_loop: OtherLoop
) -> None:
    """One that stands still is no other's matter."""
    ours, theirs = sockets
    mine, its = Heard(), Heard()
    other_loop.do(lambda: served.attach(other_loop.loop))
    timer = served._add_timeout(0, mine, None)
    other_loop.do(lambda: served._add_handle(ours.fileno(), READABLE, its, None))
    theirs.send(b"event")
    await its.received(b"event")
    await mine.times_called(1)
    served._remove_timeout(timer)
    other_loop.do(lambda: served.detach(other_loop.loop))
    assert its.threads == {other_loop.thread.ident}
    assert mine.threads == {threading.get_ident()}


async def test_a_call_is_served_by_the_loop_that_it_is_made_for(
    served: LibvirtEventLoop, other_loop: OtherLoop
) -> None:
    """The threads that make calls say whose they are; what nobody says anything of, anyone's."""
    mine, its, any_ones = Heard(), Heard(), Heard()
    other_loop.do(lambda: served.attach(other_loop.loop))
    loop = asyncio.get_running_loop()
    for whose, heard in ((loop, mine), (other_loop.loop, its)):
        elsewhere(
            partial(served.serve_this_thread_from, whose),
            partial(served._add_timeout, 0, heard, None),
        )
    elsewhere(lambda: served._add_timeout(0, any_ones, None))
    for heard in (mine, its, any_ones):
        await heard.times_called(2)
    other_loop.do(lambda: served.detach(other_loop.loop))
    assert mine.threads == {threading.get_ident()}
    assert other_loop.thread.ident in its.threads
    assert len(any_ones.threads) == 1


async def test_a_loop_that_is_gone_is_not_called_for(served: LibvirtEventLoop) -> None:
    """A thread may outlive the loop that it belongs to; another one serves its calls."""
    gone, heard = asyncio.new_event_loop(), Heard()
    gone.close()
    elsewhere(
        lambda: served.serve_this_thread_from(gone), lambda: served._add_timeout(0, heard, None)
    )
    await heard.times_called(1)


async def test_another_loop_takes_over_when_one_leaves(
    served: LibvirtEventLoop, sockets: Sockets, other_loop: OtherLoop
) -> None:
    """A connection that outlives its loop does not go deaf, nor do its timers stop."""
    ours, theirs = sockets
    heard, ticks = Heard(), Heard()
    other_loop.do(lambda: served.attach(other_loop.loop))
    other_loop.do(lambda: served._add_handle(ours.fileno(), READABLE, heard, None))
    other_loop.do(lambda: served._add_timeout(1, ticks, None))
    theirs.send(b"one")
    await heard.received(b"one")
    other_loop.do(lambda: served.detach(other_loop.loop))
    theirs.send(b"two")
    await heard.received(b"onetwo")
    assert heard.threads == {other_loop.thread.ident, threading.get_ident()}
    await ticks.until(lambda: threading.get_ident() in ticks.threads)


async def test_a_loop_that_leaves_in_the_middle_of_a_call_is_not_waited_for(
    served: LibvirtEventLoop, sockets: Sockets, other_loop: OtherLoop
) -> None:
    """It will not say that the calls have ended."""
    ours, theirs = sockets
    heard, calls = Heard(), Calls()
    other_loop.do(lambda: served.attach(other_loop.loop))
    served.calls_begin(calls)
    elsewhere(
        lambda: served.serve_this_thread_from(other_loop.loop, calls),
        lambda: served._add_handle(ours.fileno(), READABLE, heard, None),
    )
    other_loop.do(lambda: served.detach(other_loop.loop))
    theirs.send(b"event")
    await heard.received(b"event")


async def test_a_loop_that_leaves_takes_only_its_own_away(
    served: LibvirtEventLoop, sockets: Sockets, other_loop: OtherLoop
) -> None:
    """The others do not notice."""
    ours, theirs = sockets
    heard = Heard()
    served._add_handle(ours.fileno(), READABLE, heard, None)
    other_loop.do(lambda: served.attach(other_loop.loop))
    other_loop.do(lambda: served.detach(other_loop.loop))
    other_loop.do(lambda: served.detach(other_loop.loop))
    theirs.send(b"event")
    await heard.received(b"event")
    assert heard.threads == {threading.get_ident()}


async def test_of_three_loops_the_last_one_serves_what_the_others_had(
    served: LibvirtEventLoop, sockets: Sockets, other_loop: OtherLoop
) -> None:
    """Also when the one that was to take over leaves before it has done so."""
    ours, theirs = sockets
    heard = Heard()
    third = OtherLoop(asyncio.get_running_loop())
    try:
        # In the order of their coming, so that the third one is the last to be asked.
        other_loop.do(lambda: served.attach(other_loop.loop))
        third.do(lambda: served.attach(third.loop))
        third.do(lambda: served._add_handle(ours.fileno(), READABLE, heard, "opaque"))
        third.do(lambda: served.detach(third.loop))
        served.detach(asyncio.get_running_loop())
        theirs.send(b"event")
        await heard.received(b"event")
        assert heard.threads == {other_loop.thread.ident}
        other_loop.do(lambda: served.detach(other_loop.loop))
    finally:
        third.close()
        served.attach(asyncio.get_running_loop())


async def test_what_a_closed_loop_had_is_taken_over_at_the_next_change(
    served: LibvirtEventLoop, sockets: Sockets
) -> None:
    """A loop may end without a word: whatever libvirt asks of it next goes to another."""
    ours, theirs = sockets
    heard = Heard()
    other = OtherLoop(asyncio.get_running_loop())
    other.do(lambda: served.attach(other.loop))
    numbers: list[int] = []
    other.do(lambda: numbers.append(served._add_handle(ours.fileno(), 0, heard, None)))
    other.close()
    elsewhere(lambda: served._update_handle(numbers[0], READABLE))
    theirs.send(b"event")
    await heard.received(b"event")


# -- registration ---------------------------------------------------------------------------------


def test_it_registers_once(
    libvirt_loop: LibvirtEventLoop, freed: Freed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And knows that libvirt asks it from then on."""
    registered: list[tuple[Callable[..., Any], ...]] = []
    monkeypatch.setattr(libvirt, "virEventRegisterImpl", lambda *six: registered.append(six))
    monkeypatch.setattr(libvirt, "virEventAddTimeout", libvirt_loop._add_timeout)
    monkeypatch.setattr(libvirt, "virEventRemoveTimeout", libvirt_loop._remove_timeout)
    assert libvirt_loop.register()
    assert libvirt_loop.register()
    assert len(registered) == 1
    freed.wait()  # what it asked libvirt with


def test_another_implementation_of_the_program_is_noticed(
    libvirt_loop: LibvirtEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libvirt's own: a second registration then "succeeds", and nothing is ever asked."""
    monkeypatch.setattr(libvirt, "virEventRegisterImpl", lambda *_: None)
    monkeypatch.setattr(libvirt, "virEventAddTimeout", lambda *_: 1)
    monkeypatch.setattr(libvirt, "virEventRemoveTimeout", lambda _: 0)
    assert not libvirt_loop.register()


@pytest.mark.parametrize("error", [RuntimeError("registered"), libvirt.libvirtError("registered")])
def test_a_refused_registration_is_remembered(
    libvirt_loop: LibvirtEventLoop, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Another one in Python: it is not tried again."""
    tries: list[None] = []

    def refuse(*_: object) -> None:
        tries.append(None)
        raise error

    monkeypatch.setattr(libvirt, "virEventRegisterImpl", refuse)
    assert not libvirt_loop.register()
    assert not libvirt_loop.register()
    assert len(tries) == 1
