"""A rule whose weights decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gradcheck.optimizers._arguments import require_choice, require_number
from gradcheck.optimizers._around import Around
from gradcheck.optimizers._rule import Moment, Slots

INTO = ("gradient", "weights", "weights, unscaled", "weights, afterwards")


@dataclass(frozen=True, repr=False)
class Decayed(Around):
    """A rule whose weights decay by λ.

    Into the "gradient", λ w is added to what the rule sees, as the penalty λ ‖w‖² / 2 in the loss does. Into the
    "weights", w <- w - η λ w goes before the step and past the rule (Keras' `weight_decay`, AdamW); "weights,
    unscaled" leaves out η; "weights, afterwards" takes η λ times what the weights are after the step.

    Raises:
        TypeError, ValueError: If the rule is none, λ negative, or `into` unknown.

    Example:
        >>> from gradcheck.optimizers import Decayed, GradientDescent
        >>> rule = Decayed(GradientDescent(0.5), decay=0.5, into="weights")
        >>> w, state = rule.step(1.0, 1.0, rule.init(1.0))
        >>> float(w)
        0.25

    Reference: I. Loshchilov, F. Hutter, Decoupled weight decay regularization, ICLR (2019), arXiv:1711.05101.
    """

    rule: Any
    decay: Any
    into: str = "gradient"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("decay", self.decay)
        require_choice("into", self.into, INTO)

    def update(self, moment: Moment, param: Any, gradient: Any, slots: Slots) -> tuple[Any, dict[str, Any]]:
        decay = moment.number(self.decay)
        if self.into == "gradient":
            return super().update(moment, param, gradient + decay * param, slots)
        if self.into == "weights, afterwards":
            moved, new = super().update(moment, param, gradient, slots)
            return moved - moment.number(self.learning_rate) * decay * moved, new
        shrunk = moment.number(self.learning_rate) * decay if self.into == "weights" else decay
        return super().update(moment, param - shrunk * param, gradient, slots)
