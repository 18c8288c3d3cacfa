"""What the database is known to hold of one row, and what is in doubt.

Pure. Memory: the values of one row, once.
"""

from collections.abc import Mapping
from functools import lru_cache

from asynchost.database.rows import Value, Values
from asynchost.database.statements import RowWrite

_NONE: frozenset[str] = frozenset()
_UNKNOWN = object()
"""Stands for the value of a column that is in doubt; equal to no value."""


class Acknowledged:
    """The values that the database confirmed, under the numbers of the writes that put them there.

    Each attempt to write has its own number, and the database takes none that is below the last
    one it took. So an attempt that was given up can land late, but never after the next one. Its
    columns are no longer known until the next write or the next reading back settles them.
    """

    # No dictionary of values: with tens of thousands of hosts, its keys are what memory goes to.
    __slots__ = ("_columns", "_doubted_columns", "_doubted_seq", "_landed_seq", "_seq", "_values")

    def __init__(self) -> None:
        self._columns: tuple[str, ...] = ()
        self._values: tuple[object, ...] = ()
        self._seq = 0
        self._landed_seq = 0
        self._doubted_seq = 0
        self._doubted_columns = _NONE

    def begin(self, values: Values, offered: Values | None = None) -> None:
        """A new term began with the row as ``values``: no write of an older one can land.

        Of what is the same in ``offered``, the objects there are held: they have other holders.
        """
        self._hold(values, offered or {})
        self._seq = self._landed_seq = self._doubted_seq = 0
        self._doubted_columns = _NONE

    def difference(self, values: Mapping[str, Value]) -> Values:
        """The columns whose value is not known to be in the database."""
        if self._columns == tuple(values):
            # The way of nearly every write: the same columns in the same order as the last time.
            return {
                column: value
                for (column, value), known in zip(values.items(), self._values, strict=True)
                if known != value
            }
        held = self._known()
        return {
            column: value for column, value in values.items() if held.get(column, _UNKNOWN) != value
        }

    def next_seq(self) -> int:
        """The number of one more attempt."""
        self._seq += 1
        return self._seq

    def confirm(self, write: RowWrite) -> None:
        """The database said that the write has landed."""
        self._landed_seq = write.seq
        positions = _positions(self._columns)
        if write.values.keys() <= positions.keys():
            values = list(self._values)
            for column, value in write.values.items():
                values[positions[column]] = value
            self._values = tuple(values)
        else:
            known = {**self._known(), **write.values}
            self._hold(known, known)

    def doubt(self, write: RowWrite) -> None:
        """Nobody knows whether the write has landed, or still will."""
        self._doubted_seq = write.seq
        self._doubted_columns |= write.values.keys()
        self._forget()

    def read(self, seq: int, values: Values) -> None:
        """The row was read back: ``values``, put there by the write numbered ``seq``."""
        if self.is_ahead_of(seq):
            # Lost in a crash, or late: a cluster's node or a replica that lags will have them in a
            # moment. Whatever they wrote is in doubt, and that is no longer known by column.
            self._doubted_seq = max(self._doubted_seq, self._landed_seq)
            self._doubted_columns = _all(_shared(tuple(values)))
        self._hold(values, self._known())
        self._landed_seq = seq
        self._seq = max(self._seq, seq)
        if seq < self._doubted_seq:
            # A doubted write may be on its way still, be it one from before a crash that took
            # back what had overtaken it: write its columns again, under a higher number.
            self._forget()

    def has_landed(self, write: RowWrite) -> bool:
        """Whether this write, or a later one, is known to have landed."""
        return self._landed_seq >= write.seq

    def is_ahead_of(self, seq: int) -> bool:
        """Whether more was confirmed than a database at ``seq`` holds: it has lost writes."""
        return seq < self._landed_seq

    def tolerate(self, values: Mapping[str, Value]) -> None:
        """Take these columns for written, though somebody else has changed them."""
        known = {**self._known(), **values}
        self._hold(known, known)

    def overwritten(self, seq: int, values: Values) -> tuple[Values, Values]:
        """The columns that are known to hold something else than was read back, at ``seq``: with
        what was read back, and with what is known.

        None where the database has lost writes: then an older value is no stranger's.
        """
        known = {} if self.is_ahead_of(seq) else self._known()
        wanted = {
            column: value
            for column, value in known.items()
            if isinstance(value, int | str | None) and values.get(column, value) != value
        }
        return {column: values[column] for column in wanted}, wanted

    def _known(self) -> dict[str, object]:
        return dict(zip(self._columns, self._values, strict=True))

    def _hold(self, values: Mapping[str, object], like: Mapping[str, object]) -> None:
        self._columns = _shared(tuple(values))
        self._values = tuple(
            like[column] if column in like and like[column] == value else value
            for column, value in values.items()
        )

    def _forget(self) -> None:
        self._values = tuple(
            _UNKNOWN if column in self._doubted_columns else value
            for column, value in self._known().items()
        )


@lru_cache(maxsize=16)
def _positions(columns: tuple[str, ...]) -> dict[str, int]:
    return {column: number for number, column in enumerate(columns)}


@lru_cache(maxsize=16)
def _shared(columns: tuple[str, ...]) -> tuple[str, ...]:
    """The one copy of these columns' names, for all hosts: there are as many as kinds of table."""
    return columns


@lru_cache(maxsize=16)
def _all(columns: tuple[str, ...]) -> frozenset[str]:
    return frozenset(columns)
