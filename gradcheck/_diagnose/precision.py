"""Where digits are lost: a program in its own dtype beside its float64 twin, op by op."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradcheck._diagnose.digits import UNITS, Lost, digits_of, lost, relative_error
from gradcheck._diagnose.entries import is_by_entry
from gradcheck._diagnose.inside import inside
from gradcheck._diagnose.parts import outputs_of
from gradcheck._diagnose.ranges import is_continuous, wide_array
from gradcheck._diagnose.surroundings import Surroundings, of_visit
from gradcheck._graph.functions import trace_function
from gradcheck._graph.given import given
from gradcheck._graph.rerun import Rerun
from gradcheck._graph.rounding import hands_on
from gradcheck._graph.twin import is_narrow
from gradcheck._graph.visit import Value, Visit
from gradcheck._report.precision import Kept, Loss, PrecisionReport


def profile_precision(fn: Callable[..., Any], inputs: Any) -> PrecisionReport:
    """The ops in which a function loses digits.

    The traced graph runs op by op in its own dtype and beside it in float64, on the same inputs. What an op loses is
    how far its error against float64 exceeds the errors that its inputs had, in decimal digits; errors that it
    inherits are not its own. Named are cancellation (of nearly equal numbers, relative to their own rounding), small
    terms that are absorbed, results that underflow or saturate, and sums whose rounding adds up. A sum that comes near
    0 by chance loses digits as well: what is no more frequent than chance is left out. For the gradient, hand over a
    function that returns it.

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
    return profile(outputs_of(traced))


@dataclass(slots=True)
class _Profile:
    rerun: Rerun
    worst: dict[str, tuple[Lost, Visit]] = field(default_factory=dict)

    def see(self, own: Visit, twin: Visit) -> None:
        for narrow, wide in zip(own.outputs, twin.outputs, strict=True):
            narrow.note = wide.tensor
        for value in own.outputs:
            if value.tensor.dtype.name not in UNITS or hands_on(own.node.op):
                continue
            known = [v for v in own.inputs if v.note is not None and is_continuous(v.tensor)]
            known = [v for v in known if v.tensor.shape == v.note.shape]
            pairs = [(wide_array(v.tensor), wide_array(v.note)) for v in known]
            result, exact = wide_array(value.tensor), wide_array(value.note)
            shapes = [v.tensor.shape.as_list() for v in own.inputs]
            by_entry = is_by_entry(own.node.op, shapes, list(result.shape))
            found = lost(own.node.op, value.tensor.dtype.name, pairs, result, exact, by_entry=by_entry)
            if found is not None and (own.name not in self.worst or found.digits > self.worst[own.name][0].digits):
                self.worst[own.name] = found, own


def profile(rerun: Rerun) -> PrecisionReport:
    """The report on a program."""
    work = _Profile(rerun)
    returned, notes = _side_by_side(work)
    losses = [_loss(rerun, found, seen) for found, seen in work.worst.values()]
    return PrecisionReport(
        name=rerun.name,
        losses=tuple(sorted(losses, key=lambda loss: -loss.digits)),
        outputs=tuple(_kept(label, value) for label, value in returned if value.tensor.dtype.name in UNITS),
        notes=(*rerun.notes, *notes),
    )


def _side_by_side(work: _Profile) -> tuple[list[tuple[str, Value]], list[str]]:
    """Run both; give what is returned, each noting its value in float64."""
    twin = work.rerun.widened()
    given, own_walk = work.rerun.start()
    wide_given, twin_walk = twin.start()
    for narrow, wide, each in zip(given, wide_given, work.rerun.given, strict=True):
        narrow.note = None if each.variable is not None else wide.tensor
    while True:
        try:
            own = next(own_walk)
        except StopIteration as end:
            return list(zip(work.rerun.outputs, end.value, strict=True)), []
        other = next((v for v in twin_walk if v.node.name == own.node.name and v.path == own.path), None)
        if other is None:
            return [], [f"in float64 another way is taken from {own.name} on: what comes after is not compared"]
        work.see(own, other)


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
