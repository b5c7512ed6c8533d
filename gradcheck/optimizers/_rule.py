"""What a rule is: an update of one entry, made to work on structures of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from gradcheck.optimizers import _arguments
from gradcheck.optimizers._typed import typed

Slots = Mapping[str, Any]


class Moment(Protocol):
    """One step of a rule, and the arithmetic that it is done in: TensorFlow's here, NumPy's in a replay."""

    @property
    def count(self) -> Any:
        """Which step this is, from 1."""

    def number(self, value: Any) -> Any:
        """A hyperparameter, or a schedule's value, as a factor of the entries."""

    def rest(self, value: Any) -> Any:
        """1 less a hyperparameter, as a factor of the entries."""

    def wide(self, value: Any) -> Any:
        """A hyperparameter in float64, where rounding to the dtype of the entries would ruin what is made of it."""

    def narrow(self, value: Any) -> Any:
        """What was computed in float64, as a factor of the entries."""

    def root(self, value: Any) -> Any:
        """The square root, with derivative 0 at 0."""

    def clip(self, value: Any, limit: Any) -> Any:
        """The values between -limit and limit."""

    def larger(self, one: Any, other: Any) -> Any:
        """The larger of each two values."""

    def at_first(self, then: Any, otherwise: Any) -> Any:
        """The one at the first step, the other later."""

    def at_each(self, steps: int, then: Any, otherwise: Any) -> Any:
        """The one at each n-th step, the other between."""

    def counting(self, count: Any) -> Moment:
        """The same with another count."""


class Rule:
    """A rule; a subclass says how an entry and its slots are updated, and how the slots start."""

    learning_rate: Any

    def __repr__(self) -> str:
        return typed(self)

    def slots(self) -> dict[str, Any]:
        """The slots, by name, with the number that each starts from."""
        return {}

    def update(self, moment: Moment, param: Any, gradient: Any, slots: Slots) -> tuple[Any, dict[str, Any]]:
        """The new param and slots of an entry."""
        raise NotImplementedError

    def prepare(self, grads: list[Any]) -> list[Any]:
        """The gradients, after what needs more than one entry of them."""
        return grads

    def init(self, params: Any) -> dict[str, Any]:
        """The state before the first step.

        Args:
            params: Floating tensors, variables, arrays or numbers, or any nested structure of them.

        Returns:
            A dict: "step", a scalar int64 of 0, and for each slot of the rule a structure like params, in its dtypes.

        Raises:
            TypeError, ValueError: If params holds anything else, or nothing.
        """
        tensors = _arguments.params_of(params)
        state: dict[str, Any] = {"step": tf.zeros([], tf.int64)}
        for name, start in self.slots().items():
            filled = [tf.zeros_like(t) + TensorMoment(1, t.dtype).number(start) for t in tensors]
            state[name] = tf.nest.pack_sequence_as(params, filled)
        return state

    def step(self, params: Any, grads: Any, state: Any) -> tuple[Any, Any]:
        """One step.

        Args:
            params: As for `init`.
            grads: Their gradients, in the same structure, shapes and dtypes. `tf.IndexedSlices` count as zero in the
                rows that they do not name. Where a gradient is None the param and its slots stay as they are.
            state: What `init` or the step before gave.

        Returns:
            The new params, as tensors in the structure of params, and the new state. Arguments are left as they are.

        Raises:
            TypeError, ValueError: If structures, shapes or dtypes do not fit; it says which leaf.
        """
        tensors = _arguments.params_of(params)
        gradients = _arguments.grads_of(params, grads, tensors)
        before = _arguments.slots_of(params, state, list(self.slots()), tensors)
        count = tf.convert_to_tensor(state["step"]) + 1
        moved: list[Any] = []
        after: list[dict[str, Any]] = []
        for param, gradient, slots in zip(tensors, self.prepare(gradients), before, strict=True):
            if gradient is None:
                new_param, new_slots = param, slots
            else:
                new_param, new_slots = self.update(TensorMoment(count, param.dtype), param, gradient, slots)
            moved.append(new_param)
            after.append(new_slots)
        new_state: dict[str, Any] = {"step": count}
        for name in self.slots():
            new_state[name] = tf.nest.pack_sequence_as(params, [slots[name] for slots in after])
        return tf.nest.pack_sequence_as(params, moved), new_state


class Assignments(Rule):
    """A rule in two assignments: first the state's, then the params'."""

    def accumulate(self, moment: Moment, gradient: Any, slots: Slots) -> dict[str, Any]:
        """The new slots of an entry."""
        return {}

    def descend(self, moment: Moment, param: Any, gradient: Any, slots: Slots) -> Any:
        """The new param of an entry, from its new slots."""
        raise NotImplementedError

    def update(self, moment: Moment, param: Any, gradient: Any, slots: Slots) -> tuple[Any, dict[str, Any]]:
        new = self.accumulate(moment, gradient, slots)
        return self.descend(moment, param, gradient, new), new


@dataclass(frozen=True, slots=True)
class TensorMoment:
    """A step in TensorFlow's arithmetic."""

    count: Any
    dtype: Any

    def number(self, value: Any) -> Any:
        value = self._at_this_step(value)
        return value if isinstance(value, (int, float)) else tf.cast(value, self.dtype)

    def rest(self, value: Any) -> Any:
        return 1 - self.number(value)

    def wide(self, value: Any) -> Any:
        value = self._at_this_step(value)  # tf.cast would take a Python number through float32
        return tf.constant(value, tf.float64) if isinstance(value, (int, float)) else tf.cast(value, tf.float64)

    def narrow(self, value: Any) -> Any:
        return tf.cast(value, self.dtype)

    def root(self, value: Any) -> Any:
        # The slope of a root at 0 is infinite; what a rule divides by it is 0 there, and their product would be NaN.
        zero = tf.equal(value, 0)
        return tf.where(zero, tf.zeros_like(value), tf.sqrt(tf.where(zero, tf.ones_like(value), value)))

    def clip(self, value: Any, limit: Any) -> Any:
        limit = self.number(limit)
        return tf.clip_by_value(value, -limit, limit)

    def larger(self, one: Any, other: Any) -> Any:
        return tf.maximum(one, other)

    def at_first(self, then: Any, otherwise: Any) -> Any:
        return tf.where(tf.equal(self.count, 1), then, otherwise)

    def at_each(self, steps: int, then: Any, otherwise: Any) -> Any:
        return tf.where(tf.equal(self.count % steps, 0), then, otherwise)

    def counting(self, count: Any) -> TensorMoment:
        return replace(self, count=count)

    def _at_this_step(self, value: Any) -> Any:
        found = value(self.count - 1) if callable(value) else value
        return float(found) if isinstance(found, np.generic) else found
