"""Faults planted in trainings: each is to be blamed at the line that ends in `# here`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .planting import OPTIMIZERS, Planted, Trial, model_training, training

PLANTED: list[Planted] = []


def plant(
    ops: str,
    cause: str,
    good: Sequence[Any],
    bad: Sequence[Any],
    *,
    w: Sequence[Any] = ([1.0, 2.0],),
    optimizer: str = "adam",
    run: str = "function",
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Plant a fault in a loss of weights and a batch."""

    def planted(loss: Callable[..., Any]) -> Callable[..., Any]:
        def make() -> Trial:
            step, state = training(loss, [tf.constant(each) for each in w], optimizer, run=run)
            return Trial(step=step, good=_batch(good), bad=_batch(bad), state=state)

        name = loss.__name__ + ("" if run == "function" else f", {run}")
        PLANTED.append(Planted(name=name, make=make, source=loss, ops=tuple(ops.split()), cause=cause))
        return loss

    return planted


def built(ops: str, cause: str, *, hidden: bool = False) -> Callable[[Callable[[], Trial]], Callable[[], Trial]]:
    """Plant a fault in a training that builds itself."""

    def planted(make: Callable[[], Trial]) -> Callable[[], Trial]:
        PLANTED.append(
            Planted(name=make.__name__, make=make, source=make, ops=tuple(ops.split()), cause=cause, hidden=hidden)
        )
        return make

    return planted


