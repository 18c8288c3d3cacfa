"""The reading of one domain, and of several in a row by one thread.

Blocking code, for threads; what a batch has read and has still to read can be taken from it on
the loop while its thread is at work. Memory: one ``virDomain`` for each domain of the batch that
is not yet read.
"""

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, NamedTuple

import libvirt

from asynchost.agenda import Mark
from asynchost.errors import HypervisorUnavailableError
from asynchost.model import DomainState, Observation


class Read(NamedTuple):
    """One domain to read."""

    uuid: str
    mark: Mark
    domain: Any
    """libvirt's object where there is one already: it saves a look-up."""
    ask_reason: bool
    """Whether the state's reason is wanted whatever the state."""
    paused_reason: int | None = None
    """Why it is paused, if it is: where that is known, it saves a call."""


class Result(NamedTuple):
    """What reading it returned: an observation, None for "no such domain", or an error."""

    uuid: str
    mark: Mark
    observation: Observation | None
    error: Exception | None


class Batch:
    """Domains that one thread reads one after another.

    One hand-over to the thread and one back for all of them: with short reads, handing over
    costs as much as reading. The thread takes each domain when it begins with it, so what it has
    not begun with can be taken away from it at any time.
    """

    __slots__ = (
        "_connection",
        "_is_behind",
        "_results",
        "_todo",
        "current",
        "moved_at",
        "spent",
    )

    def __init__(
        self,
        connection: libvirt.virConnect,
        reads: list[Read],
        spent: list[Any],
        is_behind: Callable[[], bool],
    ) -> None:
        self.spent = spent
        """libvirt's objects that nobody needs any more, to be freed in the thread."""
        self._connection = connection
        self._is_behind = is_behind
        self._todo = deque(reads)
        self._results: deque[Result] = deque()
        self.current: tuple[str, float] | None = None
        """The domain that is being read, and since when by ``time.monotonic()``."""
        self.moved_at = monotonic()
        """When it was made, or the last read began, by ``time.monotonic()``."""

    def __call__(self) -> None:
        """Read them, until all are read or the answers would come behind a backlog of events; in
        the thread."""
        self.spent.clear()
        while self._todo and not self._is_behind():
            try:
                read = self._todo.popleft()
            except IndexError:  # the last one was taken away just now
                break
            self.moved_at = monotonic()
            self.current = (read.uuid, self.moved_at)
            try:
                result = Result(read.uuid, read.mark, read_domain(self._connection, read), None)
            except Exception as error:  # noqa: BLE001 - it must not cost the others their read
                result = Result(read.uuid, read.mark, None, error)
            del read  # no virDomain outlives its read
            self.current = None  # first, so that it never names what has been read
            self._results.append(result)

    def take_results(self) -> list[Result]:
        """What was read since the last time this was asked; on the loop."""
        return [self._results.popleft() for _ in range(len(self._results))]

    def take_back(self) -> list[Read]:
        """Take away what the thread has not begun with; on the loop."""
        reads = []
        while self._todo:
            try:
                reads.append(self._todo.popleft())
            except IndexError:  # the thread was faster
                break
        return reads


def read_domain(connection: libvirt.virConnect, read: Read) -> Observation | None:
    """Read one domain; blocking. None when libvirt knows no such domain.

    The state's reason is asked for only where it decides something, and is not known: one call
    more for each paused or migrating domain. Raises ``libvirtError`` when the read failed, and
    :class:`HypervisorUnavailableError` when it failed because the connection is dead.
    """
    domain = read.domain
    try:
        if domain is None:
            domain = connection.lookupByUUIDString(read.uuid)
        state, maximum, memory, vcpus, _ = domain.info()
        reason, active = 0, None
        if state == DomainState.PAUSED and read.paused_reason is not None and not read.ask_reason:
            reason = read.paused_reason
        elif state == DomainState.PAUSED or read.ask_reason:
            state, reason = domain.state()
        if state == DomainState.CRASHED:
            active = bool(domain.isActive())
        return Observation(
            read.uuid, domain.name(), domain.ID(), state, reason, active, vcpus, memory, maximum
        )
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        if not connection.isAlive():
            raise HypervisorUnavailableError("libvirt", str(error)) from None
        raise
