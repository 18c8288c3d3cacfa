"""What the command line says reaches the library: every option, and none in another's place."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from asynchost import DiskSource, HostMonitor, MonitorSettings, Policy, WriterSettings
from asynchost.accounting import Counted, CountedMemory
from asynchost.database.foreign_edits import OnForeignEdit
from asynchost.database.settings import WhenFenced
from asynchost.service import commands, daemon
from asynchost.service.__main__ import run
from asynchost.service.config import HostConfig, RunConfig
from asynchost.service.credentials import DatabaseCredentials
from asynchost.service.stopping import Stop

URL = "mysql://nova@db/nova"
POLICY = Policy(
    count=Counted.DEFINED,
    memory=CountedMemory.MAXIMUM,
    reserved_vcpus=2,
    reserved_memory_mb=512,
    domain_0_memory=False,
    domain_0_vcpus=True,
    include=("web-*",),
    exclude=("web-9",),
)
CONFIG = RunConfig(
    hosts=(
        HostConfig(
            "qemu:///system",
            name="a",
            service_id=7,
            policy=POLICY,
            policy_given=frozenset(Policy.__dataclass_fields__),
            disk=DiskSource.POOL,
            instances_path="/srv",
        ),
    ),
    quiet_seconds=0.25,
    maximum_delay_seconds=2.5,
    on_foreign_edit=OnForeignEdit.REPORT,
    when_fenced=WhenFenced.WAIT,
    beside_nova=True,
    dry_run=True,
    monitor=MonitorSettings(audit_interval_seconds=30.0, read_write=True),
)
"""Nothing in it is as it is by default."""
OPTIONS = [
    *("--connect", "a=qemu:///system", "--service-id", "7", "--database", URL),
    *("--count", "defined", "--memory", "maximum", "--reserved-vcpus", "2"),
    *("--reserved-memory", "512", "--domain-0", "vcpus", "--only", "web-*", "--except", "web-9"),
    *("--disk", "pool", "--instances-path", "/srv", "--debounce", "0.25", "--max-delay", "2.5"),
    *("--foreign-edits", "report", "--when-fenced", "wait", "--beside-nova", "--dry-run"),
    *("--audit-interval", "30", "--read-write"),
]


class OpenedError(Exception):
    """All is handed over, and nothing shall be done with it."""


def test_every_option_of_run_is_in_the_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Beside the password, which comes from a file."""
    handed: list[Any] = []

    async def take(*arguments: Any, **_: Any) -> None:
        handed.extend(arguments[:2])

    monkeypatch.setattr(daemon, "run", take)
    for name in ("configure_logs", "calm_collector", "stop_on_signals"):
        monkeypatch.setattr(commands, name, lambda *_, **__: None)
    monkeypatch.delenv("ASYNCHOST_DATABASE", raising=False)
    monkeypatch.delenv("ASYNCHOST_DATABASE_PASSWORD", raising=False)
    monkeypatch.setenv("ASYNCHOST_CONFIG", os.devnull)
    secret = tmp_path / "secret"
    secret.write_text("hush\n")
    assert run(["run", *OPTIONS, "--database-password-file", str(secret)]) == 0
    assert handed == [CONFIG, DatabaseCredentials(URL, "hush")]


async def test_the_configuration_is_in_the_settings_of_monitor_and_writer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of it; the deadline of a stop is the command's."""
    handed: dict[str, Any] = {}

    def monitor(uri: str, **settings: Any) -> HostMonitor:
        handed.update(uri=uri, **{f"monitor_{name}": value for name, value in settings.items()})
        return HostMonitor(uri, **settings)

    def writer(url: str, **settings: Any) -> None:
        handed.update(url=url, **settings)
        raise OpenedError

    monkeypatch.setattr(daemon, "HostMonitor", monitor)
    monkeypatch.setattr(daemon, "ComputeNodeWriter", writer)
    monkeypatch.setattr(daemon, "quiet_libvirt", lambda: None)
    with pytest.raises(OpenedError):
        await daemon.run(
            CONFIG, DatabaseCredentials(URL, "hush"), Stop(), shutdown_deadline_seconds=1.5
        )
    prints = handed.pop("dry_run")
    assert callable(prints)
    expected: Mapping[str, Any] = {
        "uri": "qemu:///system",
        "monitor_name": "a",
        "monitor_settings": MonitorSettings(
            audit_interval_seconds=30.0,
            read_write=True,
            policy=POLICY,
            disk=DiskSource.POOL,
            instances_path="/srv",
        ),
        "url": URL,
        "password": "hush",
        "settings": WriterSettings(
            quiet_seconds=0.25,
            maximum_delay_seconds=2.5,
            shutdown_deadline_seconds=1.5,
            read_back_interval_seconds=30.0,
            on_foreign_edit=OnForeignEdit.REPORT,
            when_fenced=WhenFenced.WAIT,
            beside_nova=True,
        ),
    }
    assert handed == expected


@pytest.mark.parametrize(("audit", "read_back"), [(0, 60), (0.1, 1), (7, 7), (600, 600)])
def test_rows_are_read_back_as_often_as_hosts_are_audited(audit: float, read_back: float) -> None:
    """Not more often than every second, and also where there is no audit."""
    config = replace(CONFIG, monitor=MonitorSettings(audit_interval_seconds=audit))
    assert daemon._read_back_interval_seconds(config) == read_back


def test_nothing_in_the_configuration_is_as_by_default() -> None:
    """Else an option that is dropped on the way would not be missed."""
    default = RunConfig(hosts=(HostConfig("x:///"),))
    (host,), (plain,) = CONFIG.hosts, default.hosts
    pairs: list[tuple[Any, Any]] = [(CONFIG, default), (host, plain), (host.policy, plain.policy)]
    for given, usual in pairs:
        for name in given.__dataclass_fields__:
            assert getattr(given, name) != getattr(usual, name), name
    for name in ("audit_interval_seconds", "read_write"):
        assert getattr(CONFIG.monitor, name) != getattr(default.monitor, name)
