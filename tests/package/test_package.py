"""The Debian package: installed, started, reloaded, upgraded and purged under a real systemd.

Run by ``./dev test --group package``, which builds the packages and makes the roots.
"""

import os
from pathlib import Path

import pytest

from tests.package.guest import Guest, next_version
from tests.support.waiting import eventually, eventually_equal

REPOSITORY = Path(__file__).parents[2]
ROOTS_VARIABLE = "ASYNCHOST_PACKAGE_ROOTS"
UNIT = "asynchost.service"
HOST = '[[host]]\nname = "{}"\nconnect = "test:///default?{}"\n'
DATABASE = "mysql://asynchost@localhost/nova?unix_socket=/run/mysqld/mysqld.sock"
SERVER = "mysql://root@localhost/nova?unix_socket=/run/mysqld/mysqld.sock"

pytestmark = [pytest.mark.group("package"), pytest.mark.timeout(600)]


@pytest.fixture(params=["debian12", "debian13"])
def debian(request: pytest.FixtureRequest) -> str:
    """The name of a Debian that there is a package for."""
    return str(request.param)


@pytest.fixture
def package(debian: str) -> Path:
    """The package that was built for it."""
    (found,) = (REPOSITORY / "dist" / debian).glob("asynchost_*.deb")
    return found


@pytest.fixture
def guest(debian: str) -> Guest:
    """A fresh machine with MariaDB, and without anything of asynchost's."""
    return Guest(Path(os.environ[ROOTS_VARIABLE]) / f"try-{debian}")


def names(guest: Guest) -> list[str]:
    """The hosts that have a row."""
    return guest.sql("SELECT hypervisor_hostname FROM nova.compute_nodes ORDER BY 1").split()


async def test_it_installs_starts_upgrades_and_purges(
    guest: Guest, package: Path, tmp_path: Path
) -> None:
    """Without a network, from nothing to nothing."""
    newer = next_version(package, tmp_path)
    async with guest:
        installs(guest, package)
        gets_a_database(guest)
        await starts(guest)
        await reloads(guest)
        await is_begun_anew(guest)
        await upgrades(guest, newer)
        await does_not_start_where_a_person_is_needed(guest)
        purges(guest)


def installs(guest: Guest, package: Path) -> None:
    """Everything has its place; nothing is started before there is a configuration."""
    guest.run("dpkg", "-i", guest.take(package))
    assert guest.run("asynchost", "--version").startswith("asynchost ")
    assert guest.run("id", "-gn", "asynchost").strip() == "asynchost"
    assert guest.shows(UNIT, "ActiveState") == "inactive"
    assert guest.shows(UNIT, "UnitFileState") == "disabled"
    assert "--connect is missing" in guest.run("asynchost", "config", "check", status=2)
    listed = guest.run("dpkg", "-L", "asynchost")
    for path in (
        "/usr/share/man/man1/asynchost.1.gz",
        "/usr/share/man/man5/asynchost.toml.5.gz",
        "/usr/share/bash-completion/completions/asynchost",
        "/usr/share/zsh/vendor-completions/_asynchost",
        "/etc/asynchost/asynchost.toml",
        "/etc/asynchost/conf.d",
    ):
        assert path in listed.splitlines()
    conffiles = guest.run("dpkg-query", "--show", "--showformat=${Conffiles}", "asynchost")
    assert "/etc/asynchost/asynchost.toml" in conffiles


def gets_a_database(guest: Guest) -> None:
    """With an account that logs in by its user, and has no password."""
    guest.sql("CREATE DATABASE nova")
    guest.run("asynchost", "schema", "--apply", "--database", SERVER)
    guest.sql("CREATE USER asynchost@localhost IDENTIFIED VIA unix_socket")
    guest.sql("GRANT ALL ON nova.* TO asynchost@localhost")
    text = f'database = "{DATABASE}"\ndisk = "none"\n{HOST.format("a", "a")}'
    guest.write("/etc/asynchost/asynchost.toml", text)


