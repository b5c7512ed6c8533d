"""Variables whose values enter a function as constants: read before it, or by Python inside of it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.framework import tensor_util

from gradcheck._graph import structure
from gradcheck._graph.copies import Copy
from gradcheck._graph.differentiate import ops_of
from gradcheck._graph.lookalikes import is_distinctive, looks_like
from gradcheck._graph.provenance import at_frame, place_of, users_frame_of_stack
from gradcheck._graph.reads import owners_of, variables_of
from gradcheck._graph.trace import Outside, Slope
from gradcheck._results import Place

_MOST = 50  # variables that are moved one by one, and reads that are noted
_STEP = 2.0**-7  # of a variable's own size, in which its slope is measured
_LARGE = 2**20  # entries of a constant up to which it is looked at for what it may have been computed from


@dataclass(frozen=True, slots=True)
class _Constant:
    value: NDArray[Any]
    op: Any  # of the graph
    maker: Any  # the op whose line shows it
    literal: bool  # whether it may have been written as it is


def constants_of(graph: Any, wanted: Sequence[Any], wrt: Any) -> list[Outside]:
    """Variables that a function does not read, and takes the values of as constants.

    Args:
        graph: What the function was traced to.
        wanted: Variables that belong to it.
        wrt: What the user asks for.
    """
    asked = [] if wrt is None else wrt if isinstance(wrt, (list, tuple)) else [wrt]
    given = {id(v): v for v in map(structure.variable_of, (*wanted, *asked)) if v is not None}
    if isinstance(graph, Copy):  # its variables have their values in a session
        return []
    captured = {id(external) for external, _ in graph.captures}
    # One that is spread over devices has no value of its own.
    unread = [v for v in given.values() if id(getattr(v, "handle", None)) not in captured and hasattr(v, "numpy")]
    return taken_as_constants(graph, [(v, v.numpy()) for v in unread], asked=wrt is not None)


def taken_as_constants(
    graph: Any, unread: Sequence[tuple[Any, Any]], *, asked: bool, but: Iterable[Any] = ()
) -> list[Outside]:
    """Those of some variables whose values a graph has as constants, or that a constant looks to be computed from.

    Args:
        graph: The FuncGraph, which reads none of them.
        unread: Variables with their values.
        asked: Whether the user says that the function depends on them. Otherwise a value that is the same in all
            entries proves nothing, for many constants are zeros or ones.
        but: Tensors of the graph that are no constants.
    """
    moving = {id(each) for each in but}
    telling = [(v, value) for v, value in unread if value.size and (asked or is_distinctive(value))]
    constants = [each for each in _constants(graph) if id(each.op.outputs[0]) not in moving] if telling else []
    found = [(v, _entering(constants, _name(v), value)) for v, value in telling]
    return [Outside(v, place) for v, place in found if place is not None]


def _entering(constants: Sequence[_Constant], name: str, value: NDArray[Any]) -> Place | None:
    """Where a value enters, bit for bit or else as something simple that is computed from it."""
    for each in constants:
        same = each.value.dtype == value.dtype and each.value.shape == value.shape
        if same and each.value.tobytes() == value.tobytes():
            return place_of(each.op, name, "Variable", each.maker)
    for each in constants:
        text = looks_like(each.value, value, name, literal=each.literal) if each.value.size <= _LARGE else None
        if text is not None:
            return place_of(each.op, text, "Constant", each.maker)
    return None


def _constants(graph: Any) -> Iterator[_Constant]:
    """The continuous constants of a graph: what it captures and what it is fed, and those that it has itself."""
    original = graph.original if isinstance(graph, Copy) else lambda op: op
    for external, inner in graph.captures:
        if isinstance(external, tf.__internal__.EagerTensor) and structure.is_continuous(external):
            yield _Constant(external.numpy(), inner.op, _first_use(inner), literal=False)
    for tensor, value in graph.feeds if isinstance(graph, Copy) else ():
        if isinstance(value, np.ndarray) and structure.is_continuous(tensor):
            value = value.astype(tensor.dtype.as_numpy_dtype)
            yield _Constant(value, tensor.op, original(_first_use(tensor)), literal=False)
    for op in ops_of(graph):
        if op.type == "Const" and structure.is_continuous(op.outputs[0]):
            yield _Constant(tensor_util.MakeNdarray(op.get_attr("value")), op, original(op), literal=True)


def _first_use(tensor: Any) -> Any:
    """The op that takes a tensor first."""
    return min(tensor.consumers(), key=lambda op: op._id, default=tensor.op)


def _name(variable: Any) -> str:
    return str(variable.name).removesuffix(":0")


def read_by_python(fn: Callable[..., Any], call: Callable[[], Sequence[Any]]) -> list[Outside]:
    """Trainable variables that move what a function gives, and that a tape sees nothing of, or not all.

    Args:
        fn: The function, which could not be traced.
        call: Runs it eagerly and gives its continuous outputs.

    Returns:
        Each variable with the place where it was read, as far as it is known.
    """
    held = [structure.variable_of(v) for owner in owners_of(fn) for v in variables_of(owner)]
    variables = list({id(v): v for v in held if v is not None and v.trainable}.values())[:_MOST]
    if not variables:
        return []
    with tf.GradientTape(persistent=True) as tape, _reads_seen() as reads:
        outputs = call()
    gradients = tape.gradient(list(outputs), variables)
    base = _bytes(outputs)
    lines = [_line_of(v, reads, tape) for v in variables]
    unseen = [v for v, g in zip(variables, gradients, strict=True) if g is None and structure.is_continuous(v)]
    partly = [v for v, g, line in zip(variables, gradients, lines, strict=True) if g is not None and line is not None]
    if not (unseen or partly) or _bytes(call()) != base:  # what differs by itself shows nothing
        return []
    places = {id(v): at_frame(line, _name(v), "Variable") for v, line in zip(variables, lines, strict=True)}
    found = [Outside(v, places[id(v)]) for v in unseen if _bytes(_moved(v, call, _far(v))) != base]
    for v in partly:
        slopes = _slopes(v, call, outputs, tape) if v.dtype.is_floating else ()
        if any(each.is_off for each in slopes):
            found.append(Outside(v, places[id(v)], slopes))
    return found


def _slopes(variable: Any, call: Callable[[], Sequence[Any]], outputs: Sequence[Any], tape: Any) -> tuple[Slope, ...]:
    """The derivative of each output's sum along a direction of a variable, as a tape and as differences have it."""
    value = variable.numpy().astype(np.float64)
    scale = float(np.max(np.abs(value), initial=0.0)) or 1.0
    along = scale * np.where(np.arange(value.size) % 3 == 1, -0.5, 1.0).reshape(value.shape)
    eps = float(np.finfo(np.float32 if variable.dtype.size >= 4 else np.float16).eps)
    sizes = [float(np.linalg.norm(y.numpy().astype(np.complex128))) for y in outputs]  # rounding adds up like this
    numeric = []
    for step in (_STEP, _STEP / 2):
        ends = [_sums(_moved(variable, call, value + sign * step * along)) for sign in (1.0, -1.0)]
        numeric.append((ends[0] - ends[1]) / (2 * step))
    found = []
    for k, y in enumerate(outputs):
        gradient = tape.gradient(y, variable)
        own = 0.0 if gradient is None else float(np.sum(tf.convert_to_tensor(gradient).numpy() * along))
        error = abs(numeric[0][k] - numeric[1][k]) + eps * sizes[k] / _STEP
        found.append(Slope(own, float(numeric[1][k]), float(error)))
    return tuple(found)


