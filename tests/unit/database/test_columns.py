"""What columns take, by what servers say of them: MariaDB's words and MySQL 8's."""

import re

import pytest

from asynchost.database.columns import Column, Misfit, mend, misfit, neutral
from asynchost.database.schema import COMPUTE_NODES_COLUMNS, OWNED_COLUMNS


def column(name: str, full_type: str, *, null: bool = False, length: int | None = None) -> Column:
    """A column of compute_nodes without a default."""
    return Column.described(
        (
            *("compute_nodes", name, re.findall(r"\w+", full_type)[0], full_type),
            *("YES" if null else "NO", None, "", "select,insert,update", length, None, ""),
        )
    )


@pytest.mark.parametrize("name", OWNED_COLUMNS)
def test_the_published_columns_fit(name: str) -> None:
    """As MariaDB shows them, and as MySQL 8 does, which has no display widths."""
    kind, _, rest = COMPUTE_NODES_COLUMNS[name].partition(" ")
    length = {"mediumtext": 16_777_215, "varchar(255)": 255}.get(kind)
    for shown in (kind, kind.replace("int(11)", "int")):
        assert misfit(column(name, shown, null=rest == "default NULL", length=length)) is None


@pytest.mark.parametrize(
    ("name", "full_type", "length"),
    [
        ("memory_mb", "bigint(20)", None),
        ("memory_mb", "int(10) unsigned", None),
        ("memory_mb", "mediumint unsigned", None),
        ("vcpus_used", "smallint", None),
        ("memory_mb", "decimal(12,0)", None),
        ("running_vms", "double", None),
        ("free_ram_mb", "bigint", None),
        ("cpu_info", "text", 65_535),
        ("cpu_info", "longtext", 4_294_967_295),
        ("cpu_info", "varchar(8000)", 8000),
        ("cpu_info", "json", None),
        ("cpu_info", "blob", 65_535),
        ("hypervisor_type", "varchar(16)", 16),
        ("hypervisor_type", "enum('QEMU','Xen')", 4),
        ("hypervisor_hostname", "varchar(64)", 64),
        ("memory_mb", "a type of the future", None),
        ("updated_at", "date", None),
        ("somebodys_own", "tinyint(1)", None),
    ],
)
def test_what_works_is_nothing_to_tell_of(name: str, full_type: str, length: int | None) -> None:
    """Other types that hold the same, and whatever is not ours."""
    assert misfit(column(name, full_type, length=length)) is None


@pytest.mark.parametrize(
    ("name", "full_type", "length", "reason", "change"),
    [
        ("cpu_info", "varchar(20)", 20, "no more than 20 characters", "mediumtext NOT NULL"),
        ("cpu_info", "int(11)", None, "no text", "mediumtext NOT NULL"),
        ("hypervisor_type", "char(1)", 1, "no more than 1 characters", "mediumtext NOT NULL"),
        ("hypervisor_hostname", "bigint", None, "no text", "varchar(255) NOT NULL"),
        ("cpu_info", "multipolygon", None, "no text", "mediumtext NOT NULL"),
        ("hypervisor_type", "geomcollection", None, "no text", "mediumtext NOT NULL"),
        ("vcpus", "varbinary(20)", 20, "no number that can be read back", "int(11) NOT NULL"),
        ("memory_mb", "longblob", None, "no number that can be read back", "int(11) NOT NULL"),
    ],
)
def test_what_holds_no_hosts_value_is_hopeless(
    name: str, full_type: str, length: int | None, reason: str, change: str
) -> None:
    """With the column as it was published for a remedy."""
    assert misfit(column(name, full_type, length=length)) == Misfit(
        f"the column {name} ({full_type}) holds {reason}", f"MODIFY `{name}` {change}", True
    )


@pytest.mark.parametrize(
    ("name", "full_type", "length", "reason", "change"),
    [
        ("cpu_info", "varchar(255)", 255, "no more than 255 characters", "mediumtext NOT NULL"),
        ("memory_mb", "smallint(6)", None, "no more than 32767", "int(11) NOT NULL"),
        ("memory_mb", "smallint unsigned", None, "no more than 65535", "int(11) NOT NULL"),
        ("vcpus", "tinyint(4)", None, "no more than 127", "int(11) NOT NULL"),
        ("hypervisor_version", "mediumint(9)", None, "no more than 8388607", "int(11) NOT NULL"),
        ("free_ram_mb", "bigint unsigned", None, "nothing below 0", "bigint NOT NULL"),
        ("free_ram_mb", "mediumint unsigned", None, "nothing below 0", "int(11) NOT NULL"),
        ("free_disk_gb", "bigint", None, "no NULL", "bigint DEFAULT NULL"),
        (
            *("disk_available_least", "smallint(5) unsigned zerofill", None),
            *("no more than 65535 and nothing below 0 and no NULL", "int(11) DEFAULT NULL"),
        ),
    ],
)
def test_what_may_do_for_some_hosts_is_not_hopeless(
    name: str, full_type: str, length: int | None, reason: str, change: str
) -> None:
    """Nothing is made smaller by the remedy."""
    assert misfit(column(name, full_type, length=length)) == Misfit(
        f"the column {name} ({full_type}) holds {reason}", f"MODIFY `{name}` {change}", False
    )


def test_one_statement_mends_all() -> None:
    """And leaves NULL allowed where it is."""
    found = [
        misfit(column("running_vms", "tinyint", null=True)),
        misfit(column("vcpus", "tinyint")),
    ]
    assert mend([one for one in found if one]) == (
        "ALTER TABLE `compute_nodes` MODIFY `running_vms` int(11) DEFAULT NULL,"
        " MODIFY `vcpus` int(11) NOT NULL"
    )


@pytest.mark.parametrize(
    ("full_type", "value"),
    [
        ("tinyint(1)", "0"),
        ("bigint unsigned", "0"),
        ("decimal(5,2)", "0"),
        ("year(4)", "0"),
        ("varchar(9)", "''"),
        ("longblob", "''"),
        ("set('a','b')", "''"),
        ("datetime(6)", "UTC_TIMESTAMP()"),
        ("json", "'{}'"),
        ("enum('a','b')", None),
        ("point", None),
        ("inet6", None),
    ],
)
def test_a_value_that_says_nothing(full_type: str, value: str | None) -> None:
    """For each kind of type; of the others none is known."""
    assert neutral(column("mine", full_type)) == value
    assert neutral(column("mine", full_type), is_json=True) == "'{}'"
