"""Tensors of a `tf.Graph`, traced: what `tf.gradients` would differentiate, at the values that a session has."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from gradcheck._errors import GraphUnavailable
from gradcheck._graph import structure
from gradcheck._graph.already import note_on_gradients
from gradcheck._graph.asked import check_cotangent, gradients_as_outputs
from gradcheck._graph.contexts import chain
from gradcheck._graph.copies import Copy
from gradcheck._graph.evaluate import Runner
from gradcheck._graph.outside import taken_as_constants
from gradcheck._graph.questions import Question, plain_name
from gradcheck._graph.randomness import FROM_PARAMETERS
from gradcheck._graph.sources import begin_of
from gradcheck._graph.trace import Asked, Outside, Traced, finish, settled
from gradcheck._graph.values import Values, is_symbolic


def trace_tensors(asked: Question, name: str, *, order: int = 1, seed: int = 0) -> Traced:
    """Copy what ys depend on, and differentiate the copy.

    Args:
        asked: The question.
        name: What to call the tensors.
        order: 2 makes the gradients the outputs.
        seed: Of the cotangents of those gradients, with order 2.

    Raises:
        ValueError: If a placeholder is not fed, or a session is needed and there is none.
        GraphUnavailable: If a value that is needed cannot be read.
    """
    with _around(asked.graph):
        copy = Copy(asked.graph, asked.fed, alone=asked.alone)
        ys = copy.bring(asked.ys)
        _require_session(asked, copy)
        cotangents = _cotangent_values(asked, copy)
        xs = [copy.x_of(x) for x in asked.xs]
        stops = [t for t in map(copy.find, asked.stops) if t is not None]
        _refuse_stops_in_loops(copy)
        outputs = [("output", ys, cotangents)]
        wanted = Asked(
            outputs=outputs, xs=list(zip(asked.names, xs, strict=True)), stops=stops, unconnected=asked.unconnected
        )
        if order == 2:
            wanted = gradients_as_outputs(copy, wanted, seed)
        already = note_on_gradients(asked) if order == 1 else None
        notes = [*_notes(asked, copy), *filter(None, [already])]
        traced = finish(copy, name, wanted, [], asked.values, notes=notes)
        outside = _outside(asked, copy) if asked.has_session and not asked.alone else {}
    variables = {n for n, x in zip(asked.names, asked.xs, strict=True) if structure.variable_of(x) is not None}
    sources = tuple(replace(s, variable=s.path in variables) for s in traced.sources)
    return replace(traced, sources=sources, session=asked.values if asked.has_session else None, outside=outside)


def _outside(asked: Question, copy: Copy) -> dict[str, Outside]:
    """Variables among the xs that ys do not read, and that a constant or what is fed has the value of."""
    unread = {}
    for name, x in zip(asked.names, asked.xs, strict=True):
        variable = structure.variable_of(x)
        if variable is not None and copy.find(begin_of(variable)) is None:
            with suppress(GraphUnavailable, tf.errors.OpError):  # what has no value is no constant
                unread[name] = variable, np.asarray(asked.values.value(begin_of(variable)))
    found = taken_as_constants(copy, list(unread.values()), asked=False, but=map(copy.x_of, asked.xs))
    places = {id(each.variable): each for each in found}
    return {name: places[id(v)] for name, (v, _) in unread.items() if id(v) in places}


def _around(graph: Any) -> Any:
    """A graph of our own around it all: what TensorFlow lifts out of functions must not land in the user's.

    Tensors of a function that is called eagerly are compared by value, `i == 3`, and in a `tf.Graph` by identity; the
    user's gradients must find what they find without us.
    """
    eager = graph.building_function and tf.compat.v1.executing_eagerly_outside_functions()
    return (FuncGraph("around") if eager else tf.Graph()).as_default()


def _cotangent_values(asked: Question, copy: Copy) -> list[Any]:
    symbolic = [g for g in asked.grad_ys if is_symbolic(g)]
    if not symbolic:
        return list(asked.grad_ys)
    if asked.has_session:
        # Together with all else that is read, so that it belongs to the same point.
        asked.values.read([*symbolic, *copy.unread()])
        found = [asked.values.value(g) for g in symbolic]
    else:
        found = _evaluate(copy, copy.bring(symbolic), asked.values)
    values = iter(found)
    return [
        check_cotangent(np.asarray(next(values)), y, f"ys[{i}]") if is_symbolic(g) else g
        for i, (g, y) in enumerate(zip(asked.grad_ys, asked.ys, strict=True))
    ]


def _require_session(asked: Question, copy: Copy) -> None:
    unread = [t for t in copy.unread() if t.op.type != "Const" and not t.graph.building_function]
    if unread and not asked.has_session:
        found = (
            "there is no default session"
            if tf.compat.v1.get_default_session() is None
            else "the default session is one of another graph"
        )
        raise ValueError(
            f"session must be given: ys depend on {plain_name(unread[0])!r} ({unread[0].op.type}), which has its "
            "value in a "
            f"session, and {found}; write session=session, or call inside of `with session.as_default():`"
        )


def _evaluate(copy: Copy, tensors: Sequence[Any], values: Values) -> list[Any]:
    """Values of tensors of the copy, computed without a session."""
    program, held, *_ = settled(copy, tensors, [], values)
    return Runner(program, alive=copy).run([held.get(a.name) for a in program.main.args])


def _refuse_stops_in_loops(copy: Copy) -> None:
    for op in copy.get_operations():
        if (op.type == "StopGradient" or op.type in FROM_PARAMETERS) and chain(op):
            what = "tf.stop_gradient" if op.type == "StopGradient" else op.type
            raise GraphUnavailable(
                f"{what} {op.name!r} is inside a loop or a condition of control flow v1, where it cannot be "
                "held still; call tf.compat.v1.enable_control_flow_v2() before the graph is built"
            )


def _notes(asked: Question, copy: Copy) -> list[str]:
    notes = []
    if copy.held:
        notes.append(f"held at the value read in the session: {', '.join(sorted(set(copy.held))[:5])}")
    if copy.left_out:
        notes.append(f"left out, because it changes state: {', '.join(sorted(set(copy.left_out))[:5])}")
    inner = [n for n in asked.fed if asked.graph.as_graph_element(n).op.inputs]
    if inner:
        names = ", ".join(n.removesuffix(":0") for n in sorted(inner)[:5])
        notes.append(f"feed_dict gives {names}: what they were computed from is not looked at")
    return notes
