"""Loops and conditions of control flow v1, known to a copy of their ops as they were to the original."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import control_flow_pb2
from tensorflow.python.framework import ops as tf_ops
from tensorflow.python.ops import control_flow_ops, control_flow_util_v2

from gradcheck._graph.program import fresh_name

_LOOP = {"cond": "_cond_graph", "body": "_body_graph"}
_BRANCHES = {"then_branch": "_true_graph", "else_branch": "_false_graph"}
_CASE = {"branches": "_branch_graph_{}"}
# For each op of control flow v2: its functions, and under which names TensorFlow looks for their graphs in Python.
_GRAPHS = {
    "While": _LOOP, "StatelessWhile": _LOOP, "If": _BRANCHES, "StatelessIf": _BRANCHES, "Case": _CASE,
    "StatelessCase": _CASE,
}  # fmt: skip


def chain(op: Any) -> list[Any]:
    """The loops and conditions that an op is in, innermost first."""
    found, context = [], op._get_control_flow_context()
    while context is not None:
        if isinstance(context, (control_flow_ops.WhileContext, control_flow_ops.CondContext)):
            found.append(context)
        context = context.outer_context
    return found


def pivots(op: Any) -> list[Any]:
    """The ops that gradients of the loops and conditions around an op refer to."""
    found = []
    for context in chain(op):
        if isinstance(context, control_flow_ops.WhileContext):
            found += [context.pivot, context._pivot_for_pred, context._pivot_for_body, context.maximum_iterations]
            found += context.loop_exits  # the gradient begins with zeros at those that nothing reads
        else:
            found += [context.pivot, context.pred]
    return [t.op for t in found if t is not None]


def own_graphs(op: Any, original: Any) -> None:
    """Give a copied op of control flow v2 graphs of its own to differentiate, under names that nothing else has.

    TensorFlow derives the names of functions that it makes for the gradient from the names of these graphs. With the
    original ones, differentiating the copy would take names that differentiating the original needs.

    Args:
        op: The copy.
        original: The op that it was copied from; None where it is not known.
    """
    for attribute, names in _GRAPHS.get(op.type, {}).items():
        value = op.node_def.attr[attribute]
        functions = value.list.func if value.WhichOneof("value") == "list" else [value.func]
        while_loop = op.type.endswith("While")
        shapes = op.get_attr("output_shapes") if while_loop else [t.shape for t in op.inputs[1:]]
        for i, function in enumerate(functions):
            graph = control_flow_util_v2.get_func_graph(op, [tf.TensorShape(s) for s in shapes], function.name)
            graph.name = fresh_name(function.name)
            setattr(op, names.format(i), graph)
            known = getattr(original, names.format(i), None)
            before = {o.name: o for o in known.get_operations()} if known is not None else {}
            for inner in graph.get_operations():
                own_graphs(inner, before.get(inner.name))
                if inner.name in before and inner.type == "IdentityN":
                    inner._gradient_function = _among_copies(tf_ops.get_gradient_function(inner), known)


def _among_copies(function: Callable[..., Any], original: Any) -> Callable[..., Any]:
    """A custom gradient that finds, for the tensors of the original graph that it closes over, those of the copy."""

    def found(graph: Any, tensor: Any) -> Any:
        inner = next((inner for outer, inner in original.captures if outer is tensor), tensor)
        places = [k for k, argument in enumerate(original.inputs) if argument is inner]
        if places:
            return graph.inputs[places[0]]
        return graph.get_tensor_by_name(tensor.name) if tensor.graph is original else tensor

    return _closing_over(function, found)


def from_inside(function: Callable[..., Any]) -> Callable[..., Any]:
    """A custom gradient in a branch that takes what it closes over from the branch, where that has it.

    In a condition inside of a loop, TensorFlow fails to build the gradient from the tensor of the loop.
    """

    def found(graph: Any, tensor: Any) -> Any:
        return next((inner for outer, inner in graph.captures if outer is tensor), tensor)

    return _closing_over(function, found)


def _closing_over(function: Callable[..., Any], found: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """A gradient function in which tensors of other graphs give way to those that are found in the op's graph."""

    def gradient(op: Any, *cotangents: Any) -> Any:
        graph = tf.compat.v1.get_default_graph()
        capture = graph.capture

        def instead(tensor: Any, *args: Any, **kwargs: Any) -> Any:
            known = isinstance(tensor, tf.__internal__.EagerTensor) or tensor.graph in (graph, op.graph)
            return capture(tensor if known else found(op.graph, tensor), *args, **kwargs)

        graph.capture = instead
        try:
            return function(op, *cotangents)
        finally:
            del graph.capture

    return gradient


def python_graphs(op: Any) -> list[str]:
    """Under which names TensorFlow keeps, on an op of control flow v2, the graphs that it was built from."""
    names = []
    for attribute, name in _GRAPHS.get(op.type, {}).items():
        value = op.node_def.attr[attribute]
        count = len(value.list.func) if value.WhichOneof("value") == "list" else 1
        names += [name.format(i) for i in range(count)]
    return names


def contexts_of(ops: Iterable[Any]) -> list[Any]:
    """The outermost loops and conditions around some ops."""
    outermost = {id(found[-1]): found[-1] for found in map(chain, ops) if found}
    return list(outermost.values())


def recreate(contexts: Iterable[Any], new_name: Callable[[str], str | None]) -> None:
    """Make contexts anew in the default graph, as far as their ops were copied.

    Args:
        contexts: Outermost contexts of the original graph.
        new_name: Gives the name in the copy for the name of an op or tensor, or None where there is no copy.
    """
    for context in contexts:
        definition = control_flow_pb2.ControlFlowContextDef()
        context.to_control_flow_context_def(definition)
        _rename(definition, new_name)
        control_flow_ops.from_control_flow_context_def(definition)


def _rename(definition: Any, new_name: Callable[[str], str | None]) -> None:
    """Put in the new names, and take out what was not copied."""
    context = getattr(definition, definition.WhichOneof("ctxt"))
    for field in ("pivot_name", "pred_name", "pivot_for_pred_name", "pivot_for_body_name", "maximum_iterations_name"):
        if getattr(context, field, ""):
            setattr(context, field, new_name(getattr(context, field)))
    for field in ("loop_exit_names", "loop_enter_names"):
        if hasattr(context, field):
            names = [new for old in getattr(context, field) if (new := new_name(old)) is not None]
            context.ClearField(field)
            getattr(context, field).extend(names)
    _rename_values(context.values_def, new_name)
    nested = [n for n in context.nested_contexts if new_name(getattr(n, n.WhichOneof("ctxt")).pivot_name) is not None]
    kept = [control_flow_pb2.ControlFlowContextDef.FromString(n.SerializeToString()) for n in nested]
    context.ClearField("nested_contexts")
    for inner in kept:
        _rename(inner, new_name)
        context.nested_contexts.append(inner)


def _rename_values(values: Any, new_name: Callable[[str], str | None]) -> None:
    external = {new_name(k) or k: new for k, v in values.external_values.items() if (new := new_name(v)) is not None}
    inside = [new for old in values.values if (new := new_name(old)) is not None]
    outside = [old for old in values.values if new_name(old) is None and old in external]
    values.Clear()
    values.values.extend([*inside, *outside])
    for name, inner in external.items():
        values.external_values[name] = inner
