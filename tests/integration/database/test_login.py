"""Logging in to MySQL: by each of its plugins, each way, and what is said where it cannot be."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from asynchost.database import ComputeNodeWriter, apply_schema
from asynchost.database.checkup import reach
from asynchost.errors import DatabaseRefusedError
from tests.support.libvirtd_settings import free_tcp_port
from tests.support.mariadb import MYSQL, Database, PrivateServer
from tests.support.mysql import PrivateMySQL

pytestmark = pytest.mark.skipif(not MYSQL, reason="MariaDB has none of MySQL's login plugins")
LONG = "ä'\\ 😀" + "x" * 190


class Places:
    """A MySQL server, and the ways to it."""

    def __init__(self, database: Database, port: int) -> None:
        server = database.server
        assert isinstance(server, PrivateMySQL)
        self.database = database
        self.tcp = f"mysql://agent@127.0.0.1:{port}/nova"
        self.socket = server.url("nova", user="agent")
        self.key = server.public_key
        self.authority = server.folder / "data" / "ca.pem"

    def account(self, password: str, plugin: str = "caching_sha2_password", more: str = "") -> None:
        """Make the account anew, so that the server remembers no login of it."""
        with self.database.connect() as connection, connection.cursor() as cursor:
            cursor.execute("DROP USER IF EXISTS agent")
            cursor.execute(f"CREATE USER agent IDENTIFIED WITH {plugin} BY %s {more}", (password,))
            cursor.execute("GRANT ALL ON nova.* TO agent")


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["", "sha256_password"])
async def places(request: pytest.FixtureRequest) -> AsyncIterator[Places]:
    """Also a server that greets with another plugin than the account's, and so switches."""
    port = free_tcp_port()
    arguments = ["--skip-networking=OFF", "--bind-address=127.0.0.1", f"--port={port}"]
    if request.param:
        arguments.append(f"--authentication-policy={request.param}")
    async with PrivateServer(arguments=arguments) as server:
        Database(server, "mysql").execute("CREATE DATABASE nova")
        database = Database(server, "nova")
        await apply_schema(database.url)
        yield Places(database, port)


WAYS: dict[str, Callable[[Places], str]] = {
    "socket": lambda places: places.socket,
    "tls": lambda places: f"{places.tcp}?ssl_ca={places.authority}&ssl_mode=VERIFY_CA",
    "key": lambda places: f"{places.tcp}?server_public_key={places.key}",
    "fetched key": lambda places: f"{places.tcp}?fetch_server_public_key=1",
}


@pytest.mark.parametrize("plugin", ["caching_sha2_password", "sha256_password"])
@pytest.mark.parametrize("password", ["", "pw", LONG], ids=["empty", "short", "long"])
@pytest.mark.parametrize("way", WAYS)
async def test_an_account_of_mysqls_logs_in(
    places: Places, way: str, password: str, plugin: str
) -> None:
    """The first time, when the server wants the password itself, and again from its memory."""
    places.account(password, plugin)
    for _ in range(2):
        server = await reach(WAYS[way](places), password=password)
        assert server.account == "agent@%"


@pytest.mark.parametrize("plugin", ["caching_sha2_password", "sha256_password"])
async def test_without_tls_and_key_tls_is_named_first(places: Places, plugin: str) -> None:
    """Then the key's two options; the password is not sent."""
    places.account("pw", plugin)
    error = await refused(places.tcp, "pw")
    assert error.code == 2061
    remedy = error.remedy
    assert remedy.index("?ssl_ca=") < remedy.index("?server_public_key=FILE")
    assert remedy.index("?server_public_key=FILE") < remedy.index("?fetch_server_public_key=1")
    # Whatever somebody else's login has left in the server's memory.
    await reach(WAYS["tls"](places), password="pw")


