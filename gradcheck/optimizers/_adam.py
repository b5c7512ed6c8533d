"""Adam, and Adam with decoupled weight decay."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

from gradcheck.optimizers._arguments import require_choice, require_flag, require_number, require_rate
from gradcheck.optimizers._rule import Assignments, Moment, Slots

CORRECTED = ("m", "v")
EPSILON_IN = ("uncorrected", "denominator", "root")


@dataclass(frozen=True, repr=False)
class Adam(Assignments):
    """Adam: m <- β₁ m + (1 - β₁) g and v <- β₂ v + (1 - β₂) g², then w <- w - α m / (√v + ε).

    At step t, from 1, α = η √(1 - β₂ᵗ) / (1 - β₁ᵗ) corrects the bias of m and v towards their start at 0;
    `bias_correction=False` leaves α = η; "m" or "v" corrects one of them. This is the form that the paper has at the
    end of its section 2, there with an ε hat, and that TensorFlow's `AdamOptimizer` (ε 1e-8) and Keras' `Adam` (ε 1e-7)
    compute. The paper's algorithm 1 adds ε to the corrected root, √(v / (1 - β₂ᵗ)) + ε, as PyTorch does:
    `epsilon_in="denominator"`; `"root"` puts ε under it. With `amsgrad`, √v is taken of the largest v so far (Keras'
    `amsgrad`, and PyTorch's; AMSGrad's paper corrects no bias). TensorFlow's own rounds β₁ and β₂ to float32 first, so
    that its 1 - β₂ = 0.001 is 1.3e-5 off.

    Args:
        learning_rate: η: a number, a scalar tensor, or a schedule, called with the step (0 at the first).
        beta_1: β₁, from 0 to 1.
        beta_2: β₂, from 0 to 1.
        epsilon: ε; at least 0.
        bias_correction: Whether the bias is corrected: True, False, "m" or "v".
        epsilon_in: "uncorrected", "denominator" or "root".
        amsgrad: Whether v never falls.

    Raises:
        TypeError, ValueError: If a number is out of its range.

    Example:
        >>> from gradcheck.optimizers import Adam
        >>> rule = Adam(learning_rate=0.1)
        >>> w, state = rule.step(1.0, 7.0, rule.init(1.0))  # the first step has the length of the rate
        >>> round(float(w), 5)
        0.9

    Reference: D. Kingma, J. Ba, Adam: a method for stochastic optimization, ICLR (2015), arXiv:1412.6980; S. Reddi,
    S. Kale, S. Kumar, On the convergence of Adam and beyond, ICLR (2018), arXiv:1904.09237, for AMSGrad.
    """

    learning_rate: Any
    beta_1: Any = 0.9
    beta_2: Any = 0.999
    epsilon: Any = 1e-7
    _: KW_ONLY
    bias_correction: bool | str = True
    epsilon_in: str = "uncorrected"
    amsgrad: bool = False

    def __post_init__(self) -> None:
        require_rate("learning_rate", self.learning_rate)
        require_number("beta_1", self.beta_1, most=1)
        require_number("beta_2", self.beta_2, most=1)
        require_number("epsilon", self.epsilon)
        require_choice("epsilon_in", self.epsilon_in, EPSILON_IN)
        if not isinstance(self.bias_correction, str):
            require_flag("bias_correction", self.bias_correction)
        else:
            require_choice("bias_correction", self.bias_correction, CORRECTED)
        require_flag("amsgrad", self.amsgrad)

    def slots(self) -> dict[str, Any]:
        return {"m": 0.0, "v": 0.0, **({"largest_v": 0.0} if self.amsgrad else {})}

    def accumulate(self, moment: Moment, gradient: Any, slots: Slots) -> dict[str, Any]:
        beta_1, beta_2 = moment.number(self.beta_1), moment.number(self.beta_2)
        new = {
            "m": beta_1 * slots["m"] + moment.rest(self.beta_1) * gradient,
            "v": beta_2 * slots["v"] + moment.rest(self.beta_2) * (gradient * gradient),
        }
        if self.amsgrad:
            new["largest_v"] = moment.larger(slots["largest_v"], new["v"])
        return new

    def descend(self, moment: Moment, param: Any, gradient: Any, slots: Slots) -> Any:
        epsilon, eta = moment.number(self.epsilon), moment.number(self.learning_rate)
        of_m, of_v = self._correction(moment, "m", self.beta_1), self._correction(moment, "v", self.beta_2)
        v = slots["largest_v" if self.amsgrad else "v"]
        if self.epsilon_in == "uncorrected":
            alpha = eta * moment.narrow(of_v**0.5 / of_m)
            return param - alpha * slots["m"] / (moment.root(v) + epsilon)
        m, v = slots["m"] / moment.narrow(of_m), v / moment.narrow(of_v)
        below = moment.root(v + epsilon) if self.epsilon_in == "root" else moment.root(v) + epsilon
        return param - eta * m / below

    def _correction(self, moment: Moment, of: str, beta: Any) -> Any:
        if self.bias_correction not in (True, of):
            return moment.wide(1.0)
        # In float64: 1 - 0.999^t loses most of its digits in the dtype of narrow weights.
        return 1 - moment.wide(beta) ** moment.wide(moment.count)


@dataclass(frozen=True, repr=False)
class AdamW(Adam):
    """Adam with decoupled weight decay: w <- w - η λ w, then as `Adam`.

    The decay goes past m and v, and sees the w before the step. Keras' `AdamW` does the same, and so does PyTorch's;
    the paper's λ is η λ here, and a schedule scales both terms there.

    Args:
        learning_rate: η: a number, a scalar tensor, or a schedule, called with the step (0 at the first).
        beta_1: β₁, from 0 to 1.
        beta_2: β₂, from 0 to 1.
        epsilon: ε; at least 0.
        weight_decay: λ; at least 0.
        bias_correction: Whether Adam's bias is corrected: True, False, "m" or "v".
        epsilon_in: Where ε is added, as of `Adam`: "uncorrected", "denominator" or "root".
        amsgrad: Whether v never falls.

    Raises:
        TypeError, ValueError: If a number is out of its range.

    Example:
        >>> from gradcheck.optimizers import AdamW
        >>> rule = AdamW(learning_rate=0.1, weight_decay=0.5)
        >>> w, state = rule.step(1.0, 7.0, rule.init(1.0))  # to 0.95 by decay, then 0.1 by Adam
        >>> round(float(w), 5)
        0.85

    Reference: I. Loshchilov, F. Hutter, Decoupled weight decay regularization, ICLR (2019), arXiv:1711.05101.
    """

    _: KW_ONLY
    weight_decay: Any = 0.004

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("weight_decay", self.weight_decay)

    def descend(self, moment: Moment, param: Any, gradient: Any, slots: Slots) -> Any:
        shrunk = moment.number(self.learning_rate) * moment.number(self.weight_decay)
        return super().descend(moment, param - shrunk * param, gradient, slots)
