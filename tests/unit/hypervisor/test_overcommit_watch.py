"""When the disks are read; what is read, and by which calls, is tested on real disks."""

from typing import Any

import pytest

from asynchost.hypervisor import overcommit_watch
from asynchost.hypervisor.domain_disks import Found, Place
from asynchost.hypervisor.overcommit_watch import OvercommitWatch
from asynchost.settings import MonitorSettings


class Everywhere(Place):
    """Every file counts."""

    in_pool = False

    def look(self, path: str) -> Found | None:
        """See the base."""
        return Found(path, 0)


async def everywhere() -> Place:
    """The place, at once."""
    return Everywhere()


class Watch(OvercommitWatch):
    """One that asks nobody."""

    def __init__(self, events_wait: list[bool]) -> None:
        super().__init__(
            "test:///default",
            MonitorSettings(),
            lambda _: None,
            lambda: events_wait.pop(0),
            host="default",
        )
        self.left: list[list[bool]] = []
        self._answers = events_wait

    async def _ask(self, *_: Any) -> Any:
        self.left.append(list(self._answers))


async def test_disks_are_read_when_what_events_marked_has_been() -> None:
    """The totals are what somebody waits for."""
    watch = Watch([True, True, False, False])
    await watch._read({"a", "b"}, everywhere)
    assert watch.left == [[False], []]


async def test_disks_are_read_in_a_storm_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """More slowly, but they are."""
    monkeypatch.setattr(overcommit_watch, "_LONGEST_WAY_GIVEN_SECONDS", 0.0)
    watch = Watch([True, True])
    await watch._read({"a", "b"}, everywhere)
    assert watch.left == [[True], []]
