"""Custom gradients of a graph: which ops one stands for, who wrote it, and whether TensorFlow did."""

from __future__ import annotations

import inspect
import linecache
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import ops

from gradcheck._graph.generated import Line, users_line
from gradcheck._graph.program import Program

_DECORATOR = ("custom_gradient.py", "_graph_mode_decorator")
_LIBRARIES = ("tensorflow.", "keras.", "gradcheck.")


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """What a `tf.custom_gradient` function computes, differentiated as one by a gradient of its own.

    Attributes:
        op: The op that gives the results, and has the gradient.
        results: What the function returned, before that op, and `outputs`, after it.
        arguments: What it was given.
        variables: The variables that its gradient is for besides.
        inside: Names of the ops between arguments and results.
        name: Of the decorated function; None where it cannot be told.
        frame: Of that function, where it made the first of its ops.
        gradient: The first line of its gradient function, as a frame has it; None where it cannot be told.
        trusted: Whether it is one of TensorFlow's or Keras' own.
    """

    op: Any
    results: tuple[Any, ...]
    outputs: tuple[Any, ...]
    arguments: tuple[Any, ...]
    variables: tuple[Any, ...]
    inside: frozenset[str]
    name: str | None
    frame: Any
    gradient: Any
    trusted: bool


def is_region(op: Any) -> bool:
    """Whether an op is where the results of a `tf.custom_gradient` come out."""
    return op.type == "IdentityN" and gradient_name(op).startswith("CustomGradient-")


def has_custom_gradient(program: Program) -> bool:
    """Whether a `tf.custom_gradient` is in a program or in what it calls."""
    nodes = (node for body in (program.main, *program.functions.values()) for node in body.nodes)
    marks = (n.attr["_gradient_op_type"].s for n in nodes if n.op == "IdentityN" and "_gradient_op_type" in n.attr)
    return any(mark.startswith(b"CustomGradient-") for mark in marks)


def gradient_name(op: Any) -> str:
    """The name under which an op's gradient is registered."""
    attribute = op.node_def.attr.get("_gradient_op_type")
    return str(op.type) if attribute is None else attribute.s.decode()


def gradient_function(op: Any) -> Any:
    """The function that is registered for the gradient of an op; None where there is none."""
    try:
        return ops._gradient_registry.lookup(gradient_name(op))
    except LookupError:
        return None


def is_library(fn: Any) -> bool:
    """Whether a function is TensorFlow's, Keras' or ours."""
    return str(getattr(fn, "__module__", "") or "").startswith(_LIBRARIES)


def region_of(op: Any) -> Region:
    """The region whose results an op gives."""
    own = _nonlocals(gradient_function(op), "tape_grad_fn")
    count = int(own.get("flat_result_len", 0)) or len(op.inputs) - 1
    variables = tuple(own.get("variables", ()))
    results = tuple(op.inputs)[:count]
    arguments = tuple(op.inputs)[count : len(op.inputs) - len(variables)]
    inside = frozenset(between(arguments, results, reading=bool(variables)))
    made = sorted((op.graph.get_operation_by_name(name) for name in inside), key=lambda each: each._id)
    frame = _function_frame(op, made)
    written = own.get("grad_fn")
    library = is_library(written) if frame is None else _in_library(frame.filename)
    name = _told_by(written) if frame is None or library else frame.name
    return Region(
        op=op,
        results=results,
        outputs=tuple(op.outputs)[:count],
        arguments=arguments,
        variables=variables,
        inside=inside,
        name=name,
        frame=frame,
        gradient=_first_line(written, name),
        trusted=library,
    )


def _first_line(fn: Any, name: str | None) -> Any:
    code = getattr(inspect.unwrap(fn), "__code__", None) if callable(fn) else None
    if code is None:
        return None
    line = users_line(Line(code.co_filename, code.co_firstlineno, name or code.co_name))
    written = linecache.getline(line.filename, line.lineno)  # nothing of what AutoGraph generated
    return line if written and not _in_library(line.filename) else None


def between(starts: Iterable[Any], ends: Sequence[Any], *, reading: bool = False) -> set[str]:
    """Names of the ops of one graph through which the end tensors depend on the start ones (or `reading` variables)."""
    names = {t.name for t in starts}
    order: dict[str, Any] = {}
    pending = [t for t in ends if t.name not in names]
    while pending:
        op = pending.pop().op
        if op.name not in order:
            order[op.name] = op
            pending += [t for t in op.inputs if t.name not in names]
    touched: set[str] = set()
    for op in sorted(order.values(), key=lambda each: each._id):  # as they were made: inputs first
        if any(t.name in names or t.op.name in touched or (reading and t.dtype == tf.resource) for t in op.inputs):
            touched.add(op.name)
    return touched


def _nonlocals(fn: Any, inner: str) -> dict[str, Any]:
    """The variables that a function closes over, and those of the function among them that has a given name."""
    if not inspect.isfunction(fn):
        return {}
    found = dict(inspect.getclosurevars(fn).nonlocals)
    return {**found, **(inspect.getclosurevars(found[inner]).nonlocals if inner in found else {})}


def _function_frame(op: Any, inside: Sequence[Any]) -> Any:
    """The frame of the decorated function, where one of its ops was made."""
    depth = sum(map(_is_decorator, op.traceback or ()))
    for each in inside:
        frames = list(_after_decorators(each.traceback or (), depth))
        if frames:
            return frames[0]
    return None


def _after_decorators(frames: Sequence[Any], depth: int) -> Iterator[Any]:
    """The frames below the depth-th call of a decorated function."""
    seen = 0
    for frame in frames:
        if seen >= depth:
            yield frame
        seen += _is_decorator(frame)


def _is_decorator(frame: Any) -> bool:
    return (os.path.basename(frame.filename), frame.name) == _DECORATOR


def _told_by(written: Any) -> str | None:
    """The name of the decorated function, from that of the gradient that it returned; of a library's, what it is in."""
    scopes = str(getattr(written, "__qualname__", "")).split(".<locals>.")
    if len(scopes) < 2:
        return None
    return scopes[0 if is_library(written) else -2].rpartition(".")[2]


def _in_library(path: str) -> bool:
    import keras

    roots = (os.path.dirname(os.path.abspath(m.__file__)) for m in (tf, keras))
    return path.startswith(tuple(root.split(f"{os.sep}_api{os.sep}")[0] + os.sep for root in roots))
