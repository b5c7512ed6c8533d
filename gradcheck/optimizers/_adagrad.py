"""Adagrad."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

from gradcheck.optimizers._arguments import require_choice, require_number, require_rate
from gradcheck.optimizers._rule import Assignments, Moment, Slots

EPSILON_IN = ("denominator", "root")


@dataclass(frozen=True, repr=False)
class Adagrad(Assignments):
    """Adagrad: a <- a + g², then w <- w - η g / (√a + ε), with a = `initial_accumulator_value` at first.

    TensorFlow's `AdagradOptimizer` starts a at 0.1 and has no ε. Keras' `Adagrad` starts a at 0.1 and puts its ε of
    1e-7 into the root, √(a + ε), which is `epsilon_in="root"`. With neither a start nor an ε, an entry whose gradient
    is 0 from the beginning becomes NaN, here as in TensorFlow.

    Args:
        learning_rate: η: a number, a scalar tensor, or a schedule, called with the step (0 at the first).
        initial_accumulator_value: Where a starts; at least 0.
        epsilon: ε; at least 0.
        epsilon_in: "denominator" or "root".

    Raises:
        TypeError, ValueError: If a number is out of its range.

    Example:
        >>> from gradcheck.optimizers import Adagrad
        >>> by_hand, by_optimizer = Adagrad(0.6), Adagrad(0.6, initial_accumulator_value=0.1, epsilon=0.0)
        >>> [round(float(rule.step(2.0, -2.0, rule.init(2.0))[0]), 5) for rule in (by_hand, by_optimizer)]
        [2.6, 2.59264]

    Reference: J. Duchi, E. Hazan, Y. Singer, Adaptive subgradient methods for online learning and stochastic
    optimization, J. Mach. Learn. Res. 12 (2011).
    """

    learning_rate: Any
    initial_accumulator_value: Any = 0.0
    epsilon: Any = 1e-8
    _: KW_ONLY
    epsilon_in: str = "denominator"

    def __post_init__(self) -> None:
        require_rate("learning_rate", self.learning_rate)
        require_number("initial_accumulator_value", self.initial_accumulator_value)
        require_number("epsilon", self.epsilon)
        require_choice("epsilon_in", self.epsilon_in, EPSILON_IN)

    def slots(self) -> dict[str, Any]:
        return {"accumulator": self.initial_accumulator_value}

    def accumulate(self, moment: Moment, gradient: Any, slots: Slots) -> dict[str, Any]:
        return {"accumulator": slots["accumulator"] + gradient * gradient}

    def descend(self, moment: Moment, param: Any, gradient: Any, slots: Slots) -> Any:
        below = below_update(moment, slots["accumulator"], self.epsilon, self.epsilon_in)
        return param - moment.number(self.learning_rate) * gradient / below


def below_update(moment: Moment, squares: Any, epsilon: Any, epsilon_in: str) -> Any:
    """√a + ε or √(a + ε)."""
    epsilon = moment.number(epsilon)
    return moment.root(squares + epsilon) if epsilon_in == "root" else moment.root(squares) + epsilon
