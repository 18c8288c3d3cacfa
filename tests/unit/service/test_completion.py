"""What a shell offers while a command line is typed."""

from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from asynchost.service.commands import cli


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with two hosts, by the environment."""
    path = tmp_path / "file.toml"
    path.write_text(
        '[[host]]\nname = "rack1"\nconnect = "lxc:///"\n[[host]]\nname = "other"\nconnect = "xen:///"'
    )
    monkeypatch.setenv("ASYNCHOST_CONFIG", str(path))
    return path


def offered(*words: str) -> list[str]:
    """For the last word."""
    complete = ShellComplete(cli, {}, "asynchost", "_ASYNCHOST_COMPLETE")
    return [one.value for one in complete.get_completions(list(words[:-1]), words[-1])]


def test_hosts_are_offered_by_their_names() -> None:
    """As an argument, and before the value that is for one host."""
    assert offered("explain", "") == ["rack1", "other"]
    assert offered("diff", "r") == ["rack1"]
    assert offered("run", "--only", "") == ["rack1=", "other="]
    assert offered("run", "--service-id", "o") == ["other="]


def test_choices_are_offered_with_and_without_a_name() -> None:
    """And those that begin as what is typed."""
    assert offered("run", "--disk", "p") == ["path", "pool"]
    assert offered("run", "--disk", "rack1=n") == ["rack1=none"]
    assert offered("run", "--when-fenced", "") == ["exit", "wait"]


def test_a_configuration_that_is_wrong_offers_what_it_can(place: Path) -> None:
    """Nobody wants to see its mistakes just then."""
    place.write_text("nonsense = [\n")
    assert offered("explain", "") == []
    place.unlink()
    assert offered("explain", "") == []
