"""Where digits are lost: a program in its own dtype beside its float64 twin, op by op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradcheck._calls import explained
from gradcheck._diagnose.digits import UNITS, Lost, digits_of, lost, relative_error
from gradcheck._diagnose.felt import compared, felt, side_by_side
from gradcheck._diagnose.inside import inside
from gradcheck._diagnose.parts import outputs_of
from gradcheck._diagnose.ranges import wide_array
from gradcheck._diagnose.surroundings import Surroundings, of_visit
from gradcheck._graph.functions import trace_function
from gradcheck._graph.given import given
from gradcheck._graph.raised import lines_noted
from gradcheck._graph.rerun import Rerun
from gradcheck._graph.twin import is_narrow
from gradcheck._graph.visit import Value, Visit
from gradcheck._report.precision import Kept, Loss, PrecisionReport

_FLOORED = ("Sqrt", "Rsqrt", "Log", "Reciprocal", "Pow")
_DIVIDES = ("RealDiv", "Div", "DivNoNan", "Xdivy")


@explained("inputs")
def profile_precision(fn: Callable[..., Any], inputs: Any) -> PrecisionReport:
    """The ops in which a function loses digits.

    The traced graph runs op by op in its own dtype and beside it in float64, on the same inputs. What an op loses is
    how far its error against float64 exceeds the errors that its inputs had, in decimal digits; errors that it
    inherits are not its own. Named are cancellation (of nearly equal numbers, relative to their own rounding), small
    terms that are absorbed, results that underflow or saturate, and sums whose rounding adds up. One entry among many
    comes near 0 by chance, and loses digits as well. So named is what chance does not explain, and what an output of
    the function feels: with all else computed in float64, the error of the op's bad entries puts it off by 10 units of
    rounding. For the gradient, hand over a function that returns it.

    Args:
        fn: Any Python callable, tf.function, Keras layer or model, as for `find_nonfinite`.
        inputs: A list or tuple is positional arguments, a dict keyword arguments, anything else one argument; of
            float32, float16, bfloat16 or complex64, for in float64 there is nothing to compare with.

    Returns:
        A `PrecisionReport`, worst op first, with the user's lines, and how many digits of the outputs are right.

    Raises:
        TypeError: If `fn` is not callable.
        ValueError: If it returns nothing of a floating or complex dtype.

    Example:
        >>> import gradcheck, tensorflow as tf
        >>> report = gradcheck.profile_precision(lambda x: (1.0 - tf.cos(x)) / x**2, tf.constant([1e-3, 2e-3]))
        >>> report.worst.op_type, report.worst.kind
        ('Sub', 'cancellation')

    Reference: the relative error of a difference is that of its terms times their size over its own: N. J. Higham,
    Accuracy and Stability of Numerical Algorithms, 2nd ed., SIAM 2002, section 1.7.
    """
    if not callable(fn):
        raise TypeError(f"fn must be callable, found {type(fn).__name__}; write profile_precision(fn, inputs)")
    traced = trace_function(fn, given(inputs), x_required=False)
    if not is_narrow(traced.program):
        note = "it computes in float64 throughout: there is nothing wider here to compare with"
        return PrecisionReport(name=traced.name, losses=(), outputs=(), notes=(note,))
    with lines_noted(traced.graph, traced.name):
        return profile(outputs_of(traced))


def profile(rerun: Rerun) -> PrecisionReport:
    """The report on a program."""
    worst: dict[str, tuple[Lost, Visit]] = {}

    def see(own: Visit) -> None:
        for _, each in compared(own):
            found = lost(each)
            if found is not None and (own.name not in worst or _rank(found) > _rank(worst[own.name][0])):
                worst[own.name] = found, own

    returned = side_by_side(rerun, see)
    notes = []
    if isinstance(returned, str):
        notes = [f"in float64 another way is taken from {returned} on: what comes after is not compared"]
    doubtful = [name for name, (found, _) in worst.items() if not found.certain]
    real = felt(rerun, doubtful) if doubtful else set()
    seen = [(found, own) for name, (found, own) in worst.items() if found.certain or name in real]
    losses = [_loss(rerun, *each) for each in seen if not _is_a_floor(rerun, *each)]
    outputs = [] if isinstance(returned, str) else list(zip(rerun.outputs, returned, strict=True))
    return PrecisionReport(
        name=rerun.name,
        losses=tuple(sorted(losses, key=lambda loss: -loss.digits)),
        outputs=tuple(_kept(label, value) for label, value in outputs if value.tensor.dtype.name in UNITS),
        notes=(*rerun.notes, *notes),
    )


def _rank(found: Lost) -> tuple[bool, float]:
    return found.certain, found.digits


def _is_a_floor(rerun: Rerun, found: Lost, seen: Visit) -> bool:
    """Whether the term that counts for nothing is a constant that keeps a divisor, a root or a logarithm from 0."""
    if found.absorbed is None:
        return False
    around = of_visit(rerun, seen)
    made = around.maker(around.node, found.absorbed)
    guarded = any(taker.op in _FLOORED or (taker.op in _DIVIDES and k == 1) for taker, k in around.takers(around.node))
    return guarded and made is not None and made.op == "Const"


def _kept(label: str, value: Value) -> Kept:
    dtype = value.tensor.dtype.name
    has = digits_of(dtype)
    error = (
        np.median(relative_error(wide_array(value.tensor), wide_array(value.note)))
        if value.note.shape.num_elements()
        else 0.0
    )
    return Kept(label=label, digits=float(min(has, max(0.0, -np.log10(max(error, 1e-300))))), of=has)


def _loss(rerun: Rerun, found: Lost, seen: Visit) -> Loss:
    op = seen.node.op
    return Loss(
        place=rerun.origin(seen.name, op).place,
        digits=found.digits,
        kind=found.kind,
        dtype=seen.outputs[0].tensor.dtype.name,
        index=found.index,
        value=found.value,
        exact=found.exact,
        inside=tuple(inside(seen, rerun)),
        hint=_hint(found.kind, of_visit(rerun, seen)),
    )


def _hint(kind: str, around: Surroundings) -> str | None:
    node = around.node
    if kind == "cancellation":
        if any(around.makers(node, "Cos")) and around.is_one(node, 0):
            return "1 - cos(x) is 2 * tf.sin(x / 2)**2"
        if any(around.makers(node, "Sigmoid")) and around.is_one(node, 0):
            return "1 - sigmoid(x) is tf.sigmoid(-x), and its logarithm tf.math.log_sigmoid(-x)"
        if any(around.makers(node, "Exp")) and around.is_one(node, 1):
            return "exp(x) - 1 is tf.math.expm1(x)"
        if len(list(around.makers(node, "Sqrt"))) == 2:
            return "sqrt(a) - sqrt(b) is (a - b) / (sqrt(a) + sqrt(b))"
        if len(list(around.makers(node, "Log"))) == 2:
            return "log(a) - log(b) is tf.math.log1p((a - b) / b)"
        if any(around.makers(node, "Mean")) and any(around.makers(node, ("Square", "Mul", "Pow"))):
            return "the mean of squares minus the square of the mean is tf.math.reduce_variance(x)"
        return "nearly equal numbers are subtracted: rewrite the difference, or compute it in float64"
    inner = around.maker(node, 0)
    if kind == "rounding" and node.op == "Log" and inner is not None and around.adds_one(inner):
        return "1 + x lost x: log(1 + x) is tf.math.log1p(x)"
    return {
        "absorption": "one term is too small to count beside the other: add the small ones first, or in float64",
        "underflow": "too small for the dtype: keep its logarithm, or scale it",
        "saturation": "at its limit, 1 - y is lost: work on the logits, with tf.nn.log_softmax or log_sigmoid",
    }.get(kind)
