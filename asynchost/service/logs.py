"""Where the log lines go and how they look: set up once, by the daemon only.

On a terminal a line reads ``18:12:53 row written host=qemu:///system vcpus_used=6`` and is
folded at the terminal's width; elsewhere each line is one JSON object. Both go to standard
error, and so does what comes through the standard library's logging (asyncio, warnings). No line
is waited for: see ``streams.py``.
"""

import json
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from asynchost.plain import PlainRecord
from asynchost.service.exits import ExitStatus
from asynchost.service.streams import outlet_of
from asynchost.service.terminal import INDENT, error_line, escape, fill

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("auto", "console", "json")

_COLOURS = {"debug": "2", "warning": "33", "error": "31", "critical": "31;1"}
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "exception": 3, "critical": 2}
"""By level, as in syslog."""
_FIRST_KEYS = ("host", "uuid")
_NARROWEST = 40
"""Columns below which folding would only make things worse."""


def configure_logs(
    level: str,
    log_format: str,
    *,
    stream: TextIO | None = None,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Send every line at ``level`` and above to ``stream``, by default standard error.

    ``log_format`` ``auto`` means ``console`` on a terminal and ``json`` elsewhere. Colours are
    used on a terminal only, and not where ``NO_COLOR`` is set or ``TERM`` is ``dumb``.
    """
    stream = sys.stderr if stream is None else stream
    on_terminal = stream.isatty()
    number = getattr(logging, level.upper())
    processors: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.ExceptionRenderer(),
        *_renderers(log_format, on_terminal, environment),
        *([_with_priority] if is_journal(stream, environment) else []),
    ]
    _fatal.render = None if _is_for_people(log_format, on_terminal) else _renderer(processors)
    if (outlet := outlet_of(stream)) is not None:
        render = _renderer(processors)
        outlet.tell_lost = lambda count: (
            render("warning", "log lines lost, because nobody took them", count=count) + "\n"
        )
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *names: _Lines(stream, names[0] if names else ""),
        cache_logger_on_first_use=True,
    )
    logging.captureWarnings(capture=True)
    logging.basicConfig(handlers=[_FromStandardLibrary()], level=logging.WARNING, force=True)


def is_journal(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether the stream leads straight to systemd's journal, which ``JOURNAL_STREAM`` tells."""
    device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    if not (device.isdecimal() and inode.isdecimal()):
        return False
    outlet = outlet_of(stream)
    try:
        status = os.fstat(stream.fileno() if outlet is None else outlet.descriptor)
    except (OSError, ValueError):
        return False
    return (status.st_dev, status.st_ino) == (int(device), int(inode))


def _with_priority(_: WrappedLogger, level: str, rendered: EventDict) -> str:
    """The rendered text with its priority in front of each line, as the journal takes it."""
    mark = f"<{_PRIORITIES.get(level, _PRIORITIES['info'])}>"
    return "\n".join(mark + line for line in str(rendered).split("\n"))


class _Fatal:
    """How the line is written that a command ends with when it cannot do its work."""

    render: "Callable[..., str] | None" = None
    """None: for people. It is so until logs are configured."""


_fatal = _Fatal()


def fatal_line(message: str, status: int) -> str:
    """The line that a command ends with when it cannot do its work, like the log's other lines.

    On a terminal, and before logs are configured, ``asynchost: error: …``; else a JSON object.
    """
    if _fatal.render is None:
        return error_line(message)
    return _fatal.render("critical", "ended with an error", reason=message, exit_status=int(status))


def fault_lines() -> str:
    """The exception that is being handled, which nobody expected, with its traceback."""
    if _fatal.render is None:
        return "\n".join(map(escape, traceback.format_exc().splitlines()))
    return _fatal.render(
        "critical",
        "ended with an error",
        reason="a fault in asynchost",
        exit_status=int(ExitStatus.FAULT),
        exc_info=True,
    )


def format_in(arguments: Sequence[str]) -> str:
    """The ``--log-format`` of a command line that may be wrong in any other way."""
    for option, value in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, joined = option.partition("=")
        if name == "--log-format" and (joined if equals else value) in FORMATS:
            return joined if equals else value
    return "auto"


def _renderer(processors: Sequence[Processor]) -> Callable[..., str]:
    """What makes one line of a level, a text and pairs, without a logger."""
    logger = _Lines(sys.stderr, "asynchost.service")

    def render(level: str, text: str, **pairs: Any) -> str:
        event: Any = {"event": text, **pairs}
        for processor in processors:
            event = processor(logger, level, event)
        return str(event)

    return render


def _is_for_people(log_format: str, on_terminal: bool) -> bool:
    return log_format == "console" or (log_format == "auto" and on_terminal)


def _renderers(
    log_format: str, on_terminal: bool, environment: Mapping[str, str]
) -> list[Processor]:
    if _is_for_people(log_format, on_terminal):
        coloured = (
            on_terminal and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
        )
        return [
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            ConsoleLines(coloured=coloured, width=_terminal_width if on_terminal else None),
        ]
    return [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_logger_name,
        _spell_out_records,
        structlog.processors.JSONRenderer(serializer=json.dumps, default=str),
    ]


class _Lines:
    """Writes finished lines to one stream, and carries the logger's name.

    A stream that is gone (a closed terminal, a reader that ended) loses the lines and nothing
    else: no log line is worth stopping the work for.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self.name = name

    def msg(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            # ValueError is what a stream that was closed on our side raises.
            pass

    debug = info = warning = error = critical = msg


class _FromStandardLibrary(logging.Handler):
    """Hands the records of the standard library's logging to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger(record.name).log(
            record.levelno, record.getMessage(), exc_info=record.exc_info
        )


