"""The unit that is shipped, as systemd's own tools judge it."""

import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "contrib" / "systemd" / "asynchost.service"


@pytest.fixture
def analyze() -> str:
    """The program ``systemd-analyze``."""
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("the package systemd is not installed")
    return found


def test_the_unit_is_sandboxed(analyze: str) -> None:
    """An exposure of 2.0 at most; the threshold is ten times that."""
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", "--threshold=20", str(UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_unit_has_no_mistake(analyze: str, tmp_path: Path) -> None:
    """Only its program need not be installed here."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/bin/asynchost", "/bin/true"))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    told = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (told, done.returncode) == ([], 0), done.stderr


def test_restarts_fit_the_exit_statuses() -> None:
    """And whoever can be enabled says by whom it is wanted."""
    lines = UNIT.read_text().splitlines()
    for line in (
        "Type=notify",
        "Restart=on-failure",
        "RestartPreventExitStatus=2 3",
        "RestartForceExitStatus=SIGHUP",
        "User=asynchost",
        "WantedBy=multi-user.target",
    ):
        assert line in lines
