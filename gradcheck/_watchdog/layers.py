"""What Keras layers give while a step runs in Python."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import keras

from gradcheck._graph import structure


class _Noting(threading.local):
    """What is noted in one thread; None where nothing is."""

    outputs: list[tuple[str, Any]] | None = None


_NOTING = _Noting()
_LOCK = threading.Lock()
_users = 0  # scopes that are open, in all threads: the last one gives Keras its own method back


@contextmanager
def layer_outputs() -> Iterator[list[tuple[str, Any]]]:
    """A scope that notes what each layer gives, with a name, in the order of the calls; eager tensors only."""
    outer, found = _NOTING.outputs, list[tuple[str, Any]]()
    _enter()
    _NOTING.outputs = found
    try:
        yield found
    finally:
        _NOTING.outputs = outer
        _leave()


def _enter() -> None:
    global _users  # noqa: PLW0603
    with _LOCK:
        _users += 1
        if _users == 1:
            keras.layers.Layer.__call__ = _noting(keras.layers.Layer.__call__)


def _leave() -> None:
    global _users  # noqa: PLW0603
    with _LOCK:
        _users -= 1
        if _users == 0:
            keras.layers.Layer.__call__ = keras.layers.Layer.__call__.__wrapped__


def _noting(call: Any) -> Any:
    @wraps(call)
    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = call(self, *args, **kwargs)
        if _NOTING.outputs is not None:
            name = f"output of {getattr(self, 'path', None) or self.name}"
            _NOTING.outputs += [
                (name, leaf.value)
                for leaf in structure.leaves(given, name)
                if structure.is_continuous(leaf.value) and hasattr(leaf.value, "_numpy")
            ]
        return given

    return noted
