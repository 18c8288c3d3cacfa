"""Results, as text that fits 80 columns and as JSON."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from benchmarks.figures import Interval, quantile

WIDTH = 80


@dataclass(frozen=True)
class Goal:
    """What was wanted, what came out, and whether that is enough."""

    goal: str
    got: str
    met: bool


@dataclass(frozen=True)
class Table:
    """Rows of cells under a heading; the first column is text, the others are figures."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass
class Result:
    """What one benchmark found."""

    name: str
    about: str
    """What was done, in a sentence or two: what a reader needs to judge the figures."""
    parameters: dict[str, Any] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What makes the figures weaker than they look."""
    raw: dict[str, Any] = field(default_factory=dict)
    """The single measurements, for the JSON file only."""

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return asdict(self)

    def as_text(self) -> str:
        """Everything but the single measurements."""
        lines = [f"== {self.name} ".ljust(WIDTH, "="), *_wrapped(self.about), ""]
        parameters = ", ".join(f"{name} {_shown(v)}" for name, v in self.parameters.items())
        lines += [*_wrapped(parameters), ""]
        for table in self.tables:
            lines += [*_table(table), ""]
        for goal in self.goals:
            verdict = "met" if goal.met else "NOT MET"
            lines += _wrapped(f"goal: {goal.goal}; got {goal.got}: {verdict}", "  ")
        for note in self.notes:
            lines += _wrapped(f"note: {note}", "  ")
        return "\n".join(lines).rstrip() + "\n"


def ratios(title: str, sizes: Sequence[int], columns: Mapping[str, Sequence[Interval]]) -> Table:
    """One line per size of the host, with each column's ratio and its interval."""
    rows = [
        [f"{size:,} domains"]
        + [
            f"{one[i].value:.2f} ({one[i].low:.2f} to {one[i].high:.2f})"
            for one in columns.values()
        ]
        for i, size in enumerate(sizes)
    ]
    return Table(f"{title}: median of the rounds' ratios (95 % interval)", ["", *columns], rows)


def latencies(
    labels: Mapping[str, str], blocks: Mapping[str, Mapping[int, Sequence[Sequence[float]]]]
) -> list[Table]:
    """Milliseconds by contender and size of the host, one table for p50 and one for p99.

    The quantile of each block and then their median, so that one bad moment of the machine spoils
    one block and not the figure.
    """
    tables = []
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        rows = [
            [labels[key]]
            + [milliseconds(median(quantile(block, share) for block in of)) for of in by.values()]
            for key, by in blocks.items()
        ]
        sizes = next(iter(blocks.values()))
        title = f"milliseconds, {name} of a block, median, by domains on the host"
        tables.append(Table(title, ["", *(f"{size:,}" for size in sizes)], rows))
    return tables


def microseconds(seconds: float) -> str:
    """A short time."""
    return f"{seconds * 1e6:,.0f}"


def milliseconds(seconds: float) -> str:
    """A latency."""
    return f"{seconds * 1e3:,.2f}"


def _shown(value: object) -> str:
    return "/".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _wrapped(text: str, hanging: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=hanging, break_long_words=False)


def _table(table: Table) -> list[str]:
    cells = [table.columns, *table.rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(table.columns))]
    widths[0] = min(widths[0], WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1))

    def line(row: Sequence[str]) -> str:
        figures = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        return "  ".join([row[0].ljust(widths[0]), *figures])

    heading = line(table.columns)
    return [*_wrapped(table.title), heading, "-" * len(heading), *map(line, table.rows)]
