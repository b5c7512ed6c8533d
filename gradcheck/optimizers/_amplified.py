"""A rule whose gradients come multiplied by a factor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from gradcheck.optimizers._arguments import require_number
from gradcheck.optimizers._around import Around
from gradcheck.optimizers._clipped import clips_by_norm
from gradcheck.optimizers._rule import Moment, Slots


@dataclass(frozen=True, repr=False)
class Amplified(Around):
    """A rule that sees c g: a loss scale that was never divided out, a sum for a mean, or the wrong sign.

    Gradient descent and momentum cannot tell c from a factor of the learning rate; rules that divide by the size of
    the gradient can, by where their accumulators start and by ε.

    Args:
        rule: The rule.
        factor: c; any finite number but 0.

    Raises:
        TypeError, ValueError: If the rule is none, or the factor no such number.

    Example:
        >>> from gradcheck.optimizers import Amplified, GradientDescent
        >>> rule = Amplified(GradientDescent(0.5), factor=-1.0)
        >>> float(rule.step(1.0, 2.0, rule.init(1.0))[0])
        2.0
    """

    rule: Any
    factor: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("factor", self.factor, signed=True)

    def prepare(self, grads: list[Any]) -> list[Any]:
        if not clips_by_norm(self.rule):
            return grads
        # What is clipped inside is the multiplied gradient, and `update` multiplies.
        clipped = super().prepare([g if g is None else tf.cast(self.factor, g.dtype) * g for g in grads])
        return [g if g is None else g / tf.cast(self.factor, g.dtype) for g in clipped]

    def update(self, moment: Moment, param: Any, gradient: Any, slots: Slots) -> tuple[Any, dict[str, Any]]:
        return super().update(moment, param, moment.number(self.factor) * gradient, slots)
