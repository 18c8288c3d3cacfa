"""Which disks of a domain count, by its XML. Their figures have a real libvirtd."""

import libvirt
import pytest

from asynchost.hypervisor.domain_disks import (
    Description,
    DomainUnreadError,
    FileDisk,
    Found,
    Observed,
    Place,
    VolumeDisk,
    VolumeName,
    describe,
    list_uuids,
    read_disks,
)
from asynchost.overcommit import DiskReading, FileGrowth


def domain(*disks: str, attributes: str = "") -> str:
    """A domain's XML."""
    return f"<domain type='qemu'{attributes}><devices>{''.join(disks)}</devices></domain>"


def disk(
    source: str = "<source file='/i/a'/>",
    *more: str,
    kind: str = "file",
    device: str = " device='disk'",
    target: str = "vda",
) -> str:
    """A disk's XML."""
    return f"<disk type='{kind}'{device}>{source}<target dev='{target}'/>{''.join(more)}</disk>"


BACKING = "<backingStore type='file'><format type='raw'/><source file='/i/base'/></backingStore>"


@pytest.mark.parametrize(
    "text",
    [
        disk(),
        disk(device=""),
        disk("<driver name='qemu' type='qcow2'/><source file='/i/a' index='1'/>"),
        disk("<source file='/i/a'/>", BACKING),
        disk("<source file='/i/a'/>", "<transient/>"),
    ],
    ids=["file", "no device named", "qcow2", "with a backing file", "transient"],
)
def test_a_file_counts(text: str) -> None:
    """Once, by its own name; what backs it is not written."""
    assert describe(domain(text)) == Description(False, (FileDisk("vda", "/i/a"),), ())


@pytest.mark.parametrize(
    "text",
    [
        disk(device=" device='cdrom'"),
        disk(device=" device='floppy'"),
        disk(device=" device='lun'"),
        disk("", device=" device='cdrom'"),
        disk(""),
        disk("<source/>"),
        disk("<source file='/i/a'/>", "<readonly/>"),
        disk("<source file='/i/a'/>", "<shareable/>"),
        disk("<source dev='/dev/vg/a'/>", kind="block"),
        disk("<source protocol='rbd' name='p/a'/>", kind="network"),
        disk("<source dir='/i/a'/>", kind="dir"),
        disk("<source type='pci' namespace='1'/>", kind="nvme"),
        disk("<source type='unix' path='/s'/>", kind="vhostuser"),
        "<disk type='file'><source file='/i/a'/></disk>",
        "<interface type='network'/>",
    ],
)
def test_what_is_no_thin_file_of_this_domain_alone_does_not(text: str) -> None:
    """Nor is it asked for, so that it can neither hang nor fail."""
    assert describe(domain(text)) == Description(False, (), ())


def test_a_volume_counts_by_pool_and_name() -> None:
    """Its pool knows what it is."""
    text = disk("<source pool='p' volume='v'/>", kind="volume", target="vdb")
    (volume,) = describe(domain(disk(), text)).volumes
    assert volume == VolumeDisk("vdb", "p", "v")
    assert volume.source == "volume v of pool p"


def test_an_active_domain_has_a_number() -> None:
    """Its disks' figures mean something else."""
    assert describe(domain(attributes=" id='3'")).active
    assert not describe(domain()).active
    assert not describe("<domain type='test'/>").active


# The test driver inside this process has one domain: it occupies more than it holds.


class Somewhere:
    """A place that holds every file, or none; each occupies as much."""

    def __init__(self, found: Found | None, *, in_pool: bool = False) -> None:
        self._found = found
        self.in_pool = in_pool

    def look(self, path: str) -> Found | None:
        """What was said."""
        del path
        return self._found


FILE = "/guest/diskimage1"


def growth_in(place: Place) -> DiskReading | None:
    """What the test driver's domain is read as."""
    connection = libvirt.openReadOnly("test:///default")
    try:
        (uuid,) = list_uuids(connection)
        return read_disks(connection, uuid, place)
    finally:
        connection.close()


def test_a_disk_is_read_where_it_lies_on_the_space_that_counts() -> None:
    """Its virtual size is the driver's figure, what it occupies is the file system's."""
    assert growth_in(Somewhere(None)) == DiskReading({})
    none_left = growth_in(Somewhere(Found(FILE, 2**40)))
    assert none_left == DiskReading({FILE: FileGrowth(FILE, 0)})
    blank = growth_in(Somewhere(Found(FILE, 0)))
    assert blank is not None
    assert blank.growth[FILE].size_bytes > 0


def test_of_a_file_that_is_not_seen_a_volume_tells() -> None:
    """A volume that the pool does not know is a disk that cannot be read, with advice."""
    found = Found(FILE, volume=VolumeName("default-pool", "no-such-volume"))
    reading = growth_in(Somewhere(found, in_pool=True))
    assert reading is not None
    assert reading.growth == {}
    (unread,) = reading.unread
    assert (unread.source, unread.target) == (FILE, "vda")
    assert "no-such-volume" in unread.reason
    assert "virsh pool-refresh" in unread.reason


def test_what_a_reading_waits_for_is_known_meanwhile() -> None:
    """A look at a file that hangs is told from a libvirt that hangs."""
    seen: list[str | None] = []

    class Slow(Somewhere):
        def look(self, path: str) -> Found | None:
            seen.append(observed.looks_at)
            return super().look(path)

    observed = Observed(Slow(None))
    assert growth_in(observed) == DiskReading({})
    assert seen == [FILE]
    assert observed.looks_at is None


def test_a_domain_that_is_no_more_has_no_reading() -> None:
    """That is no failure; a name that is no UUID is one."""
    connection = libvirt.openReadOnly("test:///default")
    try:
        missing = "00000000-0000-0000-0000-000000000001"
        assert read_disks(connection, missing, Somewhere(None)) is None
        with pytest.raises(DomainUnreadError, match="UUID"):
            read_disks(connection, "no", Somewhere(None))
    finally:
        connection.close()
