"""The table of a host's domains: live, read-only, and calm while it is looked at."""

from collections.abc import Mapping
from datetime import UTC, datetime

import libvirt
import pytest

from asynchost.accounting import Accounting
from asynchost.agenda import Mark
from asynchost.domains import DomainMaker, DomainTable, EventKind, EventReason
from asynchost.hypervisor.domain_events import EVENTS
from asynchost.ledger import Ledger
from asynchost.model import Cause, DomainState, Observation

AT = datetime(2026, 1, 1, tzinfo=UTC)


def observed(uuid: str, state: int = 1) -> Observation:
    return Observation(uuid, f"guest {uuid}", 3, state, 0, None, 1, 2, 3)


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger(Accounting("QEMU"))
    for uuid in "abc":
        ledger.apply(observed(uuid), 10.0, Mark(Cause.EVENT, "why"))
    return ledger


@pytest.fixture
def table(ledger: Ledger) -> DomainTable:
    make = DomainMaker(Accounting("QEMU"), lambda: 12.5, lambda: AT)
    return DomainTable(lambda: ledger.by_uuid, make)


def test_the_table_is_a_mapping_that_follows_the_ledger(ledger: Ledger, table: DomainTable) -> None:
    """Nothing is copied and nothing can be put in."""
    assert isinstance(table, Mapping)
    assert (len(table), list(table), "a" in table, "x" in table) == (
        3,
        ["a", "b", "c"],
        True,
        False,
    )
    assert table["a"].name == "guest a"
    assert (table["a"].cause, table["a"].detail) == (Cause.EVENT, "why")
    assert table["a"].read_at.second == 57
    ledger.remove("a")
    assert table.get("a") is None
    with pytest.raises(KeyError):
        table["a"]
    with pytest.raises(TypeError):
        table["a"] = table["b"]  # type: ignore[index]
    assert repr(table) == "<DomainTable of 2 domains>"
    assert table == dict(table.items())


def test_iterating_goes_over_the_moment_at_which_it_began(
    ledger: Ledger, table: DomainTable
) -> None:
    """Whatever comes and goes meanwhile: no error, nothing new, nothing missing."""
    seen: dict[str, list[str]] = {"keys": [], "values": [], "items": []}
    keys, values, items = iter(table), iter(table.values()), iter(table.items())
    for uuid in "abc":
        ledger.remove(uuid)
    ledger.apply(observed("d"))
    seen["keys"] += keys
    seen["values"] += [one.uuid for one in values]
    seen["items"] += [uuid for uuid, _ in items]
    assert seen == {way: ["a", "b", "c"] for way in seen}
    assert [one.uuid for one in table.values()] == ["d"]


def test_a_state_that_is_not_known_is_libvirts_number(ledger: Ledger, table: DomainTable) -> None:
    """And one that is known is its name."""
    ledger.apply(observed("n", state=99))
    assert table["n"].state == 99
    assert not isinstance(table["n"].state, DomainState)
    assert table["a"].state is DomainState.RUNNING


def lifecycle(event: int, detail: int) -> tuple[str, str, int, int]:
    """What the library makes of libvirt's two numbers."""

    class Named:
        def UUIDString(self) -> str:  # noqa: N802 - libvirt's
            return "u"

    (kind,) = [one for one in EVENTS if one.name == "LIFECYCLE"]
    meaning = kind.translate(Named(), (event, detail)).lifecycle
    assert meaning is not None
    return (meaning.kind, meaning.reason, meaning.raw_kind, meaning.raw_reason)


def test_every_lifecycle_event_of_this_libvirt_has_its_kind_and_reason() -> None:
    """By libvirt's own names."""
    numbers = {
        name.removeprefix("VIR_DOMAIN_EVENT_"): number
        for name, number in vars(libvirt).items()
        if name.startswith("VIR_DOMAIN_EVENT_")
    }
    kinds = {kind: numbers[kind.name] for kind in EventKind if kind.name in numbers}
    assert len(kinds) == 9
    for kind, event in kinds.items():
        details = {
            name.removeprefix(f"{kind.name}_"): number
            for name, number in numbers.items()
            if name.startswith(f"{kind.name}_")
        }
        assert details
        for name, detail in details.items():
            reason = EventReason.__members__.get(name, EventReason.OTHER)
            assert lifecycle(event, detail) == (kind, reason, event, detail)


def test_what_libvirt_invents_later_is_other_with_its_numbers() -> None:
    """Neither lost nor taken for something else."""
    assert lifecycle(99, 1) == (EventKind.OTHER, EventReason.OTHER, 99, 1)
    assert lifecycle(5, 99) == (EventKind.STOPPED, EventReason.OTHER, 5, 99)
