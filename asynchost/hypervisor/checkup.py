"""Whether a host can be watched from here: one look at each thing that watching takes.

Starts nothing and changes nothing, except that :func:`probe_delivery` starts a domain of the
test driver inside this process, which nobody else can see.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from time import monotonic
from typing import Final

import libvirt

from asynchost.agenda import Mark
from asynchost.errors import (
    CallTimeoutError,
    HypervisorRefusedError,
    HypervisorUnavailableError,
)
from asynchost.hypervisor.batch import Read, read_domain
from asynchost.hypervisor.connection import Connection
from asynchost.hypervisor.disk import DiskUnknownError
from asynchost.hypervisor.disk_watch import SpaceReader
from asynchost.hypervisor.domain_events import DomainEvent
from asynchost.hypervisor.event_loop import EVENT_LOOP
from asynchost.hypervisor.host_facts import read_version
from asynchost.model import Cause
from asynchost.settings import DiskSource, MonitorSettings

_PROBE: Final = (
    "<domain type='test'><name>asynchost-probe</name><memory>1024</memory>"
    "<os><type>hvm</type></os></domain>"
)
_PROBE_SECONDS: Final = 5.0
_KEEPALIVE: Final = (1, 1)
"""Interval in seconds and count: the shortest that libvirt takes, so that it is soon told."""
_KEEPALIVE_SECONDS: Final = 2.5
"""A daemon that does not answer is cut off by libvirt after interval times (count + 1)."""


@dataclass(frozen=True, slots=True)
class Checkup:
    """What was found. Times in seconds."""

    hypervisor_type: str
    hypervisor_version: int | None
    """None where libvirt cannot tell it; ``version_reason`` says why."""
    libvirt_version: int
    """Of the daemon, or of the library where the driver runs in this process."""
    open_seconds: float
    domains: int
    """How many there are that may count."""
    list_seconds: float
    read_seconds: float | None
    """For one domain; None where there is none."""
    registered: int
    """How many kinds of events."""
    missing_events: tuple[str, ...]
    keepalive: bool | None
    """Whether the daemon answers; None where the driver runs in this process, and there is no
    connection to lose."""
    version_reason: str | None = None
    disk_reason: str | None = None
    """Why the space that holds the instances is not known; None where it is, or is not wanted."""


async def check_up(uri: str, settings: MonitorSettings) -> Checkup:
    """Look once, and let go of everything. Takes some seconds, for the keepalive.

    Raises :class:`HypervisorRefusedError`, or :class:`HypervisorUnavailableError` where libvirt
    does not answer in time. Cancelling is safe.
    """
    loop = asyncio.get_running_loop()
    async with _serving():
        interval, count = _KEEPALIVE
        connection = Connection(
            uri,
            replace(settings, keepalive_interval_seconds=interval, keepalive_count=count),
        )
        try:
            began = loop.time()
            await connection.open(_ignore)
            open_seconds = loop.time() - began
            kind, library = await connection.ask(
                "virConnectGetLibVersion",
                lambda handle: (handle.getType(), handle.getLibVersion()),
            )
            version, version_reason = await _version(connection, settings)
            began = loop.time()
            domains = await connection.list_domains()
            list_seconds, listed = loop.time() - began, len(domains)
            read_seconds = await connection.ask(
                "virDomainGetInfo", lambda handle: _time_read(handle, domains)
            )
            domains.clear()
            disk_reason = await _why_no_disk(uri, settings)
            keepalive = None if connection.in_process else await _answers_keepalive(connection)
            return Checkup(
                hypervisor_type=kind,
                hypervisor_version=version,
                libvirt_version=library,
                open_seconds=open_seconds,
                domains=listed,
                list_seconds=list_seconds,
                read_seconds=read_seconds,
                registered=connection.registered_events,
                missing_events=tuple(connection.missing_events),
                keepalive=keepalive,
                version_reason=version_reason,
                disk_reason=disk_reason,
            )
        finally:
            await connection.aclose()


async def _version(
    connection: Connection, settings: MonitorSettings
) -> tuple[int | None, str | None]:
    """The hypervisor's version, or why libvirt cannot tell it.

    libvirt may have to start each emulator to answer, which takes seconds.
    """
    try:
        version = await connection.ask(
            "virConnectGetVersion", read_version, settings.listing_deadline_seconds
        )
    except CallTimeoutError:
        raise
    # Newer libvirts (12.8) call a missing emulator an invalid argument.
    except (HypervisorUnavailableError, HypervisorRefusedError) as error:
        if connection.lost.done():
            raise
        return None, error.reason
    return version, None


async def _why_no_disk(uri: str, settings: MonitorSettings) -> str | None:
    """Why the space that holds the instances cannot be read; None where it can, or need not."""
    reader = SpaceReader(uri, settings)
    if reader.source == DiskSource.NONE:
        return None
    try:
        await reader.read()
    except DiskUnknownError as error:
        return str(error)
    finally:
        await reader.aclose()
    return None


def _time_read(
    connection: libvirt.virConnect, domains: Mapping[str, libvirt.virDomain]
) -> float | None:
    """How long it takes to read the first that is still there, in seconds; in a thread."""
    for uuid, domain in domains.items():
        began = monotonic()
        read = Read(uuid, Mark(Cause.LOOK_AGAIN), domain, ask_reason=False)
        if read_domain(connection, read) is not None:
            return monotonic() - began
    return None


async def _answers_keepalive(connection: Connection) -> bool:
    """Whether the connection outlives the time after which libvirt gives up a mute daemon."""
    try:
        async with asyncio.timeout(_KEEPALIVE_SECONDS):
            await asyncio.shield(connection.lost)
    except TimeoutError:
        return True
    return False


async def probe_delivery() -> float:
    """How long an event takes from a start until it is heard, in seconds, by a transient domain
    of the test driver. Raises TimeoutError where none is heard within five seconds."""
    loop = asyncio.get_running_loop()
    async with _serving():
        connection = Connection("test:///default", MonitorSettings(read_write=True))
        heard: asyncio.Future[float] = loop.create_future()

        def hear(event: DomainEvent) -> None:
            if event.detail.startswith("lifecycle started") and not heard.done():
                heard.set_result(loop.time())

        def start(handle: libvirt.virConnect) -> None:
            handle.createXML(_PROBE, 0)

        def end(handle: libvirt.virConnect) -> None:
            handle.lookupByName("asynchost-probe").destroy()

        try:
            await connection.open(hear)
            began = loop.time()
            await connection.ask("virDomainCreateXML", start)
            try:
                async with asyncio.timeout(_PROBE_SECONDS):
                    return await heard - began
            finally:
                await connection.ask("virDomainDestroy", end)
        finally:
            await connection.aclose()


@asynccontextmanager
async def _serving() -> AsyncIterator[None]:
    """With libvirt's event loop at work on this one."""
    loop = asyncio.get_running_loop()
    EVENT_LOOP.register()
    EVENT_LOOP.attach(loop)
    try:
        yield
    finally:
        # One more round, so that libvirt lets go of what was closed.
        await asyncio.sleep(0)
        EVENT_LOOP.detach(loop)


def _ignore(_event: DomainEvent) -> None:
    pass
