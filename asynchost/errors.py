"""The one tree of errors.

::

    AsynchostError
    ├── ConfigurationError          somebody must mend something; never retried at start
    │   ├── InvalidSettingError     a value is out of range or malformed
    │   ├── HypervisorRefusedError  libvirt knows no such URI, or denies access
    │   ├── DatabaseRefusedError    password, database, table, column or grant is missing
    │   ├── AmbiguousRowError       several live rows could be this host's
    │   ├── RowConflictError        two hosts of this process would share one row
    │   ├── NovaOwnsRowError        a nova-compute that is alive keeps the row
    │   ├── ServiceMissingError     no row can be made without a service that is not there
    │   └── ServiceTakenError       the only row that the name can have is another service's
    ├── UnavailableError            gone for now: retried with backoff
    │   ├── HypervisorUnavailableError
    │   │   └── CallTimeoutError    a libvirt call outlived its deadline
    │   └── DatabaseUnavailableError
    ├── NotReadyError               no first resync yet, or no facts, so no number to give
    ├── FencedError                 another agent has claimed the host's row
    └── ClosedError                 the monitor or writer was closed

Whether an error is retryable is a property of its class. Errors hold their data and build
their text; no text ever holds a password.
"""

from collections.abc import Sequence
from typing import ClassVar

from asynchost.masking import masked_uri


class AsynchostError(Exception):
    """The base of every error that this package raises."""

    retryable: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConfigurationError(AsynchostError):
    """Something that a person must mend."""


class InvalidSettingError(ConfigurationError):
    """A setting's value is out of range or malformed."""

    def __init__(self, setting: str, value: object, expected: str) -> None:
        super().__init__(f"{setting}: {value!r} is not usable: {expected}")
        self.setting = setting
        self.value = value
        self.expected = expected


class HypervisorRefusedError(ConfigurationError):
    """libvirt will never open this URI as things stand."""

    def __init__(self, uri: str, reason: str, remedy: str) -> None:
        super().__init__(f"cannot open {masked_uri(uri)!r}: {reason}; {remedy}")
        self.uri = uri
        self.reason = reason
        self.remedy = remedy


class DatabaseRefusedError(ConfigurationError):
    """The database answers, and says no."""

    def __init__(self, database: str, code: int | None, reason: str, remedy: str) -> None:
        number = "" if code is None else f" (error {code})"
        super().__init__(f"database {database}: {reason}{number}; {remedy}")
        self.database = database
        self.code = code
        self.reason = reason
        self.remedy = remedy


class AmbiguousRowError(ConfigurationError):
    """More than one live row carries the host's name."""

    def __init__(self, hypervisor_hostname: str, rows: Sequence[tuple[int, int | None]]) -> None:
        listed = ", ".join(f"id {row} with service_id {service}" for row, service in rows)
        # Rows of one service cannot be told apart by it.
        tells_apart = len({service for _, service in rows}) == len(rows)
        choice = "say which one with service_id, or " if tells_apart else ""
        super().__init__(
            f"several live rows are named {hypervisor_hostname!r} ({listed}); {choice}"
            "soft-delete the others (UPDATE compute_nodes SET deleted = 1 WHERE id = …)"
        )
        self.hypervisor_hostname = hypervisor_hostname
        self.rows = tuple(rows)


class RowConflictError(ConfigurationError):
    """Two hosts of one process would share one row."""

    def __init__(self, hypervisor_hostname: str, hosts: Sequence[str]) -> None:
        super().__init__(
            f"{' and '.join(hosts)} would both write the row {hypervisor_hostname!r}; "
            "give each host its own name"
        )
        self.hypervisor_hostname = hypervisor_hostname
        self.hosts = tuple(hosts)


class NovaOwnsRowError(ConfigurationError):
    """A nova-compute keeps the row."""

    def __init__(self, hypervisor_hostname: str, service_host: str, service_id: int) -> None:
        super().__init__(
            f"the row of {hypervisor_hostname!r} is kept by a nova-compute that is alive (service"
            f" {service_id} on {service_host!r}), which writes its own figures into it; stop that"
            " one, give the host another name, or insist with beside_nova"
        )
        self.hypervisor_hostname = hypervisor_hostname
        self.service_host = service_host
        self.service_id = service_id


class ServiceMissingError(ConfigurationError):
    """The table takes only rows of services that are in the table ``services``."""

    def __init__(self, hypervisor_hostname: str, service_id: int) -> None:
        super().__init__(
            f"no row can be made for {hypervisor_hostname!r}: a foreign key asks for a service with"
            f" the id {service_id}, and there is none; give the id of the host's own with"
            " service_id (SELECT id, host FROM services WHERE `binary` = 'nova-compute'), or let"
            " the account read that table: asynchost schema prints the GRANT"
        )
        self.hypervisor_hostname = hypervisor_hostname
        self.service_id = service_id


class ServiceTakenError(ConfigurationError):
    """The live row has another service, and the table takes no second row of the name."""

    def __init__(self, hypervisor_hostname: str, rows: Sequence[tuple[int, int | None]]) -> None:
        listed = ", ".join(f"id {row} with service_id {service}" for row, service in rows)
        super().__init__(
            f"no row of the given service can be made for {hypervisor_hostname!r}: the table takes"
            f" only one of that name, and there is one ({listed}); leave out service_id"
        )
        self.hypervisor_hostname = hypervisor_hostname
        self.rows = tuple(rows)


class UnavailableError(AsynchostError):
    """A server is not there at the moment."""

    retryable = True


class HypervisorUnavailableError(UnavailableError):
    """libvirt cannot be reached, or the connection died."""

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(f"{masked_uri(uri)}: {reason}")
        self.uri = uri
        self.reason = reason


class CallTimeoutError(HypervisorUnavailableError):
    """A libvirt call did not return within its deadline; its thread was abandoned."""

    def __init__(self, uri: str, call: str, deadline_seconds: float) -> None:
        super().__init__(uri, f"{call} did not answer within {deadline_seconds:g} s")
        self.call = call
        self.deadline_seconds = deadline_seconds


class DatabaseUnavailableError(UnavailableError):
    """The database cannot be reached, or cannot take the statement now."""

    def __init__(self, database: str, code: int | None, reason: str) -> None:
        number = "" if code is None else f" (error {code})"
        super().__init__(f"database {database}: {reason}{number}")
        self.database = database
        self.code = code
        self.reason = reason


class NotReadyError(AsynchostError):
    """The host's first resync is not complete, or what the host is was not read yet: there is no
    number to give."""

    retryable = True

    def __init__(
        self,
        host: str,
        reason: str = "no totals before the first resync; await monitor.ready() first",
    ) -> None:
        super().__init__(f"{host}: {reason}")
        self.host = host
        self.reason = reason


class FencedError(AsynchostError):
    """Another agent has claimed the host's row; this one no longer writes it."""

    def __init__(self, hypervisor_hostname: str, owner: str, term: int) -> None:
        super().__init__(
            f"the row of {hypervisor_hostname!r} was claimed by {owner} (term {term}); "
            "this agent no longer writes it"
        )
        self.hypervisor_hostname = hypervisor_hostname
        self.owner = owner
        self.term = term


class ClosedError(AsynchostError):
    """The object was closed, or never entered."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is closed")
        self.what = what
