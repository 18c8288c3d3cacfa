"""When a host's libvirt was heard of last, and how often it was asked.

Pure: the clock comes in as an argument. Memory: three times and three counters.
"""

from collections.abc import Callable
from typing import Literal

What = Literal["contact", "event", "audit"]


class Contacts:
    """Counts and dates what comes from one host."""

    __slots__ = ("_at", "_clock", "failures", "read_failures", "reads")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at: dict[What, float] = {}
        self.failures = 0
        """Attempts to connect that failed, and connections that were lost."""
        self.reads = 0
        """Reads of one domain that libvirt answered."""
        self.read_failures = 0
        """Reads of one domain that failed."""

    def heard(self, what: What = "contact", *, reads: int = 0) -> None:
        """libvirt was heard of; ``what`` it was, and how many reads it answered."""
        now = self._clock()
        self._at["contact"] = now
        self._at[what] = now
        self.reads += reads

    def age(self, what: What) -> float | None:
        """How many seconds ago that was last; None: never."""
        at = self._at.get(what)
        return None if at is None else self._clock() - at
