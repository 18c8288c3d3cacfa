"""One session at work for many hosts: claims, flushes, signs of life, reading back.

Says what came of each statement to the attachments and to the log; when to try again is the
writer's matter. Memory: one statement and its answer.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from asynchost.database import statements
from asynchost.database.attachment import Attachment, Record, Verdict
from asynchost.database.claim import claim
from asynchost.database.classify import Kind, StatementError
from asynchost.database.identity import How
from asynchost.database.layout import Layout
from asynchost.database.rows import Values
from asynchost.database.schema import OWNED_COLUMNS
from asynchost.database.session import Row, Session
from asynchost.database.statements import FenceKey, RowWrite
from asynchost.errors import ConfigurationError, DatabaseRefusedError
from asynchost.log import get_logger

_SIGNS_PER_STATEMENT = 1000
_LONGEST_LOGGED = 60
_ATTEMPTS = 3
"""How often a claim is begun again at once when the row changed under it."""


class Setback(NamedTuple):
    """A host whose write did not work out and must be tried again."""

    attachment: Attachment
    error: StatementError | None


class Lane:
    """Carries out the work of one session. Any StatementError that it raises is of kind
    CONNECTION and has ended the session; the attachments know what is in doubt."""

    def __init__(self, session: Session, owner: str, layout: Layout = Layout()) -> None:  # noqa: B008 - immutable
        self._session = session
        self._layout = layout
        self._owner = owner
        self._log = get_logger("asynchost.database")

    async def reconcile(self, attachments: Iterable[Attachment]) -> list[Attachment]:
        """Read back what the database holds and take that as acknowledged, whatever we thought.

        Returns the hosts that must be claimed again; those that are fenced know it afterwards.
        """
        owned = [attachment for attachment in attachments if attachment.row is not None]
        lost: list[Attachment] = []
        for start in range(0, len(owned), statements.ROWS_PER_STATEMENT):
            part = owned[start : start + statements.ROWS_PER_STATEMENT]
            keys = [attachment.row.key for attachment in part if attachment.row is not None]
            rows = await self._session.query(statements.read_back(keys))
            records = {record.key: record for record in map(_record, rows)}
            lost += [a for a in part if self._judge(a, records) is Verdict.LOST]
        return lost

    async def flush(self, attachments: Iterable[Attachment]) -> list[Setback]:
        """Write what differs, of each host at most once. Returns those to be tried again."""
        planned: dict[int, Attachment] = {}
        together: list[RowWrite] = []
        alone: list[RowWrite] = []
        for attachment in attachments:
            write = attachment.plan()
            if write is not None:
                planned[write.row_id] = attachment
                (alone if attachment.suspect else together).append(write)
        setbacks: list[Setback] = []
        for batch in [*statements.batches(together), *([write] for write in alone)]:
            setbacks += await self._flush(batch, planned)
        return setbacks

    async def claim(
        self, attachments: Sequence[Attachment], held: Mapping[int, str]
    ) -> list[Setback]:
        """Claim the rows of hosts that have none. Returns those to be tried again."""
        setbacks = []
        held = dict(held)
        await self._session.limit_silence(True)
        for attachment in attachments:
            try:
                await self._claim(attachment, held)
            except StatementError as error:
                if error.kind is Kind.CONNECTION:
                    raise
                if error.kind is Kind.BAD_ROW:
                    self._refuse(attachment, error)
                else:
                    setbacks.append(Setback(attachment, error))
            except DatabaseRefusedError:
                raise
            except ConfigurationError as error:
                attachment.fail(error)
                self._log.error("row refused", host=attachment.host, reason=error.message)
            if attachment.row is not None:
                held[attachment.row.row_id] = attachment.host
        await self._session.limit_silence(False)
        return setbacks

    async def renew(self, attachments: Iterable[Attachment], *, stopped: bool = False) -> None:
        """Give signs of life; where one is not taken, find out why."""
        pairs = [(a, sign) for a in attachments if (sign := a.sign()) is not None]
        for start in range(0, len(pairs), _SIGNS_PER_STATEMENT):
            part = pairs[start : start + _SIGNS_PER_STATEMENT]
            signs = [sign._replace(state="stopped") if stopped else sign for _, sign in part]
            matched = await self._session.write(statements.renew(signs, self._owner))
            for attachment, sign in part:
                attachment.told(sign)
            if matched != len(part) and not stopped:
                for attachment in await self.reconcile(a for a, _ in part):
                    attachment.touch()

    async def orphans(
        self, attachments: Iterable[Attachment], silent_seconds: float
    ) -> list[Attachment]:
        """Those that stand by for an owner which was stopped, or was silent for so long."""
        waiting = [(a, a.standby) for a in attachments if a.standby is not None]
        found: list[Attachment] = []
        for start in range(0, len(waiting), _SIGNS_PER_STATEMENT):
            part = waiting[start : start + _SIGNS_PER_STATEMENT]
            keys = [key for _, key in part]
            rows = await self._session.query(statements.living_owners(keys, silent_seconds))
            living = {FenceKey(*row) for row in rows}
            found += [attachment for attachment, key in part if key not in living]
        return found

    async def aclose(self) -> None:
        """End the session in good order. Cancelling it ends it as well."""
        await self._session.aclose()

    def abort(self) -> None:
        """End the session now."""
        self._session.abort()

    async def _flush(
        self, batch: Sequence[RowWrite], planned: Mapping[int, Attachment]
    ) -> list[Setback]:
        hosts = [planned[write.row_id] for write in batch]
        try:
            matched = await self._session.write(statements.update(batch, self._owner))
        except StatementError as error:
            if error.kind is Kind.CONNECTION:
                _doubt(hosts, batch)
                raise
            if error.kind is not Kind.BAD_ROW:
                # The server took it back, so nothing is in doubt.
                return [Setback(host, error) for host in hosts]
            if len(batch) == 1:
                self._refuse(hosts[0], error)
                return []
            middle = len(batch) // 2
            return [
                *await self._flush(batch[:middle], planned),
                *await self._flush(batch[middle:], planned),
            ]
        except BaseException:
            # Cancelled: the server may carry it out all the same.
            _doubt(hosts, batch)
            raise
        if matched == 2 * len(batch):
            for host, write in zip(hosts, batch, strict=True):
                host.acknowledge(write)
                self._written(host, write)
            return []
        return await self._find_out(hosts, batch)

    async def _find_out(
        self, hosts: Sequence[Attachment], batch: Sequence[RowWrite]
    ) -> list[Setback]:
        """Not every row was matched: whose, and why?"""
        _doubt(hosts, batch)
        lost = await self.reconcile(hosts)
        setbacks = []
        for host, write in zip(hosts, batch, strict=True):
            if host in lost:
                setbacks.append(Setback(host, None))
            elif host.row is not None:
                if host.landed(write):
                    self._written(host, write)
                else:
                    setbacks.append(Setback(host, None))
        return setbacks

    async def _claim(self, attachment: Attachment, held: Mapping[int, str]) -> None:
        for attempt in range(_ATTEMPTS):
            wanted = attachment.wanted()
            if wanted is None:
                return
            try:
                claimed = await claim(self._session, wanted, self._owner, held, self._layout)
            except StatementError as error:
                if error.kind is not Kind.RESOLVE or attempt == _ATTEMPTS - 1:
                    raise
            else:
                attachment.own(claimed)
                created = claimed.values if claimed.how is How.CREATED else {}
                self._log.info(
                    "row claimed",
                    how=str(claimed.how),
                    host=attachment.host,
                    row=claimed.row_id,
                    service_id=claimed.service_id,
                    term=claimed.term,
                    **{"hypervisor_hostname": wanted.name, **_shown(created)},
                )
                return

    def _judge(self, attachment: Attachment, records: Mapping[FenceKey, Record]) -> Verdict:
        row = attachment.row
        record = None if row is None else records.get(row.key)
        if record is not None and attachment.lost_writes(record):
            self._log.warning(
                "the database lost acknowledged writes", host=attachment.host, row=attachment.row_id
            )
        verdict = attachment.judge(record, self._owner)
        if verdict is Verdict.KEPT:
            self._tell_edit(attachment)
        elif verdict is Verdict.LOST:
            self._log.warning("row or guard gone, claiming again", host=attachment.host)
            attachment.lose()
        elif record is not None:
            error = attachment.fence(record)
            self._log.error(
                "row fenced",
                host=attachment.host,
                owner=error.owner,
                term=error.term,
                stands_by=attachment.standby is not None,
            )
        return verdict

    def _tell_edit(self, attachment: Attachment) -> None:
        edit = attachment.edit
        if edit is not None and edit.is_news:
            self._log.warning(
                "row changed by another program",
                host=attachment.host,
                row=attachment.row_id,
                found=_shown(edit.found),
                wanted=_shown(edit.wanted),
                put_right=edit.repaired,
            )

    def _written(self, host: Attachment, write: RowWrite) -> None:
        self._log.info("row written", host=host.host, row=write.row_id, **_shown(write.values))

    def _refuse(self, attachment: Attachment, error: StatementError) -> None:
        attachment.refuse()
        self._log.error(
            "row left out until its values change",
            host=attachment.host,
            code=error.code,
            reason=error.reason,
        )


def _record(row: Row) -> Record:
    node, service, term, seq, owner, row_id, deleted, *values = row
    live = row_id is not None and deleted == 0
    columns: Values = dict(zip(OWNED_COLUMNS, values, strict=True))
    return Record(FenceKey(node, service), row_id, term, seq, owner, live, columns)


def _doubt(hosts: Sequence[Attachment], batch: Sequence[RowWrite]) -> None:
    for host, write in zip(hosts, batch, strict=True):
        host.doubt(write)


def _shown(values: Values) -> Values:
    """For the log: cpu_info is several KiB of JSON, so enough of it to tell what it is."""
    return {
        column: value[:_LONGEST_LOGGED] + "…"
        if isinstance(value, str) and len(value) > _LONGEST_LOGGED
        else value
        for column, value in values.items()
    }
