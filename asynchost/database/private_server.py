"""A MariaDB of one's own: started on a socket in a temporary folder, gone without a trace.

What ``./dev run``, the tests, the examples and the benchmarks write to where no database is
given. May live here: the process and its folder. Must not: tables, statements, clients.
The data is meant to be lost, so the end is a SIGKILL and a removed folder: quick, and the same
on every path.

Needs ``mariadbd`` and its SQL scripts, both in the Debian package ``mariadb-server-core``,
which starts no service. ``mariadb-install-db`` from the same package is not used: it needs a
program of the client's package, and fills tables that nobody reads here.
"""

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from asynchost.errors import DatabaseUnavailableError, InvalidSettingError

_PACKAGE = "mariadb-server-core"
_SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
_SHARE_FOLDERS = (Path("/usr/share/mysql"), Path("/usr/share/mariadb"))
_BRANDS = ("mysql", "mariadb")
_LONGEST_SOCKET_PATH = 107
"""``sun_path`` holds 108 bytes, the closing zero included."""
_SMALL = (
    "--innodb-buffer-pool-size=8M",
    "--innodb-log-file-size=8M",
    "--innodb-log-buffer-size=2M",
    "--key-buffer-size=64K",
    "--aria-pagecache-buffer-size=1M",
    "--performance-schema=OFF",
    "--max-connections=20",
)


