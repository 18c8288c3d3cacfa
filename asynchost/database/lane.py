"""One session at work for many hosts: claims, flushes, signs of life, reading back.

Says what came of each statement to the attachments and to the log; when to try again is the
writer's matter. Memory: the statements of a thousand hosts, and one answer.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from asynchost.database import statements
from asynchost.database.attachment import Attachment
from asynchost.database.claims import LISTED, Claimant, Setback, shown
from asynchost.database.classify import Kind, RowsLockedError, StatementError
from asynchost.database.finding import moved
from asynchost.database.inspection import blame
from asynchost.database.layout import Layout
from asynchost.database.plan import Plan
from asynchost.database.records import Record, Retry, Verdict
from asynchost.database.rows import Value, Values, same
from asynchost.database.session import Row, Session
from asynchost.database.statements import FenceKey, RowWrite, Sign
from asynchost.database.twins import MOST, NewRow, Twins
from asynchost.database.vigil import MISSED_RENEWALS, Sight
from asynchost.errors import DatabaseRefusedError
from asynchost.log import get_logger
from asynchost.together import together

_SIGNS_PER_STATEMENT = 1000
_ROWS_PER_READING_BACK = 200
"""Bounds how long the loop is held up by an answer, in which each row has its text of the CPU."""
_WORTH_PREPARING = 64
"""From so many rows on the next statement is prepared beside the last one."""
_CAREFUL_SECONDS = 30.0
"""How long after a row was found locked each statement first looks which rows are locked. So of
many locks, at whatever time they are taken, one is waited for."""
_ISOLATING_SECONDS = 0.5
"""Bounds how long all others wait while the rows are looked for that make statements fail."""
_DEADLOCK = 1213
"""A deadlock: the server rolled this statement back at once, so no row has to be looked for."""
_NEVER_NULL = frozenset({"hypervisor_hostname"})
"""The columns that keep their last value where a value does not fit, though NULL would."""
_PREPARING_SECONDS = 0.002
"""The pause between looks for what became due: so long the server may wait, at most."""

Due = Callable[[], Collection[Attachment]]


class Lane:
    """Carries out the work of one session. Any StatementError that it raises is of kind
    CONNECTION and has ended the session; the attachments know what is in doubt."""

    def __init__(self, session: Session, owner: str, layout: Layout = Layout()) -> None:  # noqa: B008 - immutable
        self.place = ""
        """The server, as the log names it."""
        self._session = session
        self._layout = layout
        self._owner = owner
        self._claimant = Claimant(session, owner, layout)
        self._turn = asyncio.Lock()
        self._careful_until = float("-inf")
        self._log = get_logger("asynchost.database")

    async def reconcile(self, attachments: Iterable[Attachment]) -> list[Attachment]:
        """Read back what the database holds and take that as acknowledged, whatever we thought.

        Returns the hosts that must be claimed again; those that are fenced know it afterwards.
        """
        lost: list[Attachment] = []
        async with self._alone():
            owned = [attachment for attachment in attachments if attachment.row is not None]
            for start in range(0, len(owned), _ROWS_PER_READING_BACK):
                part = owned[start : start + _ROWS_PER_READING_BACK]
                keys = [attachment.row.key for attachment in part if attachment.row is not None]
                rows = await self._session.query(statements.read_back(keys))
                records = {record.key: record for record in map(_record, rows)}
                lost += [a for a in part if self._judge(a, records) is Verdict.LOST]
        return lost

    async def look_for_twins(self, twins: Twins, attachments: Iterable[Attachment]) -> None:
        """Tell of other live rows of these hosts' names, made since the last look."""
        async with self._alone():
            ((newest,),) = await self._session.query(statements.newest_row())
            rows: list[NewRow] = []
            if twins.after is not None:
                new = statements.newer_rows(twins.after, MOST)
                for row_id, name, service_id in await self._session.query(new):
                    # Where the column is binary the driver gives bytes.
                    text = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
                    rows.append(NewRow(row_id, text, service_id))
        twins.look(newest or 0, rows, attachments)

    async def flush(self, due: Due) -> list[Setback]:
        """Write what differs of the hosts that are due, until none is.

        ``due`` gives the next few each time. Returns those to be tried again, which are left out
        from then on.
        """
        plan = Plan()
        preparing = asyncio.Lock()

        async def take_turns(batch: list[RowWrite]) -> None:
            while True:
                if batch:
                    plan.settle(batch, await self._flush(batch, plan.hosts))
                async with preparing:
                    batch = await self._prepared(plan, due)
                if not batch:
                    return

        while hosts := due():
            plan.add(hosts)
            if not plan:
                # Many that do not differ must not keep the loop from everything else.
                await asyncio.sleep(0)
            elif len(plan) < _WORTH_PREPARING:
                while batch := plan.take():
                    plan.settle(batch, await self._flush(batch, plan.hosts))
            else:
                # While the server has one's statement, the other one does the books of its last
                # and prepares its next.
                await together(take_turns(plan.take()), take_turns([]))
        return plan.setbacks

    async def _prepared(self, plan: Plan, due: Due) -> list[RowWrite]:
        """The next statement's writes: of what is due, and of what becomes due until the server
        is free for it."""
        while len(plan) < statements.ROWS_PER_STATEMENT:
            if hosts := due():
                plan.add(hosts)
                await asyncio.sleep(0)
            elif self._turn.locked():
                await self._free(_PREPARING_SECONDS)
            else:
                break
        return plan.take()

    async def _free(self, seconds: float) -> None:
        """Wait until no statement is under way, for so long at most."""
        try:
            async with asyncio.timeout(seconds):
                await self._turn.acquire()
        except TimeoutError:
            return
        self._turn.release()

    async def claim(
        self, attachments: Iterable[Attachment], held: Mapping[int, str]
    ) -> list[Setback]:
        """Claim the rows of hosts that have none. Returns those to be tried again."""
        async with self._alone():
            return await self._claimant.claim(attachments, held)

    async def watch(self, attachments: Iterable[Attachment], renewal_seconds: float) -> None:
        """Look at the guards of rows that are waited for, to be claimed once they may be."""
        silent_seconds = MISSED_RENEWALS * renewal_seconds
        pairs = [(a, key) for a in attachments if (key := a.watched) is not None]
        for start in range(0, len(pairs), _SIGNS_PER_STATEMENT):
            part = pairs[start : start + _SIGNS_PER_STATEMENT]
            async with self._alone():
                rows = await self._session.query(
                    statements.read_guards([key for _, key in part], silent_seconds)
                )
            sights = {sight.key: sight for sight in map(_sight, rows)}
            for attachment, key in part:
                if attachment.look(sights.get(key), self._owner):
                    self._log.warning("the owner is gone, claiming the row", host=attachment.host)

    async def renew(
        self, attachments: Iterable[Attachment], *, stopped: bool = False
    ) -> list[Attachment]:
        """Give signs of life; where one is not taken, find out why.

        Returns the hosts whose sign the database did not take: somebody has locked their guards.
        """
        pairs = [(a, sign) for a in attachments if (sign := a.sign()) is not None]
        if stopped:
            pairs = [(a, sign._replace(state=statements.STOPPED)) for a, sign in pairs]
        left: list[Attachment] = []
        for start in range(0, len(pairs), _SIGNS_PER_STATEMENT):
            left += await self._renew(pairs[start : start + _SIGNS_PER_STATEMENT])
        return left

    async def _renew(
        self, part: Sequence[tuple[Attachment, Sign]], *, unlocked: bool = False
    ) -> list[Attachment]:
        try:
            text = statements.renew([sign for _, sign in part], self._owner)
            matched = await self._write(text, unlocked=unlocked)
            if matched is None:
                return await self._renew_unlocked(part)
        except StatementError as error:
            if error.kind is Kind.CONNECTION:
                raise
            if error.kind is Kind.SAME_CONNECTION and not unlocked:
                self._be_careful()
                return await self._renew_unlocked(part)
            if error.kind in (Kind.BAD_ROW, Kind.STATEMENT) and len(part) > 1:
                middle = len(part) // 2
                left = await self._renew(part[:middle], unlocked=True)
                return left + await self._renew(part[middle:], unlocked=True)
            return self._not_taken([attachment for attachment, _ in part], error)
        for attachment, sign in part:
            attachment.told(sign)
        if matched != len(part) and part[0][1].state != statements.STOPPED:
            for attachment in await self.reconcile(a for a, _ in part):
                attachment.touch()
        return []

    async def _renew_unlocked(self, part: Sequence[tuple[Attachment, Sign]]) -> list[Attachment]:
        """Give those signs of life whose guards nobody else has locked."""
        hosts = {sign.row_id: attachment for attachment, sign in part}
        row_ids = list(hosts)
        try:
            locked = await self._locked(
                statements.lockable_guards(row_ids), statements.existing_guards(row_ids)
            )
        except StatementError as error:
            if error.kind is Kind.CONNECTION:
                raise
            return self._not_taken(list(hosts.values()), error)
        left: list[Attachment] = []
        if locked:
            reason = RowsLockedError(str(self._session.url))
            left = self._not_taken(
                [hosts[row_id] for row_id in row_ids if row_id in locked], reason
            )
        if free := [(host, sign) for host, sign in part if sign.row_id not in locked]:
            left += await self._renew(free, unlocked=True)
        return left

    def _not_taken(self, hosts: list[Attachment], error: StatementError) -> list[Attachment]:
        """Tell of each host that its sign of life was not taken, once in a renewal interval."""
        if news := [host for host in hosts if host.is_news_of_sign()]:
            self._log.warning(
                "sign of life not taken",
                host=news[0].host,
                hosts=[host.host for host in news[:LISTED]],
                count=len(news),
                reason=error.reason,
            )
        return hosts

    async def retry(self, hosts: Iterable[Attachment]) -> list[Setback]:
        """Write hosts whose own rows may be why statements fail, each in a statement of its own.

        For as long as others may wait for it; returns the rest as well.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + _ISOLATING_SECONDS
        setbacks: list[Setback] = []
        for number, host in enumerate(hosts):
            if number > 0 and loop.time() >= until:
                setbacks.append(Setback(host, None, Retry.AT_ONCE))
            elif (write := host.plan()) is not None:
                setbacks += await self._flush([write], {write.row_id: host})
        return setbacks

    @property
    def ended(self) -> bool:
        """Whether the connection has ended; a statement would only find that out."""
        return self._session.ended

    def when_ended(self, call: Callable[[], None]) -> None:
        """Have this called as soon as the connection ends."""
        self._session.when_ended(call)

    async def aclose(self) -> None:
        """End the session in good order. Cancelling it ends it as well."""
        await self._session.aclose()

    def abort(self) -> None:
        """End the session now."""
        self._session.abort()

    async def _flush(
        self,
        batch: Sequence[RowWrite],
        planned: Mapping[int, Attachment],
        *,
        unlocked: bool = False,
        until: float | None = None,
    ) -> list[Setback]:
        """Carry out one batch; returns the hosts to be tried again.

        ``unlocked``: nobody had locked these rows a moment ago. ``until`` is the loop's time up to
        which rows are looked for that make statements fail.
        """
        hosts = [planned[write.row_id] for write in batch]
        try:
            text = self._update(batch)
            matched = await self._write(text, unlocked=unlocked)
            if matched is None:
                return await self._flush_unlocked(batch, planned, until)
            if len(batch) > 1:
                # The books can wait until the next statement is on its way.
                await asyncio.sleep(0)
        except StatementError as error:
            if error.kind is Kind.CONNECTION:
                _doubt(hosts, batch)
                raise
            # The server took it back, so nothing is in doubt.
            if not unlocked and _may_be_a_lock(error):
                self._be_careful()
                return await self._flush_unlocked(batch, planned, until)
            if error.kind in (Kind.BAD_ROW, Kind.STATEMENT):
                return await self._isolate(batch, planned, error, until)
            return [Setback(host, error) for host in hosts]
        except BaseException:
            # Cancelled: the server may carry it out all the same.
            _doubt(hosts, batch)
            raise
        if matched == 2 * len(batch):
            self._acknowledge(hosts, batch)
            return []
        return await self._find_out(hosts, batch)

    def _acknowledge(self, hosts: Sequence[Attachment], batch: Sequence[RowWrite]) -> None:
        now = asyncio.get_running_loop().time()
        written = list(zip(hosts, batch, strict=True))
        for host, write in written:
            host.acknowledge(write, now)
        self._tell_written(written)

    async def _write(self, text: str, *, unlocked: bool) -> int | None:
        """Carry out a statement; returns the number of matched rows.

        None where it was not sent, because it might wait for a lock: also where another statement
        has found one while this one waited for its turn.
        """
        async with self._alone():
            if self._careful and not unlocked:
                return None
            return await self._send(text)

    async def _send(self, text: str) -> int:
        """Carry out a statement that changes rows; returns the number of matched rows.

        :raises DatabaseRefusedError: no row can be written.
        """
        try:
            return await self._session.write(text)
        except DatabaseRefusedError as error:
            raise await blame(self._session, error) from error

    async def _flush_unlocked(
        self, batch: Sequence[RowWrite], planned: Mapping[int, Attachment], until: float | None
    ) -> list[Setback]:
        """Write those rows that nobody else has locked; the others are set back."""
        row_ids = [write.row_id for write in batch]
        try:
            locked = await self._locked(
                statements.lockable_rows(row_ids), statements.existing_rows(row_ids)
            )
        except StatementError as error:
            if error.kind is Kind.CONNECTION:
                raise
            # The whole table is locked.
            return [Setback(planned[row_id], error, Retry.LOCKED) for row_id in row_ids]
        reason = RowsLockedError(str(self._session.url))
        setbacks = [
            Setback(planned[row_id], reason, Retry.LOCKED) for row_id in row_ids if row_id in locked
        ]
        if free := [write for write in batch if write.row_id not in locked]:
            setbacks += await self._flush(free, planned, unlocked=True, until=until)
        return setbacks

    async def _isolate(
        self,
        batch: Sequence[RowWrite],
        planned: Mapping[int, Attachment],
        error: StatementError,
        until: float | None,
    ) -> list[Setback]:
        """Halve a statement that the server refused until the rows are found that cause it.

        The first half is tried in any case, so that each call finds at least one; the second one
        only if there is time.
        """
        if len(batch) == 1:
            host = planned[batch[0].row_id]
            if error.kind is Kind.STATEMENT:
                return [Setback(host, error, Retry.ALONE)]
            return await self._write_what_fits(host, batch[0], error)
        loop = asyncio.get_running_loop()
        until = loop.time() + _ISOLATING_SECONDS if until is None else until
        middle = len(batch) // 2
        first, second = batch[:middle], batch[middle:]
        setbacks = await self._flush(first, planned, unlocked=True, until=until)
        if loop.time() >= until:
            hosts = [planned[write.row_id] for write in second]
            return setbacks + [Setback(host, None, Retry.AT_ONCE) for host in hosts]
        return setbacks + await self._flush(second, planned, unlocked=True, until=until)

    async def _write_what_fits(
        self, host: Attachment, write: RowWrite, error: StatementError
    ) -> list[Setback]:
        """Write those columns of one row that the table takes, and NULL in place of the others.

        A column that takes no NULL keeps its last value.
        """
        refused: dict[str, Value] = {}
        parts = deque([write.named])
        is_tried = True
        try:
            while parts:
                part = parts.popleft()
                is_taken = not is_tried and await self._try(host, part)
                is_tried = False
                if is_taken:
                    continue
                if len(part) == 1:
                    refused.update(part)
                    continue
                columns = list(part.items())
                middle = len(columns) // 2
                parts.extendleft((dict(columns[middle:]), dict(columns[:middle])))
            landed = len(refused) < len(write.columns)
            if landed and len(refused) > 1 and await self._try(host, refused):
                # A rule over several columns, which the others had to come before.
                refused = {}
            if not refused:
                host.settle(asyncio.get_running_loop().time())
                self._tell_written([(host, write)])
                return []
            for column in refused.keys() - _NEVER_NULL:
                landed = await self._try(host, {column: None}) or landed
        except StatementError as failed:
            if failed.kind is Kind.CONNECTION:
                raise
            return [Setback(host, failed)]
        host.reject(refused, error.reason, error.code, is_whole=not landed)
        return []

    async def _try(self, host: Attachment, values: Values) -> bool:
        """Write these columns of one row; returns whether the table takes them.

        :raises StatementError: for another reason than the values.
        """
        write = host.write_of(tuple(values), tuple(values.values()))
        try:
            async with self._alone():
                matched = await self._send(self._update([write]))
        except StatementError as error:
            if error.kind is Kind.BAD_ROW:
                return False
            if error.kind is Kind.CONNECTION:
                host.doubt(write)
            raise
        except BaseException:
            host.doubt(write)
            raise
        if not matched:
            await self._find_out([host], [write])
            raise moved(self._session, "the row changed while it was written")
        host.confirm(write)
        return True

    async def _locked(self, lockable: str, existing: str) -> set[int]:
        """The rows that exist and that somebody else has locked."""
        async with self._alone():
            free = {row_id for (row_id,) in await self._session.query(lockable)}
            locked = {row_id for (row_id,) in await self._session.query(existing)} - free
        if locked:
            self._be_careful()
        return locked

    @property
    def _careful(self) -> bool:
        """Whether to look for locks before each statement."""
        return asyncio.get_running_loop().time() < self._careful_until

    def _be_careful(self) -> None:
        self._careful_until = asyncio.get_running_loop().time() + _CAREFUL_SECONDS

    def _update(self, batch: Sequence[RowWrite]) -> str:
        return statements.update(batch, self._owner, mariadb=self._session.is_mariadb)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """One at a time at the session, and none after whoever ended it."""
        await self._turn.acquire()
        try:
            yield
        finally:
            if not self._session.closed:
                self._turn.release()

    async def _find_out(
        self, hosts: Sequence[Attachment], batch: Sequence[RowWrite]
    ) -> list[Setback]:
        """Not every row was matched: whose, and why?"""
        _doubt(hosts, batch)
        try:
            lost = await self.reconcile(hosts)
        except StatementError as error:
            if error.kind is Kind.CONNECTION:
                raise
            return [Setback(host, error) for host in hosts]
        setbacks = []
        written: list[tuple[Attachment, RowWrite]] = []
        for host, write in zip(hosts, batch, strict=True):
            if host in lost:
                setbacks.append(Setback(host, None))
            elif host.row is not None:
                if host.landed(write):
                    written.append((host, write))
                elif host.dirty:
                    setbacks.append(Setback(host, None))
        self._tell_written(written)
        return setbacks

    def _judge(self, attachment: Attachment, records: Mapping[FenceKey, Record]) -> Verdict:
        try:
            return self._judge_plainly(attachment, records)
        except Exception as error:  # noqa: BLE001 - told, and tried again
            # Whatever stands in one row must not end the writing of all.
            attachment.stumble(error)
            return Verdict.KEPT

    def _judge_plainly(self, attachment: Attachment, records: Mapping[FenceKey, Record]) -> Verdict:
        row = attachment.row
        record = None if row is None else records.get(row.key)
        if record is not None and attachment.lost_writes(record):
            self._log.warning(
                "the database lost acknowledged writes", host=attachment.host, row=attachment.row_id
            )
        verdict = attachment.judge(record, self._owner)
        self._tell_edit(attachment, verdict)
        if verdict is Verdict.LOST:
            self._log.warning("row or guard gone, claiming again", host=attachment.host)
            attachment.lose()
        elif verdict is Verdict.FENCED and record is not None:
            error = attachment.fence(record)
            self._log.error(
                "row fenced",
                host=attachment.host,
                owner=error.owner,
                term=error.term,
                stands_by=attachment.standby is not None,
            )
        return verdict

    def _tell_edit(self, attachment: Attachment, verdict: Verdict) -> None:
        edit = attachment.edit
        if edit is None or not edit.is_news:
            return
        if verdict is Verdict.KEPT:
            self._log.warning(
                "row changed by another program",
                host=attachment.host,
                row=attachment.row_id,
                found=shown(edit.found),
                wanted=shown(edit.wanted),
                put_right=edit.repaired,
                edits=attachment.foreign_edits,
            )
        elif verdict is Verdict.REMOVED:
            self._log.warning(
                "row deleted again and again, left so for now",
                host=attachment.host,
                row=attachment.row_id,
            )

    def _tell_written(self, written: Sequence[tuple[Attachment, RowWrite]]) -> None:
        """A line for each row of one statement; of many, a single one with the first rows."""
        if len(written) > LISTED:
            rows = {host.host: shown(write.named) for host, write in written[:LISTED]}
            self._log.info("rows written", count=len(written), rows=rows)
            return
        for host, write in written:
            self._log.info("row written", host=host.host, row=write.row_id, **shown(write.named))


def _may_be_a_lock(error: StatementError) -> bool:
    """Whether the statement may have failed because somebody has locked a row: also where the
    server ends what takes longer than its own limit."""
    return error.kind is Kind.SAME_CONNECTION and error.code != _DEADLOCK


def _record(row: Row) -> Record:
    node, service, term, seq, owner, guarded_at, row_id, deleted, updated_at, *values = row
    live = row_id is not None and same(0, deleted)
    # The driver gives a zero date, which no clock of ours can be compared with, as a text.
    updated_at = updated_at if isinstance(updated_at, datetime) else None
    guarded_at = guarded_at if isinstance(guarded_at, datetime) else datetime(1, 1, 1)  # noqa: DTZ001
    key = FenceKey(node, service)
    return Record(key, row_id, term, seq, owner, guarded_at, live, updated_at, tuple(values))


def _sight(row: Row) -> Sight:
    node, service, term, owner, state, last_sign, silent = row
    return Sight(FenceKey(node, service), term, owner, state, last_sign, bool(silent))


def _doubt(hosts: Sequence[Attachment], batch: Sequence[RowWrite]) -> None:
    for host, write in zip(hosts, batch, strict=True):
        host.doubt(write)
