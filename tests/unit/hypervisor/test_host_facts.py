"""What a host is, from the capabilities that three drivers really gave.

Xen, bhyve and VZ, which do not run here, are told by the form that their drivers give their
documents.
"""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import libvirt
import pytest

from asynchost.hypervisor.host_facts import (
    cpu_info,
    features_with_the_models,
    read_facts,
    read_node,
    supported_instances,
)

DOCUMENTS = Path(__file__).parent / "capabilities"
KEYS = {"arch", "model", "vendor", "topology", "features"}


def document(driver: str) -> ET.Element:
    """A driver's capabilities as libvirt 9.0 wrote them, long lists cut down to a few entries."""
    return ET.fromstring((DOCUMENTS / f"{driver}.xml").read_text())


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
        "maxphysaddr": {"mode": "emulate", "bits": 48},
    }


def test_a_feature_that_the_cpu_lacks_is_none_of_its_features() -> None:
    """A CPU model may stand for a feature that this CPU lacks: libvirt says so by a policy."""
    features = "".join(
        f"<feature name='{name}'{policy}/>"
        for name, policy in (("b", " policy='require'"), ("c", " policy='disable'"), ("a", ""))
    )
    document = f"<capabilities><host><cpu>{features * 2}</cpu></host></capabilities>"
    assert cpu_info(ET.fromstring(document))["features"] == ["a", "b"]


@pytest.mark.parametrize(
    ("element", "told"),
    [
        ("<maxphysaddr mode='passthrough'/>", {"mode": "passthrough", "bits": None}),
        ("<maxphysaddr bits='46'/>", {"mode": None, "bits": 46}),
        ("<maxphysaddr mode='emulate' bits='x'/>", {"mode": "emulate", "bits": None}),
    ],
)
def test_the_width_of_addresses_is_told_as_far_as_libvirt_tells_it(
    element: str, told: dict[str, Any]
) -> None:
    """The key is there where the element is; what the element does not say is None."""
    document = f"<capabilities><host><cpu>{element}</cpu></host></capabilities>"
    assert cpu_info(ET.fromstring(document))["maxphysaddr"] == told


def test_a_cpu_models_features_are_asked_for_where_libvirt_can_tell_them() -> None:
    """By any x86 connection; of a CPU without a model, or of aarch64, nothing is asked."""
    connection = libvirt.openReadOnly("test:///default")
    try:
        expanded = features_with_the_models(connection, document("qemu"))
        assert expanded is not None
        assert {"apic", "aes"} <= set(expanded), "of the model, and listed"
        assert expanded == sorted(expanded)
        for driver in ("test", "lxc"):
            assert features_with_the_models(connection, document(driver)) is None
        for arch in ("aarch64", "no-such-architecture"):
            other = document("qemu")
            for element in other.iterfind("host/cpu/arch"):
                element.text = arch
            assert features_with_the_models(connection, other) is None
    finally:
        connection.close()


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


def test_bhyve_tells_the_cpu_and_no_cells() -> None:
    """Its driver never fills in the host's NUMA cells."""
    assert cpu_info(document("bhyve")) == {
        "arch": "x86_64",
        "model": "Broadwell-IBRS",
        "vendor": "Intel",
        "topology": {"cells": None, "sockets": 1, "cores": 4, "threads": 2},
        "features": ["hypervisor", "vmx"],
    }


def test_vz_tells_everything() -> None:
    """CPU and cells."""
    assert cpu_info(document("vz")) == {
        "arch": "x86_64",
        "model": "SandyBridge-IBRS",
        "vendor": "Intel",
        "topology": {"cells": 1, "sockets": 2, "cores": 2, "threads": 1},
        "features": ["ds", "vmx"],
    }


