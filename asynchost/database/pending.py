"""The hosts that wait to be written, each until a time that may move."""

from asynchost.database.attachment import Attachment
from asynchost.timetable import Timetable


class Pending:
    """Hands out the hosts whose ``due_at`` has come. Memory: the timetable of those that wait.

    A change puts a host's time off, and looking at every host that waits for each write would
    cost more than the write. So a host keeps its first time, and gets the next one when that
    comes up too soon.
    """

    def __init__(self) -> None:
        self._times: Timetable[Attachment] = Timetable()

    def __contains__(self, attachment: object) -> bool:
        return attachment in self._times

    def add(self, attachment: Attachment) -> float:
        """The host waits until its ``due_at`` or, if it waits already, until the earlier time.

        Returns that time.
        """
        return self._times.add(attachment, attachment.due_at)

    def discard(self, attachment: Attachment) -> None:
        """The host waits no more."""
        self._times.discard(attachment)

    def take(self, now: float, most: int) -> list[Attachment]:
        """The hosts whose time has come, the earliest ``most``; they wait no more."""
        due: list[Attachment] = []
        while len(due) < most and (early := self._times.take(now, most - len(due))):
            for attachment in early:
                if attachment.due_at <= now:
                    due.append(attachment)
                else:
                    self.add(attachment)
        return due

    @property
    def next_at(self) -> float:
        """When the next host may be due; infinity when none waits."""
        return self._times.next_at
