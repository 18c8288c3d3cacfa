"""What the database is known to hold of one row, and what is in doubt.

Pure. Memory: the values of one row, once.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import compress
from operator import ne

from asynchost.database.rows import RowValues, Value, Values, same
from asynchost.database.schema import OWNED_COLUMNS
from asynchost.database.statements import RowWrite

_UNKNOWN = object()
"""Stands for the value of a column that is in doubt; equal to no value."""
_NOTHING = (_UNKNOWN,) * len(OWNED_COLUMNS)
_PLACES = {column: place for place, column in enumerate(OWNED_COLUMNS)}
_NONE: frozenset[str] = frozenset()
_ALL = frozenset(OWNED_COLUMNS)


class Acknowledged:
    """The values that the database confirmed, under the numbers of the writes that put them there.

    Each attempt to write has its own number, and the database takes none that is below the last
    one it took. So an attempt that was given up can land late, but never after the next one. Its
    columns are no longer known until the next write or the next reading back settles them.
    """

    __slots__ = ("_doubted_columns", "_doubted_seq", "_landed_seq", "_seq", "_values")

    def __init__(self) -> None:
        self._values: tuple[object, ...] = _NOTHING
        self._seq = 0
        self._landed_seq = 0
        self._doubted_seq = 0
        self._doubted_columns = _NONE

    def begin(self, values: RowValues, offered: RowValues | None = None) -> None:
        """A new term began with the row as ``values``: no write of an older one can land.

        Of what is the same in ``offered``, the objects there are held: they have other holders.
        """
        self._values = _like(values, _NOTHING if offered is None else offered)
        self._seq = self._landed_seq = self._doubted_seq = 0
        self._doubted_columns = _NONE

    def difference(self, values: RowValues) -> tuple[tuple[str, ...], RowValues]:
        """The columns whose value is not known to be in the database, and their values."""
        differs = tuple(map(ne, values, self._values))
        return _columns(differs), tuple(compress(values, differs))

    def next_seq(self) -> int:
        """The number of one more attempt."""
        self._seq += 1
        return self._seq

    def confirm(self, write: RowWrite) -> None:
        """The database said that the write has landed."""
        self._landed_seq = write.seq
        self._set(zip(write.columns, write.values, strict=True))

    def doubt(self, write: RowWrite) -> None:
        """Nobody knows whether the write has landed, or still will."""
        self._doubted_seq = write.seq
        self._doubted_columns |= frozenset(write.columns)
        self._forget()

    def read(self, seq: int, values: RowValues) -> None:
        """The row was read back: ``values``, put there by the write numbered ``seq``."""
        if self.is_ahead_of(seq):
            # Lost in a crash, or late: a cluster's node or a replica that lags will have them in a
            # moment. Whatever they wrote is in doubt, and that is no longer known by column.
            self._doubted_seq = max(self._doubted_seq, self._landed_seq)
            self._doubted_columns = _ALL
        self._values = _like(values, self._values)
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
        self._set(values.items())

    def overwritten(self, seq: int, values: RowValues) -> tuple[Values, Values]:
        """The columns that are known to hold something else than was read back, at ``seq``: with
        what was read back, and with what is known.

        None where the database has lost writes: then an older value is no stranger's.
        """
        found: Values = {}
        wanted: Values = {}
        if not self.is_ahead_of(seq):
            for column, value, known in zip(OWNED_COLUMNS, values, self._values, strict=True):
                if isinstance(known, int | str | None) and not same(known, value):
                    found[column], wanted[column] = value, known
        return found, wanted

    def _set(self, values: Iterable[tuple[str, Value]]) -> None:
        known = list(self._values)
        for column, value in values:
            known[_PLACES[column]] = value
        self._values = tuple(known)

    def _forget(self) -> None:
        self._values = tuple(
            _UNKNOWN if column in self._doubted_columns else value
            for column, value in zip(OWNED_COLUMNS, self._values, strict=True)
        )


def _like(values: RowValues, held: tuple[object, ...]) -> tuple[object, ...]:
    """The same values, by the objects that are held already where there are such."""
    return tuple(old if same(old, new) else new for new, old in zip(values, held, strict=True))


@lru_cache(maxsize=256)
def _columns(differs: tuple[bool, ...]) -> tuple[str, ...]:
    """The one copy of these columns' names, for all hosts."""
    return tuple(compress(OWNED_COLUMNS, differs))
