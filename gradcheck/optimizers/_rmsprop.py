"""RMSProp."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

from gradcheck.optimizers._adagrad import EPSILON_IN, below_update
from gradcheck.optimizers._arguments import require_choice, require_flag, require_number, require_rate
from gradcheck.optimizers._rule import Assignments, Moment, Slots


@dataclass(frozen=True, repr=False)
class RMSProp(Assignments):
    """RMSProp: a <- ρ a + (1 - ρ) g², then v <- μ v + η g / √(a + ε), then w <- w - v.

    With μ = 0 there is no v. Where `centered`, b <- ρ b + (1 - ρ) g beside it, from 0, and a - b² is in place of a
    below the root. Keras' `RMSprop` does the same. TensorFlow's `RMSPropOptimizer` calls ρ decay, has an ε
    of 1e-10, and starts a at 1, not at 0: `initial_accumulator_value=1.0`. PyTorch adds ε to the root, √a + ε, which
    is `epsilon_in="denominator"`; the slides that RMSProp comes from have no ε.

    Args:
        learning_rate: η: a number, a scalar tensor, or a schedule, called with the step (0 at the first).
        rho: ρ, from 0 to 1.
        momentum: μ, from 0 to 1.
        epsilon: ε; at least 0.
        initial_accumulator_value: Where a starts; at least 0.
        epsilon_in: "root" or "denominator".
        centered: Whether the square of the mean gradient is taken off.

    Raises:
        TypeError, ValueError: If a number is out of its range.

    Example:
        >>> from gradcheck.optimizers import RMSProp
        >>> rule = RMSProp(learning_rate=0.1, rho=0.75)
        >>> w, state = rule.step(1.0, 4.0, rule.init(1.0))  # a = 0.25 * 16 = 4
        >>> round(float(w), 5), float(state["accumulator"])
        (0.8, 4.0)

    Reference: T. Tieleman, G. Hinton, Lecture 6.5: rmsprop, COURSERA: Neural Networks for Machine Learning (2012);
    A. Graves, Generating sequences with recurrent neural networks (2013), arXiv:1308.0850, for the centered form.
    """

    learning_rate: Any
    rho: Any = 0.9
    momentum: Any = 0.0
    epsilon: Any = 1e-7
    _: KW_ONLY
    initial_accumulator_value: Any = 0.0
    epsilon_in: str = "root"
    centered: bool = False

    def __post_init__(self) -> None:
        require_rate("learning_rate", self.learning_rate)
        require_number("rho", self.rho, most=1)
        require_number("momentum", self.momentum, most=1)
        require_number("epsilon", self.epsilon)
        require_number("initial_accumulator_value", self.initial_accumulator_value)
        require_choice("epsilon_in", self.epsilon_in, EPSILON_IN)
        require_flag("centered", self.centered)

    def slots(self) -> dict[str, Any]:
        mean = {"mean": 0.0} if self.centered else {}
        return {"accumulator": self.initial_accumulator_value, "velocity": 0.0, **mean}

    def accumulate(self, moment: Moment, gradient: Any, slots: Slots) -> dict[str, Any]:
        rho, mu, eta = (moment.number(x) for x in (self.rho, self.momentum, self.learning_rate))
        rest = moment.rest(self.rho)
        squares = rho * slots["accumulator"] + rest * (gradient * gradient)
        mean = {"mean": rho * slots["mean"] + rest * gradient} if self.centered else {}
        spread = squares - mean["mean"] * mean["mean"] if self.centered else squares
        pushed = eta * gradient / below_update(moment, spread, self.epsilon, self.epsilon_in)
        return {"accumulator": squares, "velocity": mu * slots["velocity"] + pushed, **mean}

    def descend(self, moment: Moment, param: Any, gradient: Any, slots: Slots) -> Any:
        return param - slots["velocity"]
