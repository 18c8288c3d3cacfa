"""A real libvirtd that belongs to the tests: private, isolated, gone with them.

May live here: the daemon's life and the ways to it. Its files are in ``libvirtd_settings.py``,
its namespaces in ``namespace.py``, guests in ``guests.py``.

The daemon sees an empty ``/run``, ``/var/lib`` and ``/var/cache``, a configuration that is
ours, and only the drivers asked for, so it touches nothing of the machine and several run side
by side. Its sockets and log are in a temporary folder outside. Killing or restarting the daemon
leaves its guests running, as in real life; :meth:`PrivateLibvirtd.stop`, or the end of this
process however it comes, ends all of it.

Everything here blocks (a start: about 0.1 s; an end: until the process is gone): a test with a
loop under measurement calls it in ``asyncio.to_thread``.
"""

import contextlib
import itertools
import os
import select
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import libvirt

from tests.support.libvirtd_settings import (
    daemon_environment,
    free_tcp_port,
    new_folder,
    write_settings,
)
from tests.support.namespace import (
    Namespace,
    NamespaceError,
    as_ordinary_user,
    search_path,
    why_impossible,
)

Driver = Literal["qemu", "test", "lxc"]

START_DEADLINE_SECONDS = 60.0
"""A start takes 0.1 s; on a machine under load, many times that."""
STOP_DEADLINE_SECONDS = 60.0

EMULATORS = ("/usr/bin/qemu-system-x86_64", "/usr/bin/qemu-system-i386")

NEEDED_PROGRAMS = {
    "libvirtd": "libvirt-daemon",
    "unshare": "util-linux",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
}
"""Program and the Debian package that has it."""


class LibvirtdError(Exception):
    """The private libvirtd did not do what was asked; the text ends with the log's last lines."""


def why_unavailable() -> str | None:
    """Why no private libvirtd can run here, or None if it can."""
    for program, package in NEEDED_PROGRAMS.items():
        if shutil.which(program, path=search_path()) is None:
            return f"{program} is missing (Debian package {package})"
    return why_impossible()


