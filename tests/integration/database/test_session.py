"""One connection: set up as it must be, each statement within its deadline, closed in doubt."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
from pymysql.constants import CLIENT
from structlog.testing import capture_logs

from asynchost.database import ComputeNodeWriter, WriterSettings, apply_schema
from asynchost.database.classify import Kind, StatementError, is_known
from asynchost.database.session import Session
from asynchost.database.url import DatabaseUrl
from asynchost.errors import DatabaseRefusedError
from asynchost.testing import FakeHost
from tests.support.libvirtd_settings import free_tcp_port
from tests.support.mariadb import Database, PrivateServer, in_the_open, over_tcp
from tests.support.waiting import eventually


@pytest.fixture
async def session(database: Database) -> AsyncIterator[Session]:
    """A session with a deadline that no busy machine reaches."""
    async with await Session.connect(DatabaseUrl.parse(database.url), 10.0) as session:
        yield session


async def test_the_session_is_set_up(session: Session) -> None:
    """Isolation, autocommit, strict mode, UTC, short lock waits; silence in a claim is short."""
    rows = await session.query("SHOW SESSION VARIABLES")
    variables = {str(name): str(value) for name, value in rows}
    # MariaDB before 11.1 has the older name only.
    isolation = variables.get("transaction_isolation") or variables["tx_isolation"]
    assert (isolation, variables["autocommit"]) == ("READ-COMMITTED", "ON")
    assert (variables["time_zone"], variables["completion_type"]) == ("+00:00", "NO_CHAIN")
    assert (variables["innodb_lock_wait_timeout"], variables["lock_wait_timeout"]) == ("1", "1")
    assert "STRICT_ALL_TABLES" in variables["sql_mode"]
    assert "NO_BACKSLASH_ESCAPES" not in variables["sql_mode"]
    if session.is_mariadb:
        idle = int(variables["idle_transaction_timeout"])
        assert 0 < idle <= 30, "0, the server's default, would be for ever"
        assert variables.get("innodb_snapshot_isolation") in ("OFF", None)


async def test_claims_limit_their_silence(session: Session) -> None:
    """And the session may be idle for long again afterwards."""
    await session.limit_silence(True)
    assert (await session.query("SELECT @@wait_timeout"))[0][0] <= 30
    await session.limit_silence(False)
    assert await session.query("SELECT @@wait_timeout") == [(28_800,)]


async def test_a_server_that_cuts_idle_sessions_soon_spares_this_one(
    private_database: Database,
) -> None:
    """From the set-up on, and after a claim as well."""
    private_database.execute("SET GLOBAL wait_timeout = 10")
    url = DatabaseUrl.parse(private_database.url)
    async with await Session.connect(url, 5.0) as session:
        for _ in range(2):
            idle = await session.query("SELECT @@global.wait_timeout, @@session.wait_timeout")
            assert idle == [(10, 28_800)]
            await session.limit_silence(True)
            await session.limit_silence(False)


async def test_rows_are_counted_as_matched(session: Session, database: Database) -> None:
    """A repeated write must count as landed."""
    database.insert_node(vcpus=3)
    assert await session.write("UPDATE compute_nodes SET vcpus = 3") == 1


async def test_notes_and_warnings_are_no_python_warnings(session: Session) -> None:
    """Warnings are errors here: one that slipped out would fail this test."""
    await session.write("CREATE TABLE IF NOT EXISTS compute_nodes (id int)")
    assert await session.query("SELECT 1 / 0") == [(None,)]


async def test_an_error_of_the_statement_leaves_the_session_usable(session: Session) -> None:
    """A duplicate key is no reason to connect again."""
    await session.write("CREATE TEMPORARY TABLE t (id int PRIMARY KEY)")
    await session.write("INSERT INTO t VALUES (1)")
    with pytest.raises(StatementError) as caught:
        await session.write("INSERT INTO t VALUES (1)")
    assert (caught.value.code, caught.value.kind) == (1062, Kind.RESOLVE)
    assert await session.query("SELECT id FROM t") == [(1,)]


async def test_a_late_answer_closes_the_session(database: Database) -> None:
    """The outcome is unknown, and the late answer can be taken for no other."""
    session = await Session.connect(DatabaseUrl.parse(database.url), 10.0)
    session._deadline_seconds = 0.2  # only now: connecting may take longer
    with pytest.raises(StatementError, match=r"no answer within 0\.2 s") as caught:
        await session.query("SELECT SLEEP(60)")
    assert (caught.value.kind, session.closed) == (Kind.CONNECTION, True)
    with pytest.raises(StatementError):
        await session.query("SELECT 1")


async def test_a_cancelled_statement_closes_the_session(session: Session) -> None:
    """For the same reason."""
    asking = asyncio.create_task(session.query("SELECT SLEEP(60)"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert session.closed


async def test_a_server_that_accepts_and_is_mute_is_given_up() -> None:
    """The driver's own timeout ends where such a server begins."""
    # The system accepts for whoever listens.
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = DatabaseUrl.parse(f"mysql://u@127.0.0.1:{mute.getsockname()[1]}/db")
        with pytest.raises(StatementError, match=r"no answer within 0\.1 s"):
            await Session.connect(url, 0.1)


