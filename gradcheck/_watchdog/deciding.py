"""A guard inside of a tf.function: it decides in the graph, and Python is told only where something is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2
from tensorflow.python.ops.resource_variable_ops import ResourceVariable

from gradcheck._graph.finite import COUNTED, amounts, census
from gradcheck._watchdog.ledger import KEPT, Ledger
from gradcheck._watchdog.looked import Looked

_NEW = COUNTED.index("new")


def decided(ledger: Ledger, looked: Looked, gradients: Sequence[Any] | None) -> Any:
    """The gradients, or zeros where something is not finite; without gradients, whether all is well.

    In one of several replicas all of them decide alike, and the first one speaks for all.
    """
    flat, rebuilt = _values_of(gradients or ())
    waits = ledger.policy.action == "raise"  # what raises needs no zeros
    replicas = tf.distribute.get_replica_context()
    several = replicas is not None and replicas.num_replicas_in_sync > 1
    # Only the first replica tells.
    tell = (
        _telling(ledger, looked) if not several or tf.get_static_value(replicas.replica_id_in_sync_group) == 0 else None
    )
    with tf.init_scope():  # steps are counted in the graph, so that a healthy one need not call Python
        # Not tf.Variable, which a tf.function lets itself make in its first trace only.
        count = ResourceVariable(tf.zeros([], tf.int64), trainable=False, name="gradcheck_guarded_steps")
        zeros = tf.zeros([KEPT, len(looked.tensors)], tf.float64)
        last = ResourceVariable(zeros, trainable=False, name="gradcheck_norms")
    ledger.keep(count, last)  # a graph holds its variables weakly
    number = count.assign_add(1, read_value=True)

    def going_on() -> list[Any]:
        return [tf.constant(True), *([] if waits else map(tf.identity, flat))]

    def tripping(counts: Any) -> list[Any]:
        told = [] if tell is None else [tf.py_function(tell, [number, counts, last.read_value()], [])]
        with tf.control_dependencies(told):
            return [tf.constant(False), *([] if waits else map(tf.zeros_like, flat))]

    def judging(counts: Any) -> list[Any]:
        sound = tf.reduce_all(tf.equal(counts[:, _NEW], 0))
        return branch(sound, going_on, lambda: tripping(counts))

    def looking() -> list[Any]:
        sums = amounts(looked.tensors)
        row = tf.raw_ops.ResourceScatterUpdate(resource=last.handle, indices=number % KEPT, updates=sums)
        with tf.control_dependencies([row]):
            finite = tf.reduce_all(tf.math.is_finite(sums))
        closely = partial(_counts, looked)
        if not several:
            return branch(finite, going_on, lambda: judging(closely()))
        counts = tf.cond(finite, lambda: tf.zeros([len(looked.tensors), len(COUNTED)], tf.int64), closely)
        return judging(replicas.all_reduce(tf.distribute.ReduceOp.SUM, counts))

    every = ledger.policy.every
    healthy, *passed = looking() if every == 1 else tf.cond(tf.equal(number % every, 0), looking, going_on)
    if gradients is None:
        return healthy
    if waits and flat:
        with tf.control_dependencies([healthy]):
            passed = tf.identity_n(flat)
    return rebuilt(passed)


def _values_of(gradients: Sequence[Any]) -> tuple[list[Any], Callable[[Sequence[Any]], list[Any]]]:
    """The tensors that gradients are made of, and what makes gradients of tensors in their place."""
    flat = [g.values if isinstance(g, tf.IndexedSlices) else g for g in gradients]

    def rebuilt(values: Sequence[Any]) -> list[Any]:
        return [
            tf.IndexedSlices(v, g.indices, g.dense_shape) if isinstance(g, tf.IndexedSlices) else v
            for v, g in zip(values, gradients, strict=True)
        ]

    return flat, rebuilt


def _counts(looked: Looked) -> Any:
    return tf.stack([census(t) for t in looked.tensors])


def branch(condition: Any, then: Callable[[], list[Any]], otherwise: Callable[[], list[Any]]) -> list[Any]:
    """A conditional of which only the branch that is taken costs something.

    TensorFlow writes a conditional as its branches' ops, of which those not taken are passed over one by one: many, in
    a branch that looks closely. On CPUs alone it is left a call instead.
    """
    found: list[Any] = tf.cond(condition, then, otherwise)
    if not tf.config.list_logical_devices("GPU"):  # from which a call would copy everything
        made = found[0].op
        while made.type == "Identity":
            made = made.inputs[0].op
        made._set_attr("_lower_using_switch_merge", attr_value_pb2.AttrValue(b=False))
    return found


def _telling(ledger: Ledger, looked: Looked) -> Callable[[Any, Any, Any], None]:
    """What Python does on a trip."""

    def tell(number: Any, counts: Any, rows: Any) -> None:
        if ledger.running:  # the step around decides
            return
        at, sums = int(number), rows.numpy()
        before = range(max(1, at - KEPT + 1), at)
        ledger.catch_up(at, [partial(looked.step, k, sums[k % KEPT]) for k in before])
        ledger.trip(looked.trip(at, looked.found(counts.numpy())), partial(looked.step, at, sums[at % KEPT]))

    return tell
