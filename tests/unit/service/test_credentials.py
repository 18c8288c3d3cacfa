"""Where the password comes from, and that no error ever shows it."""

import os
from pathlib import Path

import pytest

from asynchost.errors import ConfigurationError
from asynchost.service.credentials import database_credentials

URL = "mysql://nova@db:3306/nova"
SECRET = "s3cret"
FILE_RULE = "is not usable: the file must hold one line of text, the password"


def test_the_url_of_the_command_line_comes_before_the_environments() -> None:
    """The nearer word wins."""
    found = database_credentials(URL, None, {"ASYNCHOST_DATABASE": "mysql://x@y/z"})
    assert (found.url, found.password) == (URL, None)


def test_a_url_of_the_environment_may_hold_a_password() -> None:
    """The environment is not shown to other users."""
    url = f"mysql://nova:{SECRET}@db/nova"
    found = database_credentials(None, None, {"ASYNCHOST_DATABASE": url})
    assert (found.url, found.password) == (url, None)
    assert SECRET not in repr(found)


@pytest.mark.parametrize("content", [SECRET, f"{SECRET}\n", f"{SECRET}\r\n"])
def test_a_password_file_is_read_without_its_line_end(tmp_path: Path, content: str) -> None:
    """Editors end a file with a line end; it is no part of the password."""
    path = tmp_path / "password"
    path.write_bytes(content.encode())
    found = database_credentials(URL, str(path), {"ASYNCHOST_DATABASE_PASSWORD": "another"})
    assert found.password == SECRET
    assert SECRET not in repr(found)


def test_a_password_from_a_pipe_is_read_once() -> None:
    """A pipe, as a shell makes it of `<(command)`, is empty after its first reading."""
    reading, writing = os.pipe()
    try:
        os.write(writing, SECRET.encode())
        os.close(writing)
        found = database_credentials(URL, f"/dev/fd/{reading}", {})
    finally:
        os.close(reading)
    assert found.secret == SECRET


def test_a_password_keeps_its_spaces(tmp_path: Path) -> None:
    """Only the line end is taken off: a password may begin or end with a space."""
    path = tmp_path / "password"
    path.write_text(" p w \n")
    assert database_credentials(URL, str(path), {}).password == " p w "


def test_a_password_comes_from_the_environment() -> None:
    """Its variable is used with a URL from either place; an empty one counts as not set."""
    assert (
        database_credentials(URL, None, {"ASYNCHOST_DATABASE_PASSWORD": SECRET}).password == SECRET
    )
    assert database_credentials(URL, None, {"ASYNCHOST_DATABASE_PASSWORD": ""}).password is None


def test_a_password_comes_from_a_systemd_credential(tmp_path: Path) -> None:
    """It outranks the environment, and the option outranks it."""
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path), "ASYNCHOST_DATABASE_PASSWORD": "another"}
    assert database_credentials(URL, None, environment).password == "another"
    (tmp_path / "database-password").write_text(f"{SECRET}\n")
    assert database_credentials(URL, None, environment).password == SECRET
    path = tmp_path / "given"
    path.write_text("given")
    assert database_credentials(URL, str(path), environment).password == "given"


def test_a_systemd_credential_that_holds_no_password_is_named(tmp_path: Path) -> None:
    """And so is the file."""
    path = tmp_path / "database-password"
    path.write_text("")
    with pytest.raises(ConfigurationError) as caught:
        database_credentials(URL, None, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert "the credential database-password" in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_url_is_refused() -> None:
    """An empty variable is as good as none."""
    for environment in ({}, {"ASYNCHOST_DATABASE": ""}):
        with pytest.raises(ConfigurationError) as caught:
            database_credentials(None, None, environment)
        assert str(caught.value) == (
            "--database is missing: give mysql://user@host:port/database, or set ASYNCHOST_DATABASE"
        )


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://nova:{SECRET}@db/nova",
        f"mysql://nova:p/{SECRET}@db/nova",
        f"mysql://nova:p#{SECRET}@db/nova",
        f"mysql://nova:p?{SECRET}@db/nova",
        f"mysql://nova:p@{SECRET}@db/nova",
        f"mysql://:{SECRET}@db/nova",
        f"mysql://nova@db/nova?password={SECRET}",
        f"postgresql://nova:{SECRET}@db/nova",
        f"mysql://nova:{SECRET}",
    ],
)
def test_a_password_on_the_command_line_is_refused_and_never_shown(url: str) -> None:
    """Every user of the machine can read it there, so it must not become a habit."""
    with pytest.raises(ConfigurationError) as caught:
        database_credentials(url, None, {})
    text = str(caught.value)
    assert text.startswith("--database: ")
    assert SECRET not in text
    assert "ASYNCHOST_DATABASE" in text
    assert "--database-password-file" in text


@pytest.mark.parametrize("scheme", ["postgresql", "sqlite", "mysqll"])
def test_an_unknown_scheme_is_refused(scheme: str) -> None:
    """The text names the value and what to write instead."""
    with pytest.raises(ConfigurationError) as caught:
        database_credentials(f"{scheme}://nova@db/nova", None, {})
    assert f"{scheme}://nova@db/nova" in str(caught.value)
    assert "give mysql://user@host:port/database" in str(caught.value)


def test_two_passwords_are_refused(tmp_path: Path) -> None:
    """Which of two was meant cannot be known."""
    path = tmp_path / "password"
    path.write_text("one")
    environment = {"ASYNCHOST_DATABASE": f"mysql://nova:{SECRET}@db/nova"}
    with pytest.raises(ConfigurationError) as caught:
        database_credentials(None, str(path), environment)
    assert str(caught.value) == (
        "there are two passwords, one in ASYNCHOST_DATABASE and one from "
        "--database-password-file: give one"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", FILE_RULE),
        (b"\n", FILE_RULE),
        (b"one\ntwo\n", FILE_RULE),
        (b"\xff\xfe", FILE_RULE),
        (b"a\0b", FILE_RULE),
        (b"x" * 5000, FILE_RULE),
        (None, "is not usable: No such file or directory; give a file that this user can read"),
    ],
)
def test_password_file_refusals_name_the_file_and_not_its_content(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    """A file that holds no password is named."""
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        database_credentials(URL, str(path), {})
    assert str(caught.value) == f"--database-password-file: {str(path)!r} {reason}"


def test_a_password_file_that_is_a_folder_or_no_path_is_refused(tmp_path: Path) -> None:
    """Whatever the operating system says becomes one sentence."""
    with pytest.raises(ConfigurationError, match="Is a directory; give a file"):
        database_credentials(URL, str(tmp_path), {})
    with pytest.raises(ConfigurationError, match="give a file that this user can read"):
        database_credentials(URL, "a\0b", {})