def greetings() -> Iterator[bytes]:
    """What may come where a MySQL server should be: greetings cut short, other protocols, noise."""
    yield bytes.fromhex("050000000b08051a00")
    whole = b"\x0a10.11.18-MariaDB\0" + bytes(8) + b"abcdefgh\0" + b"\xff" * 7 + bytes(11)
    for length in range(len(whole)):
        yield bytes([length, 0, 0, 0]) + whole[:length]
    yield b"SSH-2.0-OpenSSH_9.2p1\r\n"
    yield b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"
    noise = random.Random(4)
    for length in range(1, 60):
        yield bytes([length, 0, 0, 0]) + noise.randbytes(length)


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """Something that listens where a server should; yields its TCP port."""
    served: list[asyncio.Task[None]] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.create_task(until_closed(reader, writer)))

    async def until_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await serve(reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*served)
        await server.wait_closed()


async def test_whatever_greets_where_a_server_should_be_is_an_outage() -> None:
    """Never a fault of ours, whatever the driver makes of it."""
    said: list[bytes] = []

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said[-1])
        await writer.drain()

    reasons = []
    async with listening(greet) as port:
        url = DatabaseUrl.parse(f"mysql://u@127.0.0.1:{port}/db")
        for greeting in greetings():
            said.append(greeting)
            with pytest.raises(StatementError) as caught:
                await Session.connect(url, 5.0)
            assert caught.value.kind is Kind.CONNECTION
            # What comes again and again is no outage: somebody must look.
            speaks = not caught.value.reason.startswith("no MySQL server answers there (")
            assert is_known(caught.value.code) is speaks
            reasons.append(caught.value.reason)
        said.append(next(greetings()))
        async with ComputeNodeWriter(f"mysql://u@127.0.0.1:{port}/db") as writer:
            writer.attach(FakeHost("n1"))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(writer.flush(), 0.1)
    assert reasons[0].startswith("no MySQL server answers there (")
    assert "\n" not in "".join(reasons)


async def test_what_says_yes_to_everything_is_no_server() -> None:
    """It greets like one, lets everybody in, and brings no rows."""
    scramble = bytes(8) + b"\0\xfe\xf7\x21\x02\0\xbf\x81\x15" + bytes(10) + b"abcdefghijkl\0"
    greeting = b"\x0a10.11.18-MariaDB\0" + bytes(4) + scramble + b"mysql_native_password\0"

    async def agree(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes([len(greeting), 0, 0, 0]) + greeting)
        while request := await reader.read(65_536):
            writer.write(bytes([7, 0, 0, request[3] + 1, 0, 0, 0, 2, 0, 0, 0]))

    async with listening(agree) as port:
        url = DatabaseUrl.parse(f"mysql://u@127.0.0.1:{port}/db")
        with pytest.raises(StatementError, match="SHOW VARIABLES brings no row") as caught:
            await Session.connect(url, 5.0)
    assert caught.value.kind is Kind.CONNECTION


async def pass_on(reader: asyncio.StreamReader, down: asyncio.StreamWriter) -> None:
    """All that a client sends, until the client closes or resets its connection."""
    try:
        while piece := await reader.read(65_536):
            down.write(piece)
    finally:
        down.close()


async def test_an_answer_that_is_none_closes_the_session(database: Database) -> None:
    """As a statement's outcome that is unknown: the server is connected to anew."""
    garbled = asyncio.Event()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up, down = await asyncio.open_unix_connection(database.server.socket)
        forward = asyncio.create_task(pass_on(reader, down))
        while piece := await up.read(65_536):
            # A success, whose number of rows is cut short.
            writer.write(b"\x07\0\0\x01\0\xfe12345" if garbled.is_set() else piece)
        down.close()
        await forward

    async with listening(relay) as port:
        name = database.server.user
        url = DatabaseUrl.parse(f"mysql://{name}@127.0.0.1:{port}/{database.name}")
        session = await Session.connect(url, 10.0)
        garbled.set()
        with pytest.raises(StatementError, match="no MySQL server answers there") as caught:
            await session.write("DO 1")
        assert (caught.value.kind, session.closed) == (Kind.CONNECTION, True)


