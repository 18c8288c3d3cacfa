"""libvirt's errors in this package's terms: refused, gone for now, or passed over."""

from errno import EACCES, ECONNREFUSED, ENOENT

import libvirt
import pytest

from asynchost.errors import HypervisorRefusedError, HypervisorUnavailableError
from asynchost.hypervisor.libvirt_errors import translated, where_supported

URI = "qemu:///system"


class ToldError(libvirt.libvirtError):  # type: ignore[misc]
    """An error as libvirt would have told it: its code, its text and its first number."""

    def __init__(self, code: int, text: str = "told", number: int = 0) -> None:
        super().__init__(text)
        self.err = (code, 0, text, 0, None, None, None, number, 0)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (libvirt.VIR_ERR_AUTH_FAILED, "auth.conf"),
        (libvirt.VIR_ERR_AUTH_CANCELLED, "auth.conf"),
        (libvirt.VIR_ERR_AUTH_UNAVAILABLE, "auth.conf"),
        (libvirt.VIR_ERR_ACCESS_DENIED, "polkit rule"),
        (libvirt.VIR_ERR_NO_CONNECT, "correct the URI"),
        (libvirt.VIR_ERR_INVALID_ARG, "correct the URI"),
        (libvirt.VIR_ERR_XML_ERROR, "correct the URI"),
    ],
)
def test_what_waiting_will_not_mend_is_refused(code: int, remedy: str) -> None:
    """With the URI, libvirt's reason and the way out."""
    error = translated(URI, ToldError(code))
    assert isinstance(error, HypervisorRefusedError)
    assert (error.uri, error.reason) == (URI, "told")
    assert remedy in error.remedy


def test_what_polkit_refuses_is_no_matter_of_passwords() -> None:
    """The commonest refusal of all: a group or a rule mends it."""
    text = "authentication unavailable: no polkit agent available to authenticate action"
    error = translated(URI, ToldError(libvirt.VIR_ERR_AUTH_UNAVAILABLE, text))
    assert isinstance(error, HypervisorRefusedError)
    assert "usermod -aG libvirt" in error.remedy
    assert "org.libvirt.unix.monitor" in error.remedy


@pytest.mark.parametrize(
    "text",
    [
        "internal error: unexpected QEMU URI path '/sytem', try qemu:///system",
        "internal error: Unable to parse URI qemu+tcp://127.0.0.1:/system",
    ],
)
def test_a_wrong_uri_is_refused_by_its_text(text: str) -> None:
    """libvirt has no better code for it than "internal error"."""
    assert isinstance(
        translated(URI, ToldError(libvirt.VIR_ERR_INTERNAL_ERROR, text)), HypervisorRefusedError
    )


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (EACCES, HypervisorRefusedError),
        (ENOENT, HypervisorUnavailableError),
        (ECONNREFUSED, HypervisorUnavailableError),
    ],
)
def test_a_socket_is_refused_only_by_its_rights(number: int, kind: type[Exception]) -> None:
    """One that is missing, or that nobody serves, belongs to a libvirtd that is not up."""
    error = translated(URI, ToldError(libvirt.VIR_ERR_SYSTEM_ERROR, "socket", number))
    assert type(error) is kind


@pytest.mark.parametrize(
    "code", [libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_ERR_RPC, libvirt.VIR_ERR_OPERATION_FAILED]
)
def test_anything_else_is_gone_for_now(code: int) -> None:
    """And tried again."""
    error = translated(URI, ToldError(code))
    assert isinstance(error, HypervisorUnavailableError)
    assert str(error) == f"{URI}: told"


def test_what_a_driver_does_not_have_is_passed_over() -> None:
    """And nothing else."""

    def fail(code: int) -> None:
        raise ToldError(code)

    with where_supported():
        fail(libvirt.VIR_ERR_NO_SUPPORT)
    with pytest.raises(ToldError), where_supported():
        fail(libvirt.VIR_ERR_RPC)
