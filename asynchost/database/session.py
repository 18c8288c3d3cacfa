"""One connection to the database, owned by one task.

The only module that talks to aiomysql. May live here: connecting, one statement within a
deadline, closing. Must not: what the statements mean.

No pool (a cancelled holder can hang another waiter for ever), no ``ping`` (it reconnects in
silence and loses the transaction), no second task on one connection (the answers go off by one,
undetected). aiomysql has no read timeout, so each statement stands in ``asyncio.timeout``. A
statement that timed out or was cancelled may still be carried out by the server: its outcome is
unknown, and the connection, whose next answer would be that one, is closed.
"""

import asyncio
from ssl import SSLError
from types import TracebackType
from typing import Any, Self

import aiomysql
import pymysql
from pymysql.constants import CLIENT

from asynchost.database.classify import Kind, StatementError, code_of, kind_of, reason_of
from asynchost.database.refusal import refusal
from asynchost.database.tls import remedy
from asynchost.database.url import DatabaseUrl, Endpoint
from asynchost.errors import DatabaseRefusedError

_SQL_MODE = "'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'"
"""Set, not added to: backslashes must escape, double quotes must quote strings."""
_IDLE_SECONDS = 28_800
"""How long the server keeps a session that says nothing: its own default, eight hours."""
_INIT = (
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    # sql_notes: aiomysql would fetch each note and raise it as a Python warning.
    "SET time_zone = '+00:00', innodb_lock_wait_timeout = 1, sql_notes = 0",
    # An idle writer speaks once a minute, and the server may be set to cut it off sooner.
    f"SET wait_timeout = {_IDLE_SECONDS}",
)
_CLAIM_SECONDS = 15
"""How long a claim may keep others waiting when its agent falls silent within it."""

_NO_SERVER = 2000
"""The driver's own "unknown error", in no class: what comes again and again is no outage."""
_READ_ONLY, _NO_TLS, _NO_PLUGIN, _TOO_LARGE = 1290, 2026, 2059, 1153
"""The codes that servers and clients give for these."""
_GOODBYE_SECONDS = 0.5
"""A goodbye is a courtesy that spares the server's log a line: not worth a longer wait."""

Row = tuple[Any, ...]


class _Connection(aiomysql.Connection):  # type: ignore[misc]  # it has no types
    """aiomysql's, which would go on in plain text with a server that does not speak TLS."""

    async def _request_authentication(self) -> None:
        # Before anything of the account is sent.
        if self._ssl_context and not self.server_capabilities & CLIENT.SSL:
            raise pymysql.err.OperationalError(_NO_TLS, "the server does not speak TLS")
        await super()._request_authentication()

    async def _process_auth(self, plugin_name: bytes, auth_packet: Any) -> None:
        # Whoever sits in between could ask for it.
        if plugin_name == b"mysql_clear_password" and not self._secure:
            raise pymysql.err.OperationalError(
                _NO_PLUGIN, "the server asks for the password in plain text"
            )
        await super()._process_auth(plugin_name, auth_packet)


