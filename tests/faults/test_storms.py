"""As many events as several generators can make one libvirtd emit, and a backlog of them.

What is asserted here is that nothing gets wrong; how long the loop stands still is printed, and
measured by ``./dev bench storm`` on a host of full size, for full time.
"""

from collections.abc import Iterator

import pytest

from tests.support.libvirtd import why_unavailable
from tests.support.storms import Host, Report, host

DOMAINS = 1000
GENERATORS = 2
STORM_SECONDS = 5.0
BACKLOG = 10_000
SILENT = {"audit_interval_seconds": 0, "second_resync_seconds": 0}
"""No audit: what is right in the end was right by events."""

MEMORY_TOLERANCE_BYTES = 32 * 2**20
"""What a burst may leave in the allocator; an event kept would be a kilobyte each."""


@pytest.fixture
def stormy_host() -> Iterator[Host]:
    """A host with a thousand domains and the processes that move them."""
    reason = why_unavailable()
    if reason is not None:
        pytest.skip(reason)
    with host(DOMAINS, GENERATORS) as there:
        yield there


def check(report: Report) -> None:
    """What holds after every storm."""
    found = report.found
    print(
        f"{report.events} events, {report.rate:.0f}/s, {found['reads']} reads; right after"
        f" {report.right_after_seconds:.2f} s; longest pause {found['pauses']['longest']:.4f} s,"
        f" of a bare loop {report.noise['longest']:.4f} s; {report.more_bytes} bytes more"
    )
    assert found["events"] == report.events, "every event was received"
    assert report.right, (report.truth, found)
    assert found["violations"] == []
    assert found["unreadable"] == {}
    assert found["waiting"] == 0, "nothing is kept of a domain that has been read"
    assert found["generation"] == 1, "the connection held"
    assert report.more_bytes < MEMORY_TOLERANCE_BYTES


def test_a_storm_ends_in_right_totals(stormy_host: Host) -> None:
    """Every event comes, no domain is read twice at once or waits twice, the end is right."""
    with stormy_host.watcher(spy=True, **SILENT) as watcher:
        report = stormy_host.storm(watcher, STORM_SECONDS)
        check(report)
        # Merged by being a set: a domain that changes again before its read is read once.
        assert report.found["reads"] < 2 * report.events


def test_a_storm_and_audits_at_the_same_time_end_in_right_totals(stormy_host: Host) -> None:
    """Audits one after another, whose readings are old at once, do no harm."""
    with stormy_host.watcher(
        spy=True, audit_interval_seconds=0.5, second_resync_seconds=0.5
    ) as watcher:
        check(stormy_host.storm(watcher, STORM_SECONDS))


def test_a_backlog_after_the_process_was_stopped_is_worked_off(stormy_host: Host) -> None:
    """The process gets no time at all while thousands of events come; then it has them all."""
    with stormy_host.watcher(spy=True, **SILENT) as watcher:
        check(stormy_host.storm(watcher, 30.0, BACKLOG, stop_for=0.0))
