"""Every key's line is found, whatever stands around it."""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynchost.service.toml_lines import Path, lines_of

DOCUMENT = '''# a comment with "quotes" and [brackets]
plain = 1
"quoted.key" = """several
lines with ""\\" inside
""" # behind it
[table.'inside']
array = [1, # ] is a comment
  {x = 1, "y]" = [2,
    3]},

  "z"]
[[host]]
name = 'a#b'
[host.sub]
dotted.key = true
[[host]]
name = "q\\"[["
when = 1979-05-27T07:32:00Z
ends = """four quotes""""
empty = {}
'''


def test_keys_tables_and_elements_have_their_lines() -> None:
    """Comments, all kinds of strings, arrays over several lines, tables in tables."""
    lines = lines_of(DOCUMENT)
    expected: dict[Path, int] = {
        ("plain",): 2,
        ("quoted.key",): 3,
        ("table", "inside"): 6,
        ("table", "inside", "array"): 7,
        ("table", "inside", "array", 0): 7,
        ("table", "inside", "array", 1, "y]"): 8,
        ("table", "inside", "array", 1, "y]", 1): 9,
        ("table", "inside", "array", 2): 11,
        ("host", 0): 12,
        ("host", 0, "name"): 13,
        ("host", 0, "sub", "dotted", "key"): 15,
        ("host", 1): 16,
        ("host", 1, "name"): 17,
        ("host", 1, "when"): 18,
        ("host", 1, "empty"): 20,
    }
    assert {path: lines[path] for path in expected} == expected


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends_of_both_kinds_count_once(end: str) -> None:
    """As editors on other systems write them."""
    text = end.join(["a = 1", "", "b = '''", "'''", "c = 2"])
    assert lines_of(text) == {("a",): 1, ("b",): 3, ("c",): 5}


KEYS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=6)
SCALARS = st.one_of(
    st.integers(-(2**40), 2**40).map(str),
    st.booleans().map(lambda value: str(value).lower()),
    KEYS.map(lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'),
    st.sampled_from(["'#'", "'''\n#'''", '"""\n\\"""]"""', "1e5", "07:32:00", '"\\\\"']),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3).map(
        lambda values: "[ # [\n" + ",\n".join(values) + "\n]"
    ),
    max_leaves=6,
)


def paths(value: Any, at: Path = ()) -> set[Path]:
    """Every key and element below a value."""
    found: set[Path] = {at} if at else set()
    if isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            found |= paths(one, (*at, key))
    return found


@given(st.lists(st.tuples(KEYS, VALUES, st.booleans()), max_size=6))
def test_the_scan_finds_what_tomllib_finds(entries: list[tuple[str, str, bool]]) -> None:
    """All keys and elements and no others; each statement in the line where it was written."""
    text, expected, tables = "", {}, 0
    seen: set[tuple[int, str]] = set()
    for key, value, in_new_table in entries:
        if in_new_table:
            text += "\n[[t]] # x\n"
            tables += 1
        if (tables, key) in seen or (not tables and key == "t"):
            continue
        seen.add((tables, key))
        path: Path = ("t", tables - 1, key) if tables else (key,)
        expected[path] = text.count("\n") + 1
        quoted = key.replace("\\", "\\\\").replace('"', '\\"')
        text += f'"{quoted}" = {value}\n'
    lines = lines_of(text)
    assert set(lines) == paths(tomllib.loads(text))
    assert {path: lines[path] for path in expected} == expected
