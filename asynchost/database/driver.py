"""Imports aiomysql, also for a user who has no name.

May live here: only what makes the import work. aiomysql asks for the user's name when it is
imported and expects a ``KeyError`` where there is none, as for a container's numeric user. Python
3.13 and later raise an ``OSError`` then.
"""

import getpass
import os

_VARIABLE = "LOGNAME"


def _has_name() -> bool:
    try:
        getpass.getuser()
    except (KeyError, OSError):
        return False
    return True


_is_lent = not _has_name()
if _is_lent:
    os.environ[_VARIABLE] = "unknown"
try:
    import aiomysql
finally:
    if _is_lent:
        del os.environ[_VARIABLE]

__all__ = ["aiomysql"]