def silence_libvirt() -> None:
    """Keep libvirt from printing each error to standard error: it raises them as well."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)


class PrivateLibvirtd:
    """One private libvirtd with the QEMU, LXC and test drivers, and its guests.

    ``listen_tcp`` opens a TCP port on the loopback address too. ``hooks`` allows
    :meth:`install_hook`; it is off by default because each start and stop of a guest then runs
    five shells more. ``password`` asks the user ``monitor`` for it on the read-only socket.
    ``drops_the_silent`` is libvirtd's own way: it closes the connection of a client that has not
    answered it for half a minute. ``hostname`` makes it a host of its own, with that name and an
    identity of its own, to which guests of another one can be migrated.
    ``capabilities_folder`` is a folder where libvirt keeps what it found out
    about QEMU, which takes it more than a second: shared by several daemons, only the first one
    pays. libvirt itself checks whether the contents still hold.

    As root it is a system daemon. For an ordinary user it is that user's session daemon: QEMU
    guests and the test driver work in it, LXC does not.
    """

    def __init__(
        self,
        *,
        capabilities_folder: Path | None = None,
        listen_tcp: bool = False,
        hooks: bool = False,
        password: str | None = None,
        drops_the_silent: bool = True,
        hostname: str | None = None,
    ) -> None:
        self._given_hostname = hostname
        self._password = password
        self._drops_the_silent = drops_the_silent
        self._capabilities_folder = capabilities_folder
        self._hooks = hooks
        self._listen_tcp = listen_tcp
        self._folder: Path | None = None
        self._namespace: Namespace | None = None
        self._daemon_pid: int | None = None
        self.privileged = os.geteuid() == 0
        """Whether it is a system daemon (root) or a user's session daemon, without LXC."""
        self.tcp_port = 0
        """The TCP port, or 0 without a listener. The same over all restarts."""

    # Life of the whole

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def folder(self) -> Path:
        """The temporary folder outside the namespace: configuration, sockets, log."""
        if self._folder is None:
            raise LibvirtdError("the private libvirtd was never started, or has stopped")
        return self._folder

    def start(self) -> None:
        """Start the daemon, the first time with its namespaces, and wait until it answers.

        Raises LibvirtdError if it does not answer in time or dies at once; after a first start
        that failed, nothing is left behind.
        """
        if self.alive:
            raise LibvirtdError("the daemon is running already")
        first = self._namespace is None
        try:
            if self._namespace is None:
                self._namespace = self._new_namespace()
            self._daemon_pid = self._namespace.start()
            self._wait_until_ready()
        except BaseException as error:
            log = self.log_tail()
            if first:
                self.stop()
            if isinstance(error, NamespaceError):
                raise LibvirtdError(f"{error}\n{log}") from error
            raise

    def stop(self) -> None:
        """End daemon, guests and namespaces, and remove the folder. Harmless when repeated."""
        namespace, self._namespace = self._namespace, None
        self._daemon_pid = None
        if namespace is not None:
            namespace.close()
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    # The daemon alone

    @property
    def pid(self) -> int:
        """The daemon's process id as seen from outside."""
        if self._daemon_pid is None:
            raise LibvirtdError("the daemon is not running")
        return self._daemon_pid

    @property
    def alive(self) -> bool:
        """Whether the daemon's process exists, stopped (SIGSTOP) or not."""
        return self._daemon_pid is not None and _process_exists(self._daemon_pid)

    def terminate(self) -> None:
        """SIGTERM to the daemon, and wait until it is gone; guests go on."""
        self._end_daemon(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the daemon, and wait until it is gone; guests go on."""
        self._end_daemon(signal.SIGKILL)

    def restart(self) -> None:
        """:meth:`terminate`, then :meth:`start`."""
        self.terminate()
        self.start()

    def pause(self) -> None:
        """SIGSTOP to the daemon: the connections stay open, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT to the daemon."""
        os.kill(self.pid, signal.SIGCONT)

    # Ways to it

    @property
    def socket_path(self) -> Path:
        """The read-write socket."""
        return self.folder / "sockets" / "libvirt-sock"

    @property
    def read_only_socket_path(self) -> Path:
        """The read-only socket; only root's daemon has one."""
        return self.folder / "sockets" / "libvirt-sock-ro"

    def uri(self, driver: Driver = "qemu", *, socket_path: Path | None = None) -> str:
        """The URI of one of the daemon's drivers over its socket (or over another's path).

        ``test`` is one host that all clients share, and that is forgotten when the last of
        them closes its connection.
        """
        path = self.socket_path if socket_path is None else socket_path
        # For QEMU the plain form: with a socket named it is remote all the same.
        scheme = "qemu" if driver == "qemu" else f"{driver}+unix"
        return f"{scheme}:///{self._uri_path(driver)}?socket={path}"

    def tcp_uri(self, driver: Driver = "qemu", *, port: int | None = None) -> str:
        """The URI over TCP (or over a proxy's ``port``). Needs ``listen_tcp=True``."""
        if not self._listen_tcp:
            raise LibvirtdError("started without a TCP listener")
        at = self.tcp_port if port is None else port
        return f"{driver}+tcp://127.0.0.1:{at}/{self._uri_path(driver)}"

    def open(self, driver: Driver = "qemu") -> libvirt.virConnect:
        """A read-write connection for the test's own calls; whoever calls closes it."""
        silence_libvirt()
        return libvirt.open(self.uri(driver))

    @contextlib.contextmanager
    def connection(self, driver: Driver = "qemu") -> Iterator[libvirt.virConnect]:
        """:meth:`open` that closes the connection at the end of the block."""
        connection = self.open(driver)
        try:
            yield connection
        finally:
            connection.close()

    # Guests' processes

    @property
    def hostname(self) -> str:
        """What every driver of this daemon reports as the host's name."""
        with self.connection("test") as connection:
            return str(connection.getHostname())

    def guest_pids(self) -> dict[str, int]:
        """The processes of all running guests (QEMU or libvirt_lxc), by name."""
        found: dict[str, int] = {}
        if self._namespace is None:
            return found
        for pid, arguments in self._namespace.processes():
            for argument, following in itertools.pairwise(arguments):
                if argument == "-name" and following.startswith("guest="):
                    # QEMU's own options follow after a comma; one in a name is doubled.
                    name = following.removeprefix("guest=").rpartition(",")[0]
                    found[name.replace(",,", ",")] = pid
                elif argument == "--name" and "libvirt_lxc" in arguments[0]:
                    found[following] = pid
        return found

    def guest_pid(self, name: str) -> int:
        """The process of a running guest, as seen from outside: to be killed or stopped.

        Raises LookupError if no process of the namespace is that guest's.
        """
        try:
            return self.guest_pids()[name]
        except KeyError:
            raise LookupError(f"no process of a guest {name!r}") from None

    # Hooks

    @property
    def hooks_folder(self) -> Path:
        """The folder that the daemon sees as ``/etc/libvirt/hooks``."""
        return self.folder / "etc" / "hooks"

    def install_hook(self, script: str) -> None:
        """Make ``script`` the ``qemu`` hook from the next guest's start or stop on.

        It is called as ``script NAME OPERATION SUB-OPERATION EXTRA``, with ``NAME`` the guest's
        and the guest's XML on standard input; while it runs, libvirt holds that guest locked.
        :attr:`hooks_folder` is its way to the outside. Needs ``hooks=True``.
        """
        if not self._hooks:
            raise LibvirtdError("started without hooks")
        # In one step, for a guest may start at any moment.
        new = self.hooks_folder / "new"
        new.write_text(script)
        new.chmod(0o755)
        new.rename(self.hooks_folder / "current")

    def remove_hook(self) -> None:
        """Take the hook away; one that is running goes on. Harmless if there is none."""
        (self.hooks_folder / "current").unlink(missing_ok=True)

    # The machine as it sees it

    def see_cpus(self, online: str) -> None:
        """Make the daemon see other CPUs than the machine's, as "0" or "0-3"; root's daemon only.

        From the next look that libvirt takes on, which it does each time it is asked.
        """
        told = self.folder / "cpus-online"
        mounted = told.exists()
        told.write_text(f"{online}\n")
        if not mounted:
            self._inside("mount", "--bind", str(told), "/sys/devices/system/cpu/online")

    def hide_emulators(self, remaining: Path) -> None:
        """Let the daemon find no emulator by itself; root's daemon only.

        A guest can name the new file ``remaining`` as its emulator, which is QEMU for x86_64.
        """
        moved = remaining.with_name(f"{remaining.name}-moved")
        moved.touch()
        self._inside("mount", "--bind", EMULATORS[0], str(moved))
        # QEMU looks for its files beside itself.
        remaining.write_text(
            "#!/bin/sh\nexport QEMU_MODULE_DIR=/usr/lib/x86_64-linux-gnu/qemu\n"
            f'exec {moved} -L /usr/share/qemu -L /usr/share/seabios "$@"\n'
        )
        remaining.chmod(0o755)
        for emulator in EMULATORS:
            self._inside("mount", "--bind", "/dev/null", emulator)

    def show_emulators(self) -> None:
        """Undo :meth:`hide_emulators`; a guest of the remaining emulator goes on."""
        for emulator in EMULATORS:
            self._inside("umount", emulator)

    def _inside(self, *command: str) -> None:
        entered = ("nsenter", "--target", str(self.pid), "--mount", "--pid", *command)
        subprocess.run(entered, check=True)

    # Log

    def log_tail(self, lines: int = 30) -> str:
        """The last lines that the daemon logged (warnings and errors), for failures."""
        if self._folder is None:
            return ""
        try:
            text = (self._folder / "libvirtd.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    # Inside

    def _uri_path(self, driver: Driver) -> str:
        if driver == "test":
            return "default"
        return "system" if self.privileged else "session"

    def _new_namespace(self) -> Namespace:
        silence_libvirt()
        folder = self._folder = new_folder()
        if self._listen_tcp:
            self.tcp_port = free_tcp_port()
        write_settings(
            folder,
            tcp_port=self.tcp_port,
            hooks=self._hooks,
            privileged=self.privileged,
            password=self._password,
            drops_the_silent=self._drops_the_silent,
            host_uuid=None if self._given_hostname is None else str(uuid.uuid4()),
        )
        capabilities = self._capabilities_folder or folder / "capabilities"
        capabilities.mkdir(parents=True, exist_ok=True)
        command = ["libvirtd", "--pid-file", str(folder / "libvirtd.pid")]
        if self._listen_tcp:
            command.append("--listen")
        if not self.privileged:
            command = as_ordinary_user(command)
        return Namespace(
            folder,
            capabilities.resolve(),
            command,
            daemon_environment(folder),
            folder / "libvirtd.log",
            self._given_hostname,
        )

    def _wait_until_ready(self) -> None:
        give_up_at = time.monotonic() + START_DEADLINE_SECONDS
        while time.monotonic() < give_up_at:
            if not self.alive:
                raise LibvirtdError(f"libvirtd ended while starting:\n{self.log_tail()}")
            try:
                # Opening has no deadline of its own: the daemon takes the connection long
                # before its drivers answer.
                _within(give_up_at - time.monotonic(), lambda: self.open().close())
            except libvirt.libvirtError:
                # No socket yet, and nothing that would announce it.
                time.sleep(0.01)
            except TimeoutError:
                break
            else:
                return
        raise LibvirtdError(f"libvirtd did not answer in time:\n{self.log_tail()}")

    def _end_daemon(self, number: signal.Signals) -> None:
        handle = os.pidfd_open(self.pid)
        try:
            signal.pidfd_send_signal(handle, number)
            # A stopped daemon takes SIGTERM only when it goes on; a killed one may be gone.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGCONT)
            ended, _, _ = select.select([handle], [], [], STOP_DEADLINE_SECONDS)
        finally:
            os.close(handle)
        if not ended:
            raise LibvirtdError(f"libvirtd did not end in time:\n{self.log_tail()}")
        self._daemon_pid = None


def _within(seconds: float, call: Callable[[], object]) -> None:
    """Call in a daemon thread, which is left behind if it does not return in time."""
    failures: list[BaseException] = []

    def body() -> None:
        try:
            call()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError
    if failures:
        raise failures[0]


def _process_exists(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    # A zombie is waiting for its parent to notice.
    return state not in ("Z", "X")
