"""What disks may still grow by: each file once, last values kept, what cannot be read named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynchost.overcommit import (
    DiskReading,
    FileGrowth,
    ImpossibleSizeError,
    Overcommit,
    UnreadDisk,
    growth_bytes,
)


def reading(*unread: UnreadDisk, **sizes: int) -> DiskReading:
    """Disks whose source and file have one name, which is the keyword."""
    growth = {name: FileGrowth(name, size) for name, size in sizes.items()}
    return DiskReading(growth, unread)


@pytest.mark.parametrize(
    ("capacity", "occupied", "growth"),
    [(100, 30, 70), (100, 100, 0), (100, 101, 0), (0, 0, 0)],
    ids=["thin", "full", "with metadata", "empty"],
)
def test_a_disk_grows_to_its_capacity_and_never_shrinks(
    capacity: int, occupied: int, growth: int
) -> None:
    """One that occupies more than it holds gives no room to the others."""
    assert growth_bytes(capacity, occupied) == growth


@pytest.mark.parametrize(
    ("capacity", "occupied", "length"),
    [
        (2**64 - 1, 4096, 508),
        (2**63, 0, 2**63),
        (2**52, 0, 512),
        (-1, 0, 0),
        (100, -1, 0),
        (100, 2**63, 0),
    ],
)
def test_a_size_that_cannot_be_is_an_error(capacity: int, occupied: int, length: int) -> None:
    """libvirt takes a damaged image's header for what it says, without an error of its own."""
    with pytest.raises(ImpossibleSizeError, match="cannot be"):
        growth_bytes(capacity, occupied, length)


def test_a_size_that_a_file_really_has_is_believed() -> None:
    """Some file systems hold sparse files of exbibytes."""
    assert growth_bytes(2**52 - 1, 0) == 2**52 - 1
    assert growth_bytes(2**62, 0, length=2**62) == 2**62


def test_the_sum_is_over_all_domains() -> None:
    """Zero where there are none."""
    disks = Overcommit()
    assert disks.total_bytes == 0
    disks.read("1", reading(a=10, b=5))
    disks.read("2", reading(c=1))
    disks.read("3", reading())
    assert disks.total_bytes == 16
    assert disks.uuids == {"1", "2"}


def test_a_file_counts_once_whoever_has_it() -> None:
    """Two domains with one file, under two names; of two sizes, the one that leaves less."""
    disks = Overcommit()
    disks.read("1", DiskReading({"/a": FileGrowth("/a", 10), "/link": FileGrowth("/a", 10)}))
    disks.read("2", reading(**{"/a": 12}))
    assert disks.total_bytes == 12
    disks.gone("2")
    assert disks.total_bytes == 10


def test_a_reading_takes_the_place_of_the_last_one() -> None:
    """A disk that was detached counts no more."""
    disks = Overcommit()
    disks.read("1", reading(a=10, b=5))
    disks.read("1", reading(b=4))
    assert disks.total_bytes == 4
    disks.read("1", reading())
    assert (disks.total_bytes, disks.uuids) == (0, frozenset())


def test_a_disk_that_cannot_be_read_keeps_its_value_and_is_named() -> None:
    """The others of its domain move; when it is read again, it is named no more."""
    disks = Overcommit()
    disks.read("1", reading(a=10, b=5))
    disks.read("1", reading(UnreadDisk("vda", "a", "no permission"), b=4))
    assert disks.total_bytes == 14
    assert disks.unread == {"1": "vda: no permission"}
    disks.read("1", reading(a=9, b=4))
    assert (disks.total_bytes, disks.unread) == (13, {})


def test_a_disk_that_was_never_read_adds_nothing_and_is_named() -> None:
    """Another file in its place is another disk."""
    disks = Overcommit()
    disks.read("1", reading(a=10))
    gone, denied = UnreadDisk("vda", "a2", "no such file"), UnreadDisk("vdb", "b", "denied")
    disks.read("1", reading(gone, denied))
    assert disks.total_bytes == 0
    assert disks.unread == {"1": "vda: no such file; vdb: denied"}
    assert disks.uuids == {"1"}


def test_a_domain_that_cannot_be_read_keeps_all_its_values() -> None:
    """One that never was read is named as well."""
    disks = Overcommit()
    disks.read("1", reading(a=10))
    disks.failed("1", "no answer")
    disks.failed("2", "no answer")
    assert disks.total_bytes == 10
    assert disks.unread == {"1": "no answer", "2": "no answer"}


def test_domains_that_are_no_more_are_forgotten() -> None:
    """Their disks and what was wrong with them."""
    disks = Overcommit()
    disks.read("1", reading(a=10))
    disks.read("2", reading(b=5))
    disks.failed("3", "no answer")
    disks.keep_only(["2", "4"])
    assert (disks.total_bytes, disks.unread, disks.uuids) == (5, {}, {"2"})
    disks.failed("2", "no answer")
    disks.gone("2")
    disks.gone("2")
    assert (disks.total_bytes, disks.unread) == (0, {})


DISKS = st.dictionaries(st.sampled_from("abc"), st.integers(0, 9))


@given(st.lists(st.tuples(st.sampled_from("123"), DISKS)))
def test_whatever_the_order_the_last_readings_count(
    steps: list[tuple[str, dict[str, int]]],
) -> None:
    """The same as if only the last reading of each domain had been."""
    disks, last = Overcommit(), {}
    for uuid, sizes in steps:
        disks.read(uuid, reading(**sizes))
        last[uuid] = sizes
    files: dict[str, int] = {}
    for sizes in last.values():
        for file, size in sizes.items():
            files[file] = max(size, files.get(file, 0))
    assert disks.total_bytes == sum(files.values())
