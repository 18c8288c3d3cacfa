"""What people do with guests all day, at random: the background of every fault test.

May live here: the actions and how they are chosen. Must not: faults of libvirtd or the network;
those the test makes, and the workload lives through them as any libvirt client would: a call
that fails is dropped, a dead connection is opened again.

Memory: one record per guest, the names of the last actions.
"""

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Literal, NamedTuple, Self

import libvirt

from tests.support import guests
from tests.support.ballooning import balloon_guest_xml, write_boot_disk
from tests.support.libvirtd import PrivateLibvirtd

MAX_VCPUS = 4
MEMORY_STEP_KIB = 1024
_LEAST_STEPS, _MOST_STEPS = 8, 16
_REMEMBERED_ACTIONS = 40
# An action on a guest that libvirt is busy with waits thirty seconds for it.
_JOIN_DEADLINE_SECONDS = 60.0
_SLOW_SECONDS = 2.0

# Between two actions. QEMU needs none: each start is a third of a second of its own. The test
# driver makes thousands a second, which is a storm, and storms have tests of their own.
_PAUSE_SECONDS = {"qemu": 0.0, "test": 0.002}
# While libvirtd is away only processes can be killed, and there are few of them.
_RETRY_SECONDS = 0.05
_KILLS_WHILE_AWAY = 0.05

_CHANGE_THE_LIST = {"define", "undefine", "rename"}

Action = Callable[[], object]


class Guest(NamedTuple):
    """One of the guests that the workload deals with: known by its UUID, as in libvirt."""

    uuid: str
    names: tuple[str, str]
    """The two names that a rename goes back and forth between."""


