"""A child process that is told what to do in lines of JSON, one answer to each.

It ends when its standard input does, so also when this process dies, however it dies.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any


class PeerError(Exception):
    """A child did not do what it was told; what it printed is on standard error."""


class Peer:
    """A running ``python -m MODULE ARGUMENTS``."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._name = " ".join((module, *arguments))
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C is for the parent: the children end with their standard input.
            start_new_session=True,
        )

    def tell(self, do: str, **parameters: Any) -> None:
        """Say what to do, and do not wait; :meth:`answer` must follow."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **parameters}) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for the answer to what was told."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise PeerError(f"{self._name} ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(f"{self._name}: {answer['error']}")
        return answer

    def ask(self, do: str, **parameters: Any) -> dict[str, Any]:
        """Say what to do, and wait for the answer."""
        self.tell(do, **parameters)
        return self.answer()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def close(self) -> None:
        """Let it end, and wait for that; one that does not is killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@contextlib.contextmanager
def peer(module: str, *arguments: str) -> Iterator[Peer]:
    """A :class:`Peer` that ends with the block."""
    running = Peer(module, *arguments)
    try:
        yield running
    finally:
        running.close()
