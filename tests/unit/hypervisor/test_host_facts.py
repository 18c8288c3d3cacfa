"""What a host is, from the capabilities that three drivers really gave."""

from pathlib import Path

import libvirt
import pytest

from asynchost.hypervisor.host_facts import cpu_info, read_facts, read_node

DOCUMENTS = Path(__file__).parent / "capabilities"
KEYS = {"arch", "model", "vendor", "topology", "features"}


def document(driver: str) -> str:
    """The ``<host>`` part of a driver's capabilities, as libvirt 9.0 wrote it."""
    return (DOCUMENTS / f"{driver}.xml").read_text()


def test_qemu_tells_everything() -> None:
    """A real x86 host's document, its features cut down to a few."""
    assert cpu_info(document("qemu")) == {
        "arch": "x86_64",
        "model": "kvm64",
        "vendor": "AMD",
        "topology": {"cells": 1, "sockets": 1, "cores": 2, "threads": 1},
        "features": [
            "3dnowprefetch",
            "aes",
            "avx",
            "avx512-vpopcntdq",
            "cmp_legacy",
            "hypervisor",
            "lahf_lm",
            "osvw",
            "sse4.1",
            "ssse3",
            "vme",
            "xsaveerptr",
        ],
    }


@pytest.mark.parametrize(("driver", "arch", "cells"), [("test", "i686", 2), ("lxc", "x86_64", 1)])
def test_other_drivers_tell_little(driver: str, arch: str, cells: int) -> None:
    """What they do not tell is None, and no feature is an empty list."""
    assert cpu_info(document(driver)) == {
        "arch": arch,
        "model": None,
        "vendor": None,
        "topology": {"cells": cells, "sockets": None, "cores": None, "threads": None},
        "features": [],
    }


@pytest.mark.parametrize(
    "capabilities",
    [
        "<capabilities/>",
        "<capabilities><host/></capabilities>",
        "<capabilities><host><cpu/><topology/></host></capabilities>",
        "<capabilities><host><cpu><arch/><topology/><feature/></cpu></host></capabilities>",
        "<capabilities><host><cpu><topology sockets='' threads='-1'/></cpu></host></capabilities>",
    ],
)
def test_all_five_keys_are_always_there(capabilities: str) -> None:
    """A reader of the column needs no second guess."""
    told = cpu_info(capabilities)
    assert set(told) == KEYS
    assert told == {
        "arch": None,
        "model": None,
        "vendor": None,
        "topology": {"cells": None, "sockets": None, "cores": None, "threads": None},
        "features": [],
    }


def test_the_test_drivers_host_is_read_whole() -> None:
    """libvirt's own test driver, inside this process: the same facts for everybody."""
    connection = libvirt.openReadOnly("test:///default")
    try:
        facts = read_facts(connection)
        assert read_node(connection) == (facts.vcpus, facts.memory_mb) == (16, 3072)
        assert facts.hostname == connection.getHostname()
        assert (facts.hypervisor_type, facts.hypervisor_version) == ("TEST", 2)
        assert facts.cpu_info == cpu_info(connection.getCapabilities())
    finally:
        connection.close()
