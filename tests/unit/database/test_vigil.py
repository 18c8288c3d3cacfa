"""When a standby may claim: never from an owner that may be alive."""

from datetime import datetime

import pytest

from asynchost.database.statements import FenceKey
from asynchost.database.vigil import Sight, Vigil

KEY = FenceKey("node", "0")
SIGN = datetime(2026, 5, 4, 3, 2, 1)  # noqa: DTZ001 - as the driver gives it, in UTC
SILENT_SECONDS = 180.0
LIVE = Sight(KEY, 5, "rival", "fresh", SIGN, silent=False)
DEAD = LIVE._replace(silent=True)


def look(vigil: Vigil, sight: Sight | None, now: float) -> bool:
    return vigil.look(sight, "me", now, SILENT_SECONDS)


def test_an_owner_that_was_stopped_is_followed_at_once() -> None:
    """It has said that it writes no more."""
    assert look(Vigil(KEY, 5), LIVE._replace(state="stopped"), 0.0)


def test_a_stop_from_before_the_present_owner_is_none() -> None:
    """A restored backup tells of a term that is over."""
    assert not look(Vigil(KEY, 5), LIVE._replace(state="stopped", term=4), 0.0)


def test_a_sign_that_moves_is_a_living_owner() -> None:
    """However long, and whatever the server's clock makes of it."""
    vigil = Vigil(KEY, 5)
    for minute in range(20):
        sight = DEAD._replace(last_sign=SIGN.replace(minute=minute))
        assert not look(vigil, sight, minute * 60.0)


@pytest.mark.parametrize("sight", [DEAD, None], ids=["silent", "guard row gone"])
def test_what_stands_still_long_enough_may_be_claimed(sight: Sight | None) -> None:
    """Three renewals before our own eyes, not less."""
    vigil = Vigil(KEY, 5)
    assert not look(vigil, sight, 100.0)
    assert not look(vigil, sight, 279.0)
    assert look(vigil, sight, 280.0)


def test_standing_still_is_not_enough_where_the_server_disagrees() -> None:
    """Its clock knows of a sign that is younger."""
    vigil = Vigil(KEY, 5)
    look(vigil, LIVE, 0.0)
    assert not look(vigil, LIVE, 1000.0)


def test_an_outage_is_no_silence() -> None:
    """Nobody could give a sign, and nobody could have seen one."""
    vigil = Vigil(KEY, 5)
    look(vigil, DEAD, 0.0)
    vigil.interrupt()
    assert not look(vigil, DEAD, 1000.0)
    assert not look(vigil, DEAD, 1100.0)
    assert look(vigil, DEAD, 1180.0)


def test_a_new_owner_is_watched_anew() -> None:
    """The third agent has all the time that the second one had."""
    vigil = Vigil(KEY, 5)
    look(vigil, DEAD, 0.0)
    third = DEAD._replace(owner="third", term=6)
    assert not look(vigil, third, 180.0)
    assert look(vigil, third, 360.0)


def test_our_own_claim_whose_answer_was_lost_is_known_again() -> None:
    """Our name with a term that nobody else had; not that of a restored backup."""
    assert look(Vigil(KEY, 5), LIVE._replace(owner="me", term=6), 0.0)
    assert not look(Vigil(KEY, 5), LIVE._replace(owner="me", term=4), 0.0)
