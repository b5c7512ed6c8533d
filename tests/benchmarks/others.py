"""What other checkers get wrong, beside `tf.test.compute_gradient` in the same run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck import GradientReport, Verdict, check_gradients

from .outcome import Outcome, first_lines
from .outcome import text_of as text_of

f16, f32, f64, c64 = np.float16, np.float32, np.float64, np.complex64
bf16 = tf.bfloat16.as_numpy_dtype
MATCH, MISMATCH, NONSMOOTH = Verdict.MATCH, Verdict.MISMATCH, Verdict.NONSMOOTH
CUT, UNCONNECTED, NONDETERMINISTIC = Verdict.CUT, Verdict.UNCONNECTED, Verdict.NONDETERMINISTIC
ENTRIES, WRONG = 1000, 537


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A function that others judge wrongly, and the judgement it has earned.

    Attributes:
        name: What to call it.
        fn: The function.
        inputs: Its inputs, a list, or a dict of keyword arguments.
        verdict: Of the report.
        ok: Whether the report must be ok.
        index, x: Of the worst finding, where they must be named.
        held: Whether something must be listed as held.
    """

    name: str
    fn: Callable[..., Any]
    inputs: Any
    verdict: Verdict = MATCH
    ok: bool = True
    index: tuple[int, ...] | None = None
    x: str | None = None
    held: bool = False


def run(*, quick: bool = False, seed: int = 0) -> Outcome:
    """Judge every case; `quick` leaves out `tf.test.compute_gradient` where that takes seconds."""
    rows, details = [], []
    for case in cases():
        theirs = "(left out)" if quick and _size(case.inputs) > 100 else compute_gradient(case.fn, case.inputs)
        ours, right, said = _judge(case, seed)
        rows.append((case.name, theirs, ours, _judged(case.verdict, case.ok), right))
        if not right:
            details.append(f"  {case.name}:\n{first_lines(said, 9)}")
    good = sum(row[-1] for row in rows)
    return Outcome(
        name="others",
        columns=("case", "tf.test.compute_gradient: largest deviation", "gradcheck", "expected", "ok"),
        rows=tuple(rows),
        summary=f"others: {good} of {len(rows)} cases judged as they must be",
        ok=good == len(rows),
        figures={"cases": len(rows), "right": good},
        details=tuple(details),
    )


def _judge(case: Case, seed: int) -> tuple[str, bool, str]:
    """Our verdict, whether it is right, and the report's text; an error is a wrong verdict."""
    try:
        report = check_gradients(case.fn, case.inputs, seed=seed, name="f")
    except Exception as error:
        return type(error).__name__, False, str(error)[:500]
    return _judged(report.verdict, report.ok), is_as_expected(case, report), str(report)


def is_as_expected(case: Case, report: GradientReport) -> bool:
    """Whether verdict, and what must be named, are those of the case."""
    worst = report.worst
    if worst is None or (report.verdict, report.ok) != (case.verdict, case.ok):
        return False
    return (
        (case.index is None or worst.index == case.index)
        and (case.x is None or worst.x == case.x)
        and (not case.held or bool(worst.held))
    )


def compute_gradient(fn: Callable[..., Any], inputs: Any) -> str:
    """What `tf.test.compute_gradient` makes of it: deviation relative to the largest derivative, or an error."""
    x = list(inputs.values()) if isinstance(inputs, dict) else list(inputs)
    try:
        analytic, numeric = tf.test.compute_gradient(_positional(fn, inputs), x)
    except Exception as error:
        return type(error).__name__
    return f"{max(map(_deviation, analytic, numeric), default=0.0):.1e}"


def _positional(fn: Callable[..., Any], inputs: Any) -> Callable[..., Any]:
    return (lambda *args: fn(**dict(zip(inputs, args, strict=True)))) if isinstance(inputs, dict) else fn


def _deviation(analytic: Any, numeric: Any) -> float:
    wide = np.complex128 if analytic.dtype.kind == "c" else np.float64
    analytic, numeric = np.asarray(analytic, wide), np.asarray(numeric, wide)
    largest = max(np.abs(analytic).max(initial=0.0), np.abs(numeric).max(initial=0.0))
    return float(np.abs(analytic - numeric).max(initial=0.0) / largest) if largest else 0.0


def _judged(verdict: Verdict, ok: bool) -> str:
    return verdict.name if ok == (verdict in (MATCH, UNCONNECTED)) else f"{verdict.name}, {'ok' if ok else 'not ok'}"


