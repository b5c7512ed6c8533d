"""Variables whose values enter a function as constants: read before it, or by Python inside of it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import tensor_util

from gradcheck._graph import structure
from gradcheck._graph.copies import Copy
from gradcheck._graph.differentiate import ops_of
from gradcheck._graph.provenance import at_frame, place_of, users_frame_of_stack
from gradcheck._graph.reads import owners_of, variables_of
from gradcheck._results import Place

_MOST = 50  # variables that are moved one by one, and reads that are noted


def constants_of(graph: Any, wanted: Sequence[Any], wrt: Any) -> list[tuple[Any, Place]]:
    """Variables that a function does not read, and takes the values of as constants, each with the place.

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
    unread = [v for v in given.values() if id(getattr(v, "handle", None)) not in captured]
    found = [(v, _constant_of(graph, v, asked=wrt is not None)) for v in unread]
    return [(v, place) for v, place in found if place is not None]


def _constant_of(graph: Any, variable: Any, *, asked: bool) -> Place | None:
    """Where a function takes a constant that has the value of a variable, bit for bit; None where it takes none.

    Args:
        graph: The FuncGraph of the function.
        variable: The variable.
        asked: Whether the user says that the function depends on it. Otherwise a value that is the same in all
            entries proves nothing, for many constants are zeros or ones.
    """
    if not hasattr(variable, "numpy"):  # such as one that is spread over devices
        return None
    value = variable.numpy()
    if not value.size or (not asked and np.all(value == value.flat[0])):
        return None

    def fits(tensor: Any) -> bool:
        return bool(tensor.dtype == variable.dtype and tensor.shape == variable.shape)

    for external, inner in graph.captures:
        eager = isinstance(external, tf.__internal__.EagerTensor)
        if eager and fits(external) and external.numpy().tobytes() == value.tobytes():
            return place_of(inner.op, _name(variable), "Variable", _first_use(inner))
    for op in ops_of(graph):
        same = op.type == "Const" and fits(op.outputs[0])
        if same and tensor_util.MakeNdarray(op.get_attr("value")).tobytes() == value.tobytes():
            return place_of(op, _name(variable), "Variable")
    return None


def _first_use(tensor: Any) -> Any:
    """The op that takes a captured tensor first."""
    return min(tensor.consumers(), key=lambda op: op._id, default=tensor.op)


def _name(variable: Any) -> str:
    return str(variable.name).removesuffix(":0")


def read_by_python(fn: Callable[..., Any], call: Callable[[], Sequence[Any]]) -> list[tuple[Any, Place]]:
    """Trainable variables that move what a function gives, and that a tape sees nothing of.

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
    unseen = [v for v, g in zip(variables, gradients, strict=True) if g is None and structure.is_continuous(v)]
    if not unseen or _bytes(call()) != base:  # what differs by itself shows nothing
        return []
    lost = [v for v in unseen if _bytes(_moved(v, call)) != base]
    return [(v, at_frame(_line_of(v, reads, tape), _name(v), "Variable")) for v in lost]


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


def _moved(variable: Any, call: Callable[[], Sequence[Any]]) -> Sequence[Any]:
    value = variable.numpy()
    try:
        variable.assign(value * np.asarray(1.125, value.dtype) + np.asarray(0.125, value.dtype))
        return call()
    finally:
        variable.assign(value)


def _bytes(outputs: Sequence[Any]) -> list[bytes]:
    return [output.numpy().tobytes() for output in outputs]
