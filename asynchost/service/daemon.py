"""The daemon's work: monitors on one side, the writer on the other, until told to stop.

May live here: the order in which the library's parts are opened and closed. Must not: how any
of them works, and nothing that ends the process. Memory: one monitor and one attachment a host.
"""

import asyncio
import errno
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import structlog

from asynchost import (
    ComputeNodeWriter,
    HostMonitor,
    MonitorSettings,
    WriterSettings,
    __version__,
    quiet_libvirt,
)
from asynchost.database.attachment import Attachment
from asynchost.errors import (
    ConfigurationError,
    DatabaseRefusedError,
    FencedError,
    RowConflictError,
)
from asynchost.service.answers import Answers
from asynchost.service.config import HostConfig, RunConfig
from asynchost.service.control import ControlSocket
from asynchost.service.credentials import DatabaseCredentials
from asynchost.service.declared import AUDIT_INTERVAL_SECONDS
from asynchost.service.hosts import Hosts
from asynchost.service.patterns import find_unmatched
from asynchost.service.reloading import Reloader
from asynchost.service.stopping import Stop
from asynchost.service.streams import OutputError, outlet_of
from asynchost.service.supervision import beat, summary, tell
from asynchost.service.systemd import Manager
from asynchost.together import first_end

_log = structlog.get_logger("asynchost.service")

_SHORTEST_READ_BACK_SECONDS = 1.0
"""A shorter audit's interval is a host's matter, and not the database's."""

Beside = Callable[[Sequence[HostMonitor]], Coroutine[Any, Any, None]]


async def run(
    config: RunConfig,
    credentials: DatabaseCredentials,
    stop: Stop,
    *,
    shutdown_deadline_seconds: float,
    beside: Beside | None = None,
    manager: Manager | None = None,
    reloader: Reloader | None = None,
) -> None:
    """Keep the rows of all hosts true until ``stop`` is requested.

    A libvirtd or a database server that is not up is waited for. At the end, what is dirty is
    written within ``shutdown_deadline_seconds`` and everything is closed, also when this is
    cancelled. ``beside`` is run beside the work, given the monitors; it should not return.
    ``manager`` is told how it stands, ``reloader`` changes hosts and delays when it is asked to.

    Raises :class:`~asynchost.errors.ConfigurationError` for what somebody must mend, at the
    start or later, and :class:`~asynchost.errors.FencedError` once no row is left to write;
    both after the same orderly end.
    """
    quiet_libvirt()
    manager = manager or Manager({})
    # A stop ends the block; then the stack is unwound, in order and undisturbed.
    async with AsyncExitStack() as stack, stop.interrupts():
        # First of all, because a URI of no known driver is refused here.
        monitors = [_new_monitor(host, host.settings(config.monitor)) for host in config.hosts]
        writer = ComputeNodeWriter(
            credentials.url,
            password=credentials.secret,
            settings=WriterSettings(
                quiet_seconds=config.quiet_seconds,
                maximum_delay_seconds=config.maximum_delay_seconds,
                shutdown_deadline_seconds=shutdown_deadline_seconds,
                read_back_interval_seconds=_read_back_interval_seconds(config),
                on_foreign_edit=config.on_foreign_edit,
                when_fenced=config.when_fenced,
                beside_nova=config.beside_nova,
            ),
            dry_run=_print if config.dry_run else None,
        )
        hosts = Hosts(writer, config.monitor, _new_monitor)
        stack.push_async_callback(hosts.aclose)
        # Entered after the hosts and so closed before them: the last write takes the monitors'
        # newest state, which a closed monitor no longer vouches for.
        await stack.enter_async_context(writer)
        # Entered last of what takes long to close, so that it is left first.
        stack.callback(manager.stopping)
        for host, monitor in zip(config.hosts, monitors, strict=True):
            await hosts.add(host, monitor)
        answers = Answers(hosts.watched, writer, dry_run=config.dry_run)
        stop.on_state_wanted(answers.log_status)
        await stack.enter_async_context(
            ControlSocket(answers.to_owner, os.environ, answer_group=answers.to_group)
        )
        _log.info("running", version=__version__, hosts=len(hosts.watched))
        await first_end(
            _until_nothing_is_written(writer, hosts.attachments),
            hosts.keep(),
            *(() if beside is None else (beside([one.monitor for one in hosts.watched]),)),
            *((_until_nobody_reads(),) if config.dry_run else ()),
            _for_ever(tell(hosts.watched, manager)),
            _for_ever(find_unmatched(hosts.watched, answers.unmatched)),
            _for_ever(beat(lambda: hosts.alive and writer.alive, manager)),
            *(
                ()
                if reloader is None
                else (reloader.run(hosts, writer, lambda: summary(hosts.watched)),)
            ),
        )
    _log.info("stopped")


async def _until_nothing_is_written(
    writer: ComputeNodeWriter, attachments: Sequence[Attachment]
) -> None:
    """Wait until no host is written, and none may be written again by itself.

    A host that is fenced is not claimed again. One that was refused while running is looked at
    again for ever. One that was refused from the beginning counts as a mistake of the
    configuration: so the process ends where there is nothing else, or where two hosts of the
    command line would share a row.

    Raises what ended the writer; :class:`~asynchost.errors.ConfigurationError` where a host was
    refused from the beginning, else :class:`~asynchost.errors.FencedError`.
    """
    while True:
        try:
            return await writer.wait()
        except DatabaseRefusedError:
            # No host's: the writer has ended.
            raise
        except (FencedError, ConfigurationError) as error:
            given_up = list(attachments)
            refused = [
                one.error
                for one in given_up
                if isinstance(one.error, ConfigurationError) and not one.was_owned
            ]
            for conflict in refused:
                if isinstance(conflict, RowConflictError):
                    raise conflict from None
            if all(_is_given_up_for_good(one) for one in given_up):
                raise (refused[0] if refused else error) from None


def _is_given_up_for_good(attachment: Attachment) -> bool:
    """Whether the process need not stay for this host."""
    error = attachment.error
    return isinstance(error, FencedError) or (error is not None and not attachment.was_owned)


def _new_monitor(host: HostConfig, settings: MonitorSettings) -> HostMonitor:
    return HostMonitor(host.uri, name=host.name, settings=settings)


async def _for_ever(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run it, and go on waiting once it has returned."""
    await coroutine
    await asyncio.Event().wait()


def _read_back_interval_seconds(config: RunConfig) -> float:
    """A row that somebody else changed is put right within an audit interval, as the totals are."""
    audit = config.monitor.audit_interval_seconds
    return max(audit, _SHORTEST_READ_BACK_SECONDS) if audit else AUDIT_INTERVAL_SECONDS


def _print(statement: str) -> None:
    print(f"{statement};", flush=True)


async def _until_nobody_reads() -> None:
    """Return once the reader of standard output has gone.

    Raises :class:`OutputError` once standard output cannot be written for another reason.
    """
    loop = asyncio.get_running_loop()
    failed: asyncio.Future[OSError] = loop.create_future()
    outlet = outlet_of(sys.stdout)

    def fail(error: OSError) -> None:
        if not failed.done():
            failed.set_result(error)

    def tell(error: OSError) -> None:
        with suppress(RuntimeError):  # the loop is closed by now
            loop.call_soon_threadsafe(fail, error)

    if outlet is not None:
        outlet.tell_lost = lambda count: f"-- {count} statements are missing: nobody read them\n"
        outlet.on_failure(tell)
    error = await failed
    if error.errno != errno.EPIPE:
        raise OutputError(error)
