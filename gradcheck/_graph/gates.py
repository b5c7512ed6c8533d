"""Points of a function behind which nothing is written before something is known."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import auto_control_deps
from tensorflow.python.framework.auto_control_deps_utils import get_read_write_resource_inputs

_GATES = "_gradcheck_gates"  # of a graph: the names of ops behind which all writes wait
_BODIES = {
    "PartitionedCall": ("f",),
    "StatefulPartitionedCall": ("f",),
    "If": ("then_branch", "else_branch"),
    "Case": ("branches",),
    "While": ("body",),
}


def hold_writes(known: Any) -> None:
    """Let what is written to variables from here on, in the order of the user's code, wait for a tensor or op.

    TensorFlow lets ops wait for each other that use the same variable. Here all variables count as used that are
    written later, in the present function, or behind a call of it. In a graph for a session, in which TensorFlow
    orders nothing, nothing is done.
    """
    graph = tf.compat.v1.get_default_graph()
    if getattr(graph, "experimental_acd_manager", None) is None:
        return
    _register()
    with tf.control_dependencies([known]):
        _add_gate(tf.no_op(name="gradcheck_gate"))


@cache
def _register() -> None:
    auto_control_deps.register_acd_resource_resolver(_gradcheck_gates)


def _gradcheck_gates(op: Any, reads: Any, writes: Any) -> bool:
    """Of a gate, add to its writes the variables that are written behind it; whether there were more.

    TensorFlow asks this of each op of each function, when it is traced.
    """
    if op.type != "NoOp" and op.type not in _BODIES:
        return False
    if op.name not in _gates(op.graph):
        if not any(map(_gates, _bodies(op))):
            return False
        _add_gate(op)
    known = len(writes)
    writes.update(_written_behind(op))
    return len(writes) > known


def _gates(graph: Any) -> frozenset[str]:
    found: frozenset[str] = getattr(graph, _GATES, frozenset())
    return found


def _add_gate(op: Any) -> None:
    setattr(op.graph, _GATES, _gates(op.graph) | {op.name})


def _bodies(op: Any) -> Iterator[Any]:
    """The graphs of the functions that an op calls."""
    for name in _BODIES.get(op.type, ()):
        value = op.get_attr(name)
        for function in value if isinstance(value, list) else [value]:
            found = op.graph._get_function(function.name)
            if found is not None:
                yield found.graph


def _written_behind(op: Any) -> Iterator[Any]:
    """The handles of what later ops of the graph write to."""
    ops = op.graph.get_operations()
    for later in ops[ops.index(op) + 1 :]:
        if any(t.dtype == tf.resource for t in later.inputs):
            for handle in get_read_write_resource_inputs(later)[1]:
                while handle.op.type == "Identity":
                    handle = handle.op.inputs[0]
                if handle.op.type != "Switch":  # of a conditional of TensorFlow 1, which is ordered in its own way
                    yield handle
