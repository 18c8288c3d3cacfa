"""The command line as far as it goes without a server: every refusal is one line."""

import os
import sys

import pytest

import asynchost
from asynchost.service.__main__ import run

RUN = ["run", "--connect", "test:///default", "--database", "mysql://nova@db/nova"]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of whoever runs the tests decides anything."""
    for name in [name for name in os.environ if name.startswith("ASYNCHOST")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ASYNCHOST_CONFIG", os.devnull)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["walk"], ["No such command 'walk'", "see asynchost --help"]),
        (["run", "--speed", "9"], ["--speed", "see asynchost --help"]),
        ([*RUN, "extra"], ["extra"]),
        ([*RUN, "--log-level", "loud"], ["--log-level", "'loud'", "'debug'"]),
        (["run", "--database", "mysql://nova@db/nova"], ["--connect is missing"]),
        (["run", "--connect", "test:///default"], ["--database is missing"]),
        ([*RUN, "--connect", "test:///default"], ["given 2 times"]),
        ([*RUN, "--connect", "=qemu:///system"], ["NAME must have"]),
        ([*RUN, "--debounce", "-1"], ["--debounce: '-1'"]),
        ([*RUN, "--max-delay", "x"], ["--max-delay: 'x'"]),
        ([*RUN, "--audit-interval", "-1"], ["--audit-interval: '-1'"]),
        ([*RUN, "--when-fenced", "fight"], ["--when-fenced", "'exit', 'wait'"]),
        ([*RUN, "--foreign-edits", "x"], ["--foreign-edits", "'repair', 'report'"]),
        ([*RUN, "--service-id", "a"], ["--service-id: 'a'"]),
        ([*RUN, "--count", "all"], ["--count: 'all'"]),
        ([*RUN, "--domain-0", "x=none"], ["--domain-0: 'x=none'", "--connect x=URI"]),
        ([*RUN, "--except", "x=y"], ["--except: 'x=y'", "or =x=y"]),
        ([*RUN, "--instances-path", "x"], ["--instances-path: 'x'"]),
        ([*RUN, "--disk", "tape"], ["--disk: 'tape'", "pool, path or none"]),
        ([*RUN, "--database-password-file", "/nonexistent"], ["/nonexistent", "No such file"]),
        ([*RUN[:3], "--database", "oracle://u@h/d"], ["oracle://u@h/d", "mysql://user@host"]),
        ([*RUN[:3], "--database", "mysql://u@h:x/d"], ["mysql://user@host"]),
        (["schema", "--apply"], ["--database is missing"]),
        (["schema", "--database", "x"], ["mysql://user@host"]),
        (["run", "--connect", "a\nb", "--database", "mysql://nova@db/nova"], ["a\\nb"]),
    ],
)
def test_a_wrong_command_line_is_one_line_and_status_2(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the value and the way out, and nothing has been opened."""
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("asynchost: error: ")
    assert captured.err.count("\n") == 1
    for word in words:
        assert word in captured.err


def test_a_password_on_the_command_line_is_never_echoed(capsys: pytest.CaptureFixture[str]) -> None:
    """The refusal may be logged by whoever started the process."""
    for command in (["run", "--connect", "test:///default"], ["schema"], ["schema", "--apply"]):
        assert run([*command, "--database", "mysql://nova:s3cret@db/nova"]) == 2
        captured = capsys.readouterr()
        assert "s3cret" not in captured.err
        assert "ASYNCHOST_DATABASE" in captured.err


def test_without_click_the_way_out_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The library is installed without the command line's packages."""
    monkeypatch.setitem(sys.modules, "click", None)
    assert run(["--version"]) == 2
    assert capsys.readouterr().err == (
        "asynchost: error: the command line needs click: pip install 'asynchost[daemon]'\n"
    )


def test_version_and_help_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """They are answers, not errors; no arguments at all ask for help."""
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"asynchost {asynchost.__version__}\n"
    for arguments in ([], ["--help"], ["run", "--help"], ["schema", "-h"], ["demo", "--help"]):
        assert run(arguments) == 0
        captured = capsys.readouterr()
        assert captured.out.startswith("Usage: asynchost")
        assert captured.err == ""


def test_help_says_every_option_and_every_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    """What an operator needs stands in the help itself."""
    run(["run", "--help"])
    text = capsys.readouterr().out
    for option in (
        *("--connect", "--database", "--database-password-file", "--service-id"),
        *(
            "--instances-path",
            "--disk",
            "--audit-interval",
            "--debounce",
            "--max-delay",
            "--read-write",
        ),
        *("--count", "--memory", "--reserved-vcpus", "--reserved-memory", "--domain-0"),
        *("--only", "--except"),
        *("--log-level", "--log-format", "ASYNCHOST_DATABASE", "ASYNCHOST_DATABASE_PASSWORD"),
    ):
        assert option in text
    run(["--help"])
    assert "Exit status: 0" in capsys.readouterr().out


def test_schema_prints_both_tables_and_the_rights_as_comments(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The output can be fed to a client as it is: only the tables are made."""
    assert run(["schema"]) == 0
    text = capsys.readouterr().out
    statements = [line for line in text.splitlines() if not line.startswith("--")]
    assert sum(line.startswith("CREATE TABLE") for line in statements) == 2
    assert "GRANT" not in "".join(statements)
    assert text.count("-- GRANT ") == 4
    assert "`nova`.`compute_nodes` TO 'asynchost'@'%'" in text


def test_schema_names_the_account_of_a_given_database(capsys: pytest.CaptureFixture[str]) -> None:
    """The rights can be copied where the database is known."""
    assert run(["schema", "--database", "mysql://o%27hara@db/cloud"]) == 0
    text = capsys.readouterr().out
    assert "`cloud`.`asynchost_fence` TO 'o\\'hara'@'%'" in text
