"""The documents that are made from the declaration of the settings."""

from pathlib import Path

import pytest

from asynchost.service.command_list import commands, completion
from asynchost.service.declared import SETTINGS
from asynchost.service.manual import command_page, file_page, settings_table

DOCUMENT = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_document_has_the_table_of_all_settings() -> None:
    """Made by ``python -m asynchost.service.manual table``, so that it cannot fall behind."""
    assert DOCUMENT.read_text().endswith(settings_table())


def test_the_manual_of_the_file_has_every_key() -> None:
    """Each once, with an example."""
    text = file_page()
    for setting in SETTINGS.values():
        name = setting.name.replace("-", "\\-")
        assert text.count(f"\n.B {name} = ") == 1


def test_the_manual_of_the_command_has_every_command_and_option() -> None:
    """Also those of groups."""
    text = command_page(commands())
    for name in ("run", "explain [HOST]", "doctor", "config check", "config show"):
        assert f'.SS "{name}"' in text
    for setting in SETTINGS.values():
        if setting.name != "name":
            option = setting.option.replace("-", "\\-")
            assert f".B {option}" in text


def test_no_text_is_a_command_of_roffs() -> None:
    """A line that begins with a dot is one; ours are known."""
    known = (".TH", ".SH", ".SS", ".TP", ".B", ".BR", ".I", ".br", ".PP")
    for line in (command_page(commands()) + file_page()).splitlines():
        if line.startswith((".", "'")):
            assert line.split()[0] in known, line


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_have_a_completion(shell: str) -> None:
    """That asks the command itself."""
    assert "_ASYNCHOST_COMPLETE" in completion(shell)
