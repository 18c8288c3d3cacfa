"""What an error code of MySQL or MariaDB asks for.

Pure: integers in, classes out, plus the one internal error that carries them. Decided by the
integer code alone: texts are translated, and one class of the driver covers opposite cases.
A server's code that is not listed is the statement's: the server answered, so the connection is in
order, and one row may be the cause. An error without a code, and an unlisted code of the client
library, mean: reconnect.
"""

import os
import ssl
from collections.abc import Collection
from enum import Enum

from asynchost.errors import DatabaseUnavailableError


class Kind(Enum):
    """What to do after a failed statement."""

    CONNECTION = "connection"
    """Close, connect again after a backoff. The statement's outcome is unknown."""
    SAME_CONNECTION = "same connection"
    """The server took it back: try again on this connection after a backoff."""
    STATEMENT = "statement"
    """The server refused the statement, for a reason that is not known here: find the row that is
    the cause, try that row again after a backoff, go on with the others."""
    RESOURCES = "resources"
    """Disk, memory, tables are full: try again slowly, and say so."""
    BAD_ROW = "bad row"
    """A value of one row is refused: find the row, leave it out, go on with the others."""
    RESOLVE = "resolve"
    """The row is not what was thought: find or create it anew."""
    CONFIGURATION = "configuration"
    """A person must mend something."""


_CODES: dict[Kind, tuple[int, ...]] = {
    Kind.CONNECTION: (
        *(1040, 1042, 1043, 1047, 1053, 1077, 1079, 1129, 1152, 1158, 1159, 1160, 1161, 1184),
        *(1203, 1226, 1290, 1792, 1836, 1927, 2003, 2006, 2013, 2014, 2027, 2055, 3032, 4031),
        *(9001, 9002, 9003, 9004, 9005),
    ),
    Kind.SAME_CONNECTION: (
        *(1020, 1180, 1205, 1213, 1317, 1969, 3024, 3101, 3572, 3989),
        *(8002, 8022, 8028, 9007),
    ),
    Kind.RESOURCES: (3, 28, 1021, 1030, 1037, 1041, 1114),
    # 1267, 3854 and 3988: a name with characters that the table's character set does not have. The
    # last line is what others have put on the table, as a foreign key, a trigger that raises an
    # error of its own (1644), and a CHECK in MySQL and in MariaDB.
    Kind.BAD_ROW: (
        *(167, 1048, 1153, 1264, 1265, 1267, 1292, 1366, 1406, 3854, 3988),
        *(1216, 1452, 1644, 3819, 4025),
    ),
    Kind.RESOLVE: (1062,),
    Kind.CONFIGURATION: (
        *(1044, 1045, 1049, 1054, 1064, 1142, 1143, 1146, 1227, 1251, 1364, 1665, 1698),
        # Accounts: none for this machine, no such plugin, the password or the account has run out
        # or is locked, TLS is asked for.
        *(1130, 1524, 1820, 1862, 3118, 3159, 3955, 4150, 4151),
        *(2026, 2059, 2061),
    ),
}
_CLIENT_CODES = range(2000, 3000)
"""The codes of the client library: no server sends them."""
NO_PARENT_ROW = (1216, 1452)
"""A foreign key misses its row; the former where the account may not know of that table."""
_KINDS = {code: kind for kind, codes in _CODES.items() for code in codes}


class StatementError(DatabaseUnavailableError):
    """A statement failed; ``kind`` says what to do. Does not leave the package, except as a
    :class:`~asynchost.errors.DatabaseUnavailableError`."""

    def __init__(self, database: str, code: int | None, reason: str, kind: Kind) -> None:
        super().__init__(database, code, reason)
        self.kind = kind


class RowsLockedError(StatementError):
    """Others have locked some rows, and these locks were not waited for."""

    def __init__(self, database: str, hosts: Collection[int] = ()) -> None:
        reason = "another session has locked the row"
        super().__init__(database, None, reason, Kind.SAME_CONNECTION)
        self.hosts = hosts
        """Of a claim that was not carried out: the places of these hosts in its batch."""


def code_of(error: BaseException) -> int | None:
    """The integer code of a driver's error; None where it has none, as after a timeout."""
    code = error.args[0] if error.args else None
    # OSError's first argument is an errno: a different set of numbers.
    if isinstance(error, OSError) or not isinstance(code, int) or code == 0:
        return None
    return code


def kind_of(error: BaseException) -> Kind:
    """What to do after this error of the driver."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError) or _is_alert(cause):
        return Kind.CONFIGURATION
    code = code_of(error)
    if code is None:
        return Kind.CONNECTION
    return _KINDS.get(code, Kind.CONNECTION if code in _CLIENT_CODES else Kind.STATEMENT)


def is_known(code: int | None) -> bool:
    """Whether it is clear what to do after this code, or after an error without one."""
    return code is None or code in _KINDS


def reason_of(error: BaseException) -> str:
    """The error's text in one line."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLError):
        said = getattr(cause, "verify_message", None) or cause.reason or str(cause)
        return f"{_last(error)} (TLS: {said})"
    if isinstance(cause, OSError) and cause.errno is not None:
        # "Can't connect to MySQL server on 'localhost'" hides what the system said. A failed name
        # lookup has a negative number and its own text.
        said = os.strerror(cause.errno) if cause.errno > 0 else cause.strerror
        return f"{_last(error)} ({said})"
    return _last(error)


def _is_alert(cause: BaseException | None) -> bool:
    """Whether the server broke the handshake off on purpose, as without a client certificate."""
    return isinstance(cause, ssl.SSLError) and "ALERT" in (cause.reason or "")


def _last(error: BaseException) -> str:
    text = str(error.args[-1]) if error.args else type(error).__name__
    return " ".join(text.split())
