"""How log lines look on a terminal and elsewhere."""

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator

import pytest
import structlog

from asynchost.model import Usage
from asynchost.service.logs import ConsoleLines, configure_logs

HOSTILE = "\x1b[31mx\r\nfake=1\u202e"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class GoneStream(io.StringIO):
    """A stream whose reader has ended."""

    def write(self, _text: str) -> int:
        raise BrokenPipeError


@pytest.fixture(autouse=True)
def put_logging_back() -> Iterator[None]:
    """Logging belongs to the process: leave it as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def logged(
    stream: io.StringIO, log_format: str = "auto", level: str = "info"
) -> "structlog.BoundLogger":
    configure_logs(level, log_format, stream=stream, environment={"NO_COLOR": "1"})
    return structlog.get_logger("asynchost.test")  # type: ignore[no-any-return]


def test_a_console_line_is_time_text_and_pairs() -> None:
    """Info is not named: it is what most lines are."""
    stream = io.StringIO()
    logged(stream, "console").info("row written", vcpus_used=6, host="qemu:///system")
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d row written host=qemu:///system vcpus_used=6\n", stream.getvalue()
    )


def test_a_console_line_names_the_other_levels() -> None:
    """A warning must be seen without colours as well."""
    stream = io.StringIO()
    logged(stream, "console").warning("libvirtd is gone", host="h")
    assert stream.getvalue().endswith(" warning: libvirtd is gone host=h\n")


def test_a_console_line_quotes_what_has_spaces_or_nothing() -> None:
    """Where one value ends and the next key begins is always clear."""
    stream = io.StringIO()
    logged(stream, "console").info("e", a="two words", b="", c=None, d=(1, 2))
    assert stream.getvalue().endswith(" e a='two words' b='' c=None d=(1,2)\n")


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_nothing_from_outside_reaches_the_stream_unescaped(log_format: str) -> None:
    """A domain's name can neither move a cursor nor begin a line of its own."""
    stream = io.StringIO()
    logged(stream, log_format).info("started " + HOSTILE, domain=HOSTILE, both=[HOSTILE])
    written = stream.getvalue()
    assert written.count("\n") == 1
    assert written[:-1].isprintable()


def test_a_traceback_is_escaped_line_by_line() -> None:
    """Also the text of an exception comes from outside."""
    stream = io.StringIO()
    log = logged(stream, "console")

    def fail() -> None:
        raise RuntimeError(HOSTILE)

    try:
        fail()
    except RuntimeError:
        log.exception("fault")
    lines = stream.getvalue().splitlines()
    assert lines[1] == "    Traceback (most recent call last):"
    assert all(line.isprintable() for line in lines)


def test_a_json_line_carries_everything() -> None:
    """Machines get the time in UTC, the level, the logger and records by their fields' names."""
    stream = io.StringIO()
    logged(stream).info("totals moved", host="h", before=Usage(), after=Usage(2, 1024, 1, 0))
    record = json.loads(stream.getvalue())
    assert record.pop("timestamp").endswith("Z")
    assert record == {
        "event": "totals moved",
        "level": "info",
        "logger": "asynchost.test",
        "host": "h",
        "before": Usage().as_dict(),
        "after": Usage(2, 1024, 1, 0).as_dict(),
    }


def test_auto_is_console_on_a_terminal() -> None:
    """Whether somebody is looking decides."""
    stream = Terminal()
    logged(stream).info("hello")
    assert stream.getvalue().endswith(" hello\n")


def test_colours_are_for_terminals_that_want_them() -> None:
    """Neither ``NO_COLOR`` nor a dumb terminal nor a file gets any."""
    for stream, environment, coloured in (
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ):
        configure_logs("info", "console", stream=stream, environment=environment)
        structlog.get_logger().error("oh")
        assert ("\x1b[" in stream.getvalue()) == coloured


@pytest.mark.parametrize("width", [40, 80, 120])
def test_console_lines_fit_the_terminal(width: int) -> None:
    """A long line is folded between words; a word longer than the screen is cut."""
    lines = ConsoleLines(coloured=False, width=lambda: width)
    event = {
        "timestamp": "18:12:53",
        "level": "warning",
        "event": "row written after a while",
        "host": "qemu:///system",
        "cpu_info": "x" * 500,
        **{f"column_{number}": number for number in range(20)},
    }
    folded = lines(None, "", event).splitlines()
    assert len(folded) > 3
    assert max(map(len, folded)) <= width
    assert "cpu_info=xxx" in " ".join(folded)


@pytest.mark.parametrize("width", [40, 80])
def test_a_long_reason_is_folded_and_not_cut(width: int) -> None:
    """Its end is the way out."""
    lines = ConsoleLines(coloured=False, width=lambda: width)
    reason = "/srv/instances: No such file or directory; name the folder that holds them (--path)"
    folded = lines(None, "", {"event": "disk not known", "reason": reason, "kept": False})
    assert max(map(len, folded.splitlines())) <= width
    assert f"reason='{reason}' kept=False" in " ".join(folded.split())


def test_lines_below_the_level_are_not_written() -> None:
    """Debug has one line per event, which nobody wants unasked."""
    stream = io.StringIO()
    log = logged(stream, level="warning")
    log.info("no")
    log.warning("yes")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["yes"]


def test_the_standard_librarys_records_take_the_same_way() -> None:
    """asyncio's complaints and Python's warnings look like every other line."""
    stream = io.StringIO()
    logged(stream)
    logging.getLogger("asyncio").error("Task %s was lost", "t1")
    logging.getLogger("asyncio").info("chatter")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(r["logger"], r["level"]) for r in records] == [
        ("asyncio", "error"),
        ("py.warnings", "warning"),
    ]
    assert records[0]["event"] == "Task t1 was lost"


def test_a_stream_that_is_gone_stops_nothing() -> None:
    """No log line is worth ending the work for."""
    logged(GoneStream()).info("into the void")