def _size(inputs: Any) -> int:
    values: Sequence[Any] = tuple(inputs.values()) if isinstance(inputs, dict) else inputs
    return max(int(np.size(v)) for v in values)


# ------------------------------------------------------------------------------------------------- functions


def _square(x: Any) -> Any:
    return x * x


def _times(factor: float, scale: float = 1.0) -> Callable[[Any], Any]:
    """scale x^2 with a gradient that is `factor` times the right one."""

    @tf.custom_gradient
    def square(x: Any) -> Any:
        return scale * x * x, lambda up: up * scale * factor * 2 * x

    return square


def _one_wrong(factor: float) -> Callable[[Any], Any]:
    factors = np.ones(ENTRIES)
    factors[WRONG] = factor

    @tf.custom_gradient
    def square(x: Any) -> Any:
        return x * x, lambda up: up * 2 * x * tf.constant(factors, x.dtype)

    return square


def _stopped(x: Any) -> Any:
    return x * tf.stop_gradient(tf.sin(x))


def _independent(x: Any, y: Any) -> Any:
    return x * x + 0.0 * tf.cast(tf.size(y), x.dtype)


def _rounded(x: Any) -> Any:
    return tf.round(10 * x) * 0.1 + tf.constant(1.0, x.dtype)


def _doubled_in_numpy(x: Any) -> Any:
    return tf.reshape(tf.numpy_function(lambda v: 2 * v, [x], tf.float64), x.shape)


def _rows(ids: Any, x: Any) -> Any:
    return tf.sin(tf.gather(x, ids))


def _pair(x: Any) -> Any:
    return tf.sin(x), tf.exp(x)


def _named(x: Any) -> Any:
    return {"sin": tf.sin(x["a"]), "product": x["a"] * x["b"]}


def _keywords(a: Any, b: Any) -> Any:
    return tf.sin(a) * b


def _gathered(x: Any) -> Any:
    return tf.gather(x, [0, 2, 2])


def _closure(factor: float) -> Callable[[Any], Any]:
    weight = tf.Variable([0.5, -1.5, 2.0], dtype=tf.float64, name="weight")
    square = _times(factor)
    return lambda x: x * square(weight)


def _drawn_in_python(x: Any) -> Any:
    noise = tf.py_function(lambda: np.random.normal(size=3), [], tf.float64)
    return x * tf.reshape(noise, [3])


def _drawn_in_tensorflow(x: Any) -> Any:
    return x * tf.random.normal(x.shape, dtype=x.dtype)


