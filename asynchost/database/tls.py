"""TLS to the database: what was asked for, and the context that insists on it.

Pure but for reading the files that it is given. The modes are those of MySQL's own clients, less
the one that falls back to plain text.
"""

import ssl
from dataclasses import dataclass
from enum import StrEnum

from asynchost.errors import DatabaseRefusedError

_OTHER_NAME = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""
_NO_TIME = (9, 10)
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""
_FLAWED = (24, 26, 66, 67, 68, 79)
"""A certificate that is no authority's, is for another purpose, or has a weak key or digest."""


class Mode(StrEnum):
    """How much of the server is checked. Each refuses a server that does not speak TLS."""

    REQUIRED = "REQUIRED"
    """Encrypted, whoever it is: no protection against somebody in between."""
    VERIFY_CA = "VERIFY_CA"
    """Its certificate is signed by the CA."""
    VERIFY_IDENTITY = "VERIFY_IDENTITY"
    """And made out to the host's name, or address, as it stands in the URL."""


@dataclass(frozen=True, slots=True)
class Tls:
    """What the URL's ``ssl_…`` options ask for. Paths are absolute."""

    mode: Mode = Mode.VERIFY_IDENTITY
    ca: str | None = None
    """The certificates to trust, PEM; None: the system's."""
    cert: str | None = None
    """The client's certificate, PEM, for an account that asks for one."""
    key: str | None = None
    """Its private key; None: in the same file."""

    def options(self) -> dict[str, str]:
        """The URL's options that mean this."""
        files = {"ssl_ca": self.ca, "ssl_cert": self.cert, "ssl_key": self.key}
        given = {name: path for name, path in files.items() if path is not None}
        return {"ssl_mode": self.mode.value, **given}

    def context(self, database: str) -> ssl.SSLContext:
        """The context for one connection; the files are read anew, since certificates expire.

        :raises DatabaseRefusedError: a file cannot be read or holds no such thing; it is named.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (OSError, ValueError) as error:
            raise _unusable(database, "ssl_ca", self.ca, error) from None
        # Python 3.13 began to ask of an authority what MySQL's own, and any made by a plain
        # "openssl req -x509", does not have: key usage and key identifiers.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.check_hostname = self.mode is Mode.VERIFY_IDENTITY
        if self.mode is Mode.REQUIRED:
            context.verify_mode = ssl.CERT_NONE
        if self.cert is not None:
            try:
                # Asked for a passphrase it would stop and wait at a terminal; so: none.
                context.load_cert_chain(self.cert, self.key, password="")
            except (OSError, ValueError) as error:
                files = self.cert if self.key is None else f"{self.cert} with ssl_key {self.key}"
                raise _unusable(database, "ssl_cert", files, error) from None
        return context


def remedy(cause: ssl.SSLError) -> str:
    """The way out of a handshake that failed."""
    if not isinstance(cause, ssl.SSLCertVerificationError):
        return "the server may want a client's certificate: give ssl_cert and ssl_key"
    if cause.verify_code in _OTHER_NAME:
        return "give the host by a name that is in its certificate, or ssl_mode=VERIFY_CA"
    if cause.verify_code in _NO_TIME:
        return "renew that certificate, the server's or its CA's, or set the clock of this machine"
    if cause.verify_code in _FLAWED:
        return (
            "make that certificate, the server's or its CA's, anew: a CA's has basicConstraints"
            " CA:TRUE, and a server's extended key usage, if it names any, is serverAuth"
        )
    return "give the certificate of the CA that signed the server's as ssl_ca"


def _unusable(
    database: str, option: str, path: str | None, error: OSError | ValueError
) -> DatabaseRefusedError:
    reason = getattr(error, "strerror", None) or str(error)
    return DatabaseRefusedError(
        database,
        None,
        f"{option} {path} cannot be used: {reason}",
        "give a file in PEM format, without a passphrase, that this user can read",
    )
