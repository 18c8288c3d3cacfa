"""What of two configurations differs."""

from asynchost import ComputeNodeWriter, WriterSettings
from asynchost.service.config import load
from asynchost.service.credentials import DatabaseCredentials
from asynchost.service.reloading import Asked, difference
from asynchost.testing import FakeHost

URL = "mysql://nova@db/nova"


def asked(password: str | None = None, url: str = URL, **options: list[str]) -> Asked:
    """A command line's, with two hosts unless it says otherwise."""
    texts = {name.replace("_", "-"): values for name, values in options.items()}
    hosts = {"connect": ["a=test:///1", "b=test:///2"]}
    return Asked(load({**hosts, **texts}), DatabaseCredentials(url, password))


def test_the_same_configuration_differs_in_nothing() -> None:
    """Also where a default is written out."""
    for new in (asked(), asked(when_fenced=["exit"], log_level=["info"], debounce=["0.05"])):
        found = difference(asked(), new)
        assert (list(found.gone), list(found.come)) == ([], [])
        assert (found.delays, found.password, list(found.needs_restart)) == (False, False, [])


def test_hosts_are_added_removed_and_changed() -> None:
    """By their names; what a host is watched like is part of it."""
    found = difference(asked(), asked(connect=["b=test:///2", "c=test:///3"], count=["b=defined"]))
    assert (found.added, found.removed, found.changed) == (["c"], ["a"], ["b"])
    assert [host.name for host in found.gone] == ["a", "b"]
    assert difference(asked(), asked(audit_interval=["5"])).changed == ["a", "b"]
    assert difference(asked(), asked(service_id=["a=5"])).changed == ["a"]
    assert difference(asked(), asked(connect=["a=test:///9", "b=test:///2"])).changed == ["a"]


def test_what_needs_a_restart_is_named() -> None:
    """The database's server, and what the writer is made with."""
    found = difference(
        asked(), asked(url="mysql://nova@other/nova", dry_run=["true"], log_format=["json"])
    )
    assert found.needs_restart == ["database", "dry-run", "log-format"]
    assert difference(asked("old"), asked("new")).password
    assert difference(asked(), asked(max_delay=["9"])).delays


async def test_new_delays_hold_for_hosts_that_are_attached() -> None:
    """A write that waits already waits for the new time."""
    settings = WriterSettings(quiet_seconds=1000, maximum_delay_seconds=2000)
    writer = ComputeNodeWriter("mysql://nova@localhost/nova?unix_socket=/none", settings=settings)
    host = FakeHost("a")
    attachment = writer.attach(host)
    before = attachment.due_at
    writer.use_delays(0, 0)
    assert attachment.due_at <= before - 900
    other = writer.attach(FakeHost("b"))
    assert other.due_at <= before - 900
    await writer.aclose()
