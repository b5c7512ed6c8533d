"""TensorFlow's Python logger, silenced below errors for a while."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf


@contextmanager
def errors_only() -> Iterator[None]:
    """A scope in which TensorFlow's logger speaks of errors only; its level comes back at the end."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
