"""One host attached to a writer: what its row should hold and what it is known to hold.

Synchronous: it decides, the lane carries out. Memory: the values of one row, once; less than a
KiB for a host whose row nobody fights over.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from asynchost.backoff import Backoff
from asynchost.database.acknowledged import Acknowledged
from asynchost.database.foreign_edits import Edit, ForeignEdits, OnForeignEdit
from asynchost.database.identity import Claim, Wanted
from asynchost.database.records import OwnedRow, Record, Retry, Verdict
from asynchost.database.rejected import Rejected
from asynchost.database.rows import (
    RowEncoder,
    RowValues,
    Value,
    Values,
    in_order,
    named,
    supported_instances,
    unfit,
)
from asynchost.database.settings import WhenFenced, WriterSettings
from asynchost.database.statements import PARTIAL, REFUSED, FenceKey, RowWrite, Sign
from asynchost.database.status import RowHistory, RowState, RowStatus
from asynchost.database.vigil import MISSED_RENEWALS, Sight, Vigil
from asynchost.debounce import Debouncer
from asynchost.errors import AsynchostError, FencedError
from asynchost.log import get_logger
from asynchost.model import HostSnapshot, SnapshotSource

_NEVER = float("inf")
_FIRST_LOCK_RETRY_SECONDS = 0.1
_LOCK_RETRY_SECONDS = 1.0
"""How often to look whether a row that somebody else had locked is free again."""
_ALONE_SECONDS = 60.0
"""How long after a refusal a host has statements of its own: so long a value that keeps changing
costs the others nothing."""
_NUMBERS = frozenset({int})
_TELL_AGAIN_SECONDS = 60.0
"""How long the same trouble of one host is not told again."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all hosts of one writer have in common."""

    settings: WriterSettings
    clock: Callable[[], float]
    """The loop's time."""
    new_backoff: Callable[[], Backoff]
    touched: Callable[["Attachment"], None]
    """To be told that a host may have to be written at its ``due_at``."""
    failed: Callable[[AsynchostError], None]
    """To be told why a host is given up."""


