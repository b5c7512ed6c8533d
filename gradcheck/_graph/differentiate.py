"""`tf.gradients`, where a gradient of the wrong form is a fault of the xs behind it in place of an error for all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import ops as tf_ops
from tensorflow.python.ops.control_flow_v2_func_graphs import CondBranchFuncGraph

from gradcheck._graph import structure
from gradcheck._graph.contexts import from_inside, python_graphs


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why TensorFlow cannot use a gradient, the op whose gradient it is, and what to write, where shapes tell."""

    reason: str
    op: Any
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What `tf.gradients` gives per x, and the faults of those xs for which it gives nothing usable, by position."""

    gradients: tuple[Any, ...]
    faults: dict[int, Fault]


_Build = Callable[[Sequence[Any]], list[Any]]
_Name = tuple[int, str]  # a tensor of a graph: the id of the graph, and the tensor's name
_Function = Callable[..., Any]  # from an op and the cotangents of what it gives to those of its inputs
_Found = tuple[Any, list[Any], Fault]  # an op, those of its inputs whose gradient is at fault, and the fault

# What TensorFlow says of a gradient of the wrong form.
_WRONG_FORM = ("Incompatible shapes between op input and calculated input gradient", "Num gradients")


def differentiate(
    graph: Any, ys: Sequence[Any], xs: Sequence[Any], cotangents: Sequence[Any], stops: Sequence[Any],
    unconnected: str = "none",
) -> Built:  # fmt: skip
    """The gradients of the sum of ys, as `tf.gradients` builds them in the default graph.

    An op without a gradient gives None, as one that is not connected does.

    Args:
        graph: The FuncGraph that holds everything.
        ys: Tensors.
        xs: Tensors and variables.
        cotangents: One per y.
        stops: Tensors to treat as constants.
        unconnected: "none" or "zero".
    """

    def build(some: Sequence[Any]) -> list[Any]:
        return list(
            tf.gradients(
                list(ys), list(some), grad_ys=list(cotangents), stop_gradients=list(stops) or None,
                unconnected_gradients=unconnected,
            )
        )  # fmt: skip

    with _replaced(graph, _mended):
        try:
            return Built(gradients=tuple(_connected(build, xs)), faults={})
        except ValueError as error:
            if not any(known in str(error) for known in _WRONG_FORM):
                raise
        return _with_faults(graph, xs, build)


def _connected(build: _Build, xs: Sequence[Any]) -> list[Any]:
    """The gradients, None for those xs whose way leads through an op that has no gradient at all."""
    try:
        return build(xs)
    except LookupError as error:
        if type(error) is not LookupError:  # a KeyError or IndexError of the user's gradient function
            raise
        return [None] if len(xs) == 1 else [g for x in xs for g in _connected(build, [x])]


def _with_faults(graph: Any, xs: Sequence[Any], build: _Build) -> Built:
    found: list[_Found] = []
    with _replaced(graph, lambda _, own: _watching(own, found)) as outside:
        gradients = _connected(build, xs)
    names = [name_of_x(graph, x) for x in xs]
    faults: dict[int, Fault] = {}
    for op, tensors, fault in found:
        # Where no x is behind the argument itself, TensorFlow refuses the gradient all the same.
        for behind in (ancestors(tensors, outside), ancestors(op.inputs, outside)):
            hit = [i for i, name in enumerate(names) if (id(graph), name) in behind]
            faults.update({i: fault for i in hit if i not in faults})
            if hit:
                break
    return Built(gradients=tuple(None if i in faults else g for i, g in enumerate(gradients)), faults=faults)


@contextmanager
def _replaced(graph: Any, other: Callable[[Any, _Function], _Function | None]) -> Iterator[dict[_Name, list[Any]]]:
    """A scope in which ops have other gradient functions.

    Gives, for each tensor that is an argument of a nested function, the tensors that it may be.

    Args:
        graph: The graph, whose nested functions are entered.
        other: Gives an op's other function from the op and its own function, or None, which leaves it its own.
    """
    outside: dict[_Name, list[Any]] = {}
    before: list[tuple[Any, Any]] = []
    for op in ops_of(graph, outside):
        function = op._gradient_function
        delayed = getattr(function, "__self__", None)
        if delayed is not None and hasattr(delayed, "_cached_function_pairs"):
            # The gradient of a tf.function is kept for its next use; what is built here is not to be.
            own = copy(delayed)
            own._cached_function_pairs = {}
            put: Any = getattr(own, function.__name__)
        else:
            registered = _registered(op)
            put = None if registered is None else other(op, registered)
            if put is None:
                continue
        before.append((op, function))
        op._gradient_function = put
    try:
        yield outside
    finally:
        for op, function in before:
            op._gradient_function = function


def _registered(op: Any) -> Any:
    """The function that gives an op's gradient; None where there is none, and for loops, which take more inputs on."""
    try:
        return None if op.type.endswith("While") else tf_ops.get_gradient_function(op)
    except LookupError:
        return None


