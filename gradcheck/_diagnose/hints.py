"""What to write at the line where a NaN or an infinity is born, told by the op, its values and what lies around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck._diagnose.births import Birth
from gradcheck._diagnose.cause import LOST, OVERFLOW
from gradcheck._diagnose.entries import at
from gradcheck._diagnose.ranges import first_nonfinite, wide_array
from gradcheck._diagnose.surroundings import ADDED, Surroundings, of_forward, of_visit
from gradcheck._graph.rerun import Rerun
from gradcheck._results import Place

_SQUARES = ("Square", "L2Loss", "SquaredDifference")
_ALL_MASKED = "a row that is -inf throughout adds up to 0: leave out what is masked altogether"
_DIVISIONS = ("RealDiv", "Div", "Xdivy")


@dataclass(frozen=True, slots=True)
class _Case:
    """A birth, for the rules to look at."""

    birth: Birth
    cause: str | None
    gradient: bool  # of a gradient; then `around` is around the forward op
    around: Surroundings
    index: tuple[int, ...]

    @property
    def op(self) -> str:
        return str(self.around.node.op)

    @property
    def dtype(self) -> Any:
        return self.birth.tensor.dtype

    def own(self, k: int) -> Any:
        """The k-th input of the op of the birth at the entry that is not finite, or all of it."""
        assert self.birth.visit is not None
        array = wide_array(self.birth.visit.inputs[k].tensor)
        entry = at(array, self.index)
        return array if entry is None else entry


def hint_of(birth: Birth, cause: str | None, forward: Place | None, rerun: Rerun) -> str | None:
    """What to write at that line, or None where nothing more than the cause can be said."""
    index = first_nonfinite(birth.tensor)
    if birth.visit is None:
        row = f" (entry {list(index)})" if index else ""
        return f"{birth.label} is not finite before anything is computed: look at where it comes from{row}"
    if birth.was_given:
        return "this constant is not finite as it is written, or as Python computed it"
    around = of_visit(rerun, birth.visit)
    if forward is not None:
        found = of_forward(rerun, forward.op, forward.op_type)
        if found is None:
            return None
        around = found
    case = _Case(birth, cause, forward is not None, around, index)
    return next((hint for rule in _RULES if (hint := rule(case)) is not None), None)


# ------------------------------------------------------------------------------------------------ masks


def _double_where(case: _Case) -> str | None:
    """A gradient that is multiplied by the 0 of a tf.where, which leaves NaN."""
    if not case.gradient:
        return None
    for select, branch in case.around.selections():
        condition = case.around.input_value(select, 0)
        chosen = at(condition, case.index)
        if condition is None or (chosen is None and condition.all() == condition.any()):
            continue
        if chosen is None or bool(chosen) != (branch == 1):
            return (
                "tf.where differentiates both branches, and 0 times infinity is NaN: make the input safe first, "
                "safe = tf.where(condition, x, 1.0), and compute this branch from safe"
            )
    return None


def _meant_infinities(case: _Case) -> str | None:
    assert case.birth.visit is not None
    arrays = [wide_array(v.tensor) for v in case.birth.visit.inputs if v.tensor.dtype.is_floating]
    if all(np.all(np.isfinite(a)) for a in arrays):
        return None
    if case.op in ("Softmax", "LogSoftmax"):
        return (
            f"a row that is -inf throughout has no softmax: mask with {_mask(case)}, or leave out what is masked "
            "altogether"
        )
    return f"an infinity that was put in became NaN here: mask with {_mask(case)} instead"


def _mask(case: _Case) -> str:
    if case.dtype == tf.float16:
        return "a large negative number that float16 holds, such as -6e4 (-1e9 is infinite there)"
    return "a large negative number such as -1e9"


# ------------------------------------------------------------------------------------------------ logarithms


def _logarithm(case: _Case) -> str | None:
    if case.op != "Log":
        return None
    around, node = case.around, case.around.node
    made = around.maker(node, 0)
    if made is not None and made.op == "Softmax":
        return "log of a softmax that became 0: tf.nn.log_softmax(logits) needs no softmax before it"
    if made is not None and made.op == "Sigmoid":
        return "log of a sigmoid that became 0: tf.math.log_sigmoid(x), or a loss that takes logits"
    exponentials = list(around.makers(made, "Exp")) if made is not None and made.op == "Sum" else []
    if exponentials and _is_all_masked(case, exponentials[0]):
        return _ALL_MASKED
    if exponentials:
        return "log of a sum of exponentials: tf.reduce_logsumexp(x) computes it without leaving the range of the dtype"
    if case.gradient or case.cause == LOST:
        return None
    value = np.asarray(case.own(0))
    if np.any(value < 0):
        return (
            "log of a negative number: keep the input positive, e.g. by tf.nn.softplus(x) or tf.maximum(x, 1e-12) "
            "before the log"
        )
    product = around.taken_by(node, "Mul")
    if product is not None and _other_is_zero(case, product):
        return "0 * log(0) is NaN: tf.math.xlogy(p, q) is 0 where p is 0"
    return "log of 0: tf.math.log(tf.maximum(x, 1e-12)) bounds it; if the 0 itself is wrong, look at what made it"


def _is_all_masked(case: _Case, exponential: Any) -> bool:
    """Whether powers that are too low for the exponential were -inf already."""
    powers = case.around.input_value(exponential, 0)
    if powers is None or case.dtype.is_complex:
        return False
    low = powers[powers < -np.log(float(case.dtype.max))]
    return bool(low.size and np.all(np.isneginf(low)))


def _one_plus(case: _Case) -> str | None:
    """The logarithm of 1 + x, as the op or as what it takes, where 1 + x was rounded to 1, or to 0."""
    around = case.around
    if case.cause != LOST:
        return None
    for log in [around.node, *around.makers(around.node, "Log")]:
        made = around.maker(log, 0)
        if log.op != "Log" or made is None or not around.adds_one(made):
            continue
        if any(around.makers(made, "Sigmoid")):
            return "log(1 - sigmoid(x)) is tf.math.log_sigmoid(-x)"
        if any(around.makers(made, "Exp")) and made.op == "Sub":
            return "log(1 - exp(x)) is tf.math.log(-tf.math.expm1(x)) near 0, tf.math.log1p(-tf.exp(x)) far from it"
        if log is not around.node:
            return "1 + x lost x: tf.math.log1p(x) (for 1 - x: tf.math.log1p(-x)) keeps it"
    return None


def _other_is_zero(case: _Case, product: Any) -> bool:
    for k in (0, 1):
        made = case.around.maker(product, k)
        if made is None or made.name != case.around.node.name:
            value = case.around.input_value(product, k)
            entry = at(value, case.index)
            return value is not None and bool(np.any((value if entry is None else entry) == 0))
    return False


# ------------------------------------------------------------------------------------------------ exponentials


def _exponential(case: _Case) -> str | None:
    if case.op not in ("Exp", "Expm1", "Sinh", "Cosh") or case.cause != OVERFLOW:
        return None
    around, node = case.around, case.around.node
    total = around.taken_by(node, "Sum")
    if total is not None and around.taken_by(total, "Log"):
        return "log of a sum of exponentials: tf.reduce_logsumexp(x) computes it without leaving the range of the dtype"
    if total is not None and _is_softmax(around, total):
        return "an exponential divided by the sum of exponentials: tf.nn.softmax(x) does not overflow"
    if around.taken_by(node, "Log1p"):
        return "log(1 + exp(x)): tf.math.softplus(x) does not overflow"
    one_more = around.taken_by(node, *ADDED)
    if one_more is not None and around.adds_one(one_more):
        if around.taken_by(one_more, "Log"):
            return "log(1 + exp(x)): tf.math.softplus(x) does not overflow"
        if around.taken_by(one_more, "Reciprocal", *_DIVISIONS):
            return "1 / (1 + exp(-x)): tf.sigmoid(x) does not overflow"
    limit = float(np.log(float(case.dtype.real_dtype.max)))
    return (
        f"{node.op.lower()} overflows {case.dtype.name} above {limit:.4g}: bound its input, tf.minimum(x, {limit:.3g})"
    )


def _is_softmax(around: Surroundings, total: Any) -> bool:
    division = around.taken_by(total, *_DIVISIONS)
    return division is not None and any(around.makers(division, "Exp")) and any(around.makers(division, "Sum"))


# ------------------------------------------------------------------------------------------------ roots and divisions


def _root(case: _Case) -> str | None:
    if case.op not in ("Sqrt", "Rsqrt", "EuclideanNorm") or case.cause == OVERFLOW:
        return None
    around, node = case.around, case.around.node
    made = around.maker(node, 0)
    if case.op == "Rsqrt":
        return "rsqrt of 0: tf.math.rsqrt(x + epsilon), the epsilon inside the root"
    if case.gradient or case.op == "EuclideanNorm":
        if case.op == "EuclideanNorm" or (made is not None and _sums_squares(around, made)):
            return (
                "a norm has no gradient at 0: tf.sqrt(tf.reduce_sum(tf.square(x), axis) + epsilon), the epsilon "
                "inside the root"
            )
        return "the slope of a root at 0 is infinite: tf.sqrt(x + epsilon), the epsilon inside the root"
    if made is not None and made.op == "Sub" and any(around.makers(made, "Mean")) and _squared_mean(around, made):
        return "the mean of squares minus the square of the mean lost its digits: tf.math.reduce_variance(x)"
    return "root of a negative number: tf.sqrt(tf.maximum(x, 0.0)), if it is negative by rounding only"


def _sums_squares(around: Surroundings, node: Any) -> bool:
    if node.op not in ("Sum", "L2Loss"):
        return False
    made = around.maker(node, 0)
    return node.op == "L2Loss" or (made is not None and _is_square(made))


def _is_square(node: Any) -> bool:
    return node.op in _SQUARES or (node.op == "Mul" and len(set(node.input[:2])) == 1)


def _squared_mean(around: Surroundings, difference: Any) -> bool:
    second = around.maker(difference, 1)
    return second is not None and _is_square(second)


def _division(case: _Case) -> str | None:
    if case.op not in (*_DIVISIONS, "Reciprocal", "Inv") or case.cause == OVERFLOW:
        return None
    around, node = case.around, case.around.node
    made = around.maker(node, 1 if case.op in _DIVISIONS else 0)
    exponentials = list(around.makers(made, "Exp")) if made is not None and made.op == "Sum" else []
    if exponentials and _is_all_masked(case, exponentials[0]):
        return _ALL_MASKED
    if exponentials:
        return "a sum of exponentials that became 0: tf.nn.softmax(x) subtracts the largest first"
    if made is not None and made.op == "Sqrt":
        inner = around.maker(made, 0)
        if inner is not None and _sums_squares(around, inner):
            return "divided by a norm of 0: tf.math.l2_normalize(x, axis, epsilon=1e-12)"
        return "divided by a root that is 0: add epsilon to what it is the root of, tf.sqrt(x + epsilon)"
    if case.cause == LOST:
        return None
    if case.op in ("Reciprocal", "Inv"):
        return "reciprocal of 0: tf.math.reciprocal_no_nan(x) is 0 there"
    return "divided by 0: tf.math.divide_no_nan(a, b) is 0 there; or add epsilon to the divisor"


def _power(case: _Case) -> str | None:
    if case.op != "Pow" or case.cause == OVERFLOW:
        return None
    base = case.around.input_value(case.around.node, 0)
    entry = at(base, case.index)
    entry = base if entry is None else entry
    if entry is not None and np.any(entry < 0):
        return (
            "a fractional power of a negative number: tf.pow(tf.maximum(x, 0.0), p), if it is negative by rounding only"
        )
    return "a power below 1 has an infinite slope at 0, one below 0 is infinite there: tf.pow(x + epsilon, p)"


def _edges(case: _Case) -> str | None:
    if case.op in ("Acos", "Asin"):
        bound = "1 - 1e-6" if case.gradient else "1.0"
        return f"{case.op.lower()} beyond [-1, 1]" + (
            f" or at its ends, where the slope is infinite: tf.clip_by_value(x, -({bound}), {bound}) first"
            if case.gradient
            else ": tf.clip_by_value(x, -1.0, 1.0) first, if it is beyond by rounding only"
        )
    if case.op == "Atanh":
        return "atanh at or beyond 1: tf.clip_by_value(x, -1 + 1e-6, 1 - 1e-6) first"
    if case.op in ("Erfinv", "Ndtri"):
        low, high = ("-1 + 1e-6", "1 - 1e-6") if case.op == "Erfinv" else ("1e-6", "1 - 1e-6")
        return f"{case.op.lower()} at or beyond the ends of its range: tf.clip_by_value(x, {low}, {high}) first"
    if case.op in ("Lgamma", "Digamma"):
        return f"{case.op.lower()} at 0 or a negative whole number: tf.maximum(x, 1e-6), where x cannot be negative"
    if case.op in ("Xlogy", "Xlog1py"):
        return f"{case.op.lower()}(x, y) is 0 for x of 0 alone; bound y: tf.maximum(y, 1e-12)"
    if case.op == "Acosh":
        return "acosh below 1" + (
            " or at it, where the slope is infinite: tf.maximum(x, 1 + 1e-6) first"
            if case.gradient
            else ": tf.maximum(x, 1.0) first, if it is below by rounding only"
        )
    if case.op == "Log1p":
        return "log1p at or below -1: tf.maximum(x, -1 + 1e-6) bounds it; if the -1 is wrong, look at what made it"
    return None


def _not_definite(case: _Case) -> str | None:
    if case.op != "Cholesky" or case.gradient:
        return None
    return "the matrix is not positive definite: add to its diagonal, a + epsilon * tf.eye(n)"


def _out_of_sight(case: _Case) -> str | None:
    if case.op == "ReduceDataset":
        return (
            "a loop over a dataset within a tf.function is one op, which is not looked into: loop in Python, and watch "
            "or check the function of one batch"
        )
    if case.op not in ("PyFunc", "PyFuncStateless", "EagerPyFunc"):
        return None
    return "made in a Python function: np.seterr(all='raise') tells where, or write it with TensorFlow's ops"


def _empty_mean(case: _Case) -> str | None:
    if case.op != "Mean" or case.gradient:
        return None
    value = case.around.input_value(case.around.node, 0)
    if value is None or value.size:
        return None
    return "the mean of nothing: tf.math.divide_no_nan(tf.reduce_sum(x), tf.cast(tf.size(x), x.dtype)) is 0 there"


# ------------------------------------------------------------------------------------------------ overflow


def _overflow(case: _Case) -> str | None:
    if case.cause != OVERFLOW:
        return None
    around, node, name = case.around, case.around.node, case.dtype.name
    if name == "float16":
        return f"{name} ends at 65504: compute this in float32, tf.cast(x, tf.float32)"
    root = float(np.sqrt(float(case.dtype.real_dtype.max)))
    if (
        _is_square(node)
        or _sums_squares(around, node)
        or any(_is_square(m) for m in around.makers(node, ("Mul", *_SQUARES)))
    ):
        return (
            f"squares of values above {root:.2g} overflow {name}: clip them first, tf.clip_by_value(x, -c, c); where "
            "they grew from step to step, clip gradients or lower the learning rate"
        )
    if node.op == "Prod":
        return "a product of many: add logarithms instead, tf.reduce_sum(tf.math.log(x))"
    if case.birth.visit is not None and case.birth.visit.inputs:
        high = max((_largest(v.tensor) for v in case.birth.visit.inputs), default=0.0)
        return f"values as large as {high:.3g} come in: scale them, clip gradients, or lower the learning rate"
    return None


def _largest(tensor: Any) -> float:
    if not (tensor.dtype.is_floating or tensor.dtype.is_complex) or tf.size(tensor) == 0:
        return 0.0
    return float(np.max(np.abs(wide_array(tensor))))


def _lost(case: _Case) -> str | None:
    if case.cause != LOST:
        return None
    return "exact in float64: an input lost its digits on the way; gradcheck.profile_precision(fn, inputs) shows where"


_RULES: tuple[Callable[[_Case], str | None], ...] = (
    _double_where, _meant_infinities, _one_plus, _logarithm, _exponential, _root, _division, _power, _edges,
    _empty_mean, _not_definite, _out_of_sight, _overflow, _lost,
)  # fmt: skip
