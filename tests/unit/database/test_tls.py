"""What is wrong with a certificate has its own way out."""

import ssl

import pytest

from asynchost.database.tls import remedy


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (9, "set the clock"),  # not yet valid
        (10, "renew that certificate"),  # expired
        (18, "as ssl_ca"),  # signed by itself
        (20, "as ssl_ca"),  # no issuer
        (26, "serverAuth"),  # made for another purpose
        (62, "by a name that is in its certificate"),
        (64, "by a name that is in its certificate"),
        (79, "CA:TRUE"),  # the CA's certificate is none of a CA
    ],
)
def test_a_flaw_of_a_certificate_says_what_mends_it(code: int, expected: str) -> None:
    """By OpenSSL's number: the authority is asked for only where that would help."""
    error = ssl.SSLCertVerificationError("certificate verify failed")
    error.verify_code = code
    assert expected in remedy(error)


def test_another_refusal_may_be_for_want_of_a_clients_certificate() -> None:
    """The server breaks the handshake off without a word of why."""
    assert "ssl_cert" in remedy(ssl.SSLError("SSLV3_ALERT_HANDSHAKE_FAILURE"))
