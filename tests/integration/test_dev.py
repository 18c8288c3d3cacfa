"""``./dev``, as somebody with a checkout uses it: what it says where it cannot go on."""

import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.service.processes import REPOSITORY, Command, command

NOBODY = 65534
# The command prefix that drops root's rights, where the tests run as root.
AS_NOBODY = (
    ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    if os.geteuid() == 0
    else ()
)


@pytest.fixture
def checkout() -> Iterator[Path]:
    """A folder with what ``./dev`` looks at first, and no ``.venv`` yet."""
    # Not pytest's: another user has to be able to read it.
    with tempfile.TemporaryDirectory(prefix="checkout-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        sourced = (".ci/roots.sh", "contrib/debian/build.sh")
        for file in ("dev", "pyproject.toml", ".ci/constraints.txt", *sourced):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / file, folder / file)
        yield folder


def mentioned(running: Command, words: str) -> str:
    """The only line that holds ``words``, without what every line of ``./dev`` begins with."""
    (line,) = [line for line in running.err if words in line]
    return line.removeprefix("dev: ")


def logs_in(folder: Path) -> list[Path]:
    """What ``./dev`` keeps of a command's output, for as long as that command runs."""
    return list(folder.glob("tmp.*"))


@pytest.mark.parametrize(
    ("name", "package"),
    [("run", "mariadb-server-core"), ("test", "libvirt-daemon"), ("lint", "libvirt-dev")],
)
async def test_who_is_not_root_is_told_what_to_install(
    checkout: Path, name: str, package: str
) -> None:
    """Which packages are missing and the command that installs them, before anything is begun."""
    if shutil.which("dpkg-query") is None:
        pytest.skip("not a Debian system")
    # A list of installed packages with nothing in it.
    (checkout / "packages").mkdir()
    (checkout / "packages" / "status").touch()
    arguments = (*AS_NOBODY, str(checkout / "dev"), name)
    environment = {"DPKG_ADMINDIR": str(checkout / "packages")}
    async with command(*arguments, environment=environment) as running:
        assert await running.ends() == 2
    missing = mentioned(running, "missing Debian packages: ").partition(": ")[2]
    assert package in missing.split()
    assert mentioned(running, "apt-get") == (
        f"install them with: sudo apt-get install --no-install-recommends {missing}"
    )
    assert running.out == []
    assert not (checkout / ".venv").exists()


async def test_an_interrupted_installation_is_not_told_of_as_a_failed_one(checkout: Path) -> None:
    """Ctrl-C in the first minute: no guess at what went wrong, since nothing did."""
    python = checkout / "slow-python"
    # As the real one, but for the step that takes long: that one does not end.
    python.write_text(
        f'#!/bin/sh\n[ "$1 $2" = "-m venv" ] && exec sleep 600\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    environment = {"PYTHON": str(python), "TMPDIR": str(checkout)}
    async with command(str(checkout / "dev"), "run", environment=environment) as running:
        await running.says("making .venv")
        running.interrupt_like_a_terminal()
        assert await running.ends() == 128 + signal.SIGINT
    assert running.err == [f"dev: making .venv with {python}"]
    assert logs_in(checkout) == []


async def test_a_python_that_cannot_do_is_refused(checkout: Path) -> None:
    """By its name, with what would do."""
    environment = {"PYTHON": "/bin/false"}
    async with command(str(checkout / "dev"), "run", environment=environment) as running:
        assert await running.ends() == 2
    assert mentioned(running, "/bin/false is not a Python 3.11 or newer").endswith(
        "set PYTHON to one"
    )


@pytest.mark.parametrize("arguments", [("--group",), ("--group=",), ("--group", "")])
async def test_a_group_without_a_name_runs_nothing(
    checkout: Path, arguments: tuple[str, ...]
) -> None:
    """It would be the whole suite."""
    async with command(str(checkout / "dev"), "test", *arguments) as running:
        assert await running.ends() == 2
    assert "lowest" in mentioned(running, "--group takes a name, one of: ")


async def test_an_unknown_group_of_tests_is_refused_with_the_known_ones(checkout: Path) -> None:
    """Before anything is installed; every group that a test is marked with is known."""
    async with command(str(checkout / "dev"), "test", "--group", "nonsense") as running:
        assert await running.ends() == 2
    listed = mentioned(running, "no such group of tests: nonsense; the groups are: ")
    marks = {
        name
        for file in (REPOSITORY / "tests").rglob("*.py")
        for name in re.findall(r"pytest\.mark\.group\(\"(.*?)\"\)", file.read_text())
    }
    assert marks | {"lowest"} <= set(listed.rpartition(": ")[2].split())
    assert not (checkout / ".venv").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is told to be root first")
@pytest.mark.parametrize("name", ['a"b', "a\\b", "a:b", "a\nb"])
async def test_a_cache_folder_that_apt_cannot_use_is_refused(checkout: Path, name: str) -> None:
    """By its name, before anything is made there."""
    environment = {"ASYNCHOST_CACHE": str(checkout / name)}
    async with command(str(checkout / "dev"), "matrix", "sid", environment=environment) as running:
        assert await running.ends() == 1
    assert mentioned(running, "must be an absolute path without quotation marks")
    assert not (checkout / name).exists()


async def test_a_folder_without_mysql_is_refused(checkout: Path) -> None:
    """Before a test runs: without its server, each of them would fail."""
    environment = {"ASYNCHOST_MYSQL": str(checkout)}
    async with command(
        str(checkout / "dev"), "test", "--group", "mysql", environment=environment
    ) as running:
        assert await running.ends() == 2
    assert mentioned(running, f"ASYNCHOST_MYSQL={checkout}: no usr/sbin/mysqld there")
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("debian13", "sid"), "made and entered by root only: sudo ./dev matrix"),
        (("debian31",), "no such Debian: debian31; there are: debian12 debian13 sid"),
    ],
)
async def test_the_matrix_says_what_it_takes(
    checkout: Path, arguments: tuple[str, ...], words: str
) -> None:
    """An unknown name is named with the known ones, and another user is told to be root."""
    environment = {"ASYNCHOST_CACHE": str(checkout / "cache")}
    running_as = (*AS_NOBODY, str(checkout / "dev"), "matrix", *arguments)
    async with command(*running_as, environment=environment) as running:
        assert await running.ends() == 2
    assert mentioned(running, words)
    assert not (checkout / "cache").exists()
