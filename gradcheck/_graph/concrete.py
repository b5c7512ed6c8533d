"""Tensors of a function that is being traced, with the values they have at the given inputs, for Python to see.

What a function takes into Python becomes a constant of the trace: it is then the function at these inputs alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import ops
from tensorflow.python.ops import resource_variable_ops

from gradcheck._errors import GraphUnavailable
from gradcheck._graph.evaluate import eagerly
from gradcheck._graph.program import from_func_graph
from gradcheck._graph.provenance import origin
from gradcheck._graph.randomness import freeze_randomness
from gradcheck._graph.rerun import Given, Rerun
from gradcheck._graph.values import variable_dtype
from gradcheck._graph.visit import returned_by

AS_CONSTANTS = "what the {} takes into Python, by .numpy() and the like, is a constant where it was run again"
_MOST = 200_000  # ops run altogether: each value is computed from the beginning

# What Python asks an eager tensor for.
_ASKED: Mapping[str, Callable[..., Any]] = {
    "numpy": lambda value: value.numpy(),
    "__array__": lambda value, dtype=None, **_: np.asarray(value.numpy(), dtype),
    "__bool__": bool,
    "__int__": int,
    "__float__": float,
    "__complex__": lambda value: complex(value.numpy()),
    "__index__": lambda value: value.__index__(),
    "__len__": len,
    "__format__": format,
}


@dataclass(slots=True, eq=False)
class Trace:
    """A function on its way into a graph, and what the inputs of the graph are given."""

    graph: Any = None
    given: list[tuple[Any, Any]] = field(default_factory=list)  # placeholders, and eager tensors
    known: dict[int, tuple[Any, Any]] = field(default_factory=dict)  # by id: a tensor, kept alive, and its value
    ran: int = 0

    def around(self, fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Callable[..., Any]:
        """The function, to be called in a graph with placeholders for tensors and arrays in its arguments.

        Args:
            fn: The function.
            args, kwargs: Its arguments, with their values.
        """
        values = tf.nest.flatten((tuple(args), dict(kwargs)), expand_composites=True)

        def call(*placed: Any, **named: Any) -> Any:
            self.graph = tf.compat.v1.get_default_graph()
            tensors = tf.nest.flatten((placed, named), expand_composites=True)
            with eagerly():
                self.given = [
                    (tensor, tf.convert_to_tensor(value, tensor.dtype))
                    for tensor, value in zip(tensors, values, strict=True)
                    if isinstance(tensor, ops.SymbolicTensor)
                ]
            return fn(*placed, **named)

        call.__name__ = getattr(fn, "__name__", "step")
        return call

    def value(self, tensor: Any) -> Any:
        """The value of a tensor of the graph, of which this much is traced, as an eager tensor."""
        if id(tensor) not in self.known:
            with eagerly():
                self.known[id(tensor)] = tensor, self._computed(tensor)
        return self.known[id(tensor)][1]

    def _computed(self, tensor: Any) -> Any:
        placed = [*self.given, *((inner, outer) for outer, inner in self.graph.captures)]
        for inner, outer in placed:
            if inner is tensor:
                return outer
        self.ran += len(self.graph.get_operations())
        if self.ran > _MOST:
            raise GraphUnavailable("values are taken into Python too often for each to be computed once more")
        rerun = Rerun(
            name=self.graph.name,
            program=freeze_randomness(self._program(tensor, [inner for inner, _ in placed]), generators=False),
            given=tuple(_given(outer) for _, outer in placed),
            outputs=("value",),
            origin=partial(origin, self.graph),
            alive=self.graph,
        )
        return returned_by(rerun.start()[1])[0].tensor

    def _program(self, tensor: Any, inputs: Sequence[Any]) -> Any:
        graph = self.graph
        before = graph.inputs, graph.outputs, graph._output_names
        graph.inputs, graph.outputs = list(inputs), [tensor]
        try:
            return from_func_graph(graph)
        finally:
            graph.inputs, graph.outputs, graph._output_names = before


def _given(value: Any) -> Given:
    dtype = variable_dtype(value)
    if dtype is None:
        return Given(label="", value=value)
    found = tf.raw_ops.ReadVariableOp(resource=value, dtype=dtype)
    return Given(label="", value=found, variable=dtype)


@contextmanager
def seen_by_python() -> Iterator[Trace]:
    """A scope in which a function can be traced that takes values into Python, by `.numpy()`, `float`, `if` and so on.

    What is traced is to be `trace.around(fn, args, kwargs)`, without AutoGraph. Variables keep their values: what the
    function assigns before it takes a value is computed on copies.
    """
    trace = Trace()

    def method(name: str) -> Any:
        original = getattr(ops.SymbolicTensor, name, None)

        def asked(tensor: Any, *rest: Any, **options: Any) -> Any:
            if tensor.graph is trace.graph:
                return _ASKED[name](trace.value(tensor), *rest, **options)
            if original is None:
                raise AttributeError(f"a tensor of a graph has no {name}")
            return original(tensor, *rest, **options)

        return asked

    def rows(tensor: Any) -> Any:
        return iter(tf.unstack(tensor))

    def read(variable: Any) -> Any:
        return variable.read_value().numpy()

    changed = [(ops.SymbolicTensor, name, method(name)) for name in _ASKED]
    changed += [(ops.SymbolicTensor, "__iter__", rows), (resource_variable_ops.BaseResourceVariable, "numpy", read)]
    before = [(kind, name, vars(kind).get(name)) for kind, name, _ in changed]
    for kind, name, new in changed:
        setattr(kind, name, new)
    try:
        yield trace
    finally:
        for kind, name, old in before:
            if old is None:
                delattr(kind, name)
            else:
                setattr(kind, name, old)
