"""TLS: what was asked for is what there is, or there is nothing at all."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio
from pymysql.constants import CLIENT
from structlog.testing import capture_logs

from asynchost.database import ComputeNodeWriter, apply_schema
from asynchost.errors import DatabaseRefusedError
from asynchost.testing import FakeHost
from tests.support.certificates import Authority
from tests.support.mariadb import Database, over_tcp
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
        database.execute("CREATE USER known@'127.0.0.1' IDENTIFIED BY 'pw' REQUIRE X509")
        database.execute("GRANT ALL ON nova.* TO known@'127.0.0.1'")
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
    async with over_tcp("--skip-ssl") as database:
        error = await refused(f"{database.url}?ssl_mode=REQUIRED")
        assert (error.code, error.reason) == (2026, "the server does not speak TLS")
        aborted = "SHOW GLOBAL STATUS LIKE 'Aborted_connects'"
        # The server notices the end when it comes to it.
        await eventually(lambda: database.execute(aborted)[0]["Value"] == "1")
        await apply_schema(database.url)


async def test_nobody_gets_the_password_in_plain_text_by_asking_for_it() -> None:
    """As somebody in between could."""
    came: list[bytes] = []

    def packet(number: int, body: bytes) -> bytes:
        return len(body).to_bytes(3, "little") + bytes([number]) + body

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        abilities = CLIENT.CAPABILITIES | CLIENT.PLUGIN_AUTH
        low, high = (abilities & 0xFFFF), abilities >> 16
        writer.write(
            packet(
                0,
                b"\x0a10.11.0\0" + bytes(4) + b"saltsalt\0" + low.to_bytes(2, "little")
                + b"\x21" + bytes(2) + high.to_bytes(2, "little") + bytes([21]) + bytes(10)
                + b"saltsaltsalt\0mysql_native_password\0",
            )
        )  # fmt: skip
        came.append(await reader.read(4096))
        writer.write(packet(2, b"\xfemysql_clear_password\0"))
        came.append(await reader.read(4096))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        error = await refused(f"mysql://agent:hidden@127.0.0.1:{port}/nova")
        await eventually(lambda: len(came) == 2)
    assert "asks for the password in plain text" in error.reason
    assert b"agent" in came[0]
    assert came[1] == b""


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