def test_xen_tells_the_cpu_that_its_hypervisor_sees() -> None:
    """Its own list of features, which only names PAE, is not the CPU's."""
    assert cpu_info(document("xen")) == {
        "arch": "x86_64",
        "model": "Haswell-noTSX",
        "vendor": "Intel",
        "topology": {"cells": 2, "sockets": 2, "cores": 1, "threads": 1},
        "features": ["abm", "hypervisor"],
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
    told = cpu_info(ET.fromstring(capabilities))
    assert set(told) == KEYS
    assert told == {
        "arch": None,
        "model": None,
        "vendor": None,
        "topology": {"cells": None, "sockets": None, "cores": None, "threads": None},
        "features": [],
    }


def as_nova_has_it(document: ET.Element) -> dict[str, Any]:
    """The same keys from the same elements, by code that shares nothing with the package.

    Nova takes a host that tells no cell for one of one cell, and lets libvirt add the features
    that the CPU's model implies; here, unknown is null, and features are those of the document.
    """
    topology = document.find("./host/cpu/topology")
    counts = {} if topology is None else topology.attrib
    width = document.find("./host/cpu/maxphysaddr")
    widths = {} if width is None else dict(width.attrib)
    return {
        "arch": getattr(document.find("./host/cpu/arch"), "text", None),
        "model": getattr(document.find("./host/cpu/model"), "text", None),
        "vendor": getattr(document.find("./host/cpu/vendor"), "text", None),
        "topology": {
            "cells": len(document.findall("./host/topology/cells/cell")) or None,
            **{
                name: int(counts[name]) if name in counts else None
                for name in ("sockets", "cores", "threads")
            },
        },
        "features": sorted({one.attrib["name"] for one in document.findall("./host/cpu/feature")}),
        **({"maxphysaddr": {**widths, "bits": int(widths["bits"])}} if widths else {}),
    }


@pytest.mark.parametrize("driver", ["qemu", "lxc", "test", "xen", "bhyve", "vz"])
def test_the_description_has_novas_keys_and_values(driver: str) -> None:
    """Who reads the column needs not know who wrote it."""
    assert cpu_info(document(driver)) == as_nova_has_it(document(driver))


@pytest.mark.parametrize(
    ("driver", "supported"),
    [
        (
            "qemu",
            (
                *(("i686", "qemu", "hvm"), ("i686", "kvm", "hvm")),
                *(("x86_64", "qemu", "hvm"), ("x86_64", "kvm", "hvm")),
            ),
        ),
        ("lxc", (("x86_64", "lxc", "exe"), ("i686", "lxc", "exe"))),
        ("test", (("i686", "test", "hvm"), ("i686", "test", "xen"))),
        (
            "xen",
            (("x86_64", "xen", "xen"), ("i686", "xen", "hvm"), ("x86_64", "xen", "hvm")),
        ),
        ("bhyve", (("x86_64", "bhyve", "hvm"),)),
        (
            "vz",
            tuple(
                (arch, hypervisor, mode)
                for mode in ("hvm", "exe")
                for arch in ("i686", "x86_64")
                for hypervisor in ("parallels", "vz")
            ),
        ),
    ],
)
def test_supported_instances_of_each_driver(
    driver: str, supported: tuple[tuple[str, str, str], ...]
) -> None:
    """Architecture, hypervisor and mode, in the document's order; Xen's PVH has no name there."""
    assert supported_instances(document(driver)) == supported


def guest(mode: str, arch: str, *domains: str) -> str:
    """One ``<guest>`` of a capabilities document."""
    types = "".join(f"<domain type='{domain}'/>" for domain in domains)
    return f"<guest><os_type>{mode}</os_type><arch name='{arch}'>{types}</arch></guest>"


@pytest.mark.parametrize(
    ("guests", "supported"),
    [
        ("", ()),
        ("<guest/>", ()),
        ("<guest><os_type/><arch/></guest>", ()),
        (guest("hvm", "riscv64", "qemu"), ()),
        (guest("hvm", "s390x", "qemu", "hvf", "kvm"), ("s390x qemu hvm", "s390x kvm hvm")),
        (guest("xen", "x86_64", "kvm"), ("x86_64 kvm xen",)),
        (guest("xenpvh", "x86_64", "xen"), ()),
        (guest("hvm", "amd64", "bhyve"), ("x86_64 bhyve hvm",)),
        (guest("HVM", "i386", "QEMU"), ("i686 qemu hvm",)),
        (guest("exe", "x86_64", "vz"), ("x86_64 vz exe",)),
        (guest("hvm", "x86_64", "kvm", "kvm") * 2, ("x86_64 kvm hvm",)),
    ],
)
def test_supported_instances_have_novas_names(guests: str, supported: tuple[str, ...]) -> None:
    """Its readers refuse a row for one name that they do not know."""
    told = supported_instances(ET.fromstring(f"<capabilities>{guests}</capabilities>"))
    assert tuple(" ".join(one) for one in told) == supported


def test_the_test_drivers_host_is_read_whole() -> None:
    """libvirt's own test driver, inside this process: the same facts for everybody."""
    connection = libvirt.openReadOnly("test:///default")
    try:
        facts = read_facts(connection)
        assert read_node(connection) == (facts.vcpus, facts.memory_mb) == (16, 3072)
        assert facts.hostname == connection.getHostname()
        assert (facts.hypervisor_type, facts.hypervisor_version) == ("TEST", 2)
        capabilities = ET.fromstring(connection.getCapabilities())
        assert facts.cpu_info == cpu_info(capabilities)
        assert facts.supported_instances == supported_instances(capabilities)
        assert facts.supported_instances == (("i686", "test", "hvm"), ("i686", "test", "xen"))
    finally:
        connection.close()
