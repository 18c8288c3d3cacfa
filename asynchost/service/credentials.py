"""Where the database is and with which password, without ever showing the password.

Every user of a machine can read every command line on it, so a password is taken from a file,
from a systemd credential or from the environment only. No error text here repeats a password or
a file's content.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from asynchost.database.url import DatabaseUrl, holds_password, masked
from asynchost.errors import ConfigurationError, InvalidSettingError

URL_VARIABLE = "ASYNCHOST_DATABASE"
PASSWORD_VARIABLE = "ASYNCHOST_DATABASE_PASSWORD"  # noqa: S105 - a variable's name
CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"
"""Where systemd puts what a unit's ``LoadCredential=`` names."""
CREDENTIAL = "database-password"
PASSWORD_OPTION = "--database-password-file"  # noqa: S105 - an option's name

_LONGEST_PASSWORD_FILE = 4096
"""Bytes; a file that holds more was not meant."""


@dataclass(frozen=True, slots=True)
class DatabaseCredentials:
    """A database and the way in. Its representation shows neither URL nor password."""

    url: str = field(repr=False)
    password: str | None = field(repr=False, default=None)
    """None: the URL holds one, or the account needs none."""


def database_credentials(
    url: str | None, password_file: str | None, environment: Mapping[str, str]
) -> DatabaseCredentials:
    """Put together what the command line and the environment say.

    The URL comes from the command line, else from ``ASYNCHOST_DATABASE``, where it may hold a
    password. A password comes from the file, else from the systemd credential
    ``database-password``, else from ``ASYNCHOST_DATABASE_PASSWORD``. An empty variable counts as
    not set.

    Raises :class:`ConfigurationError` if there is no URL or if there are two passwords, and
    :class:`InvalidSettingError` for a malformed URL, for a password on the command line and for
    a file that cannot be read or does not hold one line.
    """
    if url is not None and holds_password(url):
        raise InvalidSettingError(
            "--database",
            masked(url),
            "it holds a password, and every user of this machine can read a command line; "
            f"put the URL into the environment variable {URL_VARIABLE}, "
            f"or the password into a file for {PASSWORD_OPTION}",
        )
    chosen = url if url is not None else environment.get(URL_VARIABLE)
    if not chosen:
        raise ConfigurationError(
            f"--database is missing: give mysql://user@host:port/database, or set {URL_VARIABLE}"
        )
    parsed = DatabaseUrl.parse(chosen)
    password, source = environment.get(PASSWORD_VARIABLE) or None, PASSWORD_VARIABLE
    credential = _credential(environment)
    if password_file is not None:
        password, source = _read_password(PASSWORD_OPTION, password_file), PASSWORD_OPTION
    elif credential is not None:
        source = f"the credential {CREDENTIAL}"
        password = _read_password(source, str(credential))
    if password is not None and parsed.password is not None:
        raise ConfigurationError(
            f"there are two passwords, one in {URL_VARIABLE} and one from {source}: give one"
        )
    return DatabaseCredentials(chosen, password)


def _credential(environment: Mapping[str, str]) -> Path | None:
    folder = environment.get(CREDENTIALS_VARIABLE)
    if not folder:
        return None
    path = Path(folder) / CREDENTIAL
    try:
        is_there = path.exists()
    except OSError:  # it cannot be seen; reading it says why
        is_there = True
    return path if is_there else None


def _read_password(source: str, path: str) -> str:
    """The file's text without the line end that editors add."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(_LONGEST_PASSWORD_FILE + 1)
    except (OSError, ValueError) as error:
        # ValueError is what a path with a zero byte raises.
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidSettingError(
            source, path, f"{reason}; give a file that this user can read"
        ) from None
    try:
        password = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        password = ""
    if not password or not password.isprintable() or len(content) > _LONGEST_PASSWORD_FILE:
        raise InvalidSettingError(source, path, "the file must hold one line of text, the password")
    return password
