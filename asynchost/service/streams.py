"""The process's standard streams: a stream that nobody reads holds up nothing.

May live here: how text reaches a file descriptor. Must not: what the text says. Memory: at most
``CAPACITY`` characters for each outlet, plus one line.
"""

import errno
import io
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, TextIO

CAPACITY: Final = 2**20
"""Characters that wait for a reader: some five thousand log lines."""
_WRITTEN_AT_ONCE: Final = 2**16
DRAIN_SECONDS: Final = 0.5
"""How long the end of the process waits for text that was not written yet."""


class OutputError(Exception):
    """Standard output cannot be written, for a reason other than that its reader has gone."""

    def __init__(self, error: OSError) -> None:
        reason = error.strerror or str(error)
        super().__init__(
            f"cannot write standard output: {reason}; make room where the output is sent"
        )


def _lines_lost(count: int) -> str:
    return f"asynchost: {count} lines lost\n"


class Outlet:
    """Writes text to a file descriptor from a thread of its own, so that no caller ever waits.

    While the descriptor takes nothing (a full pipe, a terminal after Ctrl-S), text is kept up to
    ``capacity`` characters. Further text is dropped and counted. ``tell_lost`` makes the line
    that says how much; the line goes in front of the next text that is taken.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        encoding: str = "utf-8",
        tell_lost: Callable[[int], str] = _lines_lost,
        capacity: int = CAPACITY,
    ) -> None:
        self.encoding = encoding
        self.tell_lost = tell_lost
        self.failure: OSError | None = None
        """The first error of the descriptor; text that met an error counts as lost."""
        self.total_lost = 0
        self.descriptor = descriptor
        self._capacity = capacity
        # Re-entrant: the garbage collector may warn, and so write, in the middle of a write.
        self._changed = threading.Condition(threading.RLock())
        self._texts: deque[str] = deque()
        self._waiting = 0
        """Characters that are not written yet, those in the thread's hands included."""
        self._lost = 0
        """How many texts were dropped since the last one that was taken."""
        self._thread: threading.Thread | None = None
        self._on_failure: Callable[[OSError], None] | None = None

    def put(self, text: str) -> None:
        """Write ``text`` soon, or count it as lost. Never waits; any thread may call it."""
        with self._changed:
            if self._waiting and self._waiting + len(text) > self._capacity:
                self._lose(1)
                return
            if self._lost:
                text = self.tell_lost(self._lost) + text
                self._lost = 0
            self._take(text)

    def drain(self, seconds: float = DRAIN_SECONDS) -> bool:
        """Wait until everything is written, how much was lost included; at most for so long.

        Returns whether it is.
        """
        with self._changed:
            return self._changed.wait_for(self._is_finished, seconds)

    def _is_finished(self) -> bool:
        if self._lost and not self._waiting and self.failure is None:
            text, self._lost = self.tell_lost(self._lost), 0
            self._take(text)
        return not self._waiting

    def on_failure(self, callback: Callable[[OSError], None]) -> None:
        """Call ``callback`` with the descriptor's first error, from the outlet's thread."""
        with self._changed:
            self._on_failure = callback
            if self.failure is not None:
                callback(self.failure)

    def _lose(self, texts: int) -> None:
        self._lost += texts
        self.total_lost += texts

    def _take(self, text: str) -> None:
        if self._thread is None:
            thread = threading.Thread(
                target=self._work, name=f"output {self.descriptor}", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # no thread can be started now; the next text tries again
                self._lose(1)
                return
            self._thread = thread
        self._texts.append(text)
        self._waiting += len(text)
        self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._texts)
                texts: list[str] = []
                size = 0
                while self._texts and size < _WRITTEN_AT_ONCE:
                    texts.append(self._texts.popleft())
                    size += len(texts[-1])
            error = self._write("".join(texts).encode(self.encoding, "backslashreplace"))
            with self._changed:
                self._waiting -= size
                if error is not None:
                    self._lose(len(texts))
                    first, self.failure = self.failure is None, self.failure or error
                    if first and self._on_failure is not None:
                        self._on_failure(error)
                self._changed.notify_all()

    def _write(self, data: bytes) -> OSError | None:
        while data:
            try:
                data = data[os.write(self.descriptor, data) :]
            except BlockingIOError:
                # Somebody who shares the descriptor made it non-blocking.
                poll = select.poll()
                poll.register(self.descriptor, select.POLLOUT)
                poll.poll()
            except OSError as error:
                return error
        return None


