"""Loops and conditions of control flow v1, known to a copy of their ops as they were to the original."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tensorflow.core.protobuf import control_flow_pb2
from tensorflow.python.ops import control_flow_ops


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
        else:
            found += [context.pivot, context.pred]
    return [t.op for t in found if t is not None]


def contexts_of(ops: Iterable[Any]) -> list[Any]:
    """The outermost loops and conditions around some ops."""
    outermost = {id(found[-1]): found[-1] for found in map(chain, ops) if found}
    return list(outermost.values())


def recreate(contexts: Iterable[Any], copies: Mapping[str, Any], begins: Mapping[str, Any]) -> None:
    """Make the contexts anew in the default graph, as far as their ops were copied.

    Args:
        contexts: Outermost contexts of the original graph.
        copies: For each op that was copied, by its name, the copy.
        begins: For each tensor at which the copy begins, by its name, the placeholder.
    """

    def there(name: str) -> bool:
        return name.partition(":")[0] in copies

    def seen(name: str) -> bool:
        return there(name) or name in begins

    for context in contexts:
        definition = control_flow_pb2.ControlFlowContextDef()
        context.to_control_flow_context_def(definition)
        _keep(definition, there, seen)
        control_flow_ops.from_control_flow_context_def(definition)


def _keep(definition: Any, there: Callable[[str], bool], seen: Callable[[str], bool]) -> None:
    """Take out what was not copied."""
    kind = definition.WhichOneof("ctxt")
    context = getattr(definition, kind)
    values = context.values_def
    external = {k: v for k, v in values.external_values.items() if seen(v)}
    names = [n for n in values.values if there(n) or n in external]
    values.Clear()
    values.values.extend(names)
    for name, inner in external.items():
        values.external_values[name] = inner
    if kind == "while_ctxt":
        for field in (context.loop_exit_names, context.loop_enter_names):
            names = [n for n in field if there(n)]
            del field[:]
            field.extend(names)
    nested = [n for n in context.nested_contexts if there(getattr(n, n.WhichOneof("ctxt")).pivot_name)]
    kept = [control_flow_pb2.ControlFlowContextDef.FromString(n.SerializeToString()) for n in nested]
    del context.nested_contexts[:]
    for inner_context in kept:
        _keep(inner_context, there, seen)
        context.nested_contexts.append(inner_context)
