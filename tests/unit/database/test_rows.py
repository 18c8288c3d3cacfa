"""The columns of a row: each value as it is meant, nothing guessed."""

import json
from dataclasses import replace

import pytest

from asynchost.database.rows import RowEncoder, Values, in_order, named, supported_instances
from asynchost.database.schema import COMPUTE_NODES_COLUMNS, OWNED_COLUMNS
from asynchost.model import DiskUsage, HostFacts, HostSnapshot, Usage

FACTS = HostFacts("node", "QEMU", 7_002_000, 8, 16_000, {"arch": "x86_64", "features": ["b", "a"]})
SNAPSHOT = HostSnapshot(
    host="qemu:///system",
    name="node",
    fresh=True,
    usage=Usage(vcpus_used=6, memory_kib_used=3 * 1024 + 1023, running_vms=2, current_workload=1),
    facts=FACTS,
    disk=DiskUsage(10 * 2**30 + 1, 3 * 2**30 + 2**29, -1),
    disk_settled=True,
)


def encoded(snapshot: HostSnapshot) -> Values:
    return named(RowEncoder().encode(snapshot))


def test_every_owned_column_has_its_value() -> None:
    """Sums floored once, differences from the floored values, disk in GiB."""
    assert encoded(SNAPSHOT) == {
        "vcpus": 8,
        "memory_mb": 16_000,
        "local_gb": 10,
        "vcpus_used": 6,
        "memory_mb_used": 3,
        "local_gb_used": 3,
        "hypervisor_type": "QEMU",
        "hypervisor_version": 7_002_000,
        "cpu_info": '{"arch": "x86_64", "model": null, "vendor": null, "topology": null,'
        ' "features": ["a", "b"]}',
        "disk_available_least": -1,
        "free_ram_mb": 15_997,
        "free_disk_gb": 7,
        "current_workload": 1,
        "running_vms": 2,
        "hypervisor_hostname": "node",
    }
    assert tuple(encoded(SNAPSHOT)) == OWNED_COLUMNS
    assert in_order(encoded(SNAPSHOT)) == RowEncoder().encode(SNAPSHOT)


def test_what_is_not_owned_is_kept_by_the_statements() -> None:
    """The other six of the 21 columns are identity and times."""
    assert set(COMPUTE_NODES_COLUMNS) - set(OWNED_COLUMNS) == {
        *("created_at", "updated_at", "deleted_at", "deleted", "id", "service_id"),
    }


def test_supported_instances_are_a_list_of_lists() -> None:
    """As Nova's wider table has them; never NULL."""
    assert supported_instances(FACTS) == "[]"
    both = (("x86_64", "kvm", "hvm"), ("x86_64", "qemu", "hvm"))
    text = supported_instances(replace(FACTS, supported_instances=both))
    assert text == '[["x86_64", "kvm", "hvm"], ["x86_64", "qemu", "hvm"]]'


def test_free_memory_may_be_negative() -> None:
    """An overcommitted host says so."""
    usage = Usage(memory_kib_used=20_000 * 1024)
    assert encoded(replace(SNAPSHOT, usage=usage))["free_ram_mb"] == -4_000


def test_unknown_disk_is_zero_where_it_must_be_and_null_where_it_may_be() -> None:
    """free_disk_gb NULL keeps schedulers away."""
    values = encoded(replace(SNAPSHOT, disk=None))
    assert (values["local_gb"], values["local_gb_used"]) == (0, 0)
    assert (values["free_disk_gb"], values["disk_available_least"]) == (None, None)


def test_known_disk_without_a_least_is_null_there() -> None:
    """Known size does not invent what the images may still take."""
    values = encoded(replace(SNAPSHOT, disk=DiskUsage(2**30, 0)))
    assert values["disk_available_least"] is None


@pytest.mark.parametrize(("gib", "told"), [(-(2**31), -(2**31)), (-(2**31) - 1, None)])
def test_a_least_that_the_column_cannot_hold_is_null(gib: int, told: int | None) -> None:
    """It holds back no other column, and no other number is written in its place."""
    values = encoded(replace(SNAPSHOT, disk=DiskUsage(2**40, 0, gib * 2**30)))
    assert values["disk_available_least"] == told
    assert values["local_gb"] == 1024


def test_cpu_info_has_the_width_of_addresses_where_it_is_known() -> None:
    """As Nova writes it: the key is left out otherwise."""
    width = {"mode": "emulate", "bits": 46}
    facts = replace(FACTS, cpu_info={**FACTS.cpu_info, "maxphysaddr": width})
    text = encoded(replace(SNAPSHOT, facts=facts))["cpu_info"]
    assert json.loads(str(text))["maxphysaddr"] == width
    assert "maxphysaddr" not in str(encoded(SNAPSHOT)["cpu_info"])


def test_cpu_info_is_ascii_json_with_all_five_keys() -> None:
    """A table in three-byte utf8 takes it, whatever a vendor calls itself."""
    facts = replace(FACTS, cpu_info={"vendor": "\U0001f427"})
    text = encoded(replace(SNAPSHOT, facts=facts))["cpu_info"]
    assert isinstance(text, str)
    assert text.isascii()
    assert json.loads(text) == {
        "arch": None,
        "model": None,
        "vendor": "\U0001f427",
        "topology": None,
        "features": [],
    }


def test_facts_are_encoded_anew_only_when_they_change() -> None:
    """The same object gives the same text; another object its own."""
    encoder = RowEncoder()
    first = named(encoder.encode(SNAPSHOT))["cpu_info"]
    assert named(encoder.encode(replace(SNAPSHOT, usage=Usage())))["cpu_info"] is first
    changed = replace(SNAPSHOT, facts=replace(FACTS, vcpus=9))
    assert named(encoder.encode(changed))["vcpus"] == 9


@pytest.mark.parametrize(
    "missing",
    [
        {"fresh": False},
        {"usage": None},
        {"facts": None},
        {"name": None},
        {"disk_settled": False},
    ],
)
def test_an_incomplete_snapshot_makes_no_row(missing: dict[str, object]) -> None:
    """Unknown is never zero."""
    with pytest.raises(ValueError, match="not writable"):
        RowEncoder().encode(replace(SNAPSHOT, **missing))  # type: ignore[arg-type]
