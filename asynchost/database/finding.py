"""What is there for hosts before anything is claimed: their rows, and Nova's services.

Only reads, so that a dry run finds what a claim does. Memory: what one batch of hosts finds.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from asynchost.database import statements
from asynchost.database.classify import Kind, StatementError
from asynchost.database.identity import (
    Candidate,
    NovaService,
    NovaServices,
    Wanted,
    choose,
    matched_by_name,
)
from asynchost.database.layout import Layout
from asynchost.database.session import Row, Session
from asynchost.errors import NovaOwnsRowError

_NOVA_ALIVE_SECONDS = 120
"""A nova-compute reports every ten seconds, and Nova takes it for down after sixty."""


class Found(NamedTuple):
    """What is there for one host."""

    wanted: Wanted
    row: Candidate | None
    """Its live row; None where one must be created."""
    nova: NovaService | None
    """Nova's service of the host, alive or not."""

    @property
    def service_id(self) -> int:
        """The given one, else the live row's; where there is none Nova's of that host, else 0."""
        if self.wanted.service_id is not None:
            return self.wanted.service_id
        if self.row is not None:
            return self.row.service_id or 0
        return 0 if self.nova is None else self.nova.service_id

    def creation(self, layout: Layout) -> str:
        """The statement that makes the row."""
        wanted = self.wanted
        host = wanted.name if self.nova is None else self.nova.host
        filling = layout.filling(host, wanted.supported_instances)
        return statements.insert(wanted.values, self.service_id, filling)


async def find(session: Session, batch: Sequence[Wanted], layout: Layout) -> list[Found]:
    """What is there for each of ``batch`` now, in its order.

    :raises AmbiguousRowError: several live rows could be a host's.
    :raises NovaOwnsRowError: a nova-compute that is alive keeps it.
    """
    names = [wanted.name for wanted in batch]
    listed = await session.query(statements.live_rows(names, host=layout.host))
    rows = [
        choose(wanted.name, [Candidate(*row) for _, *row in matched], wanted.service_id)
        for wanted, matched in zip(batch, matched_rows(session, batch, listed), strict=True)
    ]
    services = NovaServices(await _services(session, names, rows) if layout.services else ())
    for wanted, row in zip(batch, rows, strict=True):
        keeper = services.keeper(wanted, row)
        if keeper is not None and not wanted.beside_nova:
            raise NovaOwnsRowError(wanted.name, keeper.host, keeper.service_id)
    return [
        Found(wanted, row, services.of(wanted.name))
        for wanted, row in zip(batch, rows, strict=True)
    ]


async def _services(
    session: Session, names: Sequence[str], rows: Iterable[Candidate | None]
) -> list[NovaService]:
    """Those that may be these hosts', or that these rows name."""
    there = [row for row in rows if row is not None]
    ids = [row.service_id for row in there if row.service_id]
    hosts = [row.host for row in there if row.host]
    look = statements.nova_services(names, hosts, ids, _NOVA_ALIVE_SECONDS)
    found = await session.query(look)
    return [NovaService(number, host, bool(alive)) for number, host, alive in found]


def matched_rows(session: Session, batch: Sequence[Wanted], rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each host, by the name that they begin with."""
    try:
        return matched_by_name(batch, [(str(row[0]), row) for row in rows])
    except KeyError as error:
        raise moved(session, f"the database takes {error} for another host's name") from error


def moved(session: Session, reason: str) -> StatementError:
    """Things are not what they were a moment ago: to be begun again."""
    return StatementError(str(session.url), None, reason, Kind.RESOLVE)
