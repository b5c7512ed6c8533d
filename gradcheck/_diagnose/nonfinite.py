"""The op where a NaN or an infinity was born."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gradcheck._calls import explained
from gradcheck._diagnose.births import follow
from gradcheck._diagnose.describe import describe
from gradcheck._diagnose.parts import gradients_of, outputs_of
from gradcheck._errors import GraphUnavailable
from gradcheck._graph.evaluate import RUN_ERRORS
from gradcheck._graph.functions import trace_function
from gradcheck._graph.given import given
from gradcheck._graph.raised import lines_noted
from gradcheck._graph.rerun import Rerun, of_concrete, of_traced
from gradcheck._graph.trace import Traced
from gradcheck._report.nonfinite import NonfiniteReport


def of_values(
    traced: Traced, positions: Sequence[int], labels: Sequence[str], cotangents: Mapping[str, object]
) -> NonfiniteReport:
    """The report on some of the values that a traced program returns, which are not finite.

    Where the program cannot be run op by op, for it takes a data set's next element, say, the report has no op.

    Args:
        traced: The function.
        positions: Which of the values.
        labels: What to call them.
        cotangents: Values of the cotangent arguments.
    """
    try:
        return report_on(of_traced(traced, positions, labels, cotangents))
    except (GraphUnavailable, *RUN_ERRORS) as error:
        return NonfiniteReport(name=traced.name, ok=False, notes=(f"the op could not be located: {error}",))


@explained("inputs")
def find_nonfinite(fn: Callable[..., Any], inputs: Any) -> NonfiniteReport:
    """Where the first NaN or infinity in the values and gradients of a function is born.

    The function is traced, and its graph is run op by op: first for its outputs and, where these are finite, for their
    gradients with respect to every floating or complex input and every trainable variable that it reads (cotangents
    are ones). Nested functions, also those traced before or with `jit_compile=True`, the branch of a conditional that
    is taken, and each iteration of a loop are entered. A value that is not finite and never reaches an output or a
    gradient, such as the other branch of a `tf.where`, is no finding. The cause is told by the same graph in float64.
    What fn takes into Python, by `.numpy()`, `float` or an `if`, counts as a constant.

    Args:
        fn: Any Python callable, tf.function, Keras layer or model. Variables that it assigns keep their values.
        inputs: A list or tuple is positional arguments, a dict keyword arguments, anything else one argument: tensors,
            arrays and numbers of any shape and dtype. They may be NaN or infinite: then they are what is reported.

    Returns:
        A `NonfiniteReport`: `ok` where all is finite; else the op, the user's line, the values that went in, the cause
        and what to write instead.

    Raises:
        TypeError: If `fn` is not callable.
        ValueError: If it returns nothing of a floating or complex dtype.

    Example:
        >>> import gradcheck, tensorflow as tf
        >>> report = gradcheck.find_nonfinite(lambda x: tf.sqrt(x), tf.constant([4.0, 0.0]))
        >>> report.op_type, report.kind, report.index, report.cause
        ('SqrtGrad', '+Inf', (1,), 'singularity')
    """
    if not callable(fn):
        raise TypeError(
            f"fn must be callable, found {type(fn).__name__}; write find_nonfinite(fn, inputs) with the function that "
            "makes it; in a session, gradcheck.hooks.NonfiniteHook watches tensors of the graph"
        )
    traced = trace_function(fn, given(inputs), x_required=False, at_inputs=True)
    with lines_noted(traced.graph, traced.name):
        forward = outputs_of(traced)
        found = follow(forward)
        if found.birth is not None:
            return describe(forward, found)
        return report_on(gradients_of(traced, found.returned))


def report_on(rerun: Rerun, *, tests: bool = False, anywhere: bool = False) -> NonfiniteReport:
    """The report on a program run again; with `tests` and `anywhere` as `follow` takes them."""
    return describe(rerun, follow(rerun, tests=tests, anywhere=anywhere))


def locate(
    function: Any,
    arguments: Sequence[Any],
    variables: Mapping[Any, Any] | None = None,
    *,
    keywords: Mapping[str, Any] | None = None,
) -> NonfiniteReport:
    """The op of a traced training step where a NaN or an infinity is born; the step runs again, on copies.

    Nothing outside changes: variables (weights, slots, states of random generators, counters) are stood for by
    copies, assignments go there, and prints, summaries and assertions are left out.

    Args:
        function: A `tf.types.experimental.ConcreteFunction`, as `tf.function.get_concrete_function` gives it.
        arguments: The positional arguments of the call, in the structure that the function takes: what the user's
            call was given (of a method without self), or the flat tensors of `function.inputs` without the captured.
        variables: Values that variables had before the step, by `variable.ref()` of the `tf.Variable` (for one of
            Keras: `variable.value.ref()`); the others are taken as they are now.
        keywords: The keyword arguments of the call.

    Returns:
        The report; `ok` where nothing that the step returns or assigns, and nothing that it tests with
        `tf.math.is_finite` and the like, is NaN or infinite.

    Raises:
        TypeError, ValueError: If `function` is none, or `arguments` or `variables` do not fit it.
        GraphUnavailable: If the step takes values from outside that cannot be had again, such as a data set's next.
    """
    return report_on(of_concrete(function, arguments, keywords, variables), tests=True)
