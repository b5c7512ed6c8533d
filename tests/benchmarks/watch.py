"""What watching a training costs, beside the plain step in the same run, `enable_check_numerics` and `TerminateOnNaN`.

Steps are taken in turns, so that what slows the machine down slows all of them: the medians of paired ratios, twice: of
the CPU time of one TensorFlow thread, by which targets are judged, and of the wall's time with TensorFlow's default
threads, each in a process of its own. Time decides nothing: the table says which target was missed. What has to hold is
that nothing trips.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import gradcheck

from .outcome import Outcome
from .outcome import text_of as text_of
from .paired import COLUMNS, Row, in_turns, missed, on_both_clocks
from .replays import seconds

BLOCKS, STEPS = 30, 20
TARGETS = {
    ("mlp", "watch"): 1.05, ("cnn", "watch"): 1.05, ("tiny", "watch"): 1.12, ("mlp", "off-step"): 1.0,
    ("mlp", "guard"): 1.05, ("cnn", "guard"): 1.05, ("tiny", "guard"): 1.12, ("mlp", "fit, watched"): 1.03,
}  # fmt: skip
LIMITS = {3: 0.6, 11: 2.0}  # seconds, by the layers of a training of about 150 and 400 ops


def run(*, quick: bool = False, seed: int = 0) -> Outcome:
    """Three models, each step beside the plain one; `fit` of the first; and replays, as a part of their limits."""
    measured = on_both_clocks(_measured, 3 if quick else BLOCKS, 2 if quick else 10, seed)
    rows = [(*row, TARGETS.get(row[:2], "")) for row in measured]
    rows += [_replayed(layers, limit, 1 if quick else 5) for layers, limit in LIMITS.items()]
    above = [f"{r[0]} {r[1]}" for r in rows if missed(r)]
    return Outcome(
        name="watch",
        columns=(*COLUMNS, "target"),
        rows=tuple(rows),
        summary=f"watch: targets missed: {', '.join(above) or 'none'}",
        ok=True,
        figures={"missed": above},
    )


def _measured(blocks: int, fits: int, seed: int) -> list[Row]:
    """All steps, then `fit`, in the present process."""
    return [*(row for name in MODELS for row in _steps(name, blocks, seed)), *_fits("mlp", fits, seed)]


def _mlp() -> tuple[Any, tuple[int, ...]]:
    layers = [keras.layers.Dense(512, activation="relu") for _ in range(2)]
    return keras.Sequential([keras.Input((784,)), *layers, keras.layers.Dense(10)]), (128, 784)


def _cnn() -> tuple[Any, tuple[int, ...]]:
    layers = [keras.layers.Conv2D(16, 3, strides=2, activation="relu") for _ in range(2)]
    return keras.Sequential([keras.Input((28, 28, 1)), *layers, keras.layers.Flatten(), keras.layers.Dense(10)]), (
        64,
        28,
        28,
        1,
    )


def _tiny() -> tuple[Any, tuple[int, ...]]:
    layers = [keras.layers.Dense(16, activation="tanh") for _ in range(8)]
    return keras.Sequential([keras.Input((16,)), *layers, keras.layers.Dense(10)]), (32, 16)


MODELS: dict[str, Callable[[], tuple[Any, tuple[int, ...]]]] = {"mlp": _mlp, "cnn": _cnn, "tiny": _tiny}


def _step(name: str, seed: int) -> tuple[Any, tuple[Any, Any]]:
    """A new model's training step, not traced yet, and a batch."""
    keras.utils.set_random_seed(seed)
    model, shape = MODELS[name]()
    optimizer = keras.optimizers.SGD(0.001, momentum=0.9)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    batch = tf.random.stateless_normal(shape, (seed, 1)), tf.random.stateless_normal([shape[0], 10], (seed, 2))
    return step, batch


def _steps(name: str, blocks: int, seed: int) -> list[Row]:
    (plain, batch), (again, _), (checked, _) = (_step(name, seed) for _ in range(3))
    watched = gradcheck.Watchdog().watch(_step(name, seed)[0])
    off = gradcheck.Watchdog(every=10**9).watch(_step(name, seed)[0])
    guards = {how: _guarded(name, seed, how) for how in ("guard", "apply")}
    ways = {"plain": plain, "plain again": again, "watch": watched, "off-step": off, **guards}
    for way in ways.values():
        way(*batch)
    tf.debugging.enable_check_numerics()
    try:
        checked(*batch)
    finally:
        tf.debugging.disable_check_numerics()
    ways["enable_check_numerics"] = checked  # traced with the checks, which stay in it
    return in_turns(name, {how: repeated(way, batch) for how, way in ways.items()}, blocks, STEPS)


def _guarded(name: str, seed: int, how: str) -> Any:
    keras.utils.set_random_seed(seed)
    model, _ = MODELS[name]()
    optimizer = keras.optimizers.SGD(0.001, momentum=0.9)
    optimizer.build(model.trainable_variables)
    watchdog = gradcheck.Watchdog()

    @tf.function
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        if how == "apply":
            watchdog.apply(optimizer, gradients, model.trainable_variables, loss=loss)
        else:
            optimizer.apply(watchdog.guard(gradients, loss=loss), model.trainable_variables)
        return loss

    return step


def repeated(way: Callable[..., Any], batch: tuple[Any, Any], steps: int = STEPS) -> Callable[[], None]:
    def several() -> None:
        for _ in range(steps):
            way(*batch)

    return several


def _fits(name: str, blocks: int, seed: int) -> list[Row]:
    models = []
    for _ in range(3):
        keras.utils.set_random_seed(seed)
        model, shape = MODELS[name]()
        model.compile(keras.optimizers.SGD(0.001, momentum=0.9), "mse")
        models.append(model)
    x = np.random.default_rng(seed).normal(size=(50 * shape[0], *shape[1:])).astype("float32")
    y = np.zeros((len(x), 10), "float32")
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(shape[0]).cache().prefetch(2)
    plain, watched, terminated = models
    with gradcheck.watch(watched) as watchdog:
        fits = {
            "fit": lambda: plain.fit(batches, verbose=0),
            "fit, watched": lambda: watched.fit(batches, verbose=0),
            "fit, TerminateOnNaN": lambda: terminated.fit(
                batches, verbose=0, callbacks=[keras.callbacks.TerminateOnNaN()]
            ),
        }
        for fit in fits.values():
            fit()
        rows = in_turns(name, fits, blocks, 50)
        assert watchdog.trips == 0
    return rows


def _replayed(layers: int, limit: float, repeats: int) -> tuple[Any, ...]:
    ops, found = seconds(layers, repeats)
    median = float(np.median(found))
    return f"{ops} ops", f"replay within {limit} s", "", "", 1000 * median, median / limit, 1.0
