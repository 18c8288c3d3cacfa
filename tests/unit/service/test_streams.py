"""An outlet never waits for whoever reads it, and says what it had to drop."""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from asynchost.service.streams import Outlet, OutletStream

SECONDS = 30.0


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The ends for reading and for writing, the latter as small as it can be."""
    ends = os.pipe()
    yield ends
    for end in ends:
        with suppress(OSError):  # the test closed it
            os.close(end)


def read_all(reading: int) -> str:
    """What waits in a pipe."""
    os.set_blocking(reading, False)
    parts = []
    try:
        while part := os.read(reading, 2**20):
            parts.append(part)
    except BlockingIOError:
        pass
    return b"".join(parts).decode()


def test_text_is_written_in_order(pipe: tuple[int, int]) -> None:
    """From any thread, by one thread."""
    reading, writing = pipe
    outlet = Outlet(writing)
    for number in range(100):
        outlet.put(f"{number}\n")
    assert outlet.drain(SECONDS)
    assert read_all(reading).split() == [str(number) for number in range(100)]


def test_what_is_not_taken_is_dropped_counted_and_told(pipe: tuple[int, int]) -> None:
    """The line that tells stands where the dropped ones would have stood."""
    reading, writing = pipe
    capacity = 1000
    outlet = Outlet(writing, tell_lost=lambda count: f"lost {count}\n", capacity=capacity)
    # More than a pipe holds: the thread waits within this one.
    outlet.put("x" * 2**17 + "\n")
    for number in range(capacity):
        outlet.put(f"{number}\n")
    assert not outlet.drain(0.01)
    text = ""
    while outlet._waiting:
        text += read_all(reading)
    outlet.put("next\n")
    while not outlet.drain(0.001):
        text += read_all(reading)
    text += read_all(reading)
    assert outlet.total_lost > 0
    assert text.splitlines()[-2:] == [f"lost {outlet.total_lost}", "next"]


def test_what_was_lost_is_told_at_the_end_at_the_latest(pipe: tuple[int, int]) -> None:
    """Draining writes the line, though there is no next one."""
    reading, writing = pipe
    outlet = Outlet(writing, tell_lost=lambda count: f"lost {count}\n", capacity=1)
    outlet.put("x" * 2**17)
    outlet.put("y")
    text = ""
    while not outlet.drain(0.001):
        text += read_all(reading)
    assert (text + read_all(reading)).endswith("lost 1\n")


def test_a_text_longer_than_all_that_may_wait_is_written_if_nothing_waits(
    pipe: tuple[int, int],
) -> None:
    """A long line is better than none."""
    reading, writing = pipe
    outlet = Outlet(writing, capacity=10)
    outlet.put("a rather long line\n")
    assert outlet.drain(SECONDS)
    assert read_all(reading) == "a rather long line\n"


def test_a_reader_that_has_gone_is_told_once_and_stops_nothing(pipe: tuple[int, int]) -> None:
    """Each text is lost, and counted."""
    reading, writing = pipe
    os.close(reading)
    outlet = Outlet(writing)
    told: list[OSError] = []
    outlet.on_failure(told.append)
    for _ in range(3):
        outlet.put("x")
        assert outlet.drain(SECONDS)
    assert [type(error) for error in told] == [BrokenPipeError]
    assert outlet.total_lost == 3


def test_a_descriptor_that_does_not_block_is_waited_for_by_the_thread(
    pipe: tuple[int, int],
) -> None:
    """Somebody who shares it may have made it so."""
    reading, writing = pipe
    os.set_blocking(writing, False)
    outlet = Outlet(writing)
    text = "x" * 2**18
    outlet.put(text)
    read = ""
    while not outlet.drain(0.001):
        read += read_all(reading)
    assert read + read_all(reading) == text


def test_a_stream_hands_on_whole_lines(pipe: tuple[int, int]) -> None:
    """What is printed in pieces, as a traceback is, becomes no pieces of lines."""
    reading, writing = pipe
    stream = OutletStream(Outlet(writing))
    print("a", "b", file=stream)
    stream.write("begun")
    assert stream.outlet.drain(SECONDS)
    assert read_all(reading) == "a b\n"
    stream.flush()
    assert stream.outlet.drain(SECONDS)
    assert read_all(reading) == "begun"
    assert (stream.writable(), stream.isatty(), stream.errors) == (True, False, "backslashreplace")


def test_what_the_encoding_lacks_is_escaped(pipe: tuple[int, int]) -> None:
    """A lone surrogate can be in a file's name."""
    reading, writing = pipe
    outlet = Outlet(writing, encoding="ascii")
    outlet.put("é\udc80\n")
    assert outlet.drain(SECONDS)
    assert read_all(reading) == "\\xe9\\udc80\n"


def test_nothing_here_touches_the_streams_of_the_process() -> None:
    """Only :func:`replace_standard_streams` does."""
    assert not isinstance(sys.stderr, OutletStream)
