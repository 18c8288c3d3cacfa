"""What the tests were run on: docs/platforms.json, and the table in README that is made of it.

platforms.py record NAME VERSIONS LINE [GROUP]   note a run; LINE is pytest's last line
platforms.py table                               write the table into README
"""

import datetime
import json
import re
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
RECORD = REPOSITORY / "docs" / "platforms.json"
README = REPOSITORY / "README.md"
BEGIN = "<!-- ./dev matrix --record writes this table. -->\n"
END = "<!-- The end of the table. -->\n"
NAMES = {"debian12": "Debian 12", "debian13": "Debian 13", "sid": "Debian unstable"}
PROGRAMS = ("libvirt", "QEMU", "Python", "MariaDB")
COUNT = re.compile(r"(\d+) (passed|failed|skipped|errors?)")


def groups() -> list[str]:
    """The groups of tests that ``./dev`` lists."""
    lines = (REPOSITORY / "dev").read_text().partition("\ngroups=(\n")[2].partition("\n)")[0]
    return re.findall(r'^ *"(\w+)\|', lines, re.MULTILINE)


def version() -> str:
    """The version of asynchost that is in the working tree."""
    text = (REPOSITORY / "asynchost" / "__init__.py").read_text()
    (found,) = re.findall(r'__version__ = "(.*)"', text)
    return str(found)


def table(record: dict[str, Any]) -> str:
    """The table of README, with its first and last line."""
    platforms, by_hand = record["platforms"], record["by hand"]
    rows = [["", *NAMES.values()], ["---"] * (1 + len(NAMES))]
    rows += [[name, *(cell(platforms, there, name) for there in NAMES)] for name in PROGRAMS]
    runs = {"the whole suite": "suite", **{f"group `{name}`": name for name in groups()}}
    rows += [
        [text, *(run(platforms, there, what) for there in NAMES)] for text, what in runs.items()
    ]
    rows += [
        [what, *(results.get(there, "not run") for there in NAMES)]
        for what, results in by_hand.items()
    ]
    return BEGIN + "".join(f"| {' | '.join(row)} |\n" for row in rows) + END


def cell(platforms: dict[str, Any], name: str, program: str) -> str:
    """The version of a program that the last run there has found."""
    platform = platforms.get(name, {})
    return str(platform["versions"].get(program, "not run")) if platform.get("runs") else "not run"


def run(platforms: dict[str, Any], name: str, what: str) -> str:
    """What a run there gave, and when."""
    noted = platforms.get(name, {}).get("runs", {}).get(what)
    return "not run" if noted is None else f"{noted['result']} ({noted['date']})"


def note(name: str, versions: str, line: str, group: str = "suite") -> None:
    """Add a run to the record."""
    counts = [f"{int(number):,} {word}" for number, word in COUNT.findall(line)]
    if not counts:
        raise SystemExit(f"no result of pytest's: {line!r}")
    record = json.loads(RECORD.read_text())
    noted = record["platforms"].setdefault(name, {"versions": {}, "runs": {}})
    noted["versions"] = dict(part.split() for part in versions.split(", "))
    noted["runs"][group] = {
        "result": ", ".join(counts),
        "date": str(datetime.datetime.now(datetime.UTC).date()),
        "version": version(),
    }
    RECORD.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def write_table() -> None:
    """Put the table where README has the old one."""
    text = README.read_text()
    before, after = text[: text.index(BEGIN)], text[text.index(END) + len(END) :]
    README.write_text(before + table(json.loads(RECORD.read_text())) + after)


if __name__ == "__main__":
    if sys.argv[1] == "record":
        note(*sys.argv[2:])
    write_table()
