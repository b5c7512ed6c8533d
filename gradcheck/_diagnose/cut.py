"""The op where the path of a gradient ends."""

from __future__ import annotations

from collections.abc import Iterable

from tensorflow.python.framework import ops

from gradcheck._graph.program import CALLED, CONTINUOUS, Body, Node, Program, data_inputs, output_refs, topological
from gradcheck._graph.provenance import place
from gradcheck._graph.trace import Traced
from gradcheck._results import Cut

_REASONS = {
    "Round": "rounding is constant between its steps, and TensorFlow gives it no gradient",
    "Rint": "rounding is constant between its steps, and TensorFlow gives it no gradient",
    "Floor": "floor is constant between its steps, and TensorFlow gives it no gradient",
    "Ceil": "ceil is constant between its steps, and TensorFlow gives it no gradient",
    "Sign": "sign is constant on either side of zero",
    "ArgMax": "argmax gives positions, which have no gradient",
    "ArgMin": "argmin gives positions, which have no gradient",
    "PyFunc": "TensorFlow does not see into tf.numpy_function; tf.custom_gradient around it would give it a gradient",
    "PyFuncStateless": "TensorFlow does not see into tf.numpy_function; tf.custom_gradient around it would give it a gradient",
    "StopGradient": "tf.stop_gradient",
    "AssignVariableOp": "the value goes through a variable, and gradients do not pass an assignment",
}


def find_cut(traced: Traced, source: str, targets: Iterable[str]) -> Cut | None:
    """The first op on the way from an x to an output through which no gradient passes, or None.

    Args:
        traced: The function.
        source: Name of the argument, or reference, of the x.
        targets: References of the output.
    """
    program = traced.program
    path = _between(program.main, source, set(targets))
    live = {source}
    for node in path:
        arriving = [k for k, i in enumerate(data_inputs(node)) if i in live]
        if not arriving:
            continue
        reason = _why(node, program)
        if reason is not None:
            return Cut(place=place(traced.graph, node.name, node.op), reason=reason)
        live.update(ref for ref, dtype in output_refs(node))
    return None


def _between(body: Body, source: str, targets: set[str]) -> list[Node]:
    """The nodes that depend on the source and that a target depends on, in order."""
    order = topological(body)
    needed, wanted = set(targets), set()
    for node in reversed(order):
        if any(ref in needed for ref, _ in output_refs(node)):
            wanted.add(node.name)
            needed.update(data_inputs(node))
    touched, found = {source}, []
    for node in order:
        if node.name in wanted and any(i in touched for i in data_inputs(node)):
            found.append(node)
            touched.update(ref for ref, _ in output_refs(node))
    return found


def _why(node: Node, program: Program) -> str | None:
    if node.op in _REASONS:
        return _REASONS[node.op]
    dtypes = [dtype for _, dtype in output_refs(node)]
    if node.op == "Cast" and dtypes[0] not in CONTINUOUS:
        return "a cast to an integer or bool dtype has no gradient"
    if dtypes and not any(d in CONTINUOUS for d in dtypes) and node.op not in CALLED and not _carries(node):
        return f"{node.op} gives no floating output, so no gradient passes"
    if node.attr["_gradient_op_type"].s or node.op in CALLED:
        return None
    try:
        gradient = ops._gradient_registry.lookup(node.op)
    except LookupError:
        return f"no gradient is registered for {node.op}"
    return f"{node.op} is registered as not differentiable" if gradient is None else None


def _carries(node: Node) -> bool:
    """Whether a node hands floating values on inside something else, as tensor lists do."""
    return node.op.startswith(("TensorList", "EmptyTensorList", "Shape")) or "Variant" in node.op
