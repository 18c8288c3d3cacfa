"""Which asyncio loops the tests of the libvirt edge run on."""

import asyncio
from collections.abc import Callable, Mapping

import pytest

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Function
) -> Mapping[str, LoopFactory]:
    """Run each asynchronous test on all loops that its module names in ``LOOPS``."""
    loops: Mapping[str, LoopFactory] = getattr(item.module, "LOOPS", {})
    return loops or {"asyncio": asyncio.new_event_loop}
