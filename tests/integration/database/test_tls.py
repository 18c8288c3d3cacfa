"""TLS: what was asked for is what there is, or there is nothing at all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio
from pymysql._auth import scramble_caching_sha2
from pymysql.constants import CLIENT
from structlog.testing import capture_logs

from asynchost.database import ComputeNodeWriter, apply_schema
from asynchost.errors import DatabaseRefusedError
from asynchost.testing import FakeHost
from tests.support.certificates import Authority
from tests.support.mariadb import MYSQL, Database, over_tcp
from tests.support.waiting import eventually


class Server(NamedTuple):
    """A server that speaks TLS, as ``127.0.0.1`` and by no other name."""

    database: Database
    authority: Authority
    client: tuple[Path, Path]
    """A certificate and its key that the authority has signed."""
    other: Authority


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """Its account asks for TLS."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder)
    certificate, key = authority.sign("server", alternative="IP:127.0.0.1")
    arguments = (f"--ssl-ca={authority.certificate}", f"--ssl-cert={certificate}")
    async with over_tcp(*arguments, f"--ssl-key={key}", requires="SSL") as database:
        known, grant = "known@'127.0.0.1'", "GRANT ALL ON nova.* TO known@'127.0.0.1'"
        database.make_account(known, grant, password="pw", more="REQUIRE X509")
        database.url = database.url.partition("?")[0]
        yield Server(database, authority, authority.sign("client"), Authority(folder, "other"))


async def refused(url: str) -> DatabaseRefusedError:
    """What the writer says to this URL."""
    with pytest.raises(DatabaseRefusedError) as caught:
        async with ComputeNodeWriter(url):
            pass
    assert ":pw" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("mode", ["", "&ssl_mode=VERIFY_CA"])
async def test_rows_are_written_over_tls(server: Server, mode: str) -> None:
    """With the server's name checked, and without."""
    url = f"{server.database.url}?ssl_ca={server.authority.certificate}{mode}"
    with capture_logs() as logs:
        async with ComputeNodeWriter(url) as writer:
            host = FakeHost(f"n{mode}")
            writer.attach(host)
            await writer.flush()
            (cipher,) = {
                row["Value"]
                for row in server.database.execute("SHOW GLOBAL STATUS LIKE 'Ssl_accepts'")
            }
    assert int(cipher) > 0
    assert [log["tls"] for log in logs if log["event"] == "database connected"] == [True]


async def test_without_a_check_any_certificate_will_do(server: Server) -> None:
    """REQUIRED means encrypted, and no more."""
    await apply_schema(f"{server.database.url}?ssl_mode=REQUIRED")


async def test_a_stranger_is_not_believed(server: Server) -> None:
    """Signed by somebody else, or made out to another name: said, with the way out."""
    url = server.database.url
    error = await refused(f"{url}?ssl_ca={server.other.certificate}")
    assert "self-signed certificate in certificate chain" in error.reason
    assert "as ssl_ca" in error.remedy
    # The system's authorities know nothing of it either.
    assert "TLS" in (await refused(f"{url}?ssl_mode=VERIFY_IDENTITY")).reason

    named = url.replace("127.0.0.1", "localhost")
    error = await refused(f"{named}?ssl_ca={server.authority.certificate}")
    assert "localhost" in error.reason
    assert "ssl_mode=VERIFY_CA" in error.remedy


async def test_an_account_may_ask_for_a_certificate(server: Server) -> None:
    """The client's own; without it the server says no."""
    url = server.database.url.replace("agent", "known")
    url = f"{url}?ssl_ca={server.authority.certificate}"
    error = await refused(url)
    assert error.code == 1045
    assert "ssl_cert" in error.remedy
    certificate, key = server.client
    await apply_schema(f"{url}&ssl_cert={certificate}&ssl_key={key}")


async def test_a_server_that_speaks_no_tls_is_refused() -> None:
    """Though it would take the account in plain text."""
    async with over_tcp("--tls-version=" if MYSQL else "--skip-ssl") as database:
        error = await refused(f"{database.url.partition('?')[0]}?ssl_mode=REQUIRED")
        assert (error.code, error.reason) == (2026, "the server does not speak TLS")
        aborted = "SHOW GLOBAL STATUS LIKE 'Aborted_connects'"
        # The server notices the end when it comes to it.
        await eventually(lambda: database.execute(aborted)[0]["Value"] == "1")
        await apply_schema(database.url)


