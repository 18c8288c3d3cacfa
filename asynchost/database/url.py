"""Database URLs: read, checked, shown without their password.

Pure text. ``mysql://user@host:port/database`` over TCP, with several ``host:port`` separated by
commas where there are several servers; ``mysql://user@localhost/database?unix_socket=/path`` over
a socket; ``mariadb://`` means the same. ``?ssl_mode=``, ``ssl_ca``, ``ssl_cert`` and ``ssl_key``
ask for TLS; ``server_public_key`` or ``fetch_server_public_key=1`` lets MySQL's accounts log in
over TCP without it. Anything that RFC 3986 reserves is percent-encoded. Every text that leaves this
module, errors included, has ``***`` where a password stood, also where the URL is malformed.
"""

import re
from dataclasses import dataclass, field
from typing import NamedTuple, Self
from urllib.parse import parse_qsl, quote, unquote, urlencode

from asynchost.database.tls import Mode, Tls
from asynchost.errors import InvalidSettingError
from asynchost.masking import masked

DEFAULT_PORT = 3306
_LARGEST_PORT = 65_535
_SCHEMES = ("mysql", "mariadb")
_SHAPE = "give mysql://user@host:port/database or mysql://user@localhost/database?unix_socket=/path"
_BAD_PORT = "a port is a number from 1 to 65535"
_FILES = ("ssl_ca", "ssl_cert", "ssl_key")
_KEY, _FETCH = "server_public_key", "fetch_server_public_key"
_URL = re.compile(
    r"(?P<scheme>[^:/?#@]+)://(?P<authority>[^/?#]*)/?(?P<path>[^?#]*)"
    r"(\?(?P<query>[^#]*))?(#(?P<fragment>.*))?\Z",
    re.DOTALL,
)
_ENDPOINT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\[\]:]*)(?::(?P<port>[^\[\]:]*))?\Z")


class Endpoint(NamedTuple):
    """One server, over TCP."""

    host: str
    port: int = DEFAULT_PORT

    def __str__(self) -> str:
        return f"{self._bracketed}:{self.port}"

    @property
    def shortest(self) -> str:
        """As it stands in a URL: without the usual port."""
        return self._bracketed if self.port == DEFAULT_PORT else str(self)

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """Where a database is and who asks. Neither ``repr`` nor ``str`` shows the password."""

    user: str
    endpoints: tuple[Endpoint, ...]
    """At least one; they are tried in this order."""
    database: str
    unix_socket: str | None = None
    """A path; when given, ``endpoints`` are not used."""
    tls: Tls | None = None
    """None: plain text."""
    server_public_key: str | None = None
    """A path: the key that a password is encrypted with where there is no TLS."""
    fetches_public_key: bool = False
    """Whether to ask the server for its public key, and to believe any server that answers."""
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str, *, password: str | None = None) -> Self:
        """Read a URL; ``password`` is used where the URL holds none.

        :raises InvalidSettingError: naming the value (its password masked) and the way out.
        """
        # But for the password, which the server may know as whatever bytes.
        if not is_text(masked(text)):
            raise _refuse(text, f"it holds bytes that are no UTF-8; {_SHAPE}")
        # Not by urllib: newer versions of it refuse several hosts where one is in brackets.
        parts = _URL.match(text)
        if parts is None or parts["scheme"].lower() not in _SCHEMES:
            raise _refuse(text, f"the scheme must be mysql; {_SHAPE}")
        account, _, places = parts["authority"].rpartition("@")
        user, has_password, secret = account.partition(":")
        # What is masked above may be more than the password, where there is a further @.
        if not is_text(f"{user}{places}{parts['path']}{parts['query']}"):
            raise _refuse(text, f"it holds bytes that are no UTF-8; {_SHAPE}")
        if not user:
            raise _refuse(text, f"it names no user; {_SHAPE}")
        database = unquote(parts["path"])
        if not database or "/" in parts["path"]:
            raise _refuse(text, f"it names no database; {_SHAPE}")
        if parts["fragment"]:
            raise _refuse(text, f"a # must be written %23; {_SHAPE}")
        options = _options(text, parts["query"] or "")
        unix_socket = options.unix_socket
        return cls(
            user=unquote(user),
            endpoints=_endpoints(text, places, needed=unix_socket is None),
            database=database,
            unix_socket=unix_socket,
            tls=options.tls,
            server_public_key=options.server_public_key,
            fetches_public_key=options.fetches_public_key,
            password=unquote(secret) if has_password else password,
        )

    @property
    def places(self) -> tuple[str, ...]:
        """Where it connects to, one after another, for logs."""
        return (self.unix_socket,) if self.unix_socket else tuple(map(str, self.endpoints))

    def __str__(self) -> str:
        """The URL without its password."""
        where = ",".join(endpoint.shortest for endpoint in self.endpoints)
        options = {} if self.tls is None else self.tls.options()
        if self.unix_socket is not None:
            options["unix_socket"] = self.unix_socket
        if self.server_public_key is not None:
            options["server_public_key"] = self.server_public_key
        if self.fetches_public_key:
            options["fetch_server_public_key"] = "1"
        query = f"?{urlencode(options, safe='/', quote_via=quote)}" if options else ""
        return f"mysql://{quote(self.user, safe='')}@{where}/{quote(self.database, safe='')}{query}"


