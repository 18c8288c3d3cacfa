"""Functions that are called when something happens: one rule for all of them.

Pure: the function that reports an error comes in as an argument. Memory: one entry for each
observer that was added and not removed.
"""

from collections.abc import Callable
from typing import Generic, ParamSpec

P = ParamSpec("P")

Report = Callable[[BaseException, object], None]
"""Takes the error that an observer raised, and the observer."""


class Observers(Generic[P]):
    """The functions to call, in the order in which they were added.

    An observer that raises is given to ``report``; the other observers are called all the same.
    Adding the same function twice calls it twice. An observer that is removed during a call is
    not called any more; one that is added during a call is called from the next call on.
    """

    __slots__ = ("_observers", "_report")

    def __init__(self, report: Report) -> None:
        self._report = report
        self._observers: dict[object, Callable[P, object]] = {}

    def __bool__(self) -> bool:
        return bool(self._observers)

    def add(self, observer: Callable[P, object]) -> Callable[[], None]:
        """Add ``observer``; returns the function that removes it, which is idempotent."""
        key = object()
        self._observers[key] = observer

        def remove() -> None:
            self._observers.pop(key, None)

        return remove

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call every observer with these arguments."""
        for key in tuple(self._observers):
            observer = self._observers.get(key)
            if observer is None:
                continue
            try:
                observer(*args, **kwargs)
            except (SystemExit, KeyboardInterrupt):
                raise
            # Also asyncio.CancelledError, which an observer gets by asking a cancelled future.
            except BaseException as error:  # noqa: BLE001 - it must not reach the monitor
                self._report(error, observer)
