"""The variables that a Python function can reach: those that it may change when it is called."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck._graph import structure
from gradcheck._graph.reads import listed_variables
from gradcheck._watchdog.names import components

_DEEPEST = 6
_PLAIN = (str, bytes, int, float, complex, bool, type(None), type, types.ModuleType, np.ndarray, tf.Tensor, tf.DType)


def reachable_variables(*roots: Any) -> list[Any]:
    """The variables in the closures, globals, bound objects and attributes that some objects lead to.

    Keras layers, models, optimizers, metrics and seed generators, `tf.Module` and `tf.random.Generator` are looked
    into, and so are lists, tuples, dicts and the user's own objects. Each variable comes once; for one of a
    distribution strategy those of its devices.
    """
    found: dict[int, Any] = {}
    seen: set[int] = set()
    pending = [(root, 0) for root in roots]
    while pending:
        value, depth = pending.pop()
        if isinstance(value, _PLAIN) or id(value) in seen or depth > _DEEPEST:
            continue
        seen.add(id(value))
        variable = structure.variable_of(value)
        if variable is not None:
            found.update({id(v): value if v is variable else v for v in components(variable)})
        else:
            pending += [(part, depth + 1) for part in _parts(value)]
    return list(found.values())


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from value
    elif isinstance(value, types.MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, types.FunctionType):
        yield from _parts_of_function(value)
    elif hasattr(value, "python_function"):  # a tf.function
        yield value.python_function
    else:
        yield from listed_variables(value)
        yield from getattr(value, "__dict__", {}).values()


def _parts_of_function(function: types.FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            continue
    yield from (function.__globals__[n] for n in _global_names(function.__code__) if n in function.__globals__)
    yield from function.__defaults__ or ()
    yield getattr(function, "__wrapped__", None)


def _global_names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:  # functions inside, such as lambdas
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)
