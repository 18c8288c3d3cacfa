"""Text for people: nothing from outside reaches a terminal unescaped.

Pure. A domain's name or a server's error text can hold anything, also the sequences that
move a terminal's cursor or reverse the direction of the text.
"""

from collections.abc import Iterable

INDENT = "    "


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
