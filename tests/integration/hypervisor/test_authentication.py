"""Who may connect: answered from libvirt's own auth.conf, and never by a person."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

import asynchost
from tests.support.libvirtd import PrivateLibvirtd

_AUTH_CONF = """\
[credentials-monitor]
authname=monitor
password={password}

[auth-libvirt-localhost]
credentials=monitor
"""


@pytest.fixture
def guarded_uri(
    private_libvirtd: Callable[..., PrivateLibvirtd],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """A libvirtd whose read-only socket wants a password, and where libvirt looks for it."""
    (tmp_path / "auth.conf").touch()
    monkeypatch.setenv("LIBVIRT_AUTH_FILE", str(tmp_path / "auth.conf"))
    daemon = private_libvirtd(password="secret")
    return daemon.uri("test", socket_path=daemon.read_only_socket_path)


async def test_credentials_come_from_libvirts_auth_conf(guarded_uri: str, tmp_path: Path) -> None:
    """What libvirt's own file can answer opens the connection."""
    (tmp_path / "auth.conf").write_text(_AUTH_CONF.format(password="secret"))
    async with asyncio.timeout(30), asynchost.HostMonitor(guarded_uri) as monitor:
        assert monitor.usage.running_vms == 1


@pytest.mark.parametrize("password", [None, "wrong"], ids=["no credentials", "wrong password"])
async def test_missing_credentials_are_refused_and_never_asked_for(
    guarded_uri: str, tmp_path: Path, password: str | None
) -> None:
    """Nobody is prompted: the connection is refused, and the text names the way out."""
    if password is not None:
        (tmp_path / "auth.conf").write_text(_AUTH_CONF.format(password=password))
    with pytest.raises(asynchost.HypervisorRefusedError, match=r"auth\.conf"):
        async with asyncio.timeout(30), asynchost.HostMonitor(guarded_uri):
            pass
