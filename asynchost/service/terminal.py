"""Text for people: nothing from outside reaches a terminal unescaped.

Pure. A domain's name or a server's error text can hold anything, also the sequences that
move a terminal's cursor or reverse the direction of the text.
"""

import unicodedata
from collections.abc import Iterable

INDENT = "    "

_TWO_COLUMNS = frozenset("WF")
_NO_COLUMN = frozenset(("Mn", "Me"))


def escape(text: str) -> str:
    """The text with every character that is not plainly printable written as ``\\x1b``.

    That takes in line ends, control characters, direction marks and lone surrogates, so what
    comes back is always one line that looks like what it is.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )


def width(text: str) -> int:
    """How many columns of a terminal the text takes: East Asian characters two, marks none."""
    if text.isascii():
        return len(text)
    return sum(
        0
        if unicodedata.category(character) in _NO_COLUMN
        else 1 + (unicodedata.east_asian_width(character) in _TWO_COLUMNS)
        for character in text
    )


def pad(text: str, columns: int, *, left: bool = False) -> str:
    """The text, filled up with spaces to so many columns, behind it or to its left."""
    spaces = " " * (columns - width(text))
    return spaces + text if left else text + spaces


def shorten(text: str, columns: int) -> str:
    """The text in one line of at most ``columns``, safe for a terminal.

    What is left out is in the middle: names that begin alike differ at their ends.
    """
    text = escape(text)
    if width(text) <= columns:
        return text
    head, tail = "", ""
    begin, end = 0, len(text)
    while begin < end:
        # In turns, the end first.
        if width(tail) <= width(head):
            end -= 1
            longer = head, text[end] + tail
        else:
            longer = head + text[begin], tail
            begin += 1
        if width("".join(longer)) >= columns:
            break
        head, tail = longer
    return f"{head}…{tail}"


def fill(words: Iterable[str], width: int | None) -> str:
    """Words set into lines of at most ``width`` columns, continued with an indent.

    A word is never broken, so that it can be copied and searched. None means one line.
    """
    words = list(words)
    if width is None:
        return " ".join(words)
    lines = [""]
    for word in words:
        line = lines[-1]
        joined = f"{line} {word}" if line.strip() else line + word
        if len(joined) > width and line.strip():
            lines.append(INDENT + word)
        else:
            lines[-1] = joined
    return "\n".join(lines)


def error_line(message: str) -> str:
    """The one line on standard error that a command ends with when it cannot do its work."""
    return f"asynchost: error: {escape(message)}"
