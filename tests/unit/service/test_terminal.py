"""Text from outside is made harmless, and text for people fits the screen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynchost.service.terminal import INDENT, error_line, escape, fill


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain größer ✓ 日本", "plain größer ✓ 日本"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x7f\x9b", "\\x7f\\x9b"),
        ("evil\u202egnp", "evil\\u202egnp"),
        ("\u2028\u200b", "\\u2028\\u200b"),
        ("\udc80", "\\udc80"),
    ],
)
def test_escape_shows_what_a_terminal_would_obey(text: str, escaped: str) -> None:
    """Control characters, direction marks and line separators are written out."""
    assert escape(text) == escaped


@given(st.text())
def test_escaped_text_is_one_printable_line(text: str) -> None:
    """Whatever comes in, nothing that moves a cursor comes out."""
    assert escape(text).isprintable()


@given(
    st.lists(st.text(st.characters(categories=["L"]), min_size=1, max_size=30), min_size=1),
    st.integers(min_value=40, max_value=120),
)
def test_fill_keeps_every_word_and_the_width(words: list[str], width: int) -> None:
    """No line is wider than asked, no word is broken or lost."""
    filled = fill(words, width)
    assert filled.split() == words
    for number, line in enumerate(filled.splitlines()):
        assert len(line) <= width
        assert line.startswith(INDENT) == (number > 0)


def test_fill_without_a_width_is_one_line() -> None:
    """A file is searched line by line, so its lines stay whole."""
    assert fill(["word"] * 100, None) == " ".join(["word"] * 100)


def test_an_error_is_one_line_whatever_its_text() -> None:
    """What a server says may hold line ends."""
    assert error_line("a\nb") == "asynchost: error: a\\nb"
