"""The command line: options in, one of the daemon's coroutines run, an exit status out.

What can be set is declared in ``declared.py``, and put together in ``config.py``, so that every
refusal reads alike. The commands that only ask are in ``questions.py``, those about the
configuration in ``configuring.py``.
"""

import asyncio
import os
import sys
from typing import Any, NamedTuple

import click

from asynchost import __version__
from asynchost.database.inspection import apply_schema
from asynchost.database.schema import FENCE, TABLE, ddl, grant_statements, nova_grant_statements
from asynchost.database.statements import literal
from asynchost.database.url import DatabaseUrl
from asynchost.service import daemon
from asynchost.service.collector import calm_collector
from asynchost.service.config import LogConfig
from asynchost.service.configuring import config
from asynchost.service.control import remove_sockets
from asynchost.service.demo import Demo
from asynchost.service.live import status, watch
from asynchost.service.logs import configure_logs
from asynchost.service.options import (
    ALL_OPTIONS,
    DATABASE_OPTIONS,
    LOG_OPTIONS,
    config_option,
    credentials_of,
    everything,
    files_of,
    hang_up_reloads,
    names_database,
    options,
)
from asynchost.service.questions import diff, doctor, explain
from asynchost.service.reloading import Asked, Reloader
from asynchost.service.stopping import Stop, stop_on_signals
from asynchost.service.systemd import Manager


class Patience(NamedTuple):
    """How long an orderly stop may take, in seconds, before the process just ends."""

    last_write: float
    """For what is dirty; less only if the database answers sooner."""
    all: float
    """For that and for closing the connections, which a hung libvirtd can draw out."""


_ADMINISTRATORS = ("", "root", "mysql", "mariadb", "admin")
"""The accounts that servers come with: no daemon should have their rights."""
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
@config_option
@options(*ALL_OPTIONS)
def run(*, config_place: str | None, **parameters: Any) -> None:
    """Monitor hosts and keep their rows true until SIGINT or SIGTERM.

    A libvirtd or a database server that is not up is waited for. SIGHUP reads the configuration
    again.
    """

    def read() -> Asked:
        return Asked(*everything(parameters, files_of(config_place)))

    asked = read()
    log = asked.loaded.log
    configure_logs(log.level, log.format)
    stop = Stop()
    manager = Manager(os.environ)
    reloader = Reloader(asked, read, stop, manager)
    patience = INTERACTIVE if sys.stdin.isatty() else UNATTENDED
    stop_on_signals(
        stop,
        grace_seconds=patience.all,
        last_act=remove_sockets,
        reload=reloader.request if hang_up_reloads(config_place) else None,
    )
    calm_collector()
    asyncio.run(
        daemon.run(
            asked.loaded.run,
            asked.credentials,
            stop,
            shutdown_deadline_seconds=patience.last_write,
            manager=manager,
            reloader=reloader,
        )
    )


@cli.command()
@click.option(
    "--apply", "applies", is_flag=True, help="Create what is missing in --database; alter nothing."
)
@config_option
@options(*DATABASE_OPTIONS)
def schema(*, applies: bool, config_place: str | None, **parameters: Any) -> None:
    """Print the DDL of both tables and the rights on them, or create what is missing.

    The rights are printed as comments, for the account of --database where it is given.
    """
    files = files_of(config_place)
    if not applies and not names_database(parameters, files):
        click.echo(schema_text("nova", "asynchost"))
        return
    credentials = credentials_of(parameters, files)
    if not applies:
        url = DatabaseUrl.parse(credentials.url)
        click.echo(schema_text(url.database, _agent(url)))
        return
    states = asyncio.run(apply_schema(credentials.url, password=credentials.password))
    for state in states:
        outcome = "created" if state.created else "was there, left as it is"
        click.echo(f"{state.table}: {outcome}")
    url = DatabaseUrl.parse(credentials.url)
    click.echo(account_text(url.database, _agent(url)))


@cli.command()
@options(*LOG_OPTIONS)
def demo(*, log_level: str | None, log_format: str | None) -> None:
    """Show the whole thing on this machine, with a private MariaDB, until Ctrl-C."""
    configure_logs(log_level or LogConfig().level, log_format or LogConfig().format)

    stop = Stop()
    show = Demo(stop, shutdown_deadline_seconds=INTERACTIVE.last_write)
    stop_on_signals(stop, grace_seconds=INTERACTIVE.all, last_act=show.remove_traces)
    calm_collector()
    asyncio.run(show.run())


for command in (explain, diff, doctor, config, status, watch):
    cli.add_command(command)


def _agent(url: DatabaseUrl) -> str:
    """The account to be made for the daemon: the URL's, unless that is an administrator's."""
    return "asynchost" if url.user in _ADMINISTRATORS else url.user


def schema_text(database: str, user: str) -> str:
    """Both tables' DDL, and as comments the GRANTs of an account that has just enough rights."""
    tables = [f"{ddl(table)};" for table in (TABLE, FENCE)]
    return "\n\n".join([*tables, account_text(database, user)])


def account_text(database: str, user: str) -> str:
    """The account and its rights, as comments."""
    account = f"{literal(user)}@'%'"
    return "\n\n".join(
        ["-- The account and the rights that asynchost run needs, and no other:"]
        + [f"-- CREATE USER IF NOT EXISTS {account} IDENTIFIED BY 'PASSWORD';"]
        + [f"-- {statement};" for statement in grant_statements(database, account)]
        + ["-- In a database of Nova's also, so that new rows are complete and its own are seen:"]
        + [f"-- {statement};" for statement in nova_grant_statements(database, account)]
    )
