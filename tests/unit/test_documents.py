"""The documents as files: their links, and what a package index shows of them."""

import re
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)[^)]*\)")


def linked_files(document: Path) -> list[Path]:
    """The files that a document links to by relative paths."""
    return [(document.parent / link).resolve() for link in LINK.findall(document.read_text())]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_that_are_installed_with_the_package(document: Path) -> None:
    """Each link works in a checkout, and in ``share/doc/asynchost`` of an installation."""
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    installed = {REPOSITORY / name for name in wheel["shared-data"]}
    assert set(document.parents) & installed or document in installed
    for file in linked_files(document):
        assert file.exists(), file
        assert file in installed or set(file.parents) & installed, file


def test_the_description_of_the_package_links_to_no_file() -> None:
    """A package index would show a relative link as a broken one. The words are README's."""
    description = REPOSITORY / PROJECT["project"]["readme"]
    assert linked_files(description) == []
    readme = (REPOSITORY / "README.md").read_text()
    paragraphs = description.read_text().strip().split("\n\n")
    assert len(paragraphs) > 2
    for paragraph in paragraphs[:-1]:
        assert paragraph in readme
