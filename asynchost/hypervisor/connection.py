"""One libvirt connection: opened, listened to, called and closed off the event loop.

A connection is never opened twice: when it is lost, a new one takes its place. One call at a
time is in flight on it, an abandoned one included, in a thread of its own. With several, only one
call fails when keepalive closes the connection, and the others hang for ever (libvirt 9.0, 11.3 and
12.8, measured); before 10.3 the process may crash (CVE-2024-4418: the first caller leaves a
pointer to its stack behind, which the second one follows). libvirtd grants a client five calls.

Memory: the events that have come and are not yet handed on. Nothing is kept per domain: a
``virDomain`` pins its connection, so none outlives a read.
"""

import asyncio
import atexit
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep
from typing import Any, Final, TypeVar

import libvirt

from asynchost.errors import CallTimeoutError, HypervisorUnavailableError
from asynchost.hypervisor.authentication import AUTHENTICATION
from asynchost.hypervisor.call_thread import (
    Call,
    CallNotMadeError,
    CallThread,
    ThreadClosedError,
    ThreadNotStartedError,
)
from asynchost.hypervisor.domain_events import EVENTS, DomainEvent, EventKind, Translate
from asynchost.hypervisor.libvirt_errors import translated, where_supported
from asynchost.hypervisor.listing import list_domains, paused_reasons
from asynchost.hypervisor.uri import check_uri, unattended
from asynchost.settings import MonitorSettings

T = TypeVar("T")

_CLOSE_REASONS: Final = {
    libvirt.VIR_CONNECT_CLOSE_REASON_ERROR: "the connection broke",
    libvirt.VIR_CONNECT_CLOSE_REASON_EOF: "libvirtd closed the connection",
    libvirt.VIR_CONNECT_CLOSE_REASON_KEEPALIVE: "libvirtd answered no keepalive",
    libvirt.VIR_CONNECT_CLOSE_REASON_CLIENT: "the connection was closed on this side",
}
_CLOSE_DEADLINE_SECONDS: Final = 1.0  # a person who pressed Ctrl-C waits for it
# A loop's round with so many events takes about a millisecond.
_EVENTS_AT_ONCE: Final = 32
# So much unread, forty events or more, is a backlog. It is over when none was seen for so long:
# libvirtd, which has the rest of it, may lack a processor.
_MANY_BYTES: Final = 4096
_CALM_SECONDS: Final = 0.1
# At the end of the process: how long to wait for libvirtd's answer, and for the call to end once
# its socket was closed. Nobody is kept waiting for longer than that.
_CUT_AFTER_SECONDS: Final = 0.1
_EXIT_SECONDS: Final = 0.5
_EXIT_LOOK_SECONDS: Final = 0.002


