"""The losses that the document descends: a line through noisy points, and one weight."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck._check.tf_gradients import check_tf_gradients
from gradcheck._results import Figure
from gradcheck.subjects._figures import figure, figures
from gradcheck.subjects._session import new_session
from gradcheck.subjects._subject import SubjectResult
from gradcheck.tensorboard.v1 import gradient_summaries

_v1 = tf.compat.v1
_EXAMPLES = 32
# What the document prints for epochs 0, 1 and 2: the loss, and its gradient with respect to w.
_EPOCHS = ((94.6083221436, -187.66052), (1.52120530605, 3.0984864), (101.41834259, 241.91911))
_RATE = 0.01
_NOISE = 0.1  # standard deviation of what it adds to 3x + 2, and to the integers x
_DEVIATIONS = 4  # exceeded by chance once in 16000
_FROM_FIGURES = 1e-6  # of a gradient: its residual is a small difference of float32 numbers up to 300

_LINE = {"slope of the line behind epochs 0 to 2": 3.0, "intercept of the line behind epochs 0 to 2": 2.0}

# w, its gradient and the loss before each update at learning rate 1, as the document prints them.
_STEPS = ((2.0, -2.0, 1.0), (4.0, 2.0, 1.0), (2.0, -2.0, 1.0), (4.0, 2.0, 1.0), (2.0, -2.0, 1.0))


def _regression() -> tuple[Any, ...]:
    """The document's graph: its two placeholders, the slope and the intercept, and the loss."""
    x_input = _v1.placeholder(tf.float32, name="x_input")
    y_input = _v1.placeholder(tf.float32, name="y_input")
    w, b = _v1.get_variable("weight", initializer=2.0), _v1.get_variable("biases", initializer=1.0)
    y = tf.add(tf.multiply(x_input, w), b)
    return x_input, y_input, w, b, tf.reduce_sum(tf.pow(y_input - y, 2)) / (2 * _EXAMPLES)


def linear_regression(*, name: str, mode: str, seed: int) -> SubjectResult:
    """A line fitted to noisy points of 3x + 2, where the document starts; the data is ours, from a fixed seed."""
    rng = np.random.default_rng(0)
    exact = rng.integers(-10, 100, _EXAMPLES)
    x_train = exact + rng.normal(size=_EXAMPLES) / 10
    y_train = 3 * exact + 2 + rng.normal(size=_EXAMPLES) / 10
    with new_session() as session:
        x_input, y_input, w, b, loss = _regression()
        session.run(_v1.global_variables_initializer())
        feed = {x_input: x_train, y_input: y_train}
        report = check_tf_gradients(loss, [w, b], session=session, feed_dict=feed, name=name, mode=mode, seed=seed)
    return SubjectResult(report=report, figures=_line_behind_the_epochs())


def _line_behind_the_epochs() -> tuple[Figure, ...]:
    """The line 3x + 2, found again in what the document prints for three epochs on its random data.

    Without noise x is the nearest integer. How far the line through three such points may be off follows from the
    noise of y.
    """
    points = [(round(x), y) for x, y in _examples_behind_the_epochs()]
    xs = np.array([[x, 1.0] for x, _ in points])
    line = np.linalg.lstsq(xs, np.array([y for _, y in points]), rcond=None)[0]
    allowed = _DEVIATIONS * _NOISE * np.sqrt(np.diag(np.linalg.inv(xs.T @ xs)))
    return tuple(
        Figure(label=label, printed=number, computed=float(value), ok=bool(abs(value - number) <= limit))
        for label, number, value, limit in zip(_LINE, _LINE.values(), line, allowed, strict=True)
    )


def _examples_behind_the_epochs() -> list[tuple[float, float]]:
    """x and y of the example that each of the three epochs shows.

    Its loss is r^2 / 64 and its gradient -r x / 32 with r = y - (w x + b): that gives x and y but for a common sign,
    which is taken as fits the line better, and then w and b for the next epoch.
    """
    w, b, found = 2.0, 1.0, []
    for loss, gradient in _EPOCHS:
        size = math.sqrt(2 * _EXAMPLES * loss)
        both = [(-_EXAMPLES * gradient / r, r) for r in (size, -size)]
        x, r = min(both, key=lambda xr: abs((w - 3) * xr[0] + (b - 2) + xr[1]))
        found.append((x, w * x + b + r))
        w, b = w - _RATE * gradient, b + _RATE * r / _EXAMPLES
    return found


def norm_grads(*, name: str, mode: str, seed: int) -> SubjectResult:
    """The gradient's norm and histogram as summaries, in the lines that the document has commented out.

    They are read back from the merged summary while the graph trains on the examples behind the printed epochs.
    """
    with new_session() as session:
        x_input, y_input, w, b, loss = _regression()
        gradients_node = tf.gradients(loss, w)
        gradient_summaries(gradients_node, ["norm_grads"])
        merged = _v1.summary.merge_all()
        train = _v1.train.GradientDescentOptimizer(_RATE).minimize(loss)
        session.run(_v1.global_variables_initializer())
        report, found = None, list[Figure]()
        for epoch, ((_, printed), example) in enumerate(zip(_EPOCHS, _examples_behind_the_epochs(), strict=True)):
            feed = dict(zip((x_input, y_input), example, strict=True))
            report = report or check_tf_gradients(
                loss, [w, b], session=session, feed_dict=feed, name=name, mode=mode, seed=seed
            )
            values = {v.tag: v.tensor for v in _v1.Summary.FromString(session.run(merged, feed)).value}
            norm = tf.make_ndarray(values["gradient_norm/norm_grads"])
            buckets = tf.make_ndarray(values["gradients/norm_grads"])
            # The examples are only as exact as the rounded figures that they are taken from.
            found.append(
                figure(f"norm_grads at epoch {epoch}", abs(printed), norm, allowed=abs(printed) * _FROM_FIGURES)
            )
            found.append(figure(f"gradients in the histogram of epoch {epoch}", 1, buckets[:, 2].sum()))
            session.run(train, feed)
    assert report is not None
    return SubjectResult(report=report, figures=tuple(found))


def one_weight_loss(*, name: str, mode: str, seed: int) -> SubjectResult:
    """The loss (w x - y)^2 at the document's start, and its five steps, which go to and fro."""
    with new_session() as session:
        y = tf.constant(3, dtype=tf.float32)
        x = _v1.placeholder(dtype=tf.float32)
        w = _v1.get_variable("w", initializer=2.0)
        loss = tf.square(w * x - y)
        gradient = tf.gradients(loss, w)[0]
        update = _v1.assign(w, w - tf.constant(1, dtype=tf.float32) * gradient)
        session.run(_v1.global_variables_initializer())
        feed = {x: 1}
        report = check_tf_gradients(loss, w, session=session, feed_dict=feed, name=name, mode=mode, seed=seed)
        found: list[Figure] = []
        for step, printed in enumerate(_STEPS):
            labels = (f"{what} at step {step}" for what in ("w", "dl/dw", "l"))
            found += figures(labels, printed, session.run([w, gradient, loss], feed))
            session.run(update, feed)
    return SubjectResult(report=report, figures=tuple(found))
