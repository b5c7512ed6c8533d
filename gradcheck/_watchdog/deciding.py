"""A guard inside of a tf.function: it decides in the graph, and Python is told only where something is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import tensorflow as tf

from gradcheck._graph.finite import COUNTED, census
from gradcheck._graph.gates import hold_writes
from gradcheck._graph.together import Together
from gradcheck._watchdog.counting import Counting, Ring
from gradcheck._watchdog.ledger import Ledger
from gradcheck._watchdog.looked import Looked

_NEW = COUNTED.index("new")


def decided(ledger: Ledger, looked: Looked, gradients: Sequence[Any] | None) -> Any:
    """The gradients, or zeros where something is not finite; without gradients, whether all is well.

    In one of several replicas all of them decide alike, and the first one speaks for all.
    """
    flat, rebuilt = _values_of(gradients or ())
    if not looked.tensors:
        return tf.constant(True) if gradients is None else list(gradients)
    waits = ledger.policy.action == "raise"  # what raises needs no zeros
    replicas = tf.distribute.get_replica_context()
    several = replicas is not None and replicas.num_replicas_in_sync > 1
    known = tf.get_static_value(replicas.replica_id_in_sync_group) if several else 0
    replica = -1 if known is None else int(known)
    counting: Counting = ledger.shared("counting", partial(Counting, ledger))
    number = counting.number(replica)
    may_go_on = number > 0

    def going_on() -> list[Any]:
        return [tf.constant(True), *([] if waits else map(tf.identity, flat))]

    def judging(counts: Any, tell: Telling | None) -> list[Any]:
        def tripping() -> list[Any]:
            told = [] if tell is None else [tell.within_graph(number, counts)]
            with tf.control_dependencies(told):
                return [tf.constant(False), *([] if waits else map(tf.zeros_like, flat))]

        sound = tf.reduce_all(tf.equal(counts[:, _NEW], 0)) & may_go_on
        found: list[Any] = tf.cond(sound, going_on, tripping)
        return found

    def looking() -> list[Any]:
        together = Together(looked.tensors)
        tell, kept = None, list[Any]()
        if replica == 0:  # the first one tells for all
            ring = counting.ring(looked, together)
            tell, kept = Telling(ledger, looked, ring), ring.keep(number, together)
        with tf.control_dependencies(kept):
            sound = together.finite & may_go_on
        if not several:
            return branch(sound, going_on, lambda: judging(_counts(together), tell))
        none = tf.zeros([len(looked.tensors), len(COUNTED)], tf.int64)
        counts = tf.cond(sound, lambda: none, lambda: _counts(together))
        return judging(replicas.all_reduce(tf.distribute.ReduceOp.SUM, counts), tell)

    every = ledger.policy.every
    looks = tf.equal(number % every, 0) | ~may_go_on
    healthy, *passed = looking() if every == 1 else tf.cond(looks, looking, going_on)
    if gradients is None:
        return healthy
    hold_writes(healthy)  # such as a count of steps, which needs no gradient
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


def _counts(together: Together) -> Any:
    return tf.stack([census(t) for t in together.apart()])


def branch(condition: Any, then: Callable[[], list[Any]], otherwise: Callable[[], list[Any]]) -> list[Any]:
    """A conditional of which only the branch that is taken costs something.

    TensorFlow writes a conditional as its branches' ops, of which those not taken are passed over one by one: many, in
    a branch that looks closely. So that branch is one call.
    """
    rare = tf.function(otherwise, autograph=False, experimental_attributes={"_noinline": True})
    found: list[Any] = tf.cond(condition, then, lambda: [*rare()])
    return found


class Telling:
    """What Python does on a trip, or in a step behind a stop."""

    def __init__(self, ledger: Ledger, looked: Looked, ring: Ring) -> None:
        self._ledger = ledger
        self._looked = looked
        self._ring = ring
        self._token = ""

    def within_graph(self, number: Any, counts: Any) -> Any:
        """The op that calls Python."""
        called = tf.py_function(self._tell, [number, counts], [])
        self._token = called.get_attr("token").decode()
        return called

    def _tell(self, number: Any, counts: Any) -> None:
        ledger = self._ledger
        if ledger.is_running(self._token):  # the step around decides
            return
        at = int(number)
        if at < 0:
            ledger.require_going_on()
        steps = dict(self._ring.steps(at))
        # In other threads more steps may have run meanwhile than are kept.
        own = steps.pop(at, partial(self._looked.step, at, [float("nan")] * len(self._looked.names)))
        ledger.catch_up(at, list(steps.values()))
        ledger.trip(self._looked.trip(at, self._looked.found(counts.numpy())), own)
