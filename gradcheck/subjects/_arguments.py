"""What the arguments of `tf.gradients` mean: several ys, grad_ys, stop_gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck._check.gradients import check_gradients
from gradcheck._check.tf_gradients import check_tf_gradients
from gradcheck._graph.trace import Gradients
from gradcheck._results import Figure
from gradcheck.subjects._figures import figures, vector_figures
from gradcheck.subjects._session import new_session
from gradcheck.subjects._subject import Experiment, SubjectResult

_v1 = tf.compat.v1
_WS = ("dz/dw1", "dz/dw2", "dz/dw3", "dz/dw4")


def _two_sums(session: Any) -> tuple[list[Any], list[Any]]:
    start = _v1.random_uniform_initializer(-1.0, 1.0, seed=1)
    w1, w2, w3, w4 = ws = [_v1.get_variable(f"w{k}", shape=[3], initializer=start) for k in (1, 2, 3, 4)]
    z1 = 3 * w1 + 2 * w2 + w3
    z2 = -1 * w3 + w4
    session.run(_v1.global_variables_initializer())
    return [z1, z2], ws


def sum_over_ys(*, name: str, mode: str, seed: int) -> SubjectResult:
    """Two ys: their gradients add up."""
    with new_session() as session:
        zs, ws = _two_sums(session)
        report = check_tf_gradients(zs, ws, session=session, name=name, mode=mode, seed=seed)
        computed = session.run(tf.gradients(zs, ws))
    printed = [[3.0] * 3, [2.0] * 3, [0.0] * 3, [1.0] * 3]
    return SubjectResult(report=report, figures=vector_figures(_WS, printed, computed))


def grad_ys(*, name: str, mode: str, seed: int) -> SubjectResult:
    """The same ys, each weighted by a cotangent."""
    with new_session() as session:
        zs, ws = _two_sums(session)
        weights = [tf.constant([-2.0, -3.0, -4.0]), tf.constant([-2.0, -3.0, -4.0])]
        report = check_tf_gradients(zs, ws, grad_ys=weights, session=session, name=name, mode=mode, seed=seed)
        computed = session.run(tf.gradients(zs, ws, grad_ys=weights))
    printed = [[-6.0, -9.0, -12.0], [-4.0, -6.0, -8.0], [0.0, 0.0, 0.0], [-2.0, -3.0, -4.0]]
    return SubjectResult(report=report, figures=vector_figures(_WS, printed, computed))


def stopped() -> Gradients:
    """The document's a and b, both in stop_gradients."""
    a = tf.constant(0.0)
    b = 2 * a
    return Gradients(ys=a + b, xs=[a, b], stop_gradients=[a, b])


def unstopped() -> Gradients:
    """The same without stop_gradients: a reaches the sum through b too."""
    a = tf.constant(0.0)
    b = 2 * a
    return Gradients(ys=a + b, xs=[a, b])


def stopped_inside() -> Gradients:
    """The same with `tf.stop_gradient` around each, which the document calls equivalent."""
    a = tf.stop_gradient(tf.constant(0.0))
    b = tf.stop_gradient(2 * a)
    return Gradients(ys=a + b, xs=[a, b])


def on_a_graph(build: Callable[[], Gradients], printed: Sequence[float]) -> Experiment:
    """The experiment that checks a + b on a graph; `printed` are its gradients in the document."""

    def experiment(*, name: str, mode: str, seed: int) -> SubjectResult:
        with new_session() as session:
            asked = build()
            stops = asked.stop_gradients
            report = check_tf_gradients(
                asked.ys, asked.xs, stop_gradients=stops, session=session, name=name, mode=mode, seed=seed
            )
            return SubjectResult(report=report, figures=_a_and_b(asked, printed, session))

    return experiment


def returned_by_a_function(*, name: str, mode: str, seed: int) -> SubjectResult:
    """The function that returns what to differentiate: `check_gradients` instead of a graph."""

    def build(a: Any) -> Gradients:
        b = 2 * a
        return Gradients(ys=a + b, xs=[a, b], stop_gradients=[a, b])

    report = check_gradients(build, np.float32(0.0), name=name, mode=mode, seed=seed)
    with new_session() as session:
        return SubjectResult(report=report, figures=_a_and_b(build(tf.constant(0.0)), (1.0, 1.0), session))


def _a_and_b(asked: Gradients, printed: Sequence[float], session: Any) -> tuple[Figure, ...]:
    computed = session.run(tf.gradients(asked.ys, asked.xs, stop_gradients=asked.stop_gradients))
    return figures(("d(a+b)/da", "d(a+b)/db"), printed, computed)
