"""What a private libvirtd is told: its configuration files and its folder.

May live here: the files' contents, and the reasons for each line. Must not: processes.
"""

import grp
import os
import pwd
import socket
import subprocess
import tempfile
from pathlib import Path

from tests.support.namespace import HIDDEN_FOLDERS, search_path

# Without the network, nwfilter, interface and node device drivers: as root the first two would
# set up the machine's own firewall, and none of them is needed for a guest without a device.
_DRIVERS = ("qemu", "lxc", "storage", "secret")

_LIBVIRTD_CONF = """\
unix_sock_dir = "{sockets}"
unix_sock_rw_perms = "0700"
auth_unix_rw = "none"
auth_unix_ro = "{auth_read_only}"
listen_tls = 0
listen_tcp = {listen_tcp}
listen_addr = "127.0.0.1"
tcp_port = "{tcp_port}"
auth_tcp = "none"
keepalive_interval = {keepalive_interval}
log_level = 3
log_outputs = "3:stderr"
"""

# No privileges given up and none taken away from files, no control groups, no sandbox: what a
# guest without a disk needs, on any machine.
_QEMU_CONF = """\
stdio_handler = "file"
security_driver = "none"
cgroup_controllers = []
dynamic_ownership = 0
remember_owner = 0
namespaces = []
max_core = 0
seccomp_sandbox = 0
"""
_QEMU_CONF_OF_ROOT = """\
user = "root"
group = "root"
"""

_HOOK_DISPATCHER = """\
#!/bin/sh
# libvirt looks for hooks only when it starts, so this stands in for one that comes later.
[ -x /etc/libvirt/hooks/current ] && exec /etc/libvirt/hooks/current "$@"
exit 0
"""

# The account that Debian's libvirt looks up even when it is told to use another.
_ACCOUNT = "libvirt-qemu"
_PASSWD_LINE = f"{_ACCOUNT}:x:64055:64055::/nonexistent:/usr/sbin/nologin"
_GROUP_LINE = f"{_ACCOUNT}:x:64055:"


def new_folder() -> Path:
    """A temporary folder that the namespace does not hide, with a short path.

    A Unix socket's path holds 107 bytes.
    """
    parent = tempfile.gettempdir()
    if len(parent) > 60 or f"{parent}/".startswith(tuple(f"{each}/" for each in HIDDEN_FOLDERS)):
        parent = "/tmp"
    return Path(tempfile.mkdtemp(prefix="asynchost-libvirtd-", dir=parent))


def free_tcp_port() -> int:
    """A TCP port of the loopback address that nobody listens on.

    It is given to nobody else, neither for another server nor for a client's end of a connection,
    until this process ends: a server may come late to it, and may be started anew.
    """
    # Bound and never listening, it does not hinder a server that may use an address again, as
    # every server of the tests does.
    keeper = socket.socket()
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind(("127.0.0.1", 0))
    port: int = keeper.getsockname()[1]
    keeper.detach()
    return port


def write_settings(
    folder: Path,
    *,
    tcp_port: int,
    hooks: bool,
    privileged: bool,
    password: str | None,
    drops_the_silent: bool,
    host_uuid: str | None = None,
) -> None:
    """Fill ``folder`` with all that a daemon reads. ``tcp_port`` 0 means no listener.

    ``host_uuid`` None takes the machine's own, which all such daemons then share.
    With a ``password`` the read-only socket lets in the user ``monitor`` who knows it.
    """
    etc = folder / "etc"
    (folder / "sockets").mkdir()
    (etc / "hooks").mkdir(parents=True)
    (etc / "libvirtd.conf").write_text(
        _LIBVIRTD_CONF.format(
            sockets=folder / "sockets",
            listen_tcp=int(tcp_port > 0),
            tcp_port=tcp_port or 16509,
            auth_read_only="none" if password is None else "sasl",
            keepalive_interval=5 if drops_the_silent else -1,
        )
    )
    if host_uuid is not None:
        with (etc / "libvirtd.conf").open("a") as settings:
            settings.write(f'host_uuid = "{host_uuid}"\n')
    if password is not None:
        _write_sasl_user(folder / "sasl", password)
    (etc / "qemu.conf").write_text(_QEMU_CONF + (_QEMU_CONF_OF_ROOT if privileged else ""))
    if hooks:
        dispatcher = etc / "hooks" / "qemu"
        dispatcher.write_text(_HOOK_DISPATCHER)
        dispatcher.chmod(0o755)
    passwd = Path("/etc/passwd").read_text(errors="replace").rstrip()
    group = Path("/etc/group").read_text(errors="replace").rstrip()
    if _ACCOUNT not in {account.pw_name for account in pwd.getpwall()}:
        passwd = f"{passwd}\n{_PASSWD_LINE}"
    if _ACCOUNT not in {account.gr_name for account in grp.getgrall()}:
        group = f"{group}\n{_GROUP_LINE}"
    (folder / "passwd").write_text(f"{passwd}\n")
    (folder / "group").write_text(f"{group}\n")


def _write_sasl_user(folder: Path, password: str) -> None:
    folder.mkdir()
    (folder / "libvirt.conf").write_text(f"mech_list: scram-sha-256\nsasldb_path: {folder}/users\n")
    command = ["saslpasswd2", "-f", str(folder / "users"), "-a", "libvirt", "-p", "-c", "monitor"]
    subprocess.run(
        command, input=password, text=True, check=True, env={"PATH": search_path()}, timeout=60
    )


def daemon_environment(folder: Path) -> dict[str, str]:
    """The environment of a daemon: nothing of the machine's user gets in."""
    environment = {
        "PATH": search_path(),
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        # Read by an ordinary user's daemon only.
        "XDG_RUNTIME_DIR": str(folder),
        "XDG_CONFIG_HOME": "/etc",
        "XDG_CACHE_HOME": "/var/cache",
        "SASL_CONF_PATH": str(folder / "sasl"),
    }
    drivers = _driver_folder(folder)
    if drivers is not None:
        environment["LIBVIRT_DRIVER_DIR"] = str(drivers)
    if "LIBVIRT_DEBUG" in os.environ:
        environment["LIBVIRT_DEBUG"] = os.environ["LIBVIRT_DEBUG"]
    return environment


def _driver_folder(folder: Path) -> Path | None:
    """A folder with only the drivers wanted, or None where Debian's are not found."""
    available = next(iter(Path("/usr/lib").glob("*/libvirt/connection-driver")), None)
    if available is None:
        return None
    drivers = folder / "drivers"
    drivers.mkdir()
    for driver in _DRIVERS:
        module = f"libvirt_driver_{driver}.so"
        if (available / module).exists():
            (drivers / module).symlink_to(available / module)
    return drivers
