"""The record of the last observation of each counted domain of a host, and the totals.

Pure: no clock, no loop, no libvirt. Memory: one record per domain that costs something;
domains that cost nothing are not kept, so a host's thousand defined guests weigh nothing where
only active ones count.

The totals begin with what is reserved for the host, move by the difference between a domain's
old record and its new one, and always equal a recount of the records. An event never carries a
number in: whoever holds a newer observation replaces the record, so that duplicates,
reorderings and late events are harmless.
"""

from collections.abc import Iterable, KeysView, Mapping
from typing import Final, NamedTuple

from asynchost.accounting import NOTHING, Accounting
from asynchost.agenda import Mark
from asynchost.model import Cause, Observation, Usage

_LISTED: Final = Mark(Cause.RESYNC)


class Record(NamedTuple):
    """The last observation of a domain, and what it adds to the totals."""

    observation: Observation
    cost: Usage
    read_at: float
    """When it was read, by the clock of whoever applied it."""
    mark: Mark
    """Why it was read."""


class Move(NamedTuple):
    """What one application did to one domain's cost."""

    before: Usage
    after: Usage
    read_at: float | None = None
    """When the replaced record was read; None where there was none."""

    def corrections(self) -> list[tuple[str, int, int]]:
        """The fields that differ, as (field, before, after).

        A domain that came or went is one correction, ``active``; its vCPUs and memory only
        follow. One that did so without running, by its definition or its name, is ``counted``.
        """
        before, after = self.before, self.after
        if before.running_vms != after.running_vms:
            return [("active", before.running_vms, after.running_vms)]
        if before != after and NOTHING in (before, after):
            return [("counted", int(before != NOTHING), int(after != NOTHING))]
        found = []
        if before.vcpus_used != after.vcpus_used:
            found.append(("vcpus", before.vcpus_used, after.vcpus_used))
        if before.memory_kib_used != after.memory_kib_used:
            found.append(("memory_kib", before.memory_kib_used, after.memory_kib_used))
        if before.current_workload != after.current_workload:
            found.append(("at_work", before.current_workload, after.current_workload))
        return found


class Ledger:
    """Records per UUID, and the totals over them."""

    __slots__ = ("_accounting", "_records", "_usage")

    def __init__(self, accounting: Accounting) -> None:
        self._accounting = accounting
        self._records: dict[str, Record] = {}
        self._usage = accounting.reserved

    @property
    def usage(self) -> Usage:
        """The totals now, with what is reserved."""
        return self._usage

    @property
    def uuids(self) -> KeysView[str]:
        """The counted domains: a live view."""
        return self._records.keys()

    def record(self, uuid: str) -> Record | None:
        """The domain's record; None for one that costs nothing or is not known."""
        return self._records.get(uuid)

    def records(self) -> Iterable[Record]:
        """Those of all counted domains: a live view."""
        return self._records.values()

    @property
    def by_uuid(self) -> Mapping[str, Record]:
        """The records of all counted domains now; a resync puts another mapping in its place."""
        return self._records

    def apply(self, observation: Observation, read_at: float = 0.0, mark: Mark = _LISTED) -> Move:
        """Replace the domain's record by a newer observation."""
        cost = self._accounting.cost(observation)
        if cost == NOTHING:
            return self.remove(observation.uuid)
        before = self._records.get(observation.uuid)
        self._records[observation.uuid] = Record(observation, cost, read_at, mark)
        return self._move(before, cost)

    def remove(self, uuid: str) -> Move:
        """The domain is gone. Removing one that is not there changes nothing."""
        return self._move(self._records.pop(uuid, None), NOTHING)

    def replace(
        self,
        observations: Iterable[Observation],
        keep: Iterable[str] = (),
        read_at: float = 0.0,
    ) -> None:
        """Put a full listing in place of all records.

        ``keep`` names domains that were listed but could not be read: they keep their last
        record, and one that never had a record adds nothing, since a guess is never counted.
        """
        records = {uuid: record for uuid in keep if (record := self._records.get(uuid)) is not None}
        for observation in observations:
            cost = self._accounting.cost(observation)
            if cost == NOTHING:
                records.pop(observation.uuid, None)
            else:
                records[observation.uuid] = Record(observation, cost, read_at, _LISTED)
        self._records = records
        self._usage = self.recount()

    def recount(self) -> Usage:
        """The totals summed anew from all records: equal to :attr:`usage`, always."""
        costs = [self._accounting.reserved, *(record.cost for record in self._records.values())]
        return Usage(
            sum(cost.vcpus_used for cost in costs),
            sum(cost.memory_kib_used for cost in costs),
            sum(cost.running_vms for cost in costs),
            sum(cost.current_workload for cost in costs),
        )

    def _move(self, replaced: Record | None, after: Usage) -> Move:
        before = NOTHING if replaced is None else replaced.cost
        if before != after:
            total = self._usage
            self._usage = Usage(
                total.vcpus_used + after.vcpus_used - before.vcpus_used,
                total.memory_kib_used + after.memory_kib_used - before.memory_kib_used,
                total.running_vms + after.running_vms - before.running_vms,
                total.current_workload + after.current_workload - before.current_workload,
            )
        return Move(before, after, None if replaced is None else replaced.read_at)
