"""File systems of a limited size, to be filled.

May live here: mounting and filling. Must not: what is kept on them. Needs the right to mount.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MIB = 2**20


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[None]:
    """Mount an empty file system there, which temporary folders are made in meanwhile.

    Raises OSError where that is not possible.
    """
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        raise OSError(f"no file system of a limited size: {mounted.stderr.strip()}")
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(ballast: Path) -> None:
    """Write until there is no space left, also of what others give back meanwhile."""
    with ballast.open("wb", buffering=0) as file:
        while shutil.disk_usage(ballast.parent).free:
            with suppress(OSError):
                file.write(bytes(MIB // 64))
