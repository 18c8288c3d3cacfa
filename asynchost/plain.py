"""Records as plain JSON types.

Pure. May live here: how a record's fields become a dictionary. Memory: nothing is kept.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from typing import Any, ClassVar


class PlainRecord:
    """A frozen dataclass that can be sent elsewhere.

    ``_derived`` names the properties that :meth:`as_dict` adds to the fields.
    """

    __slots__ = ()
    _derived: ClassVar[tuple[str, ...]] = ()

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, as JSON types: ready for ``json.dumps``.

        Records inside become dictionaries; enums become their values; times become ISO 8601 text;
        tuples and sets become lists, those of sets sorted; the keys of mappings become text.
        Values that are derived from the fields, such as ``memory_mb_used``, are there as well.
        """
        return _as_dict(self)


def plain(value: Any) -> Any:
    """``value`` as JSON types, as :meth:`PlainRecord.as_dict` describes it."""
    match value:
        case Enum():
            result = value.value
        case None | str() | int() | float():
            result = value
        case datetime():
            result = value.isoformat()
        case Mapping():
            result = {str(plain(key)): plain(one) for key, one in value.items()}
        case set() | frozenset():
            result = sorted((plain(one) for one in value), key=str)
        case tuple() if hasattr(value, "_asdict"):
            result = plain(value._asdict())
        case list() | tuple():
            result = [plain(one) for one in value]
        case _ if is_dataclass(value) and not isinstance(value, type):
            result = _as_dict(value)
        case _:
            raise TypeError(f"a {type(value).__name__} has no plain form")
    return result


def _as_dict(record: Any) -> dict[str, Any]:
    names = [field.name for field in fields(record)]
    names += getattr(record, "_derived", ())
    return {name: plain(getattr(record, name)) for name in names}