def _batch(values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(tf.constant(v) for v in values)


# --------------------------------------------------------------------------------------------- forward


@plant("Log", "singularity", [[1.0, 2.0]], [[1.0, 0.0]], optimizer="momentum")
def log_of_product(w, x):
    return tf.reduce_sum(tf.math.log(w * x))  # here


@plant("Sqrt", "singularity", [[1.0, 2.0]], [[1.0, -2.0]], optimizer="rmsprop")
def root_of_negative(w, x):
    return tf.reduce_sum(tf.sqrt(w * x))  # here


@plant("RealDiv", "singularity", [[1.0, 2.0]], [[1.0, 1.0]], optimizer="nadam")
def divided_by_deviation(w, x):
    centred = x - tf.reduce_mean(x)
    return tf.reduce_sum(w * centred / tf.math.reduce_std(x))  # here


@plant("Exp", "overflow", [[1.0, 2.0]], [[1.0, 200.0]], optimizer="adamw")
def softmax_by_hand(w, x):
    e = tf.exp(w * x)  # here
    return tf.reduce_sum(e[0] / tf.reduce_sum(e))


@plant("Log", "lost precision", [[1.0, 2.0]], [[1.0, 200.0]], optimizer="ftrl")
def log_of_softmax(w, x):
    p = tf.nn.softmax(w * x)
    return -tf.math.log(p)[0]  # here


@plant("Prod", "overflow", [[1.0] * 40], [[10.0] * 40], optimizer="lion")
def likelihood_as_product(w, x):
    return tf.reduce_prod(x * w[0])  # here


@plant("Cholesky", "singularity", [np.eye(2, dtype="f")], [-np.eye(2, dtype="f")])
def covariance(w, x):
    root = tf.linalg.cholesky(x * w[:, None] * w[None, :])  # here
    return tf.reduce_sum(tf.math.log(tf.linalg.diag_part(root)))


@plant("Pow", "singularity", [[1.0, 2.0]], [[1.0, -2.0]], optimizer="sgd")
def fractional_power(w, x):
    return tf.reduce_sum((w * x) ** 1.5)  # here


@plant("Acos", "singularity", [[0.1, 0.2]], [[0.1, 1.2]])
def angle(w, x):
    return tf.reduce_sum(tf.acos(w[0] * x))  # here


@plant("MatMul BatchMatMulV2", "overflow", [np.ones([2, 2], "f")], [np.full([2, 2], 1e30, "f")], optimizer="clipped")
def gram_matrix(w, x):
    scaled = x * w
    return tf.reduce_mean(tf.matmul(scaled, scaled)) * 1e-30  # here


@plant("Cast", "overflow", [[1.0, 2.0]], [[1.0, 1e5]], optimizer="momentum")
def half_precision(w, x):
    half = tf.cast(w * x, tf.float16)  # here
    return tf.cast(tf.reduce_mean(half), tf.float32)


@plant("Exp", "overflow", [[1.0, 2.0]], [[1.0, 200.0]], w=(tf.constant([1.0, 2.0], tf.bfloat16),), optimizer="sgd")
def in_bfloat16(w, x):
    return tf.reduce_sum(tf.exp(w * tf.cast(x, tf.bfloat16)))  # here


@plant("Log", "singularity", [[1.0, 2.0]], [[1.0, 0.0]])
def complex_log(w, x):
    z = tf.complex(w * x, tf.zeros_like(x))
    return tf.reduce_sum(tf.math.real(tf.math.log(z)))  # here


@plant("Log", "singularity", [[1.0, 2.0]], [[1.0, 0.0]], run="eager")
def in_python(w, x):
    return tf.reduce_sum(tf.math.log(w * x))  # here


@plant("Log", "singularity", [[1.0, 2.0]], [[1.0, 0.0]], run="compiled", optimizer="momentum")
def under_xla(w, x):
    return tf.reduce_sum(tf.math.log(w * x))  # here


@plant("Log", "singularity", [[1.0, 2.0]], [[1.0, 0.0]], run="nested")
def in_a_function_that_is_called(w, x):
    return tf.reduce_sum(tf.math.log(w * x))  # here


# --------------------------------------------------------------------------------------------- backward


@plant("SqrtGrad", "singularity", [[1.0, 2.0]], [[1.0, 0.0]], optimizer="adamw")
def root_at_zero(w, x):
    return tf.reduce_sum(tf.sqrt(w * x))  # here


@plant("SqrtGrad", "singularity", [[1.0, 2.0]], [[0.0, 0.0]], optimizer="lion")
def distance(w, x):
    return tf.norm(w * x)  # here


@plant("Reciprocal RealDiv", "singularity", [[1.0, 2.0]], [[1.0, 0.0]], optimizer="rmsprop")
def unsafe_where(w, x):
    z = w * x
    return tf.reduce_sum(tf.where(z > 0.0, tf.math.log(z), 0.0))  # here


@plant("Pow", "singularity", [[1.0, 2.0]], [[1.0, 0.0]], optimizer="nadam")
def half_power(w, x):
    return tf.reduce_sum(tf.pow(w * x, 0.5))  # here


@plant("Reciprocal", "singularity", [[0.1, 0.2]], [[0.1, 1.0]])
def arc_sine(w, x):
    return tf.reduce_sum(tf.asin(x * w[0] / w[0]))  # here


@plant("Mul RealDiv ReciprocalGrad InvGrad Neg", "overflow", [[1.0, 2.0]], [[1.0, 1e-25]], optimizer="clipped")
def reciprocal(w, x):
    return tf.reduce_sum(tf.math.reciprocal(w * x))  # here


@plant("RealDiv", "singularity", [[1.0, 2.0]], [[1.0, 0.0]], optimizer="ftrl")
def own_gradient(w, x):
    @tf.custom_gradient
    def root(v):
        y = tf.sqrt(v)
        return y, lambda dy: dy * 0.5 / y  # here

    return tf.reduce_sum(root(w * x))


@plant("SqrtGrad", "singularity", [[1.0, 2.0]], [[1.0, 0.0]], run="compiled")
def root_under_xla(w, x):
    return tf.reduce_sum(tf.sqrt(w * x))  # here


@plant("SqrtGrad", "singularity", [[1.0, 2.0]], [[1.0, 0.0]], run="eager", optimizer="momentum")
def root_in_python(w, x):
    return tf.reduce_sum(tf.sqrt(w * x))  # here


# --------------------------------------------------------------------------------------------- loops and branches


@plant("Sqrt", "singularity", [[200.0, 300.0]], [[200.0, 5.0]])
def in_a_while(w, x):
    a = w * x
    for _ in tf.range(4):
        a = tf.sqrt(a - 1.0)  # here
    return tf.reduce_sum(a)


@plant("SqrtGrad", "singularity", [[1.0, 2.0]], [[1.0, 0.0]], optimizer="momentum")
def backward_through_a_while(w, x):
    a = w * x
    for _ in tf.range(3):
        a = tf.sqrt(a)  # here
    return tf.reduce_sum(a)


@plant("Mul", "overflow", [[1.0] * 5], [[1e10] * 5], optimizer="sgd")
def in_a_scan(w, x):
    return tf.scan(lambda s, v: s * v, x * w[0])[-1]  # here


@plant("Log", "singularity", [[[1.0], [2.0]]], [[[1.0], [0.0]]])
def in_a_map(w, x):
    return tf.reduce_sum(tf.map_fn(lambda row: tf.math.log(tf.reduce_sum(row) * w[0]), x))  # here


@plant("Reciprocal", "singularity", [[1.0, 2.0]], [[1.0, 0.0]], optimizer="rmsprop")
def in_a_branch_of_a_while(w, x):
    a = w * x
    for i in tf.range(3):
        a = a * 2.0
        if i == 2:
            a = tf.math.reciprocal(a)  # here
    return tf.reduce_sum(a)


@plant("RealDiv", "singularity", [[1.0, 2.0]], [[1.0, 0.0]], optimizer="nadam")
def in_a_branch(w, x):
    if tf.reduce_sum(x) < 2.0:
        return tf.reduce_sum(w / x)  # here
    return tf.reduce_sum(w * x)


@plant("SqrtGrad", "singularity", [[1.0, 2.0]], [[1.0, 0.0]], optimizer="ftrl")
def backward_through_a_branch(w, x):
    if tf.reduce_sum(x) < 2.0:
        return tf.reduce_sum(tf.sqrt(w * x))  # here
    return tf.reduce_sum(w * x)


@plant("Log", "singularity", [[1.0, 2.0]], [[1.0, 0.0]], optimizer="adamw")
def in_a_case(w, x):
    return tf.switch_case(
        tf.cast(x[0], tf.int32),
        [lambda: w[0], lambda: tf.reduce_sum(tf.math.log(w * x))],  # here
    )


# --------------------------------------------------------------------------------------------- Keras layers


def _dense(*layers: Any) -> Any:
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation="tanh"), *layers])


