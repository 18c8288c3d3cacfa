"""What the database is known to hold of one row, and what is in doubt.

Pure. Memory: the values of one row, once.
"""

from collections.abc import Mapping

from asynchost.database.rows import Value, Values, difference
from asynchost.database.statements import RowWrite


class Acknowledged:
    """The values that the database confirmed, under the numbers of the writes that put them there.

    Each attempt to write has its own number, and the database takes none that is below the last
    one it took. So an attempt that was given up can land late, but never after the next one. Its
    columns are no longer known until the next write or the next reading back settles them.
    """

    __slots__ = ("_doubted_columns", "_doubted_seq", "_landed_seq", "_seq", "_values")

    def __init__(self) -> None:
        self._values: Values = {}
        self._seq = 0
        self._landed_seq = 0
        self._doubted_seq = 0
        self._doubted_columns: set[str] = set()

    def begin(self, values: Values) -> None:
        """A new term began with the row as ``values``: no write of an older one can land."""
        self._values = values
        self._seq = self._landed_seq = self._doubted_seq = 0
        self._doubted_columns.clear()

    def difference(self, values: Mapping[str, Value]) -> Values:
        """The columns whose value is not known to be in the database."""
        return difference(values, self._values)

    def next_seq(self) -> int:
        """The number of one more attempt."""
        self._seq += 1
        return self._seq

    def confirm(self, write: RowWrite) -> None:
        """The database said that the write has landed."""
        self._values.update(write.values)
        self._landed_seq = write.seq

    def doubt(self, write: RowWrite) -> None:
        """Nobody knows whether the write has landed, or still will."""
        self._doubted_seq = write.seq
        self._doubted_columns.update(write.values)
        self._forget()

    def read(self, seq: int, values: Values) -> None:
        """The row was read back: ``values``, put there by the write numbered ``seq``."""
        self._values = values
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

    @property
    def values(self) -> Mapping[str, Value]:
        """What the database is known to hold."""
        return self._values

    def overwritten(self, seq: int, values: Values) -> Values:
        """What was read back, at ``seq``, in columns that are known to hold something else.

        Nothing where the database has lost writes: then an older value is no stranger's.
        """
        if self.is_ahead_of(seq):
            return {}
        return {column: values[column] for column in difference(self._values, values)}

    def tolerate(self, values: Mapping[str, Value]) -> None:
        """Take these columns for written, though somebody else has changed them."""
        self._values = {**self._values, **values}

    def _forget(self) -> None:
        for column in self._doubted_columns:
            self._values.pop(column, None)
