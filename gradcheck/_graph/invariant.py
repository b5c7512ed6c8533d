"""What stays the same at all points of a batch, so that it is computed once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from gradcheck._graph.nodes import (
    Node,
    control_inputs,
    copy_node,
    data_inputs,
    node_of,
    op_def,
    output_refs,
    set_inputs,
)
from gradcheck._graph.program import RESOURCE, VARIANT, Argument, Body, Return, redirect, topological

_LOOPS = frozenset({"Switch", "Merge", "Enter", "RefSwitch", "RefMerge", "RefEnter"})  # of control flow v1
_CHEAP = frozenset({"Const", "Identity", "Shape", "Size", "Rank"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A body in two parts.

    Attributes:
        nodes: What does not depend on the arguments that move.
        shared: Values of these nodes that the rest reads.
        rest: The body of what is left; it takes the shared values as further arguments, the last ones.
    """

    nodes: tuple[Node, ...]
    shared: tuple[Return, ...]
    rest: Body


def split(body: Body, moving: Collection[str]) -> Split:
    """Part a body into what depends on some of its arguments and what does not.

    Ops with a state stay where each point runs them, and so do constants: they cost nothing there.
    """
    whole = Split(nodes=(), shared=(), rest=body)
    if any(node.op in _LOOPS for node in body.nodes):
        return whole
    given = {a.name for a in body.args} - set(moving)
    still: dict[str, Node] = {}
    for node in topological(body):
        definition = op_def(node.op)
        if definition is None or definition.is_stateful or any(t in (RESOURCE, VARIANT) for _, t in output_refs(node)):
            continue
        if all(i in given or node_of(i) in still for i in data_inputs(node)) and all(
            node_of(i) in still for i in control_inputs(node)
        ):
            still[node.name] = node
    if all(node.op in _CHEAP for node in still.values()):
        return whole
    gone = {name for name, node in still.items() if node.op != "Const"}
    kept = [_after(node, gone) for node in body.nodes if node.name not in gone]
    types = {ref: dtype for name in gone for ref, dtype in output_refs(still[name])}
    read = dict.fromkeys([i for node in kept for i in data_inputs(node)] + [r.ref for r in body.returns])
    shared = tuple(Return(ref, types[ref]) for ref in read if ref in types)
    names = {value.ref: f"shared_{k}" for k, value in enumerate(shared)}
    arguments = tuple(Argument(names[value.ref], value.dtype) for value in shared)
    checks = tuple(name for name in body.kept if name not in gone)
    rest = redirect(replace(body, args=(*body.args, *arguments), nodes=tuple(kept), kept=checks), names)
    return Split(nodes=tuple(still.values()), shared=shared, rest=rest)


def _after(node: Node, gone: Collection[str]) -> Node:
    """The node without waiting for nodes that have run before the batch."""
    waits = control_inputs(node)
    if all(node_of(i) not in gone for i in waits):
        return node
    node = copy_node(node)
    set_inputs(node, data_inputs(node), [i for i in waits if node_of(i) not in gone])
    return node
