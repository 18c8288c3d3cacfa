"""With which status the process ends."""

from enum import IntEnum


class ExitStatus(IntEnum):
    """The exit statuses of every ``asynchost`` command.

    A second signal during the orderly stop ends the process at once with 128 + its number, and
    so does SIGINT where there is nothing to stop in order.
    """

    OK = 0
    """Done, or stopped by SIGINT or SIGTERM."""
    FAULT = 1
    """A fault in asynchost itself, or an orderly stop that did not end in time. Of ``diff``: a
    difference."""
    MUST_MEND = 2
    """Somebody must mend something first; starting again as things stand would not help."""
    FENCED = 3
    """Every host's row was claimed by another agent, so there is nothing left to write."""