class Workload:
    """Starts, pauses, resumes, saves, destroys, kills, defines, undefines, renames guests, and
    changes their vCPUs and memory while they run, in a thread and over a connection of its own.

    The same seed makes the same choices as long as libvirt gives the same answers. A context
    manager: it acts from entering to leaving, :meth:`pause` and :meth:`resume` aside, and leaves
    its guests as they are. :attr:`actions` counts what libvirt carried out.

    With ``lasting`` all guests are defined first, and neither undefined nor renamed nor defined
    anew: while somebody reads a locked domain, libvirt holds up whatever changes the list of
    domains.
    """

    def __init__(
        self,
        daemon: PrivateLibvirtd,
        seed: int,
        *,
        kind: Literal["qemu", "test"] = "qemu",
        guest_count: int = 4,
        prefix: str = "w",
        lasting: bool = False,
    ) -> None:
        self._daemon = daemon
        self._lasting = lasting
        self._kind: Literal["qemu", "test"] = kind
        self._random = random.Random(seed)
        self._seed = seed
        self._boot_disk = write_boot_disk(daemon.folder)
        tag = f"{self._random.getrandbits(32):08x}-{self._random.getrandbits(16):04x}"
        self._guests = [
            Guest(f"{tag}-4000-8000-{number:012x}", (f"{prefix}{number}", f"{prefix}{number}-too"))
            for number in range(guest_count)
        ]
        self._connection: libvirt.virConnect | None = None
        self._thread = threading.Thread(target=self._run, name=f"workload-{kind}", daemon=True)
        self._stopping = threading.Event()
        self._running = threading.Event()
        self._resting = threading.Event()
        self._failure: BaseException | None = None
        self._last: deque[str] = deque(maxlen=_REMEMBERED_ACTIONS)
        self.done: Counter[str] = Counter()
        """What was carried out, by name."""
        self.refused = 0
        """How many actions libvirt did not carry out: guest gone, daemon gone, busy."""

    # Life

    def __enter__(self) -> Self:
        self._running.set()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if error is None:
            self.check()
        else:
            error.add_note(self.describe())

    def stop(self) -> None:
        """Act no more: returns when the last action has ended. Harmless when repeated."""
        self._stopping.set()
        self._running.set()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_DEADLINE_SECONDS)

    def pause(self) -> None:
        """Act no more for now: returns when the action under way has ended."""
        self._resting.clear()
        self._running.clear()
        if not self._resting.wait(_JOIN_DEADLINE_SECONDS):
            raise AssertionError(f"an action does not end: {self.describe()}")

    def resume(self) -> None:
        """Go on."""
        self._running.set()

    @property
    def actions(self) -> int:
        """How many actions were carried out."""
        return sum(self.done.values())

    @property
    def uuids(self) -> frozenset[str]:
        """The guests that the workload deals with, whether they exist or not."""
        return frozenset(guest.uuid for guest in self._guests)

    def describe(self) -> str:
        """What a failure's text should hold: how to do it again, and what was done."""
        return (
            f"{self._kind} workload, seed {self._seed}: {self.actions} actions, {self.refused} "
            f"refused; the last: {', '.join(self._last)}"
        )

    def check(self) -> None:
        """Raise what went wrong in the workload itself."""
        if self._failure is not None:
            raise AssertionError(self.describe()) from self._failure
        if self._thread.is_alive():
            raise AssertionError(f"an action does not end: {self.describe()}")

    # In the thread

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                if not self._running.is_set():
                    self._resting.set()
                    self._running.wait()
                    continue
                self._step()
        except BaseException as error:
            self._failure = error
        finally:
            self._resting.set()
            self._drop_connection()

    def _step(self) -> None:
        guest = self._random.choice(self._guests)
        if self._lasting and self.done["define"] < len(self._guests):
            guest = self._guests[self.done["define"]]
        try:
            connection = self._open()
        except libvirt.libvirtError:
            if self._random.random() < _KILLS_WHILE_AWAY:
                self._carry_out(guest, "kill", lambda: self._kill(guest))
            self._stopping.wait(_RETRY_SECONDS)
            return
        try:
            actions = self._possible(connection, guest)
        except libvirt.libvirtError:
            self.refused += 1
        else:
            name = self._random.choice(sorted(actions))
            self._carry_out(guest, name, actions[name])
            actions.clear()  # they hold domains, and those would hold the connection
        if not connection.isAlive():
            self._drop_connection()
        self._stopping.wait(_PAUSE_SECONDS[self._kind])

    def _carry_out(self, guest: Guest, name: str, action: Action) -> None:
        self._last.append(f"{name} {guest.names[0]}")
        begun = time.monotonic()
        try:
            action()
        except (libvirt.libvirtError, LookupError) as error:
            self.refused += 1
            self._last[-1] += f" refused ({error})"
        else:
            self.done[name] += 1
        seconds = time.monotonic() - begun
        if seconds > _SLOW_SECONDS:
            self._last[-1] += f" ({seconds:.0f} s)"

    def _open(self) -> libvirt.virConnect:
        if self._connection is None:
            self._connection = self._daemon.open(self._kind)
        return self._connection

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()

    # What can be done

    def _possible(self, connection: libvirt.virConnect, guest: Guest) -> dict[str, Action]:
        """Every action that makes sense for the guest as it is now."""
        try:
            domain = connection.lookupByUUIDString(guest.uuid)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            return self._of_an_unknown_guest(connection, guest)
        if domain.isActive():
            actions = dict(self._of_an_active_guest(connection, guest, domain))
        else:
            actions = self._of_an_inactive_guest(connection, guest, domain)
        if self._lasting:
            for name in _CHANGE_THE_LIST & actions.keys():
                del actions[name]
        return actions

    def _of_an_unknown_guest(
        self, connection: libvirt.virConnect, guest: Guest
    ) -> dict[str, Action]:
        define: Action = lambda: connection.defineXML(self._xml(guest, guest.names[0]))  # noqa: E731
        if self._lasting:
            return {"define": define}
        return {
            "define": define,
            "create": lambda: connection.createXML(
                self._xml(guest, guest.names[0]), self._start_flags()
            ),
        }

    def _of_an_inactive_guest(
        self, connection: libvirt.virConnect, guest: Guest, domain: libvirt.virDomain
    ) -> dict[str, Action]:
        name = domain.name()
        start: Action = lambda: domain.createWithFlags(self._start_flags())  # noqa: E731
        if domain.hasManagedSaveImage():
            return {"restore": start, "forget save": domain.managedSaveRemove}
        first, second = guest.names
        return {
            # Twice: most guests should run.
            "start": start,
            "start too": start,
            "define": lambda: connection.defineXML(self._xml(guest, name)),
            "rename": lambda: domain.rename(second if name == first else first),
            "undefine": domain.undefine,
        }

    def _of_an_active_guest(
        self, connection: libvirt.virConnect, guest: Guest, domain: libvirt.virDomain
    ) -> Iterator[tuple[str, Action]]:
        state, _, _, vcpus, _ = domain.info()
        if state == libvirt.VIR_DOMAIN_PAUSED:
            yield "resume", domain.resume
        else:
            yield "pause", domain.suspend
        yield "destroy", domain.destroy
        yield "set memory", lambda: domain.setMemory(self._memory_kib())
        if self._kind == "test" or vcpus < MAX_VCPUS:
            # Without an operating system a QEMU guest gives none of them back.
            least = 1 if self._kind == "test" else vcpus + 1
            yield "set vcpus", lambda: domain.setVcpus(self._random.randint(least, MAX_VCPUS))
        if self._kind == "qemu":
            yield "kill", lambda: self._kill(guest)
        if domain.isPersistent():
            yield "save", domain.managedSave
            yield "undefine", domain.undefine
            name = domain.name()
            yield "define", lambda: connection.defineXML(self._xml(guest, name))

    def _start_flags(self) -> int:
        if self._kind == "qemu" and self._random.random() < 0.5:
            return int(libvirt.VIR_DOMAIN_START_PAUSED)
        return 0

    def _kill(self, guest: Guest) -> None:
        running = self._daemon.guest_pids()
        pid = next((running[name] for name in guest.names if name in running), None)
        if pid is None:
            raise LookupError(guest.names[0])
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def _memory_kib(self) -> int:
        return self._random.randint(_LEAST_STEPS, _MOST_STEPS) * MEMORY_STEP_KIB

    def _xml(self, guest: Guest, name: str) -> str:
        vcpus = self._random.randint(1, MAX_VCPUS)
        memory_kib, max_memory_kib = self._memory_kib(), _MOST_STEPS * MEMORY_STEP_KIB
        if self._kind == "qemu":
            return balloon_guest_xml(
                name, self._boot_disk, guest.uuid, vcpus, MAX_VCPUS, memory_kib, max_memory_kib
            )
        return guests.guest_xml(
            name,
            guest.uuid,
            vcpus,
            MAX_VCPUS,
            memory_kib,
            "test",
            max_memory_kib=max_memory_kib,
        )
