"""From the arguments of a call to the traced function for them, quickly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck._watchdog.policy import Policy
from gradcheck._watchdog.running import tracing
from gradcheck._watchdog.traced import Traced

_EAGER = tf.__internal__.EagerTensor


class Dispatch:
    """Finds the concrete function of a `tf.function` for some arguments, and its flat inputs.

    Args:
        function: A `tf.function`, or a ConcreteFunction.
        names: Gives names of variables, by the id of their handles, each time something new is traced.
        policy: What is asked for.
    """

    def __init__(self, function: Any, names: Callable[[], Mapping[int, str]], policy: Policy) -> None:
        self._function = function
        self._names = names
        self._policy = policy
        self._parameters = dict.fromkeys(function.function_type.parameters)
        self._by_key: dict[Any, tuple[Traced, list[Any]]] = {}
        self._by_function: dict[int, Traced] = {}

    def find(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Traced, list[Any]] | None:
        """The traced function and the flat tensors that it takes, without those that it captures.

        None where the arguments cannot be told apart into tensors the way the function does.
        """
        leaves: list[Any] = []
        key = _key(args, leaves)
        if kwargs:
            named = [n for n in self._parameters if n in kwargs] + sorted(kwargs.keys() - self._parameters)
            key = (key, *((n, _key(kwargs[n], leaves)) for n in named))
        known = self._by_key.get(key)
        if known is None:
            known = self._by_key[key] = self._new(args, kwargs)
        traced, _ = known
        return (traced, leaves) if len(leaves) == traced.taken else None

    def _new(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Traced, list[Any]]:
        function = self._function
        if not hasattr(function, "captured_inputs"):
            with tracing():
                function = function.get_concrete_function(*args, **kwargs)
        if id(function) not in self._by_function:
            self._by_function[id(function)] = Traced(function, self._names(), self._policy)
        # What is told apart by its identity is kept, so that nothing else can take that identity.
        kept = [v for v in (*args, *kwargs.values()) if not isinstance(v, _EAGER)]
        return self._by_function[id(function)], kept


def _key(value: Any, leaves: list[Any]) -> Any:
    """What tells arguments apart that are traced apart; tensors are appended to `leaves`, in TensorFlow's order."""
    if isinstance(value, _EAGER):
        leaves.append(value)
        return value.dtype, value._shape_tuple()
    if isinstance(value, (np.ndarray, np.generic)):
        return _key(tf.convert_to_tensor(value), leaves)
    if isinstance(value, (list, tuple)):
        return type(value), tuple([_key(v, leaves) for v in value])
    if isinstance(value, Mapping):
        return type(value), tuple([(k, _key(value[k], leaves)) for k in sorted(value)])
    if isinstance(value, tf.Variable):
        leaves.append(value.handle)
        return id(value)
    if isinstance(value, tf.__internal__.CompositeTensor):
        parts = tf.nest.flatten(value, expand_composites=True)
        return type(value), tuple([_key(v, leaves) for v in parts])
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return type(value), value
    return type(value), id(value)
