"""What a refusal of the database means to the person who must mend it.

Pure text: a code and what the server said in, one error with its way out. The statement that
would mend it is part of the text wherever there is one.
"""

from asynchost.database import schema
from asynchost.database.url import DatabaseUrl
from asynchost.errors import DatabaseRefusedError

_APPLY = "asynchost schema --apply --database URL (as an account that may create tables)"


def refusal(
    url: DatabaseUrl, code: int | None, reason: str, remedy: str | None = None
) -> DatabaseRefusedError:
    """The error for a server's refusal with ``code``; None finds the remedy by it."""
    return DatabaseRefusedError(str(url), code, reason, remedy or _remedy(url, code))


def _remedy(url: DatabaseUrl, code: int | None) -> str:
    database = f"CREATE DATABASE {schema.quoted(url.database)}"
    alter = f"ALTER USER {url.user!r}@'HOST'"
    key = f"whether server_public_key {url.server_public_key} is this server's, "
    remedies = {
        (1045, 1698): f"check the password, {key if url.server_public_key else ''}whether"
        f" {url.user!r} may come from this machine, and whether the account asks for TLS or a"
        " client's certificate (ssl_mode, ssl_cert)",
        (1130,): f"make an account that may come from this machine: CREATE USER {url.user!r}@'HOST'"
        " IDENTIFIED BY 'PASSWORD'",
        (2000,): "check host and port: another protocol may be spoken there",
        (2026,): "turn TLS on in the server, or take the ssl_ options out of the URL",
        (1227, 1370): f"the account lacks rights: {grants(url)}",
        (1049,): f"create it: {database}",
        # An account that may see nothing is not told whether there is something.
        (1044,): f"create the database if it is missing: {database}; then {grants(url)}",
        (1142, 1143): f"create the tables if they are missing: {_APPLY}; then {grants(url)}",
        (1146,): f"create the tables: {_APPLY}; then {grants(url)}",
        (1364,): "give that column a default, or the account the right to INSERT into it",
        (1665,): "set binlog_format to MIXED or ROW",
        (1251, 1524, 2059): f"give the account a plugin that server and agent know: {alter}"
        " IDENTIFIED BY 'PASSWORD'",
        (2061,): "connect with TLS (?ssl_ca=FILE) or by unix_socket; or give the server's"
        " public_key.pem (?server_public_key=FILE), or on a network where nobody can sit in"
        " between ?fetch_server_public_key=1",
        (1820, 1862): f"the account needs a new password: {alter} IDENTIFIED BY 'PASSWORD', or one"
        f" that does not run out: {alter} PASSWORD EXPIRE NEVER",
        (3118, 4151): f"unlock it: {alter} ACCOUNT UNLOCK",
        (4150,): "check the password, since a wrong one came too often; then FLUSH PRIVILEGES",
        (3955,): f"check the password, since a wrong one came too often; then {alter} ACCOUNT"
        " UNLOCK",
        (3159,): "connect with TLS: ?ssl_ca=FILE, or ?ssl_mode=REQUIRED to check no certificate; or"
        " by unix_socket",
    }
    for codes, remedy in remedies.items():
        if code in codes:
            return remedy
    return "ask the server's administrator"


def creation(table: str) -> str:
    """The two ways to create one of the two tables, in one line."""
    return f"{_APPLY}, or {schema.one_line(schema.ddl(table))}"


def grants(url: DatabaseUrl, account: str | None = None) -> str:
    """The GRANTs of a least-privilege account, in one line."""
    return "; ".join(schema.grant_statements(url.database, account or f"'{url.user}'@'%'"))