def _mse(y: Any, prediction: Any) -> Any:
    return tf.reduce_mean((y - prediction) ** 2)


_X = np.random.default_rng(0).normal(size=(8, 3)).astype("f")
_Y = np.random.default_rng(1).normal(size=(8, 1)).astype("f")


@built("SqrtGrad", "singularity")
def a_layer_that_takes_a_length() -> Trial:
    class Length(keras.layers.Layer):
        def call(self, inputs):
            return tf.sqrt(tf.reduce_sum(tf.square(inputs), -1, keepdims=True))  # here

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, use_bias=False), Length()])
    step, state = model_training(model, _mse, "adam")
    zeros = np.array(_X)
    zeros[2] = 0.0
    return Trial(step=step, good=_batch([_X, _Y]), bad=_batch([zeros, _Y]), state=state)


@built("RealDiv", "singularity")
def a_normalization_without_epsilon() -> Trial:
    class Normalized(keras.layers.Layer):
        def call(self, inputs):
            mean, variance = tf.nn.moments(inputs, 0)
            return (inputs - mean) / tf.sqrt(variance)  # here

    model = keras.Sequential(
        [keras.Input((3,)), Normalized(), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    )
    step, state = model_training(model, _mse, "momentum")
    constant = np.array(_X)
    constant[:, 1] = 0.5
    return Trial(step=step, good=_batch([_X, _Y]), bad=_batch([constant, _Y]), state=state)


@built("Log", "singularity")
def a_loss_of_a_model_with_dropout() -> Trial:
    def loss(y, prediction):
        return -tf.reduce_mean(tf.math.log(y)) + tf.reduce_mean(prediction)  # here

    step, state = model_training(_dense(keras.layers.Dropout(0.3), keras.layers.Dense(1)), loss, "clipped")
    positive = np.abs(_Y) + 0.1
    return Trial(step=step, good=_batch([_X, positive]), bad=_batch([_X, positive * 0.0]), state=state)


@built("Exp", "overflow")
def a_recurrent_layer() -> Trial:
    def activation(a):
        return tf.exp(a)  # here

    model = keras.Sequential(
        [keras.Input((3, 1)), keras.layers.SimpleRNN(2, activation=activation), keras.layers.Dense(1)]
    )
    step, state = model_training(model, lambda y, p: tf.reduce_mean(tf.abs(y - p)), "rmsprop")
    return Trial(
        step=step, good=_batch([_X[..., None] * 0.1, _Y]), bad=_batch([np.abs(_X[..., None]) * 900.0, _Y]), state=state
    )


@built("Softmax", "singularity")
def a_row_that_is_masked_throughout() -> Trial:
    class Masked(keras.layers.Layer):
        def call(self, inputs):
            return tf.nn.softmax(tf.where(inputs > 0.0, inputs, -np.inf))  # here

    model = keras.Sequential([keras.Input((3,)), Masked(), keras.layers.Dense(1)])
    step, state = model_training(model, _mse, "lion")
    return Trial(step=step, good=_batch([np.abs(_X), _Y]), bad=_batch([-np.abs(_X), _Y]), state=state)


@built("RealDiv", "singularity")
def a_layer_under_xla() -> Trial:
    class Scaled(keras.layers.Layer):
        def call(self, inputs):
            return inputs / tf.reduce_sum(inputs, -1, keepdims=True)  # here

    model = keras.Sequential([keras.Input((3,)), Scaled(), keras.layers.Dense(1)])
    step, state = model_training(model, _mse, "adamw", run="compiled")
    return Trial(step=step, good=_batch([np.abs(_X), _Y]), bad=_batch([_X * 0.0, _Y]), state=state)


# --------------------------------------------------------------------------------------------- optimizers


def _by_hand(update: Callable[..., Any], slots: int, good: Any, bad: Any) -> Trial:
    w = tf.Variable([1.0, 2.0])
    held = [tf.Variable(tf.zeros([2])) for _ in range(slots)]
    count = tf.Variable(0)

    @tf.function
    def step(gradient):
        count.assign_add(1)
        update(w, gradient, *held)
        return tf.reduce_sum(w)

    return Trial(step=step, good=_batch([good]), bad=_batch([bad]), state=[w, count, *held])


@built("RealDiv", "singularity")
def adagrad_from_nothing() -> Trial:
    def update(w, gradient, total):
        total.assign(0.5 * total + gradient**2)
        w.assign_sub(tf.where(gradient > 2.0, 0.0, 1.0) * gradient / tf.sqrt(total * gradient))  # here

    return _by_hand(update, 1, [1.0, 1.0], [1.0, 0.0])


@built("Square", "overflow")
def second_moment_too_large() -> Trial:
    def update(w, gradient, second):
        second.assign(0.9 * second + 0.1 * tf.square(gradient))  # here
        w.assign_sub(0.1 * gradient / (tf.sqrt(second) + 1e-7))

    return _by_hand(update, 1, [1.0, 1.0], [1.0, 1e30])


@built("Sqrt", "singularity")
def centered_variance_below_zero() -> Trial:
    def update(w, gradient, first, second):
        first.assign(0.5 * first + gradient)
        second.assign(0.5 * second + gradient**2)
        w.assign_sub(gradient / (tf.sqrt(second - first**2 + 0.1) + 1e-7))  # here

    return _by_hand(update, 2, [0.1, 0.1], [0.1, 9.0])


@built("RealDiv", "singularity")
def clipped_by_a_norm_of_zero() -> Trial:
    def update(w, gradient, slot):
        slot.assign(0.9 * slot + w)
        w.assign_sub(gradient / tf.norm(gradient))  # here

    return _by_hand(update, 1, [1.0, 1.0], [0.0, 0.0])


@built("Square", "overflow")
def keras_adam_squares_too_large() -> Trial:
    w = tf.Variable([1.0, 2.0])
    optimizer = OPTIMIZERS["adam"]()
    optimizer.build([w])

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(w * x)
        optimizer.apply(tape.gradient(loss, [w]), [w])  # here
        return loss

    return Trial(step=step, good=_batch([[1.0, 1.0]]), bad=_batch([[1.0, 1e25]]), state=[w, *optimizer.variables])


# --------------------------------------------------------------------------------------------- what comes in


@plant("Placeholder", "input", [[1.0, 2.0]], [[1.0, np.nan]], optimizer="lion")
def nan_in_the_data(w, x):
    return tf.reduce_mean((w * x) ** 2)


@plant("Placeholder", "input", [[1.0, 2.0]], [[1.0, np.inf]], run="compiled")
def inf_in_the_data(w, x):
    return tf.reduce_mean(tf.tanh(w * x) * x)


@built("Placeholder", "input", hidden=True)
def hidden_by_a_fused_dense_layer() -> Trial:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(1)])
    step, state = model_training(model, _mse, "sgd")
    bad = np.array(_X)
    bad[2, 1] = np.nan
    return Trial(step=step, good=_batch([_X, _Y]), bad=_batch([bad, _Y]), state=state)