class Attachment:
    """A host's place in a writer; :meth:`ComputeNodeWriter.attach` makes it."""

    __slots__ = (
        "_acknowledged",
        "_alone_until",
        "_backoff",
        "_debouncer",
        "_edits",
        "_encoder",
        "_is_looked_at",
        "_is_refused",
        "_is_suspect",
        "_known_term",
        "_look_again_at",
        "_offered",
        "_rejected",
        "_remove_listener",
        "_resuming",
        "_retry_at",
        "_row_updated_at",
        "_seen_state",
        "_source",
        "_surroundings",
        "_told_sign_at",
        "_told_state",
        "_told_trouble",
        "_tolerated",
        "_vigil",
        "_was_locked",
        "edit",
        "error",
        "fault",
        "given_name",
        "history",
        "row",
        "service_id",
        "was_owned",
    )

    def __init__(
        self,
        source: SnapshotSource,
        service_id: int | None,
        debouncer: Debouncer,
        surroundings: Surroundings,
    ) -> None:
        self.service_id = service_id
        self.given_name = source.snapshot().name
        """The row's ``hypervisor_hostname`` as far as it was known on attaching."""
        self.error: AsynchostError | None = None
        """Why the row is not written for now; of a fenced host, why it is never written again. None
        while the row is written or waited for."""
        self.was_owned = False
        """Whether the row was this writer's at any time."""
        self.row: OwnedRow | None = None
        self.edit: Edit | None = None
        """What somebody else had changed in the row when it was last read back."""
        self._source = source
        self._debouncer = debouncer
        self._surroundings = surroundings
        self._backoff: Backoff | None = None
        self._is_suspect = False
        self._was_locked = False
        self._alone_until = -_NEVER
        self._told_sign_at = -_NEVER
        self._told_trouble: tuple[object, float] = (None, -_NEVER)
        self._edits: ForeignEdits | None = None
        self._row_updated_at: datetime | None = None
        self._vigil: Vigil | None = None
        self._resuming = False
        """Whether the vigil has ended well, so that the row may be claimed from its owner."""
        self._encoder = RowEncoder()
        self._acknowledged = Acknowledged()
        self._offered: RowValues | None = None
        self.fault: str | None = None
        """The unexpected error because of which the host is left out for a while."""
        self._rejected: Rejected | None = None
        self._is_refused = False
        """Whether the server refused the last write of this row, for a reason unknown here."""
        self._look_again_at = _NEVER
        """The loop's time at which a host that is given up is looked at again."""
        self._is_looked_at = False
        self._tolerated: Values = {}
        """The columns that another program has changed and that are left so."""
        self._known_term = 0
        self._seen_state: str | None = None
        self._told_state: str | None = None
        self._retry_at: float | None = None
        self.history = RowHistory(surroundings.clock)
        self._remove_listener = source.add_listener(self._on_change)

    @property
    def host(self) -> str:
        """The host's name in logs."""
        return self._source.host

    @property
    def row_id(self) -> int | None:
        """The row's ``id``; None while no row is claimed."""
        return None if self.row is None else self.row.row_id

    @property
    def term(self) -> int | None:
        """The number of the row's ownership; None while no row is claimed."""
        return None if self.row is None else self.row.term

    @property
    def foreign_edits(self) -> int:
        """How many times somebody else was found to have changed the row."""
        return 0 if self._edits is None else self._edits.count

    @property
    def standby(self) -> FenceKey | None:
        """The guard that another agent holds, whose end this one waits for; None: it does not."""
        return None if self._vigil is None else self._vigil.key

    @property
    def dirty(self) -> bool:
        """Whether the row differs, or may differ, from what the host is now.

        False while the host is stale or incomplete: what is unknown is not written. False also
        while the row is another agent's, or somebody insists on having it deleted.
        """
        return self._differs(self._values())

    @property
    def unwritten(self) -> bool:
        """Whether the row differs, or may differ, from what was last known of the host: ``dirty``,
        or gone stale before it was written."""
        return self._differs(self._values(frozen=True))

    @property
    def status(self) -> RowStatus:
        """How the row is doing."""
        dirty, history = self.dirty, self.history
        return RowStatus(
            host=self.host,
            state=self._row_state,
            row_id=self.row_id,
            term=self.term,
            owner=history.owner,
            reason=None if self.error is None else self.error.message,
            dirty=dirty,
            unwritten_seconds=(history.unwritten_seconds or 0.0) if dirty else None,
            written_seconds=history.written_seconds,
            writes=history.writes,
            unknown_outcomes=history.unknown_outcomes,
            foreign_edits=self.foreign_edits,
        )

    @property
    def _row_state(self) -> RowState:
        if self.error is not None:
            return RowState.GIVEN_UP
        if self._vigil is not None:
            return RowState.STANDING_BY
        if self.trouble is not None:
            return RowState(self.trouble)
        return RowState.WAITING if self.row is None else RowState.OWNED

    # -- when ---------------------------------------------------------------------------------

    @property
    def due_at(self) -> float:
        """The loop's time at which to write; infinity when nothing is pending."""
        if self._retry_at is not None:
            return self._retry_at
        deadline = _NEVER if self._debouncer.deadline is None else self._debouncer.deadline
        if self.error is not None:
            return self._look_again_at
        if self._rejected is not None:
            return min(deadline, self._rejected.retry_at)
        return deadline

    def use_delays(self, quiet_seconds: float, maximum_delay_seconds: float) -> None:
        """Wait for this quiet time, and for this delay at most, from now on."""
        pending = self._debouncer.deadline is not None
        self._debouncer = Debouncer(quiet_seconds, maximum_delay_seconds)
        if pending:
            self.touch()

    def take(self) -> None:
        """The write begins: a change from here on asks for another one."""
        self._retry_at = None
        self._debouncer.take()
        if self.error is not None:
            self._look_again()
        if self._rejected is not None:
            values = self._values()
            self._rejected.take(
                None if values is None else named(values), self._surroundings.clock()
            )
            self._surroundings.touched(self)

    def retry(self) -> None:
        """Something else was in the way: write at the next turn."""
        self._retry_at = 0.0
        self._surroundings.touched(self)

    def postpone(self, retry: Retry = Retry.TOGETHER, at_least_seconds: float = 0.0) -> None:
        """The database did not take the last write or claim: write after a delay, and not before.

        A host that waits for a lock is looked at once a second, at the same moments as all others
        that do: one statement finds out which of them are free.
        """
        now = self._surroundings.clock()
        if retry is Retry.LOCKED:
            # Most locks last for milliseconds, so the first look comes soon.
            step = _LOCK_RETRY_SECONDS if self._was_locked else _FIRST_LOCK_RETRY_SECONDS
            self._retry_at = (now // step + 1) * step
            self._was_locked = True
        else:
            if retry is Retry.ALONE:
                self._alone_until = now + _ALONE_SECONDS
                self._is_refused = True
            elif self._backoff is not None:
                self._is_suspect = True
            if self._backoff is None:
                self._backoff = self._surroundings.new_backoff()
            self._retry_at = now + at_least_seconds + self._backoff.next_delay()
        self._surroundings.touched(self)

    @property
    def suspect(self) -> bool:
        """Whether the host stands in no statement with others, because its own row may be why a
        statement fails: the last two writes were not taken, or one was refused lately."""
        return self._is_suspect or (
            self._alone_until != -_NEVER and self._surroundings.clock() < self._alone_until
        )

    def is_news_of_sign(self) -> bool:
        """Whether to tell that a sign of life was not taken: once in a renewal interval."""
        now = self._surroundings.clock()
        if now - self._told_sign_at < self._surroundings.settings.renewal_interval_seconds:
            return False
        self._told_sign_at = now
        return True

    def is_news(self, trouble: object) -> bool:
        """Whether to tell of this trouble with the host's row: once a minute at most while it
        stays the same."""
        now = self._surroundings.clock()
        told, told_at = self._told_trouble
        if told == trouble and now - told_at < _TELL_AGAIN_SECONDS:
            return False
        self._told_trouble = (trouble, now)
        return True

    @property
    def retrying(self) -> bool:
        """Whether the last attempt failed and another one is to come."""
        return self._retry_at is not None or (
            self._rejected is not None and self._rejected.is_changed
        )

    @property
    def is_awaited(self) -> bool:
        """Whether a flush waits for another attempt: not where the server refuses this row."""
        if self._retry_at is not None:
            return self._retry_at == 0.0 or not self._is_refused
        return self._rejected is not None and self._rejected.is_changed

    def _look_again(self) -> None:
        """A host that was given up for a reason that may be gone: see whether it can be claimed."""
        now = self._surroundings.clock()
        self._is_looked_at = now >= self._look_again_at
        if self._is_looked_at:
            self._look_again_at = now + self._surroundings.settings.given_up_retry_seconds
        self._surroundings.touched(self)

    # -- what ---------------------------------------------------------------------------------

    def wanted(self) -> Wanted | None:
        """What to claim; None when a row is owned already, or cannot be made yet."""
        snapshot = self._writable()
        values = None if self.row is not None or snapshot is None else self._encoded(snapshot)
        if snapshot is None or values is None:
            self._postpone_fault()
            return None
        name, facts = snapshot.name, snapshot.facts
        if name is None or facts is None:
            return None
        if self._rejected is not None and not self._rejected.is_tried:
            return None
        if wrong := unfit(named(values)):
            self.reject(named(values), _unfit_reason(wrong), None, is_whole=True)
            return None
        self._offered = values
        return Wanted(
            name,
            self.service_id,
            named(values),
            self._known_term,
            self.host,
            self._surroundings.settings.beside_nova,
            None if self._vigil is None else self._silent_seconds,
            supported_instances(facts),
        )

    def plan(self) -> RowWrite | None:
        """The write that makes the row true now, numbered anew; None when none is needed."""
        row = self.row
        values = None if row is None else self._values()
        if row is None or values is None:
            self._postpone_fault()
            return None
        columns, differing = self._acknowledged.difference(values)
        if self._rejected is not None and not self._rejected.is_tried:
            columns, differing = _without(columns, differing, self._rejected.columns)
        # Numbers are what changes all the time, and fit.
        if not _NUMBERS.issuperset(map(type, differing)) and (
            wrong := unfit(dict(zip(columns, differing, strict=True)))
        ):
            columns, differing = _without(columns, differing, wrong)
            known = {} if self._rejected is None else self._rejected.columns
            self.reject({**known, **wrong}, _unfit_reason(wrong), None, is_whole=False)
        if not columns:
            self._accepted()
            return None
        self._offered = values
        return RowWrite(row.row_id, row.term, self._acknowledged.next_seq(), columns, differing)

    def write_of(self, columns: tuple[str, ...], values: RowValues) -> RowWrite:
        """A write of these columns of the row, which is owned; numbered anew."""
        row = self.row
        assert row is not None  # noqa: S101 - for the type
        return RowWrite(row.row_id, row.term, self._acknowledged.next_seq(), columns, values)

    def sign(self) -> Sign | None:
        """A sign of life; None where no row is owned."""
        if self.row is None or self.error is not None:
            return None
        snapshot = self._look()
        if snapshot is None:
            return Sign(self.row.row_id, self.row.term, REFUSED, None)
        age = snapshot.stale_seconds
        stale = None if snapshot.fresh or age is None else int(age * 1_000_000)
        return Sign(self.row.row_id, self.row.term, self._state(snapshot), stale)

    @property
    def left_out(self) -> Values:
        """The columns that are known to hold another value than the host has, with the value that
        they should hold."""
        rejected = {} if self._rejected is None else self._rejected.columns
        return {**self._tolerated, **rejected}

    @property
    def trouble(self) -> str | None:
        """``refused`` where nothing of the host is written, ``partial`` where some columns are
        left out, None where nothing is known to be false."""
        removed = self._edits is not None and self._edits.is_removed
        if self.fault is not None or self._is_refused or removed:
            return REFUSED
        if self._rejected is not None:
            return REFUSED if self._rejected.is_whole else PARTIAL
        return PARTIAL if self._tolerated else None

    @property
    def state_moved(self) -> bool:
        """Whether the last look at the host found it stale where the last sign of life had said
        fresh, or the reverse."""
        return self.row is not None and self._seen_state != self._told_state

    # -- what came of it ----------------------------------------------------------------------

    def own(self, claim: Claim) -> None:
        """The claim went through: the row is ours, and this is what it holds."""
        self.error = None
        self.was_owned = True
        self.row = OwnedRow(claim.row_id, *claim.key, claim.term)
        self._known_term = max(self._known_term, claim.term)
        self._acknowledged.begin(in_order(claim.values), self._offered)
        self._vigil = None
        self._resuming = False
        self._rejected = None
        self._tolerated = {}
        self.settle(self._surroundings.clock())
        self._seen_state = self._told_state = "fresh"

    def acknowledge(self, write: RowWrite, at: float) -> None:
        """The database said at the loop's time ``at`` that the write has landed."""
        self._acknowledged.confirm(write)
        if self._tolerated:
            for column in write.columns:
                self._tolerated.pop(column, None)
        self.settle(at)

    def settle(self, at: float) -> None:
        """All that was prepared last has landed, as the database said at the loop's time ``at``."""
        if self._rejected is not None:
            self._accepted()
        self.history.written(at, is_current=self._debouncer.deadline is None)
        self._offered = None
        self.fault = None
        self._is_refused = False
        self._is_suspect = self._was_locked = False
        self._backoff = None

    def confirm(self, write: RowWrite) -> None:
        """The same of a part of what is to be written, or of what is written in place of it."""
        self._acknowledged.confirm(write)

    def _accepted(self) -> None:
        """What was prepared last has landed, or is there already."""
        if self._rejected is not None and self._rejected.is_tried:
            self._rejected = None

    def doubt(self, write: RowWrite) -> None:
        """Nobody knows whether the write has landed, or still will."""
        self.history.unknown_outcomes += 1
        self._acknowledged.doubt(write)
        self._offered = None

    def reject(
        self, columns: Mapping[str, Value], reason: str, code: int | None, *, is_whole: bool
    ) -> None:
        """These values can be written by nobody: leave them out for a while, and tell of it.

        ``is_whole``: nothing of the row could be written, or it could not be made. ``code`` is the
        server's error code; None where the values were not sent.
        """
        now = self._surroundings.clock()
        if self._rejected is None:
            self._rejected = Rejected()
        self._alone_until = now + _ALONE_SECONDS
        self._retry_at = None
        is_news = self._rejected.reject(columns, reason, now, is_whole=is_whole)
        self._look()
        self._surroundings.touched(self)
        if is_news and self.is_news(("left out", *sorted(columns))):
            get_logger("asynchost.database").error(
                "row left out until its values change",
                host=self.host,
                row=self.row_id,
                columns=sorted(columns),
                state=self.trouble,
                code=code,
                reason=reason,
            )

    def reject_all(self, reason: str, code: int | None) -> None:
        """The same of a row that cannot be made."""
        offered = {} if self._offered is None else named(self._offered)
        self.reject(offered, reason, code, is_whole=True)

    def _postpone_fault(self) -> None:
        """Look at the host again after a delay, if an unexpected error came of it."""
        if self.fault is not None and self._retry_at is None and self.error is None:
            self.postpone(Retry.ALONE)

    def stumble(self, error: Exception) -> None:
        """An error that nobody expected came of this host: its row is left as it is for a while."""
        self.fault = f"{type(error).__name__}: {error}"
        self._seen_state = REFUSED
        if self.is_news(self.fault):
            get_logger("asynchost.database").error(
                "host left out after an unexpected error", host=self.host, reason=self.fault
            )

    def told(self, sign: Sign) -> None:
        """The sign of life was taken."""
        self._told_state = sign.state

    def judge(self, record: Record | None, owner: str) -> Verdict:
        """Compare with what the database holds, and take that as acknowledged where it is ours."""
        row = self.row
        self.edit = None
        if row is None or record is None or record.term < row.term:
            return self._without_edits(Verdict.LOST)
        self._known_term = max(self._known_term, record.term)
        if record.owner != owner:
            return self._without_edits(Verdict.FENCED)
        if record.row_id is None or not record.live:
            self.edit = self._foreign_edits().removed(self._surroundings.clock())
            return Verdict.LOST if self.edit.repaired else Verdict.REMOVED
        if record.row_id != row.row_id:
            return self._without_edits(Verdict.LOST)
        if record.term != row.term:
            # Of our own: a claim whose answer was lost.
            self.row = replace(row, term=record.term)
        self.edit = self._edit_in(record)
        self._acknowledged.read(record.seq, record.values)
        self._tolerated = {}
        if self.edit is not None and not self.edit.repaired:
            self._acknowledged.tolerate(self.edit.wanted)
            self._tolerated = dict(self.edit.wanted)
        self._look()
        return Verdict.KEPT

    def _edit_in(self, record: Record) -> Edit | None:
        found, wanted = self._acknowledged.overwritten(record.seq, record.values)
        restored = self._is_older(record)
        if found:
            now = self._surroundings.clock()
            return self._foreign_edits().noticed(found, wanted, now, restored=restored)
        self._without_edits(Verdict.KEPT)
        return None

    def _without_edits(self, verdict: Verdict) -> Verdict:
        if self._edits is not None:
            self._edits.none_left()
        return verdict

    def _foreign_edits(self) -> ForeignEdits:
        if self._edits is None:
            policy = OnForeignEdit(self._surroundings.settings.on_foreign_edit)
            self._edits = ForeignEdits(policy)
        return self._edits

    def _is_older(self, record: Record) -> bool:
        """Whether the row was written longer ago than it had been: it comes from a backup."""
        # Where every edit is put right, it makes no difference.
        if self._surroundings.settings.on_foreign_edit == OnForeignEdit.REPAIR:
            return False
        known, self._row_updated_at = self._row_updated_at, record.updated_at
        if record.updated_at is None:
            return False
        if known is not None and record.updated_at < known:
            return True
        # A guarded write sets both times from one clock, a claim only the guard's.
        return record.seq > 0 and record.updated_at < record.guarded_at.replace(microsecond=0)

    def landed(self, write: RowWrite) -> bool:
        """Whether the last reading back showed this write, or a later one."""
        return self._acknowledged.has_landed(write)

    def lost_writes(self, record: Record) -> bool:
        """Whether the database lost what it had acknowledged, as a crash or failover can do."""
        return self._acknowledged.is_ahead_of(record.seq)

    def lose(self) -> None:
        """The row must be claimed again."""
        self.row = None

    # -- another agent's ----------------------------------------------------------------------

    def fence(self, record: Record) -> FencedError:
        """Another agent owns the row: stop, or stand by until that agent is gone."""
        error = FencedError(record.key.node, record.owner, record.term)
        self.history.owner = record.owner
        if self._surroundings.settings.when_fenced == WhenFenced.WAIT:
            self._stand_by(record.key, record.term)
        else:
            self.fail(error)
        return error

    @property
    def watched(self) -> FenceKey | None:
        """The guard row to look at; None unless standing by."""
        return None if self._vigil is None or self._resuming else self._vigil.key

    def look(self, sight: Sight | None, owner: str) -> bool:
        """The guard row as it is now; whether its owner is gone, so that the row is claimed."""
        if self._vigil is None:
            return False
        if sight is not None:
            self._known_term = max(self._known_term, sight.term)
            self.history.owner = sight.owner
        self._resuming = self._vigil.look(
            sight, owner, self._surroundings.clock(), self._silent_seconds
        )
        if self._resuming:
            self.touch()
        return self._resuming

    def look_away(self) -> None:
        """The guard row could not be looked at for a while."""
        if self._vigil is not None:
            self._vigil.interrupt()
            self._resuming = False

    def yield_row(self) -> None:
        """The owner was alive after all: go on standing by."""
        if self._vigil is not None:
            self._stand_by(self._vigil.key, self._known_term)

    def _stand_by(self, key: FenceKey, term: int) -> None:
        self._vigil = Vigil(key, term)
        self._resuming = False
        self.row = None
        self.take()

    @property
    def _silent_seconds(self) -> float:
        return MISSED_RENEWALS * self._surroundings.settings.renewal_interval_seconds

    # -- the end ------------------------------------------------------------------------------

    def fail(self, error: AsynchostError) -> bool:
        """Stop writing this host; whether that is news.

        What a person or another program may mend is looked at again every few minutes. A row that
        another agent has claimed is not: two agents would take turns for ever.
        """
        is_news = self.error is None or str(self.error) != str(error)
        self.error = error
        self.row = None
        self._is_looked_at = False
        self._look_again_at = _NEVER
        if not isinstance(error, FencedError):
            delay = self._surroundings.settings.given_up_retry_seconds
            self._look_again_at = self._surroundings.clock() + delay
        self.take()
        if is_news:
            self._surroundings.failed(error)
        return is_news

    def close(self) -> None:
        """Stop listening."""
        self._remove_listener()

    def _on_change(self) -> None:
        if self.error is None:
            now = self._surroundings.clock()
            # What was offered to the database is not known to be written yet.
            is_pending = self._offered is not None or self.due_at != _NEVER
            self.history.changed(now, pending=is_pending)
            self._debouncer.touch(now)
            self._surroundings.touched(self)

    def touch(self) -> None:
        """Look at this host, though nothing is known to have changed."""
        self._on_change()

    def _differs(self, values: RowValues | None) -> bool:
        if values is None:
            return False
        columns, differing = self._acknowledged.difference(values)
        if self._rejected is not None:
            now = named(values)
            same = {c: v for c, v in self._rejected.columns.items() if now[c] == v}
            if self.row is None:
                return len(same) < len(self._rejected.columns)
            columns, _ = _without(columns, differing, same)
        return self.row is None or bool(columns)

    def _values(self, *, frozen: bool = False) -> RowValues | None:
        """What the row should hold; None while that is unknown, or the row to be left alone.

        ``frozen`` takes what is known of a stale host for what it is now: to tell, not to write.
        """
        snapshot = self._writable(frozen=frozen)
        return None if snapshot is None else self._encoded(snapshot)

    def _encoded(self, snapshot: HostSnapshot) -> RowValues | None:
        """The values of the row; None after an error that nobody expected."""
        try:
            values = self._encoder.encode(snapshot)
        except Exception as error:  # noqa: BLE001 - told, and tried again
            self.stumble(error)
            return None
        if self.fault is not None:
            self.fault = None
            self._is_refused = False
            self._seen_state = self._state(snapshot)
        return values

    def _look(self) -> HostSnapshot | None:
        """The host as it is now; None after an error that nobody expected."""
        try:
            snapshot = self._source.snapshot()
        except Exception as error:  # noqa: BLE001 - told, and tried again
            self.stumble(error)
            return None
        self._seen_state = self._state(snapshot)
        return snapshot

    def _state(self, snapshot: HostSnapshot) -> str:
        return self.trouble or "fresh" if snapshot.fresh else "stale"

    def _writable(self, *, frozen: bool = False) -> HostSnapshot | None:
        snapshot = self._look()
        if snapshot is None:
            return None
        if frozen:
            snapshot = replace(snapshot, fresh=True)
        if self._vigil is not None and not self._resuming:
            return None
        if self.error is not None and not self._is_looked_at:
            return None
        if self._edits is not None and self._edits.is_removed:
            return None
        return snapshot if snapshot.writable else None


def _without(
    columns: tuple[str, ...], values: RowValues, left_out: Container[str]
) -> tuple[tuple[str, ...], RowValues]:
    """The columns that are not left out, and their values."""
    kept = [(c, v) for c, v in zip(columns, values, strict=True) if c not in left_out]
    return tuple(c for c, _ in kept), tuple(v for _, v in kept)


def _unfit_reason(values: Mapping[str, object]) -> str:
    listed = ", ".join(f"{column}={value!r:.60}" for column, value in values.items())
    return f"no column holds a value of this kind: {listed}"
