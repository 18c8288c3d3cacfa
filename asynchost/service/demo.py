"""The whole pipeline on this machine, for somebody who wants to see it run.

A private MariaDB in a temporary folder takes the row. The host is this machine's QEMU if a
libvirtd answers there, else the test driver inside this process with domains that come and go.
Nothing of it stays when it ends, whenever that is.
"""

import os
import shutil
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack, nullcontext, suppress
from random import Random

import click
import structlog

from asynchost import Change, HostMonitor, MonitorSettings, __version__, quiet_libvirt
from asynchost.database.inspection import apply_schema
from asynchost.database.private_server import PrivateMariaDB
from asynchost.database.session import Session
from asynchost.database.url import DatabaseUrl
from asynchost.hypervisor.demo_domains import DEMO_URI, DemoDomains, answers
from asynchost.service import daemon
from asynchost.service.config import HostConfig, RunConfig
from asynchost.service.control import remove_sockets
from asynchost.service.credentials import DatabaseCredentials
from asynchost.service.stopping import Stop

_log = structlog.get_logger("asynchost.demo")

REAL_URI = "qemu:///system"
DATABASE = "demo"
_PROBE_SECONDS = 2.0
_DATABASE_DEADLINE_SECONDS = 30.0
_AUDIT_INTERVAL_SECONDS = 5.0
"""Short, so that the changes that libvirt sends no event for show up while one watches."""


class Demo:
    """One demonstration, from finding a host to leaving no trace."""

    def __init__(self, stop: Stop, *, shutdown_deadline_seconds: float) -> None:
        self._stop = stop
        self._shutdown_deadline_seconds = shutdown_deadline_seconds
        self._server = PrivateMariaDB()
        self._simulated = False

    async def run(self) -> None:
        """Show it until a stop.

        Raises what :func:`asynchost.service.daemon.run` raises, and
        :class:`~asynchost.errors.AsynchostError` where MariaDB is not installed or does not
        start. The server and its folder are gone when this returns or raises, also when it was
        cancelled.
        """
        quiet_libvirt()
        click.echo(f"asynchost {__version__}, a demonstration. Press Ctrl-C to end it.")
        async with AsyncExitStack() as stack:
            async with self._stop.interrupts():
                host, instances_path = await self._choose_host()
                url = await self._start_database(stack)
            if self._stop.requested:
                return
            await daemon.run(
                RunConfig(
                    hosts=(host,),
                    monitor=MonitorSettings(
                        audit_interval_seconds=_AUDIT_INTERVAL_SECONDS,
                        instances_path=instances_path,
                    ),
                ),
                DatabaseCredentials(url),
                self._stop,
                shutdown_deadline_seconds=self._shutdown_deadline_seconds,
                beside=self._show,
            )

    def remove_traces(self) -> None:
        """What an end at once must not leave: sockets, the server's process and its folder."""
        remove_sockets()
        if self._server.pid is not None:
            # Killed first, or it could go on making files while they are removed.
            with suppress(ProcessLookupError):
                os.kill(self._server.pid, signal.SIGKILL)
        # RuntimeError: there is no folder yet, or not any more.
        with suppress(RuntimeError):
            shutil.rmtree(self._server.folder, ignore_errors=True)

    async def _choose_host(self) -> tuple[HostConfig, str | None]:
        """The host, and the folder whose file system stands for its disk."""
        self._simulated = not await answers(REAL_URI, _PROBE_SECONDS)
        if self._simulated:
            click.echo(
                f"Host: libvirt's test driver inside this process ({DEMO_URI}), with domains\n"
                f"that come and go, since no libvirtd answers this user at {REAL_URI}."
            )
            return HostConfig(DEMO_URI, name="demo"), "/"
        click.echo(f"Host: this machine's QEMU ({REAL_URI}). Start or stop a guest to see it.")
        return HostConfig(REAL_URI), None

    async def _start_database(self, stack: AsyncExitStack) -> str:
        """Start the server, make database and tables, and return the database's URL."""
        await stack.enter_async_context(self._server)
        system = DatabaseUrl.parse(self._server.url("mysql"))
        async with await Session.connect(system, _DATABASE_DEADLINE_SECONDS) as session:
            await session.write(f"CREATE DATABASE {DATABASE}")
        url = self._server.url(DATABASE)
        await apply_schema(url)
        client = "" if shutil.which("mariadb") else " (apt-get install mariadb-client)"
        click.echo(
            f"Database: a private MariaDB in {self._server.folder}, gone at the end.\n"
            f"To look at the row from another terminal{client}:\n"
            f"  mariadb -S {self._server.socket} {DATABASE} -e 'SELECT * FROM compute_nodes\\G'"
        )
        return url

    async def _show(self, monitors: Sequence[HostMonitor]) -> None:
        """Tell each change in the host's totals, and make some if nobody else does."""
        (monitor,) = monitors
        changes = monitor.changes()
        await monitor.ready()
        random = Random()  # noqa: S311 - it decides about pretended domains only
        with DemoDomains(random) if self._simulated else nullcontext():
            async for change in changes:
                _log.info(describe(change))


def describe(change: Change) -> str:
    """A change as one short sentence: which domain, why, and what moved from what to what."""
    before, after = change.before, change.after
    numbers = (
        ("vCPUs", before.vcpus_used, after.vcpus_used, ""),
        ("memory", before.memory_mb_used, after.memory_mb_used, " MiB"),
        ("domains", before.running_vms, after.running_vms, ""),
        ("workload", before.current_workload, after.current_workload, ""),
    )
    moved = ", ".join(f"{what} {a} -> {b}{unit}" for what, a, b, unit in numbers if a != b)
    return f"{change.domain_name or 'the host'} ({change.detail or change.cause}): {moved}"
