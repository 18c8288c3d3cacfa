"""Delays between attempts: exponential, with full jitter.

Pure: the random numbers come in as a function. Full jitter (a uniform draw between zero and
the bound) spreads many agents that lost one server at the same moment.
"""

from collections.abc import Callable


class Backoff:
    """Hands out one delay for each failed attempt in a row.

    The n-th delay is drawn from 0 to ``initial_seconds * 2**n``, the bound growing up to
    ``maximum_seconds``. The defaults begin below what a person notices and end at a rate that
    no server minds.
    """

    __slots__ = ("_bound", "_initial_seconds", "_maximum_seconds", "_random")

    def __init__(
        self,
        random: Callable[[], float],
        initial_seconds: float = 0.5,
        maximum_seconds: float = 30.0,
    ) -> None:
        self._random = random
        self._initial_seconds = initial_seconds
        self._maximum_seconds = maximum_seconds
        self._bound = initial_seconds

    def next_delay(self) -> float:
        """The seconds to wait before the next attempt."""
        delay = self._random() * self._bound
        self._bound = min(self._bound * 2, self._maximum_seconds)
        return delay

    def reset(self) -> None:
        """An attempt succeeded: the next failure starts from the beginning."""
        self._bound = self._initial_seconds
