"""The writer's settings, with their units and the reasons for their defaults."""

from dataclasses import dataclass, fields
from enum import StrEnum

from asynchost.database.foreign_edits import OnForeignEdit
from asynchost.errors import InvalidSettingError
from asynchost.plain import PlainRecord


class WhenFenced(StrEnum):
    """What to do when another agent has claimed a host's row. It is never claimed back from an
    agent that lives: two of them would take turns for ever."""

    EXIT = "exit"
    """Give the host up: the writer's ``wait()`` raises."""
    WAIT = "wait"
    """Stand by, and claim it again once the other one was stopped, or has missed three
    renewals by the database's clock."""


_CHOICES: dict[str, type[StrEnum]] = {"on_foreign_edit": OnForeignEdit, "when_fenced": WhenFenced}


@dataclass(frozen=True, slots=True)
class WriterSettings(PlainRecord):
    """How a :class:`~asynchost.database.writer.ComputeNodeWriter` behaves. Times in seconds.

    :raises InvalidSettingError: a value is out of range.
    """

    quiet_seconds: float = 0.05
    """A row is written when its host has been quiet for this long; a guest's start is a burst of
    events within less. 0: at once."""
    maximum_delay_seconds: float = 0.5
    """A row is written at the latest this long after its first unwritten change. 0: at once."""
    statement_deadline_seconds: float = 5.0
    """Connecting, or one statement, may take this long; then its outcome is unknown and the
    connection is given up. More than the second that the server waits for a row's lock."""
    shutdown_deadline_seconds: float = 5.0
    """Closing may take this long to write what is dirty. 0: nothing is written any more."""
    renewal_interval_seconds: float = 60.0
    """How often the writer says that it still watches hosts whose rows do not change. A reader
    may take a host for unwatched after three of them."""
    read_back_interval_seconds: float | None = None
    """How often each row is read back, to find what others have changed in it. None: as often as a
    sign of life is given. The daemon does it as often as it audits."""
    connection_age_seconds: float = 3600.0
    """A connection is replaced, between two writes, when it is about as old as this: so a moved
    name, a better server that came back and a load balancer's choice are followed. 0: never."""
    on_foreign_edit: OnForeignEdit = OnForeignEdit.REPAIR
    """What to do when somebody else has changed a row; see ``read_back_interval_seconds``."""
    given_up_retry_seconds: float = 120.0
    """A host whose row is refused, ambiguous or Nova's is given up for the time being; this is how
    often it is looked whether that is still so. Each look costs the database a few statements."""
    beside_nova: bool = False
    """Whether to claim a row that a nova-compute keeps, as far as Nova's table tells."""
    when_fenced: WhenFenced = WhenFenced.EXIT
    """What to do when another agent has claimed a host's row."""
    backoff_initial_seconds: float = 0.5
    """The bound of the first delay after a failure; it doubles from there."""
    backoff_maximum_seconds: float = 30.0
    """The bound of the delay grows up to this."""
    refusal_retry_seconds: float = 30.0
    """When a running writer is refused (a dropped table, a revoked right), it tries again after
    once to twice this long. At the start, it does not try again."""

    def __post_init__(self) -> None:
        may_be_zero = (
            "quiet_seconds",
            "maximum_delay_seconds",
            "shutdown_deadline_seconds",
            "connection_age_seconds",
        )
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _CHOICES:
                choices = _CHOICES[field.name]
                if value not in list(choices):
                    raise InvalidSettingError(field.name, value, f"give {' or '.join(choices)}")
            elif isinstance(value, bool) or (value is None and field.default is None):
                continue
            elif field.name in may_be_zero:
                if not 0 <= value < float("inf"):
                    raise InvalidSettingError(field.name, value, "give seconds, 0 or more")
            elif not 0 < value < float("inf"):
                raise InvalidSettingError(field.name, value, "give seconds, more than 0")
