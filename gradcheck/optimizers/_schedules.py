"""Learning rates that change: callables of the step, which counts from 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from gradcheck.optimizers._arguments import require_number
from gradcheck.optimizers._typed import typed


@dataclass(frozen=True, repr=False)
class _Decaying:
    """A rate and how it falls."""

    learning_rate: Any
    decay: Any

    def __post_init__(self) -> None:
        require_number("learning_rate", self.learning_rate)
        require_number("decay", self.decay)

    def __repr__(self) -> str:
        return typed(self)


@dataclass(frozen=True, repr=False)
class InverseTimeDecay(_Decaying):
    """A rate that falls as η / (1 + κ t), t counting steps from 0, as `decay=` of older Keras optimizers has it.

    Raises:
        TypeError, ValueError: If a number is negative.

    Example:
        >>> from gradcheck.optimizers import InverseTimeDecay
        >>> schedule = InverseTimeDecay(0.5, decay=1.0)
        >>> [schedule(0), schedule(1), schedule(4)]
        [0.5, 0.25, 0.1]
    """

    def __call__(self, step: Any) -> Any:
        return self.learning_rate / (1 + self.decay * _count(step))


@dataclass(frozen=True, repr=False)
class ExponentialDecay(_Decaying):
    """A rate that falls as η κᵗ, t counting steps from 0.

    Raises:
        TypeError, ValueError: If a number is negative.

    Example:
        >>> from gradcheck.optimizers import ExponentialDecay
        >>> schedule = ExponentialDecay(0.5, decay=0.5)
        >>> [schedule(0), schedule(1), schedule(2)]
        [0.5, 0.25, 0.125]
    """

    def __call__(self, step: Any) -> Any:
        return self.learning_rate * self.decay ** _count(step)


@dataclass(frozen=True, repr=False)
class Scaled:
    """A schedule times a constant factor.

    Raises:
        TypeError, ValueError: If the factor is negative, or the schedule no callable.

    Example:
        >>> from gradcheck.optimizers import InverseTimeDecay, Scaled
        >>> Scaled(InverseTimeDecay(0.5, decay=1.0), factor=0.5)(1)
        0.125
    """

    schedule: Any
    factor: Any

    def __post_init__(self) -> None:
        if not callable(self.schedule):
            raise TypeError(f"schedule must be a callable of the step; got schedule={self.schedule!r}")
        require_number("factor", self.factor)

    def __repr__(self) -> str:
        return typed(self)

    def __call__(self, step: Any) -> Any:
        return self.schedule(step) * self.factor


def _count(step: Any) -> Any:
    return tf.cast(step, tf.float64) if tf.is_tensor(step) else step
