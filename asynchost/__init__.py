"""An asyncio, event-driven monitor of libvirt hosts that keeps ``compute_nodes`` true.

:class:`HostMonitor` watches one host; :class:`ComputeNodeWriter` writes what monitors find to
the table ``compute_nodes``. Neither configures logging, installs a signal handler or leaves
anything behind.
"""

from asynchost.accounting import Counted, CountedMemory, Policy
from asynchost.database.foreign_edits import OnForeignEdit
from asynchost.database.settings import WhenFenced, WriterSettings
from asynchost.database.status import WriterStatus
from asynchost.database.writer import ComputeNodeWriter
from asynchost.domains import Domain, DomainEvent, EventKind, EventReason, Origin
from asynchost.errors import (
    AmbiguousRowError,
    AsynchostError,
    CallTimeoutError,
    ClosedError,
    ConfigurationError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    FencedError,
    HypervisorRefusedError,
    HypervisorUnavailableError,
    InvalidSettingError,
    NotReadyError,
    NovaOwnsRowError,
    RowConflictError,
    ServiceMissingError,
    ServiceTakenError,
    UnavailableError,
)
from asynchost.explanation import DomainAccount, Explanation
from asynchost.hypervisor.libvirt_errors import quiet_libvirt
from asynchost.model import (
    Cause,
    Change,
    ChangeKind,
    DiskUsage,
    DomainState,
    Drift,
    HostFacts,
    HostSnapshot,
    MonitorStatus,
    Observation,
    SnapshotSource,
    Usage,
    UsageDelta,
)
from asynchost.monitor import HostMonitor
from asynchost.settings import DiskSource, MonitorSettings
from asynchost.subscription import DomainEvents, DriftSubscription, Snapshots, Subscription

__all__ = [
    "AmbiguousRowError",
    "AsynchostError",
    "CallTimeoutError",
    "Cause",
    "Change",
    "ChangeKind",
    "ClosedError",
    "ComputeNodeWriter",
    "ConfigurationError",
    "Counted",
    "CountedMemory",
    "DatabaseRefusedError",
    "DatabaseUnavailableError",
    "DiskSource",
    "DiskUsage",
    "Domain",
    "DomainAccount",
    "DomainEvent",
    "DomainEvents",
    "DomainState",
    "Drift",
    "DriftSubscription",
    "EventKind",
    "EventReason",
    "Explanation",
    "FencedError",
    "HostFacts",
    "HostMonitor",
    "HostSnapshot",
    "HypervisorRefusedError",
    "HypervisorUnavailableError",
    "InvalidSettingError",
    "MonitorSettings",
    "MonitorStatus",
    "NotReadyError",
    "NovaOwnsRowError",
    "Observation",
    "OnForeignEdit",
    "Origin",
    "Policy",
    "RowConflictError",
    "ServiceMissingError",
    "ServiceTakenError",
    "SnapshotSource",
    "Snapshots",
    "Subscription",
    "UnavailableError",
    "Usage",
    "UsageDelta",
    "WhenFenced",
    "WriterSettings",
    "WriterStatus",
    "quiet_libvirt",
]

__version__ = "0.1.0.dev0"
