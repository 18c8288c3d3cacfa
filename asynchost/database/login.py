"""Logging in: aiomysql's connection, with what aiomysql leaves out.

May live here: what is sent of an account, and to whom. Must not: what is sent afterwards.

Nothing of a password leaves in plain text but through TLS or a unix socket. MySQL's own plugins
would otherwise take it encrypted with the server's public key; that key comes from a file, or, only
where the user asked for it, from the server that answers.
"""

import os
import stat
from typing import Any

import pymysql
from pymysql import _auth
from pymysql.constants import CLIENT

from asynchost.database.driver import aiomysql
from asynchost.errors import DatabaseRefusedError

NO_TLS, NO_PLUGIN, NO_KEY = 2026, 2059, 2061
"""The codes that MySQL's own client gives: no TLS, an unusable plugin, and a plugin's refusal."""
_SALT_BYTES = 20
_CLEAR = "mysql_clear_password"


class LoginConnection(aiomysql.Connection):  # type: ignore[misc]  # it has no types
    """One connection; ``fetches_key`` allows to ask the server itself for its public key."""

    def __init__(self, *, fetches_key: bool, public_key: bytes | None, **others: Any) -> None:
        super().__init__(server_public_key=public_key, **others)
        self._fetches_key = fetches_key

    async def _request_authentication(self) -> None:
        # Before anything of the account is sent. aiomysql would go on in plain text.
        if self._ssl_context and not self.server_capabilities & CLIENT.SSL:
            raise pymysql.err.OperationalError(NO_TLS, "the server does not speak TLS")
        self._refuse_clear(self._server_auth_plugin)
        await super()._request_authentication()

    async def _process_auth(self, plugin_name: bytes, auth_packet: Any) -> None:
        self._refuse_clear(plugin_name.decode("ascii", "replace"))
        await super()._process_auth(plugin_name, auth_packet)

    async def caching_sha2_password_auth(self, pkt: Any) -> None:
        """Log in by the server's memory of an earlier login; else with the password itself."""
        password = self._sent_password
        if not password:
            self.write_packet(b"")
            await self._accepted()
            return
        if pkt.is_auth_switch_request():
            self._take_salt(pkt)
            self.write_packet(_auth.scramble_caching_sha2(password, self.salt))
            pkt = await self._read_packet()
            pkt.check_error()
        # 3: known from an earlier login; 4: the password itself is wanted.
        answer = pkt.get_all_data()[1:2] if pkt.is_extra_auth_data() else b""
        if answer == b"\x03":
            await self._accepted()
        elif answer == b"\x04":
            await self._send_password(is_trusted=self._secure, request_for_key=b"\x02")
        else:
            raise pymysql.err.OperationalError(NO_KEY, "the login was answered by something else")

    async def sha256_password_auth(self, pkt: Any) -> None:
        """Log in with the password itself, which this plugin takes in plain text by TLS only."""
        if pkt.is_auth_switch_request():
            self._take_salt(pkt)
        elif pkt.is_extra_auth_data() and self._may_fetch:
            # The greeting named this plugin, so aiomysql has asked for the key already.
            key = bytes(pkt.get_all_data()[1:])
            self.server_public_key: bytes | None = self.server_public_key or key
        if not self._sent_password:
            self.write_packet(b"")
            await self._accepted()
            return
        await self._send_password(is_trusted=bool(self._ssl_context), request_for_key=b"\x01")

    async def _send_password(self, *, is_trusted: bool, request_for_key: bytes) -> None:
        password = self._sent_password
        if is_trusted:
            self.write_packet(password + b"\0")
        else:
            key = self.server_public_key or await self._fetch_key(request_for_key)
            self.write_packet(self._encrypted(password, key))
        await self._accepted()

    async def _fetch_key(self, request: bytes) -> bytes:
        if not self._may_fetch:
            raise pymysql.err.OperationalError(
                NO_KEY, "without TLS the password is sent only with the server's public key"
            )
        self.write_packet(request)
        packet = await self._read_packet()
        packet.check_error()
        return bytes(packet.get_all_data()[1:])

    def _encrypted(self, password: bytes, key: bytes) -> bytes:
        try:
            return bytes(_auth.sha2_rsa_encrypt(password, self.salt, key))
        except (AttributeError, TypeError, ValueError) as error:
            # cryptography's texts are for programmers. A key of another kind than RSA's encrypts
            # nothing, and does not know the method.
            raise pymysql.err.OperationalError(
                NO_KEY,
                f"the server's public key is no RSA key, or is too short for a password of"
                f" {len(password)} bytes",
            ) from error

    async def _accepted(self) -> None:
        packet = await self._read_packet()
        packet.check_error()

    def _take_salt(self, packet: Any) -> None:
        packet_salt = bytes(packet.read_all())
        # MySQL ends it with a NUL, which is no part of it.
        self.salt = packet_salt[:_SALT_BYTES]

    def _refuse_clear(self, plugin: str) -> None:
        """Somebody in between could ask for the password in plain text."""
        if plugin == _CLEAR and not (self._ssl_context or self._unix_socket):
            raise pymysql.err.OperationalError(
                NO_PLUGIN, "the server asks for the password in plain text"
            )

    @property
    def _may_fetch(self) -> bool:
        # Nobody sits in between on a unix socket.
        return self._fetches_key or bool(self._unix_socket)

    @property
    def _sent_password(self) -> bytes:
        return bytes(self._password.encode("latin1"))


def _content(path: str) -> bytes:
    # Looked at before it is opened: opening a pipe could wait for ever.
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - the path is a text from the URL
        raise ValueError("it is no regular file")
    with open(path, "rb") as file:  # noqa: PTH123 - the path is a text from the URL
        return file.read(65_536)


def read_key(database: str, path: str | None) -> bytes | None:
    """The server's public key from its file, read anew for each connection.

    :raises DatabaseRefusedError: the file cannot be read; it is named.
    """
    if path is None:
        return None
    try:
        return _content(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DatabaseRefusedError(
            database,
            None,
            f"server_public_key {path} cannot be used: {reason}",
            "give the server's public_key.pem in a file that this user can read",
        ) from None
