"""One connection to the database, owned by one task.

The only module, beside :mod:`asynchost.database.login`, that talks to aiomysql. May live here:
connecting, one statement within a deadline, closing. Must not: what the statements mean.

No pool (a cancelled holder can hang another waiter for ever), no ``ping`` (it reconnects in
silence and loses the transaction), no second task on one connection (the answers go off by one,
undetected). aiomysql has no read timeout, so each statement stands in ``asyncio.timeout``. A
statement that timed out or was cancelled may still be carried out by the server: its outcome is
unknown, and the connection, whose next answer would be that one, is closed.
"""

import asyncio
from collections.abc import Callable, Mapping
from ssl import SSLError
from types import TracebackType
from typing import Any, Self

import pymysql
from pymysql.constants import CLIENT

from asynchost.database.classify import Kind, StatementError, code_of, kind_of, reason_of
from asynchost.database.driver import aiomysql
from asynchost.database.login import NO_KEY, LoginConnection, read_key
from asynchost.database.refusal import refusal
from asynchost.database.schema import quoted
from asynchost.database.tls import remedy
from asynchost.database.url import DatabaseUrl, Endpoint
from asynchost.errors import DatabaseRefusedError

_IDLE_SECONDS = 28_800
"""How long the server keeps a session that says nothing: its own default, eight hours."""
_CLAIM_SECONDS = 15
"""How long a claim may keep others waiting when its agent falls silent within it."""
_UNLIMITED = 18_446_744_073_709_551_615
_EVERYWHERE: dict[str, int | str] = {
    # Each statement is its own transaction, and a COMMIT ends one without beginning another. Sent
    # always: MySQL started with autocommit=OFF tells the driver that autocommit is on.
    "autocommit": 1,
    "completion_type": 0,
    # Set, not added to: backslashes must escape, double quotes must quote strings.
    "sql_mode": "'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
    "time_zone": "'+00:00'",
    # The server's init_connect may have stopped the session's clock, which dates signs of life.
    "timestamp": "DEFAULT",
    # The driver would fetch each note and raise it as a Python warning.
    "sql_notes": 0,
    # The waits for a row and for a table. MySQL does not notice that a client has gone while its
    # statement waits, so a longer wait would pile up sessions behind a locked table.
    "innodb_lock_wait_timeout": 1,
    "lock_wait_timeout": 1,
    # What a server may be set to refuse, to cut short or to leave unchecked.
    "sql_safe_updates": 0,
    "sql_select_limit": _UNLIMITED,
    "max_join_size": _UNLIMITED,
    "sql_big_selects": 1,
    "unique_checks": 1,
    "foreign_key_checks": 1,
    # Else IS NULL would find the row of the last AUTO_INCREMENT value.
    "sql_auto_is_null": 0,
    # An idle writer speaks once a minute, and the server may be set to cut it off sooner.
    "wait_timeout": _IDLE_SECONDS,
}
"""What a statement's meaning or outcome depends on, with its value as SQL.

Left as they are: limits of memory, which are an administrator's; what only changes the plan or the
speed; and what concerns only statements that are not sent.
"""
_WHERE_KNOWN: dict[str, int | str] = {
    # READ COMMITTED steps over locked rows that do not match only without this, which MariaDB
    # turned on in 11.6.
    "innodb_snapshot_isolation": 0,
    "max_execution_time": 0,
    "check_constraint_checks": 1,
    # Else rows could be shown as they were in the past.
    "system_versioning_asof": "DEFAULT",
    # Many keys are looked up by the index however many there are, not by reading the whole table.
    "range_optimizer_max_mem_size": 0,
    # Within a transaction these count in MariaDB, where they are set, and not wait_timeout.
    "idle_transaction_timeout": _CLAIM_SECONDS,
    "idle_write_transaction_timeout": _CLAIM_SECONDS,
    "idle_readonly_transaction_timeout": _CLAIM_SECONDS,
}
"""The same for variables of one of the two servers, or of some versions."""
_ASKED = ("read_only", "max_allowed_packet")
_TAKES_NO_WRITES = ("1", "ON", "NO_LOCK", "NO_LOCK_NO_ADMIN")
"""What a server that takes no writes answers for ``read_only``: a number, or from MariaDB 12 on one
of several words."""

_NO_SERVER = 2000
"""The driver's own "unknown error", in no class: what comes again and again is no outage."""
_READ_ONLY, _TOO_LARGE = 1290, 1153
"""The codes that servers give for these."""
_NO_DEFINER = 1449
_MEND_DEFINER = (
    "make that account (CREATE USER), or the trigger or view again with another definer: SHOW"
    " TRIGGERS LIKE 'compute_nodes'"
)
_GOODBYE_SECONDS = 0.5
"""A goodbye is a courtesy that spares the server's log a line: not worth a longer wait."""

