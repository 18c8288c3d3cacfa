"""The documents that are made from the declaration of the settings."""

from pathlib import Path

from asynchost.service.manual import settings_table

DOCUMENT = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_document_has_the_table_of_all_settings() -> None:
    """Made by ``python -m asynchost.service.manual table``, so that it cannot fall behind."""
    assert DOCUMENT.read_text().endswith(settings_table())