def packet(number: int, body: bytes) -> bytes:
    """A packet of the protocol, the so-many-th of its exchange."""
    return len(body).to_bytes(3, "little") + bytes([number]) + body


def greeting(plugin: bytes) -> bytes:
    """A server's first packet, naming the plugin that it would like."""
    abilities = CLIENT.CAPABILITIES | CLIENT.PLUGIN_AUTH
    low, high = (abilities & 0xFFFF), abilities >> 16
    return packet(
        0,
        b"\x0a10.11.0\0" + bytes(4) + b"saltsalt\0" + low.to_bytes(2, "little")
        + b"\x21" + bytes(2) + high.to_bytes(2, "little") + bytes([21]) + bytes(10)
        + b"saltsaltsalt\0" + plugin + b"\0",
    )  # fmt: skip


@asynccontextmanager
async def stand_in(*answers: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Something that says these in turn, and then hangs up; yields its URL and what came."""
    came: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            writer.write(answer)
            came.append(await reader.read(4096))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        yield f"mysql://agent:hidden@127.0.0.1:{port}/nova", came


async def test_nobody_gets_the_password_in_plain_text_by_asking_for_it() -> None:
    """As somebody in between could, by a switch of the plugin."""
    switch = packet(2, b"\xfemysql_clear_password\0")
    async with stand_in(greeting(b"mysql_native_password"), switch) as (url, came):
        error = await refused(url)
        await eventually(lambda: len(came) == 2)
    assert "asks for the password in plain text" in error.reason
    assert b"agent" in came[0]
    assert came[1] == b""


async def test_nobody_gets_the_password_in_plain_text_by_greeting_with_that_wish() -> None:
    """Then not even the account's name is sent."""
    async with stand_in(greeting(b"mysql_clear_password")) as (url, came):
        error = await refused(url)
        await eventually(lambda: len(came) == 1)
    assert "asks for the password in plain text" in error.reason
    assert came == [b""]


@pytest.mark.parametrize("end", [b"", b"\0"], ids=["plain", "NUL"])
async def test_the_nul_behind_a_switchs_salt_is_no_part_of_it(end: bytes) -> None:
    """MySQL sends one, other servers none; the answer is that of the twenty bytes."""
    salt = bytes(range(1, 21))
    switch = packet(2, b"\xfecaching_sha2_password\0" + salt + end)
    answers = greeting(b"mysql_native_password"), switch
    async with stand_in(*answers) as (url, came), ComputeNodeWriter(url):
        await eventually(lambda: len(came) == 2)
    assert came[1][4:] == scramble_caching_sha2(b"hidden", salt)


async def test_the_password_is_not_encrypted_for_whoever_asks() -> None:
    """The key of somebody in between would let that one read it."""
    switch = packet(2, b"\xfecaching_sha2_password\0" + bytes(range(1, 21)) + b"\0")
    async with stand_in(greeting(b"x"), switch, packet(4, b"\x01\x04")) as (url, came):
        error = await refused(url)
        await eventually(lambda: len(came) == 3)
    assert (error.code, came[2]) == (2061, b"")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("ssl_ca={missing}", "ssl_ca {missing} cannot be used: No such file"),
        ("ssl_ca={broken}", "ssl_ca {broken} cannot be used"),
        ("ssl_mode=REQUIRED&ssl_cert={missing}", "ssl_cert {missing} cannot be used"),
        ("ssl_mode=REQUIRED&ssl_cert={broken}&ssl_key={missing}", "with ssl_key {missing} cannot"),
    ],
)
async def test_a_file_that_is_none_is_named(tmp_path: Path, options: str, named: str) -> None:
    """Before anything is connected to."""
    paths = {"missing": tmp_path / "missing", "broken": tmp_path / "broken"}
    paths["broken"].write_text("nothing of the kind\n")
    url = f"mysql://agent:pw@192.0.2.1/nova?{options.format(**paths)}"
    assert named.format(**paths) in (await refused(url)).reason
