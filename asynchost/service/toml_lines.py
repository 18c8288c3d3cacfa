"""In which line of a TOML file each key stands. Pure text.

``tomllib`` reads the values and tells no positions. This module finds the positions in text that
``tomllib`` has accepted, so it needs to know where each key and value ends, and not what it means.
Memory: one entry for each key and each element of an array.
"""

import tomllib
from bisect import bisect_right

Path = tuple[str | int, ...]
"""Keys and indices from the top of the document, as ``("host", 0, "name")``."""


def lines_of(text: str) -> dict[Path, int]:
    """The line, counted from 1, of every key, table and array element.

    ``text`` is what ``tomllib.loads`` has accepted; for other text the lines mean nothing. A table
    that is written in several places has the line of the first one.
    """
    scan = _Scan(text.replace("\r\n", "\n"))
    scan.document()
    return scan.lines


class _Scan:
    """One pass through a document."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self._text = text
        self._at = 0
        self._ends = [at for at, character in enumerate(text) if character == "\n"]
        self._tables: dict[Path, int] = {}
        """How many ``[[tables]]`` each array of tables has so far."""

    def document(self) -> None:
        """Headers and ``key = value`` statements, until the end."""
        table: Path = ()
        while self._skip_blank():
            began = self._at
            brackets = 2 if self._peek(2) == "[[" else int(self._peek() == "[")
            self._at += brackets
            keys = self._keys()
            if not brackets:
                self._statement(table, keys, began)
                continue
            self._at += brackets
            if brackets == 2:
                array = (*self._inside(keys[:-1], began), keys[-1])
                self._note(array, began)
                self._tables[array] = self._tables.get(array, 0) + 1
                table = (*array, self._tables[array] - 1)
            else:
                table = self._inside(keys, began)
            self._note(table, began)

    def _inside(self, keys: list[str], began: int) -> Path:
        """The table that a header's keys lead to, through the last element of each array."""
        path: Path = ()
        for key in keys:
            path = (*path, key)
            self._note(path, began)
            if path in self._tables:
                path = (*path, self._tables[path] - 1)
        return path

    def _statement(self, table: Path, keys: list[str], began: int) -> None:
        """``key = value``, from behind the key on."""
        path = table
        for key in keys:
            path = (*path, key)
            self._note(path, began)
        self._skip_blank()
        self._at += 1  # the =
        self._value(path)

    def _value(self, path: Path) -> None:
        self._skip_blank()
        start = self._peek()
        if start in ("'", '"'):
            self._string()
        elif start == "[":
            self._array(path)
        elif start == "{":
            self._inline_table(path)
        else:
            while self._peek() and self._peek() not in ",]}#\n":
                self._at += 1

    def _array(self, path: Path) -> None:
        self._at += 1
        index = 0
        while self._skip_blank() and self._peek() != "]":
            self._note((*path, index), self._at)
            self._value((*path, index))
            index += 1
            self._skip_comma()
        self._at += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        while self._skip_blank() and self._peek() != "}":
            began = self._at
            self._statement(path, self._keys(), began)
            self._skip_comma()
        self._at += 1

    def _skip_comma(self) -> None:
        if self._skip_blank() and self._peek() == ",":
            self._at += 1

    def _keys(self) -> list[str]:
        """A key with its dots, as ``a."b.c"``."""
        keys = [self._key()]
        while self._skip_blank() and self._peek() == ".":
            self._at += 1
            keys.append(self._key())
        return keys

    def _key(self) -> str:
        self._skip_blank()
        began = self._at
        if self._peek() in ("'", '"'):
            self._string()
            return str(tomllib.loads(f"key = {self._text[began : self._at]}")["key"])
        while self._peek() and (self._peek().isalnum() or self._peek() in "-_"):
            self._at += 1
        return self._text[began : self._at]

    def _string(self) -> None:
        quote = self._peek()
        escapes = quote == '"'
        many = self._peek(3) == quote * 3
        end = quote * 3 if many else quote
        self._at += len(end)
        while not self._text.startswith(end, self._at) and self._at < len(self._text):
            self._at += 2 if escapes and self._peek() == "\\" else 1
        self._at += len(end)
        # Up to two quotes may stand right before the three that end the string.
        for _ in range(2 if many else 0):
            self._at += self._peek() == quote

    def _skip_blank(self) -> bool:
        """Go on to what is no space, line end or comment; False at the end of the text."""
        while self._at < len(self._text):
            if self._text[self._at] == "#":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            elif self._text[self._at] in " \t\n":
                self._at += 1
            else:
                return True
        return False

    def _peek(self, length: int = 1) -> str:
        return self._text[self._at : self._at + length]

    def _note(self, path: Path, at: int) -> None:
        self.lines.setdefault(path, bisect_right(self._ends, at - 1) + 1)
