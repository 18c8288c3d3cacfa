"""The writer's one task: when to connect, to write, to try again, to stop.

It owns the session. What is written how is the lane's matter; who may ask for what, the
writer's. Memory: one entry for each attached host, however long an outage lasts.
"""

import asyncio
import os
import random
import secrets
import socket
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from itertools import islice

from asynchost.database import inspection
from asynchost.database.alarm import Alarm
from asynchost.database.attachment import Attachment
from asynchost.database.claims import LISTED, Setback
from asynchost.database.classify import Kind, StatementError
from asynchost.database.columns import mend
from asynchost.database.dry_lane import DryLane
from asynchost.database.endpoints import first_that_serves
from asynchost.database.lane import Lane
from asynchost.database.outage import Outage
from asynchost.database.pending import Pending
from asynchost.database.reach import Reach
from asynchost.database.records import Retry
from asynchost.database.rounds import Rounds
from asynchost.database.secret import Secret
from asynchost.database.session import Session
from asynchost.database.settings import WhenFenced, WriterSettings
from asynchost.database.statements import PARTIAL, REFUSED
from asynchost.database.status import WriterStatus
from asynchost.database.twins import Twins
from asynchost.database.url import DatabaseUrl, Endpoint
from asynchost.errors import DatabaseRefusedError, DatabaseUnavailableError
from asynchost.log import get_logger
from asynchost.timetable import Timetable
from asynchost.together import together

_NEVER = float("inf")
_ACCESS_DENIED = 1045
_CLAIMS_PER_TURN = 200
"""Bounds how long the rows that are owned already wait while many are claimed."""
_TAKEN_AT_ONCE = 250
"""Bounds how long the loop stands still for many hosts."""
_LONGEST_TURN_SECONDS = 1.0
"""Bounds how long claims and second attempts wait while there is always something due."""
_TENDED_AT_ONCE = 200
"""Bounds how long a write waits for signs of life and reading back."""
_LOOKS_PER_RENEWAL = 12
"""A standby sees within five seconds, by default, that the owner marked its row `stopped`."""
_RESOURCES_SECONDS = 10.0
"""A full disk does not empty itself sooner."""
_SIGN_RETRY_SECONDS = 1.0
"""How soon a sign of life is given again that was not taken, as where a guard row is locked."""
_SHORTEST_LIFE_SECONDS = 1.0
"""A connection that ends sooner is an outage: else it would be made again and again."""
_LEAVING_SECONDS = 0.5
"""What is kept of the shutdown deadline for letting go of the rows that could not be written."""
_LAST_RETRY_SECONDS = 0.1
"""The pause between attempts while closing, whose number the shutdown deadline bounds."""


