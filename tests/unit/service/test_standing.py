"""What a status amounts to, by the table of its exit statuses."""

from collections.abc import Mapping
from typing import Any

import pytest

from asynchost.service.standing import Standing, lines, remarks_on, verdict

HOSTILE = "\x1b[31mx\r\nfake=1\u202e"


def host(row: Mapping[str, Any] | None = None, **changed: Any) -> dict[str, Any]:
    """A host whose row is kept, but for what is changed."""
    monitor = {
        "stale_seconds": None,
        "reason": None,
        "last_audit_seconds": 5.0,
        "unreadable": {},
        "unreadable_disks": {},
        "drift": 0,
        **changed.pop("monitor", {}),
    }
    whole = {
        "state": "owned",
        "term": 1,
        "owner": None,
        "reason": None,
        "unwritten_seconds": None,
        "written_seconds": 3.0,
        **(row or {}),
    }
    return {
        "host": "a",
        "name": "a",
        "fresh": True,
        "usage": {"vcpus_used": 1, "memory_mb_used": 2, "running_vms": 3},
        "disk_known": True,
        "audit_interval_seconds": 60.0,
        "patterns_without_domain": [],
        "monitor": monitor,
        "row": whole,
        **changed,
    }


def daemon(*hosts: Mapping[str, Any], **changed: Any) -> dict[str, Any]:
    """A daemon that has run for an hour, with its database connected."""
    writer = {"connected": True, "connection_seconds": 3600.0, "reason": None}
    writer.update(changed.pop("writer", {}))
    return {
        "pid": 1,
        "running_seconds": 3600.0,
        "dry_run": False,
        "log_lines_lost": 0,
        "writer": writer,
        "hosts": list(hosts),
        **changed,
    }


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (host(), Standing.KEPT),
        (host({"unwritten_seconds": 0.3}), Standing.KEPT),
        (host({"unwritten_seconds": 61.0}), Standing.LATE),
        (host({"state": "refused"}), Standing.LATE),
        (host({"state": "partial"}), Standing.LATE),
        (host({"state": "standing by", "owner": "rival"}), Standing.LATE),
        (host(monitor={"last_audit_seconds": 200.0}), Standing.LATE),
        (host(monitor={"last_audit_seconds": 200.0}, audit_interval_seconds=0), Standing.KEPT),
        (host(monitor={"unreadable": {"uuid": "it hangs"}}), Standing.LATE),
        (host(monitor={"unreadable_disks": {"uuid": "gone"}}), Standing.LATE),
        (host(disk_known=False), Standing.LATE),
        (host(patterns_without_domain=["wbe-*"]), Standing.LATE),
        (host({"state": "given up", "reason": "claimed by rival"}), Standing.NOT_KEPT),
        (host({"state": "waiting", "term": None}), Standing.NOT_KEPT),
        (host(fresh=False, monitor={"stale_seconds": 9.0, "reason": "lost"}), Standing.NOT_KEPT),
    ],
)
def test_a_host_stands_as_the_worst_that_is_to_be_said_of_it(
    said: Mapping[str, Any], expected: Standing
) -> None:
    """And so does the status as a whole."""
    assert verdict([daemon(said, host(host="b", name="b"))], []) is expected


def test_a_daemon_that_has_just_begun_is_late_at_most() -> None:
    """It has a minute to connect, to list and to claim."""
    said = host({"state": "waiting"}, fresh=False, usage=None, monitor={"reason": "connecting"})
    assert verdict([daemon(said, running_seconds=10.0)], []) is Standing.LATE
    assert verdict([daemon(said)], []) is Standing.NOT_KEPT


def test_a_database_that_is_away_is_late_and_then_not_kept() -> None:
    """A restart of the server takes less than a minute."""
    for seconds, expected in ((5.0, Standing.LATE), (90.0, Standing.NOT_KEPT)):
        away = {"connected": False, "connection_seconds": seconds, "reason": "refused"}
        assert verdict([daemon(host(), writer=away)], []) is expected


def test_a_host_that_one_daemon_keeps_and_another_stands_by_for_is_kept() -> None:
    """As a pair is meant to be; without the first one it is only stood by for."""
    standby = daemon(host({"state": "standing by", "owner": "the other"}))
    assert verdict([standby, daemon(host())], []) is Standing.KEPT
    assert verdict([standby], []) is Standing.LATE


def test_without_an_answer_there_is_no_daemon_and_a_mute_one_keeps_no_row() -> None:
    """Whatever the others say."""
    assert verdict([], []) is Standing.NO_DAEMON
    assert verdict([], ["it did not answer"]) is Standing.NO_DAEMON
    assert verdict([daemon(host())], ["it did not answer"]) is Standing.NOT_KEPT


def test_lines_fit_a_terminal_and_nothing_hostile_is_in_them() -> None:
    """Whatever a host is called, and whatever its errors say."""
    said = host(
        {"state": "given up", "reason": HOSTILE * 20},
        host=HOSTILE * 9,
        usage={"vcpus_used": 10**9, "memory_mb_used": 10**12, "running_vms": 10**5},
        monitor={"unreadable": {"u": "long " * 60}},
    )
    text = list(lines([daemon(said, log_lines_lost=7)], [HOSTILE + " words" * 30]))
    assert all(line.isprintable() for line in text)
    assert max(map(len, text)) <= 110
    assert any("7 log lines were lost" in line for line in text)


def test_every_remark_says_what_it_is_about() -> None:
    """An operator reads it alone."""
    said = host({"state": "standing by", "owner": "rival:1"}, patterns_without_domain=["wbe-*"])
    texts = [remark.text for remark in remarks_on(said, daemon(said))]
    assert texts == ["--only wbe-* matches no domain", "standing by; rival:1 owns the row"]
