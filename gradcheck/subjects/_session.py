"""A graph of its own, with a session on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf


@contextlib.contextmanager
def new_session() -> Iterator[Any]:
    """A session on a new default graph, closed at the end."""
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        yield session
