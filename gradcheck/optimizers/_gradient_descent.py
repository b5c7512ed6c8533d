"""Gradient descent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gradcheck.optimizers._arguments import require_rate
from gradcheck.optimizers._rule import Assignments, Moment, Slots


@dataclass(frozen=True, repr=False)
class GradientDescent(Assignments):
    """Gradient descent: w <- w - η g.

    TensorFlow's `GradientDescentOptimizer` and Keras' `SGD` without momentum do the same; both hold η in float32,
    whatever the dtype of w. Stochastic gradient descent is this rule, fed by `minibatches`.

    Args:
        learning_rate: η: a number, a scalar tensor, or a schedule, called with the step (0 at the first).

    Raises:
        TypeError, ValueError: If the rate is no number of at least 0.

    Example:
        >>> from gradcheck.optimizers import GradientDescent
        >>> rule = GradientDescent(learning_rate=1.0)
        >>> state = rule.init(2.0)
        >>> w, state = rule.step(2.0, -2.0, state)  # the loss (w - 3)^2 at w = 2 has the gradient -2
        >>> float(w)
        4.0

    Reference: A. Cauchy, Méthode générale pour la résolution des systèmes d'équations simultanées, C. R. Acad. Sci.
    Paris 25 (1847).
    """

    learning_rate: Any

    def __post_init__(self) -> None:
        require_rate("learning_rate", self.learning_rate)

    def descend(self, moment: Moment, param: Any, gradient: Any, slots: Slots) -> Any:
        return param - moment.number(self.learning_rate) * gradient