@pytest.mark.parametrize(
    ("answer", "writes"),
    [
        ("0", True),
        ("OFF", True),
        ("PERHAPS", True),
        ("1", False),
        ("NO_LOCK", False),
        ("NO_LOCK_NO_ADMIN", False),
    ],
)
async def test_read_only_may_be_a_number_a_word_or_an_unknown_word(
    database: Database, answer: str, writes: bool
) -> None:
    """MariaDB 12 has more words than two; here something in between puts them in, since there is no
    such server. Of a word that nobody knows the server itself says with a write what it means."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up, down = await asyncio.open_unix_connection(database.server.socket)
        forward = asyncio.create_task(pass_on(reader, down))
        with suppress(asyncio.IncompleteReadError):
            while head := await up.readexactly(4):
                packet = await up.readexactly(int.from_bytes(head[:3], "little"))
                if packet == b"\x09read_only\x03OFF":
                    packet = packet[:10] + bytes([len(answer)]) + answer.encode()
                writer.write(len(packet).to_bytes(3, "little") + head[3:] + packet)
        down.close()
        await forward

    async with listening(relay) as port:
        name = database.server.user
        url = DatabaseUrl.parse(f"mysql://{name}@127.0.0.1:{port}/{database.name}")
        if writes:
            async with await Session.connect(url, 10.0) as session:
                assert await session.write("DO 1") == 0
        else:
            with pytest.raises(StatementError, match="the server is read-only") as caught:
                await Session.connect(url, 10.0)
            assert caught.value.kind is Kind.CONNECTION
            async with await Session.connect(url, 10.0, only_reads=True):
                pass


async def test_a_fault_of_our_own_surfaces(session: Session) -> None:
    """It is not taken for the server's."""
    with pytest.raises(UnicodeEncodeError):
        await session.write("SELECT '\ud800'")
    assert await session.query("SELECT 1") == [(1,)]


async def test_a_closed_port_is_a_server_that_is_down() -> None:
    """Not a refusal."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(StatementError) as caught:
            await Session.connect(DatabaseUrl.parse(f"mysql://u@127.0.0.1:{port}/db"), 30.0)
    assert (caught.value.code, caught.value.kind) == (2003, Kind.CONNECTION)
    assert "(Connection refused)" in caught.value.reason


async def test_tcp_with_a_password() -> None:
    """The whole way from a URL with host and port to the row."""
    port = free_tcp_port()
    tcp = ["--skip-networking=0", "--bind-address=127.0.0.1", f"--port={port}"]
    async with PrivateServer(arguments=tcp) as server:
        admin = Database(server, "mysql")
        admin.execute("CREATE DATABASE nova")
        grant = "GRANT ALL ON nova.* TO me@'127.0.0.1'"
        admin.make_account("me@'127.0.0.1'", grant, password="p@ss/w:rd")
        url = f"mysql://me@127.0.0.1:{port}/nova{in_the_open(server)}"
        await apply_schema(url, password="p@ss/w:rd")
        settings = WriterSettings(quiet_seconds=0, maximum_delay_seconds=0)
        async with ComputeNodeWriter(url, password="p@ss/w:rd", settings=settings) as writer:
            writer.attach(FakeHost("n1"))
            await eventually(Database(server, "nova").rows)


async def test_a_machine_that_no_account_is_for_is_told_so() -> None:
    """A refusal with its way out, and no outage."""
    async with over_tcp() as database:
        database.execute("DROP USER agent@'127.0.0.1'")
        with pytest.raises(DatabaseRefusedError) as caught:
            await Session.connect(DatabaseUrl.parse(database.url), 10.0)
    assert caught.value.code == 1130
    assert "CREATE USER 'agent'@'HOST'" in caught.value.remedy


async def test_an_accounts_name_is_not_taken_for_a_missing_package(database: Database) -> None:
    """The server repeats the name in its answer."""
    database.make_account("cryptography", password="right")
    url = DatabaseUrl.parse(database.server.url(database.name, user="cryptography"))
    with pytest.raises(DatabaseRefusedError) as caught:
        await Session.connect(url, 10.0)
    assert caught.value.code == 1045


async def test_an_abandoned_statement_leaves_no_connection(database: Database) -> None:
    """The server sees the connection end."""
    session = await Session.connect(DatabaseUrl.parse(database.url), 30.0)
    await database.only_connection()
    session.abort()
    await eventually(lambda: database.connections() == [])


@pytest.mark.parametrize("there", [False, True], ids=["no guard", "a guard"])
async def test_a_proxy_that_drops_found_rows_is_refused(database: Database, there: bool) -> None:
    """At the start where there is a guard row to see it by, else with the first claim."""
    if there:
        async with ComputeNodeWriter(database.url) as writer:
            writer.attach(FakeHost("n1"))
            await writer.flush()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up, down = await asyncio.open_unix_connection(database.server.socket)
        writer.write(await up.read(65_536))
        if login := bytearray(await reader.read(65_536)):
            login[4] &= ~CLIENT.FOUND_ROWS
            down.write(login)
        forward = asyncio.create_task(pass_on(reader, down))
        while piece := await up.read(65_536):
            writer.write(piece)
        down.close()
        await forward

    async with listening(relay) as port:
        url = f"mysql://{database.server.user}@127.0.0.1:{port}/{database.name}"
        if there:
            with pytest.raises(DatabaseRefusedError, match="CLIENT_FOUND_ROWS") as caught:
                async with ComputeNodeWriter(url):
                    pass
            assert "mysql-client_found_rows" in caught.value.remedy
            return
        with capture_logs() as logs:
            async with ComputeNodeWriter(url) as writer:
                writer.attach(FakeHost("n1"))
                await eventually(lambda: "CLIENT_FOUND_ROWS" in str(logs))
        assert database.rows() == []
