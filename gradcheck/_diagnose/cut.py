"""The op where the path of a gradient ends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.python.framework import ops

from gradcheck._diagnose.remedies import (
    CAST,
    COMPARISONS,
    EAGER_PYTHON,
    OVERWRITTEN,
    STEPS,
    THROUGH_VARIABLE,
    WHOLE_NUMBERS,
    reason_of,
    remedy_of,
)
from gradcheck._graph.nodes import CALLED, Node, called_functions, data_inputs, output_refs
from gradcheck._graph.program import CONTINUOUS, Body, Program, topological
from gradcheck._graph.provenance import at_frame, operation, place
from gradcheck._graph.regions import is_region, region_of
from gradcheck._graph.trace import Traced
from gradcheck._results import Cut, Place

_WHOLE = (types_pb2.DT_INT32, types_pb2.DT_INT64, types_pb2.DT_BOOL)
_TRIED = 50  # ops of a path that are differentiated one by one


def find_cut(traced: Traced, source: str, targets: Iterable[str], *, absent: bool) -> Cut | None:
    """The first op through which no gradient passes, if every way from an x to an output is cut; else None.

    Args:
        traced: The function.
        source: Name of the argument, or reference, of the x.
        targets: References of the output.
        absent: Whether the gradient is None, and not just zero.
    """
    program, wanted = traced.program, set(targets)
    path = _between(program.main, source, wanted)
    live, first = _flow(traced, path, {source}, program, "")
    if live & wanted:  # all ops on some path have gradients: one may be Python, or leave an input out
        return _python(traced, path) or (_leaves_out(traced, source, path, wanted) if absent else None)
    return first


def find_partial_cut(traced: Traced, source: str | None, targets: Iterable[str]) -> Cut | None:
    """The first op that stops one of several ways from an x to an output, and moves with x; else None.

    Ops that are constant between steps take nothing from the gradient.
    """
    live = {source}
    for node in _between(traced.program.main, source, set(targets)) if source is not None else ():
        if any(i in live for i in data_inputs(node)):
            if _reads_what_was_assigned(traced, node):
                return _cut_at(traced, node.name, "ReadVariableOp", THROUGH_VARIABLE)
            reason = _why(node) if _is_continuous(node) and node.op not in STEPS else None
            if reason is not None:
                return _cut_at(traced, node.name, node.op, reason)
            live.update(ref for ref, _ in output_refs(node))
    return None


def find_overwriting(traced: Traced, source: str | None, targets: Iterable[str]) -> Cut | None:
    """The read of a variable that comes after all of it was assigned; None where its value from before counts."""
    names = [a.name for a in traced.program.main.args]
    if source not in names[: len(traced.graph.inputs)] or _between(traced.program.main, source, set(targets)):
        return None
    handle = traced.graph.inputs[names.index(source)]
    nodes = {node.name: node for node in traced.program.main.nodes}
    for op in handle.consumers():
        if op.name in nodes and _reads_what_was_assigned(traced, nodes[op.name]):
            return _cut_at(traced, op.name, op.type, OVERWRITTEN)
    return None


def _reads_what_was_assigned(traced: Traced, node: Node) -> bool:
    """Whether a node reads a variable that was assigned: assignments are followed, and it is handed what was."""
    op = operation(traced.graph, node.name, "ReadVariableOp") if node.op == "Identity" else None
    if op is None or op.type != "ReadVariableOp" or op.graph is not traced.graph:
        return False
    given = dict(zip(map(id, traced.graph.inputs), traced.program.main.args, strict=False))
    variable = given.get(id(op.inputs[0]))
    return variable is not None and data_inputs(node)[0] != variable.name


def _leaves_out(traced: Traced, source: str, path: Iterable[Node], targets: set[str]) -> Cut | None:
    """The first op on the path that has a gradient, and none for the input through which the source comes."""
    names = [a.name for a in traced.program.main.args]
    if source not in names[: len(traced.graph.inputs)]:
        return None
    x = traced.graph.inputs[names.index(source)]
    called: set[str] = set()
    for node in _alive(path, source, targets)[:_TRIED]:
        if _reads_what_was_assigned(traced, node):
            return _cut_at(traced, node.name, "ReadVariableOp", THROUGH_VARIABLE)
        try:
            op = traced.graph.get_operation_by_name(node.name)
        except (KeyError, ValueError):  # inside of a function that is called
            called.add(node.name)
            continue
        try:
            with traced.graph.as_default():
                gradient = tf.gradients(op.outputs, x, name="gradients")
            reason = f"the gradient of {_called(traced, node)} leaves this input out: it is None"
        except LookupError:
            refused = f"TensorFlow has no gradient of {node.op}, and so refuses any that leads through it"
            return _cut_at(traced, node.name, node.op, refused)
        if gradient[0] is None:
            inside = region_of(op).inside if is_region(op) else ()
            if any(not name.startswith(tuple(f"{i}/" for i in inside)) for name in called):
                return None  # it may have ended in there, where each op is looked at alone
            return _cut_at(traced, node.name, node.op, reason)
    return None


def _alive(path: Iterable[Node], source: str, targets: set[str]) -> list[Node]:
    """The nodes of a path by which the source reaches a target through ops that have gradients, in order."""
    live, needed = {source}, set(targets)
    nodes = []
    for node in path:
        if _why(node) is None and any(i in live for i in data_inputs(node)):
            nodes.append(node)
            live.update(ref for ref, dtype in output_refs(node) if dtype not in _WHOLE)
    for node in reversed(nodes):
        if any(ref in needed for ref, _ in output_refs(node)):
            needed.update(data_inputs(node))
    return [node for node in nodes if any(ref in needed for ref, _ in output_refs(node))]


def _flow(
    traced: Traced, nodes: Iterable[Node], live: set[str], program: Program, prefix: str
) -> tuple[set[str], Cut | None]:
    """References that a gradient reaches from the live ones, and the first op that stops it."""
    first: Cut | None = None
    positions: dict[str, Node] = {}
    for node in nodes:
        arriving = [k for k, i in enumerate(data_inputs(node)) if i in live]
        if not arriving:
            made = next((positions[i] for i in data_inputs(node) if i in positions), None)
            if made is not None:
                first = _likelier(first, _cut_at(traced, prefix + made.name, made.op, WHOLE_NUMBERS))
            continue
        outputs = [ref for ref, _ in output_refs(node)]
        if node.op in CALLED:
            passed, inner = _through_call(traced, node, arriving, program, prefix)
            live.update(outputs[k] for k in passed if k < len(outputs))
            first = _likelier(first, inner if len(passed) < len(outputs) else None)
            continue
        reason = _why(node)
        if reason is None:
            whole = {ref: node for ref, dtype in output_refs(node) if dtype in _WHOLE and _is_continuous(node)}
            positions.update(whole)
            live.update(set(outputs) - whole.keys())
        else:
            first = _likelier(first, _cut_at(traced, prefix + node.name, node.op, reason))
    return live, first


def _likelier(first: Cut | None, other: Cut | None) -> Cut | None:
    """The one of two cuts on the way from x to y by which y moves with x, the first where nothing tells.

    What is constant between steps moves nothing but there; a comparison only chooses, often between two ways that each
    end as well.
    """
    return min((cut for cut in (first, other) if cut is not None), key=_idleness, default=None)


def _idleness(cut: Cut) -> int:
    return 2 if cut.place.op_type in COMPARISONS else int(cut.place.op_type in STEPS or cut.place.op_type == "Cast")


def _through_call(
    traced: Traced, node: Node, arriving: list[int], program: Program, prefix: str
) -> tuple[set[int], Cut | None]:
    """Which outputs of a call, conditional or loop a gradient reaches from some of its inputs."""
    passed: set[int] = set()
    first: Cut | None = None
    for name, offset in called_functions(node):
        body = program.functions.get(name)
        if body is None:
            return set(range(len(output_refs(node)))), None
        reached, grown = {k - offset for k in arriving if k >= offset}, True
        while grown:  # what one iteration of a loop passes on, the next one gets
            live = {body.args[k].name for k in reached if k < len(body.args)}
            live, cut = _flow(traced, topological(body), live, program, f"{prefix}{node.name}/")
            out = {k for k, r in enumerate(body.returns) if r.ref in live}
            first = _likelier(first, cut)
            grown = node.op.endswith("While") and not out <= reached
            reached |= out
        passed |= out
    return passed, first


def _python(traced: Traced, path: Iterable[Node]) -> Cut | None:
    for node in path:
        if node.op == "EagerPyFunc":
            return _cut_at(traced, node.name, node.op, EAGER_PYTHON)
    return None


def _cut_at(traced: Traced, name: str, op: str, reason: str) -> Cut:
    found = under_its_name(traced, place(traced.graph, name, op))
    return Cut(place=found, reason=reason, remedy=remedy_of(found.op_type, reason))


def under_its_name(traced: Traced, found: Place) -> Place:
    """The place of an op, that of one that gives the results of a custom gradient by the name of the function."""
    op = operation(traced.graph, found.op, found.op_type) if found.op_type == "IdentityN" else None
    if op is None or not is_region(op):
        return found
    region = region_of(op)
    if found.file is None and not region.trusted:  # called by a library or by us: where it is written
        found = at_frame(region.gradient or region.frame, found.op, found.op_type)
    return replace(found, op=region.name or found.op, op_type="custom_gradient")


def _called(traced: Traced, node: Node) -> str:
    """What to call an op in a sentence."""
    found = under_its_name(traced, Place(op=node.name, op_type=node.op))
    return node.op if found.op_type == node.op else f"{found.op_type} {found.op!r}"


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


def _why(node: Node) -> str | None:
    known = reason_of(node.op)
    if known is not None:
        return known
    dtypes = [dtype for _, dtype in output_refs(node)]
    if node.op == "Cast" and dtypes[0] not in CONTINUOUS:
        return CAST
    if dtypes and not _is_continuous(node) and node.op not in CALLED and not _carries(node):
        return f"{node.op} gives no floating output, so no gradient passes"
    if "_gradient_op_type" in node.attr or node.op in CALLED:
        return None
    try:
        gradient = ops._gradient_registry.lookup(node.op)
    except LookupError:
        return f"no gradient is registered for {node.op}"
    return f"{node.op} is registered as not differentiable" if gradient is None else None


def _is_continuous(node: Node) -> bool:
    return any(dtype in CONTINUOUS for _, dtype in output_refs(node))


def _carries(node: Node) -> bool:
    """Whether a node hands floating values on inside something else, as tensor lists do."""
    return node.op.startswith(("TensorList", "EmptyTensorList", "Shape")) or "Variant" in node.op
