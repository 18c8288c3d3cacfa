"""Findings, as far as they can be told without a server."""

from pathlib import Path

import pytest

from asynchost.database.url import DatabaseUrl
from asynchost.errors import (
    AsynchostError,
    CallTimeoutError,
    HypervisorRefusedError,
    HypervisorUnavailableError,
)
from asynchost.service import doctor
from asynchost.service.accounts import Told
from asynchost.service.config import HostConfig
from asynchost.service.doctor import Finding, Health, clock, daemons, examine, keepalive, tls
from asynchost.settings import MonitorSettings
from tests.unit.service.known import account
from tests.unit.service.test_standing import daemon, host

CHECKED = "mysql://me@db/nova?ssl_ca=/etc/ca.pem"


def test_a_finding_in_lines() -> None:
    """The remedy stands in a line of its own, to be copied; nothing is unescaped."""
    assert Finding(Health.OK, "clock", "right").lines() == ["ok    clock: right"]
    assert Finding(Health.MEND, "libvirt", "no\x1b", "systemctl start libvirtd").lines() == [
        "MEND  libvirt: no\\x1b",
        "      -> systemctl start libvirtd",
    ]


@pytest.mark.parametrize(
    ("url", "encrypted", "health", "words"),
    [
        (CHECKED, True, Health.OK, "checked"),
        ("mysql://me@db/nova?ssl_mode=REQUIRED", True, Health.NOTE, "whose server"),
        ("mysql://me@db/nova", False, Health.NOTE, "off"),
        ("mysql://me@127.0.0.1,db/nova", False, Health.NOTE, "off"),
        ("mysql://me@127.0.0.1,[::1]/nova", False, Health.OK, "this machine"),
        ("mysql://me@localhost/nova?unix_socket=/s", False, Health.OK, "unix socket"),
    ],
)
def test_what_tls_is_worth(url: str, encrypted: bool, health: Health, words: str) -> None:
    """Needed only where something is on the way; worth little when nothing is checked."""
    found = tls(DatabaseUrl.parse(url), encrypted)
    assert (found.health, words in found.found) == (health, True)
    assert (found.remedy is None) == (health is Health.OK)


@pytest.mark.parametrize(("seconds", "health"), [(1.9, Health.OK), (-3.0, Health.NOTE)])
def test_clocks_may_differ_a_little(seconds: float, health: Health) -> None:
    """asynchost compares none; people compare what they say."""
    assert clock(seconds).health is health
    assert clock(-3.0).found.startswith("the database's is 3.0 s ahead")
    assert clock(3.0).found.startswith("the database's is 3.0 s behind")


@pytest.mark.parametrize(
    ("answered", "health"), [(True, Health.OK), (None, Health.OK), (False, Health.MEND)]
)
def test_a_keepalive_that_is_not_answered_must_be_mended(
    answered: bool | None, health: Health
) -> None:
    """It cuts the connection again and again."""
    assert keepalive(answered, "qemu:///system").health is health


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("qemu:///system", "journalctl -u virtqemud -u libvirtd,"),
        ("xen+tls://node1/", "journalctl -u virtxend -u libvirtd there,"),
    ],
)
def test_a_mute_daemon_of_libvirts_is_looked_into(uri: str, words: str) -> None:
    """The one of the driver, where it runs. It is up, so nothing is gained by starting it anew."""
    remedy = str(keepalive(answered=False, uri=uri).remedy)
    assert words in remedy
    assert "restart" not in remedy


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (CallTimeoutError("", "virConnectListAllDomains", 30), "journalctl -u virtlxcd"),
        (CallTimeoutError("", "virConnectOpenAuth", 30), "raise max_clients"),
        (CallTimeoutError("", "virConnectGetVersion", 30), "probing its emulators"),
        (HypervisorUnavailableError("", "no socket"), "systemctl start libvirtd"),
        (HypervisorUnavailableError("", "polkit is gone"), "systemctl start dbus polkit"),
        (HypervisorRefusedError("", "denied", "let them use libvirt's socket"), "usermod -aG"),
        (HypervisorRefusedError("", "no polkit agent", "see auth.conf"), "usermod -aG"),
        (HypervisorRefusedError("", "who", "see auth.conf"), "see auth.conf"),
    ],
)
async def test_each_failure_of_libvirt_has_its_own_remedy(
    monkeypatch: pytest.MonkeyPatch, error: AsynchostError, words: str
) -> None:
    """What does not list is held up by a domain; a service that runs is not to be started."""

    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(doctor, "check_up", fail)
    monkeypatch.setattr(doctor, "probe_delivery", fail)
    told = Told([], [], [])
    hosts = [HostConfig("lxc:///system")]
    examined = examine(hosts, MonitorSettings(), None, told, probe=True)
    libvirt, probe, *_ = [one async for one in examined]
    assert (libvirt.health, words in str(libvirt.remedy)) == (Health.MEND, True)
    if isinstance(error, CallTimeoutError):
        assert "restart" not in str(libvirt.remedy), "it is up"
    # The probe shows how libvirt's events do here: where it cannot be made, nothing is broken.
    assert probe.health is Health.NOTE