def _add_logger_name(logger: WrappedLogger, _: str, event: EventDict) -> EventDict:
    if logger.name:
        event["logger"] = logger.name
    return event


def _spell_out_records(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Records as objects with their fields' names, which JSON alone could not write."""
    for key, value in event.items():
        if isinstance(value, PlainRecord):
            event[key] = value.as_dict()
        elif hasattr(value, "_asdict"):
            event[key] = value._asdict()
    return event


class ConsoleLines:
    """Renders one event for people: time, level unless it is info, text, then ``key=value``.

    ``width`` tells the columns at the moment of writing, since a terminal can be resized; None
    leaves lines whole. Everything that comes in is escaped, so that one event is one line of
    plain text, before it is folded and coloured.
    """

    def __init__(self, *, coloured: bool, width: Callable[[], int] | None) -> None:
        self._coloured = coloured
        self._width = width

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> str:
        time = str(event.pop("timestamp", ""))
        level = str(event.pop("level", "info"))
        text = escape(str(event.pop("event", "")))
        traceback = event.pop("exception", None)
        width = None if self._width is None else self._width()

        words = [time] if time else []
        if level != "info":
            words.append(f"{level}:")
        words += text.split(" ")
        keys = [key for key in _FIRST_KEYS if key in event]
        keys += [key for key in event if key not in _FIRST_KEYS]
        for key in keys:
            words += _fitting(f"{escape(key)}={_show(event[key])}", width)
        line = fill(words, width)

        if self._coloured:
            line = _paint(line, time, level)
        if traceback:
            line += "".join(f"\n{INDENT}{escape(part)}" for part in str(traceback).splitlines())
        return line


def _show(value: Any) -> str:
    """A value as one word: bare where that is unmistakable, else quoted."""
    if isinstance(value, str):
        text = escape(value)
        return f"'{text}'" if not text or " " in text else text
    # Records and containers are shown by their representation, without its spaces.
    return escape(str(value)).replace(", ", ",").replace(": ", ":")


def _fitting(pair: str, width: int | None) -> list[str]:
    """The pair as one word; as several where it fits on no line, such as a reason with its way
    out. A word that still does not fit is cut."""
    room = None if width is None else width - len(INDENT)
    if room is None or len(pair) <= room:
        return [pair]
    return [word if len(word) <= room else word[: room - 3] + "..." for word in pair.split(" ")]


def _paint(line: str, time: str, level: str) -> str:
    """Dim the time, and give the rest its level's colour."""
    rest = line[len(time) :]
    if level in _COLOURS:
        rest = f"\x1b[{_COLOURS[level]}m{rest}\x1b[0m"
    return f"\x1b[2m{time}\x1b[0m{rest}"


def _terminal_width() -> int:
    return max(shutil.get_terminal_size().columns, _NARROWEST)