class Session:
    """A connection whose every statement has a deadline. Make it with :meth:`connect`.

    Raises :class:`~asynchost.errors.DatabaseRefusedError` where a person must mend something,
    else :class:`StatementError`, whose ``kind`` says what to do. Cancelling a method is safe: it
    closes the connection.
    """

    def __init__(
        self, connection: aiomysql.Connection, url: DatabaseUrl, deadline_seconds: float
    ) -> None:
        self._connection = connection
        self._transport = _transport_of(connection)
        self._url = url
        self._deadline_seconds = deadline_seconds
        self._most_bytes: int | None = None
        """What the server takes at once; None: it was not asked yet."""

    @classmethod
    async def connect(
        cls,
        url: DatabaseUrl,
        deadline_seconds: float,
        endpoint: Endpoint | None = None,
        *,
        only_reads: bool = False,
    ) -> Self:
        """Connect to ``endpoint``, by default the URL's first, and set the session up.

        Each step, the connecting as a whole included, within ``deadline_seconds``. A server that
        takes no writes counts as unavailable, unless the session ``only_reads``.
        """
        host, port = endpoint or url.endpoints[0]
        tls = None if url.tls is None else url.tls.context(str(url))
        connection = _Connection(
            host=host,
            port=port,
            unix_socket=url.unix_socket,
            user=url.user,
            password=_as_the_driver_sends(url.password or ""),
            db=url.database,
            charset="utf8mb4",
            sql_mode=_SQL_MODE,
            # Matched rows, not changed ones: a repeated write must count as landed.
            client_flag=CLIENT.FOUND_ROWS,
            autocommit=True,
            program_name="asynchost",
            ssl=tls,
        )
        try:
            async with asyncio.timeout(deadline_seconds):
                # connect_timeout is not given: it ends where a mute server begins.
                await connection._connect()  # noqa: SLF001 - what aiomysql.connect() does
        except BaseException as error:
            connection.close()
            if isinstance(error, Exception):
                raise _translate(error, url, deadline_seconds) from error
            raise
        session = cls(connection, url, deadline_seconds)
        try:
            await session._set_up(only_reads=only_reads)
        except BaseException:
            session.abort()
            raise
        return session

    async def _set_up(self, *, only_reads: bool) -> None:
        answer = await self.query("SELECT @@read_only, @@max_allowed_packet")
        if not answer:
            raise _no_server(self._url, "a SELECT brings no row")
        ((read_only, self._most_bytes),) = answer
        if read_only and not only_reads:
            raise StatementError(
                str(self._url), _READ_ONLY, "the server is read-only", Kind.CONNECTION
            )
        for statement in _INIT:
            await self.write(statement)
        if self.is_mariadb:
            # Within a transaction it is this that counts there, where it is set, and not
            # wait_timeout.
            await self.write(f"SET idle_transaction_timeout = {_CLAIM_SECONDS}")

    @property
    def url(self) -> DatabaseUrl:
        """Where it is connected to."""
        return self._url

    @property
    def is_mariadb(self) -> bool:
        """Whether the server calls itself MariaDB."""
        return "MariaDB" in self._connection.get_server_info()

    @property
    def encrypted(self) -> bool:
        """Whether it speaks TLS."""
        return self._transport.get_extra_info("ssl_object") is not None

    @property
    def closed(self) -> bool:
        """Whether nothing more can be asked of it."""
        return bool(self._connection.closed)

    @property
    def insert_id(self) -> int:
        """The AUTO_INCREMENT value that the last statement made."""
        return int(self._connection.insert_id())

    async def write(self, statement: str) -> int:
        """Carry out a statement; returns the number of *matched* rows."""
        return int(await self._run(statement))

    async def query(self, statement: str) -> list[Row]:
        """Carry out a SELECT; returns all its rows."""
        # Not through a cursor: it asks for the server's warnings after each statement.
        await self._run(statement)
        result = self._connection._result  # noqa: SLF001 - what a cursor does
        return list(result.rows or ()) if result is not None else []

    async def forbid_writes(self) -> None:
        """From now on the server refuses whatever is no reading."""
        await self.write("SET SESSION TRANSACTION READ ONLY")

    async def limit_silence(self, limited: bool) -> None:
        """Let the server drop this session soon when it falls silent, or no longer so.

        A session that stops in the middle of a claim keeps its locks until then.
        """
        await self.write(f"SET wait_timeout = {_CLAIM_SECONDS if limited else _IDLE_SECONDS}")

    def abort(self) -> None:
        """Close at once, without a word to the server, which may have stopped answering."""
        self._connection.close()
        # close() alone would wait for unsent bytes, for ever if nobody reads them.
        self._transport.abort()

    async def aclose(self) -> None:
        """Say goodbye and close. Cancelling it closes as well."""
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await self._connection.ensure_closed()
        except (TimeoutError, OSError):
            pass
        finally:
            self.abort()
        # The transport lets go of its socket on the loop's next turn.
        await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _run(self, statement: str) -> int:
        # Not left to the driver, whose errors are the server's doing: this one were ours.
        sent = statement.encode("utf-8", "surrogateescape")
        self._refuse_large(sent)
        try:
            async with asyncio.timeout(self._deadline_seconds):
                return int(await self._connection.query(sent))
        except Exception as error:
            failure = _translate(error, self._url, self._deadline_seconds)
            if isinstance(failure, StatementError) and failure.kind is Kind.CONNECTION:
                self.abort()
            raise failure from error
        except BaseException:
            # Cancelled: the answer may still come, so nobody may ask.
            self.abort()
            raise

    def _refuse_large(self, statement: bytes) -> None:
        """What is larger than the server takes is not sent: it would not say so, but break the
        connection off, and nobody would know which statement that was for.

        :raises StatementError: of kind BAD_ROW.
        """
        most = self._most_bytes
        # One byte more says that it is a statement.
        size = len(statement) + 1
        if most is not None and size >= most:
            reason = f"the statement has {size} bytes, and max_allowed_packet is {most}"
            raise StatementError(str(self._url), _TOO_LARGE, reason, Kind.BAD_ROW)


def _translate(error: Exception, url: DatabaseUrl, deadline_seconds: float) -> Exception:
    if isinstance(error, TimeoutError):
        reason = f"no answer within {deadline_seconds:g} s"
        return StatementError(str(url), None, reason, Kind.CONNECTION)
    code, reason, kind = code_of(error), reason_of(error), kind_of(error)
    if "cryptography" in reason:
        # caching_sha2_password without TLS wants a package that is not there.
        way_out = "connect by unix_socket or with TLS (?ssl_mode=), or give the account the plugin"
        return DatabaseRefusedError(
            str(url), code, "the password cannot be sent", f"{way_out} mysql_native_password"
        )
    if not isinstance(error, pymysql.err.Error | OSError):
        # The driver stumbled over what came: cut short, or another protocol's.
        return _no_server(url, f"{type(error).__name__}: {reason}")
    if kind is Kind.CONFIGURATION:
        cause = error.__cause__
        return refusal(url, code, reason, remedy(cause) if isinstance(cause, SSLError) else None)
    return StatementError(str(url), code, reason, kind)


def _no_server(url: DatabaseUrl, why: str) -> StatementError:
    reason = f"no MySQL server answers there ({why})"
    return StatementError(str(url), _NO_SERVER, reason, Kind.CONNECTION)


def _as_the_driver_sends(password: str) -> str:
    """aiomysql sends passwords as latin-1; every other client, and so the server, as UTF-8."""
    return password.encode("utf-8", "surrogateescape").decode("latin-1")


def _transport_of(connection: aiomysql.Connection) -> asyncio.WriteTransport:
    transport: asyncio.WriteTransport = connection._writer.transport  # noqa: SLF001 - no public way
    return transport