class Connection:
    """An open libvirt connection of the running asyncio loop."""

    def __init__(self, uri: str, settings: MonitorSettings) -> None:
        self.uri = uri
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._connection: libvirt.virConnect | None = None
        self._callback_ids: list[int] = []
        self._received: deque[tuple[Translate, Any, tuple[Any, ...]]] = deque()
        self.handed_on = 0
        """How many events it has handed on so far."""
        self._hand_on_scheduled = False
        self._behind_until = float("-inf")
        self._on_event: Callable[[DomainEvent], None] = _ignore_event
        self._after_events: Callable[[], None] = _do_nothing
        self.thread = CallThread("libvirt", uri)
        self.in_process = False
        """Whether the driver runs inside this process: it may then be another host for each
        connection, and it cannot be lost."""
        self.kind = ""
        """The driver's name by ``virConnectGetType``, once it is open."""
        self._closing: Call | None = None
        self.closed: asyncio.Future[None] = self._loop.create_future()
        """Done when nothing is left of it, neither a connection nor a call; see :meth:`close`."""
        self.lost: asyncio.Future[HypervisorUnavailableError] = self._loop.create_future()
        """Done as soon as the connection is known to be dead."""
        self.missing_events: list[str] = []
        """The events that this libvirt, or this driver, does not have, without optional ones."""

    # -- opening and closing ----------------------------------------------------------------------

    async def open(
        self,
        on_event: Callable[[DomainEvent], None] | None = None,
        after_events: Callable[[], None] | None = None,
    ) -> None:
        """Open the connection, with keepalive and a close callback.

        With ``on_event``, also register every domain event that can move a total, in the same
        turn of the thread. It is called on the loop, soon, for a few events in a row, and
        ``after_events`` when they are through: what one action caused is then together. Returns
        after libvirtd has confirmed each one: an event that came before the confirmation would be
        dropped, so list only afterwards.

        Raises :class:`HypervisorRefusedError` where waiting will not help, else
        :class:`HypervisorUnavailableError`. Cancelling is safe. To be closed in any case: a
        connection that opens after all is then closed by the thread that opened it.
        """
        check_uri(self.uri)
        self._on_event = on_event or _ignore_event
        self._after_events = after_events or _do_nothing
        _OPEN.add(self)
        _UNSETTLED.add(self)
        await self._call(
            "virConnectOpenAuth",
            lambda: self._open(listens=on_event is not None),
            self._settings.listing_deadline_seconds,
        )

    def _open(self, *, listens: bool) -> None:
        settings = self._settings
        flags = 0 if settings.read_write else libvirt.VIR_CONNECT_RO
        connection = libvirt.openAuth(unattended(self.uri), AUTHENTICATION, flags)
        try:
            self.in_process = True
            with where_supported():
                connection.setKeepAlive(
                    settings.keepalive_interval_seconds, settings.keepalive_count
                )
                self.in_process = False
            with where_supported():
                connection.registerCloseCallback(self._closed_by_libvirt, None)
            if listens:
                self._register(connection)
            self.kind = connection.getType()
        except BaseException:
            self._close(connection)
            raise
        self._connection = connection  # here: whoever waited for it may be gone
        if self._closing is None:
            _UNSETTLED.discard(self)

    def _register(self, connection: libvirt.virConnect) -> None:
        for event in EVENTS:
            number = getattr(libvirt, f"VIR_DOMAIN_EVENT_ID_{event.name}", None)
            if number is None:
                self._note_missing(event)
                continue
            try:
                callback_id = connection.domainEventRegisterAny(
                    None, number, self._receiver(event.translate), None
                )
            except libvirt.libvirtError:
                # Without lifecycle events nothing is known; and a loss is no lack.
                if event.name == "LIFECYCLE" or not connection.isAlive():
                    raise
                self._note_missing(event)
            else:
                self._callback_ids.append(callback_id)

    def _note_missing(self, event: EventKind) -> None:
        if not event.optional:
            self.missing_events.append(event.name)

    @property
    def registered_events(self) -> int:
        """How many kinds of events are registered."""
        return len(self._callback_ids)

    def _closed_by_libvirt(self, _connection: libvirt.virConnect, reason: int, _: object) -> None:
        # In any thread, with libvirt's locks held: a call into libvirt would deadlock here.
        self._soon(self.declare_lost, _CLOSE_REASONS.get(reason, "it was closed"))

    def declare_lost(self, reason: str) -> None:
        """Note that the connection is dead. Only the first reason counts."""
        if not self.lost.done():
            self.lost.set_result(HypervisorUnavailableError(self.uri, reason))

    def close(self) -> None:
        """Begin to close: no call is taken any more, and the thread ends. Idempotent.

        libvirt's connection is closed by that thread, after a call that hangs if there is one,
        whether or not anybody waits for it.
        """
        if self._closing is not None:
            return
        _UNSETTLED.add(self)
        self._closing = Call(self.take_down, lambda _: self.closed.set_result(None), must_run=True)
        self.declare_lost("the monitor closed it")
        self._on_event, self._after_events = _ignore_event, _do_nothing
        self.thread.submit(self._closing)
        self.thread.close()

    async def aclose(self) -> None:
        """:meth:`close`, and wait until it is done, unless a call hangs.

        Never raises, and takes two seconds at most. Cancelling is safe.
        """
        self.close()
        await asyncio.wait([self.closed], timeout=_CLOSE_DEADLINE_SECONDS)
        await self.thread.aclose()

    def take_down(self) -> None:
        """Close libvirt's connection; blocking, and never beside another call on it."""
        connection, self._connection = self._connection, None
        _OPEN.discard(self)
        if connection is not None:
            self._close(connection)
        _UNSETTLED.discard(self)

    def _close(self, connection: libvirt.virConnect) -> None:
        # In this order: a callback that is still registered keeps the connection open. Each by
        # itself: a dead connection refuses the others, and wants to be closed all the same.
        for callback_id in self._callback_ids:
            with suppress(libvirt.libvirtError):
                connection.domainEventDeregisterAny(callback_id)
        self._received.clear()  # each event's domain keeps it open as well
        with suppress(libvirt.libvirtError):
            connection.unregisterCloseCallback()
        with suppress(libvirt.libvirtError):
            connection.close()

    @property
    def orphaned(self) -> bool:
        """Whether its event loop was closed under it."""
        return self._loop.is_closed()

    # -- calling ----------------------------------------------------------------------------------

    async def ask(
        self,
        name: str,
        call: Callable[[libvirt.virConnect], T],
        deadline_seconds: float | None = None,
    ) -> T:
        """Make one call that is not a domain's read; ``call`` is given the ``virConnect``.

        ``deadline_seconds`` is a call's usual deadline when it is None. Raises
        :class:`CallTimeoutError` or another :class:`HypervisorUnavailableError`, never a
        ``libvirtError``. Cancelling is safe.
        """
        connection = self.handle
        return await self._call(
            name,
            lambda: call(connection),
            self._settings.call_deadline_seconds if deadline_seconds is None else deadline_seconds,
        )

    @property
    def handle(self) -> libvirt.virConnect:
        """libvirt's connection, for calls made in this connection's threads."""
        if self._connection is None:
            raise HypervisorUnavailableError(self.uri, "the connection is not open")
        return self._connection

    async def _call(
        self,
        name: str,
        call: Callable[[], T],
        deadline_seconds: float,
    ) -> T:
        try:
            return await self.thread.call(call, deadline_seconds)
        except TimeoutError:
            raise CallTimeoutError(self.uri, name, deadline_seconds) from None
        except ThreadClosedError:
            raise HypervisorUnavailableError(self.uri, "the connection was lost") from None
        except ThreadNotStartedError as error:
            raise HypervisorUnavailableError(self.uri, no_thread(error)) from None
        except libvirt.libvirtError as error:
            raise translated(self.uri, error) from None

    # -- listening and listing ------------------------------------------------------------------

    def _receiver(self, translate: Translate) -> Callable[..., None]:
        # libvirt hands out all events that have come so far in one go, on the loop's thread when
        # our event loop serves this loop, on another one when it serves a second loop or when
        # the program registered an event loop of its own. So: nothing here that waits for the
        # interpreter's lock, and even asking a domain for its UUID does.
        def receive(_connection: libvirt.virConnect, domain: Any, *arguments: Any) -> None:
            if self._closing is not None:
                return  # it would only keep the connection from closing
            self._received.append((translate, domain, arguments))
            if not self._hand_on_scheduled:
                self._hand_on_scheduled = True
                self._soon(self._hand_on)

        return receive

    def _hand_on(self) -> None:
        # First the flag, then the events: one that comes in between schedules the next round.
        self._hand_on_scheduled = False
        if self._closing is not None:
            return  # the thread that closes empties it
        try:
            for _ in range(_EVENTS_AT_ONCE):
                try:
                    translate, domain, arguments = self._received.popleft()
                except IndexError:  # all are handed on, or a thread that closes has emptied it
                    break
                self.handed_on += 1
                self._hand_on_one(translate, domain, arguments)
            self._after_events()
        finally:
            if self._received and not self._hand_on_scheduled:
                self._hand_on_scheduled = True
                self._loop.call_soon(self._hand_on)

    def _hand_on_one(self, translate: Translate, domain: Any, arguments: tuple[Any, ...]) -> None:
        try:
            self._on_event(translate(domain, arguments))
        except Exception as fault:  # noqa: BLE001 - it must not cost the others their read
            self._loop.call_exception_handler(
                {"message": "asynchost: handing on an event failed", "exception": fault}
            )

    @property
    def unread(self) -> bool:
        """Whether a backlog is in the socket; in any thread."""
        return self.thread.unread_bytes > _MANY_BYTES

    def is_behind(self) -> bool:
        """Whether a backlog of events is being worked off; in any thread.

        libvirtd's answers over this connection then come behind all of them. And the thread that
        waits for one reads them all, which the loop is handed in one go.
        """
        if self.unread:
            self._behind_until = monotonic() + _CALM_SECONDS
        return monotonic() < self._behind_until

    def _soon(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            if threading.get_ident() == self._loop_thread:
                self._loop.call_soon(function, *arguments)
            else:
                self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            pass  # the loop is closed: nobody is left to be told

    async def list_domains(self) -> dict[str, libvirt.virDomain]:
        """The domains that may count, by UUID. Drop each ``virDomain`` as soon as it was read."""
        return await self.ask(
            "virConnectListAllDomains",
            lambda handle: list_domains(handle, self._settings.policy),
            self._settings.listing_deadline_seconds,
        )

    async def list_domains_and_reasons(
        self, deadline_seconds: float | None = None
    ) -> tuple[dict[str, libvirt.virDomain], dict[str, int]]:
        """:meth:`list_domains`, and after that why those that are paused are, by UUID.

        The reasons are for those who hear of every later pause by its event.
        """
        return await self.ask(
            "virConnectListAllDomains",
            lambda handle: (
                list_domains(handle, self._settings.policy),
                paused_reasons(handle),
            ),
            deadline_seconds or self._settings.listing_deadline_seconds,
        )


def _ignore_event(_event: DomainEvent) -> None:
    pass


def _do_nothing() -> None:
    pass


def no_thread(error: CallNotMadeError) -> str:
    """Why a call was not made, and what to do about it, in words."""
    if isinstance(error, ThreadNotStartedError):
        return f"{error}: raise the limit of processes (TasksMax, ulimit -u), or free memory"
    return "the connection was lost"


_UNSETTLED: Final[set[Connection]] = set()
"""The connections that are being opened or closed, or wait for a call to be closed after it."""


@atexit.register
def _settle_at_exit() -> None:
    """Wait some tenths of a second for connections that are being opened or closed.

    A thread that is inside libvirt's open call when the interpreter ends would crash the process
    as soon as libvirtd answers: libvirt then asks for its event loop, which is written in Python,
    and Python up to 3.13 ends such a thread in the middle of libvirt's work. A call that libvirtd
    does not answer is therefore ended by closing its socket.
    """
    begun = monotonic()
    cut = False
    while _UNSETTLED and monotonic() - begun < _EXIT_SECONDS:
        if not cut and monotonic() - begun >= _CUT_AFTER_SECONDS:
            cut = True
            for connection in tuple(_UNSETTLED):
                connection.thread.cut_off()
        sleep(_EXIT_LOOK_SECONDS)


# Not in a child that was forked: it has neither the threads nor any right to the sockets.
os.register_at_fork(after_in_child=_UNSETTLED.clear)

_OPEN: Final[set[Connection]] = set()


def close_orphans() -> None:
    """Close the connections whose event loop was closed under them, each in its own thread.

    libvirt holds their callbacks, so they would never be collected.
    """
    for connection in [one for one in list(_OPEN) if one.orphaned]:  # threads take some out
        _OPEN.discard(connection)
        try:
            connection.thread.submit(Call(connection.take_down, lambda _: None, must_run=True))
        except ThreadNotStartedError:
            _OPEN.add(connection)  # the next monitor tries again
        except ThreadClosedError:
            pass  # it was closing when its loop went
        else:
            connection.thread.close()
