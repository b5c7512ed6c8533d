"""Small defects found, and correct functions left in peace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck import GradientReport, Verdict, check_gradients

from .correct import CORRECT
from .outcome import Outcome, first_lines
from .outcome import text_of as text_of

ENTRIES = 1000
DEFECTS = ((np.float64, 1e-8), (np.float32, 1e-5))
MODES = ("auto", "directional")


def _square(x: Any) -> Any:
    return x * x


def _weighted_softmax(x: Any) -> Any:
    return tf.reduce_sum(tf.nn.softmax(x) * tf.cos(tf.range(ENTRIES, dtype=x.dtype)))


def _dense(x: Any) -> Any:
    weights = tf.reshape(tf.sin(tf.range(1.0, 1001.0, dtype=x.dtype)), [40, 25])
    return tf.tanh(tf.reshape(x, [25, 40]) @ weights / 6)


def _chain(x: Any) -> Any:
    return tf.reduce_sum(tf.tanh(tf.sin(x) * tf.roll(x, 1, 0)))


def _mean_of_exp(x: Any) -> Any:
    return tf.reduce_mean(tf.exp(x))


KINDS = {
    "square": _square,
    "weighted softmax": _weighted_softmax,
    "matmul and tanh": _dense,
    "chain": _chain,
    "mean of exp": _mean_of_exp,
}


def with_wrong_entry(fn: Callable[[Any], Any], entry: int, defect: float) -> Callable[[Any], Any]:
    """The function, with one entry of its gradient too large by a part of itself."""
    factors = np.ones(ENTRIES)
    factors[entry] += defect

    @tf.custom_gradient
    def wrong(x: Any) -> Any:
        def gradient(upstream: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = fn(x)
            return tape.gradient(y, x, output_gradients=upstream) * tf.constant(factors, x.dtype)

        return fn(x), gradient

    return wrong


def data(seed: int, dtype: Any) -> tuple[Any, int]:
    """Random input and the entry to falsify."""
    rng = np.random.default_rng([seed, 1])
    return (rng.uniform(0.5, 1.5, ENTRIES) * rng.choice([-1.0, 1.0], ENTRIES)).astype(dtype), int(rng.integers(ENTRIES))


@dataclass(slots=True)
class _Tally:
    found: int = 0
    named: int = 0
    alone: int = 0
    tries: int = 0


def run(*, quick: bool = False, seed: int = 0) -> Outcome:
    """300 defects in each dtype and mode, and 50 checks of every correct function; with `quick` 20 and 100 in all."""
    rows: list[tuple[Any, ...]] = []
    details: list[str] = []
    figures: dict[str, Any] = {}
    ok = True
    for dtype, defect in DEFECTS:
        for mode in MODES:
            tally = _defects(dtype, defect, mode, 20 if quick else 300, seed, details)
            ok &= tally.found == tally.named == tally.tries
            label = f"{dtype.__name__}, wrong by {defect:g}"
            rows.append((label, mode, tally.tries, tally.found, tally.named, tally.alone))
            figures[f"{dtype.__name__} {mode}"] = {
                "tries": tally.tries, "found": tally.found, "named": tally.named, "named alone": tally.alone,
            }  # fmt: skip
    checks, alarms, undecided = _peace(100 if quick else 50 * len(CORRECT), seed, details)
    figures["correct"] = {"checks": checks, "functions": len(CORRECT), "alarms": alarms, "undecided": undecided}
    rows.append((f"{len(CORRECT)} correct functions", "both", checks, alarms, "", ""))
    caught = ", ".join(f"{r[3]} of {r[2]} found and {r[4]} named ({r[0]}, {r[1]})" for r in rows[:-1])
    return Outcome(
        name="power",
        columns=("subject", "mode", "checks", "not ok", "entry named", "and no other"),
        rows=tuple(rows),
        summary=f"power: {caught}; {alarms} false alarms and {undecided} undecided in {checks} checks of "
        f"{len(CORRECT)} correct functions",
        ok=ok and alarms == 0,
        figures=figures,
        details=tuple(details),
    )


def _defects(dtype: Any, defect: float, mode: str, count: int, seed: int, details: list[str]) -> _Tally:
    tally = _Tally()
    kinds = list(KINDS.items())
    for k in range(count):
        kind, fn = kinds[k % len(kinds)]
        x, entry = data(seed + k, dtype)
        report = check_gradients(with_wrong_entry(fn, entry, defect), [x], mode=mode, seed=seed + k, name=kind)
        worst = report.worst
        found = worst is not None and worst.verdict is Verdict.MISMATCH
        named = found and worst.index == (entry,)
        tally.tries, tally.found, tally.named = tally.tries + 1, tally.found + found, tally.named + named
        tally.alone += named and worst.wrong == 1
        if not named:
            what = f"missed: {kind}, {dtype.__name__}, entry {entry} wrong by {defect:g}, mode {mode}, seed {seed + k}"
            details.append(_said(what, report))
    return tally


def _peace(count: int, seed: int, details: list[str]) -> tuple[int, int, int]:
    seen: Counter[str] = Counter()
    for k in range(count):
        number, turn = k % len(CORRECT), k // len(CORRECT)
        row = CORRECT[number]
        # Both dtypes in both modes come round every four turns; `quick` begins another turn for each function.
        dtype = (np.float64, np.float32)[(turn + number) % 2]
        mode = MODES[(turn + number) // 2 % 2]
        inputs = row.draw(np.random.default_rng([seed, number, turn]), dtype)
        report = check_gradients(row.fn, inputs, mode=mode, seed=seed + turn, name=row.name)
        kind = "" if report.ok else "undecided" if report.verdict is Verdict.INCONCLUSIVE else "alarm"
        seen[kind] += 1
        if kind:
            what = (
                f"{kind}: {row.name} (number {number}), {dtype.__name__}, turn {turn}, mode {mode}, seed {seed + turn}"
            )
            details.append(_said(what, report))
    return count, seen["alarm"], seen["undecided"]


def _said(what: str, report: GradientReport) -> str:
    return f"  {what}\n{first_lines(str(report))}"
