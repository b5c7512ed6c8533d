"""What a gradient check is for: a network, and a gradient that is wrong on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck._check.gradients import check_gradients
from gradcheck.subjects._subject import SubjectResult


def _small_network() -> Any:
    keras = tf.keras
    start = keras.initializers.GlorotUniform
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu", kernel_initializer=start(seed=1), name="conv"),
            keras.layers.MaxPooling2D(2, name="pool"),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dense(3, kernel_initializer=start(seed=2), name="logits"),
        ],
        name="cnn",
    )


def keras_cnn(*, name: str, mode: str, seed: int) -> SubjectResult:
    """A convolutional network's loss, by its images and by all its weights."""
    model = _small_network()
    pictures = np.random.default_rng(3).normal(size=(2, 8, 8, 1)).astype(np.float32)
    labels = tf.constant([0, 2])

    def loss(images: Any) -> Any:
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=model(images))
        return tf.reduce_mean(each)

    report = check_gradients(loss, {"images": pictures}, name=name, mode=mode, seed=seed)
    return SubjectResult(report=report)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def square(x: Any) -> tuple[Any, Callable[[Any], Any]]:
    """x times x, with a gradient that is twice too large."""
    return x * x, lambda upstream: 4.0 * x * upstream


def wrong_square(*, name: str, mode: str, seed: int) -> SubjectResult:
    """A sum of squares by that `square`."""

    def sum_of_squares(x: Any) -> Any:
        return tf.reduce_sum(square(x))

    x = np.array([[1.0, -2.0, 0.5], [3.0, 0.25, -1.5]], np.float32)
    return SubjectResult(report=check_gradients(sum_of_squares, {"x": x}, name=name, mode=mode, seed=seed))
