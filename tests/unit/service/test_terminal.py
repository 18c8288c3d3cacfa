"""Text from outside is made harmless, and text for people fits the screen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynchost.service.terminal import INDENT, error_line, escape, fill, pad, shorten, width


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


def test_what_is_cut_is_cut_in_the_middle_and_says_so() -> None:
    """What begins alike differs at its end."""
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefgh", 6) == "ab…fgh"
    assert shorten("\u6f22\u5b57" * 3, 6) == "\u6f22…\u5b57"
    assert shorten("a\x1bb", 9) == "a\\x1bb"


def test_columns_are_those_of_a_terminal() -> None:
    """Wide characters take two, combining ones none."""
    assert [width(text) for text in ("abc", "\u6f22\u5b57", "e\u0301", "\xe9")] == [3, 4, 1, 1]
    assert pad("\u6f22", 4) == "\u6f22  "
    assert pad("abc", 5, left=True) == "  abc"


@given(st.text(), st.integers(min_value=3, max_value=40))
def test_shortened_text_is_never_wider_than_asked(text: str, columns: int) -> None:
    """Whatever it holds, and whole where it fits."""
    short = shorten(text, columns)
    assert width(short) <= columns
    assert (short == escape(text)) == (width(escape(text)) <= columns)


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
