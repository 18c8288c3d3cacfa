"""With which status the process ends, and what it says of the error that ended it."""

from enum import IntEnum
from typing import Final

from asynchost.errors import (
    AmbiguousRowError,
    AsynchostError,
    NovaOwnsRowError,
    RowConflictError,
    ServiceMissingError,
    ServiceTakenError,
)

_OPTIONS: Final[dict[type[AsynchostError], str]] = {
    AmbiguousRowError: "--service-id [NAME=]N",
    NovaOwnsRowError: "--connect NAME=URI, --beside-nova",
    RowConflictError: "--connect NAME=URI",
    ServiceMissingError: "--service-id [NAME=]N",
    ServiceTakenError: "--service-id [NAME=]N",
}


def with_options(error: AsynchostError) -> str:
    """The error's text, followed by the options of the command line that mend the error.

    The library's errors name settings, since a program that embeds the library has no options.
    """
    options = _OPTIONS.get(type(error))
    return error.message if options is None else f"{error.message} (options: {options})"


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
