"""What can be told from a libvirt connection URI without opening it. Pure text."""

from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

from asynchost.errors import HypervisorRefusedError

# The drivers that report domain events.
_DRIVERS: Final = ("qemu", "lxc", "xen", "bhyve", "vz", "test")
_WITHOUT_COMMANDS: Final = ("", "unix", "tcp", "tls")
_OF_THE_SYSTEM: Final = ("", "/", "/system", "/default")
_FORM: Final = "write DRIVER[+TRANSPORT]://HOST/PATH"
_TRANSPORTS: Final = ("tls", "tcp", "ssh", "unix", "ext", "libssh", "libssh2")


def check_uri(uri: str) -> SplitResult:
    """Split the URI.

    Raises :class:`HypervisorRefusedError` for a scheme that libvirt, or this program, does not
    know: libvirt itself takes such a one for a daemon that is not up, and would be waited for.
    So for what is no text that libvirt can be given.
    """
    if not isinstance(uri, str):
        raise HypervisorRefusedError(repr(uri), "it is no text", _FORM)
    odd = next((letter for letter in uri if _is_odd(letter)), None)
    if odd is not None:
        raise HypervisorRefusedError(
            ascii(uri)[1:-1], f"it holds the character {odd!a}, which no URI may", _FORM
        )
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError as error:
        raise HypervisorRefusedError(uri, str(error), _FORM) from None
    driver, _, transport = parts.scheme.partition("+")
    if driver not in _DRIVERS:
        raise HypervisorRefusedError(
            uri,
            f"unknown driver {driver!r}" if driver else "it names no driver",
            f"use one of {', '.join(_DRIVERS)}, as in qemu:///system",
        )
    if transport and transport not in _TRANSPORTS:
        raise HypervisorRefusedError(
            uri, f"unknown transport {transport!r}", f"use one of {', '.join(_TRANSPORTS)}"
        )
    return parts


def _is_odd(letter: str) -> bool:
    """Whether it is a control character, or half of a pair that UTF-8 does not know."""
    return letter < " " or letter == "\x7f" or "\ud800" <= letter <= "\udfff"


def is_local(uri: str) -> bool:
    """Whether the URI names no host part: its hypervisor is this machine's."""
    return not check_uri(uri).netloc


def is_in_process(uri: str) -> bool:
    """Whether the host exists only inside the process that opens it: libvirt's test driver
    without a daemon. Another process that opens the same URI sees another host."""
    parts = check_uri(uri)
    return parts.scheme == "test" and not parts.netloc


def is_the_same_for_all(uri: str) -> bool:
    """Whether every user who opens the URI reaches the same host, and runs nothing by it.

    ``session`` and ``embed`` are each user's own, a path may be a file, and ssh and ext can be
    given a command.
    """
    try:
        parts = check_uri(uri)
    except HypervisorRefusedError:
        return False
    transport = parts.scheme.partition("+")[2]
    return (
        transport in _WITHOUT_COMMANDS and parts.path in _OF_THE_SYSTEM and not is_in_process(uri)
    )


def unattended(uri: str) -> str:
    """The URI with which libvirt asks nobody: ``ssh`` would ask on the terminal for a password,
    or whether to trust a host. One that says ``no_tty`` itself is left alone."""
    parts = check_uri(uri)
    asked = parts.scheme.endswith("+ssh") and not any(
        name == "no_tty" for name, _ in parse_qsl(parts.query, keep_blank_values=True)
    )
    if not asked:
        return uri
    # Not put together anew: without a host that would lose the slashes.
    address, _, _ = uri.partition("#")
    return f"{address.rstrip('?')}{'&' if parts.query else '?'}no_tty=1"
