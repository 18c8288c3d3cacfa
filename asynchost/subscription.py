"""A subscriber's own backlog of items, which is bounded and delays no other subscriber.

Memory: at most ``limit`` items for each subscription, and one weak reference to it.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Generic, NamedTuple, Never, Self, TypeVar
from weakref import WeakSet

from asynchost.domains import Domain, DomainEvent, DomainTable, EventKind
from asynchost.errors import ClosedError, InvalidSettingError, NotReadyError
from asynchost.ledger import Record
from asynchost.log import get_logger
from asynchost.model import Change, ChangeKind, Drift, HostSnapshot

T = TypeVar("T")

# About a minute of a busy host, and less than a megabyte.
DEFAULT_LIMIT: Final = 1000


def report_to_loop(error: BaseException, observer: object) -> None:
    """Give the error that an observer raised to the running loop's exception handler.

    Without a running loop the error is logged.
    """
    name = getattr(observer, "__qualname__", type(observer).__name__)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        get_logger("asynchost").error("listener failed", listener=name, exc_info=error)
    else:
        loop.call_exception_handler(
            {"message": f"asynchost: the listener {name} failed", "exception": error}
        )


class Ending:
    """Why a monitor ended, and whether anybody who holds the monitor was told."""

    __slots__ = ("error", "told")

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.told = False

    def throw(self) -> Never:
        """Raise the error; every caller gets the same exception object."""
        self.told = True
        raise self.error


class Stream(ABC, Generic[T]):
    """An asynchronous iterator over the items that are pushed, from its creation on.

    Iteration stops after :meth:`close` and after the monitor was closed. When the monitor has
    died, ``__anext__`` raises the error that ended the monitor. In both cases the items that
    came before are returned first, except after :meth:`close`. One task may iterate, on the
    monitor's event loop. Cancelling a wait is safe: no item is lost.

    :raises RuntimeError: (iterating) a second task iterates, or another event loop runs.
    :raises InvalidSettingError: (creating) ``limit`` is not a whole number from 1 on.
    """

    def __init__(
        self,
        forget: Callable[[Any], None],
        limit: int = DEFAULT_LIMIT,
        *,
        host: str = "",
        check_loop: Callable[[], None] = lambda: None,
    ) -> None:
        if type(limit) is not int or limit < 1:
            raise InvalidSettingError("limit", limit, "give a whole number from 1 on")
        self._forget = forget
        self._limit = limit
        self._host = host
        self._check_loop = check_loop
        self._backlog: deque[T] = deque()
        self._closed = False
        self._ending: Ending | None = None
        self._waiting: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        state = "open" if not self._closed else "ended" if self._ending is None else "failed"
        return f"<{type(self).__name__} of {self._host!r} {state}, {len(self._backlog)} waiting>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        self._check_loop()
        while not self._backlog:
            if self._closed:
                if self._ending is not None:
                    self._ending.throw()
                raise StopAsyncIteration
            if self._waiting is not None:
                raise RuntimeError("another task iterates this subscription; make one for each")
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        return self._backlog.popleft()

    def push(self, item: T) -> None:
        """Take one more item; for the monitor."""
        if len(self._backlog) >= self._limit:
            item = self._make_room(item)
        self._backlog.append(item)
        self._wake()

    @abstractmethod
    def _make_room(self, item: T) -> T:
        """Take something out of a full backlog; returns what to put in, with ``item`` in it."""

    def end(self, ending: Ending | None = None) -> None:
        """No further item will come; the backlog can still be read. For the monitor.

        ``ending`` is raised after the backlog; with None iteration stops.
        """
        if not self._closed:
            self._closed = True
            self._ending = ending
            self._wake()

    def close(self) -> None:
        """Stop receiving, and forget the backlog. Idempotent."""
        self._forget(self)
        self._backlog.clear()
        self._ending = None
        self.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class Subscription(Stream[Change]):
    """The changes of a host.

    A subscriber that falls ``limit`` changes behind loses the steps, not the sum: its backlog is
    folded into one change from the oldest ``before`` to the newest ``after``, and counted in
    :attr:`folded`.
    """

    folded: int = 0
    """How many changes were lost as steps, in all."""

    def _make_room(self, item: Change) -> Change:
        self.folded += len(self._backlog)
        folded = Change(
            host=item.host,
            generation=item.generation,
            before=self._backlog[0].before,
            after=item.after,
            cause=item.cause,
            detail=item.detail,
            folded=item.folded + sum(one.folded for one in self._backlog),
            kind=ChangeKind.FOLDED,
            number=item.number,
            at=item.at,
        )
        self._backlog.clear()
        return folded


class DriftSubscription(Stream[Drift]):
    """The corrections that audits of a host make.

    A subscriber that falls ``limit`` behind loses the oldest, counted in :attr:`lost`.
    """

    lost: int = 0
    """How many corrections were lost, in all."""

    def _make_room(self, item: Drift) -> Drift:
        self._backlog.popleft()
        self.lost += 1
        return item


class EventFilter(NamedTuple):
    """Which domain events a subscriber wants."""

    uuid: str | None
    """Of this domain only; None for all domains."""
    kinds: frozenset[EventKind]
    """Of these kinds only; empty for all kinds."""


class DomainEvents(Stream[DomainEvent]):
    """The events of a host's domains; :meth:`HostMonitor.domain_events` makes it.

    A subscriber that falls ``limit`` behind loses the oldest, counted in the next event's
    ``lost``; the monitor's ``domains`` are the truth then.
    """

    def __init__(
        self,
        forget: Callable[[Any], None],
        limit: int,
        wanted: EventFilter,
        make: Callable[[Record], Domain],
        *,
        host: str,
        check_loop: Callable[[], None],
    ) -> None:
        super().__init__(forget, limit, host=host, check_loop=check_loop)
        self._uuid, self._kinds = wanted
        self._make = make
        self._initial: Mapping[str, Domain] | None = None
        self._begun = asyncio.Event()
        self._lost = 0

    @property
    def initial(self) -> Mapping[str, Domain]:
        """The table of the counted domains at the stream's position: the first event follows it.

        Of a stream for one domain, the table has that domain alone.

        :raises NotReadyError: the host is not ready yet; await :meth:`synced` first.
        """
        if self._initial is None:
            raise NotReadyError(self._host, "no totals before the first resync; await synced()")
        return self._initial

    async def synced(self) -> Mapping[str, Domain]:
        """Wait until the host is ready, and return :attr:`initial`. Cancelling is safe.

        Raises what ended the monitor, and :class:`ClosedError` when the stream was closed before.
        """
        self._check_loop()
        if not self._closed or self._initial is not None:
            await self._begun.wait()
        if self._initial is None:
            if self._ending is not None:
                self._ending.throw()
            raise ClosedError(f"the stream of {self._host}")
        return self._initial

    def begin(self, records: Mapping[str, Record]) -> None:
        """The stream's position is the moment of these records. For the monitor."""
        if self._uuid is not None:
            record = records.get(self._uuid)
            kept = {} if record is None else {self._uuid: record}
        else:
            kept = dict(records)
        self._initial = DomainTable(lambda: kept, self._make)
        self._begun.set()

    def push(self, item: DomainEvent) -> None:
        """Take one more event, if it is wanted; for the monitor."""
        if self._uuid is not None and item.uuid != self._uuid:
            return
        if self._kinds and item.kind not in self._kinds:
            return
        super().push(item)

    def end(self, ending: Ending | None = None) -> None:
        """No further event will come; for the monitor."""
        super().end(ending)
        self._begun.set()

    async def __anext__(self) -> DomainEvent:
        item = await super().__anext__()
        if self._lost:
            item, self._lost = replace(item, lost=self._lost), 0
        return item

    def _make_room(self, item: DomainEvent) -> DomainEvent:
        self._backlog.popleft()
        self._lost += 1
        return item