def cases() -> tuple[Case, ...]:
    """All of them, made anew."""
    rng = np.random.default_rng(0)
    three, many = rng.normal(size=3), rng.uniform(0.5, 1.5, ENTRIES)
    return (
        Case(name="float32 x^2 at 1e5", fn=_square, inputs=[np.array([1e5], f32)]),
        Case(name="float32 x^2 at 1e3", fn=_square, inputs=[np.array([1e3], f32)]),
        Case(name="bfloat16 x^2 at 1", fn=_square, inputs=[np.array([1.0], bf16)]),
        Case(name="float16 x^2 at 1.3", fn=_square, inputs=[np.array([1.3], f16)]),
        Case(name="float16 sin", fn=tf.sin, inputs=[three.astype(f16)]),
        Case(name="bfloat16 sin", fn=tf.sin, inputs=[three.astype(bf16)]),
        Case(name="float16 sin, factor 1.05", fn=lambda x: _times(1.05)(tf.sin(x)), inputs=[three.astype(f16)],
             verdict=MISMATCH, ok=False),
        Case(name="relu at 0", fn=tf.nn.relu, inputs=[np.array([0.0])], verdict=NONSMOOTH),
        Case(name="relu at 0, float32", fn=tf.nn.relu, inputs=[np.array([0.0, 1.0], f32)], verdict=NONSMOOTH),
        Case(name="relu 1e-4 from 0", fn=tf.nn.relu, inputs=[np.array([1e-4, -1e-4])]),
        Case(name="relu 1e-8 from 0, float32", fn=tf.nn.relu, inputs=[np.array([1e-8, -1e-8], f32)]),
        Case(name="relu(x) - relu(-x) at 0, gradient 0", fn=lambda x: tf.nn.relu(x) - tf.nn.relu(-x),
             inputs=[np.array([0.0])], verdict=CUT, ok=False),
        Case(name="stop_gradient inside", fn=_stopped, inputs=[three], held=True),
        Case(name="stop_gradient inside, float32", fn=_stopped, inputs=[three.astype(f32)], held=True),
        Case(name="None, and independent", fn=_independent, inputs=[three, three + 1]),
        Case(name="constant output", fn=lambda x: tf.ones([2], tf.float64), inputs=[three], verdict=UNCONNECTED),
        Case(name="None, cut by numpy_function", fn=_doubled_in_numpy, inputs=[three], verdict=CUT, ok=False),
        Case(name="None, cut by round", fn=_rounded, inputs=[three], verdict=CUT, ok=False),
        Case(name="int input", fn=_rows, inputs=[np.array([0, 2, 2]), three]),
        Case(name="tuple output", fn=_pair, inputs=[three]),
        Case(name="dict in and out", fn=_named, inputs=[{"a": three, "b": three + 1}]),
        Case(name="keyword inputs", fn=_keywords, inputs={"a": three, "b": three + 1}),
        Case(name="float64 scalar of NumPy", fn=lambda x: x * tf.constant(2.0, tf.float64), inputs=[np.float64(1.3)]),
        Case(name="complex gather", fn=_gathered, inputs=[(three + 1j * three[::-1]).astype(c64)]),
        Case(name="1 of 1,000 wrong by 100 %", fn=_one_wrong(2.0), inputs=[many], verdict=MISMATCH,
             ok=False, index=(WRONG,)),
        Case(name="1 of 1,000 wrong by 10 %", fn=_one_wrong(1.1), inputs=[many], verdict=MISMATCH,
             ok=False, index=(WRONG,)),
        Case(name="1 of 1,000 wrong by 10 %, float32", fn=_one_wrong(1.1), inputs=[many.astype(f32)], verdict=MISMATCH,
             ok=False, index=(WRONG,)),
        Case(name="right closure variable", fn=_closure(1.0), inputs=[three]),
        Case(name="wrong closure variable", fn=_closure(1.5), inputs=[three], verdict=MISMATCH, ok=False, x="weight"),
        Case(name="random, drawn in Python", fn=_drawn_in_python, inputs=[three], verdict=NONDETERMINISTIC, ok=False),
        Case(name="random, drawn in TensorFlow", fn=_drawn_in_tensorflow, inputs=[three], held=True),
        Case(name="sin(3000x)", fn=lambda x: tf.sin(3000 * x), inputs=[three]),
        Case(name="sin(50x)", fn=lambda x: tf.sin(50 * x), inputs=[three]),
        Case(name="sin(50x), float32", fn=lambda x: tf.sin(50 * x), inputs=[three.astype(f32)]),
        Case(name="x of 1e-8", fn=lambda x: tf.sin(1e8 * x), inputs=[1e-8 * three]),
        Case(name="x^2 at 1e-8", fn=_square, inputs=[1e-8 * three]),
        Case(name="x^2 at 1e-8, factor 2", fn=_times(2.0), inputs=[1e-8 * three], verdict=MISMATCH, ok=False),
        Case(name="x of 1e8", fn=lambda x: tf.sin(1e-8 * x), inputs=[1e8 * three]),
        Case(name="x^2 at 1e9", fn=_square, inputs=[1e9 * three]),
        Case(name="f scaled by 1e-6", fn=lambda x: 1e-6 * x * x, inputs=[three]),
        Case(name="f scaled by 1e-6, gradient 0", fn=_times(0.0, scale=1e-6), inputs=[three],
             verdict=CUT, ok=False),
        Case(name="f scaled by 1e-6, wrong by 1e-6", fn=_times(1 + 1e-6, scale=1e-6), inputs=[three],
             verdict=MISMATCH, ok=False),
        Case(name="f scaled by 1e9", fn=lambda x: 1e9 * tf.sin(x), inputs=[three]),
        Case(name="f scaled by 1e9, float32", fn=lambda x: 1e9 * tf.sin(x), inputs=[three.astype(f32)]),
        Case(name="large constant, small term", fn=lambda x: 1e6 + 1e-3 * tf.sin(x), inputs=[three]),
        Case(name="large constant, small term, float32", fn=lambda x: 1e6 + 1e-3 * tf.sin(x),
             inputs=[three.astype(f32)]),
        Case(name="linear, float32", fn=lambda x: 3.0 * x, inputs=[three.astype(f32)]),
        Case(name="log of -1", fn=tf.math.log, inputs=[np.array([-1.0, 1.0])], verdict=Verdict.NONFINITE, ok=False),
    )  # fmt: skip
