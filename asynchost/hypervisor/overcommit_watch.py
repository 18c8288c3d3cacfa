"""Reads what the disks of all domains may still grow by, on a slow timer, domain by domain.

Over a connection of its own, because asking an active domain waits for its QEMU, and looking at
its files waits for their file system. A read that hangs holds the connection, which is then left to
it: the other domains are read over a new one, and that domain is not asked again until the read has
come back. A domain that is new, or was defined anew, is read soon after. A domain without a disk
that counts is left out until it is defined anew, and every tenth time looked at all the same, since
not every change has an event.

Memory: one entry for each disk and each domain, and at most twenty connections that hang, with
their threads.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Final, TypeVar

import libvirt

from asynchost.errors import (
    CallTimeoutError,
    HypervisorRefusedError,
    HypervisorUnavailableError,
)
from asynchost.hypervisor.domain_disks import (
    DisksUntoldError,
    DomainUnreadError,
    Observed,
    Place,
    list_uuids,
    read_disks,
)
from asynchost.hypervisor.side_connection import InProcessError, SideConnection
from asynchost.hypervisor.surprises import Surprises
from asynchost.log import get_logger
from asynchost.overcommit import DiskReading, Overcommit
from asynchost.settings import MonitorSettings

T = TypeVar("T")

# Each call that hangs takes one of libvirtd's twenty workers from everybody.
_MOST_HANGING: Final = 4
# After each read there is rest, for so many times as long as it took: however many domains there
# are, libvirtd and this process are busy with it for a quarter of the time at most.
_REST_SHARE: Final = 3.0
_LONGEST_REST_SECONDS: Final = 0.1
# Beside it the reading of many domains takes half as long again, and the totals are what somebody
# waits for. But a storm may have no end.
_LONGEST_WAY_GIVEN_SECONDS: Final = 0.5
_WAY_GIVEN_STEP_SECONDS: Final = 0.02
# Domains that are made one after another are read in batches of a second.
_LEAST_SPACING_SECONDS: Final = 1.0
# One that waits for a file takes a thread and a connection, but no worker of libvirtd's.
_MOST_LOOKS: Final = 16
_FULL_ROUND: Final = 10
_LISTING: Final = "the list of domains"


class OvercommitWatch:
    """The readings of one host's disks. ``moved`` is called after each round of them;
    ``events_wait`` says whether what events marked waits to be read."""

    def __init__(
        self,
        uri: str,
        settings: MonitorSettings,
        moved: Callable[[Mapping[str, str]], None],
        events_wait: Callable[[], bool],
        *,
        host: str,
    ) -> None:
        self._uri = uri
        self._settings = settings
        self._moved = moved
        self._events_wait = events_wait
        self._log = get_logger("asynchost.hypervisor", host=host)
        self._surprises = Surprises(self._log)
        self._disks = Overcommit()
        self._complete = False
        self._untold = False
        self._reason: str | None = None
        self._connection = SideConnection(uri, settings)
        self._diskless: set[str] = set()
        self._rounds = 0
        self._changed: set[str] = set()
        self._soon = asyncio.Event()

    @property
    def total_bytes(self) -> int | None:
        """What all disks may still grow by; None before the first round, or where untold."""
        return self._disks.total_bytes if self._complete else None

    def look_soon(self, uuid: str, *, redefined: bool) -> None:
        """A domain started or ended, or may have other disks from now on (``redefined``)."""
        known = uuid in self._diskless or self._disks.knows(uuid)
        if not self._untold and (redefined or not known):
            self._changed.add(uuid)
            self._soon.set()

    async def run(self, place: Callable[[], Awaitable[Place]]) -> None:
        """Read for as long as the host is connected. Cancelling is safe.

        ``place`` waits for the space that counts. Returns where no disk can ever be told of.
        """
        loop = asyncio.get_running_loop()
        while not self._untold:
            begun = loop.time()
            await self._round(None, place)
            while (left := begun + self._settings.disk_interval_seconds - loop.time()) > 0:
                try:
                    async with asyncio.timeout(left):
                        await self._soon.wait()
                except TimeoutError:
                    break
                await asyncio.sleep(_LEAST_SPACING_SECONDS)
                await self._round(self._take_changed(), place)

    def _take_changed(self) -> set[str]:
        self._soon.clear()
        changed, self._changed = self._changed, set()
        self._diskless -= changed
        return changed

    async def _round(self, uuids: set[str] | None, place: Callable[[], Awaitable[Place]]) -> None:
        """Read these domains, or all that may have a disk that counts, and tell."""
        await place()
        reason = None
        try:
            if uuids is None:
                self._take_changed()
                await self._read(await self._list_those_with_disks(), place)
                self._complete = True
            else:
                await self._read(uuids, place)
        except DisksUntoldError as error:
            self._untold, self._complete, self._disks = True, False, Overcommit()
            self._changed.clear()
            self._diskless.clear()
            await self._connection.drop()
            self._log.info("disk_available_least not known here", reason=str(error))
        except (HypervisorUnavailableError, HypervisorRefusedError) as error:
            # If the host is lost, that is told elsewhere; all keep their last values.
            reason = error.message
            if reason != self._reason:
                self._log.warning("disks not read, their last values stand", reason=reason)
        self._reason = reason
        self._moved(self._disks.unread)

    async def _list_those_with_disks(self) -> set[str]:
        listed = await self._list()
        if self._rounds % _FULL_ROUND == 0:
            self._diskless.clear()
        self._rounds += 1
        self._diskless &= listed
        return listed - self._diskless

    async def _list(self) -> set[str]:
        try:
            uuids = await self._ask(
                _LISTING,
                "virConnectListAllDomains",
                list_uuids,
                self._settings.listing_deadline_seconds,
            )
        except CallTimeoutError:
            # One locked domain blocks every listing. Those that are known can be read.
            if not self._complete:
                raise
            return set(self._disks.uuids)
        self._disks.keep_only(uuids)
        return set(uuids)

    async def _read(self, uuids: Iterable[str], place: Callable[[], Awaitable[Place]]) -> None:
        loop = asyncio.get_running_loop()
        for uuid in sorted(uuids):
            # First, for it may wait long.
            observed = Observed(await place())
            if self._connection.hangs(uuid):
                continue
            if (objection := self._why_not_asked(observed)) is not None:
                self._disks.failed(uuid, objection)
                continue
            await self._give_way()
            begun = loop.time()
            try:
                reading = await self._ask(
                    uuid,
                    "virDomainGetBlockInfo",
                    partial(read_disks, uuid=uuid, place=observed),
                    self._settings.call_deadline_seconds,
                    observed,
                )
            except CallTimeoutError as error:
                self._disks.failed(uuid, observed.does_not_answer or error.reason)
            except DomainUnreadError as error:
                self._disks.failed(uuid, str(error))
            except (HypervisorUnavailableError, HypervisorRefusedError, DisksUntoldError):
                raise
            except Exception as error:  # noqa: BLE001 - it must not cost the others their read
                self._disks.failed(uuid, self._surprises.tell("disks of a domain", error))
            else:
                self._keep(uuid, reading)
            rest = (loop.time() - begun) * _REST_SHARE
            await asyncio.sleep(min(rest, _LONGEST_REST_SECONDS))

    def _keep(self, uuid: str, reading: DiskReading | None) -> None:
        if reading is None:
            self._disks.gone(uuid)
            return
        self._disks.read(uuid, reading)
        # One that was defined anew meanwhile is read again, and then told apart.
        if reading.diskless:
            self._diskless.add(uuid)

    async def _give_way(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + _LONGEST_WAY_GIVEN_SECONDS
        while self._events_wait() and loop.time() < until:  # noqa: ASYNC110 - a pause, not a wait
            await asyncio.sleep(_WAY_GIVEN_STEP_SECONDS)

    # -- the connection ------------------------------------------------------------------------

    async def _ask(
        self,
        subject: str,
        name: str,
        call: Callable[[libvirt.virConnect], T],
        deadline_seconds: float,
        observed: Observed | None = None,
    ) -> T:
        """Make one call about ``subject``; ``observed`` says what it waits for besides libvirt.

        Raises :class:`DisksUntoldError` where the driver's disks are made up.
        """
        try:
            return await self._connection.ask(subject, name, call, deadline_seconds, observed)
        except InProcessError as error:
            raise DisksUntoldError(str(error)) from None

    def _why_not_asked(self, observed: Observed) -> str | None:
        """Why no domain's disks can be asked for now; None where nothing is in the way."""
        hangs = [hang.about for hang in self._connection.hanging]
        waits = [about for about in hangs if isinstance(about, Observed)]
        looks = sum(about.looks_at is not None for about in waits)
        if len(hangs) - looks >= _MOST_HANGING:
            return f"not asked for, {_MOST_HANGING} others hang"
        if looks >= _MOST_LOOKS:
            return f"not looked at, the files of {_MOST_LOOKS} others do not answer"
        if observed.in_pool and any(about.asks_pool for about in waits):
            return "not asked for, the storage pool does not answer"
        return None

    async def aclose(self) -> None:
        """End the connections, but for those that a call still holds."""
        await self._connection.aclose()
