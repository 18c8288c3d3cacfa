"""User code is type-checked as its author would: strictly, against the package as it stands."""

import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROGRAMS = [
    HERE / "user_code.py",
    HERE / "wrong_code.py",
    *sorted((HERE.parents[1] / "examples").glob("*.py")),
]

CONFIGURATION = """
[mypy]
strict = true
warn_unreachable = true
# What the package itself stands on has no types; a user's checker does not look into it.
[mypy-libvirt,aiomysql.*,pymysql.*]
ignore_missing_imports = true
"""


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_user_code_is_checked_strictly(
    program: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """What is right passes with the types that are promised; what is wrong is refused.

    The examples are user code, too.
    """
    configuration = tmp_path / "mypy.ini"
    configuration.write_text(CONFIGURATION)
    # Two that check at once do not share one.
    cache = request.config.cache.mkdir(f"mypy-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}")
    checked = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            f"--config-file={configuration}",
            f"--cache-dir={cache}",
            str(program),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_package_says_that_it_is_typed() -> None:
    """Without the marker, a checker takes every name of it for Any."""
    assert files("asynchost").joinpath("py.typed").is_file()
