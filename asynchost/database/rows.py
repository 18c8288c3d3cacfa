"""What a host's row holds: from a snapshot to the columns and their values.

Pure: no SQL, no clock, no connection. The meaning of each column is settled here and nowhere
else. Memory: the values of one row.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from asynchost.database.schema import OWNED_COLUMNS
from asynchost.model import BYTES_PER_GIB, DiskUsage, HostFacts, HostSnapshot

Value = int | str | None
Values = dict[str, Value]
RowValues = tuple[Value, ...]
"""One for each of ``OWNED_COLUMNS``, in their order: positions are compared many thousand times a
second, names only told."""

NUMERIC_COLUMNS = frozenset(OWNED_COLUMNS) - {
    *("hypervisor_type", "cpu_info", "hypervisor_hostname"),
    *("free_disk_gb", "disk_available_least"),
}
"""Those whose value is a number and never NULL."""

_NO_DISK: RowValues = (0, 0, None, None)
"""local_gb and local_gb_used cannot be NULL; free_disk_gb can, and schedulers skip a row where it
is."""
_LEAST_GB = -(2**31)
"""The lowest number that the published column takes."""
_CPU_INFO_KEYS = ("arch", "model", "vendor", "topology", "features")
_MAX_ADDRESS = "maxphysaddr"
"""A key of ``cpu_info`` that is left out, as Nova does, where libvirt does not tell the value."""


class RowEncoder:
    """Makes the columns of one host's row, and remembers those of its facts and its disk.

    These change seldom, and the facts hold the one expensive value, the CPU description as JSON,
    so they are encoded again only when another object comes.
    """

    __slots__ = ("_disk", "_disk_values", "_facts", "_facts_values")

    def __init__(self) -> None:
        self._facts: HostFacts | None = None
        self._facts_values: RowValues = ()
        self._disk: DiskUsage | None = None
        self._disk_values = _NO_DISK

    def encode(self, snapshot: HostSnapshot) -> RowValues:
        """The values of all columns that come from the host, in the order of ``OWNED_COLUMNS``.

        :raises ValueError: the snapshot is not ``writable``: unknown is never zero.
        """
        facts, usage = snapshot.facts, snapshot.usage
        if not snapshot.writable or facts is None or usage is None:
            raise ValueError(f"{snapshot.host}: the snapshot is not writable")
        if facts is not self._facts:
            self._facts_values = _shared(_facts_values(facts))
            self._facts = facts
        if snapshot.disk is not self._disk:
            self._disk_values = _disk_values(snapshot.disk)
            self._disk = snapshot.disk
        used_mb = usage.memory_mb_used
        return (
            *self._facts_values,
            usage.vcpus_used,
            used_mb,
            facts.memory_mb - used_mb,
            usage.running_vms,
            usage.current_workload,
            *self._disk_values,
            snapshot.name,
        )


def supported_instances(facts: HostFacts) -> str:
    """The guests that the host can run, as Nova's wider table has them: a list of lists.

    Never NULL: Nova's readers want at least an empty list.
    """
    return json.dumps(facts.supported_instances)


def named(values: RowValues) -> Values:
    """The values by column."""
    return dict(zip(OWNED_COLUMNS, values, strict=True))


def in_order(values: Mapping[str, Value]) -> RowValues:
    """The values of all owned columns in the order of ``OWNED_COLUMNS``."""
    return tuple(values[column] for column in OWNED_COLUMNS)


def unfit(values: Mapping[str, Value]) -> Values:
    """Those values that no column can take: of another type than a number or a text, or a text
    that has no bytes in UTF-8."""
    return {column: value for column, value in values.items() if not _is_fit(value)}


def _is_fit(value: object) -> bool:
    if isinstance(value, str):
        if value.isascii():
            return True
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return False
        return True
    return value is None or isinstance(value, int)


def same(known: object, read: object) -> bool:
    """Whether a value that was read back means the value that was written.

    A column may be of another type than the published one: bytes come back of a binary column,
    padded with NULs of one of a fixed length, and of MySQL's JSON the same document with its keys
    in another order.
    """
    if known == read:
        return True
    if isinstance(read, bytes):
        if isinstance(known, int):
            return int.from_bytes(read, "big") == known
        read = read.decode("utf-8", "surrogateescape").rstrip("\0")
    if isinstance(known, int):
        return str(known) == read
    if not (isinstance(known, str) and isinstance(read, str)):
        return False
    return known == read or (known[:1] in ("{", "[") and _parsed(known) == _parsed(read))


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


@lru_cache(maxsize=256)
def _shared(values: RowValues) -> RowValues:
    """The one copy for all hosts that are alike: a thousand of them are of few kinds."""
    return values


def _facts_values(facts: HostFacts) -> RowValues:
    text = _cpu_info(facts.cpu_info)
    return facts.vcpus, facts.memory_mb, facts.hypervisor_type, facts.hypervisor_version, text


def _cpu_info(described: Mapping[str, Any]) -> str:
    cpu_info = {key: described.get(key) for key in _CPU_INFO_KEYS}
    cpu_info["features"] = sorted(cpu_info["features"] or ())
    if described.get(_MAX_ADDRESS) is not None:
        cpu_info[_MAX_ADDRESS] = described[_MAX_ADDRESS]
    # ASCII, so that a table in the old three-byte utf8 takes it, whatever it holds.
    return json.dumps(cpu_info)


SHORTEST_CPU_INFO = len(_cpu_info({}))
"""Of a host that says nothing of its CPU."""


def _disk_values(disk: DiskUsage | None) -> RowValues:
    if disk is None:
        return _NO_DISK
    least = disk.available_least_bytes
    least_gb = None if least is None else least // BYTES_PER_GIB
    if least_gb is not None and least_gb < _LEAST_GB:
        least_gb = None  # unknown, rather than a number that keeps the whole row from being written
    return disk.local_gb, disk.local_gb_used, disk.free_disk_gb, least_gb
