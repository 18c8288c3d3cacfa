"""Print constraints that make pip install the lowest versions which pyproject.toml admits.

Packages that pyproject.toml does not name keep their versions of constraints.txt.
"""

import re
import tomllib
from pathlib import Path

CONSTRAINTS = Path(__file__).with_name("constraints.txt")
PROJECT = Path(__file__).parents[1] / "pyproject.toml"
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(\[[^]]*\])?>=(?P<version>[\w.]+)(,[^;]*)?(;.*)?")


def requirements() -> list[str]:
    """Every requirement of the package, its extras, its dependency groups and its build."""
    data = tomllib.loads(PROJECT.read_text())
    project = data["project"]
    lists = [
        project["dependencies"],
        *project["optional-dependencies"].values(),
        *data["dependency-groups"].values(),
        data["build-system"]["requires"],
    ]
    return [requirement for names in lists for requirement in names]


def main() -> None:
    lowest: dict[str, str] = {}
    for requirement in requirements():
        matched = REQUIREMENT.fullmatch(requirement.replace(" ", ""))
        if matched is None:
            raise SystemExit(f"{PROJECT}: {requirement!r} has no lower bound; give it one (>=)")
        name, version = matched["name"].lower(), matched["version"]
        if lowest.setdefault(name, version) != version:
            raise SystemExit(f"{PROJECT}: {name} has two lower bounds; give it one everywhere")
    for name, version in lowest.items():
        print(f"{name}=={version}")
    for line in CONSTRAINTS.read_text().splitlines():
        if line and not line.startswith("#") and line.partition("==")[0].lower() not in lowest:
            print(line)


if __name__ == "__main__":
    main()
