"""What a writer says of one row and of its connection."""

from asynchost.database.reach import Reach
from asynchost.database.status import RowHistory
from asynchost.errors import DatabaseUnavailableError


def test_the_oldest_unwritten_change_is_what_counts() -> None:
    """A later change does not make it younger; a write ends it."""
    now = 0.0
    history = RowHistory(lambda: now)
    assert history.unwritten_seconds is None
    history.changed(now, pending=False)
    now = 3.0
    history.changed(now, pending=True)
    assert history.unwritten_seconds == 3
    history.written(now)
    assert (history.unwritten_seconds, history.written_seconds, history.writes) == (None, 0, 1)
    now = 5.0
    history.changed(now, pending=False)
    assert (history.unwritten_seconds, history.written_seconds) == (0, 2)


def test_a_change_that_was_none_does_not_age_the_next_one() -> None:
    """Rows are looked at also when nothing has changed."""
    now = 0.0
    history = RowHistory(lambda: now)
    history.changed(now, pending=False)
    now = 60.0
    history.changed(now, pending=False)
    assert history.unwritten_seconds == 0


def test_the_connection_tells_since_when_and_why_not() -> None:
    """A new connection in place of an old one is no new beginning."""
    reach = Reach()
    assert (reach.connected, reach.seconds, reach.reason) == (False, None, None)
    reach.failed(DatabaseUnavailableError("mysql://db", 2003, "refused"))
    assert (reach.connected, reach.failures, reach.connects) == (False, 1, 0)
    assert "refused" in str(reach.reason)
    reach.made()
    assert (reach.connected, reach.reason) == (True, None)
    since = reach._since
    reach.made()
    assert (reach.connects, reach._since) == (2, since)
