"""What a URI tells without being opened."""

import pytest

from asynchost.errors import HypervisorRefusedError
from asynchost.hypervisor.uri import check_uri, is_local, is_the_same_for_all, unattended

LOCAL = [
    "qemu:///system",
    "qemu:///session",
    "qemu:///system?socket=/run/libvirt/libvirt-sock",
    "qemu+unix:///system?socket=/tmp/libvirt-sock",
    "test:///default",
    "test:///path/to/host.xml",
    "test+unix:///default",
    "lxc:///system",
    "xen:///system",
    "bhyve:///system",
    "vz:///system",
]
REMOTE = [
    "qemu+ssh://root@node-1/system",
    "qemu+tls://node-1.example/system",
    "qemu+tcp://node-1:16509/system",
    "qemu+libssh2://node-1/system?known_hosts=/etc/hosts",
    "qemu+ext://node-1/system?command=/bin/nc",
    "xen+ssh://[2001:db8::1]/system",
    "qemu://node-1/system",
]


@pytest.mark.parametrize("uri", LOCAL)
def test_a_uri_without_a_host_is_this_machine(uri: str) -> None:
    """Its disk is a file system that can be looked at."""
    assert is_local(uri)


@pytest.mark.parametrize("uri", REMOTE)
def test_a_uri_with_a_host_is_another_machine(uri: str) -> None:
    """Of its folders, libvirt has to tell."""
    assert not is_local(uri)
    assert check_uri(uri).netloc


@pytest.mark.parametrize(
    ("uri", "reason", "remedy"),
    [
        ("", "it names no driver", "as in qemu:///system"),
        ("/system", "it names no driver", "as in qemu:///system"),
        ("quemu:///system", "unknown driver 'quemu'", "use one of qemu, lxc,"),
        ("http://node-1/", "unknown driver 'http'", "use one of qemu, lxc,"),
        ("esx://node-1/", "unknown driver 'esx'", "use one of qemu, lxc,"),
        ("qemu+carrier-pigeon://node-1/", "unknown transport 'carrier-pigeon'", "tls, tcp, ssh"),
        ("qemu+tcp://node-1:port/system", "Port could not be cast", "DRIVER[+TRANSPORT]://"),
        ("qemu+tcp://node-1:99999/system", "Port out of range", "DRIVER[+TRANSPORT]://"),
        ("qemu+ssh://[2001:db8::1/system", "Invalid IPv6 URL", "DRIVER[+TRANSPORT]://"),
    ],
)
def test_a_uri_that_can_never_be_opened_is_refused(uri: str, reason: str, remedy: str) -> None:
    """With what is wrong and what would do; libvirt would have it waited for."""
    with pytest.raises(HypervisorRefusedError) as refused:
        check_uri(uri)
    assert refused.value.uri == uri
    assert reason in refused.value.reason
    assert remedy in refused.value.remedy
    with pytest.raises(HypervisorRefusedError):
        is_local(uri)


@pytest.mark.parametrize(
    ("uri", "same"),
    [
        ("qemu:///system", True),
        ("lxc:///", True),
        ("qemu+tls://node-1/system", True),
        ("test+unix:///default?socket=/s", True),
        ("test:///default", False),
        ("test:///tmp/file.xml", False),
        ("qemu:///session", False),
        ("qemu:///embed?root=/tmp/x", False),
        ("qemu+ssh://node-1/system?command=/tmp/x", False),
        ("qemu+ext:///system?command=/tmp/x", False),
        ("esx://node-1/", False),
    ],
)
def test_a_uri_that_means_the_same_to_every_user(uri: str, same: bool) -> None:
    """Nothing of the user's own, and nothing that would be run."""
    assert is_the_same_for_all(uri) is same


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("qemu+ssh://node-1/system", "qemu+ssh://node-1/system?no_tty=1"),
        ("qemu+ssh:///system?", "qemu+ssh:///system?no_tty=1"),
        (
            "qemu+ssh://root@node-1:22/system?keyfile=/etc/key",
            "qemu+ssh://root@node-1:22/system?keyfile=/etc/key&no_tty=1",
        ),
        ("qemu+ssh://node-1/system?no_tty=0", "qemu+ssh://node-1/system?no_tty=0"),
    ],
)
def test_ssh_is_told_to_ask_nobody(uri: str, expected: str) -> None:
    """Unless the URI itself says what ssh may do."""
    assert unattended(uri) == expected


@pytest.mark.parametrize("uri", [*LOCAL, *(uri for uri in REMOTE if "+ssh:" not in uri)])
def test_other_transports_ask_nobody_anyway(uri: str) -> None:
    """Their URIs go to libvirt as they came."""
    assert unattended(uri) == uri
