"""Something to look at where there is no hypervisor: domains that come and go.

They live in the test driver of libvirt, inside this process, on the host ``test:///default``,
which all connections of the process share. May live here: what the demonstration needs of
libvirt and nothing else does. Memory: at most :data:`MOST_DOMAINS` domains.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from random import Random
from types import TracebackType
from typing import Final, Self
from xml.sax.saxutils import escape

import libvirt

from asynchost.hypervisor.call_thread import CallThread

DEMO_URI: Final = "test:///default"
MOST_DOMAINS: Final = 5

_ROLES: Final = ("web", "db", "cache", "build", "mail")
_MOST_VCPUS: Final = 4
_MEMORY_STEP_KIB: Final = 64 * 1024  # all of them fit into the test driver's 3 GiB
_MOST_MEMORY_STEPS: Final = 4


async def answers(uri: str, deadline_seconds: float) -> bool:
    """Whether a libvirt at ``uri`` lets this user in, within the deadline. Cancelling is safe."""
    thread = CallThread("probe")

    def probe() -> bool:
        libvirt.openReadOnly(uri).close()
        return True

    try:
        return await thread.call(probe, deadline_seconds)
    except (TimeoutError, libvirt.libvirtError):
        return False
    finally:
        await thread.aclose(grace_seconds=0)


class DemoDomains:
    """Starts, stops, pauses and resizes domains, one action every ``interval_seconds``.

    ``with DemoDomains(random):`` runs it in a daemon thread of its own, with a connection of its
    own. ``random`` decides what happens, so that a seed repeats it.
    """

    def __init__(self, random: Random, interval_seconds: float = 1.2) -> None:
        self._random = random
        self._interval_seconds = interval_seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="asynchost-demo", daemon=True)
        self._started = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop; the domains vanish with the process's last connection to the host."""
        self._stopped.set()
        # The test driver answers at once; the bound only says that nothing is waited for.
        self._thread.join(0.5)

    def _run(self) -> None:
        connection = libvirt.open(DEMO_URI)
        try:
            while not self._stopped.wait(self._interval_seconds):
                # A domain that another action has just ended is no reason to stop.
                with suppress(libvirt.libvirtError):
                    self.act(connection)
        finally:
            connection.close()

    def act(self, connection: libvirt.virConnect) -> None:
        """Do one thing to the host."""
        domains = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        if len(domains) < 2:
            self._start(connection)
        elif len(domains) >= MOST_DOMAINS:
            self._random.choice(domains).destroy()
        else:
            domain = self._random.choice(domains)
            actions: list[Callable[[], object]] = [
                lambda: self._start(connection),
                lambda: self._start(connection),
                domain.destroy,
                lambda: self._pause_or_resume(domain),
                lambda: domain.setVcpusFlags(
                    self._random.randint(1, domain.maxVcpus()), libvirt.VIR_DOMAIN_AFFECT_LIVE
                ),
                lambda: domain.setMemory(
                    self._random.randint(1, _MOST_MEMORY_STEPS) * _MEMORY_STEP_KIB
                ),
            ]
            self._random.choice(actions)()

    def _start(self, connection: libvirt.virConnect) -> None:
        self._started += 1
        name = f"{self._random.choice(_ROLES)}-{self._started}"
        vcpus = self._random.randint(1, _MOST_VCPUS)
        memory = self._random.randint(1, _MOST_MEMORY_STEPS) * _MEMORY_STEP_KIB
        connection.createXML(
            f"<domain type='test'><name>{escape(name)}</name>"
            f"<memory unit='KiB'>{_MOST_MEMORY_STEPS * _MEMORY_STEP_KIB}</memory>"
            f"<currentMemory unit='KiB'>{memory}</currentMemory>"
            f"<vcpu current='{vcpus}'>{_MOST_VCPUS}</vcpu>"
            "<os><type>hvm</type></os></domain>"
        )

    @staticmethod
    def _pause_or_resume(domain: libvirt.virDomain) -> None:
        state, _ = domain.state()
        if state == libvirt.VIR_DOMAIN_PAUSED:
            domain.resume()
        else:
            domain.suspend()
