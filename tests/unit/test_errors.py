"""The error tree: every text, every class's answer to "again?", and the drawing of the tree."""

import re
from dataclasses import dataclass

import pytest

from asynchost import errors
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


@dataclass(frozen=True)
class Case:
    """One error, its text, its data and whether an attempt may be repeated."""

    error: AsynchostError
    text: str
    data: dict[str, object]
    retryable: bool = False


CASES = [
    Case(AsynchostError("something"), "something", {"message": "something"}),
    Case(ConfigurationError("mend it"), "mend it", {"message": "mend it"}),
    Case(
        InvalidSettingError("quiet_seconds", -1, "give seconds, 0 or more"),
        "quiet_seconds: -1 is not usable: give seconds, 0 or more",
        {"setting": "quiet_seconds", "value": -1, "expected": "give seconds, 0 or more"},
    ),
    Case(
        HypervisorRefusedError("quemu:///system", "unknown driver 'quemu'", "use qemu"),
        "cannot open 'quemu:///system': unknown driver 'quemu'; use qemu",
        {"uri": "quemu:///system", "reason": "unknown driver 'quemu'", "remedy": "use qemu"},
    ),
    Case(
        DatabaseRefusedError("user@db/nova", 1045, "access denied", "check the password"),
        "database user@db/nova: access denied (error 1045); check the password",
        {
            "database": "user@db/nova",
            "code": 1045,
            "reason": "access denied",
            "remedy": "check the password",
        },
    ),
    Case(
        DatabaseRefusedError("user@db/nova", None, "column vcpus is missing", "add it"),
        "database user@db/nova: column vcpus is missing; add it",
        {"code": None},
    ),
    Case(
        AmbiguousRowError("node-1", [(3, 7), (5, None)]),
        "several live rows are named 'node-1' "
        "(id 3 with service_id 7, id 5 with service_id None); "
        "say which one with service_id, or "
        "soft-delete the others (UPDATE compute_nodes SET deleted = 1 WHERE id = …)",
        {"hypervisor_hostname": "node-1", "rows": ((3, 7), (5, None))},
    ),
    Case(
        AmbiguousRowError("node-1", [(3, 7), (4, 8), (5, 7)]),
        "several live rows are named 'node-1' "
        "(id 3 with service_id 7, id 4 with service_id 8, id 5 with service_id 7); "
        "soft-delete the others (UPDATE compute_nodes SET deleted = 1 WHERE id = …)",
        {"rows": ((3, 7), (4, 8), (5, 7))},
    ),
    Case(
        RowConflictError("node-1", ["qemu:///system", "lxc:///system"]),
        "qemu:///system and lxc:///system would both write the row 'node-1'; "
        "give each host its own name",
        {"hypervisor_hostname": "node-1", "hosts": ("qemu:///system", "lxc:///system")},
    ),
    Case(
        NovaOwnsRowError("node-1", "node-1.example.org", 7),
        "the row of 'node-1' is kept by a nova-compute that is alive (service 7 on"
        " 'node-1.example.org'), which writes its own figures into it; stop that one, give the"
        " host another name, or insist with beside_nova",
        {"hypervisor_hostname": "node-1", "service_host": "node-1.example.org", "service_id": 7},
    ),
    Case(
        ServiceMissingError("node-1", 0),
        "no row can be made for 'node-1': a foreign key asks for a service with the id 0, and there"
        " is none; give the id of the host's own with service_id (SELECT id, host FROM services"
        " WHERE `binary` = 'nova-compute'), or let the account read that table: asynchost schema"
        " prints the GRANT",
        {"hypervisor_hostname": "node-1", "service_id": 0},
    ),
    Case(
        ServiceTakenError("node-1", [(3, 7), (4, None)]),
        "no row of the given service can be made for 'node-1': the table takes only one of that"
        " name, and there is one (id 3 with service_id 7, id 4 with service_id None); leave out"
        " service_id",
        {"hypervisor_hostname": "node-1", "rows": ((3, 7), (4, None))},
    ),
    Case(UnavailableError("gone"), "gone", {"message": "gone"}, retryable=True),
    Case(
        HypervisorUnavailableError("qemu:///system", "libvirtd closed the connection"),
        "qemu:///system: libvirtd closed the connection",
        {"uri": "qemu:///system", "reason": "libvirtd closed the connection"},
        retryable=True,
    ),
    Case(
        CallTimeoutError("qemu:///system", "virConnectOpenAuth", 0.5),
        "qemu:///system: virConnectOpenAuth did not answer within 0.5 s",
        {
            "uri": "qemu:///system",
            "call": "virConnectOpenAuth",
            "deadline_seconds": 0.5,
            "reason": "virConnectOpenAuth did not answer within 0.5 s",
        },
        retryable=True,
    ),
    Case(
        DatabaseUnavailableError("user@db/nova", 2003, "cannot connect"),
        "database user@db/nova: cannot connect (error 2003)",
        {"database": "user@db/nova", "code": 2003, "reason": "cannot connect"},
        retryable=True,
    ),
    Case(
        DatabaseUnavailableError("user@db/nova", None, "no answer within 5 s"),
        "database user@db/nova: no answer within 5 s",
        {"code": None},
        retryable=True,
    ),
    Case(
        NotReadyError("node-1", "not yet"),
        "node-1: not yet",
        {"host": "node-1", "reason": "not yet"},
        retryable=True,
    ),
    Case(
        NotReadyError("node-1"),
        "node-1: no totals before the first resync; await monitor.ready() first",
        {"host": "node-1"},
        retryable=True,
    ),
    Case(
        FencedError("node-1", "agent-2", 4),
        "the row of 'node-1' was claimed by agent-2 (term 4); this agent no longer writes it",
        {"hypervisor_hostname": "node-1", "owner": "agent-2", "term": 4},
    ),
    Case(ClosedError("the writer"), "the writer is closed", {"what": "the writer"}),
]

