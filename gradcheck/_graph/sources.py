"""Where a copy of a graph begins: variables, placeholders, and ops whose state stays in the session."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import tensorflow as tf

from gradcheck._errors import GraphUnavailable
from gradcheck._graph.nodes import CALLED
from gradcheck._graph.randomness import FROZEN

REF_VARIABLES = ("VariableV2", "Variable")
PLACEHOLDERS = ("Placeholder", "PlaceholderV2")
# Ops with a state that are copied all the same: they only read, are followed, or are functions of their inputs.
_KEPT = frozenset(CALLED) | FROZEN | {
    "ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VarIsInitializedOp", "VariableShape",
    "AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp",
    "Assert", "Empty", "PyFunc", "EagerPyFunc", "Print", "VarHandleOp", *REF_VARIABLES, *PLACEHOLDERS,
}  # fmt: skip
_KEPT_STEMS = ("TensorArray", "Stack")
# The same op on a value in place of a reference.
_PLAIN = {f"Ref{op}": op for op in ("Switch", "Merge", "Enter", "Exit", "NextIteration", "Identity")}
OPAQUE = (tf.resource, tf.variant)


def is_reference(variable: Any) -> bool:
    """Whether a variable is one of TensorFlow 1, without a resource handle."""
    return hasattr(variable, "_variable")


def begin_of(variable: Any) -> Any:
    """The tensor of the graph that is the variable itself: its handle, or its reference."""
    return variable._variable if is_reference(variable) else variable.handle


def has_state(op: Any) -> bool:
    """Whether an op gives what it gives by a state of its own, which stays in the session."""
    return op.op_def.is_stateful and op.type not in _KEPT and not op.type.startswith(_KEPT_STEMS)


def is_foreign(tensor: Any) -> bool:
    """Whether a tensor is a handle of such a state: a table, a queue, an iterator."""
    seen: set[str] = set()
    pending = [tensor]
    while pending:
        one = pending.pop()
        if one.name in seen or not (one.dtype in OPAQUE or one.dtype._is_ref_dtype):
            continue
        seen.add(one.name)
        if has_state(one.op):
            return True
        pending += one.op.inputs
    return False


def _writes_to_reference(op: Any) -> bool:
    return op.type not in _PLAIN and any(arg.is_ref for arg in op.op_def.input_arg)


def is_effect(op: Any) -> bool:
    """Whether an op that others wait for does something that is not to be done again."""
    return has_state(op) or _writes_to_reference(op)


def refuse_writing(op: Any) -> None:
    """Refuse an op whose output is made by writing, which running it would do again."""
    if _writes_to_reference(op):
        raise GraphUnavailable(
            f"ys depend on {op.type} {op.name!r}, which writes to a variable when it runs; differentiate what it "
            "assigns, in place of what the assignment gives"
        )


def plain_node(op: Any, taken: Container[str]) -> Any:
    """The definition of an op, on values in place of references, waiting for copied ops only, on any device."""
    node = op.node_def
    node.op = _PLAIN.get(node.op, node.op)
    node.device = ""
    node.attr.pop("_class", None)
    inputs = [i for i in node.input if not i.startswith("^") or i[1:] in taken]
    del node.input[:]
    node.input.extend(inputs)
    return node
