"""When to write: after a quiet time, and never later than a maximum delay.

Pure: time comes in as an argument. Memory: two numbers, whatever the number of changes.
"""

from asynchost.errors import InvalidSettingError


class Debouncer:
    """Merges changes into one write.

    A change asks for a write ``quiet_seconds`` after the *last* change, but at the latest
    ``maximum_delay_seconds`` after the *first* one that is not yet written, so that a host that
    never falls quiet is written as well. Zero quiet time or zero maximum delay means at once.

    It holds no value: the writer takes the newest one at the moment it writes.
    """

    __slots__ = ("_latest", "_maximum_delay_seconds", "_quiet_seconds", "deadline")

    def __init__(self, quiet_seconds: float, maximum_delay_seconds: float) -> None:
        for name, value in (
            ("quiet_seconds", quiet_seconds),
            ("maximum_delay_seconds", maximum_delay_seconds),
        ):
            if not 0 <= value < float("inf"):
                raise InvalidSettingError(name, value, "give seconds, 0 or more")
        self._quiet_seconds = quiet_seconds
        self._maximum_delay_seconds = maximum_delay_seconds
        self._latest = 0.0
        self.deadline: float | None = None
        """The time to write at; None when nothing is pending."""

    def touch(self, now: float) -> None:
        """Something changed at ``now``."""
        if self.deadline is None:
            self._latest = now + self._maximum_delay_seconds
        self.deadline = min(now + self._quiet_seconds, self._latest)

    def take(self) -> None:
        """The write begins: a change from here on belongs to the next one."""
        self.deadline = None