Row = tuple[Any, ...]


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
        self.ended = False
        """Whether the server, or what is between, has ended the connection."""
        self._when_ended: Callable[[], None] = _do_nothing
        _watch_end(connection, self._notice_end)
        self._url = url
        self._deadline_seconds = deadline_seconds
        self.counts_matches = False
        """Whether it was seen that :meth:`write` returns matched rows, and not changed ones."""
        self.sound_until = float("-inf")
        """The loop's time up to which the last inspection of the tables is trusted."""
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
        connection = LoginConnection(
            host=host,
            port=port,
            unix_socket=url.unix_socket,
            user=url.user,
            password=_as_the_driver_sends(url.password or ""),
            db=url.database,
            charset="utf8mb4",
            # Matched rows, not changed ones: a repeated write must count as landed.
            client_flag=CLIENT.FOUND_ROWS,
            autocommit=True,
            program_name="asynchost",
            ssl=tls,
            public_key=read_key(str(url), url.server_public_key),
            fetches_key=url.fetches_public_key,
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
        # The first statement, since some of these would keep the next one from being answered. In
        # MySQL the last part is a comment.
        await self.write(
            f"SET NAMES utf8mb4 COLLATE utf8mb4_general_ci, {_assignments(_EVERYWHERE)}"
            " /*M!100100 , max_statement_time = 0 */"
        )
        # The server's init_connect may have begun a transaction.
        await self.write("ROLLBACK")
        # ... or have chosen another database.
        await self.write(f"USE {quoted(self._url.database)}")
        await self.write("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE")
        # Not SELECT @@…: a variable that the server does not know would be an error.
        names = ", ".join(f"'{name}'" for name in (*_ASKED, *_WHERE_KNOWN))
        answer = await self.query(f"SHOW SESSION VARIABLES WHERE Variable_name IN ({names})")
        variables = {str(name).lower(): str(value) for name, value in answer}
        if not variables.keys() >= {*_ASKED}:
            raise _no_server(self._url, "SHOW VARIABLES brings no row")
        self._most_bytes = int(variables["max_allowed_packet"])
        # An unknown word is no reason to give the server up: it refuses a write by itself.
        if variables["read_only"].upper() in _TAKES_NO_WRITES and not only_reads:
            raise StatementError(
                str(self._url), _READ_ONLY, "the server is read-only", Kind.CONNECTION
            )
        known = {name: value for name, value in _WHERE_KNOWN.items() if name in variables}
        if known:
            await self.write(f"SET {_assignments(known)}")

    def when_ended(self, call: Callable[[], None]) -> None:
        """Have this called as soon as the connection ends, also while nothing is asked of it."""
        self._when_ended = call

    def _notice_end(self) -> None:
        self.ended = True
        self._when_ended()

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
    if isinstance(error, RuntimeError) and "cryptography" in reason:
        # PyMySQL's own. The server's words may hold the name of an account or a column.
        reason = "the package cryptography, which encrypts the password, is not installed"
        way_out = (
            "connect with TLS (?ssl_ca=FILE) or by unix_socket, or install asynchost[mysql-auth]"
        )
        return DatabaseRefusedError(str(url), NO_KEY, reason, way_out)
    if not isinstance(error, pymysql.err.Error | OSError):
        # The driver stumbled over what came: cut short, or another protocol's.
        return _no_server(url, f"{type(error).__name__}: {reason}")
    if kind is Kind.CONFIGURATION:
        cause = error.__cause__
        return refusal(url, code, reason, remedy(cause) if isinstance(cause, SSLError) else None)
    if code == _NO_DEFINER:
        reason += f"; {_MEND_DEFINER}"
    return StatementError(str(url), code, reason, kind)


def _assignments(variables: Mapping[str, int | str]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in variables.items())


def _no_server(url: DatabaseUrl, why: str) -> StatementError:
    reason = f"no MySQL server answers there ({why})"
    return StatementError(str(url), _NO_SERVER, reason, Kind.CONNECTION)


def _as_the_driver_sends(password: str) -> str:
    """aiomysql sends passwords as latin-1; every other client, and so the server, as UTF-8."""
    return password.encode("utf-8", "surrogateescape").decode("latin-1")


def _transport_of(connection: aiomysql.Connection) -> asyncio.WriteTransport:
    transport: asyncio.WriteTransport = connection._writer.transport  # noqa: SLF001 - no public way
    return transport


def _do_nothing() -> None:
    """What a session calls at its end by default."""


def _watch_end(connection: aiomysql.Connection, call: Callable[[], None]) -> None:
    """Call this when the stream ends. Nothing reads an idle connection, and a second reader could
    take what a statement's answer is read from, so the stream itself must tell."""
    reader: Any = connection._reader  # noqa: SLF001 - no public way
    feed_eof, set_exception = reader.feed_eof, reader.set_exception

    def end_in_order() -> None:
        feed_eof()
        call()

    def end_with(error: Exception) -> None:
        set_exception(error)
        call()

    reader.feed_eof, reader.set_exception = end_in_order, end_with
