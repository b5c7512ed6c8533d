"""The trajectories that the document prints, and gradients through the rules that make them.

Its loss is (w x - y)^2 with x = 1 and y = 3, from w = 2. What it prints was fetched before each update, but for the
velocity of momentum by hand, printed between the two assignments, and the weights of the small rate, printed after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck import optimizers
from gradcheck._check.gradients import check_gradients
from gradcheck._graph.quiet import errors_only
from gradcheck._report.gradient import GradientReport
from gradcheck._results import Figure
from gradcheck.subjects import _printed
from gradcheck.subjects._figures import figure, figures
from gradcheck.subjects._session import new_session
from gradcheck.subjects._subject import Experiment, SubjectResult

_v1 = tf.compat.v1
_START, _TARGET = 2.0, 3.0
_UNROLLED = 5  # steps; further on the loss is so small that float32 gradients have few digits left
_STORED = 2.0**-23  # a weight near 3 is at most this far from the float32 that holds it

Make = Callable[..., Any]


def through(make: Make, **numbers: float) -> Experiment:
    """The experiment that checks the gradients of the loss after some steps, by the start and by `numbers`."""

    def experiment(*, name: str, mode: str, seed: int) -> SubjectResult:
        return SubjectResult(report=_report(make, numbers, name, mode, seed))

    return experiment


def by_optimizer(
    make: Make, numbers: dict[str, float], theirs: Callable[[], Any], printed: Sequence[Sequence[float]]
) -> Experiment:
    """The experiment that runs TensorFlow's own optimizer beside what the document prints of it."""

    def experiment(*, name: str, mode: str, seed: int) -> SubjectResult:
        with new_session() as session:
            w = _v1.get_variable("w", initializer=_START)
            loss = tf.square(w * tf.constant(1.0) - tf.constant(_TARGET))
            gradient = tf.gradients(loss, w)[0]
            with errors_only():  # AdagradOptimizer warns of how TensorFlow itself calls its initializer
                update = theirs().minimize(loss)
            session.run(_v1.global_variables_initializer())
            computed = []
            for _ in printed:
                computed.append(session.run([w, gradient, loss]))
                session.run(update)
        return SubjectResult(
            report=_report(make, numbers, name, mode, seed), figures=_table(("w", "dl/dw", "l"), printed, computed)
        )

    return experiment


def momentum_by_hand(first: str) -> Experiment:
    """The experiment that runs momentum in two assignments, `first` the "state" or the "params"."""
    rule = optimizers.TwoAssignments(optimizers.Momentum(0.01, 0.8), first)

    def experiment(*, name: str, mode: str, seed: int) -> SubjectResult:
        start, later, resting = _printed.MOMENTUM_BY_HAND[0], _printed.MOMENTUM_BY_HAND[1:10], _printed.MOMENTUM_AT_REST
        rows = _descent(rule, _START, len(later))
        computed = [(_START, rows[0][1], 0.0, rows[0][3]), *((w, g, v, loss) for w, g, v, loss in rows)]
        # Where float32 comes to rest depends on every rounding before; that it rests there does not.
        at_rest = _descent(rule, resting[0][0], len(resting), velocity=resting[0][2])
        labels = ("w", "dl/dw", "v", "l")
        return SubjectResult(
            report=_report(_momentum(first), {"learning_rate": 0.01, "momentum": 0.8}, name, mode, seed),
            figures=_table(labels, [start, *later], computed) + _table(labels, resting, at_rest, "at rest "),
        )

    return experiment


def adagrad_by_hand(*, name: str, mode: str, seed: int) -> SubjectResult:
    """Adagrad in two assignments; the accumulator is printed before the update."""
    rule = optimizers.Adagrad(0.6)
    w, state, computed = tf.constant(_START), rule.init(_START), []
    for _ in _printed.ADAGRAD_BY_HAND:
        gradient = 2 * (w - _TARGET)
        computed.append((w, gradient, state["accumulator"], tf.square(w - _TARGET)))
        w, state = rule.step(w, gradient, state)
    return SubjectResult(
        report=_report(optimizers.Adagrad, {"learning_rate": 0.6, "initial_accumulator_value": 0.0}, name, mode, seed),
        figures=_table(("w", "dl/dw", "accumulator", "l"), _printed.ADAGRAD_BY_HAND, computed),
    )


def gradient_descent_at_a_small_rate(*, name: str, mode: str, seed: int) -> SubjectResult:
    """A stretch of a longer run, whose start and rate are not printed: both follow from the gradients.

    From one row to the next the gradient shrinks by 1 - 2 η. That gives η = 0.033, while a comment in the document's
    code says 0.11; the figures win.
    """
    printed = _printed.SMALL_RATE
    gradients = [row[1] for row in printed]
    rate = (1 - (gradients[-1] / gradients[0]) ** (1 / (len(gradients) - 1))) / 2
    rule, w = optimizers.GradientDescent(rate), tf.constant(_TARGET + gradients[0] / 2)
    state, found = rule.init(w), [_rate_figure(rate)]
    for step, row in enumerate(printed):
        gradient, loss = 2 * (w - _TARGET), tf.square(w - _TARGET)
        w, state = rule.step(w, gradient, state)
        # Both runs round a weight near 3 at each step, and the rate is known from rounded gradients.
        off = (step + 2) * _STORED
        allowed = (off, 2 * off, abs(row[1]) * off)
        for label, number, value, most in zip(("w", "dl/dw", "l"), row, (w, gradient, loss), allowed, strict=True):
            found.append(figure(f"{label} at step {step}", number, value, allowed=most))
    report = _report(optimizers.GradientDescent, {"learning_rate": rate}, name, mode, seed)
    return SubjectResult(report=report, figures=tuple(found))


def _rate_figure(rate: float) -> Figure:
    return figure("learning rate that the gradients imply", 0.033, rate, allowed=0.033 * 1e-3)


def _momentum(first: str) -> Make:
    return lambda **numbers: optimizers.TwoAssignments(optimizers.Momentum(**numbers), first)


def _report(make: Make, numbers: dict[str, float], name: str, mode: str, seed: int) -> GradientReport:
    def loss(w: Any, **given: Any) -> Any:
        rule = make(**given)
        state = rule.init(w)
        for _ in range(_UNROLLED):
            w, state = rule.step(w, 2 * (w - _TARGET), state)
        return tf.square(w - _TARGET)

    inputs = {"w": np.float32(_START), **{key: np.float32(number) for key, number in numbers.items()}}
    return check_gradients(loss, inputs, forward=True, name=name, mode=mode, seed=seed)


def _descent(rule: Any, start: float, steps: int, velocity: float = 0.0) -> list[tuple[Any, Any, Any, Any]]:
    """w and g before each step, v between its two assignments, and the loss."""
    w, rows = tf.constant(start), []
    state = rule.init(w) | {"velocity": tf.constant(velocity)}
    for _ in range(steps):
        before, gradient = w, 2 * (w - _TARGET)
        w, state = rule.step(w, gradient, state)
        rows.append((before, gradient, state["velocity"], tf.square(before - _TARGET)))
    return rows


def _table(
    labels: Sequence[str], printed: Iterable[Sequence[float]], computed: Iterable[Sequence[Any]], where: str = ""
) -> tuple[Figure, ...]:
    found: list[Figure] = []
    for step, rows in enumerate(zip(printed, computed, strict=True)):
        found += figures([f"{label} {where}at step {step}" for label in labels], *rows)
    return tuple(found)
