"""What failures in a row amount to: when to try again, what to tell of them, when to give up.

Memory: the error codes of the present outage.
"""

import random
from typing import Any

from asynchost.backoff import Backoff
from asynchost.database.classify import Kind, StatementError, is_known
from asynchost.database.refusal import refusal
from asynchost.database.settings import WriterSettings
from asynchost.database.url import DatabaseUrl
from asynchost.errors import DatabaseRefusedError, DatabaseUnavailableError

_UNKNOWN_ENDURED = 3
"""An error that nobody has classified is taken for an outage so often; then somebody must look."""
_LOCK_RETRY_SECONDS = 1.0


class Outage:
    """The failures since a turn of writing succeeded last."""

    def __init__(self, url: DatabaseUrl, settings: WriterSettings, log: Any) -> None:
        self._url = url
        self._settings = settings
        self._log = log
        self._backoff = new_backoff(settings)
        self._was_accepted = False
        self._unknown: tuple[int | None, int] = (None, 0)
        """The last error's code, if it is in no list, and how often it came in a row."""
        self._reported: set[int | None] = set()
        """The error codes that were told of since the database went away."""

    def accepted(self) -> None:
        """A server has let us in."""
        self._was_accepted = True
        self._reported.clear()

    def over(self) -> None:
        """A turn of writing has succeeded."""
        self._backoff.reset()
        self._unknown = (None, 0)

    def delay_after(
        self, error: DatabaseRefusedError | DatabaseUnavailableError, *, closing: bool
    ) -> float:
        """Tell of the failure, and return the seconds until the next attempt.

        :raises DatabaseRefusedError: refused, and never accepted before.
        """
        failure = self._recurring(error) or error
        self.report(failure, closing=closing)
        if isinstance(failure, StatementError) and failure.kind is Kind.SAME_CONNECTION:
            # As of a locked table: not the server's absence, and over at any moment.
            return min(_LOCK_RETRY_SECONDS, self._settings.backoff_maximum_seconds)
        if isinstance(failure, DatabaseUnavailableError):
            return self._backoff.next_delay()
        if self._was_accepted:
            return self._settings.refusal_retry_seconds * (1 + random.random())  # noqa: S311
        raise failure from None

    def _recurring(
        self, error: DatabaseRefusedError | DatabaseUnavailableError
    ) -> DatabaseRefusedError | None:
        """The refusal that an unknown code amounts to when connecting anew does not help."""
        if not isinstance(error, DatabaseUnavailableError) or is_known(error.code):
            self._unknown = (None, 0)
            return None
        code, times = self._unknown
        times = times + 1 if code == error.code else 1
        self._unknown = (error.code, times)
        if times < _UNKNOWN_ENDURED:
            return None
        reason = f"{error.reason}, {times} times in a row"
        return refusal(self._url, error.code, reason)

    def report(
        self, error: DatabaseRefusedError | DatabaseUnavailableError, *, closing: bool
    ) -> None:
        """Tell once for each reason of an outage; of a refusal each time, for it needs a person
        and comes seldom, except while closing."""
        refused = isinstance(error, DatabaseRefusedError)
        if (refused and not closing) or error.code not in self._reported:
            level = self._log.error if refused else self._log.warning
            level("database unavailable, trying again", reason=error.message)
        self._reported.add(error.code)


def new_backoff(settings: WriterSettings) -> Backoff:
    """Delays as the settings have them."""
    return Backoff(
        random.random, settings.backoff_initial_seconds, settings.backoff_maximum_seconds
    )
