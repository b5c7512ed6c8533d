"""Gradient descent with momentum, classical and Nesterov's."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

from gradcheck.optimizers._arguments import require_choice, require_flag, require_number, require_rate
from gradcheck.optimizers._rule import Assignments, Moment, Slots

RATE_IN = ("velocity", "update")


@dataclass(frozen=True, repr=False)
class Momentum(Assignments):
    """Momentum: v <- μ v + η g, then w <- w - v; with nesterov, w <- w - (μ v + η g).

    The order matters: the new v moves w. Keras' `SGD(momentum=)` does the same with the sign of v turned. TensorFlow's
    `MomentumOptimizer` keeps η out of the velocity, v <- μ v + g, then w <- w - η v (nesterov: w - η (g + μ v)), which
    is `learning_rate_in="update"`: the same numbers while η stays the same, others when it changes. With `dampening`
    δ, v takes (1 - δ) η g; PyTorch leaves the first gradient as it is, which is `dampening_from=2`.

    Args:
        learning_rate: η: a number, a scalar tensor, or a schedule, called with the step (0 at the first).
        momentum: μ, from 0 to 1.
        nesterov: Whether w is moved by where v will have gone one step later.
        dampening: δ, from 0 to 1.
        dampening_from: The first step that is dampened, 1 or 2.
        learning_rate_in: "velocity" or "update".

    Raises:
        TypeError, ValueError: If a number is out of its range.

    Example:
        >>> from gradcheck.optimizers import Momentum
        >>> rule = Momentum(learning_rate=0.01, momentum=0.8)
        >>> w, state = rule.step(2.0, -2.0, rule.init(2.0))
        >>> w, state = rule.step(w, -1.96, state)
        >>> round(float(w), 6), round(float(state["velocity"]), 6)
        (2.0556, -0.0356)

    Reference: B. Polyak, Some methods of speeding up the convergence of iteration methods, USSR Comput. Math. Math.
    Phys. 4 (1964); I. Sutskever, J. Martens, G. Dahl, G. Hinton, On the importance of initialization and momentum in
    deep learning, ICML (2013), for this form of both.
    """

    learning_rate: Any
    momentum: Any
    nesterov: bool = False
    _: KW_ONLY
    dampening: Any = 0.0
    dampening_from: int = 1
    learning_rate_in: str = "velocity"

    def __post_init__(self) -> None:
        require_rate("learning_rate", self.learning_rate)
        require_number("momentum", self.momentum, most=1)
        require_number("dampening", self.dampening, most=1)
        if self.dampening_from not in (1, 2):
            raise ValueError(f"dampening_from must be 1 or 2, a step; got dampening_from={self.dampening_from!r}")
        require_choice("learning_rate_in", self.learning_rate_in, RATE_IN)
        require_flag("nesterov", self.nesterov)

    def slots(self) -> dict[str, Any]:
        return {"velocity": 0.0}

    def accumulate(self, moment: Moment, gradient: Any, slots: Slots) -> dict[str, Any]:
        mu, pushed = moment.number(self.momentum), (1 - moment.number(self.dampening)) * gradient
        if self.dampening_from == 2:
            pushed = moment.at_first(gradient, pushed)
        if self.learning_rate_in == "velocity":
            pushed = moment.number(self.learning_rate) * pushed
        return {"velocity": mu * slots["velocity"] + pushed}

    def descend(self, moment: Moment, param: Any, gradient: Any, slots: Slots) -> Any:
        mu, eta, velocity = moment.number(self.momentum), moment.number(self.learning_rate), slots["velocity"]
        if self.learning_rate_in == "velocity":
            return param - (mu * velocity + eta * gradient if self.nesterov else velocity)
        return param - eta * (gradient + mu * velocity if self.nesterov else velocity)
