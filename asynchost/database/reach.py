"""Whether a database server serves the writer, since when, and why not. Memory: one reason."""

from time import monotonic

from asynchost.errors import DatabaseRefusedError, DatabaseUnavailableError


class Reach:
    """The writer's connection as its status tells it."""

    def __init__(self) -> None:
        self.connected = False
        self.reason: str | None = None
        """Why there is no connection; None while there is one, and before the first attempt."""
        self.connects = 0
        self.failures = 0
        """Attempts that failed, and connections that were lost."""
        self._since: float | None = None

    def made(self) -> None:
        """A connection was made, perhaps in place of an older one."""
        self.connects += 1
        self._turn(connected=True)
        self.reason = None

    def failed(self, error: DatabaseRefusedError | DatabaseUnavailableError) -> None:
        """An attempt has failed, or the connection is lost."""
        self.failures += 1
        self._turn(connected=False)
        self.reason = error.message

    @property
    def seconds(self) -> float | None:
        """For how long it has been so; None before the first attempt."""
        return None if self._since is None else monotonic() - self._since

    def _turn(self, *, connected: bool) -> None:
        if self._since is None or connected != self.connected:
            self._since = monotonic()
        self.connected = connected
