"""Where the server's public key comes from; logging in itself is tested with real servers."""

import os
from pathlib import Path

import pytest

from asynchost.database.login import read_key
from asynchost.errors import DatabaseRefusedError


def test_a_key_that_is_no_regular_file_is_named_and_not_opened(tmp_path: Path) -> None:
    """Opening a pipe that nobody writes to would hold the event loop for ever."""
    pipe = tmp_path / "key.pem"
    os.mkfifo(pipe)
    with pytest.raises(DatabaseRefusedError, match=r"key\.pem.*no regular file"):
        read_key("mysql://db/nova", str(pipe))


def test_a_key_is_the_content_of_its_file(tmp_path: Path) -> None:
    """As it stands there; without a path there is no key."""
    key = tmp_path / "key.pem"
    key.write_bytes(b"-----BEGIN PUBLIC KEY-----\n")
    assert read_key("mysql://db/nova", str(key)) == key.read_bytes()
    assert read_key("mysql://db/nova", None) is None
