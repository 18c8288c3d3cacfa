"""What holds for all tests."""

import asyncio

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
