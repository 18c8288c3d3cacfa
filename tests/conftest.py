"""What holds for all tests."""

import asyncio

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says something of the machine and of what else it does, and nothing
# of the code. What else Hypothesis would do here, such as under continuous integration, stays.
settings.register_profile(
    "asynchost",
    parent=settings.default,
    deadline=None,
    suppress_health_check=[*settings.default.suppress_health_check, HealthCheck.too_slow],
)
settings.load_profile("asynchost")


def pytest_configure() -> None:
    """Say that there is no current event loop.

    Unless told so, pytest-asyncio makes asyncio create one that nobody closes, and the warning
    about it, an error here, comes up in whichever test happens to run at that moment.
    """
    asyncio.set_event_loop(None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let ``--group NAME`` choose a group of tests, as ``./dev test --group NAME`` does."""
    parser.addoption("--group", metavar="NAME", help="run the tests of this group and no others")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of all groups, or all tests but those of the chosen group."""
    group = config.getoption("--group")
    chosen, left_out = [], []
    for item in items:
        groups = [name for marker in item.iter_markers("group") for name in marker.args]
        (chosen if group in groups or (group is None and not groups) else left_out).append(item)
    if left_out:
        items[:] = chosen
        config.hook.pytest_deselected(items=left_out)
