"""Refusals: each code with a way out that names the thing."""

import pytest

from asynchost.database.refusal import refusal
from asynchost.database.url import DatabaseUrl

URL = DatabaseUrl.parse("mysql://me:secret@db/nova")


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (1045, "check the password, whether 'me' may come from this machine"),
        (1698, "check the password"),
        (2000, "check host and port"),
        (1044, "create the database if it is missing: CREATE DATABASE `nova`; then GRANT SELECT"),
        (1142, "create the tables if they are missing: asynchost schema --apply"),
        (1142, "(as an account that may create tables); then GRANT SELECT"),
        (1143, "; then GRANT SELECT"),
        (1227, "the account lacks rights: GRANT SELECT"),
        (1049, "CREATE DATABASE `nova`"),
        (1146, "create the tables: asynchost schema --apply"),
        (1146, "; then GRANT SELECT"),
        (1665, "binlog_format"),
        (2059, "ALTER USER 'me'@'HOST' IDENTIFIED BY 'PASSWORD'"),
        (1524, "ALTER USER 'me'@'HOST' IDENTIFIED BY 'PASSWORD'"),
        (2061, "connect with TLS (?ssl_ca=FILE)"),
        (2061, "?server_public_key=FILE"),
        (2061, "?fetch_server_public_key=1"),
        (3118, "ALTER USER 'me'@'HOST' ACCOUNT UNLOCK"),
        (4151, "ALTER USER 'me'@'HOST' ACCOUNT UNLOCK"),
        (3955, "check the password"),
        (4150, "FLUSH PRIVILEGES"),
        (1130, "CREATE USER 'me'@'HOST'"),
        (1862, "PASSWORD EXPIRE NEVER"),
        (1820, "PASSWORD EXPIRE NEVER"),
        (3159, "?ssl_ca=FILE"),
        (1064, "ask the server's administrator"),
        (None, "ask the server's administrator"),
    ],
)
def test_a_refusal_says_what_to_do(code: int | None, remedy: str) -> None:
    """In one line, and without the password."""
    error = refusal(URL, code, "because")
    assert remedy in error.remedy
    assert str(error).startswith("database mysql://me@db/nova: because")
    assert "secret" not in str(error)
    assert "\n" not in str(error)
    assert "mysql_native_password" not in str(error), "MySQL 9 has no such plugin"


def test_a_key_that_was_given_may_be_another_servers() -> None:
    """The server answers as to a wrong password."""
    url = DatabaseUrl.parse("mysql://me@db/nova?server_public_key=/etc/key.pem")
    assert (
        "whether server_public_key /etc/key.pem is this server's" in refusal(url, 1045, "x").remedy
    )
    assert "server_public_key" not in refusal(URL, 1045, "because").remedy
