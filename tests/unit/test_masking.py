"""No URL shows a password, and one without is shown as it is."""

import pytest

from asynchost.errors import CallTimeoutError, HypervisorRefusedError, HypervisorUnavailableError
from asynchost.masking import masked_uri, without_secrets
from asynchost.monitor import HostMonitor

SECRET = "hush"


@pytest.mark.parametrize(
    "uri",
    [
        "test:default",
        "test:///default",
        "qemu+unix:///system?socket=/x=y",
        "qemu+ssh://user@host:22/system?keyfile=/home/a/b",
        "lxc:///",
    ],
)
def test_a_uri_without_a_password_is_left_as_it_is(uri: str) -> None:
    """Also one that does without slashes."""
    assert masked_uri(uri) == uri


@pytest.mark.parametrize(
    "uri",
    [
        f"qemu+ssh://user:{SECRET}@host/system",
        f"qemu+ssh://user:a@{SECRET}@host/system",
        f"qemu+libssh2://host/system?password={SECRET}&x=1",
        f"test:default?token={SECRET}",
    ],
)
def test_a_password_is_shown_nowhere(uri: str) -> None:
    """Neither by itself, nor in an error, nor as a host's name."""
    texts = [
        masked_uri(uri),
        str(HypervisorRefusedError(uri, "no", "do")),
        str(HypervisorUnavailableError(uri, "no")),
        str(CallTimeoutError(uri, "call", 5)),
        HostMonitor(uri).host,
    ]
    for text in texts:
        assert SECRET not in text
        assert "***" in text


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("cannot parse {uri}: no host", f"test+tcp://user:{SECRET}@[::1/default"),
        ("cannot execute binary /bin/hush", f"test+ext://h/default?command=/bin/x&token={SECRET}"),
        ("login of user with hush@7 failed", f"test+tcp://user:{SECRET}%407@h/default"),
        ("login of user with hush%407 failed", f"test+tcp://user:{SECRET}%407@h/default"),
    ],
)
def test_a_reason_shows_no_secret_of_its_uri(text: str, uri: str) -> None:
    """The URI as a whole, or one of its secrets alone, decoded or not."""
    cleaned = without_secrets(text.format(uri=uri), uri)
    assert SECRET not in cleaned
    assert "***" in cleaned


@pytest.mark.parametrize("uri", ["test:///default", "test:default", "test+tcp://user:@h/?token="])
def test_a_reason_of_a_uri_without_a_secret_is_left_as_it_is(uri: str) -> None:
    """Also where a password or an option is empty."""
    assert without_secrets("Cannot recv data", uri) == "Cannot recv data"