async def test_a_password_too_long_for_the_key_is_told(places: Places) -> None:
    """It is right, and TLS takes it."""
    places.account("p" * 250)
    error = await refused(WAYS["key"](places), "p" * 250)
    assert "too short for a password of 250 bytes" in error.reason
    assert error.remedy.startswith("connect with TLS")
    await reach(WAYS["tls"](places), password="p" * 250)


async def test_a_key_that_is_none_is_named(places: Places, tmp_path: Path) -> None:
    """A missing file, and one that holds something else."""
    places.account("pw")
    error = await refused(f"{places.tcp}?server_public_key={tmp_path}/missing", "pw")
    assert f"server_public_key {tmp_path}/missing cannot be used" in error.reason
    error = await refused(f"{places.tcp}?server_public_key=/a%00b", "pw")
    assert "cannot be used: embedded null byte" in error.reason
    (tmp_path / "other").write_text("no key\n")
    private, elliptic = tmp_path / "private", tmp_path / "elliptic"
    for command in (
        ("ecparam", "-genkey", "-noout", "-name", "prime256v1", "-out", private),
        ("ec", "-in", private, "-pubout", "-out", elliptic),
    ):
        arguments = ["openssl", *map(str, command)]
        await asyncio.to_thread(subprocess.run, arguments, check=True, capture_output=True)
    for path in (tmp_path / "other", elliptic):
        error = await refused(f"{places.tcp}?server_public_key={path}", "pw")
        assert "the server's public key is no RSA key" in error.reason


@pytest.mark.parametrize(
    ("more", "code", "remedy"),
    [
        ("ACCOUNT LOCK", 3118, "ALTER USER 'agent'@'HOST' ACCOUNT UNLOCK"),
        ("PASSWORD EXPIRE", 1862, "IDENTIFIED BY 'PASSWORD'"),
        ("REQUIRE X509", 1045, "ssl_cert"),
    ],
)
async def test_an_account_that_may_not_in_says_what_mends_it(
    places: Places, more: str, code: int, remedy: str
) -> None:
    """A refusal, told at once with its statement, and not an outage."""
    places.account("pw", more=more)
    error = await refused(places.socket, "pw")
    assert error.code == code
    assert remedy in error.remedy


async def test_an_account_that_was_blocked_by_wrong_passwords_says_so(places: Places) -> None:
    """The right one does not help it any more."""
    places.account("pw", more="FAILED_LOGIN_ATTEMPTS 1 PASSWORD_LOCK_TIME 1")
    await refused(places.socket, "wr0ng")
    error = await refused(places.socket, "pw")
    assert error.code == 3955
    assert "ACCOUNT UNLOCK" in error.remedy


async def test_a_server_that_insists_on_tls_says_how(places: Places) -> None:
    """The account's password has nothing to do with it."""
    places.account("pw")
    places.database.execute("SET GLOBAL require_secure_transport = 1")
    try:
        error = await refused(WAYS["key"](places), "pw")
    finally:
        places.database.execute("SET GLOBAL require_secure_transport = 0")
    assert error.code == 3159
    assert "?ssl_ca=FILE" in error.remedy


async def test_a_missing_package_is_named(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra that brings it, and the ways that do without it."""
    places.account("pw")
    # As PyMySQL finds out.
    monkeypatch.setattr(sys.modules["pymysql._auth"], "_have_cryptography", False)
    error = await refused(WAYS["key"](places), "pw")
    assert "cryptography" in error.reason
    assert "asynchost[mysql-auth]" in error.remedy
    await reach(WAYS["tls"](places), password="pw")


async def refused(url: str, password: str) -> DatabaseRefusedError:
    """How a writer is refused, in one line that does not hold the password."""
    with pytest.raises(DatabaseRefusedError) as caught:
        async with ComputeNodeWriter(url, password=password):
            pass
    assert password not in str(caught.value).replace("_password", "")
    assert "\n" not in str(caught.value)
    assert "mysql_native_password" not in str(caught.value)
    return caught.value
