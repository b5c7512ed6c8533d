"""A rule whose gradients are clipped first, or its steps afterwards."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import tensorflow as tf

from gradcheck.optimizers._arguments import require_choice, require_number
from gradcheck.optimizers._around import Around
from gradcheck.optimizers._rule import Moment, Slots, TensorMoment

BY = ("value", "norm", "global norm")
OF = ("gradient", "step")


@dataclass(frozen=True, repr=False)
class Clipped(Around):
    """A rule that sees clipped gradients, or whose steps are clipped.

    By "value", each entry is kept between -limit and limit (Keras' `clipvalue`). By "norm", the gradient of each leaf
    whose Euclidean norm exceeds the limit is scaled down to it (`clipnorm`); by "global norm", all leaves together
    (`global_clipnorm`). Of the "step", each entry moves by at most the limit, and the rule sees what there is; this
    is by value only.

    Raises:
        TypeError, ValueError: If the rule is none, the limit negative, or `by` or `of` unknown.

    Example:
        >>> from gradcheck.optimizers import Clipped, GradientDescent
        >>> rule = Clipped(GradientDescent(1.0), limit=1.0, by="norm")
        >>> w, state = rule.step([0.0, 0.0], [3.0, 4.0], rule.init([0.0, 0.0]))  # each number is a leaf
        >>> [float(each) for each in w]
        [-1.0, -1.0]

    Reference: R. Pascanu, T. Mikolov, Y. Bengio, On the difficulty of training recurrent neural networks, ICML
    (2013), for clipping by norm.
    """

    rule: Any
    limit: Any
    by: str = "value"
    _: KW_ONLY
    of: str = "gradient"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("limit", self.limit)
        require_choice("of", self.of, OF)
        require_choice("by", self.by, BY if self.of == "gradient" else ("value",))

    def prepare(self, grads: list[Any]) -> list[Any]:
        norms: list[Any] = []
        if self.by == "norm":
            norms = [g if g is None else _norm([g]) for g in grads]
        elif self.by == "global norm":
            norms = [_norm([g for g in grads if g is not None])] * len(grads)
        if norms:
            grads = [g if g is None else self._scaled(g, norm) for g, norm in zip(grads, norms, strict=True)]
        return super().prepare(grads)

    def update(self, moment: Moment, param: Any, gradient: Any, slots: Slots) -> tuple[Any, dict[str, Any]]:
        if self.of == "step":
            moved, new = super().update(moment, param, gradient, slots)
            return param + moment.clip(moved - param, self.limit), new
        seen = moment.clip(gradient, self.limit) if self.by == "value" else gradient
        return super().update(moment, param, seen, slots)

    def _scaled(self, gradient: Any, norm: Any) -> Any:
        limit = tf.cast(self.limit, gradient.dtype)
        return gradient * tf.math.divide_no_nan(limit, tf.maximum(tf.cast(norm, gradient.dtype), limit))


def clips_by_norm(rule: Any) -> bool:
    """Whether a norm of gradients is clipped anywhere inside."""
    if isinstance(rule, Clipped) and rule.by != "value":
        return True
    return isinstance(rule, Around) and clips_by_norm(rule.rule)


def _norm(grads: list[Any]) -> Any:
    """Of all entries together, in float64, where squares of narrow entries neither overflow nor round much."""
    squares = [tf.reduce_sum(tf.square(tf.cast(g, tf.float64))) for g in grads]
    return TensorMoment(1, tf.float64).root(tf.add_n(squares)) if squares else None