class PrivateMariaDB:
    """A private ``mariadbd``; use it as ``async with PrivateMariaDB() as server:``.

    It listens on a unix socket only, in a folder of mode 0700, and its one account is the
    present user, let in without a password because the socket tells who asks. Entering takes
    about a second. It runs in its own session, so a terminal's Ctrl-C does not reach it, and
    the kernel ends it together with the thread that entered it, however that one dies (the
    folder then stays).

    ``arguments`` are appended to the server's command line, where the last word wins.
    ``start_timeout_seconds`` bounds the initialisation and each start.

    :raises InvalidSettingError: a program is not installed, or the folder's path is too long
        for a socket.
    :raises DatabaseUnavailableError: the server did not come up; the text ends with its log.

    Cancelling at any point, start included, kills the server and removes the folder.
    """

    def __init__(
        self, *, arguments: Sequence[str] = (), start_timeout_seconds: float = 60.0
    ) -> None:
        self._arguments = tuple(arguments)
        self._start_timeout_seconds = start_timeout_seconds
        self._folder: Path | None = None
        self._process: asyncio.subprocess.Process | None = None

    @property
    def folder(self) -> Path:
        """The temporary folder, from entering to leaving."""
        if self._folder is None:
            raise RuntimeError("the private server has not been entered")
        return self._folder

    @property
    def socket(self) -> Path:
        """The unix socket it listens on."""
        return self.folder / "s"

    @property
    def log(self) -> Path:
        """The server's error log."""
        return self.folder / "log"

    @property
    def user(self) -> str:
        """The account with all rights: the user that this process runs as."""
        # Not getpass: it believes the environment, the server asks the kernel.
        return pwd.getpwuid(os.geteuid()).pw_name

    @property
    def pid(self) -> int | None:
        """The server's process id; None while it does not run."""
        return None if self._process is None else self._process.pid

    def url(self, database: str, *, user: str | None = None) -> str:
        """The URL of one of its databases, for the own account or for another ``user``."""
        account = quote(user or self.user, safe="")
        where = quote(str(self.socket), safe="/")
        return f"mysql://{account}@localhost/{quote(database, safe='')}?unix_socket={where}"

    async def __aenter__(self) -> Self:
        folder = Path(tempfile.mkdtemp(prefix="asynchost-"))
        self._folder = folder
        try:
            _check_length(self.socket)
            try:
                async with asyncio.timeout(self._start_timeout_seconds):
                    await self._initialise()
            except TimeoutError:
                raise self._failure("mariadbd --bootstrap does not end") from None
            await self.start()
        except BaseException:
            await self._remove()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._remove()

    async def start(self) -> None:
        """Start the server on the data it has, and wait until it listens."""
        if self._process is not None:
            return
        # A killed server leaves its socket behind: without this, it would look up too early.
        self.socket.unlink(missing_ok=True)
        self._process = await self._spawn(
            f"--socket={self.socket}",
            f"--pid-file={self.folder / 'pid'}",
            "--skip-networking",
            "--skip-name-resolve",
            *self._arguments,
        )
        try:
            async with asyncio.timeout(self._start_timeout_seconds):
                while not await self._listens():
                    if self._process.returncode is not None:
                        raise self._failure(f"mariadbd ended with {self._process.returncode}")
                    await asyncio.sleep(0.01)
        except TimeoutError:
            await self.kill()
            raise self._failure("mariadbd does not listen") from None

    async def kill(self) -> None:
        """SIGKILL, as in a crash; the data stays. Returns when the process is gone."""
        await self._end(signal.SIGKILL)

    async def terminate(self) -> None:
        """SIGTERM: an orderly stop, the data stays. Returns when the process is gone."""
        await self._end(signal.SIGTERM)

    async def restart(self, *, crash: bool = False) -> None:
        """Stop (orderly, or as in a ``crash``) and start again on the same data."""
        await (self.kill() if crash else self.terminate())
        await self.start()

    def suspend(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    async def _initialise(self) -> None:
        """Make the system tables, as ``mariadb-install-db`` does, less help and sys schema."""
        scripts = _scripts()
        data = self.folder / "data"
        data.mkdir()
        statements = self.folder / "bootstrap.sql"
        with statements.open("w") as file:
            file.write("CREATE DATABASE mysql;\nUSE mysql;\n")
            file.write(f"SET @auth_root_socket='{self.user}';\n")
            file.writelines(script.read_text() for script in scripts)
        with statements.open("rb") as file:
            process = await self._spawn("--bootstrap", stdin=file.fileno())
        self._process = process
        if await process.wait() != 0:
            raise self._failure(f"mariadbd --bootstrap ended with {process.returncode}")
        self._process = None
        statements.unlink()

    async def _spawn(
        self, *arguments: str, stdin: int = asyncio.subprocess.DEVNULL
    ) -> asyncio.subprocess.Process:
        with self.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                _program("setpriv"),
                "--pdeathsig",
                "KILL",
                _program("mariadbd"),
                "--no-defaults",
                f"--datadir={self.folder / 'data'}",
                f"--tmpdir={self.folder}",
                "--skip-log-bin",
                *_SMALL,
                # mariadbd refuses to run as root unless told by name.
                *(("--user=root",) if os.geteuid() == 0 else ()),
                *arguments,
                stdin=stdin,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(self.socket)
        except OSError:
            return False
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True

    def _failure(self, reason: str) -> DatabaseUnavailableError:
        lines = self.log.read_text(errors="replace").splitlines()[-5:]
        return DatabaseUnavailableError(str(self.socket), None, "; ".join((reason, *lines)))

    def _signal(self, number: signal.Signals) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)

    async def _end(self, number: signal.Signals) -> None:
        process = self._process
        self._signal(number)
        self._process = None
        if process is not None:
            await process.wait()

    async def _remove(self) -> None:
        folder = self._folder
        try:
            await self.kill()
        finally:
            # Also when cancelled while waiting for the end: the signal is on its way by then.
            self._folder = None
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)


def _check_length(path: Path) -> None:
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        raise InvalidSettingError(
            "TMPDIR", str(path.parent.parent), "too long: a socket's path has room for 107 bytes"
        )


def _scripts() -> list[Path]:
    """The two scripts that make the tables a server cannot do without."""
    for share in _SHARE_FOLDERS:
        for brand in _BRANDS:
            names = (f"{brand}_system_tables.sql", f"{brand}_system_tables_data.sql")
            scripts = [share / name for name in names]
            if all(script.is_file() for script in scripts):
                return scripts
    raise _not_installed("mysql_system_tables.sql", _PACKAGE)


def _program(name: str) -> str:
    path = shutil.which(name, path=_SEARCH_PATH)
    if path is None:
        raise _not_installed(name, "util-linux" if name == "setpriv" else _PACKAGE)
    return path


def _not_installed(what: str, package: str) -> InvalidSettingError:
    return InvalidSettingError(
        "private server", what, f"not installed, try: sudo apt-get install {package}"
    )