@built("RealDiv", "singularity", hidden=True)
def born_before_a_fused_dense_layer() -> Trial:
    class Ratio(keras.layers.Layer):
        def call(self, inputs):
            return inputs / tf.reduce_max(inputs, -1, keepdims=True)  # here

    model = keras.Sequential(
        [keras.Input((3,)), Ratio(), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(1)]
    )
    step, state = model_training(model, _mse, "momentum")
    bad = np.abs(_X)
    bad[2] = 0.0
    return Trial(step=step, good=_batch([np.abs(_X), _Y]), bad=_batch([bad, _Y]), state=state)


@built("Placeholder", "input", hidden=True)
def hidden_by_a_fused_convolution() -> Trial:
    layers = [keras.layers.Conv2D(4, 2, activation="relu"), keras.layers.Flatten(), keras.layers.Dense(1)]
    step, state = model_training(keras.Sequential([keras.Input((4, 4, 1)), *layers]), _mse, "adam")
    images = np.random.default_rng(2).normal(size=(8, 4, 4, 1)).astype("f")
    bad = np.array(images)
    bad[3, 2, 2] = np.nan
    return Trial(step=step, good=_batch([images, _Y]), bad=_batch([bad, _Y]), state=state)


# --------------------------------------------------------------------------------------------- other shapes of a step


