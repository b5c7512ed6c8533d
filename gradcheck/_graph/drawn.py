"""What a step takes from outside and cannot take twice, such as a data set's next: handed out, and given once more."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tensorflow.core.framework import types_pb2

from gradcheck._graph.nodes import Node, copy_node, data_inputs, node_of, output_refs, set_inputs
from gradcheck._graph.program import RESOURCE, Argument, Body, Return
from gradcheck._graph.single import is_from_outside

_NO_VALUES = (RESOURCE, types_pb2.DT_VARIANT)


def drawing(body: Body) -> list[Return]:
    """The values that the ops of a body, of those that it calls none, take from outside."""
    found = [output_refs(node) for node in body.nodes if is_from_outside(node)]
    return [Return(ref, dtype) for refs in found for ref, dtype in refs if dtype not in _NO_VALUES]


def given_drawn(body: Body, flat: Sequence[Any], drawn: Mapping[str, Any]) -> tuple[Body, list[Any]]:
    """A body that is given what it had drawn, with the values of its arguments.

    Args:
        body: The body.
        flat: The values of its arguments.
        drawn: Values by the reference that `drawing` gives.
    """
    gone = {node_of(ref) for ref in drawn}
    names: dict[str, str] = {}
    for name, refs in itertools.groupby(drawn, node_of):
        names.update({ref: f"{name}[{k}]" for k, ref in enumerate(refs)})
    nodes = [_given(node, names, gone) for node in body.nodes if node.name not in gone]
    returns = tuple(replace(r, ref=names.get(r.ref, r.ref)) for r in body.returns)
    read = {i for node in nodes for i in data_inputs(node)} | {r.ref for r in returns}
    left = [(a, v) for a, v in zip(body.args, flat, strict=True) if a.dtype != RESOURCE or a.name in read]
    left += [(Argument(names[ref], v.dtype.as_datatype_enum), v) for ref, v in drawn.items()]
    args, values = zip(*left, strict=True) if left else ((), ())
    kept = tuple(name for name in body.kept if name not in gone)
    return replace(body, args=tuple(args), nodes=tuple(nodes), returns=returns, kept=kept), list(values)


def _given(node: Node, names: Mapping[str, str], gone: set[str]) -> Node:
    if not any(node_of(i) in gone for i in node.input):
        return node
    copy = copy_node(node)
    set_inputs(copy, [names.get(i, i) for i in node.input if not i.startswith("^") or node_of(i) not in gone], [])
    return copy
