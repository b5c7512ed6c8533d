"""What has to run before an op of a graph can."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def ops_before(ops: Iterable[Any]) -> set[Any]:
    """The ops themselves, and all whose values or end they wait for."""
    found: set[Any] = set()
    pending = list(ops)
    while pending:
        op = pending.pop()
        if op not in found:
            found.add(op)
            pending += [*(t.op for t in op.inputs), *op.control_inputs]
    return found


def fetched_ops(graph: Any, fetches: Iterable[Any]) -> frozenset[Any]:
    """The ops that a run of a session asks for."""
    elements = [graph.as_graph_element(f) for f in fetches]
    return frozenset(getattr(element, "op", element) for element in elements)
