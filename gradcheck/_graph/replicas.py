"""Sums over replicas, written as sums: a step that is run again runs all its replicas on one device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from tensorflow.python.framework import tensor_util

from gradcheck._graph.nodes import Node, control_inputs, copy_node, data_inputs, make_node, node_of, set_inputs
from gradcheck._graph.program import Body, Program

_REDUCE = "CollectiveReduceV2"  # inputs: what is summed, size and number of the group, number of the sum


def sum_replicas(program: Program, keys: Mapping[str, int]) -> Program:
    """The program with each group of collective sums, of which all members stand in its main body, as additions.

    Other collective ops, and groups of which members run elsewhere, stay as they are.

    Args:
        program: The program.
        keys: Values of integer arguments of the main body, among which are those that tell the groups apart.
    """
    return replace(program, main=_summed(program.main, keys))


def _summed(body: Body, keys: Mapping[str, int]) -> Body:
    nodes = {node.name: node for node in body.nodes}
    groups: dict[tuple[Any, ...], list[Node]] = {}
    for node in body.nodes:
        if node.op == _REDUCE and node.attr["merge_op"].s == b"Add" and node.attr["final_op"].s == b"Id":
            groups.setdefault(_key(node, nodes, keys), []).append(node)
    together = {
        node.name: [data_inputs(member)[0] for member in members]
        for key, members in groups.items()
        if None not in key and key[0] == len(members)
        for node in members
    }
    if not together:
        return body
    refs = {f"{name}:data:0": f"{name}:sum:0" for name in together}
    new = []
    for node in body.nodes:
        if node.name in together:
            added = make_node("AddN", node.name, [*together[node.name]], T=node.attr["T"].type)
            added.attr["N"].i = len(together[node.name])
            new.append(added)
        elif any(i in refs or node_of(i) in together for i in node.input):
            copy = copy_node(node)
            waits = [c for c in control_inputs(node) if node_of(c) not in together]
            set_inputs(copy, [refs.get(i, i) for i in data_inputs(node)], waits)
            new.append(copy)
        else:
            new.append(node)
    # A sum waits for nothing but its terms, some of which may stand behind it: the order is found anew where it runs.
    returns = tuple(replace(r, ref=refs.get(r.ref, r.ref)) for r in body.returns)
    return replace(body, nodes=tuple(new), returns=returns)


def _key(node: Node, nodes: Mapping[str, Node], keys: Mapping[str, int]) -> tuple[Any, ...]:
    """Size, number and instance of the group; None for what is not known."""
    return tuple(_number(ref, nodes, keys) for ref in data_inputs(node)[1:4])


def _number(ref: str, nodes: Mapping[str, Node], keys: Mapping[str, int]) -> Any:
    if ref in keys:
        return keys[ref]
    node = nodes.get(node_of(ref))
    while node is not None and node.op == "Identity":
        node = nodes.get(node_of(data_inputs(node)[0]))
    if node is None or node.op != "Const":
        return None
    return int(np.ravel(tensor_util.MakeNdarray(node.attr["value"].tensor))[0])
