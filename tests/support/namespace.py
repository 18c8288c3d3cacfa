"""A mount and PID namespace for a daemon of the tests, and the processes in it.

May live here: how the namespaces are made, how a program is started in them, which processes
they hold. Must not: what that program is configured to do.

``namespace.sh`` is the first process in them. It lives as long as the pipe to it is open, so
the end of this process, however it comes, ends everything inside.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

STOP_DEADLINE_SECONDS = 60.0

HIDDEN_FOLDERS = ("/run", "/var/lib", "/var/cache", "/var/log")
"""What ``namespace.sh`` covers with empty folders."""


class NamespaceError(Exception):
    """The namespaces could not be made, or have ended."""


def search_path() -> str:
    """PATH with the folders where Debian keeps daemons, which is not in everybody's."""
    return os.pathsep.join([os.environ.get("PATH", "/usr/bin:/bin"), "/usr/sbin", "/sbin"])


def why_impossible() -> str | None:
    """Why no private namespaces can be made here, or None if they can."""
    trial = subprocess.run(
        [*_unshare_command(), "mount", "-t", "tmpfs", "none", "/run"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if trial.returncode == 0:
        return None
    return f"no private mount and PID namespace can be made: {trial.stderr.strip()}"


def as_ordinary_user(command: Sequence[str]) -> list[str]:
    """The command run as an ordinary user inside namespaces that an ordinary user made.

    There it would otherwise be a root that may not set groups, which daemons do not expect.
    """
    return ["unshare", "--user", "--map-user=1000", "--map-group=1000", *command]


class Namespace:
    """The namespaces of one program, which can be started in them again and again.

    ``work_folder`` holds ``etc``, ``passwd`` and ``group``, seen inside as ``/etc/libvirt``,
    ``/etc/passwd`` and ``/etc/group``; standard error goes to ``log`` in it. ``hostname`` is the
    machine's name inside; None leaves it as it is. All calls block, for milliseconds.
    """

    def __init__(
        self,
        work_folder: Path,
        capabilities_folder: Path,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        hostname: str | None = None,
    ) -> None:
        script = Path(__file__).with_name("namespace.sh")
        with log.open("ab") as log_file:
            self._first = subprocess.Popen(
                [
                    *_unshare_command(),
                    *(() if hostname is None else ("--uts",)),
                    *("bash", str(script), str(work_folder), str(capabilities_folder)),
                    *command,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_file,
                text=True,
                bufsize=1,
                # Out of the terminal's process group: Ctrl-C is for the tests, which stop it.
                start_new_session=True,
                env={**environment, "NEW_HOSTNAME": hostname or ""},
            )
        answer = self._read_answer()
        if answer != "ready":
            self.close()
            raise NamespaceError(f"no namespace: {answer or 'see its log'}")

    def start(self) -> int:
        """Start the program in the background; its process id as seen from outside.

        Raises NamespaceError if the program has ended already.
        """
        _pipe(self._first.stdin).write("start\n")
        answer = self._read_answer()
        if not answer.isdigit():
            raise NamespaceError(f"the namespace answered {answer!r}")
        for pid, _ in self.processes():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    # The last number is the id in the innermost namespace: the one we know.
                    if line.startswith("NSpid:") and line.split()[-1] == answer:
                        return pid
        raise NamespaceError("the program ended at once")

    def processes(self) -> Iterator[tuple[int, list[str]]]:
        """Every process inside: its id as seen from outside, and its arguments."""
        inside = Path(f"/proc/{self._first.pid}/ns/pid_for_children").readlink()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            # Any of them may end while it is looked at.
            with contextlib.suppress(OSError):
                if (entry / "ns" / "pid").readlink() == inside:
                    arguments = (entry / "cmdline").read_bytes().decode(errors="replace")
                    yield int(entry.name), arguments.split("\0")

    def close(self) -> None:
        """End every process inside, and wait until they are gone. Harmless when repeated."""
        with contextlib.suppress(BrokenPipeError):
            _pipe(self._first.stdin).close()
        try:
            # The kernel ends what is in a PID namespace along with its first process, stopped
            # (SIGSTOP) processes included.
            self._first.wait(STOP_DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            self._first.kill()
            self._first.wait()
        _pipe(self._first.stdout).close()

    def _read_answer(self) -> str:
        return _pipe(self._first.stdout).readline().strip()


def _unshare_command() -> list[str]:
    command = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if os.geteuid() != 0:
        command.append("--map-root-user")
    return command


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise NamespaceError("the namespace has no pipe")
    return pipe