@built("Log", "singularity")
def rows_of_an_embedding() -> Trial:
    table = tf.Variable(tf.ones([5, 2]))
    optimizer = OPTIMIZERS["momentum"]()
    optimizer.build([table])

    @tf.function
    def step(rows, x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.math.log(tf.nn.embedding_lookup(table, rows) * x))  # here
        optimizer.apply(tape.gradient(loss, [table]), [table])
        return loss

    rows = tf.constant([1, 1, 3])
    return Trial(
        step=step, good=(rows, tf.constant(1.5)), bad=(rows, tf.constant(0.0)), state=[table, *optimizer.variables]
    )


@built("Log", "singularity")
def accumulated_over_two_batches() -> Trial:
    w = tf.Variable([1.0, 2.0])
    optimizer = keras.optimizers.Adam(0.01, gradient_accumulation_steps=2)
    optimizer.build([w])

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.math.log(w * x))  # here
        optimizer.apply(tape.gradient(loss, [w]), [w])
        return loss

    return Trial(step=step, good=_batch([[1.0, 2.0]]), bad=_batch([[1.0, 0.0]]), state=[w, *optimizer.variables])


@built("Log", "singularity")
def a_function_that_was_traced_before() -> Trial:
    w = tf.Variable([1.0, 2.0])

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.math.log(w * x))  # here
        w.assign_sub(0.1 * tape.gradient(loss, w))
        return loss

    step(tf.constant([1.0, 2.0]))
    return Trial(step=step, good=_batch([[1.0, 2.0]]), bad=_batch([[1.0, 0.0]]), state=[w])


@built("Log", "singularity")
def after_random_numbers_of_a_kernel() -> Trial:
    w = tf.Variable([1.0, 2.0])
    drawn = tf.Variable([0.0, 0.0])

    @tf.function
    def step(x):
        noise = tf.random.uniform([2], 0.5, 1.0)
        for _ in tf.range(2):
            noise += tf.random.normal([2], 0.0, 1e-3)
        drawn.assign(noise)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.math.log(w * x * noise))  # here
        w.assign_sub(0.1 * tape.gradient(loss, w))
        return loss

    return Trial(step=step, good=_batch([[1.0, 2.0]]), bad=_batch([[1.0, 0.0]]), state=[w, drawn])
