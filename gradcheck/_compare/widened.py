"""Hyperparameters in float64, as they were written: for runs that are to show no rounding."""

from __future__ import annotations

import copy
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradcheck._compare.deviations import core_of, number_of, with_core
from gradcheck.optimizers import _schedules
from gradcheck.optimizers._rule import Rule


def widened(held: Any) -> Any:
    """A hyperparameter, a schedule of Keras or a container of them in float64; anything else as it is.

    TensorFlow makes a float32 of a Python number, and a float64 of NumPy's.
    """
    if isinstance(held, float):
        return np.float64(held)
    if type(held) in (list, tuple):
        return type(held)(map(widened, held))
    if isinstance(held, keras.optimizers.schedules.LearningRateSchedule):
        new = copy.copy(held)
        for name, value in vars(held).items():
            new.__dict__[name] = widened(value)
        return new
    if isinstance(held, (np.float32, tf.Variable, tf.__internal__.EagerTensor)):
        scalar = tf.as_dtype(held.dtype) == tf.float32 and not held.shape
        return np.float64(number_of(held)) if scalar else held
    return held


def widened_rule(rule: Any) -> Any:
    """A rule with a schedule of Keras in float64; anything else as it is."""
    if isinstance(rule, Rule) and callable(rule.learning_rate):
        return with_core(rule, learning_rate=widened(core_of(rule).learning_rate))
    return rule


def remembering(rule: Any) -> Any:
    """A rule whose schedule, where it is not ours, is called once for each step."""
    if not callable(rule.learning_rate) or type(rule.learning_rate).__module__ == _schedules.__name__:
        return rule
    return with_core(rule, learning_rate=_Remembered(core_of(rule).learning_rate))


class _Remembered:
    """A schedule of steps that are numbers."""

    def __init__(self, schedule: Any) -> None:
        self._schedule, self._known = schedule, dict[int, float]()

    def __repr__(self) -> str:
        return type(self._schedule).__name__

    def __call__(self, step: int) -> float:
        if step not in self._known:
            self._known[step] = float(self._schedule(step))
        return self._known[step]


def is_wide(rate: Any) -> bool:
    """Whether a learning rate, or what a schedule gives, is a number or in float64."""
    if not callable(rate):
        return True
    try:
        found = rate(0)
    except TypeError:  # TensorFlow's `train` takes callables without arguments
        found = rate()
    return isinstance(found, (int, float)) or tf.as_dtype(found.dtype) == tf.float64
