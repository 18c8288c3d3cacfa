"""Disk images for the tests, and what they may still grow by: from ``qemu-img``, not from libvirt.

Sizes are whole GiB, and thin: nothing here takes room but what :func:`fill` allocates. Blocking.
"""

import json
import subprocess
from pathlib import Path
from xml.sax.saxutils import quoteattr

from tests.support import guests
from tests.support.namespace import search_path

GIB = 2**30


def _run(*command: str | Path) -> str:
    return subprocess.run(
        [str(word) for word in command],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": search_path()},
        timeout=30,
    ).stdout


def raw(path: Path, size_gib: int, filled_gib: int = 0) -> Path:
    """A sparse raw image, filled from its beginning."""
    with path.open("wb") as image:
        image.truncate(size_gib * GIB)
    if filled_gib:
        fill(path, filled_gib)
    return path


def fill(path: Path, size_gib: int) -> None:
    """Allocate room from a file's beginning, without writing it."""
    _run("fallocate", "--length", str(size_gib * GIB), path)


def qcow2(path: Path, size_gib: int, *options: str, backing: Path | None = None) -> Path:
    """A qcow2 image, empty or on top of another one of that format."""
    base = [] if backing is None else ["-b", backing, "-F", "qcow2"]
    _run("qemu-img", "create", "-q", "-f", "qcow2", *base, *options, path, f"{size_gib}G")
    return path


def growth_bytes(*images: Path) -> int:
    """What these images may still grow by: their virtual size beyond what they occupy."""
    total = 0
    for image in images:
        # -U: also while a guest has it open.
        told = json.loads(_run("qemu-img", "info", "-U", "--output=json", image))
        total += max(0, told["virtual-size"] - told["actual-size"])
    return total


def disk_xml(
    source: Path | str,
    target: str = "vda",
    *more: str,
    image_format: str = "",
    device: str = "disk",
    kind: str = "file",
) -> str:
    """A guest's disk: a file, or with ``kind`` whatever its ``<source/>`` says."""
    element = f"<source file={quoteattr(str(source))}/>" if kind == "file" else str(source)
    form = image_format or ("qcow2" if str(source).endswith(".qcow2") else "raw")
    bus = {"vd": "virtio", "sd": "scsi", "hd": "ide", "fd": "fdc"}[target[:2]]
    return (
        f"<disk type='{kind}' device='{device}'><driver name='qemu' type='{form}'/>{element}"
        f"<target dev='{target}' bus='{bus}'/>{''.join(more)}</disk>"
    )


def guest_xml(name: str, *disks: str, kind: guests.Kind = "qemu") -> str:
    """A guest with disks."""
    xml = guests.guest_xml(name, kind=kind)
    return xml.replace("</devices>", f"{''.join(disks)}</devices>")
