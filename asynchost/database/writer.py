"""The writer: keeps the rows of the hosts attached to it true, through one session.

The public face of the package. May live here: who is attached, how a writer begins and ends,
and which error its user gets to see. Must not: SQL, and when to write.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self

from asynchost.database.attachment import Attachment, Surroundings
from asynchost.database.outage import new_backoff
from asynchost.database.secret import Password, Secret
from asynchost.database.settings import WriterSettings
from asynchost.database.status import WriterStatus
from asynchost.database.url import DatabaseUrl
from asynchost.database.worker import Worker
from asynchost.debounce import Debouncer
from asynchost.errors import AsynchostError, ClosedError, RowConflictError
from asynchost.log import get_logger
from asynchost.model import SnapshotSource

_NAMED = 100
"""How many hosts are named in one line: there may be thousands, and a log cuts what is too long."""


class ComputeNodeWriter:
    """Writes hosts' rows in ``compute_nodes``; use it as ``async with ComputeNodeWriter(url):``.

    ``url`` is ``mysql://user@host:port/database`` or
    ``mysql://user@localhost/database?unix_socket=/path``; ``password`` is used where it holds
    none. It may be a function, plain or async, that is called before each connection, within
    ``settings.statement_deadline_seconds``; an error of it is an outage. With ``dry_run`` nothing
    is written or claimed: it is called with each statement that would be carried out, and the
    account needs no more than to read ``compute_nodes``, and beside Nova ``services``, without
    which it does not see what a nova-compute keeps.

    Entering connects once and looks whether tables, columns and rights are there. A server that
    is merely down is waited for in the background, so that hosts are watched meanwhile.

    :raises InvalidSettingError: (constructor) the URL is not usable.
    :raises DatabaseRefusedError: (entering) the server answers, and says no.

    Leaving writes what is dirty within ``settings.shutdown_deadline_seconds`` and closes
    everything, also when it is cancelled: then without writing. A process may hold several
    writers; all calls belong to the event loop that entered it.
    """

    def __init__(
        self,
        url: str,
        *,
        password: Password = None,
        settings: WriterSettings = WriterSettings(),  # noqa: B008 - frozen
        dry_run: Callable[[str], None] | None = None,
    ) -> None:
        self._settings = settings
        self._text = url
        self._log = get_logger("asynchost.database")
        self._url, secret = _parsed(url, password)
        self._worker = Worker(self._url, settings, dry_run)
        self._worker.use_url(self._url, secret)
        self._names: dict[str | tuple[str, int], Attachment] = {}
        self._surroundings: Surroundings | None = None
        self._task: asyncio.Task[None] | None = None
        self._failures: deque[AsynchostError] = deque()
        """Why hosts were given up, as far as nobody was told yet: one for each host and reason."""
        self._error: BaseException | None = None
        """What ended the writer."""
        self._noticed = asyncio.Event()
        """Set when :meth:`wait` has something to return or to raise."""

    def __repr__(self) -> str:
        task, hosts = self._task, len(self._worker.attachments)
        running = "closed" if self._worker.closing else "not entered"
        if task is not None and not self._worker.closing:
            running = "ended" if task.done() else "running"
        return f"<ComputeNodeWriter {str(self._url)!r} {running}, {hosts} attached>"

    async def __aenter__(self) -> Self:
        if self._task is not None or self._worker.closing:
            raise ClosedError("the writer")
        try:
            await self._worker.connect()
        except BaseException:
            self._let_go()
            raise
        self._task = asyncio.create_task(self._worker.run(), name="asynchost writer")
        self._task.add_done_callback(self._on_end)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Write what is dirty within the deadline, then close everything.

        When cancelled, it closes everything at once. Closing twice is harmless.
        """
        task = self._task
        self._worker.stop()
        if task is None:
            return
        try:
            if not task.done():
                await asyncio.wait({task}, timeout=self._settings.shutdown_deadline_seconds)
        finally:
            # A task that is cancelled before its first step cannot close what it was given.
            task.cancel()
            self._worker.abort()
            if not task.done():
                await asyncio.wait({task})
            self._tell_unwritten()
            self._let_go()

    @property
    def alive(self) -> bool:
        """Whether the writer's task runs, or is about to."""
        return self._task is None or not self._task.done()

    @property
    def status(self) -> WriterStatus:
        """How it is doing: hosts owned, dirty, waited for and given up, and what was counted.

        Looks at every host: meant for people and metrics, not for a loop.
        """
        return self._worker.status

    def attach(
        self,
        source: SnapshotSource,
        *,
        service_id: int | None = None,
        quiet_seconds: float | None = None,
        maximum_delay_seconds: float | None = None,
    ) -> Attachment:
        """Keep the row of ``source`` true from now on; may be called before entering.

        The row is found, adopted or created as soon as the source has a complete snapshot.
        ``service_id`` must match the row's; None takes the one that the single live row of that
        name has, and where there is none that of the host's service in Nova's ``services``, or 0.

        :raises RowConflictError: a host of the same name and service is attached already. Where
            a name is not known yet, or only the database can tell, :meth:`wait` raises it.
        :raises ClosedError: the writer was closed, or has ended because it was refused.
        """
        if self._worker.closing or (self._task is not None and self._task.done()):
            raise ClosedError("the writer")
        name = source.snapshot().name
        other = None if name is None else self._names.get(_identity(name, service_id))
        if name is not None and other is not None:
            raise RowConflictError(name, (other.host, source.host))
        settings = self._settings
        if self._surroundings is None:
            self._surroundings = Surroundings(
                settings,
                asyncio.get_running_loop().time,
                partial(new_backoff, settings),
                self._worker.touched,
                self._fail,
            )
        quiet = settings.quiet_seconds if quiet_seconds is None else quiet_seconds
        maximum = settings.maximum_delay_seconds
        if maximum_delay_seconds is not None:
            maximum = maximum_delay_seconds
        attachment = Attachment(source, service_id, Debouncer(quiet, maximum), self._surroundings)
        self._worker.attachments[attachment] = None
        if name is not None:
            self._names[_identity(name, service_id)] = attachment
        attachment.touch()
        return attachment

    def use_password(self, password: Password) -> None:
        """Log in with this password from the next connection on; None: with that of the URL."""
        self._worker.use_url(*_parsed(self._text, password))

    def use_delays(self, quiet_seconds: float, maximum_delay_seconds: float) -> None:
        """Write all hosts, those that are attached and those to come, with these delays."""
        self._settings = replace(
            self._settings,
            quiet_seconds=quiet_seconds,
            maximum_delay_seconds=maximum_delay_seconds,
        )
        for attachment in self._worker.attachments:
            attachment.use_delays(quiet_seconds, maximum_delay_seconds)

    def detach(self, attachment: Attachment) -> None:
        """Stop writing a host; what is dirty stays unwritten, so :meth:`flush` first."""
        attachment.close()
        self._worker.remove(attachment)
        if attachment.given_name is not None:
            identity = _identity(attachment.given_name, attachment.service_id)
            if self._names.get(identity) is attachment:
                del self._names[identity]

    async def flush(self) -> None:
        """Write what is dirty now, without waiting for quiet; returns when it is acknowledged.

        While the server is down it waits; bound it with ``asyncio.timeout``. Hosts that are
        stale, incomplete or no longer written are left out. Cancelling it cancels no write.

        :raises ClosedError: the writer is not entered, or closed before it was written.
        :raises ConfigurationError: the writer was refused.
        """
        task = self._task
        if task is None or task.done():
            raise _reason_of_end(task) or ClosedError("the writer")
        await self._worker.request_flush()

    async def wait(self) -> None:
        """Run until the writer is closed. Cancelling it cancels nothing else.

        :raises ConfigurationError: the writer was refused, or one of its hosts' rows was.
        :raises FencedError: another agent has claimed a host's row.

        Each host's error is raised once; call it again to be told of the next one. The other
        hosts are still written. A host that is refused, ambiguous or Nova's is looked at again
        every ``settings.given_up_retry_seconds``, and claimed once the reason is gone; a fenced
        host is not. When the writer itself has ended, what ended it is raised instead, each time,
        a fault included.
        """
        while True:
            await self._noticed.wait()
            if self._error is not None:
                raise self._error
            if self._failures:
                error = self._failures.popleft()
                if not self._failures and not self._has_ended:
                    self._noticed.clear()
                raise error
            if self._has_ended:
                return
            # Another caller was told.
            self._noticed.clear()

    @property
    def _has_ended(self) -> bool:
        return self._task is not None and self._task.done()

    def _fail(self, error: AsynchostError) -> None:
        """One host is not written for now."""
        self._failures.append(error)
        self._noticed.set()

    def _on_end(self, task: asyncio.Task[None]) -> None:
        error = _reason_of_end(task)
        if error is not None:
            self._log.error("writer ended", reason=str(error))
            # Whatever befell one host before: now none is written.
            self._error = error
        self._noticed.set()
        self._worker.refuse_flushes(error or ClosedError("the writer"))

    def _tell_unwritten(self) -> None:
        """Name all whose rows are old now: those of stale hosts were not to be written any more."""
        unwritten = [a for a in self._worker.attachments if a.unwritten]
        for start in range(0, len(unwritten), _NAMED):
            some = unwritten[start : start + _NAMED]
            self._log.warning(
                "closed with unwritten changes",
                hosts=[a.host for a in some],
                stale=[a.host for a in some if not a.dirty],
                count=len(unwritten),
            )

    def _let_go(self) -> None:
        """Stop listening to all hosts."""
        for attachment in tuple(self._worker.attachments):
            self.detach(attachment)


def _reason_of_end(task: asyncio.Task[None] | None) -> BaseException | None:
    """Why it ended, if not because it was told to."""
    return None if task is None or not task.done() or task.cancelled() else task.exception()


def _parsed(url: str, password: Password) -> tuple[DatabaseUrl, Secret | None]:
    """The URL with its password, or with what is to be asked for it."""
    if not callable(password):
        return DatabaseUrl.parse(url, password=password), None
    parsed = DatabaseUrl.parse(url)
    return parsed, None if parsed.password is not None else Secret(password)


def _identity(name: str, service_id: int | None) -> str | tuple[str, int]:
    """What no two hosts may share; the bare name, which takes no memory, where that is all."""
    return name if service_id is None else (name, service_id)
