"""Database URLs: read, checked, shown without their password.

Pure text. ``mysql://user@host:port/database`` over TCP,
``mysql://user@localhost/database?unix_socket=/path`` over a socket; ``mariadb://`` means the
same. Anything that RFC 3986 reserves is percent-encoded. Every text that leaves this module,
errors included, has ``***`` where a password stood, also where the URL is malformed.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Self
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from asynchost.errors import InvalidSettingError

DEFAULT_PORT = 3306
_SCHEMES = ("mysql", "mariadb")
_SHAPE = "give mysql://user@host:port/database or mysql://user@localhost/database?unix_socket=/path"
_BAD_PORT = "a port is a number from 1 to 65535"
_SECRET_OPTION = re.compile(
    r"(?<=[?&])((?:[^=&#]*)(?:pass|pwd|secret)[^=&#]*)=[^&#]*", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """Where a database is and who asks. Neither ``repr`` nor ``str`` shows the password."""

    user: str
    host: str
    port: int
    database: str
    unix_socket: str | None = None
    """A path; when given, ``host`` and ``port`` are not used."""
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str, *, password: str | None = None) -> Self:
        """Read a URL; ``password`` is used where the URL holds none.

        :raises InvalidSettingError: naming the value (its password masked) and the way out.
        """
        parts, port, reason = _split(text)
        if parts is None:
            raise _refuse(text, f"{reason}; {_SHAPE}")
        if parts.scheme not in _SCHEMES:
            raise _refuse(text, f"the scheme must be mysql; {_SHAPE}")
        if not parts.username:
            raise _refuse(text, f"it names no user; {_SHAPE}")
        if port == 0:
            raise _refuse(text, f"{_BAD_PORT}; {_SHAPE}")
        database = unquote(parts.path.removeprefix("/"))
        if not database or "/" in parts.path.removeprefix("/"):
            raise _refuse(text, f"it names no database; {_SHAPE}")
        if parts.fragment:
            raise _refuse(text, f"a # must be written %23; {_SHAPE}")
        url = cls(
            user=unquote(parts.username),
            host=unquote(parts.hostname or ""),
            port=DEFAULT_PORT if port is None else port,
            database=database,
            unix_socket=_unix_socket(text, parts.query),
            password=password if parts.password is None else unquote(parts.password),
        )
        if "," in url.host:
            raise _refuse(text, f"it names more than one host; {_SHAPE}")
        if not url.host and url.unix_socket is None:
            raise _refuse(text, f"it names no host; {_SHAPE}")
        return url if url.host else replace(url, host="localhost")

    @property
    def endpoint(self) -> str:
        """Where it connects to, for logs."""
        return self.unix_socket or f"{self._bracketed}:{self.port}"

    def __str__(self) -> str:
        """The URL without its password."""
        where = self._bracketed if self.port == DEFAULT_PORT else f"{self._bracketed}:{self.port}"
        text = f"mysql://{quote(self.user, safe='')}@{where}/{quote(self.database, safe='')}"
        return f"{text}?unix_socket={quote(self.unix_socket)}" if self.unix_socket else text

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


def holds_password(text: str) -> bool:
    """Whether a URL, malformed or not, seems to hold a password: then keep it off every screen."""
    return masked(text) != text


def masked(text: str) -> str:
    """The URL with ``***`` where a password stands or seems to stand."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    # Up to the last @: a password may hold another one, or a slash, unencoded.
    account, at, place = rest.rpartition("@")
    user, colon, _ = account.partition(":")
    if colon:
        account = f"{user}:***"
    elif not at:
        place = _mask_port(place)
    return _SECRET_OPTION.sub(r"\1=***", f"{scheme}{separator}{account}{at}{place}")


def _split(text: str) -> tuple[SplitResult | None, int | None, str]:
    # The reason is returned, not raised: urllib's error quotes what it could not read, a password
    # as like as not, and would stay attached to ours.
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        return None, None, _BAD_PORT if "Port" in str(error) else "it is malformed"
    else:
        return parts, port, ""


def _mask_port(place: str) -> str:
    """In ``user:password/database``, whose host was forgotten, the password poses as the port."""
    authority = re.split(r"[/?#]", place, maxsplit=1)[0]
    name, colon, port = authority.rpartition(":")
    if colon and not port.isdecimal() and not port.endswith("]"):
        return f"{name}:***{place[len(authority) :]}"
    return place


def _unix_socket(text: str, query: str) -> str | None:
    unix_socket = None
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name != "unix_socket":
            raise _refuse(text, f"the option {name!r} is unknown; {_SHAPE}")
        if not value.startswith("/"):
            raise _refuse(text, f"unix_socket must be an absolute path; {_SHAPE}")
        unix_socket = value
    return unix_socket


def _refuse(text: str, expected: str) -> InvalidSettingError:
    return InvalidSettingError("database URL", masked(text), expected)
