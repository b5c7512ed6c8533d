"""The check of `tf.gradients` on tensors of a graph."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any

from gradcheck._calls import explained
from gradcheck._check.gradients import report, with_notes
from gradcheck._check.options import Options, called, options, required_executor
from gradcheck._check.run import run
from gradcheck._errors import GradientMismatch
from gradcheck._farm.spread import spread
from gradcheck._graph.evaluate import unconverted
from gradcheck._graph.graphs import trace_tensors
from gradcheck._graph.questions import name_of_tensors, question
from gradcheck._report.gradient import GradientReport


@unconverted  # it may be called where a tf.function is traced
@explained()
def check_tf_gradients(
    ys: Any,
    xs: Any,
    grad_ys: Any = None,
    *,
    stop_gradients: Any = None,
    unconnected_gradients: Any = "none",
    session: Any = None,
    feed_dict: Mapping[Any, Any] | None = None,
    mode: str = "auto",
    order: int = 1,
    rtol: float | None = None,
    directions: int = 4,
    seed: int = 0,
    executor: Executor | None = None,
    name: str | None = None,
) -> GradientReport:
    """Compare what `tf.gradients` gives for tensors of a graph with finite differences.

    What ys depend on is copied into a graph of gradcheck's own and checked there, at the values that the session and
    `feed_dict` give. The graph itself gets no op, so it may be finalized. Values are read in one run of the session;
    an op with a state of its own, such as an iterator, gives its next value to that run, which is then held.
    Random ops draw numbers of their own that stay the same throughout.

    Args:
        ys: A tensor or a list of them; the sum of several is differentiated, as `tf.gradients` does.
        xs: A tensor or variable, or a list of them: placeholders, variables, constants, intermediate tensors.
        grad_ys: None, or a list with one cotangent (or None, for ones) per y: numbers, arrays or tensors of the graph.
        stop_gradients: Tensors to hold still while xs move.
        unconnected_gradients: "none" or "zero".
        session: Where variables have their values; default the default session. Not needed where nothing is read.
        feed_dict: Values of placeholders, or of any other tensor of the graph, as for `Session.run`.
        mode, order, rtol, directions, seed, executor: As for `check_gradients`.
        name: What to call ys in the report; default their names.

    Returns:
        The report, with one finding per x.

    Raises:
        TypeError, ValueError: For misuse, before anything runs.
        GraphUnavailable: If a value that is needed cannot be read from here.

    Example:
        >>> import gradcheck, tensorflow as tf
        >>> with tf.Graph().as_default():
        ...     a = tf.constant(0.0)
        ...     b = 2 * a
        ...     report = gradcheck.check_tf_gradients(a + b, [a, b], stop_gradients=[a, b])
        >>> [finding.analytic for finding in report.findings]
        [1.0, 1.0]

    Reference: TensorFlow API documentation, `tf.gradients`.
    """
    opts = options(mode=mode, order=order, rtol=rtol, directions=directions, seed=seed)
    required_executor(executor)
    asked = question(
        ys, xs, grad_ys, stop_gradients=stop_gradients, unconnected_gradients=unconnected_gradients, session=session,
        feed_dict=feed_dict,
    )  # fmt: skip
    started = time.perf_counter()
    title = called(name, name_of_tensors(asked))
    with spread(executor) as noticed:
        traced = trace_tensors(asked, title)
        checked = [run(traced, opts)]
        if opts.order == 2 and not any(output.faults for output in traced.outputs):
            checked.append(run(trace_tensors(asked, f"gradient of {title}", order=2, seed=opts.seed), opts))
    given = {
        "grad_ys": grad_ys, "stop_gradients": stop_gradients, "session": session, "feed_dict": feed_dict,
    }  # fmt: skip
    found = report(title, checked, opts, traced.skipped, _again(given, asked.unconnected, opts), started)
    return with_notes(found, noticed)


@unconverted
@explained()
def assert_tf_gradients(
    ys: Any,
    xs: Any,
    grad_ys: Any = None,
    *,
    stop_gradients: Any = None,
    unconnected_gradients: Any = "none",
    session: Any = None,
    feed_dict: Mapping[Any, Any] | None = None,
    mode: str = "auto",
    order: int = 1,
    rtol: float | None = None,
    directions: int = 4,
    seed: int = 0,
    executor: Executor | None = None,
    name: str | None = None,
) -> GradientReport:
    """Check as `check_tf_gradients` does, with the same arguments, and raise unless the report is ok.

    Returns:
        The report.

    Raises:
        GradientMismatch: An AssertionError whose text is the report's, which it holds as `.report`.

    Example:
        >>> import gradcheck, tensorflow as tf
        >>> with tf.Graph().as_default():
        ...     x = tf.constant([0.5, 1.0])
        ...     gradcheck.assert_tf_gradients(tf.sin(x), x).verdict.name
        'MATCH'
    """
    __tracebackhide__ = True
    found = check_tf_gradients(
        ys, xs, grad_ys, stop_gradients=stop_gradients, unconnected_gradients=unconnected_gradients, session=session,
        feed_dict=feed_dict, mode=mode, order=order, rtol=rtol, directions=directions, seed=seed, executor=executor,
        name=name,
    )  # fmt: skip
    if not found.ok:
        raise GradientMismatch(found)
    return found


def _again(given: Mapping[str, Any], unconnected: str, opts: Options) -> str:
    """A line that repeats the check."""
    parts = ["ys", "xs", *(f"{key}={key}" for key, value in given.items() if value is not None)]
    if unconnected != "none":
        parts.append(f'unconnected_gradients="{unconnected}"')
    return f"check_tf_gradients({', '.join([*parts, *opts.changed()])}, seed={opts.seed})"
