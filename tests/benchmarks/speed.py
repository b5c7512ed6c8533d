"""Time beside `tf.test.compute_gradient` in the same run, and beside the plain forward as inputs grow.

Ratios of medians, taken in turns, so that what slows the machine down slows all of them. Time decides nothing: the only
bound here is that the number of evaluations of a check is one and the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck import check_gradients

from .outcome import Outcome
from .outcome import text_of as text_of

MODES = ("jacobian", "elementwise", "directional", "auto")
TARGETS = {("jacobian", "cold"): 5, ("jacobian", "warm"): 15, ("elementwise", "cold"): 10, ("directional", "cold"): 15,
           ("directional", "warm"): 100}  # fmt: skip
ROUNDS = 5


def run(*, quick: bool = False, seed: int = 0) -> Outcome:
    """Two functions beside `tf.test.compute_gradient`, then sizes from 1e3 to 1e7; with `quick` one round, to 1e5."""
    rng = np.random.default_rng(seed)
    rounds = 1 if quick else ROUNDS
    dense = [rng.normal(size=(32, 64)), rng.normal(size=(64, 32)) / 8, rng.normal(size=32)]
    small = [rng.normal(size=(8, 16))]
    rows = _compared("tanh(x @ w + b)", _new_dense, dense, rounds, TARGETS)
    rows += _compared("softmax [8,16]", _new_softmax, small, 3 * rounds, {(mode, "cold"): 1 for mode in MODES})
    sizes = [_grown(10**k, rounds, rng) for k in range(3, 6 if quick else 8)]
    rows += [
        ("sum of tanh(x) x", "directional", f"n = {n:.0e}, {e} evaluations", s, p, s / e / p, "")
        for n, e, s, p in sizes
    ]
    counts = [e for _, e, _, _ in sizes]
    missed = [f"{r[0]} {r[1]} {r[2]}" for r in rows if r[-1] and r[5] < float(r[-1][2:])]
    return Outcome(
        name="speed",
        columns=("function", "mode", "how", "seconds", "beside", "ratio", "target"),
        rows=tuple(rows),
        summary=f"speed: targets missed: {', '.join(missed) or 'none'}; evaluations of the directional mode from 1e3 "
        f"entries on: {', '.join(map(str, counts))}; seconds per evaluation over the plain forward's: "
        f"{', '.join(f'{s / e / p:.1f}' for _, e, s, p in sizes)}",
        ok=len(set(counts)) == 1,
        figures={
            "evaluations": counts,
            "per_forward": [s / e / p for _, e, s, p in sizes],
            "missed": missed,
        },
    )  # fmt: skip


def _new_dense() -> Callable[..., Any]:
    return lambda x, w, b: tf.tanh(x @ w + b)


def _new_softmax() -> Callable[..., Any]:
    return lambda x: tf.nn.softmax(x)  # noqa: PLW0108 - a new function object, not TensorFlow's


def _compared(
    name: str,
    new: Callable[[], Callable[..., Any]],
    inputs: list[Any],
    rounds: int,
    targets: dict[tuple[str, str], int],
) -> list[tuple[Any, ...]]:
    """Seconds of `tf.test.compute_gradient` as parts of ours, cold (a new function each time) and warm (the same)."""
    kept = {mode: new() for mode in MODES}
    theirs_kept = new()
    for mode in MODES:  # once outside of all measurements: imports, TensorFlow's own caches, the first trace
        check_gradients(kept[mode], inputs, mode=mode)
    seconds: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for how in ("cold", "warm"):
            theirs = new() if how == "cold" else theirs_kept
            _timed(seconds, ("theirs", how), lambda fn: tf.test.compute_gradient(fn, inputs), theirs)
            for mode in MODES:
                ours = new() if how == "cold" else kept[mode]
                _timed(seconds, (mode, how), lambda fn, mode=mode: check_gradients(fn, inputs, mode=mode), ours)
    found = {key: median(values) for key, values in seconds.items()}
    return [
        (name, mode, how, found[mode, how], found["theirs", how], found["theirs", how] / found[mode, how],
         f">={targets[mode, how]}" if (mode, how) in targets else "")
        for how in ("cold", "warm")
        for mode in MODES
    ]  # fmt: skip


def _timed(
    seconds: dict[tuple[str, str], list[float]], key: tuple[str, str], call: Callable[..., Any], fn: Any
) -> None:
    started = time.perf_counter()
    call(fn)
    seconds.setdefault(key, []).append(time.perf_counter() - started)


def _forward(x: Any) -> Any:
    return tf.reduce_sum(tf.tanh(x) * x)


def _grown(n: int, rounds: int, rng: np.random.Generator) -> tuple[int, int, float, float]:
    """Entries, evaluations but for the picture's, seconds of a directional check and of one plain eager forward."""
    x = tf.constant(rng.normal(size=n))
    evaluations, checks, forwards = 0, [], []
    _forward(x)
    for _ in range(rounds):
        # As many forwards as take long enough to be measured.
        repeats = max(1, 10**6 // n)
        started = time.perf_counter()
        for _ in range(repeats):
            _forward(x).numpy()
        forwards.append((time.perf_counter() - started) / repeats)
        report = check_gradients(_forward, [x], mode="directional")
        drawn = len(report.taylor.steps) if report.taylor is not None else 0  # by the picture, which large inputs lack
        evaluations = report.cost.evaluations - drawn
        checks.append(report.cost.seconds)
    return n, evaluations, median(checks), median(forwards)
