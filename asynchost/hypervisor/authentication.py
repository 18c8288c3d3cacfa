"""How libvirt is answered when it asks who we are: from its own ``auth.conf``, or not at all."""

from typing import Any, Final

import libvirt


def _refuse_to_answer(_credentials: list[list[Any]], _opaque: object) -> int:
    return -1


# What libvirt's own auth.conf can answer, libvirt takes from there; that works only for kinds of
# credentials that are named here. What is left over is asked of a person: never.
AUTHENTICATION: Final[list[Any]] = [
    [
        libvirt.VIR_CRED_AUTHNAME,
        libvirt.VIR_CRED_PASSPHRASE,
        libvirt.VIR_CRED_ECHOPROMPT,
        libvirt.VIR_CRED_NOECHOPROMPT,
    ],
    _refuse_to_answer,
    None,
]
