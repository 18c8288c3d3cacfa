"""The commands about the configuration: what they print, and with which status they end."""

import json
import os
import tomllib
from pathlib import Path

import pytest

from asynchost.service.__main__ import run
from asynchost.service.configuring import example_text
from asynchost.service.declared import SETTINGS, Scope, Setting

TEXT = """
database = "mysql://nova:hush@db/nova"
debounce = 1
max-delay = 2
only = ['a"\\', "b"]
[[host]]
name = "a"
connect = "qemu+ssh://root:hush@h/system"
count = "defined"
"""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of whoever runs the tests decides anything."""
    for name in [name for name in os.environ if name.startswith("ASYNCHOST")]:
        monkeypatch.delenv(name)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A configuration that only its owner can read."""
    path = tmp_path / "asynchost.toml"
    path.write_text(TEXT)
    path.chmod(0o600)
    return path


def test_check_says_what_was_read(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And opens nothing."""
    assert run(["config", "check", "--config", str(place)]) == 0
    assert capsys.readouterr().out == f"ok: 1 host; read: {place}\n"


def test_check_tells_each_mistake_in_a_line(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of file, environment and command line, and of the way into the database."""
    place.write_text(TEXT.replace("debounce", "debounse").replace('"defined"', '"x\\u001b[2J"'))
    monkeypatch.setenv("ASYNCHOST_DATABASE", "oracle://u:hush@h/d")
    monkeypatch.setenv("ASYNCHOST_AUDIT_INTERVAL", "-1")
    assert run(["config", "check", "--config", str(place), "--disk", "tape"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        f"{place}:3",
        f"{place}:9",
        "ASYNCHOST_AUDIT_INTERVAL",
        "--disk",
        "database URL",
    ]
    assert "did you mean 'debounce'?" in lines[0]
    assert "\\x1b[2J" in lines[1]
    assert "hush" not in "".join(lines)


def test_run_tells_all_mistakes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line each, with the same status as for one."""
    place.write_text(TEXT.replace("debounce", "debounse").replace('"defined"', "5"))
    assert run(["run", "--config", str(place)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert f"{place}:3: debounse" in lines[0]
    assert f"{place}:9: host[1].count" in lines[1]


def test_show_gives_every_value_and_its_origin(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a file that means the same, without passwords."""
    monkeypatch.setenv("ASYNCHOST_MAX_DELAY", "4")
    assert run(["config", "show", "--config", str(place), "--no-dry-run"]) == 0
    text = capsys.readouterr().out
    assert "hush" not in text
    for line in (
        f"debounce = 1  # {place}:3",
        "max-delay = 4  # ASYNCHOST_MAX_DELAY",
        "dry-run = false  # --dry-run",
        "audit-interval = 60  # default",
        f'only = ["a\\"\\\\", "b"]  # {place}:5',
        f'connect = "qemu+ssh://root:***@h/system"  # {place}:8',
        'memory = "current"  # default',
    ):
        assert line in text.splitlines()
    document = tomllib.loads(text)
    assert document["max-delay"] == 4
    assert document["host"][0]["count"] == "defined"
    place.write_text(text.replace("***", "hush"))
    assert run(["config", "check", "--config", str(place)]) == 0


def test_show_as_json_has_the_same(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For programs: a value with its type, and its origins."""
    assert run(["config", "show", "--config", str(place), "--debounce", "0.5", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["debounce"] == {"value": 0.5, "origin": ["--debounce"]}
    assert shown["max-delay"] == {"value": 2, "origin": [f"{place}:4"]}
    assert shown["beside-nova"] == {"value": False, "origin": ["default"]}
    (host,) = shown["host"]
    assert host["only"] == {"value": ['a"\\', "b"], "origin": [f"{place}:5"]}
    assert set(shown) - {"host"} | set(host) == set(SETTINGS)


def test_example_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """To be put into a file."""
    assert run(["config", "example"]) == 0
    assert capsys.readouterr().out == example_text()


def test_one_declaration_makes_option_variable_and_key(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each setting is an option of run, and a key that the example explains."""
    run(["run", "--help"])
    text = capsys.readouterr().out
    for setting in SETTINGS.values():
        if setting.name != "name":
            assert setting.option in text
        assert f"#{setting.name} = " in example_text()
        assert setting.variable == f"ASYNCHOST_{setting.name.upper().replace('-', '_')}"


@pytest.mark.parametrize(
    "setting", [one for one in SETTINGS.values() if one.name != "name"], ids=lambda one: one.name
)
def test_every_setting_can_be_given_in_each_of_three_ways(
    setting: Setting,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By its key, by its variable and by its option, with the same effect."""
    name, variable = setting.name, setting.variable
    secret = tmp_path / "secret"
    secret.write_text("x")
    example = setting.example
    if name == "database-password-file":
        example = f'"{secret}"'
    value = tomllib.loads(f"x = {example}")["x"]
    texts = [str(one) for one in value] if isinstance(value, list) else [str(value)]
    path = tmp_path / "file.toml"
    base = ["--database", "mysql://a@b/c"] if name != "database" else []
    base += ["--connect", "a=test:///x"] if name != "connect" else []
    slow = ["--max-delay", "3600"] if name != "max-delay" else []

    def shown(*arguments: str) -> object:
        assert run(["config", "show", "--json", *base, *slow, *arguments]) == 0
        document = json.loads(capsys.readouterr().out)
        found = document.get(name) or document["host"][0][name]
        assert found["origin"] != ["default"]
        return found["value"]

    if setting.scope is Scope.ONE:
        own = f"connect = {SETTINGS['connect'].example}" if name != "connect" else ""
        path.write_text(f'[[host]]\nname = "a"\n{own}\n{name} = {example}\n')
    else:
        path.write_text(f"{name} = {example}\n")
    by_key = shown("--config", str(path))
    monkeypatch.setenv("ASYNCHOST_CONFIG", os.devnull)
    flag = setting.flag
    by_option = shown(*([f"--{name}"] if flag else [x for t in texts for x in (f"--{name}", t)]))
    monkeypatch.setenv(variable, " ".join(texts))
    assert by_key == by_option == shown()
