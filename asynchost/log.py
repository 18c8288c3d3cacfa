"""Where this package's log lines go: wherever the program that embeds it says.

A program that configured structlog gets them through its own configuration. In one that did
not, they go to the standard library's loggers ``asynchost.*`` as ``event key=value`` text, so
that nothing below a warning is seen until the program asks for it. Nothing is configured here.
"""

import logging
from typing import Any

import structlog


class _Logger(structlog.stdlib.BoundLogger):
    """One for which a line that nobody wants costs next to nothing: there is one to each read."""

    def debug(self, event: str | None = None, *args: Any, **values: Any) -> Any:
        """Log at the level that is off unless somebody looks for a fault."""
        if self.isEnabledFor(logging.DEBUG):
            return super().debug(event, *args, **values)
        return None


def get_logger(name: str, **bound: object) -> Any:
    """A structlog logger for one part, with ``bound`` values in each of its lines."""
    if structlog.is_configured():
        return structlog.get_logger(name).bind(**bound)
    return structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
        wrapper_class=_Logger,
    ).bind(**bound)