def test_daemons_are_told_with_their_freshness() -> None:
    """None at all is worth a word, and so is one that does not answer."""
    told = Told(
        [account(), account(stale_seconds=3.0), account(explanation=None)], [], ["one is mute"]
    )
    found = [(one.health, one.found) for one in daemons(told)]
    assert found == [
        (Health.NOTE, "one is mute"),
        (Health.OK, "process 4711 watches qemu:///system: fresh"),
        (Health.NOTE, "process 4711 watches qemu:///system: stale for 3s"),
        (
            Health.NOTE,
            "process 4711 watches qemu:///system: not ready, it has not listed the domains yet",
        ),
    ]
    assert all(one.remedy for one in daemons(told) if one.health is Health.NOTE)
    (none,) = daemons(Told([], [], []))
    assert (none.health, "asynchost run" in str(none.remedy)) == (Health.NOTE, True)


def test_a_host_of_another_users_daemon_is_that_users_to_look_at() -> None:
    """It is said that it was not looked at, and who can: a URI may run a command."""
    theirs = account(uri="qemu+ssh://node1/system", user=0xFFFE)
    note, watched = daemons(Told([theirs], [], []))
    assert note.what == "libvirt qemu+ssh://node1/system"
    assert (note.health, "asynchost doctor" in str(note.remedy)) == (Health.NOTE, True)
    assert str(note.remedy).startswith(theirs.as_its_user)
    assert watched.health is Health.OK


async def test_a_space_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """By the host's own settings; with the reason and the way out."""
    findings = {}
    for path in (tmp_path, tmp_path / "missing"):
        host = HostConfig("test:///default", instances_path=str(path))
        examined = examine([host], MonitorSettings(), None, Told([], [], []), probe=False)
        findings[path] = [finding async for finding in examined if finding.what == "disk"]
    assert findings[tmp_path] == []
    (disk,) = findings[tmp_path / "missing"]
    assert disk.health is Health.NOTE
    assert str(tmp_path / "missing") in disk.found
    assert "instances_path" in str(disk.remedy)


def test_a_daemon_that_does_not_answer_must_be_mended() -> None:
    """It keeps no row, whatever its rows say."""
    (found,) = daemons(Told([], [], ["the daemon at /s did not answer within 10 s"]))
    assert (found.health, "wchan" in str(found.remedy)) == (Health.MEND, True)


def test_the_doctor_knows_what_the_writer_knows() -> None:
    """Owner, database and log of each daemon; each host that is kept is ok."""
    kept = host()
    stood_by = host({"state": "standing by", "owner": "rival:7"}, host="b", name="b")
    away = {"connected": False, "connection_seconds": 90.0, "reason": "Access denied"}
    statuses = [
        daemon(kept, stood_by, pid=4711),
        daemon(host({"state": "given up", "reason": "mend it"}), pid=4712, writer=away),
        daemon(kept, pid=4713, log_lines_lost=3),
    ]
    told = Told([account()], [], [], statuses)
    found = [(one.health, one.found) for one in daemons(told)]
    assert found == [
        (Health.OK, "process 4711 watches a: fresh, row owned"),
        (Health.NOTE, "process 4711 watches b: standing by; rival:7 owns the row"),
        (Health.MEND, "process 4712: no database for 2m: Access denied"),
        (Health.MEND, "process 4712 watches a: row given up: mend it"),
        (Health.NOTE, "process 4713: 3 log lines were lost, because nobody took them"),
        (Health.OK, "process 4713 watches a: fresh, row owned"),
    ]
    assert all(one.remedy for one in daemons(told) if one.health is not Health.OK)


def test_a_host_that_was_named_and_that_no_daemon_watches_is_noted() -> None:
    """Daemons of other hosts do not make it right."""
    found = list(daemons(Told([account()], [], []), [HostConfig("lxc:///system", name="c")]))
    assert [one.found for one in found if one.health is Health.NOTE] == ["none here watches c"]
