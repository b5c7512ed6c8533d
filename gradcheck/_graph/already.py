"""Whether tensors of a graph are gradients already, as tf.gradients made them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from gradcheck._graph import structure
from gradcheck._graph.copies import Copy
from gradcheck._graph.differentiate import ancestors, differentiate
from gradcheck._graph.nodes import functions_named
from gradcheck._graph.questions import Question, plain_name
from gradcheck._graph.sources import PLACEHOLDERS

_SCOPE = re.compile(r"^gradients(_\d+)?/")


def note_on_gradients(asked: Question) -> str | None:
    """What to say where all ys are what tf.gradients gave for some of the xs; else None.

    What ys differentiate is differentiated anew, in a copy without values: ys are gradients with respect to an x where
    they were made by the same ops from the same tensors.
    """
    ys = [_without_identities(y) for y in asked.ys]
    tops = _differentiated(ys)
    if not tops or asked.alone:
        return None
    try:
        made = _are_gradients(ys, tops, asked)
    except (ValueError, TypeError, LookupError, RuntimeError):  # what cannot be differentiated anew is not told
        return None
    if not made:
        return None
    given, last, xs = (", ".join(names) for names in (map(plain_name, asked.ys), map(plain_name, tops), asked.names))
    return (
        f"ys ({given}) {'are gradients' if len(ys) > 1 else 'is a gradient'} already, which tf.gradients gave for xs: "
        "what was checked is the derivative of that, a second derivative; for the gradient itself write "
        f"check_tf_gradients([{last}], [{xs}])"
    )


def _without_identities(tensor: Any) -> Any:
    while tensor.op.type == "Identity" and tensor.op._original_op is None:
        tensor = tensor.op.inputs[0]
    return tensor


def _differentiated(ys: Sequence[Any]) -> list[Any]:
    """The tensors whose gradients ys would be: outputs of the last ops that TensorFlow differentiated for them."""
    made: dict[str, Any] = {}
    pending = [y.op for y in ys]
    while pending:
        op = pending.pop()
        if op.name not in made and (op._original_op is not None or op.type == "AddN"):
            made[op.name] = op
            pending += [t.op for t in op.inputs]
    # What the forward pass is made of may be gradients of its own.
    earlier = _before([op._original_op for op in made.values() if op._original_op is not None])
    forward = [op._original_op for name, op in made.items() if op._original_op is not None and name not in earlier]
    earlier = _before(forward)
    last = sorted({op for op in forward if op.name not in earlier}, key=lambda op: int(op._id))
    return [t for op in last for t in [*filter(structure.is_continuous, op.outputs)][:1]]


def _before(ops: Sequence[Any]) -> set[str]:
    """The names of all ops that some ops depend on."""
    return {name.rpartition(":")[0] for _, name in ancestors(t for op in ops for t in op.inputs)}


def _are_gradients(ys: Sequence[Any], tops: Sequence[Any], asked: Question) -> bool:
    """Whether each y is the gradient of the tops with respect to one of the xs."""
    ops = asked.graph.get_operations()
    fed = {t.name: None for op in ops if op.type in PLACEHOLDERS for t in op.outputs}
    copy = Copy(asked.graph, {**fed, **asked.fed})
    brought = copy.bring(tops)
    with copy.as_default():
        seeds = [tf.compat.v1.placeholder(t.dtype, t.shape) for t in brought]
        built = differentiate(copy, brought, [copy.x_of(x) for x in asked.xs], seeds, [])
    gradients = [g for g in built.gradients if isinstance(g, tf.Tensor)]
    return all(any(_same(y, g, copy, seeds) for g in gradients) for y in ys)


def _same(tensor: Any, other: Any, copy: Copy, seeds: Sequence[Any]) -> bool:
    """Whether a tensor was made as one of the copy was, from the same tensors, and whatever the seeds stand for."""
    stood: dict[int, str] = {}
    pending, seen = [(tensor, other)], set[tuple[str, str]]()
    while pending:
        one, two = pending.pop()
        if (one.name, two.name) in seen:
            continue
        seen.add((one.name, two.name))
        seed = two.op.inputs[0] if two.op.type == "Identity" else two  # tf.gradients puts an Identity behind it
        if any(seed is each for each in seeds):
            if stood.setdefault(id(seed), one.name) != one.name:
                return False
        elif copy.find(one) is not None or copy.original(two.op) is not two.op:
            if copy.find(one) is not two:
                return False
        elif functions_named(two.op.node_def):
            if (one.op.type, one.value_index, _of(one)) != (two.op.type, two.value_index, _of(two, copy)):
                return False
        elif _alike(one, two):
            pending += zip(_inputs(one), _inputs(two), strict=True)
        else:
            return False
    return True


def _inputs(tensor: Any) -> list[Any]:
    """What an op takes; of a sum in an order that does not depend on when its terms were made."""
    inputs = list(tensor.op.inputs)
    return sorted(inputs, key=lambda t: str(_SCOPE.sub("", t.name))) if tensor.op.type == "AddN" else inputs


def _of(gradient: Any, copy: Copy | None = None) -> Any:
    """The op that a gradient's op differentiates, the user's own where it is of a copy.

    Of a loop or a call nothing else is compared: it is rewritten when it is differentiated, each time anew.
    """
    op = gradient.op._original_op
    return op if copy is None or op is None else copy.original(op)


def _alike(one: Any, two: Any) -> bool:
    """Whether two tensors come from ops of the same kind."""
    nodes = one.op.node_def, two.op.node_def
    if (nodes[0].op, one.value_index, len(one.op.inputs)) != (nodes[1].op, two.value_index, len(two.op.inputs)):
        return False
    plain = [{k: v.SerializeToString() for k, v in node.attr.items() if not k.startswith("_")} for node in nodes]
    return plain[0] == plain[1]
