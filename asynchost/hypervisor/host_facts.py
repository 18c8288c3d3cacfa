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


UNKNOWN_VERSION: Final = 0
"""Stands for a hypervisor's version that libvirt cannot tell: the column cannot be NULL."""


def read_facts(connection: libvirt.virConnect) -> HostFacts:
    """Ask for everything that a row says of the host itself. Slow: it asks for capabilities.

    Sources: ``virConnectGetType``, ``virConnectGetVersion``, ``virConnectGetHostname``,
    ``virNodeGetInfo``, ``virConnectGetCapabilities``, ``virConnectBaselineCPU``. The version is
    ``UNKNOWN_VERSION`` where libvirt cannot tell it. Raises ``libvirtError`` where anything else
    fails.
    """
    node = connection.getInfo()
    # The document comes from the libvirtd that this process trusts with everything else.
    capabilities = ET.fromstring(connection.getCapabilities())  # noqa: S314
    try:
        version = read_version(connection)
    except libvirt.libvirtError:
        if not connection.isAlive():
            raise
        version = UNKNOWN_VERSION
    return HostFacts(
        hostname=connection.getHostname(),
        hypervisor_type=connection.getType(),
        hypervisor_version=version,
        vcpus=node[2],
        memory_mb=node[1],
        cpu_info=cpu_info(capabilities, features_with_the_models(connection, capabilities)),
        supported_instances=supported_instances(capabilities),
    )


def read_version(connection: libvirt.virConnect) -> int:
    """The hypervisor's version, as libvirt's integer.

    Raises ``libvirtError`` where libvirt cannot tell it: QEMU's driver asks the emulator, and
    finds none where the emulator is in no folder that libvirt searches.
    """
    return int(connection.getVersion())


def read_node(connection: libvirt.virConnect) -> tuple[int, int]:
    """The host's CPUs and memory in MiB, which can change while it runs."""
    node = connection.getInfo()
    return node[2], node[1]


def features_with_the_models(
    connection: libvirt.virConnect, document: ET.Element
) -> list[str] | None:
    """The names of all features of the host's CPU: the listed ones, and those of its CPU model.

    The capabilities document lists only features that the model does not stand for. None where
    libvirt names no model or refuses to expand it (every driver but QEMU's), and on aarch64,
    where libvirt expands no model. Nova does the same. Raises ``libvirtError`` where the
    connection is lost.
    """
    cpu = document.find("host/cpu")
    if cpu is None or _text(cpu, "model") is None or _text(cpu, "arch") == "aarch64":
        return None
    try:
        expanded = connection.baselineCPU(
            [ET.tostring(cpu, encoding="unicode")],
            libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES,
        )
    except libvirt.libvirtError:
        if not connection.isAlive():
            raise
        return None
    return _features(ET.fromstring(expanded)) or None  # noqa: S314 - from libvirtd


def cpu_info(document: ET.Element, features: list[str] | None = None) -> dict[str, Any]:
    """The CPU description of libvirt's capabilities document, with Nova's keys.

    ``features`` replace the document's own list. Five keys are always there: a value that the
    driver does not tell is None, and features are then an empty list. The test and LXC drivers
    tell little. The sixth, ``maxphysaddr``, is there only where libvirt tells the width of
    physical addresses: libvirt 8.7 and later, on x86.
    """
    cpu = document.find("host/cpu")
    if cpu is None:
        cpu = ET.Element("cpu")
    cells = document.find("host/topology/cells")
    topology = cpu.find("topology")
    described: dict[str, Any] = {
        "arch": _text(cpu, "arch"),
        "model": _text(cpu, "model"),
        "vendor": _text(cpu, "vendor"),
        "topology": {
            "cells": None if cells is None else len(cells.findall("cell")),
            "sockets": _number(topology, "sockets"),
            "cores": _number(topology, "cores"),
            "threads": _number(topology, "threads"),
        },
        "features": _features(cpu) if features is None else features,
    }
    width = cpu.find("maxphysaddr")
    if width is not None:
        described["maxphysaddr"] = {"mode": width.get("mode"), "bits": _number(width, "bits")}
    return described


def _features(cpu: ET.Element) -> list[str]:
    """The names of the features of a ``<cpu>``, sorted, each once, without those that it lacks."""
    return sorted(
        {
            name
            for feature in cpu.findall("feature")
            if (name := feature.get("name")) and feature.get("policy") != "disable"
        }
    )


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
