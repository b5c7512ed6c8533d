"""The op of the forward pass that an op of a gradient differentiates."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from gradcheck._graph.nodes import CALLED

_SCOPE = re.compile(r"(?:^|/)gradients(?:_\d+)?/")  # what tf.gradients opens, in a graph and inside loops and calls
_TAPE = "gradient_tape/"  # what a tf.GradientTape opens
# What calls the gradient that the user wrote for a tf.custom_gradient: its ops are the user's own.
_GRADIENT_CODE = ("actual_grad_fn", "internal_grad_fn", "tape_grad_fn")
# What tf.vectorized_map and jacobians put behind the name of an op that they run on all rows at once.
_VECTORIZED = "/pfor/"
# How far up from an op of a gradient the forward pass is looked for.
_NEAR = 8


def forward_op(graph: Any, op: Any) -> Any:
    """The op that `op` differentiates, in the end, or None where it is of no gradient of TensorFlow's.

    tf.gradients names its ops after the op that it differentiates. A tape names only the scope: there, the ops of
    that scope are differentiated once more, each alone, and the one whose gradient has an op of this type, fed by the
    same of its tensors, is taken.

    Args:
        graph: The outermost FuncGraph.
        op: An op of that graph, or of a function that it calls.
    """
    found, seen = op, {id(op)}
    while True:
        before = None if _is_users_gradient(found) else _by_name(graph, found)
        before = _by_form(found) if before is None else before
        if before is None or id(before) in seen:
            return None if found is op else found
        found = before
        seen.add(id(found))


def _is_users_gradient(op: Any) -> bool:
    return any(f.name in _GRADIENT_CODE and f.filename.endswith("custom_gradient.py") for f in op.traceback or ())


def called_graphs(call: Any) -> Iterator[Any]:
    """The graphs of all functions that an op calls."""
    for key in CALLED.get(call.type, ()):
        attribute = call.node_def.attr[key]
        functions = attribute.list.func if attribute.WhichOneof("value") == "list" else [attribute.func]
        for called in functions:
            graph = call.graph
            while graph is not None:
                function = graph._functions.get(called.name)
                if function is not None and hasattr(function, "graph"):
                    yield function.graph
                    break
                graph = getattr(graph, "outer_graph", None)


def _by_name(graph: Any, op: Any) -> Any:
    starts = [m.end() for m in _SCOPE.finditer(op.name)]
    ends = [m.start() for m in re.finditer("_grad/", op.name)]
    wanted = [op.name[a:b] for a in reversed(starts) for b in reversed(ends) if a < b]
    if not wanted:
        return None
    graphs = [op.graph, *_graphs(graph, set())]
    graphs.sort(
        key=lambda g: (g is not op.graph, _stem(getattr(g, "name", "")) != _stem(getattr(op.graph, "name", "")))
    )
    for name in wanted:
        for each in graphs:
            try:
                return each.get_operation_by_name(name)
            except (KeyError, ValueError):
                continue
    return None


def functions_of(graph: Any) -> dict[str, Any]:
    """The graphs of all functions that a graph calls, at any depth, by the names of the functions."""
    graphs = _graphs(graph, set())
    return {name: f.graph for each in graphs for name, f in each._functions.items() if hasattr(f, "graph")}


def _graphs(graph: Any, seen: set[int]) -> Iterator[Any]:
    """The graph and those of all functions that it calls, at any depth."""
    if id(graph) in seen:
        return
    seen.add(id(graph))
    yield graph
    for op in graph.get_operations():
        for inner in called_graphs(op):
            yield from _graphs(inner, seen)


def _stem(name: str) -> str:
    """What the graphs of a function, of its forward and of its backward part have in common in their names."""
    name = re.sub(r"^__(?:inference_+)?(?:forward_|backward_)?", "", name)
    return re.sub(r"(?:_rewritten|_grad|_\d+)*$", "", name)


def _by_form(op: Any) -> Any:
    if not op.name.startswith(_TAPE):
        return None
    scope = op.name.removeprefix(_TAPE).partition(_VECTORIZED)[0]
    best, most = _of_scope(op.graph, scope), 0
    for candidate in op.graph.get_operations():
        if candidate is op:
            break
        if candidate.outputs and _in_scope(candidate.name, scope):
            likeness = _likeness(candidate, op)
            if likeness > most:
                best, most = candidate, likeness
    return best


def _of_scope(graph: Any, scope: str) -> Any:
    """The op after which the scope is named, if there is one: many an op opens a scope for itself alone."""
    try:
        return graph.get_operation_by_name(scope.rpartition("/")[0])
    except (KeyError, ValueError):
        return None


def _in_scope(name: str, scope: str) -> bool:
    """Whether the gradient of an op of that name would be made under that scope."""
    inside = scope.rpartition("/")[0]
    return inside in (name, name.rpartition("/")[0])


def _likeness(candidate: Any, op: Any) -> int:
    """How well `op` fits among the ops of the candidate's gradient: 0 for not at all."""
    own = {id(t): ("in", k) for k, t in enumerate(candidate.inputs)}
    own.update({id(t): ("out", k) for k, t in enumerate(candidate.outputs)})
    fed = _fed(op, own)
    if not any(fed):
        return 0
    return max((1 + _agreeing(fed, other) for kind, other in _made(candidate) if kind == op.type), default=0)


def _agreeing(fed: list[Any], other: list[Any]) -> int:
    return sum(a == b for a, b in zip(fed, other, strict=False) if a is not None)


def _fed(op: Any, own: dict[int, Any]) -> list[Any]:
    """For each input of an op: the tensor of the forward op that it is, or that it is computed from."""
    return [own.get(id(t)) or _nearest(t, own, _NEAR) for t in op.inputs]


def _nearest(tensor: Any, own: dict[int, Any], steps: int) -> Any:
    pending = [tensor]
    for _ in range(steps):
        pending = [i for t in pending if t.op.name.startswith((_TAPE, "gradients/")) for i in t.op.inputs]
        for t in pending:
            if id(t) in own:
                return own[id(t)]
    return None


def _made(candidate: Any) -> list[tuple[str, list[Any]]]:
    """The ops that the gradient of an op consists of, each with what of the op feeds it."""
    if candidate.type in CALLED:
        return []
    scratch = FuncGraph("forward")
    with scratch.as_default():
        inputs = [tf.compat.v1.placeholder(t.dtype, t.shape) for t in candidate.inputs]
        try:
            copy = scratch._create_op_internal(
                candidate.type, inputs, [t.dtype for t in candidate.outputs], attrs=dict(candidate.node_def.attr)
            )
            tf.gradients([t for t in copy.outputs if t.dtype.is_floating or t.dtype.is_complex], inputs)
        except (LookupError, ValueError, TypeError):
            return []
    own = {id(t): ("in", k) for k, t in enumerate(copy.inputs)}
    own.update({id(t): ("out", k) for k, t in enumerate(copy.outputs)})
    made = scratch.get_operations()
    return [(op.type, _fed(op, own)) for op in made[made.index(copy) + 1 :]]
