"""The hosts that are watched: private libvirtds, each with its test driver full of domains."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.peers import Peer, peer
from tests.support.libvirtd import PrivateLibvirtd


@dataclass(frozen=True)
class Host:
    """One private libvirtd, and the process that moves its domains."""

    domains: int
    uri: str
    generator: Peer


@contextlib.contextmanager
def host(domains: int) -> Iterator[Host]:
    """A libvirtd with ``domains`` domains of the test driver, three quarters of them active.

    The generator keeps its connection: a test host is forgotten with the last one.
    """
    with PrivateLibvirtd() as libvirtd:
        uri = libvirtd.uri("test")
        with peer("benchmarks.generator", uri) as generator:
            generator.ask("define", count=domains)
            yield Host(domains, uri, generator)


@contextlib.contextmanager
def hosts(sizes: Sequence[int]) -> Iterator[dict[int, Host]]:
    """One host of each size, all there at once, so that they can take turns."""
    with contextlib.ExitStack() as stack:
        yield {size: stack.enter_context(host(size)) for size in sizes}
