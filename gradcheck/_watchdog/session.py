"""A training graph of a session under watch: its writes are gated, and what it takes to find the op is fetched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import tensorflow as tf

from gradcheck._errors import GraphUnavailable
from gradcheck._graph.before import fetched_ops, ops_before
from gradcheck._graph.evaluate import RUN_ERRORS
from gradcheck._graph.fetched import of_tensors
from gradcheck._graph.finite import COUNTED, amounts, census, flags
from gradcheck._watchdog.again import Again, again_of, first_line
from gradcheck._watchdog.looked import Looked

_STARTS = ("VarHandleOp", "VariableV2", "Variable", "Const", "ReadVariableOp", "Placeholder", "Identity")
_HOLDERS = ("VarHandleOp", "VariableV2", "Variable", "Const")
_HANDLES = (tf.resource, tf.variant)
_DRAWN = "what is drawn within a loop or a condition was drawn anew to find the op"


class SessionWatch:
    """Tests tensors of a graph, and lets its training write only where they are finite.

    Built before the graph is finalized. An op that writes is gated if it comes behind the tested tensors, as the
    updates of an optimizer and the global step do, or if it depends on a batch that they depend on, as moving averages
    do, and they do not wait for it. A gated op that is not to run is dead, in the sense of TensorFlow 1's executor:
    nothing fails, and what waits for it goes on.

    Args:
        named: Names and tensors; losses first.
        losses: How many they are.

    Attributes:
        looked: What is tested.
        amounts: To be fetched: the sum of the squares of each tensor.
        counts: To be fetched: a census of each tensor.
        drawn: To be fetched: what the run took from iterators, queues and random ops, by the names of tensors; empty
            where all is finite.
    """

    def __init__(self, named: Sequence[tuple[str, Any]], losses: int) -> None:
        self._tensors = [t.values if isinstance(t, tf.IndexedSlices) else t for _, t in named]
        self.looked = Looked("session.run", tuple(name for name, _ in named), tuple(self._tensors), losses)
        self._graph = self._tensors[0].graph
        self._concerned: dict[frozenset[Any], bool] = {}
        before = ops_before(t.op for t in self._tensors)
        gated = set(_writes_to_gate(self._graph, self._tensors, before))
        takers = [op for op in before if _takes_a_batch(op)]
        drawn = [t for op in takers if _can_be_fetched(op) for t in op.outputs if t.dtype not in _HANDLES]
        self._unrepeated = not all(map(_can_be_fetched, takers))
        with self._graph.as_default(), tf.compat.v1.name_scope("gradcheck"), tf.control_dependencies(None):
            self.amounts = amounts(self._tensors)
            finite = tf.reduce_all(flags(self._tensors))
            none = tf.zeros([len(self._tensors), len(COUNTED)], tf.int64)
            self.counts = tf.cond(finite, lambda: none, lambda: tf.stack([census(t) for t in self._tensors]))
            # Handed out only where it is needed.
            self.drawn = {
                t.name: tf.cond(finite, partial(tf.zeros, [0], t.dtype), partial(tf.identity, t)) for t in drawn
            }
            skipped, alive = tf.raw_ops.Switch(data=tf.constant(True), pred=finite)
            gate = tf.identity(alive).op
            for op in gated:
                op._add_control_input(gate)
                _let_go_on(op, [c for c in op._control_outputs if c not in gated], skipped, alive)

    def concerns(self, fetches: Any) -> bool:
        """Whether what a run asks for depends on what is tested."""
        ops = fetched_ops(self._graph, tf.nest.flatten(fetches))
        if ops not in self._concerned:
            tested = {t.op for t in self._tensors}
            self._concerned[ops] = not tested.isdisjoint(ops_before(ops))
        return self._concerned[ops]

    def again(self, session: Any, feed_dict: Mapping[Any, Any] | None, drawn: Mapping[str, Any]) -> Again:
        """Find the op, on what a run was fed and what it drew; nothing of it has been written."""
        try:
            rerun = of_tensors(self._tensors, self.looked.names, session, {**(feed_dict or {}), **drawn})
        except (GraphUnavailable, *RUN_ERRORS) as error:
            return Again(notes=(f"the op is not named: {first_line(error)}",))
        found = again_of(rerun)
        return replace(found, notes=(*found.notes, _DRAWN)) if self._unrepeated else found


class SessionStates:
    """The values of all global variables of a graph, kept on the host to be given back.

    Built before the graph is finalized.
    """

    def __init__(self, graph: Any) -> None:
        with graph.as_default(), tf.compat.v1.name_scope("gradcheck"), tf.control_dependencies(None):
            variables = tf.compat.v1.global_variables()
            self._reads = [v.read_value() for v in variables]
            self._given = [tf.compat.v1.placeholder(v.dtype.base_dtype, v.shape) for v in variables]
            writes = [tf.compat.v1.assign(v, p).op for v, p in zip(variables, self._given, strict=True)]
            self._write = tf.group(*writes)
        self._kept: list[Any] | None = None
        self._since = 0

    def keep(self, session: Any, every: int) -> None:
        """Keep the state before a run, if so many healthy runs have passed since the last one that was kept."""
        if self._kept is None or self._since >= every:
            self._kept, self._since = session.run(self._reads), 0

    def healthy(self) -> None:
        """Count a run that was finite."""
        self._since += 1

    def restore(self, session: Any) -> None:
        """Give back what was kept."""
        session.run(self._write, dict(zip(self._given, self._kept or (), strict=True)))


def _let_go_on(op: Any, waiting: Sequence[Any], skipped: Any, alive: Any) -> None:
    """Let what waits for a gated op wait until it has run or been skipped."""
    waiting = [c for c in waiting if c._get_control_flow_context() is None]
    if not waiting:
        return
    with tf.control_dependencies([op]):
        ran = tf.identity(alive)
    done = tf.raw_ops.Merge(inputs=[skipped, ran]).output.op
    for each in waiting:
        others = [c for c in each.control_inputs if c is not op]
        each._remove_all_control_inputs()
        each._add_control_inputs([*others, done])


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


def _can_be_fetched(op: Any) -> bool:
    return op._get_control_flow_context() is None


def _takes_a_batch(op: Any) -> bool:
    """Whether an op gives something else each time it runs."""
    return str(op.type).startswith(
        ("Iterator", "QueueDequeue", "ReaderRead", "Random", "TruncatedNormal", "Multinomial")
    )