CLASSES = {
    name: one
    for name, one in vars(errors).items()
    if isinstance(one, type) and issubclass(one, Exception)
}


def names(case: Case) -> str:
    """The test's id."""
    return type(case.error).__name__


@pytest.mark.parametrize("case", CASES, ids=names)
def test_error_text_is_built_from_its_data(case: Case) -> None:
    """One line that says what is wrong and, where somebody must mend it, the way out."""
    assert str(case.error) == case.error.message == case.text
    assert {name: getattr(case.error, name) for name in case.data} == case.data


@pytest.mark.parametrize("case", CASES, ids=names)
def test_error_is_retryable_by_its_class(case: Case) -> None:
    """Whether to try again is asked of the class, not of a text or a code."""
    assert type(case.error).retryable is case.retryable


def test_every_class_is_in_the_table() -> None:
    """A new error comes with its text."""
    assert {type(case.error) for case in CASES} == set(CLASSES.values())


def test_a_retryable_error_is_none_that_a_person_must_mend() -> None:
    """The two branches never meet."""
    for one in CLASSES.values():
        assert not (issubclass(one, ConfigurationError) and one.retryable)
        assert not issubclass(one, UnavailableError) or one.retryable


def test_the_drawn_tree_is_the_tree() -> None:
    """The module's docstring draws exactly the classes that there are, each below its base."""
    assert errors.__doc__ is not None
    drawn: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in errors.__doc__.splitlines():
        found = re.match(r"    ([│ ]*)(?:[├└]── )?([A-Z]\w+Error)\b", line)
        if found is None:
            continue
        indent = found.start(2)
        while above and above[-1][0] >= indent:
            above.pop()
        drawn[found[2]] = above[-1][1] if above else "Exception"
        above.append((indent, found[2]))
    assert drawn == {name: one.__base__.__name__ for name, one in CLASSES.items() if one.__base__}
