"""The check of a callable's gradients."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from gradcheck._calls import explained
from gradcheck._check.blame import blame_surrogate
from gradcheck._check.modes import compare_modes
from gradcheck._check.options import Options, called, options, required_executor
from gradcheck._check.run import Checked, run
from gradcheck._check.symmetry import asymmetry
from gradcheck._check.work import eps_of
from gradcheck._errors import GradientMismatch
from gradcheck._farm.spread import spread
from gradcheck._graph.functions import name_of, trace_function
from gradcheck._graph.given import given
from gradcheck._graph.reads import kept_variables
from gradcheck._graph.trace import Traced
from gradcheck._report.gradient import Cost, GradientReport
from gradcheck._results import Verdict


@explained("inputs")
def check_gradients(
    fn: Callable[..., Any],
    inputs: Any,
    *,
    grad_ys: Any = None,
    wrt: Any = None,
    mode: str = "auto",
    order: int = 1,
    rtol: float | None = None,
    directions: int = 4,
    seed: int = 0,
    forward: bool = False,
    surrogate: Callable[..., Any] | None = None,
    executor: Executor | None = None,
    name: str | None = None,
) -> GradientReport:
    """Compare the gradients that TensorFlow computes for a function with finite differences.

    The function is traced once. Its gradient is compared with differences of its float64 twin that come with an
    error bar, so that the answer is a verdict and not a matter of tolerances. What `tf.stop_gradient` and random ops
    give is held still while the inputs move.

    Args:
        fn: Any callable, `tf.function`, Keras layer or model; may return a tensor, any structure of tensors, or a
            `Gradients`.
        inputs: A list or tuple is positional arguments, a dict keyword arguments, anything else one argument; [] is for
            a function without arguments, which is checked by the variables that it reads.
            Tensors, arrays, variables, numbers and nested structures of them; a list of floats inside is an array,
            as in `tf.constant`; integers, bools and strings pass through.
        grad_ys: Cotangents in the structure of the outputs (None for an output without one); default random signs,
            drawn by `seed`.
        wrt: None for every floating or complex input and every trainable variable that fn reads; "inputs"; or paths
            such as "inputs[0]" (all that is inside of it), keys of dict inputs, tensors or variables, one or a list.
        mode: "directional": a few random directions, whatever the size. "elementwise": every entry of every input,
            against one gradient. "jacobian": every output entry too. "auto": the most thorough that fits a budget.
        order: 2 also checks the gradient of the gradient.
        rtol: Relative difference to tolerate beyond errors and rounding; default a few units of rounding. With rtol,
            a numeric error above it is inconclusive.
        directions: How many random directions.
        seed: Of directions and cotangents. The same seed gives the same report.
        forward: Also compare with forward mode (`tf.autodiff.ForwardAccumulator`).
        surrogate: A function with the arguments and the form of the outputs of fn whose derivative the gradient of fn
            is meant to be, such as the identity for a straight-through estimator. Default fn itself.
        executor: Runs the function at many points in other threads, processes or machines, with the same report: any
            `concurrent.futures.Executor`, such as what Dask's `client.get_executor()` gives. The graph goes to its
            workers as serialized functions and arrays; what holds a Python function runs here, and is noted.
        name: What to call the function in the report.

    Returns:
        The report; `report.ok` or `bool(report)` says whether all is well, `str(report)` why not.

    Raises:
        TypeError, ValueError: For misuse, before anything is computed. What fn raises comes through.
        RuntimeError: If workers of the executor cannot compute as this process does, or are lost again and again.

    Example:
        >>> import gradcheck, tensorflow as tf
        >>> report = gradcheck.check_gradients(tf.sin, tf.constant([0.5, 1.0]))
        >>> report.ok
        True

    Reference: Moré and Wild, Estimating computational noise, SIAM J. Sci. Comput. 33 (2011), for the noise of the
    samples; docs/numerics.md for the method.
    """
    opts = options(mode=mode, order=order, rtol=rtol, directions=directions, seed=seed, forward=forward)
    if not callable(fn):
        raise TypeError(
            f"fn must be callable, got {type(fn).__name__}; for tensors of a graph call check_tf_gradients(ys, xs)"
        )
    _refuse_odd_surrogate(surrogate, opts)
    required_executor(executor)
    started = time.perf_counter()
    title = called(name, name_of(fn))
    line = again(title, grad_ys, wrt, surrogate, opts)
    inputs = given(inputs)
    with spread(executor) as noticed:
        found = checked(fn, inputs, opts, title, line, started, grad_ys=grad_ys, wrt=wrt, surrogate=surrogate)
    return with_notes(found, noticed)


def checked(
    fn: Callable[..., Any], inputs: Any, opts: Options, title: str, line: str, started: float, **asked: Any
) -> GradientReport:
    """The report on a callable, traced and checked.

    Args:
        fn: What is checked.
        inputs: Its arguments.
        opts: What the user asked for.
        title: What to call it.
        line: What repeats the check.
        started: When it began.
        asked: Further arguments of `trace_function`.
    """
    traced = trace_function(fn, inputs, name=title, **asked)
    # A function that runs in Python may assign variables whenever it runs.
    with kept_variables(fn, inputs) if traced.notes or opts.forward else nullcontext():
        parts = [run(traced, opts, blaming=asked.get("surrogate") is None)]
        if asked.get("surrogate") is not None:
            plain = trace_function(fn, inputs, name=title, **{**asked, "surrogate": None})
            parts = [_behind_surrogate(traced, plain, parts[0], opts)]
        if opts.order == 2 and not any(output.faults for output in traced.outputs):
            name = f"gradient of {title}"
            second = trace_function(fn, inputs, name=name, order=2, seed=opts.seed, **asked)
            found = run(second, replace(opts, second=True))
            parts.append(_with_symmetry(found, second, opts) if all(f.ok for f in parts[0].findings) else found)
        if opts.forward:
            variables = asked["variables"]() if asked.get("variables") else ()
            findings, notes = compare_modes(fn, inputs, opts.seed, _narrowest(traced), variables)
            parts.append(replace(parts[0], findings=tuple(findings), notes=tuple(notes), evaluations=1, gradients=1))
    return report(title, parts, opts, traced.skipped, line, started)


def _with_symmetry(found: Checked, second: Traced, opts: Options) -> Checked:
    """What was found of second derivatives, with a finding of its own where they are not symmetric."""
    if any(f.verdict in (Verdict.NONFINITE, Verdict.NONDETERMINISTIC) for f in found.findings):
        return found
    odd = asymmetry(second, opts)
    return found if odd is None else replace(found, findings=(*found.findings, odd))


def _behind_surrogate(traced: Traced, plain: Traced, found: Checked, opts: Options) -> Checked:
    """What was found against a surrogate, with what the function itself has in place of its own gradient."""
    pairs = [(a, x) for a in range(len(traced.outputs)) for x in range(len(traced.sources))]
    findings = dict(zip(pairs, found.findings, strict=True))
    blame_surrogate(plain, opts, findings, lambda unit, options: run(unit, options, blaming=False).findings)
    return replace(found, findings=tuple(findings.values()))


def _refuse_odd_surrogate(surrogate: Any, opts: Options) -> None:
    if surrogate is None:
        return
    if not callable(surrogate):
        raise TypeError(f"surrogate must be callable or None, got {type(surrogate).__name__}; write lambda x: x")
    if opts.order == 2 or opts.forward:
        option = "order=2" if opts.order == 2 else "forward=True"
        raise ValueError(f"surrogate stands for the first reverse derivative only; leave {option} out")


def _narrowest(traced: Traced) -> str:
    return max((s.dtype.name for s in traced.sources), key=eps_of, default="float64")


@explained("inputs")
def assert_gradients(
    fn: Callable[..., Any],
    inputs: Any,
    *,
    grad_ys: Any = None,
    wrt: Any = None,
    mode: str = "auto",
    order: int = 1,
    rtol: float | None = None,
    directions: int = 4,
    seed: int = 0,
    forward: bool = False,
    surrogate: Callable[..., Any] | None = None,
    executor: Executor | None = None,
    name: str | None = None,
) -> GradientReport:
    """Check as `check_gradients` does, with the same arguments, and raise unless the report is ok.

    Returns:
        The report.

    Raises:
        GradientMismatch: An AssertionError whose text is the report's, which it holds as `.report`.

    Example:
        >>> import gradcheck, tensorflow as tf
        >>> gradcheck.assert_gradients(lambda x: x**3, tf.constant(2.0)).verdict.name
        'MATCH'
    """
    __tracebackhide__ = True
    found = check_gradients(
        fn, inputs, grad_ys=grad_ys, wrt=wrt, mode=mode, order=order, rtol=rtol, directions=directions, seed=seed,
        forward=forward, surrogate=surrogate, executor=executor, name=name,
    )  # fmt: skip
    if not found.ok:
        raise GradientMismatch(found)
    return found


def report(
    name: str, parts: list[Checked], opts: Options, skipped: tuple[str, ...], line: str, started: float
) -> GradientReport:
    """The report of one or two orders of a check."""
    return GradientReport(
        name=name,
        findings=tuple(f for c in parts for f in c.findings),
        mode=parts[0].mode,
        seed=opts.seed,
        order=opts.order,
        cost=Cost(
            evaluations=sum(c.evaluations for c in parts),
            gradients=sum(c.gradients for c in parts),
            seconds=time.perf_counter() - started,
        ),
        again=line,
        notes=tuple(dict.fromkeys(n for c in parts for n in c.notes)),
        skipped=skipped,
        unpromoted=tuple(dict.fromkeys(u for c in parts for u in c.unpromoted)),
        taylor=parts[0].taylor,
    )


def with_notes(found: GradientReport, notes: Sequence[str]) -> GradientReport:
    """The report with further notes."""
    return replace(found, notes=(*found.notes, *notes)) if notes else found


def again(title: str, grad_ys: Any, wrt: Any, surrogate: Any, opts: Options) -> str:
    """A line that repeats the check."""
    parts = [title if title.isidentifier() else "fn", "inputs"]
    if grad_ys is not None:
        parts.append("grad_ys=grad_ys")
    if wrt is not None:
        parts.append(f"wrt={wrt!r}" if isinstance(wrt, str) else "wrt=wrt")
    if surrogate is not None:
        parts.append("surrogate=surrogate")
    return f"check_gradients({', '.join([*parts, *opts.changed()])}, seed={opts.seed})"
