"""TensorFlow's and Keras' optimizers beside the rules, and explanations of what was planted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck import OptimizerReport, compare_optimizers, optimizers

from .outcome import Outcome, first_lines
from .outcome import text_of as text_of

_keras, _v1 = tf.keras.optimizers, tf.compat.v1.train
_STEPS, _PLANTED_STEPS, _QUICK = 1000, 60, 30


def agreeing() -> Iterator[tuple[str, Any, Any]]:
    """Optimizers, each with the rule that it is documented to follow."""
    rules = optimizers
    yield "v1 GradientDescent", _v1.GradientDescentOptimizer(0.05), rules.GradientDescent(0.05)
    yield "v1 Momentum", _v1.MomentumOptimizer(0.05, 0.9), rules.Momentum(0.05, 0.9)
    nesterov = rules.Momentum(0.05, 0.9, nesterov=True)
    yield "v1 Nesterov", _v1.MomentumOptimizer(0.05, 0.9, use_nesterov=True), nesterov
    yield "v1 Adagrad", _v1.AdagradOptimizer(0.05), rules.Adagrad(0.05, 0.1, 0.0)
    v1_rmsprop = rules.RMSProp(0.001, epsilon=1e-10, initial_accumulator_value=1.0)
    yield "v1 RMSProp", _v1.RMSPropOptimizer(0.001), v1_rmsprop
    yield "v1 Adam", _v1.AdamOptimizer(0.001), rules.Adam(0.001, epsilon=1e-8)
    yield "Keras SGD", _keras.SGD(0.05), rules.GradientDescent(0.05)
    yield "Keras Momentum", _keras.SGD(0.05, momentum=0.9), rules.Momentum(0.05, 0.9)
    yield "Keras Nesterov", _keras.SGD(0.05, momentum=0.9, nesterov=True), nesterov
    yield "Keras Adagrad", _keras.Adagrad(0.05), rules.Adagrad(0.05, 0.1, 1e-7, epsilon_in="root")
    yield "Keras RMSprop", _keras.RMSprop(0.001), rules.RMSProp(0.001)
    yield "Keras Adam", _keras.Adam(0.001), rules.Adam(0.001)
    yield "Keras AdamW", _keras.AdamW(0.001), rules.AdamW(0.001)


def planted(rng: np.random.Generator) -> Iterator[tuple[str, Any, Any, str]]:
    """Optimizers with one deviation each, of a random size, their reference, and a part of what explains it."""

    def drawn(low: float, high: float) -> float:
        return float(f"{np.exp(rng.uniform(np.log(low), np.log(high))):.3g}")

    rules, x = optimizers, drawn(0.01, 0.5)
    yield "initial accumulator", rules.Adagrad(0.1, x), rules.Adagrad(0.1), f"initial accumulator {x:g} instead of 0"
    inside, outside = rules.Adagrad(0.1, 0.1, 1e-2, epsilon_in="root"), rules.Adagrad(0.1, 0.1, 1e-2)
    yield "epsilon in the root", inside, outside, "epsilon in the root instead of the denominator"
    schedule = rules.ExponentialDecay(0.05, drawn(0.8, 0.95))
    other = rules.Momentum(schedule, 0.8, learning_rate_in="update")
    yield "rate outside", other, rules.Momentum(schedule, 0.8), "the learning rate in the update of momentum"
    classical = rules.Momentum(0.05, 0.8)
    yield "Nesterov", _keras.SGD(0.05, momentum=0.8, nesterov=True), classical, "Nesterov's momentum"
    x = drawn(0.1, 0.7)
    yield "dampening", rules.Momentum(0.05, 0.8, dampening=x), classical, f"dampening {x:g} instead of 0"
    yield "bias correction", rules.Adam(0.01, bias_correction=False), _keras.Adam(0.01), "no bias correction"
    x = drawn(0.01, 0.2)
    yield "decay", rules.GradientDescent(rules.InverseTimeDecay(0.05, x)), _keras.SGD(0.05), f"(1 + {x:g} step)"
    x = drawn(0.003, 0.1)
    yield "weight decay", rules.Decayed(rules.Adam(0.01), x), rules.Adam(0.01), f"weight decay {x:g} into the gradient"
    yield "AdamW", _keras.AdamW(0.01, weight_decay=x), _keras.Adam(0.01), f"weight decay {x:g} into the weights"
    x = drawn(0.1, 0.5)
    yield "clipping", _keras.SGD(0.05, clipnorm=x), _keras.SGD(0.05), f"clipped by norm at {x:g}"
    x = drawn(0.1, 0.3)
    yield "clipping by value", _keras.SGD(0.05, clipvalue=x), _keras.SGD(0.05), f"clipped by value at {x:g}"
    x = drawn(0.5, 2.0)
    scaled = rules.RMSProp(0.01 * x)
    yield "rate off by a factor", scaled, rules.RMSProp(0.01), f"learning rate {0.01 * x:.4g} instead of 0.01"
    amsgrad = _keras.Adam(0.05, beta_2=0.9, amsgrad=True)
    yield "AMSGrad", amsgrad, rules.Adam(0.05, beta_2=0.9), "the largest v so far (AMSGrad)"
    yield "centered", _keras.RMSprop(0.01, centered=True), rules.RMSProp(0.01), "centered squares"
    k = int(rng.integers(2, 6))
    gathered = _keras.Adam(0.01, gradient_accumulation_steps=k)
    yield "gathered gradients", gathered, rules.Adam(0.01), f"gradients gathered over {k} steps"
    yield "one mean corrected", rules.Adam(0.01, bias_correction="v"), _keras.Adam(0.01), "correction of v only"
    ahead = rules.Miscounted(rules.Adam(0.01))
    yield "counted ahead", ahead, _keras.Adam(0.01), "steps counted one ahead"
    x = drawn(0.001, 0.005)
    clipped = rules.Clipped(rules.Momentum(0.05, 0.9), x, of="step")
    yield "clipped steps", clipped, rules.Momentum(0.05, 0.9), f"steps clipped by value at {x:g}"
    yield "stale gradient", rules.Stale(rules.Adam(0.01)), _keras.Adam(0.01), "stale by one step"


def unexplainable() -> Iterator[tuple[str, Any, Any]]:
    """Optimizers that no change of the reference accounts for."""
    rule = optimizers.GradientDescent(0.05)
    yield "rate that wobbles by 1e-4", _counted(lambda p, g, k: p - 0.05 * (1 + 1e-4 * np.sin(7.0 * k)) * g), rule
    yield "signs", _counted(lambda p, g, k: p - 0.05 * tf.sign(g)), rule
    yield "each seventh step left out", _counted(lambda p, g, k: p - 0.05 * g if k % 7 else p), rule
    yield "weights on a grid", _counted(lambda p, g, k: tf.round(1e3 * (p - 0.05 * g)) / 1e3), rule
    yield "rate that drops", _counted(lambda p, g, k: p - (0.05 if k < 20 else 0.02) * g), rule
    yield "one step off by 1e-5", _counted(lambda p, g, k: p - 0.05 * g + (1e-5 if k == 9 else 0.0)), rule
    yield "Nadam", _keras.Nadam(0.01), optimizers.Adam(0.01)


def run(*, quick: bool = False, seed: int = 0) -> Outcome:
    """Compare all; `quick` makes fewer steps."""
    steps, planted_steps = (_QUICK, _QUICK) if quick else (_STEPS, _PLANTED_STEPS)
    rows: list[tuple[Any, ...]] = []
    details = []
    for name, optimizer, rule in agreeing():
        report = _compared(optimizer, rule, steps, seed)
        rows.append((name, "agrees", report.ok, report.worst.units, report.worst.excess, _shown(report)))
        details += [] if report.ok else [str(report)]
    for name, optimizer, reference, text in planted(np.random.default_rng(seed)):
        report = _compared(optimizer, reference, planted_steps, seed)
        found = any(text in each.text for each in report.explanations)
        rows.append((name, "explained", found, report.worst.units, report.worst.excess, _shown(report)))
        details += [] if found else [first_lines(str(report))]
    for name, optimizer, reference in unexplainable():
        report = _compared(optimizer, reference, planted_steps, seed)
        none = not report.ok and not report.explanations
        rows.append((name, "no claim", none, report.worst.units, report.worst.excess, _shown(report)))
        details += [] if none else [first_lines(str(report))]
    kinds = {kind: [row[2] for row in rows if row[1] == kind] for kind in ("agrees", "explained", "no claim")}
    return Outcome(
        name="optimizers",
        columns=("optimizer", "expected", "ok", "units of rounding", "of allowed", "explanation"),
        rows=tuple(rows),
        summary="optimizers: " + ", ".join(f"{sum(ok)} of {len(ok)} {kind}" for kind, ok in kinds.items()),
        ok=all(row[2] for row in rows),
        figures={kind.replace(" ", "_"): f"{sum(ok)}/{len(ok)}" for kind, ok in kinds.items()},
        details=tuple(details),
    )


def _compared(optimizer: Any, reference: Any, steps: int, seed: int) -> OptimizerReport:
    """On a small network's loss, a new batch at each step."""
    rng = np.random.default_rng([seed, 1])
    inputs = rng.normal(size=(64, 5)).astype(np.float32)
    targets = np.sin(inputs @ rng.normal(size=(5, 1))).astype(np.float32)
    shapes = ((5, 6), (6,), (6, 1), (1,))
    kernel, bias, out, shift = [tf.Variable(rng.normal(size=s).astype(np.float32) / 2) for s in shapes]
    batches = optimizers.minibatches((inputs, targets), 16, seed, epochs=steps // 4 + 1)

    def loss() -> Any:
        x, y = next(batches)
        return tf.reduce_mean((tf.tanh(x @ kernel + bias) @ out + shift - y) ** 2)

    return compare_optimizers(optimizer, reference, loss, [kernel, bias, out, shift], steps)


def _counted(update: Callable[[Any, Any, int], Any]) -> Callable[..., Any]:
    def optimizer(params: Any, grads: Any, state: Any) -> Any:
        count = (state or 0) + 1
        return [update(p, g, count) for p, g in zip(params, grads, strict=True)], count

    return optimizer


def _shown(report: OptimizerReport) -> str:
    return report.explanation.text if report.explanation else "-"
