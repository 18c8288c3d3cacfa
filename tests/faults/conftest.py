"""Fixtures of the fault tests: real servers of a test's own, and the seed of its workload."""

import os
import random

import pytest

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
    "seed",
    "test_connection",
]


@pytest.fixture
def seed() -> int:
    """A fresh seed for each test, which a failure shows; ASYNCHOST_TEST_SEED repeats one."""
    given = os.environ.get("ASYNCHOST_TEST_SEED")
    chosen = random.SystemRandom().randrange(2**32) if given is None else int(given)
    print(f"ASYNCHOST_TEST_SEED={chosen}")
    return chosen