def ops_of(graph: Any, outside: dict[_Name, list[Any]] | None = None) -> Iterator[Any]:
    """The ops of a graph and of all functions that it calls; `outside`, where it is given, is filled."""
    for op in graph.get_operations():
        yield op
        for body, offset in _bodies(op):
            for i, argument in enumerate(body.inputs if outside is not None else ()):
                # In a loop every argument may come from every other one.
                many = op.type.endswith("While") or offset + i >= len(op.inputs)
                outside[id(body), argument.name] = list(op.inputs) if many else [op.inputs[offset + i]]  # type: ignore[index]
            yield from ops_of(body, outside)


def _bodies(op: Any) -> list[tuple[Any, int]]:
    """The graphs that an op runs, each with the position of its first argument among the op's inputs."""
    if op.type.endswith("PartitionedCall"):
        body = getattr(getattr(op._gradient_function, "__self__", None), "_func_graph", None)
        return [] if body is None else [(body, 0)]
    offset = 0 if op.type.endswith("While") else 1
    return [(getattr(op, name), offset) for name in python_graphs(op) if hasattr(op, name)]


def _mended(op: Any, own: _Function) -> _Function | None:
    """Gradient functions that TensorFlow could not use as they are, though their values are right."""
    if op.type == "EagerPyFunc":
        return _of_full_shape(own)
    if op.type == "IdentityN" and isinstance(op.graph, CondBranchFuncGraph):
        return from_inside(own)
    return None


def _of_full_shape(function: _Function) -> _Function:
    """The gradient function of a tf.py_function, which in a graph gives a scalar zero where a tape gives None."""

    def gradient(op: Any, *cotangents: Any) -> list[Any]:
        parts = function(op, *cotangents)
        return [tf.broadcast_to(p, tf.shape(x)) for p, x in zip(_listed(parts), op.inputs, strict=True)]

    return gradient


def _listed(given: Any) -> list[Any]:
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _watching(function: _Function, found: list[_Found]) -> _Function:
    def gradient(op: Any, *cotangents: Any) -> list[Any]:
        parts = _listed(function(op, *cotangents))
        if len(parts) != len(op.inputs):
            fault = Fault(reason=_number(len(parts) - len(op.inputs)), op=op)
            found.append((op, list(op.inputs), fault))
            return [None] * len(op.inputs)
        for i, (tensor, part) in enumerate(zip(op.inputs, parts, strict=True)):
            if tf.is_tensor(part) and tensor.dtype != tf.resource and not tensor.shape.is_compatible_with(part.shape):
                found.append((op, [tensor], _misshapen(op, tensor.shape, part.shape)))
                parts[i] = None
        return parts

    return gradient


def _number(too_many: int) -> str:
    wrong = f"{abs(too_many)} too {'many' if too_many > 0 else 'few'}"
    return f"the gradient function gives {wrong}: it must give one gradient (or None) per argument"


def _misshapen(op: Any, wanted: Any, given: Any) -> Fault:
    said = f"the gradient function gives shape {given} for an argument of shape {wanted}"
    try:
        broadcast = tf.broadcast_static_shape(wanted, given) == given
    except ValueError:
        broadcast = False
    if not broadcast:
        return Fault(reason=said, op=op)
    reason = f"{said}: it must be summed over the axes along which the argument was broadcast"
    return Fault(reason=reason, op=op, hint=_unsummed(wanted.as_list(), given.as_list()))


def _unsummed(wanted: list[int | None], given: list[int | None]) -> str:
    added = len(given) - len(wanted)
    ones = [added + k for k, length in enumerate(wanted) if length == 1 != given[added + k]]
    axes = [*range(added), *ones]
    written = f"tf.reduce_sum(gradient, axis={axes}{', keepdims=True' if ones and not added else ''})"
    reshaped = f"tf.reshape({written}, {wanted})" if ones and added else written
    return f"the sum over a broadcast axis is missing: {reshaped}"


def ancestors(tensors: Iterable[Any], outside: Mapping[_Name, Sequence[Any]] | None = None) -> set[_Name]:
    """Some tensors and all that they are computed from, each as the id of its graph and its name.

    Args:
        tensors: Tensors of graphs.
        outside: What the arguments of nested functions may be.
    """
    seen: set[_Name] = set()
    pending = list(tensors)
    while pending:
        one = pending.pop()
        name = (id(one.graph), one.name)
        if name not in seen:
            seen.add(name)
            pending += [*one.op.inputs, *(outside or {}).get(name, ())]
    return seen


def name_of_x(graph: Any, x: Any) -> str:
    """The name of the tensor of the graph that an x is, or that is its handle."""
    variable = structure.variable_of(x)
    if variable is not None:
        x = next((inner for external, inner in graph.captures if external is variable.handle), variable)
    return str(x.name)
