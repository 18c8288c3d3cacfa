"""Where the database is and with which password, without ever showing the password.

Every user of a machine can read every command line on it, so a password is taken from a file,
from a systemd credential or from the environment only. No error text here repeats a password or
a file's content.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from asynchost.database.url import DatabaseUrl, holds_password
from asynchost.errors import ConfigurationError, InvalidSettingError
from asynchost.masking import masked
from asynchost.service.config_files import open_to_all
from asynchost.service.declared import CREDENTIAL, PASSWORD_VARIABLE, SETTINGS
from asynchost.service.mistakes import Given

URL_VARIABLE = SETTINGS["database"].variable
CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"
"""Where systemd puts what a unit's ``LoadCredential=`` names."""
PASSWORD_OPTION = SETTINGS["database-password-file"].option
PASSWORD_FILE_VARIABLE = SETTINGS["database-password-file"].variable

_OF_SYSTEMD = (
    "systemd passes a changed credential on with a restart only: systemctl restart asynchost"
)
_LONGEST_PASSWORD_FILE = 4096
"""Bytes; a file that holds more was not meant."""


@dataclass(frozen=True, slots=True)
class DatabaseCredentials:
    """A database and the way in. Its representation shows neither URL nor password."""

    url: str = field(repr=False)
    password: str | None = field(repr=False, default=None)
    """None: the URL holds one, or the account needs none."""
    file: "PasswordFile | None" = field(repr=False, default=None, compare=False)
    """Where the password is read again before each connection; None: it does not change."""

    @property
    def secret(self) -> "str | PasswordFile | None":
        """What a writer takes: the file, else the password."""
        return self.file or self.password


@dataclass(frozen=True, slots=True)
class PasswordFile:
    """A file whose password is read anew by each call."""

    source: str
    path: str
    hint: str = ""
    """Text that is added to the error where the server refuses the password."""

    def __call__(self) -> str:
        """The password as the file holds it now.

        Raises :class:`InvalidSettingError` for a file that cannot be read or does not hold one
        line.
        """
        return _read_password(self.source, self.path)


def database_credentials(
    url: str | None,
    password_file: str | None,
    environment: Mapping[str, str],
    of_files: Mapping[str, Sequence[Given]] = MappingProxyType({}),
) -> DatabaseCredentials:
    """Put together what the command line, the environment and the configuration files say.

    The URL comes from the command line, else from ``ASYNCHOST_DATABASE``, else from the files. It
    may hold a password in the environment, and in a file that not every user can read. A password
    comes from the option's file, else from the systemd credential ``database-password``, else from
    ``ASYNCHOST_DATABASE_PASSWORD``, else from the file that ``ASYNCHOST_DATABASE_PASSWORD_FILE``
    names, else from the one that a configuration file names. An empty variable counts as not set.

    Raises :class:`ConfigurationError` if there is no URL or if there are two passwords, and
    :class:`InvalidSettingError` for a malformed URL, for a password where every user can read it,
    and for a password file that cannot be read or does not hold one line.
    """
    chosen, source = _url(url, environment, of_files)
    try:
        parsed = DatabaseUrl.parse(chosen)
    except InvalidSettingError as error:
        if source not in _of(of_files, "database"):
            raise
        raise InvalidSettingError(source, error.value, error.expected) from None
    found, giver = _password(password_file, environment, of_files)
    # What can be read once only, as the pipe of `<(command)` in a shell, is not read again.
    again = isinstance(found, PasswordFile) and os.path.isfile(found.path)  # noqa: PTH113 - a text
    file = found if isinstance(found, PasswordFile) and again else None
    password = found() if isinstance(found, PasswordFile) else found
    if password is not None and parsed.password is not None:
        raise ConfigurationError(
            f"there are two passwords, one in {source} and one from {giver}: give one"
        )
    return DatabaseCredentials(chosen, password, file)


def _url(
    url: str | None, environment: Mapping[str, str], of_files: Mapping[str, Sequence[Given]]
) -> tuple[str, str]:
    """The URL, and where it comes from."""
    if url is not None:
        if holds_password(url):
            raise InvalidSettingError(
                "--database",
                masked(url),
                "it holds a password, and every user of this machine can read a command line; "
                f"put the URL into the environment variable {URL_VARIABLE}, "
                f"or the password into a file for {PASSWORD_OPTION}",
            )
        return url, "--database"
    if chosen := environment.get(URL_VARIABLE):
        return chosen, URL_VARIABLE
    for given in of_files.get("database", ()):
        chosen = str(given.text)
        file = Path(given.where.rpartition(": ")[0].rpartition(":")[0])
        if holds_password(chosen) and open_to_all(file):
            raise InvalidSettingError(
                given.where,
                masked(chosen),
                "it holds a password, and every user of this machine can read the file; chmod o-r"
                " the file, or put the password into one for database-password-file",
            )
        return chosen, given.where
    raise ConfigurationError(
        f"--database is missing: give mysql://user@host:port/database, or set {URL_VARIABLE}"
    )


def _password(
    password_file: str | None,
    environment: Mapping[str, str],
    of_files: Mapping[str, Sequence[Given]],
) -> tuple[str | PasswordFile | None, str]:
    """The password or its file, and where it comes from."""
    if password_file is not None:
        return PasswordFile(PASSWORD_OPTION, password_file), PASSWORD_OPTION
    if (credential := _credential(environment)) is not None:
        source = f"the credential {CREDENTIAL}"
        return PasswordFile(source, str(credential), _OF_SYSTEMD), source
    if password := environment.get(PASSWORD_VARIABLE):
        return password, PASSWORD_VARIABLE
    if file := environment.get(PASSWORD_FILE_VARIABLE):
        return PasswordFile(PASSWORD_FILE_VARIABLE, file), PASSWORD_FILE_VARIABLE
    for given in of_files.get("database-password-file", ()):
        return PasswordFile(given.where, str(given.text)), given.where
    return None, PASSWORD_VARIABLE


def _of(of_files: Mapping[str, Sequence[Given]], name: str) -> list[str]:
    return [given.where for given in of_files.get(name, ())]


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
