"""A Debian with a real systemd as its process 1, without a network, that is gone afterwards."""

import shutil
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.waiting import eventually

BOOT = Path(__file__).with_name("boot.sh")


class Guest:
    """The machine that a root is, from entering on."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        self._process = subprocess.Popen(  # noqa: ASYNC220 - it is not waited for here
            [str(BOOT), str(self._root)], stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            await eventually(self._is_up, 60, "a systemd that is up")
        except BaseException:
            self._end()
            raise
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._end()

    def run(self, *command: str, status: int = 0, stdin: str = "") -> str:
        """Run a command; returns its output, and fails for another exit status."""
        done = self._enter(*command, stdin=stdin)
        assert done.returncode == status, (command, done.returncode, done.stdout)
        return done.stdout

    def write(self, path: str, text: str) -> None:
        """Write a file."""
        self.run("sh", "-c", 'mkdir -p "${1%/*}" && cat >"$1"', "sh", path, stdin=text)

    def has(self, path: str) -> bool:
        """Whether there is such a file or folder."""
        return self._enter("test", "-e", path).returncode == 0

    def shows(self, unit: str, key: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", "--property", key, unit).strip()

    def sql(self, statement: str) -> str:
        """What the database of the machine answers, one row a line."""
        return self.run("mariadb", "-N", "-B", "-e", statement).strip()

    def take(self, file: Path) -> str:
        """Copy a file into the machine; returns where it is."""
        target = f"/tmp/{file.name}"
        with file.open("rb") as content:
            subprocess.run(
                [*self._entering(), "sh", "-c", f"cat >{target}"], stdin=content, check=True
            )
        return target

    def _enter(self, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._entering(), *command],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )

    def _entering(self) -> list[str]:
        return [
            *("nsenter", "--target", str(self._systemd()), "--all", "--wdns=/"),
            *("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root"),
            "DEBIAN_FRONTEND=noninteractive",
        ]

    def _systemd(self) -> int:
        assert self._process is not None
        pid = self._process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def _is_up(self) -> bool:
        try:
            state = self._enter("systemctl", "is-system-running").stdout.strip()
        except (IndexError, OSError):
            return False
        return state in ("running", "degraded")

    def _end(self) -> None:
        assert self._process is not None
        # With its parent gone, the kernel ends process 1, and with it all others.
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


def next_version(package: Path, folder: Path) -> Path:
    """The same package with a higher version."""
    tree = folder / "tree"
    subprocess.run(["dpkg-deb", "-R", str(package), str(tree)], check=True)
    control = tree / "DEBIAN" / "control"
    text = control.read_text()
    version = next(line for line in text.splitlines() if line.startswith("Version: "))
    control.write_text(text.replace(version, f"{version}+next"))
    made = folder / "next.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-b", str(tree), str(made)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    shutil.rmtree(tree)
    return made