class Worker:
    """Writes the rows of ``attachments``, from :meth:`open` to the end of :meth:`run`."""

    def __init__(
        self,
        url: DatabaseUrl,
        settings: WriterSettings,
        dry_run: Callable[[str], None] | None = None,
    ) -> None:
        self.attachments: dict[Attachment, None] = {}
        self._url = url
        self._secret: Secret | None = None
        self._settings = settings
        self._dry_run = dry_run
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._pending = Pending()
        self._unclaimed: dict[Attachment, None] = {}
        """Those that were due and have no row."""
        self._flushes: list[asyncio.Future[None]] = []
        """Asked for since the last turn began."""
        self._waiting: list[tuple[asyncio.Future[None], list[Attachment]]] = []
        """Asked for before it, each with the hosts that were dirty then and are not written yet."""
        self._leaving: dict[Attachment, None] = {}
        """Detached hosts whose guard rows do not say `stopped` yet."""
        self._leave_at = _NEVER
        """The loop's time at which writing ends and the remaining guards are marked `stopped`."""
        self._renewals: Rounds[Attachment] = Rounds(
            settings.renewal_interval_seconds, _TENDED_AT_ONCE
        )
        self._read_backs: Rounds[Attachment] = Rounds(
            settings.read_back_interval_seconds or settings.renewal_interval_seconds,
            _TENDED_AT_ONCE,
        )
        self._late_signs: Timetable[Attachment] = Timetable()
        """The hosts whose last sign of life was not taken."""
        self._alarm = Alarm()
        self._closing = asyncio.Event()
        self._lane: Lane | None = None
        self._place = ""
        """The server of the last connection."""
        self._opened_at = 0.0
        self._retire_at = _NEVER
        """The loop's time at which the connection is to be replaced."""
        self._replacing: asyncio.Task[Lane] | None = None
        """Opens the connection that is to follow."""
        self._to_read_back: dict[Attachment, None] = {}
        """The hosts whose rows were not read back since the connection was replaced."""
        self._twins = Twins()
        self._past_edits = 0
        """Foreign edits of hosts that were detached."""
        self._log = get_logger("asynchost.database")
        self._outage = Outage(url, settings, self._log)
        self._reach = Reach()

    # -- what others may call -----------------------------------------------------------------

    @property
    def closing(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._closing.is_set()

    @property
    def status(self) -> WriterStatus:
        """The present state of all hosts, and what was counted so far."""
        hosts = self.attachments
        reach = self._reach
        ages = [age for a in hosts if (age := a.status.unwritten_seconds) is not None]
        return WriterStatus(
            connected=reach.connected,
            connection_seconds=reach.seconds,
            reason=reach.reason,
            connects=reach.connects,
            connect_failures=reach.failures,
            unwritten_seconds=max(ages, default=None),
            writes=sum(a.history.writes for a in hosts),
            unknown_outcomes=sum(a.history.unknown_outcomes for a in hosts),
            hosts=len(hosts),
            owned=sum(attachment.row is not None for attachment in hosts),
            dirty=sum(attachment.dirty for attachment in hosts),
            standing_by=sum(attachment.standby is not None for attachment in hosts),
            given_up=sum(attachment.error is not None for attachment in hosts),
            foreign_edits=self._past_edits + sum(a.foreign_edits for a in hosts),
            refused=sum(a.trouble == REFUSED for a in hosts if a.error is None),
            partial=sum(a.trouble == PARTIAL for a in hosts if a.error is None),
        )

    def use_url(self, url: DatabaseUrl, secret: Secret | None = None) -> None:
        """Connect with this URL, which differs in its password only, from the next time on;
        ``secret`` is asked for the password before each connection."""
        self._url = url
        self._secret = secret

    def touched(self, attachment: Attachment) -> None:
        """This host may have to be written at its ``due_at``."""
        if attachment in self.attachments:
            self._alarm.ring(self._pending.add(attachment))

    def remove(self, attachment: Attachment) -> None:
        """Write this host no more."""
        if attachment in self.attachments:
            self._past_edits += attachment.foreign_edits
            del self.attachments[attachment]
        self._pending.discard(attachment)
        self._unclaimed.pop(attachment, None)
        self._late_signs.discard(attachment)
        self._let_go_of(attachment)

    def _let_go_of(self, attachment: Attachment) -> None:
        """Have the guard row of a detached host say `stopped`."""
        if attachment.row is not None and not self.closing:
            self._leaving[attachment] = None
            self._alarm.ring(self._late_signs.add(attachment, asyncio.get_running_loop().time()))

    def request_flush(self) -> asyncio.Future[None]:
        """Done when all that is dirty now is written."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flushes.append(waiter)
        self._alarm.ring()
        return waiter

    def refuse_flushes(self, error: BaseException) -> None:
        """Nothing will be written any more."""
        for waiter in (*self._flushes, *(waiter for waiter, _ in self._waiting)):
            if not waiter.done():
                waiter.set_exception(error)
        self._flushes.clear()
        self._waiting.clear()

    def stop(self) -> None:
        """Make :meth:`run` write what is dirty, mark all guard rows `stopped`, and end."""
        if not self.closing:
            deadline = self._settings.shutdown_deadline_seconds
            writing = max(deadline / 2, deadline - _LEAVING_SECONDS)
            self._leave_at = asyncio.get_running_loop().time() + writing
        self._closing.set()
        self._alarm.ring()

    def abort(self) -> None:
        """End the session now, whoever uses it."""
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.abort()

    async def connect(self) -> None:
        """The first connection, before :meth:`run`: raises if it is refused, and only then."""
        try:
            await self._open()
        except DatabaseUnavailableError as error:
            self._reach.failed(error)
            self._outage.report(error, closing=self.closing)

    async def run(self) -> None:
        """Serve, and connect again whenever the connection ends; until stopped.

        :raises DatabaseRefusedError: refused, and never accepted before.
        """
        while True:
            try:
                lane = self._lane or await self._open()
                lane = await self._serve(lane)
            except (DatabaseRefusedError, DatabaseUnavailableError) as error:
                self._reach.failed(error)
                delay = self._outage.delay_after(error, closing=self.closing)
            else:
                await lane.aclose()
                return
            finally:
                self.abort()
                await self._end_replacing()
            if not await self._pause(delay):
                return

    # -- the connection -----------------------------------------------------------------------

    async def _open(self) -> Lane:
        """A new connection, where there is none."""
        lane = await first_that_serves(self._url, self._open_at)
        try:
            # What the database holds counts, not what it once said: a crash or a failover may
            # have lost it, and a write whose answer was lost may have landed.
            await lane.reconcile(self.attachments)
        except BaseException:
            lane.abort()
            raise
        self._take(lane)
        for attachment in self.attachments:
            attachment.touch()
        return lane

    async def _open_at(self, endpoint: Endpoint | None) -> Lane:
        deadline = self._settings.statement_deadline_seconds
        url, secret = self._url, self._secret
        if secret is not None:
            password = await secret.password(str(url), deadline)
            url = replace(url, password=password)
        try:
            session = await Session.connect(url, deadline, endpoint)
        except DatabaseRefusedError as error:
            if secret is None or error.code != _ACCESS_DENIED or not secret.hint:
                raise
            remedy = f"{error.remedy}; {secret.hint}"
            raise DatabaseRefusedError(str(url), error.code, error.reason, remedy) from error
        try:
            lane = await self._lane_of(session)
        except BaseException:
            session.abort()
            raise
        lane.place = str(endpoint) if endpoint else str(self._url.unix_socket)
        self._log.info(
            "database connected", database=str(self._url), server=lane.place, tls=session.encrypted
        )
        return lane

    def _take(self, lane: Lane) -> None:
        """This connection is the one from now on."""
        self._lane = lane
        lane.when_ended(self._alarm.ring)
        self._opened_at = asyncio.get_running_loop().time()
        self._retire_at = self._retires_at()
        self._outage.accepted()
        self._reach.made()
        if lane.place != self._place:
            # Another server may lag, so that a living owner's sign of life looks old there.
            self._look_away()
        self._place = lane.place

    def _look_away(self) -> None:
        for attachment in self.attachments:
            attachment.look_away()

    async def _keep_connected(self, lane: Lane) -> Lane:
        """The connection to go on with: a new one where the old one has ended, or was old and
        another one has been opened beside it."""
        if lane.ended:
            return await self._reopen(lane)
        if self._replacing is None:
            if asyncio.get_running_loop().time() >= self._retire_at:
                self._begin_replacing()
        elif self._replacing.done():
            return await self._replace(lane)
        return lane

    async def _reopen(self, lane: Lane) -> Lane:
        """A new connection in place of one that ended while nothing was asked of it, as by the
        idle timeout of a proxy: that is no outage.

        :raises StatementError: it ended so soon that another one would as well.
        """
        lane.abort()
        if asyncio.get_running_loop().time() - self._opened_at < _SHORTEST_LIFE_SECONDS:
            reason = "the server ended the connection as soon as it was made"
            raise StatementError(str(self._url), None, reason, Kind.CONNECTION)
        return await self._open()

    async def _lane_of(self, session: Session) -> Lane:
        if self._dry_run is not None:
            await session.forbid_writes()
        layout = await inspection.check(session, only_reads=self._dry_run is not None)
        if layout.misfits:
            reasons = [misfit.reason for misfit in layout.misfits]
            self._log.warning(
                "columns do not hold every host's values",
                reasons=reasons,
                mend=mend(layout.misfits),
            )
        if self._dry_run is None:
            return Lane(session, self._owner, layout)
        return DryLane(session, self._owner, layout, self._dry_run)

    async def _replace(self, lane: Lane) -> Lane:
        """Go over to the connection that was opened beside an old one; the old one serves on where
        there is none."""
        task, self._replacing = self._replacing, None
        assert task is not None  # noqa: S101 - for the type
        try:
            new = task.result()
        except (DatabaseUnavailableError, DatabaseRefusedError) as error:
            self._log.warning("no new connection, the old one serves on", reason=error.message)
            self._retire_at = self._retires_at()
            return lane
        self._take(new)
        # Beside the writing: nothing is in doubt.
        self._to_read_back = dict.fromkeys(self.attachments)
        await lane.aclose()
        return new

    def _begin_replacing(self) -> None:
        self._retire_at = _NEVER
        self._replacing = asyncio.create_task(first_that_serves(self._url, self._open_at))
        self._replacing.add_done_callback(lambda _: self._alarm.ring())

    async def _end_replacing(self) -> None:
        """Close the connection that was being opened beside another one, if there is one."""
        task, self._replacing = self._replacing, None
        if task is not None:
            task.cancel()
            for made in await asyncio.gather(task, return_exceptions=True):
                if not isinstance(made, BaseException):
                    made.abort()

    def _retires_at(self) -> float:
        """The loop's time at which a connection made now is old; jittered, so that agents which
        connected together do not come back together."""
        age = self._settings.connection_age_seconds or _NEVER
        return asyncio.get_running_loop().time() + age * (0.8 + 0.4 * random.random())  # noqa: S311

    async def _pause(self, delay_seconds: float) -> bool:
        """Wait before the next attempt; False when none is to be made."""
        if self.closing:
            if not any(attachment.dirty for attachment in self.attachments):
                return False
            await asyncio.sleep(min(delay_seconds, _LAST_RETRY_SECONDS))
            return True
        try:
            async with asyncio.timeout(delay_seconds):
                await self._closing.wait()
        except TimeoutError:
            pass
        return True

    # -- the work -----------------------------------------------------------------------------

    async def _serve(self, lane: Lane) -> Lane:
        """Write whatever is due, until closing; then write what is dirty and take leave.

        Returns the lane in use at the end.
        """
        loop = asyncio.get_running_loop()
        for rounds in (self._renewals, self._read_backs):
            # A random phase, so that agents which lost one server together do not tick together.
            rounds.begin(loop.time(), self.attachments, random.random())  # noqa: S311
        look_at = loop.time() if self._settings.when_fenced == WhenFenced.WAIT else _NEVER
        await self._look_for_twins(lane)
        while not self.closing:
            lane = await self._keep_connected(lane)
            now = loop.time()
            tend_at = self._tend_at
            other_duty_at = min(tend_at, look_at, self._retire_at, now + _LONGEST_TURN_SECONDS)
            if self._flushes:
                self._begin_flushes()
                await self._turn(lane, self.attachments)
            elif self._unclaimed or self._pending.next_at <= now:
                await self._turn(lane, (), other_duty_at)
            self._release_flushes()
            if now >= tend_at:
                late = self._late_signs.take(now, _TENDED_AT_ONCE)
                renewed = [*self._renewals.take(now, self.attachments), *late]
                read_back = self._next_to_read_back(now)
                tend_at = self._tend_at
                until = min(max(tend_at, now), now + _LONGEST_TURN_SECONDS)
                # Between the statements of a turn: those would have to wait for it too long.
                await together(self._tend(lane, renewed, read_back), self._turn(lane, (), until))
                self._release_flushes()
            if now >= look_at:
                await self._watch(lane)
                look_at = now + self._settings.renewal_interval_seconds / _LOOKS_PER_RENEWAL
            # No await between here and the sleep: a ring in between would be lost.
            if not (self._flushes or self._unclaimed or lane.ended or self.closing):
                next_at = self._pending.next_at
                await self._alarm.sleep(min(next_at, self._tend_at, look_at, self._retire_at))
        await self._take_leave(lane)
        return lane

    async def _take_leave(self, lane: Lane) -> None:
        """Write what is dirty, and mark the guard of each row `stopped` as soon as the row is
        written. A row that cannot be written, a locked one for example, is marked shortly before
        the deadline."""
        loop = asyncio.get_running_loop()
        self._begin_flushes()
        await self._turn(lane, self.attachments)
        left = {**self.attachments, **self._leaving}
        while left:
            self._release_flushes()
            is_late = loop.time() >= self._leave_at
            done = {a: None for a in left if is_late or not self._is_unwritten(a)}
            kept = set(await lane.renew(done, stopped=True)) if done else set()
            left = {a: None for a in left if a in kept or a not in done}
            if is_late:
                break
            if left:
                await asyncio.sleep(_LAST_RETRY_SECONDS)
                await self._turn(lane, [a for a in left if a.retrying])
        self._release_flushes()

    async def _look_for_twins(self, lane: Lane) -> None:
        try:
            await lane.look_for_twins(self._twins, self.attachments)
        except StatementError as error:
            if error.kind is Kind.CONNECTION:
                raise
            self._log.debug("new rows not looked at", reason=error.reason)

    def _next_to_read_back(self, now: float) -> list[Attachment]:
        some = list(islice(self._to_read_back, _TENDED_AT_ONCE))
        for attachment in some:
            del self._to_read_back[attachment]
        some += self._read_backs.take(now, self.attachments)
        return [attachment for attachment in dict.fromkeys(some) if attachment in self.attachments]

    @property
    def _tend_at(self) -> float:
        if self._to_read_back:
            return -_NEVER
        return min(self._renewals.next_at, self._read_backs.next_at, self._late_signs.next_at)

    async def _tend(
        self, lane: Lane, renewed: Sequence[Attachment], read_back: Sequence[Attachment]
    ) -> None:
        """Say that some hosts are watched, and mend what others did to rows that do not change."""
        if here := dict.fromkeys(a for a in renewed if a in self.attachments):
            await self._renew(lane, here)
        if gone := dict.fromkeys(a for a in renewed if a in self._leaving):
            await self._renew(lane, gone, stopped=True)
        if read_back:
            try:
                await lane.reconcile(read_back)
            except StatementError as error:
                if error.kind is Kind.CONNECTION:
                    raise
                # As where the whole table is locked. Their turn comes again.
                self._log.debug("rows not read back", count=len(read_back), reason=error.reason)
            await self._look_for_twins(lane)
        if moved := [a for a in read_back if a in self.attachments and a.state_moved]:
            await self._renew(lane, moved)
        for attachment in read_back:
            # Not those that are pending already: another touch would put their write off.
            if attachment.dirty and attachment not in self._pending:
                attachment.touch()

    async def _turn(self, lane: Lane, hosts: Iterable[Attachment], until: float = -_NEVER) -> None:
        """Write these hosts, and those that are due until a time; then claim some rows."""
        due = _Due(self, hosts, until)
        try:
            setbacks = await lane.flush(due)
            if due.suspects:
                setbacks += await lane.retry(due.suspects)
            claiming = list(islice(self._unclaimed, _CLAIMS_PER_TURN))
            due.begun.extend(claiming)
            setbacks += await self._claim(lane, claiming)
            if moved := dict.fromkeys(a for a in due.begun if a.state_moved):
                await self._renew(lane, moved)
        except BaseException:
            for attachment in due.begun:
                attachment.retry()
            raise
        if due.begun:
            self._outage.over()
            self._postpone(setbacks)

    def begin(self, hosts: Iterable[Attachment]) -> list[Attachment]:
        """The writes of these hosts begin; returns those that own rows. The others are claimed
        first."""
        owning: list[Attachment] = []
        for attachment in hosts:
            self._pending.discard(attachment)
            attachment.take()
            if attachment.row is None:
                self._unclaimed[attachment] = None
            else:
                owning.append(attachment)
        return owning

    def next_due(self, until: float) -> list[Attachment]:
        """The next few hosts whose time has come, unless ``until`` has come as well."""
        now = asyncio.get_running_loop().time()
        if now >= until or self._flushes or self.closing:
            return []
        return self._pending.take(now, _TAKEN_AT_ONCE)

    async def _renew(
        self, lane: Lane, hosts: Collection[Attachment], *, stopped: bool = False
    ) -> None:
        """Give signs of life; what is not taken is tried again in a second."""
        again_at = asyncio.get_running_loop().time() + _SIGN_RETRY_SECONDS
        left = await lane.renew(hosts, stopped=stopped)
        for attachment in left:
            self._late_signs.add(attachment, again_at)
        if stopped:
            for attachment in hosts:
                if attachment not in left:
                    self._leaving.pop(attachment, None)

    async def _watch(self, lane: Lane) -> None:
        try:
            await lane.watch(self.attachments, self._settings.renewal_interval_seconds)
        except StatementError as error:
            if error.kind is Kind.CONNECTION:
                raise
            self._log.debug("guard rows not read", reason=error.reason)

    async def _claim(self, lane: Lane, attachments: list[Attachment]) -> list[Setback]:
        if not attachments:
            return []
        setbacks = await lane.claim(attachments, self._held())
        for attachment in attachments:
            self._unclaimed.pop(attachment, None)
            if attachment not in self.attachments:
                # Detached while it was claimed.
                self._let_go_of(attachment)
        claimed = iter([attachments])
        return setbacks + await lane.flush(lambda: next(claimed, ()))

    def _held(self) -> dict[int, str]:
        return {a.row.row_id: a.host for a in self.attachments if a.row is not None}

    def _postpone(self, setbacks: list[Setback]) -> None:
        """Try these again later; one line tells of the hosts that are in trouble since lately."""
        news = []
        full = any(s.error is not None and s.error.kind is Kind.RESOURCES for s in setbacks)
        for setback in setbacks:
            attachment = setback.attachment
            if attachment not in self.attachments:
                continue
            if setback.retry is Retry.AT_ONCE:
                attachment.retry()
                continue
            attachment.postpone(setback.retry, _RESOURCES_SECONDS if full else 0.0)
            if setback.error is not None and attachment.is_news(setback.error.code):
                news.append(setback)
        if news and news[0].error is not None:
            self._log.warning(
                "writing again later",
                hosts=[setback.attachment.host for setback in news[:LISTED]],
                count=len(news),
                reason=news[0].error.message,
            )

    def _is_unwritten(self, attachment: Attachment) -> bool:
        """Whether a host that was due waits for another attempt, or for its claim."""
        return attachment in self.attachments and (
            attachment in self._unclaimed or attachment.is_awaited
        )

    def _begin_flushes(self) -> None:
        """The turn that is to come writes all hosts that are dirty now; those that it does not get
        written are waited for. Which ones are dirty is not asked before: it costs as much."""
        if self._flushes:
            hosts = list(self.attachments)
            self._waiting += [(waiter, hosts) for waiter in self._flushes]
            self._flushes.clear()

    def _release_flushes(self) -> None:
        """End those flushes all of whose hosts were written, refused or given up since."""
        waiting, self._waiting = self._waiting, []
        for waiter, hosts in waiting:
            if left := [attachment for attachment in hosts if self._is_unwritten(attachment)]:
                self._waiting.append((waiter, left))
            elif not waiter.done():
                waiter.set_result(None)


class _Due:
    """The hosts of one turn: some that were asked for, then all that are due until a time."""

    def __init__(self, worker: Worker, hosts: Iterable[Attachment], until: float) -> None:
        self.begun: list[Attachment] = []
        """All that were handed out or put aside."""
        self.suspects: list[Attachment] = []
        """Those that share no statement with others."""
        self._worker = worker
        self._first = (one for one in tuple(hosts) if one in worker.attachments)
        self._until = until

    def __call__(self) -> list[Attachment]:
        """The next few that own rows and may share a statement; none when no more are due."""
        while some := list(islice(self._first, _TAKEN_AT_ONCE)) or self._worker.next_due(
            self._until
        ):
            self.begun.extend(some)
            owning = self._worker.begin(some)
            if suspects := [one for one in owning if one.suspect]:
                self.suspects.extend(suspects)
                owning = [one for one in owning if not one.suspect]
            if owning:
                return owning
        return []