def _sums(outputs: Sequence[Any]) -> NDArray[np.float64]:
    return np.array([float(np.sum(np.real(y.numpy()), dtype=np.float64)) for y in outputs])


@contextmanager
def _reads_seen() -> Iterator[list[tuple[Any, Any]]]:
    """A scope that notes of which variables and tensors the user's code takes the values, each with the frame."""
    reads: list[tuple[Any, Any]] = []

    def noted(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_name == "numpy" and len(reads) < _MOST:
            owner, line = frame.f_locals.get("self"), users_frame_of_stack(traceback.extract_stack(frame))
            if line is not None and (structure.variable_of(owner) is not None or tf.is_tensor(owner)):
                reads.append((owner, line))

    before = sys.getprofile()
    sys.setprofile(noted)
    try:
        yield reads
    finally:
        sys.setprofile(before)


def _line_of(variable: Any, reads: Sequence[tuple[Any, Any]], tape: Any) -> Any:
    """The frame in which the value of a variable was taken first, or of a tensor that is computed from it."""
    for owner, line in reads:
        if owner is variable or (owner.dtype.is_floating and tape.gradient(owner, variable) is not None):
            return line
    return None


def _moved(variable: Any, call: Callable[[], Sequence[Any]], to: Any) -> Sequence[Any]:
    """The outputs where a variable has another value for once."""
    value = variable.numpy()
    try:
        variable.assign(to.astype(value.dtype))
        return call()
    finally:
        variable.assign(value)


def _far(variable: Any) -> Any:
    value = variable.numpy()
    return value * np.asarray(1.125, value.dtype) + np.asarray(0.125, value.dtype)


def _bytes(outputs: Sequence[Any]) -> list[bytes]:
    return [output.numpy().tobytes() for output in outputs]
