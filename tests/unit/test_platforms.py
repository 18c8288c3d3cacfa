"""README's table of what the tests were run on cannot go stale unnoticed."""

import datetime
import importlib.util
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import asynchost

REPOSITORY = Path(__file__).parents[2]
RECORD: dict[str, Any] = json.loads((REPOSITORY / "docs" / "platforms.json").read_text())
RUNS = [
    (name, what, run)
    for name, platform in RECORD["platforms"].items()
    for what, run in platform["runs"].items()
]
# A change that is newer than the newest run by more than this is a change that nobody tried there.
DAYS = 60


@pytest.fixture(scope="module")
def platforms() -> ModuleType:
    """The program that ``./dev matrix --record`` runs."""
    spec = importlib.util.spec_from_file_location("platforms", REPOSITORY / ".ci" / "platforms.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_in_the_readme_is_the_record(platforms: ModuleType) -> None:
    """Nobody wrote into it by hand."""
    assert platforms.table(RECORD) in (REPOSITORY / "README.md").read_text(), (
        "write the table anew: python3 .ci/platforms.py table"
    )


def test_every_group_of_tests_has_a_row(platforms: ModuleType) -> None:
    """What was not run says so."""
    assert "lowest" in platforms.groups()
    table = platforms.table({"platforms": {}, "by hand": {}})
    for group in platforms.groups():
        assert f"| group `{group}` | not run | not run | not run |" in table


@pytest.mark.parametrize(("name", "what", "run"), RUNS)
def test_what_was_run_was_this_version(name: str, what: str, run: dict[str, str]) -> None:
    """A new version is run everywhere before it is given out."""
    assert run["version"] == asynchost.__version__, f"./dev matrix --record {name}  ({what})"


@pytest.mark.parametrize(("name", "what", "run"), RUNS)
def test_no_run_is_much_older_than_the_newest_change(
    name: str, what: str, run: dict[str, str]
) -> None:
    """By the date of the newest commit, so that the answer to one commit stays the same."""
    if shutil.which("git") is None or not (REPOSITORY / ".git").exists():
        pytest.skip("not a clone")
    arguments = ["git", "-C", str(REPOSITORY), "log", "-1", "--format=%cs"]
    last = subprocess.run(arguments, check=True, capture_output=True, text=True)
    age = datetime.date.fromisoformat(last.stdout.strip()) - datetime.date.fromisoformat(
        run["date"]
    )
    assert age.days <= DAYS, f"./dev matrix --record {name}  ({what})"


def differences(here: dict[str, str], noted: dict[str, str]) -> list[str]:
    """The programs of the table whose first two numbers are not those that were noted."""
    return [
        f"{program} {here.get(program)}, noted {version}"
        for program, version in noted.items()
        if here.get(program, "").split(".")[:2] != version.split(".")[:2]
    ]


def test_a_point_release_is_no_difference() -> None:
    """Debian's mirror may bring one at any time."""
    noted = {"MariaDB": "10.11.19", "Python": "3.11.2"}
    assert differences({"MariaDB": "10.11.20", "Python": "3.11.2"}, noted) == []
    (line,) = differences({"MariaDB": "10.12.1", "Python": "3.11.2"}, noted)
    assert line == "MariaDB 10.12.1, noted 10.11.19"


def test_the_versions_of_this_debian_are_those_of_the_table() -> None:
    """By their first two numbers, which stay the same within one stable Debian."""
    release = Path("/etc/os-release")
    found = dict(re.findall(r'^(\w+)="?(.*?)"?$', release.read_text(), re.MULTILINE))
    platform = RECORD["platforms"].get(f"debian{found.get('VERSION_ID')}")
    programs = ("libvirtd", "qemu-system-x86_64", "mariadbd")
    if found.get("ID") != "debian" or platform is None or not all(map(shutil.which, programs)):
        pytest.skip("not a Debian of the table, or without what the tests start")
    # Debian's own Python, whichever the tests run with.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON"}
    answer = subprocess.run(
        [REPOSITORY / "dev", "versions"],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    here = dict(part.split() for part in answer.stdout.strip().split(", "))
    assert differences(here, platform["versions"]) == [], "./dev matrix --record"


def test_versions_without_a_run_are_not_told(platforms: ModuleType) -> None:
    """Only what ran there was tried there."""
    noted = {"versions": {"libvirt": "9.0.0"}, "runs": {}}
    table = platforms.table({"platforms": {"debian12": noted}, "by hand": {}})
    assert "| libvirt | not run | not run | not run |" in table


def test_a_run_is_noted_with_its_counts(
    platforms: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the versions; a line without a result changes nothing."""
    monkeypatch.setattr(platforms, "RECORD", tmp_path / "platforms.json")
    platforms.RECORD.write_text(json.dumps({"platforms": {}, "by hand": {}}))
    platforms.note("sid", "libvirt 12.8.0, Python 3.14.8", "== 2 failed, 2380 passed in 9.1s ==")
    noted = json.loads(platforms.RECORD.read_text())
    with pytest.raises(SystemExit, match="no result"):
        platforms.note("sid", "libvirt 12.8.0", "no tests ran in 0.1s")
    assert json.loads(platforms.RECORD.read_text()) == noted
    table = platforms.table(noted)
    assert "| libvirt | not run | not run | 12.8.0 |" in table
    assert re.search(
        r"\| the whole suite \| not run \| not run \| 2 failed, 2,380 passed \(", table
    )
