"""Where this package's log lines go: wherever the program that embeds it says.

A program that configured structlog gets them through its own configuration. In one that did
not, they go to the standard library's loggers ``asynchost.*`` as ``event key=value`` text, so
that nothing below a warning is seen until the program asks for it. Nothing is configured here.
"""

import logging
from typing import Any

import structlog


def get_logger(name: str, **bound: object) -> Any:
    """A structlog logger for one part, with ``bound`` values in each of its lines."""
    if structlog.is_configured():
        return structlog.get_logger(name).bind(**bound)
    return structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    ).bind(**bound)