class OutletStream(io.TextIOBase):
    """A text stream over an outlet, in the place of ``sys.stderr`` or ``sys.stdout``.

    Whatever Python prints by itself, such as a traceback, then waits for nobody either. Text
    goes on in whole lines.
    """

    def __init__(self, outlet: Outlet) -> None:
        self.outlet = outlet
        self._begun = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """How the outlet encodes text."""
        return self.outlet.encoding

    @property
    def errors(self) -> str:  # type: ignore[override]
        """How the outlet writes what has no encoding."""
        return "backslashreplace"

    def writable(self) -> bool:
        """It is."""
        return True

    def isatty(self) -> bool:
        """Whether somebody sits there."""
        return os.isatty(self.outlet.descriptor)

    def write(self, text: str, /) -> int:
        """Take the text, and hand on the lines that are complete."""
        lines, end, rest = (self._begun + text).rpartition("\n")
        self._begun = rest
        if end:
            self.outlet.put(lines + end)
        return len(text)

    def flush(self) -> None:
        """Hand on an incomplete line, too. Waits for nothing."""
        begun, self._begun = self._begun, ""
        if begun:
            self.outlet.put(begun)


class _Output(io.RawIOBase):
    """Standard output of a command that prints an answer and ends.

    The answer of a command does not depend on whether somebody reads it to its end, so a reader
    that has gone (``| head -1``) is no error: the rest is dropped. Any other error is raised
    once, as :class:`OutputError`.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.is_gone = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        if self.is_gone:
            return len(data)
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            poll.poll()
            return 0 if not data else self.write(data)
        except OSError as error:
            self.is_gone = True
            if error.errno == errno.EPIPE:
                return len(data)
            raise OutputError(error) from None


def open_standard_streams() -> None:
    """Put the null device where the process was started without an input or an output.

    Python has None for such a stream, and the next file or connection to be opened would get its
    number, and with that whatever a library below prints.
    """
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                # The lowest number that is free: those before it have been filled by now.
                os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def replace_standard_streams(*, goes_on: bool) -> None:
    """Let no reader of the process's outputs hold up or end the process.

    ``goes_on`` says that the command works until it is told to stop: then standard output waits
    for nobody, as standard error always does. Else standard output is read at its reader's pace.
    """
    sys.stderr = OutletStream(Outlet(2, encoding=sys.stderr.encoding))
    if goes_on:
        sys.stdout = OutletStream(Outlet(1, encoding=sys.stdout.encoding))
        return
    raw = _Output(1)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=sys.stdout.encoding,
        # A domain's name may hold what the terminal's encoding lacks.
        errors="backslashreplace",
        line_buffering=raw.isatty(),
    )


def outlet_of(stream: TextIO) -> Outlet | None:
    """The outlet behind a standard stream; None where the stream is another program's."""
    return stream.outlet if isinstance(stream, OutletStream) else None


def reader_has_gone(stream: TextIO) -> bool:
    """Whether the reader of a command's standard output has gone, by a write or by a look."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    if not isinstance(raw, _Output):
        return False
    poll = select.poll()
    poll.register(raw.fileno(), 0)
    return raw.is_gone or any(event & select.POLLERR for _, event in poll.poll(0))


def finish_output() -> None:
    """Write what is left of standard output.

    Waits for the reader of an answer, and half a second for that of a command that goes on.
    Raises :class:`OutputError` where standard output could not be written.
    """
    sys.stdout.flush()
    outlet = outlet_of(sys.stdout)
    if outlet is None:
        return
    outlet.drain()
    if outlet.failure is not None and outlet.failure.errno != errno.EPIPE:
        raise OutputError(outlet.failure)


def finish_errors() -> None:
    """Write what is left of the log, within half a second."""
    sys.stderr.flush()
    if (outlet := outlet_of(sys.stderr)) is not None:
        outlet.drain()
