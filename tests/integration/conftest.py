"""Fixtures of the integration tests: real servers, started privately."""

from tests.support.fixtures import (
    libvirtd,
    lxc_connection,
    private_libvirtd,
    qemu_connection,
    test_connection,
)
from tests.support.mariadb import database, empty_database, mariadb, private_database

__all__ = [
    "database",
    "empty_database",
    "libvirtd",
    "lxc_connection",
    "mariadb",
    "private_database",
    "private_libvirtd",
    "qemu_connection",
    "test_connection",
]
