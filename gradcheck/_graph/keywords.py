"""Custom gradients that are called with keyword arguments, which TensorFlow takes in eager execution only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial, update_wrapper
from typing import Any

from tensorflow.python.ops import custom_gradient

_REFUSED = "supports keywords arguments only when eager execution is enabled"


def is_refused(error: Exception) -> bool:
    """Whether a function could not be traced because it gives keyword arguments to a custom gradient."""
    return isinstance(error, ValueError) and _REFUSED in str(error)


@contextmanager
def bound_keywords() -> Iterator[None]:
    """A scope in which the keyword arguments of custom gradients are constants of the traced function.

    That is what they are in eager execution: they are handed on as they are given, and no gradient is asked for them.
    """
    original = custom_gradient._graph_mode_decorator

    def traced(f: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        return original(update_wrapper(partial(f, **kwargs), f) if kwargs else f, args, {})

    custom_gradient._graph_mode_decorator = traced
    try:
        yield
    finally:
        custom_gradient._graph_mode_decorator = original
