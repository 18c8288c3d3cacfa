"""A private MySQL server for the tests, out of an unpacked Debian root.

May live here: the process and its data folder. Must not: statements and clients.

Debian's stable releases have no MySQL, and its packages can stand beside MariaDB's in another root
folder only. The program runs there by the root's own loader, without chroot, so that its socket
and its data are where the tests look for them.
"""

import asyncio
import fcntl
import os
import shutil
import sys
from pathlib import Path

from asynchost.database.private_server import PrivateMariaDB

ROOT = os.environ.get("ASYNCHOST_MYSQL")
"""The root folder that holds MySQL's packages; None: the tests use MariaDB."""
_SMALL = (
    "--innodb-buffer-pool-size=16M",
    "--innodb-redo-log-capacity=16M",
    "--performance-schema=OFF",
    "--max-connections=20",
    # What is lost in a crash of the machine is of no interest here.
    "--innodb-doublewrite=OFF",
)
_CACHE = Path(__file__).parents[2] / ".pytest_cache" / "mysql"


class PrivateMySQL(PrivateMariaDB):
    """A private ``mysqld`` with the life of a :class:`PrivateMariaDB`.

    Its one account is ``root@localhost`` with an empty password. Making a data folder takes ten
    seconds, so it is done once for each version, and copied from then on.
    """

    @property
    def user(self) -> str:
        """The account with all rights."""
        return "root"

    @property
    def public_key(self) -> Path:
        """The key that a password is encrypted with where there is no TLS."""
        return self.folder / "data" / "public_key.pem"

    async def _initialise(self) -> None:
        template = await self._template()
        await asyncio.to_thread(shutil.copytree, template, self.folder / "data")

    async def _template(self) -> Path:
        """An empty server's data folder, made by the first test process that needs it."""
        program = _root() / "usr/sbin/mysqld"
        _CACHE.mkdir(parents=True, exist_ok=True)
        made = _CACHE / f"data-{program.stat().st_size}-{int(program.stat().st_mtime)}"
        with (_CACHE / "lock").open("w") as lock:
            await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
            if not made.is_dir():
                begun = _CACHE / "begun"
                shutil.rmtree(begun, ignore_errors=True)
                # A small log would have to be written out again and again.
                process = await self._spawn(
                    "--initialize-insecure", f"--datadir={begun}", "--innodb-redo-log-capacity=100M"
                )
                self._process = process
                if await process.wait() != 0:
                    raise self._failure(f"mysqld --initialize ended with {process.returncode}")
                self._process = None
                # Each server makes a number of its own, as replication asks for.
                (begun / "auto.cnf").unlink()
                begun.rename(made)
        return made

    async def _spawn(
        self, *arguments: str, stdin: int = asyncio.subprocess.DEVNULL
    ) -> asyncio.subprocess.Process:
        root = _root()
        libraries = root / "usr/lib/x86_64-linux-gnu"
        given = [*arguments]
        if sys.flags.dev_mode:
            given.append("--log-error-verbosity=3")
        with self.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "KILL"),
                str(root / "lib64/ld-linux-x86-64.so.2"),
                *(
                    "--library-path",
                    f"{libraries}:{libraries / 'mysql'}:{root}/usr/lib/mysql/private",
                ),
                str(root / "usr/sbin/mysqld"),
                "--no-defaults",
                f"--basedir={root / 'usr'}",
                f"--lc-messages-dir={root / 'usr/share/mysql'}",
                f"--character-sets-dir={root / 'usr/share/mysql/charsets'}",
                f"--plugin-dir={root / 'usr/lib/mysql/plugin'}",
                f"--datadir={self.folder / 'data'}",
                f"--tmpdir={self.folder}",
                "--skip-log-bin",
                "--mysqlx=OFF",
                "--secure-file-priv=",
                *_SMALL,
                *(("--user=root",) if os.geteuid() == 0 else ()),
                *given,
                stdin=stdin,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def _root() -> Path:
    if ROOT is None:
        raise RuntimeError("give ASYNCHOST_MYSQL=FOLDER, a root folder with MySQL's server package")
    return Path(ROOT)