class Snapshots(Stream[HostSnapshot]):
    """The newest state of a host, whenever it moved; :meth:`HostMonitor.snapshots` makes it.

    There is never a backlog: a slow subscriber gets the newest state, and none in between.
    """

    def __init__(
        self,
        forget: Callable[[Any], None],
        take: Callable[[], HostSnapshot],
        *,
        host: str,
        check_loop: Callable[[], None],
    ) -> None:
        super().__init__(forget, 1, host=host, check_loop=check_loop)
        self._take = take
        self._last: HostSnapshot | None = None

    async def __anext__(self) -> HostSnapshot:
        while True:
            await super().__anext__()
            snapshot = self._take()
            # The age of frozen totals grows by itself.
            told = replace(snapshot, stale_seconds=None)
            if told != self._last:
                self._last = told
                return snapshot

    def _make_room(self, item: HostSnapshot) -> HostSnapshot:
        self._backlog.popleft()
        return item


S = TypeVar("S", bound=Stream[Any])


class Streams(Generic[S]):
    """The open streams of one kind: each item is pushed into all of them.

    A stream is held weakly, so one that its subscriber drops without closing it is forgotten.
    """

    __slots__ = ("_ended", "_ending", "_open")

    def __init__(self) -> None:
        self._open: WeakSet[S] = WeakSet()
        self._ended = False
        self._ending: Ending | None = None

    def __bool__(self) -> bool:
        return bool(self._open)

    def add(self, stream: S) -> S:
        """Push every further item into ``stream`` as well; it ends at once after :meth:`end`."""
        if self._ended:
            stream.end(self._ending)
        else:
            self._open.add(stream)
        return stream

    def forget(self, stream: S) -> None:
        """Push nothing into ``stream`` any more. Idempotent."""
        self._open.discard(stream)

    def push(self, item: Any) -> None:
        """Push ``item`` into every open stream."""
        for stream in list(self._open):
            stream.push(item)

    def each(self) -> list[S]:
        """The open streams."""
        return list(self._open)

    def end(self, ending: Ending | None) -> None:
        """End every stream, also those that are added later."""
        self._ended, self._ending = True, ending
        for stream in list(self._open):
            stream.end(ending)


class DomainStreams(Streams[DomainEvents]):
    """The open streams of domain events."""

    __slots__ = ()

    def begin(self, records: Mapping[str, Record]) -> None:
        """The first totals are there: the streams so far begin with these records."""
        for stream in self.each():
            stream.begin(records)
