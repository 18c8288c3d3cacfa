"""What a host is: its type, version, name, CPUs and memory. Blocking functions, for threads."""

import xml.etree.ElementTree as ET
from typing import Any

import libvirt

from asynchost.model import HostFacts


def read_facts(connection: libvirt.virConnect) -> HostFacts:
    """Ask for everything that a row says of the host itself. Slow: it asks for capabilities.

    Sources: ``virConnectGetType``, ``virConnectGetVersion``, ``virConnectGetHostname``,
    ``virNodeGetInfo``, ``virConnectGetCapabilities``.
    """
    node = connection.getInfo()
    return HostFacts(
        hostname=connection.getHostname(),
        hypervisor_type=connection.getType(),
        hypervisor_version=connection.getVersion(),
        vcpus=node[2],
        memory_mb=node[1],
        cpu_info=cpu_info(connection.getCapabilities()),
    )


def read_node(connection: libvirt.virConnect) -> tuple[int, int]:
    """The host's CPUs and memory in MiB, which can change while it runs."""
    node = connection.getInfo()
    return node[2], node[1]


def cpu_info(capabilities: str) -> dict[str, Any]:
    """The CPU description of libvirt's capabilities document.

    All five keys are always there: what the driver does not tell is None, and features then an
    empty list. The test and LXC drivers tell little.
    """
    # The document comes from the libvirtd that this process trusts with everything else.
    document = ET.fromstring(capabilities)  # noqa: S314
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


def _text(parent: ET.Element, name: str) -> str | None:
    return parent.findtext(name) or None


def _number(element: ET.Element | None, name: str) -> int | None:
    value = None if element is None else element.get(name)
    return int(value) if value is not None and value.isdigit() else None
