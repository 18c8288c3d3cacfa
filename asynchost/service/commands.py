"""The command line: options in, one of the daemon's coroutines run, an exit status out.

What the options mean is decided in ``config.py`` and ``credentials.py``, so that every refusal
reads alike; here and in ``options.py`` they are only named and explained. The commands that
only ask are in ``questions.py``.
"""

import asyncio
import os
import sys
from typing import NamedTuple

import click

from asynchost import __version__
from asynchost.database.foreign_edits import OnForeignEdit
from asynchost.database.inspection import apply_schema
from asynchost.database.schema import FENCE, TABLE, ddl, grant_statements, nova_grant_statements
from asynchost.database.settings import WhenFenced
from asynchost.database.statements import literal
from asynchost.database.url import DatabaseUrl
from asynchost.service import config as settings
from asynchost.service import daemon
from asynchost.service.collector import calm_collector
from asynchost.service.control import remove_sockets
from asynchost.service.credentials import URL_VARIABLE, database_credentials
from asynchost.service.demo import Demo
from asynchost.service.logs import configure_logs
from asynchost.service.options import (
    choice,
    connect_option,
    database_options,
    disk_options,
    log_options,
    policy_options,
    service_id_option,
)
from asynchost.service.policies import by_option
from asynchost.service.questions import diff, doctor, explain
from asynchost.service.stopping import Stop, stop_on_signals
from asynchost.settings import MonitorSettings


class Patience(NamedTuple):
    """How long an orderly stop may take, in seconds, before the process just ends."""

    last_write: float
    """For what is dirty; less only if the database answers sooner."""
    all: float
    """For that and for closing the connections, which a hung libvirtd can draw out."""


UNATTENDED = Patience(last_write=5.0, all=8.0)
INTERACTIVE = Patience(last_write=1.5, all=1.9)
"""At a terminal somebody waits: two seconds is what feels prompt."""


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 done or stopped by a signal, 1 a fault in asynchost (of diff: a "
    "difference), 2 something to mend first, 3 every row was claimed by another agent, "
    "128 + n ended by a second signal n.",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Keep the table compute_nodes true from libvirt's events."""


@cli.command()
@connect_option(
    "A libvirt host, such as qemu:///system. May be repeated. NAME is written as "
    "hypervisor_hostname instead of what libvirt reports."
)
@database_options
@service_id_option
@policy_options
@disk_options
@click.option(
    "--audit-interval",
    metavar="SECONDS",
    help=f"Time between two audits; 0 for none. [default: {settings.AUDIT_INTERVAL_SECONDS:g}]",
)
@click.option(
    "--debounce",
    metavar="SECONDS",
    help="Write once a host has been quiet for this long; 0 for at once. "
    f"[default: {settings.QUIET_SECONDS:g}]",
)
@click.option(
    "--max-delay",
    metavar="SECONDS",
    help="Write at the latest this long after a change; 0 for at once. "
    f"[default: {settings.MAXIMUM_DELAY_SECONDS:g}]",
)
@click.option(
    "--when-fenced",
    type=choice(WhenFenced),
    default=WhenFenced.EXIT.value,
    show_default=True,
    help="When another agent has claimed a row: give it up, or stand by until that one is gone.",
)
@click.option(
    "--beside-nova",
    is_flag=True,
    help="Write rows that a nova-compute keeps, too. [default: such a host is refused]",
)
@click.option(
    "--foreign-edits",
    type=choice(OnForeignEdit),
    default=OnForeignEdit.REPAIR.value,
    show_default=True,
    help="When another program has changed a row: put it right, at most three times an hour, "
    "or only tell.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the SQL of each flush on standard output; write and claim nothing. The account "
    "needs no more than to read the table, and beside Nova its services.",
)
@click.option(
    "--read-write", is_flag=True, help="Open libvirt read-write. [default: read-only suffices]"
)
@log_options
def run(
    *,
    connects: tuple[str, ...],
    database: str | None,
    database_password_file: str | None,
    service_ids: tuple[str, ...],
    instances_paths: tuple[str, ...],
    disks: tuple[str, ...],
    audit_interval: str | None,
    debounce: str | None,
    max_delay: str | None,
    when_fenced: str,
    foreign_edits: str,
    beside_nova: bool,
    dry_run: bool,
    read_write: bool,
    log_level: str,
    log_format: str,
    **policies: tuple[str, ...],
) -> None:
    """Monitor hosts and keep their rows true until SIGINT or SIGTERM.

    A libvirtd or a database server that is not up is waited for.
    """
    quiet, maximum = settings.parse_delays(debounce, max_delay)
    config = settings.RunConfig(
        hosts=settings.parse_hosts(
            connects, service_ids, by_option(policies), disks, instances_paths
        ),
        quiet_seconds=quiet,
        maximum_delay_seconds=maximum,
        on_foreign_edit=OnForeignEdit(foreign_edits),
        when_fenced=WhenFenced(when_fenced),
        beside_nova=beside_nova,
        dry_run=dry_run,
        monitor=MonitorSettings(
            audit_interval_seconds=settings.parse_audit_interval(audit_interval),
            read_write=read_write,
        ),
    )
    credentials = database_credentials(database, database_password_file, os.environ)
    configure_logs(log_level, log_format)
    stop = Stop()
    patience = INTERACTIVE if sys.stdin.isatty() else UNATTENDED
    stop_on_signals(stop, grace_seconds=patience.all, last_act=remove_sockets)
    calm_collector()
    asyncio.run(
        daemon.run(config, credentials, stop, shutdown_deadline_seconds=patience.last_write)
    )


@cli.command()
@click.option(
    "--apply", "applies", is_flag=True, help="Create what is missing in --database; alter nothing."
)
@database_options
def schema(*, applies: bool, database: str | None, database_password_file: str | None) -> None:
    """Print the DDL of both tables and the rights on them, or create what is missing.

    The rights are printed as comments, for the account of --database where it is given.
    """
    given = bool(database or os.environ.get(URL_VARIABLE))
    if not applies and not given:
        click.echo(schema_text("nova", "asynchost"))
        return
    credentials = database_credentials(database, database_password_file, os.environ)
    if not applies:
        url = DatabaseUrl.parse(credentials.url)
        click.echo(schema_text(url.database, url.user))
        return
    states = asyncio.run(apply_schema(credentials.url, password=credentials.password))
    for state in states:
        outcome = "created" if state.created else "was there, left as it is"
        click.echo(f"{state.table}: {outcome}")


@cli.command()
@log_options
def demo(*, log_level: str, log_format: str) -> None:
    """Show the whole thing on this machine, with a private MariaDB, until Ctrl-C."""
    configure_logs(log_level, log_format)

    stop = Stop()
    show = Demo(stop, shutdown_deadline_seconds=INTERACTIVE.last_write)
    stop_on_signals(stop, grace_seconds=INTERACTIVE.all, last_act=show.remove_traces)
    calm_collector()
    asyncio.run(show.run())


for command in (explain, diff, doctor):
    cli.add_command(command)


def schema_text(database: str, user: str) -> str:
    """Both tables' DDL, and as comments the GRANTs of an account that has just enough rights."""
    account = f"{literal(user)}@'%'"
    return "\n\n".join(
        [f"{ddl(table)};" for table in (TABLE, FENCE)]
        + ["-- The rights that asynchost run needs, and no other:"]
        + [f"-- {statement};" for statement in grant_statements(database, account)]
        + ["-- In a database of Nova's also, so that new rows are complete and its own are seen:"]
        + [f"-- {statement};" for statement in nova_grant_statements(database, account)]
    )
