"""Findings, as far as they can be told without a server."""

import pytest

from asynchost.database.url import DatabaseUrl
from asynchost.service.accounts import Told
from asynchost.service.doctor import Finding, Health, clock, daemons, keepalive, tls
from tests.unit.service.known import account

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


def test_daemons_are_told_with_their_freshness() -> None:
    """None at all is worth a word, and so is one that does not answer."""
    told = Told([account(), account(stale_seconds=3.0)], [], ["one is mute"])
    found = [(one.health, one.found) for one in daemons(told)]
    assert found == [
        (Health.NOTE, "one is mute"),
        (Health.OK, "process 4711 watches qemu:///system: fresh"),
        (Health.NOTE, "process 4711 watches qemu:///system: stale"),
    ]
    assert [one.health for one in daemons(Told([], [], []))] == [Health.NOTE]
