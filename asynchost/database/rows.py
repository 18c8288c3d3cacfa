"""What a host's row holds: from a snapshot to the columns and their values.

Pure: no SQL, no clock, no connection. The meaning of each column is settled here and nowhere
else. Memory: the values of one row.
"""

import json
from collections.abc import Mapping
from functools import lru_cache

from asynchost.model import BYTES_PER_GIB, DiskUsage, HostFacts, HostSnapshot, Usage

Value = int | str | None
Values = dict[str, Value]

_CPU_INFO_KEYS = ("arch", "model", "vendor", "topology", "features")


class RowEncoder:
    """Makes the columns of one host's row, and remembers the text of its facts.

    The facts change once per connection and hold the one expensive value, the CPU description
    as JSON, so they are encoded again only when another object comes.
    """

    __slots__ = ("_columns", "_facts")

    def __init__(self) -> None:
        self._facts: HostFacts | None = None
        self._columns: Values = {}

    def encode(self, snapshot: HostSnapshot) -> Values:
        """All columns that come from the host, with their values.

        :raises ValueError: the snapshot is not ``writable``: unknown is never zero.
        """
        facts, usage = snapshot.facts, snapshot.usage
        if not snapshot.writable or facts is None or usage is None:
            raise ValueError(f"{snapshot.host}: the snapshot is not writable")
        if facts is not self._facts:
            self._columns = _shared(tuple(_facts_columns(facts).items()))
            self._facts = facts
        return {
            **self._columns,
            **_usage_columns(usage, facts.memory_mb),
            **_disk_columns(snapshot.disk),
            "hypervisor_hostname": snapshot.name,
        }


def supported_instances(facts: HostFacts) -> str:
    """The guests that the host can run, as Nova's wider table has them: a list of lists.

    Never NULL: Nova's readers want at least an empty list.
    """
    return json.dumps(facts.supported_instances)


def difference(values: Mapping[str, Value], acknowledged: Mapping[str, Value]) -> Values:
    """The columns whose value is not the one that the database is known to hold."""
    return {
        column: value
        for column, value in values.items()
        if column not in acknowledged or acknowledged[column] != value
    }


@lru_cache(maxsize=256)
def _shared(columns: tuple[tuple[str, Value], ...]) -> Values:
    """The one copy for all hosts that are alike: a thousand of them are of few kinds."""
    return dict(columns)


def _facts_columns(facts: HostFacts) -> Values:
    cpu_info = {key: facts.cpu_info.get(key) for key in _CPU_INFO_KEYS}
    cpu_info["features"] = sorted(cpu_info["features"] or ())
    return {
        "vcpus": facts.vcpus,
        "memory_mb": facts.memory_mb,
        "hypervisor_type": facts.hypervisor_type,
        "hypervisor_version": facts.hypervisor_version,
        # ASCII, so that a table in the old three-byte utf8 takes it, whatever it holds.
        "cpu_info": json.dumps(cpu_info),
    }


def _usage_columns(usage: Usage, memory_mb: int) -> Values:
    return {
        "vcpus_used": usage.vcpus_used,
        "memory_mb_used": usage.memory_mb_used,
        "free_ram_mb": memory_mb - usage.memory_mb_used,
        "running_vms": usage.running_vms,
        "current_workload": usage.current_workload,
    }


def _disk_columns(disk: DiskUsage | None) -> Values:
    if disk is None:
        # local_gb and local_gb_used cannot be NULL; free_disk_gb can, and schedulers skip
        # a row where it is.
        return {
            "local_gb": 0,
            "local_gb_used": 0,
            "free_disk_gb": None,
            "disk_available_least": None,
        }
    least = disk.available_least_bytes
    return {
        "local_gb": disk.local_gb,
        "local_gb_used": disk.local_gb_used,
        "free_disk_gb": disk.free_disk_gb,
        "disk_available_least": None if least is None else least // BYTES_PER_GIB,
    }
