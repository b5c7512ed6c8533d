"""What is said to the logger meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def listening() -> Iterator[list[str]]:
    """A scope that collects the warnings of gradcheck's logger."""
    said: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    handler = Collector(logging.WARNING)
    logger = logging.getLogger("gradcheck")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)