async def starts(guest: Guest) -> None:
    """``systemctl start`` returns when the row is there, and the status line says so."""
    guest.run("asynchost", "config", "check")
    guest.run("systemctl", "enable", "--now", UNIT)
    assert names(guest) == ["a"]
    assert guest.shows(UNIT, "ActiveState") == "active"
    assert guest.shows(UNIT, "StatusText") == "1 host: 1 written"
    pid = guest.shows(UNIT, "MainPID")
    assert guest.run("ps", "-o", "user=", "-p", pid).strip() == "asynchost"
    assert "fresh" in guest.run("asynchost", "doctor", status=2)  # no libvirtd is here
    guest.write("/tmp/complete", "")
    offered = guest.run(
        *("env", "_ASYNCHOST_COMPLETE=bash_complete", "COMP_CWORD=2"),
        *("COMP_WORDS=asynchost explain ", "asynchost"),
    )
    assert offered.split() == ["plain,a"]


async def reloads(guest: Guest) -> None:
    """A host comes by ``systemctl reload``; a bad file is told in the journal, and harms nobody."""
    guest.write("/etc/asynchost/conf.d/b.toml", HOST.format("b", "b"))
    guest.run("systemctl", "reload", UNIT)
    await eventually_equal(lambda: names(guest), ["a", "b"])
    guest.write("/etc/asynchost/conf.d/c.toml", "nonsense = 1\n")
    guest.run("systemctl", "reload", UNIT)
    journal = ("journalctl", "--quiet", "--unit", UNIT, "--priority", "err", "--output", "cat")
    await eventually(lambda: "unknown key" in guest.run(*journal), 10)
    assert guest.shows(UNIT, "ActiveState") == "active"
    guest.run("rm", "/etc/asynchost/conf.d/c.toml")
    guest.run("systemctl", "reload", UNIT)


async def is_begun_anew(guest: Guest) -> None:
    """After it was killed, and after it stood still for longer than the watchdog allows."""
    guest.run("systemctl", "kill", "--signal=KILL", UNIT)
    await eventually_equal(lambda: guest.shows(UNIT, "NRestarts"), "1", 30)
    await eventually_equal(lambda: guest.shows(UNIT, "SubState"), "running", 30)
    guest.write("/etc/systemd/system/asynchost.service.d/dog.conf", "[Service]\nWatchdogSec=2\n")
    guest.run("systemctl", "daemon-reload")
    guest.run("systemctl", "restart", UNIT)
    guest.run("systemctl", "kill", "--signal=STOP", UNIT)
    await eventually_equal(lambda: guest.shows(UNIT, "NRestarts"), "1", 60)
    await eventually_equal(lambda: guest.shows(UNIT, "SubState"), "running", 30)


async def upgrades(guest: Guest, newer: Path) -> None:
    """The daemon is started anew, with the configuration as the operator has written it."""
    before = guest.shows(UNIT, "MainPID")
    guest.run("dpkg", "-i", guest.take(newer))
    await eventually_equal(lambda: guest.shows(UNIT, "SubState"), "running", 30)
    assert guest.shows(UNIT, "MainPID") != before
    assert "+next" in guest.run("dpkg-query", "--show", "asynchost")
    assert DATABASE in guest.run("cat", "/etc/asynchost/asynchost.toml")


async def does_not_start_where_a_person_is_needed(guest: Guest) -> None:
    """It ends with status 2, and systemd leaves it at that."""
    guest.write("/etc/asynchost/conf.d/c.toml", "nonsense = 1\n")
    guest.run("systemctl", "restart", UNIT, status=1)
    assert guest.shows(UNIT, "ExecMainStatus") == "2"
    assert guest.shows(UNIT, "ActiveState") == "failed"
    guest.run("rm", "/etc/asynchost/conf.d/c.toml", "/etc/asynchost/conf.d/b.toml")
    guest.run("systemctl", "restart", UNIT)


def purges(guest: Guest) -> None:
    """The service is stopped in order, and nothing of the package stays."""
    guest.run("rm", "-r", "/etc/systemd/system/asynchost.service.d")
    guest.run("dpkg", "--purge", "asynchost")
    states = guest.sql("SELECT node, state FROM nova.asynchost_fence ORDER BY 1")
    assert "a\tstopped" in states
    for path in (
        "/usr/lib/asynchost",
        "/usr/bin/asynchost",
        "/etc/asynchost",
        "/var/lib/asynchost",
    ):
        assert not guest.has(path), path
    assert guest.shows(UNIT, "LoadState") == "not-found"
