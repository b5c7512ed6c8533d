"""A guard that XLA compiles: it cannot call Python, so what it found waits in variables until Python looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.ops.resource_variable_ops import ResourceVariable

from gradcheck._graph.finite import census, flags
from gradcheck._watchdog.ledger import Ledger
from gradcheck._watchdog.looked import Looked

_STEPS, _TRIPS, _ROW, _AT, _HELD = range(5)


class Waiting:
    """What one compiled guard has seen.

    Where a trip is to raise, to stop or to be decided by a callable, all later steps are held back too, until Python
    has looked.
    """

    def __init__(self, ledger: Ledger, looked: Looked) -> None:
        self._ledger = ledger
        self._looked = looked
        self._seen = 0
        with tf.init_scope():
            self._state = ResourceVariable(tf.zeros([5], tf.int64), trainable=False, name="gradcheck_waiting")
            zeros = tf.zeros([len(looked.tensors), 4], tf.int64)
            self._counts = ResourceVariable(zeros, trainable=False, name="gradcheck_counts")

    def decide(self, tensors: Sequence[Any]) -> Any:
        """Whether the step may write, in the graph."""
        policy = self._ledger.policy
        state = self._state.read_value()
        number, held = state[_STEPS] + 1, state[_HELD] > 0
        looks = tf.equal(number % policy.every, 0) & ~held
        trips = looks & ~tf.reduce_all(flags(tensors))
        counts = tf.cond(trips, lambda: tf.stack([census(t) for t in tensors]), self._counts.read_value)
        trip = tf.cast(trips, tf.int64)
        row = tf.where(looks, trip * (state[_ROW] + 1), state[_ROW])
        if policy.action in ("skip", "rollback"):
            holds = row > policy.max_skips
        else:
            holds = trips if policy.action != "log" else tf.constant(False)
        at = tf.where(trips, number, state[_AT])
        self._state.assign(tf.stack([number, state[_TRIPS] + trip, row, at, tf.cast(held | holds, tf.int64)]))
        self._counts.assign(counts)
        return ~(held | trips)

    def look(self) -> None:
        """Tell the ledger what was found since the last look.

        Raises:
            NonfiniteTrip: As the policy says.
        """
        state = [int(v) for v in self._state.numpy()]
        ledger, new = self._ledger, state[_TRIPS] - self._seen
        ledger.steps = max(ledger.steps, state[_STEPS])
        if not new:
            return
        self._seen = state[_TRIPS]
        ledger.trips += new - 1
        ledger.in_a_row = max(state[_ROW], 1) - 1
        number = state[_AT]
        report = self._looked.trip(number, self._looked.found(self._counts.numpy()))
        kept = ledger.trip(report, lambda: self._looked.step(number, [float("nan")] * len(self._looked.tensors)))
        if kept.action != "stop":
            self._hold(False)

    def forget(self) -> None:
        """Begin anew, as if no step had been seen."""
        self._seen = 0
        self._state.assign(tf.zeros([5], tf.int64))

    def stop(self) -> None:
        """Hold further steps back."""
        self._hold(True)

    def _hold(self, held: bool) -> None:
        state = self._state.numpy()
        state[_HELD] = held
        self._state.assign(state)


def decided_silently(ledger: Ledger, looked: Looked) -> Any:
    """Whether all is well, in a graph for XLA."""
    key = ("waiting", looked.caller, looked.names)
    waiting: Waiting = ledger.shared(key, lambda: Waiting(ledger, looked))
    return waiting.decide(looked.tensors)
