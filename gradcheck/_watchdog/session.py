"""A training graph of a session under watch: its writes are gated, and its ops can be asked where a NaN was born."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from gradcheck._diagnose.ranges import first_nonfinite, kind_at, range_of
from gradcheck._graph.before import fetched_ops, ops_before
from gradcheck._graph.evaluate import eagerly
from gradcheck._graph.finite import COUNTED, census, flags
from gradcheck._graph.provenance import origin
from gradcheck._graph.structure import CONTINUOUS
from gradcheck._report.nonfinite import NonfiniteReport, Range

_STARTS = ("VarHandleOp", "VariableV2", "Variable", "Const", "ReadVariableOp", "Placeholder", "Identity")
_HOLDERS = ("VarHandleOp", "VariableV2", "Variable", "Const")
_NEW = COUNTED.index("new")


class SessionWatch:
    """Tests tensors of a graph, and lets its training write only where they are finite.

    Built before the graph is finalized. An op that writes is gated if it comes behind the tested tensors, as the
    updates of an optimizer and the global step do, or if it depends on a batch that they depend on, as moving averages
    do, and they do not wait for it. A gated op that is not to run is dead, in the sense of TensorFlow 1's executor:
    nothing fails.

    Args:
        named: Names and tensors.
    """

    def __init__(self, named: Sequence[tuple[str, Any]]) -> None:
        self._names = [name for name, _ in named]
        self._tensors = [t.values if isinstance(t, tf.IndexedSlices) else t for _, t in named]
        self._graph = self._tensors[0].graph
        self._concerned: dict[frozenset[Any], bool] = {}
        before = ops_before(t.op for t in self._tensors)
        gated = list(_writes_to_gate(self._graph, self._tensors, before))
        looked = [op for op in self._graph.get_operations() if op in before and _can_be_asked(op)]
        self._outputs = [t for op in looked for t in op.outputs if t.dtype in CONTINUOUS]
        self.repeats = not any(_takes_a_batch(op) for op in before)
        with self._graph.as_default(), tf.compat.v1.name_scope("gradcheck"), tf.control_dependencies(None):
            finite = tf.reduce_all(flags(self._tensors))
            none = tf.zeros([len(self._tensors), len(COUNTED)], tf.int64)
            self.counts = tf.cond(finite, lambda: none, lambda: tf.stack([census(t) for t in self._tensors]))
            self._flags = flags(self._outputs)
            _, alive = tf.raw_ops.Switch(data=tf.constant(True), pred=finite)
            gate = tf.identity(alive).op
        for op in gated:
            op._add_control_input(gate)

    def concerns(self, fetches: Any) -> bool:
        """Whether what a run asks for depends on what is tested."""
        ops = fetched_ops(self._graph, tf.nest.flatten(fetches))
        if ops not in self._concerned:
            tested = {t.op for t in self._tensors}
            self._concerned[ops] = not tested.isdisjoint(ops_before(ops))
        return self._concerned[ops]

    def found(self, counts: Any) -> tuple[Range, ...]:
        """What was not finite, by the counts of one run."""
        return tuple(
            Range(
                name=name, dtype=tensor.dtype.name, shape=tuple(d or 0 for d in tensor.shape.as_list()),
                nan=int(row[0]), posinf=int(row[1]), neginf=int(row[2]),
            )
            for name, tensor, row in zip(self._names, self._tensors, counts, strict=True)
            if row[_NEW]
        )  # fmt: skip

    def located(self, session: Any, feed_dict: Mapping[Any, Any] | None) -> NonfiniteReport | None:
        """The first op with finite inputs and an output that is not, when the same is fed again."""
        finite = dict(zip((t.name for t in self._outputs), session.run(self._flags, feed_dict), strict=True))
        for tensor in self._outputs:
            inputs = [t for t in tensor.op.inputs if t.dtype in CONTINUOUS]
            if not finite[tensor.name] and all(finite.get(t.name, True) for t in inputs):
                return self._described(tensor, inputs, session.run([tensor, *inputs], feed_dict))
        return None

    def _described(self, tensor: Any, inputs: Sequence[Any], values: Sequence[Any]) -> NonfiniteReport:
        made = origin(self._graph, tensor.op.name, tensor.op.type)
        with eagerly():
            output, *given = (tf.constant(v, t.dtype) for v, t in zip(values, (tensor, *inputs), strict=True))
            index = first_nonfinite(output)
            same = [index if t.shape == output.shape else None for t in given]
            return NonfiniteReport(
                name="session.run",
                ok=False,
                place=made.place,
                forward=made.forward,
                kind=kind_at(output, index),
                output=range_of(tensor.name, output, index),
                index=index,
                inputs=tuple(range_of(t.name, v, at) for t, v, at in zip(inputs, given, same, strict=True)),
                layer=made.layer,
            )


def _descendants(ops: Iterable[Any]) -> set[Any]:
    found: set[Any] = set()
    pending = list(ops)
    while pending:
        op = pending.pop()
        if op not in found:
            found.add(op)
            pending += [*(c for t in op.outputs for c in t.consumers()), *op._control_outputs]
    return found


def _writes_to_gate(graph: Any, tensors: Sequence[Any], before: set[Any]) -> Iterator[Any]:
    behind = _descendants(t.op for t in tensors)
    beside = _descendants(op for op in before if op.type not in _HOLDERS and not _only_variables(op))
    for op in graph.get_operations():
        if op not in before and op in behind | beside and _writes(op) and op._get_control_flow_context() is None:
            yield op


def _only_variables(op: Any) -> bool:
    """Whether an op only hands on what a variable holds, as every graph that uses the variable has it."""
    return op.type in _STARTS and all(t.op.type in _STARTS[:-1] for t in op.inputs) and op.type != "Placeholder"


def _writes(op: Any) -> bool:
    by_reference = any(arg.is_ref for arg in op.op_def.input_arg) and op.type not in ("Identity", "RefIdentity")
    by_handle = op.type.startswith(("Assign", "ResourceApply", "ResourceScatter", "ResourceSparseApply"))
    return bool(by_reference or by_handle)


def _can_be_asked(op: Any) -> bool:
    return op._get_control_flow_context() is None and all(not t.dtype._is_ref_dtype for t in op.outputs)


def _takes_a_batch(op: Any) -> bool:
    """Whether an op gives something else each time it runs."""
    return str(op.type).startswith(
        ("Iterator", "QueueDequeue", "ReaderRead", "Random", "TruncatedNormal", "Multinomial")
    )
