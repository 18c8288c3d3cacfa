"""File systems of a limited size, to be filled.

May live here: mounting and filling. Must not: what is kept on them. Needs the right to mount.
"""

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.namespace import search_path

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


@contextmanager
def file_system(kind: str, folder: Path) -> Iterator[Path]:
    """A folder on a new file system of that kind; for "here", the folder itself.

    A private libvirtd sees it if it is started afterwards. It is half a gibibyte, in a file of the
    folder. Skips the test where it cannot be made.
    """
    if kind == "here":
        yield folder
        return
    at, image = folder / kind, folder / f"{kind}.image"
    at.mkdir()
    if kind == "tmpfs":
        mount = ["mount", "-t", "tmpfs", "-o", "size=512m", "tmpfs", str(at)]
    else:
        maker = shutil.which(f"mkfs.{kind}", path=search_path())
        if maker is None:
            pytest.skip(f"mkfs.{kind} is missing")
        with image.open("wb") as file:
            file.truncate(512 * MIB)
        subprocess.run([maker, "-q", str(image)], check=True, capture_output=True)
        mount = ["mount", "-o", "loop", str(image), str(at)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no file system of one's own: {mounted.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


@contextmanager
def hanging_file_system(at: Path) -> Iterator[None]:
    """Mount a file system on the folder that answers nobody, as one whose server is gone.

    It is one in user space (FUSE) without anybody there. At the end, whoever waits for it gets an
    error. A private libvirtd sees it if it is started meanwhile. Skips the test where it cannot be.
    """
    at.mkdir(exist_ok=True)
    try:
        server = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"no file system in user space: {error}")
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0,allow_other"
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"hangs", bytes(at), b"fuse", 0, options.encode()) != 0:
            pytest.skip(f"no file system in user space: {os.strerror(ctypes.get_errno())}")
        try:
            yield
        finally:
            # Elsewhere it may still be mounted, so this alone would leave those there waiting.
            libc.umount2(bytes(at), _MNT_DETACH)
    finally:
        os.close(server)


_MNT_DETACH = 2


def fill(ballast: Path) -> None:
    """Write until there is no space left, also of what others give back meanwhile."""
    with ballast.open("wb", buffering=0) as file:
        while shutil.disk_usage(ballast.parent).free:
            with suppress(OSError):
                file.write(bytes(MIB // 64))
