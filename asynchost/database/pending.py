"""The hosts that wait to be written, each until a time that may move."""

import heapq
from itertools import count

from asynchost.database.attachment import Attachment

_NEVER = float("inf")
_VOID_ENTRIES_ENDURED = 64


class Pending:
    """Hands out the hosts whose ``due_at`` has come. Memory: an entry for each host that waits.

    A change puts a host's time off, and looking at every host that waits for each write would
    cost more than the write. So a host keeps its first entry, and gets the next one when that
    comes up too soon.
    """

    def __init__(self) -> None:
        self._at: dict[Attachment, float] = {}
        self._entries: list[tuple[float, int, Attachment]] = []
        """A heap; the entries that are not in ``_at`` are void."""
        self._numbers = count()
        """Which keep hosts of one time from being compared."""

    def __contains__(self, attachment: object) -> bool:
        return attachment in self._at

    def add(self, attachment: Attachment) -> float:
        """The host waits until its ``due_at`` or, if it waits already, until the earlier time.

        Returns that time.
        """
        at = attachment.due_at
        known = self._at.get(attachment, _NEVER)
        if known <= at:
            return known
        self._at[attachment] = at
        heapq.heappush(self._entries, (at, next(self._numbers), attachment))
        if len(self._entries) > 2 * len(self._at) + _VOID_ENTRIES_ENDURED:
            self._entries = [(at, next(self._numbers), one) for one, at in self._at.items()]
            heapq.heapify(self._entries)
        return self._at[attachment]

    def discard(self, attachment: Attachment) -> None:
        """The host waits no more."""
        self._at.pop(attachment, None)

    def take(self, now: float) -> list[Attachment]:
        """The hosts whose time has come; they wait no more."""
        due = []
        while self.next_at <= now:
            _, _, attachment = heapq.heappop(self._entries)
            del self._at[attachment]
            if attachment.due_at <= now:
                due.append(attachment)
            else:
                self.add(attachment)
        return due

    @property
    def next_at(self) -> float:
        """When the next host may be due; infinity when none waits."""
        while self._entries:
            at, _, attachment = self._entries[0]
            if self._at.get(attachment) == at:
                return at
            heapq.heappop(self._entries)
        return _NEVER
