"""libvirt's errors in the terms of this package: refused, gone for now, or not worth a word."""

from collections.abc import Iterator
from contextlib import contextmanager
from errno import EACCES
from typing import Final

import libvirt

from asynchost.errors import HypervisorRefusedError, HypervisorUnavailableError

_AUTHENTICATION_ERRORS: Final = frozenset(
    {
        libvirt.VIR_ERR_AUTH_FAILED,
        libvirt.VIR_ERR_AUTH_CANCELLED,
        libvirt.VIR_ERR_AUTH_UNAVAILABLE,
        libvirt.VIR_ERR_ACCESS_DENIED,
    }
)
_MALFORMED: Final = frozenset(
    {libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_INVALID_ARG, libvirt.VIR_ERR_XML_ERROR}
)

_POLKIT_REMEDY: Final = (
    "let this user in: by the group libvirt (usermod -aG libvirt USER), or by a polkit rule for"
    " org.libvirt.unix.monitor; where libvirtd has access_drivers = [ 'polkit' ], also for"
    " org.libvirt.api.connect.* and org.libvirt.api.domain.*, each with getattr, read and"
    " search-domains; libvirt's auth.conf, which is for passwords, does not help here"
)


def quiet_libvirt() -> None:
    """Keep libvirt from printing each error to stderr as well as raising it.

    For programs, not for libraries: the handler is one per process, so an embedder that has one
    of its own should not call this.
    """
    libvirt.registerErrorHandler(lambda *_: None, None)


def translated(
    uri: str, error: libvirt.libvirtError
) -> HypervisorUnavailableError | HypervisorRefusedError:
    """libvirt's error in the terms of this package: refused, or gone for now."""
    code = error.get_error_code()
    reason = str(error)
    if code == libvirt.VIR_ERR_ACCESS_DENIED or (
        "polkit" in reason and code in _AUTHENTICATION_ERRORS
    ):
        return HypervisorRefusedError(uri, reason, _POLKIT_REMEDY)
    if code in _AUTHENTICATION_ERRORS:
        return HypervisorRefusedError(
            uri, reason, "put the credentials into libvirt's auth.conf; nobody is ever asked"
        )
    if error.get_int1() == EACCES and code == libvirt.VIR_ERR_SYSTEM_ERROR:
        return HypervisorRefusedError(
            uri, reason, "let this user use libvirt's socket (usually the group libvirt)"
        )
    # A path such as qemu:///sytem is an "internal error", as is much that passes by itself.
    if code in _MALFORMED or "URI path" in reason or "parse URI" in reason:
        return HypervisorRefusedError(uri, reason, "correct the URI")
    return HypervisorUnavailableError(uri, reason)


@contextmanager
def where_supported() -> Iterator[None]:
    """Pass over what this driver does not have."""
    try:
        yield
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
