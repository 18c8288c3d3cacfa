"""What holds for all tests."""

import asyncio


def pytest_configure() -> None:
    """Say that there is no current event loop.

    Unless told so, pytest-asyncio makes asyncio create one that nobody closes, and the warning
    about it, an error here, comes up in whichever test happens to run at that moment.
    """
    asyncio.set_event_loop(None)
