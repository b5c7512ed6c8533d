"""Healthy trainings, in which a watchdog has nothing to say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradcheck import Watchdog

from .listening import listening

STEPS = 500
L = keras.layers
Opt = keras.optimizers


@dataclass(frozen=True)
class Healthy:
    """A training: layers, what it is fed, and how it learns."""

    name: str
    shape: tuple[int, ...]
    layers: Callable[[], Sequence[Any]]
    optimizer: Callable[[], Any]
    classes: int = 0  # 0: regression of one number


@dataclass(frozen=True)
class Health:
    """What the watchdog said of one."""

    name: str
    trips: int
    warnings: tuple[str, ...]
    learned: float  # the mean loss of the last 50 steps over that of the first 50

    @property
    def ok(self) -> bool:
        return not self.trips and not self.warnings and self.learned < 0.9


def _dense(*sizes: int, activation: str = "relu") -> Callable[[], Sequence[Any]]:
    return lambda: [L.Dense(n, activation=activation) for n in sizes]


TRAININGS = [
    Healthy("relu, sgd", (4,), _dense(32), lambda: Opt.SGD(0.02)),
    Healthy("relu, momentum", (8,), _dense(32, 32), lambda: Opt.SGD(0.01, momentum=0.9)),
    Healthy("deep relu, adam", (8,), _dense(24, 24, 24), lambda: Opt.Adam(0.003)),
    Healthy("tanh, nesterov", (8,), _dense(16, 16, activation="tanh"), lambda: Opt.SGD(0.02, 0.9, nesterov=True)),
    Healthy("gelu, adamw", (8,), _dense(32, activation="gelu"), lambda: Opt.AdamW(0.003)),
    Healthy("elu, rmsprop", (8,), _dense(32, activation="elu"), lambda: Opt.RMSprop(0.003, centered=True)),
    Healthy("sigmoid, adagrad", (8,), _dense(16, activation="sigmoid"), lambda: Opt.Adagrad(0.1)),
    Healthy("swish, nadam", (8,), _dense(32, activation="swish"), lambda: Opt.Nadam(0.003)),
    Healthy("relu, lion", (8,), _dense(32), lambda: Opt.Lion(0.001)),
    Healthy("relu, ftrl", (8,), _dense(32), lambda: Opt.Ftrl(0.1)),
    Healthy("relu, decaying rate", (8,), _dense(32), lambda: Opt.SGD(Opt.schedules.ExponentialDecay(0.02, 100, 0.9))),
    Healthy("clipped, cosine", (8,), _dense(32), lambda: Opt.Adam(Opt.schedules.CosineDecay(0.01, 600), clipnorm=1.0)),
    Healthy(
        "batch normalization", (8,), lambda: [L.Dense(32), L.BatchNormalization(), L.ReLU()], lambda: Opt.SGD(0.02, 0.9)
    ),
    Healthy(
        "layer normalization, dropout", (8,), lambda: [L.Dense(32, "relu"), L.LayerNormalization(), L.Dropout(0.2)],
        lambda: Opt.Adam(0.003),
    ),
    Healthy("regularized", (8,), lambda: [L.Dense(32, "relu", kernel_regularizer="l2")], lambda: Opt.Adam(0.003)),
    Healthy(
        "convolution", (8, 8, 1), lambda: [L.Conv2D(8, 3, activation="relu"), L.MaxPooling2D(), L.Flatten()],
        lambda: Opt.Adam(0.003),
    ),
    Healthy("classes", (8,), _dense(32), lambda: Opt.Adam(0.003), classes=3),
    Healthy("recurrent", (5, 3), lambda: [L.GRU(8)], lambda: Opt.Adam(0.01)),
    Healthy(
        "attention", (5, 4), lambda: [_Attention(), L.GlobalAveragePooling1D()], lambda: Opt.Adam(0.01),
    ),
    Healthy("loss scale", (8,), _dense(32), lambda: Opt.LossScaleOptimizer(Opt.SGD(0.02), initial_scale=1024.0)),
]  # fmt: skip


class _Attention(L.Layer):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.inner = L.MultiHeadAttention(2, 4)

    def call(self, x: Any) -> Any:
        return x + self.inner(x, x, use_causal_mask=True)


def health(training: Healthy, steps: int = STEPS) -> Health:
    """Train under watch, with early warnings and layer outputs looked at."""
    keras.utils.set_random_seed(0)
    end = L.Dense(training.classes or 1)
    model = keras.Sequential([keras.Input(training.shape), *training.layers(), end])
    optimizer = training.optimizer()
    optimizer.build(model.trainable_variables)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step(x: Any) -> Any:
        y = tf.reduce_mean(tf.reshape(x, [tf.shape(x)[0], -1])[:, :4], 1, keepdims=True)
        with tf.GradientTape() as tape:
            given = model(x, training=True)
            if training.classes:
                loss = cross_entropy(tf.cast(y > 0.0, tf.int32) + tf.cast(y > 0.4, tf.int32), given)
            else:
                loss = tf.reduce_mean((given - y) ** 2)
            loss += sum(model.losses)
            scaled = optimizer.scale_loss(loss)
        optimizer.apply(tape.gradient(scaled, model.trainable_variables), model.trainable_variables)
        return loss

    batches = np.random.default_rng(0).normal(size=(steps, 32, *training.shape)).astype("float32")
    watchdog = Watchdog("log", early_warnings=True, layer_outputs=True)
    watched = watchdog.watch(step)
    with listening() as said:
        losses = [float(watched(tf.constant(x))) for x in batches]
    ends = np.mean(losses[: steps // 10]), np.mean(losses[-steps // 10 :])
    return Health(training.name, watchdog.trips, tuple(said), float(ends[1] / ends[0]))
