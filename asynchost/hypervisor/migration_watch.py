"""Knows which domains of a host are being copied to another host by a live migration.

libvirt calls such a domain running, and says nothing when the copy is given up. So:

* The event ``migration-iteration`` begins it, where QEMU and libvirt send one at the start of the
  copy (libvirt 9.0 and 11.3 do, 12.8 with QEMU 11.1 does not).
* ``virDomainGetJobStats`` of the domains that are known to be copied is asked once a second, and
  ends it.
* After each connect, every counted domain is asked once, because its event may have come before.
  Where libvirt may send no event, every counted domain is asked again in each audit interval.

Never over the events' connection: the answer waits for the guest's QEMU, for ever if that hangs.
A guest that hangs keeps what was known of it, and the others are asked over a new connection.

Memory: the UUIDs of the domains that are copied, and two connections that hang, with their threads.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

import libvirt

from asynchost.errors import (
    CallTimeoutError,
    HypervisorRefusedError,
    HypervisorUnavailableError,
)
from asynchost.hypervisor.side_connection import InProcessError, SideConnection
from asynchost.log import get_logger
from asynchost.settings import MonitorSettings

_ASK_SECONDS: Final = 1.0
# Each call that hangs takes one of libvirtd's twenty workers from everybody.
_MOST_HANGING: Final = 2
# So many are asked in one turn of the thread; with short answers, handing over costs more.
_TOGETHER: Final = 16
# After each turn there is rest, for so many times as long as it took, as nobody waits for it.
_REST_SHARE: Final = 3.0
_RETRY_SECONDS: Final = 30.0
_SENDS_ITERATIONS: Final = 11_003_000
"""The newest libvirt that was seen to send the event at the start of a copy."""
_COPYING: Final = (libvirt.VIR_DOMAIN_JOB_BOUNDED, libvirt.VIR_DOMAIN_JOB_UNBOUNDED)


class Jobs:
    """Asks several domains for their jobs, one after another; in a thread."""

    def __init__(self, uuids: Iterable[str]) -> None:
        self._uuids = list(uuids)
        self.given_up = False
        """Whether nobody waits for the answers any more, so that no further domain is asked."""
        self.libvirt_version: int | None = None
        self.copied: dict[str, bool] = {}
        """Whether the domain is being copied away, by UUID, of those that have answered."""
        self.asked: str | None = None
        """The domain that was asked last."""

    def __call__(self, connection: libvirt.virConnect) -> None:
        """Ask; a domain that is gone, or does not run, has no job."""
        self.libvirt_version = connection.getLibVersion()
        for uuid in self._uuids:
            if self.given_up:
                return
            self.asked = uuid
            try:
                self.copied[uuid] = is_copied(connection.lookupByUUIDString(uuid))
            except libvirt.libvirtError:
                if not connection.isAlive():
                    raise
                self.copied[uuid] = False


def is_copied(domain: libvirt.virDomain) -> bool:
    """Whether a migration copies the domain to another host now. Blocks while its QEMU does."""
    job = domain.jobStats()
    operation = job.get(libvirt.VIR_DOMAIN_JOB_OPERATION)
    return (
        job.get("type") in _COPYING and operation == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
    )


class MigrationWatch:
    """The domains of one host that are being copied to another.

    ``moved`` is called with a domain's UUID when its copy begins or ends; ``counted`` gives the
    domains that are counted now.
    """

    def __init__(
        self,
        uri: str,
        settings: MonitorSettings,
        moved: Callable[[str], None],
        counted: Callable[[], Iterable[str]],
        *,
        host: str,
    ) -> None:
        self._settings = settings
        self._moved = moved
        self._counted = counted
        self._log = get_logger("asynchost.hypervisor", host=host)
        self._connection = SideConnection(uri, settings)
        self._copied: set[str] = set()
        self._begun = asyncio.Event()
        self._turns = 0
        self._libvirt_version: int | None = None
        self._reason: str | None = None

    def copies(self, uuid: str) -> bool:
        """Whether the domain is being copied away, as far as is known."""
        return uuid in self._copied

    def begun(self, uuid: str) -> None:
        """libvirt says that a domain's copy has begun, or goes on."""
        self._copied.add(uuid)
        self._begun.set()

    def ended(self, uuid: str) -> None:
        """The domain does not run here any more."""
        self._copied.discard(uuid)

    def forget(self) -> None:
        """A new connection: what was known is asked for again."""
        self._copied.clear()

    async def run(self) -> None:
        """Ask for as long as the host is connected. Cancelling is safe.

        Returns where the driver runs inside this process.
        """
        loop = asyncio.get_running_loop()
        try:
            while True:
                all_asked = await self._sweep()
                seconds = self._seconds_to_next if all_asked else _RETRY_SECONDS
                due = None if seconds is None else loop.time() + seconds
                while due is None or loop.time() < due:
                    await self._wait(due)
                    await self._ask(sorted(self._copied))
        except InProcessError:
            return

    @property
    def _seconds_to_next(self) -> float | None:
        """When every domain is asked again; None for never."""
        version = self._libvirt_version
        if version is not None and version // 1000 <= _SENDS_ITERATIONS // 1000:
            return None
        return self._settings.audit_interval_seconds or None

    async def _wait(self, due: float | None) -> None:
        """Wait for a second while domains are copied; else until one is, or the time has come."""
        if self._copied:
            await asyncio.sleep(_ASK_SECONDS)
            return
        self._begun.clear()
        await self._connection.drop()  # for long, nothing is to be asked
        with suppress(TimeoutError):
            async with asyncio.timeout_at(due):
                await self._begun.wait()

    async def _sweep(self) -> bool:
        """Ask each domain that is counted and not known to be copied, with rests in between.

        False where the asking broke off, because the host is away or too many domains hang.
        """
        loop = asyncio.get_running_loop()
        uuids = sorted(set(self._counted()) - self._copied)
        while uuids:
            turn, uuids = uuids[:_TOGETHER], uuids[_TOGETHER:]
            began = loop.time()
            if not await self._ask(turn):
                return False
            await asyncio.sleep((loop.time() - began) * _REST_SHARE)
        return True

    async def _ask(self, uuids: list[str]) -> bool:
        """Ask these domains, and tell what has changed. A domain that hangs is left out.

        False where the others could not all be asked.
        """
        while True:
            hanging = [hang.about for hang in self._connection.hanging]
            held = {about.asked for about in hanging if isinstance(about, Jobs)}
            uuids = [uuid for uuid in uuids if uuid not in held]
            if not uuids or len(hanging) >= _MOST_HANGING:
                return not uuids
            jobs = Jobs(uuids)
            hung = None
            self._turns += 1
            try:
                await self._connection.ask(
                    f"turn {self._turns}",
                    "virDomainGetJobStats",
                    jobs,
                    self._settings.call_deadline_seconds,
                    jobs,
                )
            except CallTimeoutError as error:
                hung = error
            except (HypervisorUnavailableError, HypervisorRefusedError) as error:
                # If the host is lost, that is told elsewhere, and what is known is asked anew.
                if error.message != self._reason:
                    self._log.info("migrations not asked for", reason=error.message)
                self._reason = error.message
                return False
            jobs.given_up = True
            self._libvirt_version = jobs.libvirt_version or self._libvirt_version
            answers = dict(jobs.copied)
            for uuid, copied in answers.items():
                self._note(uuid, copied=copied)
            if hung is None:
                return True
            # The others need not wait for the domain that hangs.
            uuids = [uuid for uuid in uuids if uuid not in answers]

    def _note(self, uuid: str, *, copied: bool) -> None:
        if copied == (uuid in self._copied):
            return
        (self._copied.add if copied else self._copied.discard)(uuid)
        self._moved(uuid)

    async def aclose(self) -> None:
        """End the connections, but for those that a call still holds."""
        await self._connection.aclose()