def is_text(text: str) -> bool:
    """Whether it is text: Python hands on bytes of a command line that are none as surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def holds_password(text: str) -> bool:
    """Whether a URL, malformed or not, seems to hold a password: then keep it off every screen."""
    return masked(text) != text


def _endpoints(text: str, places: str, *, needed: bool) -> tuple[Endpoint, ...]:
    if not places and not needed:
        return (Endpoint("localhost"),)
    endpoints = []
    for place in places.split(","):
        match = _ENDPOINT.match(place)
        host = unquote(match["host"]) if match is not None else ""
        if match is None or not host.isprintable():
            raise _refuse(text, f"it is malformed; {_SHAPE}")
        if not host:
            raise _refuse(text, f"it names no host; {_SHAPE}")
        try:
            host.encode("idna")
        except UnicodeError:
            raise _refuse(text, f"{host!r} is no host's name; {_SHAPE}") from None
        digits = match["port"] or str(DEFAULT_PORT)
        if not re.fullmatch(r"[0-9]{1,5}", digits) or not 0 < int(digits) <= _LARGEST_PORT:
            raise _refuse(text, f"{_BAD_PORT}; {_SHAPE}")
        endpoints.append(Endpoint(host.strip("[]").lower(), int(digits)))
    for endpoint in endpoints:
        if endpoints.count(endpoint) > 1:
            raise _refuse(text, f"it names {endpoint} more than once; {_SHAPE}")
    return tuple(endpoints)


class _Options(NamedTuple):
    """What stands behind the question mark."""

    unix_socket: str | None
    tls: Tls | None
    server_public_key: str | None
    fetches_public_key: bool


def _options(text: str, query: str) -> _Options:
    """The socket, the TLS and the key that the URL's options ask for."""
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in ("unix_socket", "ssl_mode", *_FILES, _KEY, _FETCH):
            raise _refuse(text, f"the option {name!r} is unknown; {_SHAPE}")
        if name in options:
            raise _refuse(text, f"the option {name!r} is given twice; {_SHAPE}")
        if name == _FETCH and value not in ("0", "1"):
            raise _refuse(text, f"{name} must be 0 or 1; {_SHAPE}")
        if name not in ("ssl_mode", _FETCH) and not value.startswith("/"):
            raise _refuse(text, f"{name} must be an absolute path; {_SHAPE}")
        options[name] = value
    unix_socket = options.pop("unix_socket", None)
    key, fetches = options.pop(_KEY, None), options.pop(_FETCH, "0") == "1"
    if key is not None and fetches:
        raise _refuse(text, f"{_FETCH} is of no use beside {_KEY}: give one")
    tls = _tls(text, options)
    if unix_socket is not None and tls is not None:
        raise _refuse(text, f"a unix socket needs no TLS: leave out {', '.join(options)}")
    return _Options(unix_socket, tls, key, fetches)


def _tls(text: str, options: dict[str, str]) -> Tls | None:
    modes = ("DISABLED", *Mode)
    mode = options.get("ssl_mode", Mode.VERIFY_IDENTITY).upper()
    if mode not in modes:
        raise _refuse(text, f"ssl_mode must be one of {', '.join(modes)}")
    files = [name for name in _FILES if name in options]
    if mode == "DISABLED" and files:
        raise _refuse(text, f"ssl_mode is DISABLED, yet it gives {', '.join(files)}")
    if mode == Mode.REQUIRED and "ssl_ca" in options:
        raise _refuse(text, "ssl_mode=REQUIRED checks no certificate; with ssl_ca give VERIFY_CA")
    if "ssl_key" in options and "ssl_cert" not in options:
        raise _refuse(text, "ssl_key is of no use without ssl_cert")
    if mode == "DISABLED" or not options:
        return None
    return Tls(Mode(mode), options.get("ssl_ca"), options.get("ssl_cert"), options.get("ssl_key"))


def _refuse(text: str, expected: str) -> InvalidSettingError:
    return InvalidSettingError("database URL", masked(text), expected)
