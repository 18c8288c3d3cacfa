"""What a host is: its type, version, name, CPUs and memory. Blocking functions, for threads."""

import xml.etree.ElementTree as ET
from typing import Any, Final

import libvirt

from asynchost.model import HostFacts

# Names that Nova's readers know, which refuse a whole row for one that they do not: libvirt's
# architectures, hypervisors and modes, less those that came later.
_ARCHITECTURES: Final = frozenset(
    [
        *("aarch64", "alpha", "armv6l", "armv7b", "armv7l", "cris", "i686", "ia64", "lm32"),
        *("m68k", "microblaze", "microblazeel", "mips", "mips64", "mips64el", "mipsel"),
        *("parisc", "parisc64", "ppc", "ppc64", "ppc64le", "ppcemb", "ppcle", "s390", "s390x"),
        *("sh4", "sh4eb", "sparc", "sparc64", "unicore32", "x86_64", "xtensa", "xtensaeb"),
    ]
)
_HYPERVISORS: Final = frozenset(
    [
        *("bhyve", "hyperv", "kqemu", "kvm", "lxc", "openvz", "parallels", "phyp", "qemu"),
        *("test", "uml", "vbox", "vmware", "vz", "xen"),
    ]
)
_MODES: Final = frozenset(("exe", "hvm", "uml", "xen"))
_OTHER_NAMES: Final = {
    **dict.fromkeys(("i386", "i486", "i586", "x86_32", "x86_32p"), "i686"),
    "amd64": "x86_64",
    "xapi": "xen",
}


def read_facts(connection: libvirt.virConnect) -> HostFacts:
    """Ask for everything that a row says of the host itself. Slow: it asks for capabilities.

    Sources: ``virConnectGetType``, ``virConnectGetVersion``, ``virConnectGetHostname``,
    ``virNodeGetInfo``, ``virConnectGetCapabilities``.
    """
    node = connection.getInfo()
    # The document comes from the libvirtd that this process trusts with everything else.
    capabilities = ET.fromstring(connection.getCapabilities())  # noqa: S314
    return HostFacts(
        hostname=connection.getHostname(),
        hypervisor_type=connection.getType(),
        hypervisor_version=connection.getVersion(),
        vcpus=node[2],
        memory_mb=node[1],
        cpu_info=cpu_info(capabilities),
        supported_instances=supported_instances(capabilities),
    )


def read_node(connection: libvirt.virConnect) -> tuple[int, int]:
    """The host's CPUs and memory in MiB, which can change while it runs."""
    node = connection.getInfo()
    return node[2], node[1]


def cpu_info(document: ET.Element) -> dict[str, Any]:
    """The CPU description of libvirt's capabilities document.

    All five keys are always there: what the driver does not tell is None, and features then an
    empty list. The test and LXC drivers tell little.
    """
    cpu = document.find("host/cpu")
    if cpu is None:
        cpu = ET.Element("cpu")
    cells = document.find("host/topology/cells")
    topology = cpu.find("topology")
    return {
        "arch": _text(cpu, "arch"),
        "model": _text(cpu, "model"),
        "vendor": _text(cpu, "vendor"),
        "topology": {
            "cells": None if cells is None else len(cells.findall("cell")),
            "sockets": _number(topology, "sockets"),
            "cores": _number(topology, "cores"),
            "threads": _number(topology, "threads"),
        },
        "features": sorted(
            name for feature in cpu.findall("feature") if (name := feature.get("name"))
        ),
    }


def supported_instances(document: ET.Element) -> tuple[tuple[str, str, str], ...]:
    """Which guests libvirt's capabilities document promises to run, each once, in its order.

    As (architecture, hypervisor, mode) in Nova's names; what Nova has no name for is left out.
    """
    found: dict[tuple[str, str, str], None] = {}
    for guest in document.findall("guest"):
        mode = _name(guest.findtext("os_type"))
        for arch in guest.findall("arch"):
            architecture = _name(arch.get("name"))
            for domain in arch.findall("domain"):
                hypervisor = _name(domain.get("type"))
                if architecture in _ARCHITECTURES and hypervisor in _HYPERVISORS and mode in _MODES:
                    found[architecture, hypervisor, mode] = None
    return tuple(found)


def _name(name: str | None) -> str:
    name = (name or "").lower()
    return _OTHER_NAMES.get(name, name)


def _text(parent: ET.Element, name: str) -> str | None:
    return parent.findtext(name) or None


def _number(element: ET.Element | None, name: str) -> int | None:
    value = None if element is None else element.get(name)
    return int(value) if value is not None and value.isdigit() else None
