"""What can be set about a monitor, with the reason for each default.

Pure. Settings are checked when they are made, so that a wrong one is named before anything
has been opened.
"""

from dataclasses import dataclass
from enum import StrEnum

from asynchost.accounting import DEFAULT_POLICY, Policy
from asynchost.errors import InvalidSettingError
from asynchost.plain import PlainRecord


class DiskSource(StrEnum):
    """Where the disk's figures come from."""

    PATH = "path"
    """The file system of the instances' folder, as this machine sees it."""
    POOL = "pool"
    """The host's storage pool that holds that folder."""
    NONE = "none"
    """Nowhere: the disk is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorSettings(PlainRecord):
    """How one host is watched. Times are in seconds."""

    audit_interval_seconds: float = 60.0
    """How long a change that libvirt sends no event for may go unseen: every active domain is
    read once in each interval, the reads spread over it. A minute is what pollers take. 0 turns
    the periodic audit off: only the listings at each connect and :meth:`audit` remain."""
    call_deadline_seconds: float = 5.0
    """After this a read is given up and its domain called stuck. Healthy ones take 0.2 ms."""
    listing_deadline_seconds: float = 30.0
    """For listings, opening and capabilities, which a busy host answers in many seconds."""
    keepalive_interval_seconds: int = 5
    """A daemon that hangs is noticed after interval times (count + 1)."""
    keepalive_count: int = 3
    look_again_seconds: float = 1.0
    """When to read again after an event that can come before its number: twice the longest
    delay that was seen."""
    second_resync_seconds: float = 5.0
    """When to read all domains once more after a connect, for those that were just starting or
    ending while libvirtd was away. 0 turns it off."""
    disk_interval_seconds: float = 60.0
    """How often the disk's figures are read, apart from starts and stops of domains."""
    disk: DiskSource | None = None
    """Where they come from. None: the folder's file system if the URI names no host, so that
    the hypervisor is this machine's, else the storage pool that holds the folder."""
    instances_path: str | None = None
    """The folder that holds the instances, whose file system is what ``local_gb`` means. None:
    Nova's if it exists, else libvirt's image folder."""
    read_write: bool = False
    """Open a read-write connection. Nothing here needs one, so the default is the least right."""
    policy: Policy = DEFAULT_POLICY
    """What counts: which domains, which of their figures, and what is reserved."""

    def __post_init__(self) -> None:
        for name in ("audit_interval_seconds", "second_resync_seconds"):
            self._check(name, zero="0 for never, or seconds above 0")
        for name in (
            "call_deadline_seconds",
            "listing_deadline_seconds",
            "keepalive_interval_seconds",
            "keepalive_count",
            "look_again_seconds",
            "disk_interval_seconds",
        ):
            self._check(name, zero=None)
        for name in ("keepalive_interval_seconds", "keepalive_count"):
            if not isinstance(getattr(self, name), int):
                raise InvalidSettingError(name, getattr(self, name), "give a whole number above 0")
        if not isinstance(self.policy, Policy):
            raise InvalidSettingError("policy", self.policy, "give a Policy")
        if self.disk not in (None, *DiskSource):
            raise InvalidSettingError("disk", self.disk, "give pool, path or none, or None")
        if self.instances_path is not None and not _is_full_path(self.instances_path):
            raise InvalidSettingError("instances_path", self.instances_path, "give a full path")

    def _check(self, name: str, zero: str | None) -> None:
        value = getattr(self, name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value < float("inf"):
            raise InvalidSettingError(name, value, zero or "give a number above 0")
        least, most = _BOUNDS.get(name, (0, _LONGEST_SECONDS))
        if value > most:
            raise InvalidSettingError(name, value, f"give {most:,} at most")
        if value == 0 and zero is None:
            raise InvalidSettingError(name, value, "give a number above 0")
        if value < least:
            raise InvalidSettingError(name, value, f"give {least} at least")


# What a timer can be set to: beyond it, numbers of seconds lose their sense, or overflow.
_LONGEST_SECONDS = 1_000_000_000
# libvirt counts the keepalive's time in milliseconds, and its messages, in a C int.
_LARGEST_INT = 2**31 - 1
_BOUNDS = {
    "keepalive_interval_seconds": (1, _LARGEST_INT // 1000),
    "keepalive_count": (1, _LARGEST_INT),
    "look_again_seconds": (0.001, _LONGEST_SECONDS),
}


def _is_full_path(path: object) -> bool:
    """Whether a file may have that path: bytes that the locale does not know are allowed."""
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        return False
    try:
        path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True
