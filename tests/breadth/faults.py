"""Wrong subjects: each is wrong on purpose, in one op, which the row names."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from tensorflow.python.framework import ops as registry

import gradcheck
from gradcheck import Verdict

from .case import Case, Culprit, definite, floats, positive
from .models import policy, stack
from .ops import of_reference_variable, ragged, sparse

c64 = np.complex64


# A registered gradient, changed: `with changed("Tanh"):` around the op.


def _registered(op: Any, ups: Any) -> list[Any]:
    found = registry._gradient_registry.lookup(op.type)(op, *ups)
    return list(found) if isinstance(found, (list, tuple)) else [found]


@tf.RegisterGradient("GradcheckTestsChanged")
def _changed(op: Any, *ups: Any) -> Any:
    found = _registered(op, ups)
    at = next(i for i, gradient in enumerate(found) if gradient is not None)
    found[at] = 1.25 * tf.convert_to_tensor(found[at])
    return found


@tf.RegisterGradient("GradcheckTestsChangedLast")
def _changed_last(op: Any, *ups: Any) -> Any:
    found = _registered(op, ups)
    at = max(i for i, gradient in enumerate(found) if gradient is not None)
    found[at] = -found[at]
    return found


def changed(op: str, which: str = "") -> AbstractContextManager[Any]:
    """A scope in which the op's gradient for its first (or last) input is wrong."""
    return tf.compat.v1.get_default_graph().gradient_override_map({op: f"GradcheckTestsChanged{which}"})


# ------------------------------------------------------------------------------------------- wrong building blocks


@tf.custom_gradient
def bad_tanh(x: Any) -> Any:
    """The square forgotten."""
    y = tf.tanh(x)
    return y, lambda up: up * (1 - y)


@tf.custom_gradient
def bad_square(x: Any) -> Any:
    """The factor forgotten."""
    return x * x, lambda up: up * x


@tf.custom_gradient
def bad_relu(x: Any) -> Any:
    """The gradient passes everywhere."""
    return tf.nn.relu(x), lambda up: up


@tf.custom_gradient
def bad_softmax(x: Any) -> Any:
    """The diagonal only."""
    y = tf.nn.softmax(x)
    return y, lambda up: up * y * (1 - y)


@tf.custom_gradient
def bad_product(x: Any, w: Any) -> Any:
    """Twice the gradient of the matrix."""

    def grad(up: Any) -> Any:
        return tf.matmul(up, w, transpose_b=True), 2 * tf.matmul(x, up, transpose_a=True)

    return tf.matmul(x, w), grad


@tf.custom_gradient
def bad_bias(x: Any, b: Any) -> Any:
    """A mean over the batch for the sum."""
    return x + b, lambda up: (up, tf.reduce_mean(up, axis=0))


@tf.custom_gradient
def bad_lookup(table: Any, ids: Any) -> Any:
    """Of rows looked up several times, the last one counts."""

    def grad(up: Any) -> Any:
        at, values = tf.reshape(ids, [-1, 1]), tf.reshape(up, [-1, table.shape[-1]])
        return tf.tensor_scatter_nd_update(tf.zeros_like(table), at, values), None

    return tf.gather(table, ids), grad


@tf.custom_gradient
def bad_norm(x: Any) -> Any:
    """A layer norm that takes mean and deviation for constants."""
    mean, deviation = tf.reduce_mean(x, -1, keepdims=True), tf.math.reduce_std(x, -1, keepdims=True) + 1e-3
    return (x - mean) / deviation, lambda up: up / deviation


@tf.custom_gradient
def bad_mean(x: Any) -> Any:
    """The number of terms forgotten."""
    return tf.reduce_mean(x), lambda up: up * tf.ones_like(x)


@tf.custom_gradient
def bad_identity_of_loss(x: Any) -> Any:
    """The upstream gradient ignored, as by a loss that is meant to stand last."""
    return tf.identity(x), lambda up: tf.ones_like(x) + 0 * up


@tf.custom_gradient
def bad_conv(x: Any, k: Any) -> Any:
    """The gradient of the kernel turned round."""

    def grad(up: Any) -> Any:
        back = tf.nn.conv2d_transpose(up, k, tf.shape(x), 1, "SAME")
        return back, tf.reverse(tf.compat.v1.nn.conv2d_backprop_filter(x, k.shape, up, [1, 1, 1, 1], "SAME"), [0])

    return tf.nn.conv2d(x, k, 1, "SAME"), grad


@tf.custom_gradient
def bad_sort(x: Any) -> Any:
    """The gradient not brought back to the old places."""
    return tf.sort(x), lambda up: up


@tf.custom_gradient
def bad_inverse(a: Any) -> Any:
    """Not transposed."""
    b = tf.linalg.inv(a)
    return b, lambda up: -b @ up @ b


@tf.custom_gradient
def bad_cholesky(a: Any) -> Any:
    """The gradient of the inverse for that of the factor."""
    factor = tf.linalg.cholesky(a)
    return factor, lambda up: tf.linalg.band_part(up, -1, 0)


@tf.custom_gradient
def bad_solve(a: Any, b: Any) -> Any:
    """Solved without the transposition."""
    x = tf.linalg.solve(a, b)

    def grad(up: Any) -> Any:
        back = tf.linalg.solve(a, up)
        return -back @ tf.linalg.matrix_transpose(x), back

    return x, grad


@tf.custom_gradient
def bad_determinant(a: Any) -> Any:
    """The inverse not transposed."""
    value = tf.linalg.det(a)
    return value, lambda up: (up * value)[..., None, None] * tf.linalg.inv(a)


@tf.custom_gradient
def bad_fft(z: Any) -> Any:
    """The transform back without its number of terms."""
    return tf.signal.fft(z), tf.signal.ifft


@tf.custom_gradient
def bad_complex_square(z: Any) -> Any:
    """Not conjugated."""
    return z * z, lambda up: 2 * up * z


@tf.custom_gradient
def bad_segment_mean(x: Any) -> Any:
    """The gradient of the sum."""
    ids = tf.constant([0, 0, 1, 1, 1])
    return tf.math.segment_mean(x, ids), lambda up: tf.gather(up, ids)


@tf.custom_gradient
def bad_top(x: Any) -> Any:
    """The gradient brought to the first places."""
    values, _ = tf.math.top_k(x, 2)
    return values, lambda up: tf.concat([up, tf.zeros_like(x)[..., 2:]], -1)


@tf.custom_gradient
def bad_resize(x: Any) -> Any:
    """Nearest for bilinear."""
    return tf.image.resize(x, [4, 4]), lambda up: tf.image.resize(up, [2, 2], method="nearest") * 4


@tf.custom_gradient
def bad_ctc(logits: Any) -> Any:
    """Half the gradient for the second one of the batch."""
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = tf.nn.ctc_loss([[1, 2], [2, 0]], logits, [2, 1], [4, 4], logits_time_major=False, blank_index=0)
    slope = tape.gradient(loss, logits)
    return loss, lambda up: up[:, None, None] * slope * tf.constant([1.0, 0.5])[:, None, None]


@tf.custom_gradient
def bad_numpy_sine(x: Any) -> Any:
    y = tf.numpy_function(np.sin, [x], x.dtype)
    y.set_shape(x.shape)
    return y, lambda up: up * tf.sin(x)


@tf.custom_gradient
def _bad_in_python(x: Any) -> Any:
    return x**3, lambda up: up * x**2


@tf.custom_gradient
def bad_power(x: Any, exponent: float = 2.0) -> Any:
    return x**exponent, lambda up: up * exponent * x**exponent


@tf.custom_gradient
def bad_second(x: Any) -> Any:
    """Right in the first derivative, wrong in the second."""

    @tf.custom_gradient
    def slope(x: Any, up: Any) -> Any:
        return 3 * x**2 * up, lambda upper: (upper * 3 * x * up, upper * 3 * x**2)

    return x**3, lambda up: slope(x, up)


@tf.custom_gradient
def straight(x: Any) -> Any:
    return tf.round(x), lambda up: up


@tf.custom_gradient
def bad_dropout(x: Any, mask: Any) -> Any:
    """The scale of what is kept forgotten."""
    return x * mask / 0.5, lambda up: (up * mask, None)


@tf.custom_gradient
def bad_scale(x: Any, g: Any) -> Any:
    """A gradient of the scale that forgets the upstream one's sign."""
    return x * g, lambda up: (up * g, tf.reduce_sum(tf.abs(up) * x, 0))


# -------------------------------------------------------------------------------------------------- functions


def in_while(x):
    return tf.while_loop(lambda i, _: i < 3, lambda i, s: (i + 1, bad_tanh(s) + x), [0, x])[1]


def in_nested_while(x):
    def outer(i, s):
        return i + 1, tf.while_loop(lambda j, _: j < 2, lambda j, t: (j + 1, tf.sin(bad_square(t))), [0, s])[1]

    return tf.while_loop(lambda i, _: i < 2, outer, [0, x])[1]


def registered_in_while(x):
    def body(i, s):
        with changed("Tanh"):
            return i + 1, tf.tanh(s) * x

    return tf.while_loop(lambda i, _: i < 3, body, [0, x])[1]


def in_scan(x):
    return tf.scan(lambda s, e: bad_tanh(s + e), x)


def in_map(x):
    return tf.map_fn(lambda r: tf.reduce_sum(bad_square(r)) * r, x)


def before_vectorized_map(x):
    # Inside, vectorized_map takes the ops of a tf.custom_gradient, and so their right gradients.
    return tf.vectorized_map(lambda r: tf.sin(r) * tf.reduce_sum(r), bad_square(x))


def in_fold(x):
    return tf.foldl(lambda s, e: s * bad_tanh(e), x)


def in_taken_branch(x):
    return tf.cond(tf.reduce_sum(x) < 100, lambda: bad_square(x), lambda: tf.sin(x))


def registered_in_branch(x):
    def branch():
        with changed("Exp"):
            return tf.exp(x)

    return tf.switch_case(tf.constant(1), [lambda: tf.sin(x), branch]) * x


def in_tensor_array(x):
    array = tf.TensorArray(x.dtype, 3)
    for i in range(3):
        array = array.write(i, bad_square(x[i]))
    return array.stack() * x


@tf.function
def _inner(x):
    return tf.sin(bad_square(x))


@tf.function
def _middle(x):
    return _inner(x) * x


def in_nested_functions(x):
    return _middle(_middle(x))


@tf.function(jit_compile=True)
def _compiled(x):
    return tf.exp(bad_tanh(x))


def in_compiled(x):
    return _compiled(x) * x


def in_recomputed(x):
    return tf.recompute_grad(lambda y: tf.sin(bad_square(y)))(x)


def of_ragged(x):
    return tf.reduce_sum(tf.ragged.map_flat_values(bad_square, ragged(x)), axis=1)


def of_ragged_registered(x):
    with changed("UnsortedSegmentSum"):
        return tf.reduce_sum(ragged(tf.sin(x)), axis=1)


def of_sparse(x, w):
    with changed("SparseTensorDenseMatMul", "Last"):
        return tf.sparse.sparse_dense_matmul(sparse(x), tf.sin(w))


def of_sparse_values(x):
    return tf.sparse.reduce_sum(sparse(bad_square(x)))


def lookup(table):
    return bad_lookup(table, tf.constant([[1, 2], [1, 0]])) ** 2


def registered_gather(x):
    with changed("GatherV2"):
        return tf.gather(x, [0, 2, 2]) ** 2


def registered_scatter(x):
    with changed("ScatterNd", "Last"):
        return tf.scatter_nd([[0], [0], [3]], x, [4]) ** 2


def gathered_list(x):
    array = tf.TensorArray(x.dtype, 4).unstack(x)
    return array.gather([0, 0, 3]) ** 2


def joined_sparse(x):
    return tf.sparse.concat(0, [sparse(x), sparse(2 * x)]).values ** 2


def resized_by_area(x):
    return tf.image.resize(x, [2, 2], method="area")


def of_segments(x):
    return tf.exp(bad_segment_mean(x))


def of_sorted(x):
    return bad_sort(x) * tf.constant([1.0, 2.0, 3.0, 4.0])


def of_top(x):
    return bad_top(x) ** 2


def of_fft(z):
    return tf.abs(bad_fft(z)) ** 2


def registered_fft(x):
    with changed("RFFT"):
        return tf.abs(tf.signal.rfft(x)) ** 2


def of_complex(z):
    return tf.math.real(bad_complex_square(z) * z)


def registered_complex(z):
    with changed("ComplexAbs"):
        return tf.abs(z * z)


def of_inverse(a):
    return bad_inverse(a) ** 2


def of_cholesky(a):
    return bad_cholesky((a + tf.linalg.matrix_transpose(a)) / 2)


def of_solve(a, b):
    return bad_solve(a, b) ** 2


def of_determinant(a):
    return tf.math.log(bad_determinant(a))


def registered_qr(a):
    with changed("Qr"):
        q, r = tf.linalg.qr(a)
    return tf.abs(q), tf.abs(r)


def registered_svd(a):
    with changed("Svd"):
        return tf.linalg.svd(a, compute_uv=False)


def registered_eigen(a):
    with changed("SelfAdjointEigV2"):
        return tf.linalg.eigvalsh((a + tf.linalg.matrix_transpose(a)) / 2)


def of_ctc(logits):
    return bad_ctc(logits)


def of_resize(x):
    return bad_resize(x) ** 2


def registered_crop(x, boxes):
    with changed("CropAndResize"):
        return tf.image.crop_and_resize(x, boxes, [0, 0], [2, 2])


def in_py_function(x):
    y = tf.py_function(lambda v: tf.sin(_bad_in_python(v)), [x], x.dtype)
    y.set_shape(x.shape)
    return y * 2


def of_numpy(x):
    return bad_numpy_sine(x) * x


def of_keywords(x):
    return bad_power(x, exponent=3.0) + tf.sin(x)


def of_own_variables():
    w, b = tf.Variable(floats(3), name="w"), tf.Variable(floats(3, seed=1), name="b")

    @tf.custom_gradient
    def affine(x):
        def grad(up, variables=None):
            by = {"w:0": tf.reduce_sum(up * x, 0), "b:0": 2 * tf.reduce_sum(up, 0)}
            return up * w, [by[v.name] for v in variables]

        return x * w + b, grad

    return lambda x: tf.tanh(affine(x))


def penalty_of_wrong_second(x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(bad_second(x))
    return tf.reduce_sum(tape.gradient(y, x) ** 2)


def undeclared_straight(x):
    return straight(3 * x) * 0.5


def of_noise(x):
    return bad_scale(x, tf.random.stateless_normal(x.shape, [1, 2])) + x


def dropped(x):
    return bad_dropout(x, tf.cast(tf.random.uniform(x.shape, seed=1) > 0.5, x.dtype)) ** 2


def shared_variable():
    w = tf.Variable(floats(3), name="w")
    return lambda x: tf.sin(x * w) + bad_square(tf.convert_to_tensor(w))


def partly_frozen():
    w, frozen = tf.Variable(floats(2, 2), name="w"), tf.Variable(floats(2, 2, seed=1), name="frozen", trainable=False)
    return lambda x: bad_product(x @ frozen, tf.convert_to_tensor(w))


def registered_broadcast(x, b):
    with changed("BiasAdd", "Last"):
        return tf.nn.bias_add(x, b) ** 2


def registered_einsum(a, b):
    with changed("Einsum"):
        return tf.einsum("ij,jk->ik", a, b) ** 2


def registered_pool(x):
    with changed("AvgPool"):
        return tf.nn.avg_pool2d(x, 2, 2, "VALID") ** 2


# ------------------------------------------------------------------------------------------------- layers and models


class Bad(layers.Layer):
    """A layer that does one wrong thing with what it is given, and right ones with its variable."""

    def __init__(self, act: Callable[[Any], Any], name: str = "bad") -> None:
        super().__init__(name=name)
        self.act = act

    def call(self, x):
        return self.act(x)


class BadDense(layers.Layer):
    def __init__(self, units: int = 2, name: str = "bad") -> None:
        super().__init__(name=name)
        self.units = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")
        self.bias = self.add_weight(shape=(self.units,), name="bias")

    def call(self, x):
        return bad_product(x, tf.convert_to_tensor(self.kernel)) + self.bias


class BadBias(BadDense):
    def call(self, x):
        return bad_bias(tf.matmul(x, self.kernel), tf.convert_to_tensor(self.bias))


class BadConv(layers.Layer):
    def __init__(self) -> None:
        super().__init__(name="bad")

    def build(self, shape):
        self.kernel = self.add_weight(shape=(3, 3, shape[-1], 2), name="kernel")

    def call(self, x):
        return bad_conv(x, tf.convert_to_tensor(self.kernel))


class BadEmbedding(layers.Layer):
    def __init__(self) -> None:
        super().__init__(name="bad")

    def build(self, shape):
        self.table = self.add_weight(shape=(5, 3), name="table")

    def call(self, ids):
        return bad_lookup(tf.convert_to_tensor(self.table), tf.cast(ids, tf.int32))


class BadScale(layers.Layer):
    def __init__(self) -> None:
        super().__init__(name="bad")

    def build(self, shape):
        self.scale = self.add_weight(shape=shape[-1:], name="scale", initializer="ones")

    def call(self, x):
        return bad_scale(x, tf.convert_to_tensor(self.scale))


class BadCell(layers.SimpleRNNCell):
    """A recurrent cell with a wrong activation."""

    def __init__(self) -> None:
        super().__init__(2, activation=bad_tanh)


class BadAttention(layers.Layer):
    def __init__(self) -> None:
        super().__init__(name="bad")
        self.q, self.k, self.v = (layers.Dense(3, name=n) for n in "qkv")

    def build(self, shape):
        for part in (self.q, self.k, self.v):
            part.build(shape)

    def call(self, x):
        scores = tf.matmul(self.q(x), self.k(x), transpose_b=True)
        return bad_softmax(scores) @ self.v(x)


class Registered(layers.Layer):
    """A layer of Keras inside a scope in which the gradient of one op is wrong."""

    def __init__(self, inner: Any, op: str, which: str = "") -> None:
        super().__init__(name="around")
        self.inner, self.op, self.which = inner, op, which

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        with changed(self.op, self.which):
            return self.inner(x)


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="subclassed")
        self.first, self.second = layers.Dense(3, name="first"), BadDense()

    def call(self, x):
        return self.second(tf.tanh(self.first(x)))


class TiedBad(keras.Model):
    """One matrix used twice, the second time with a wrong gradient."""

    def __init__(self) -> None:
        super().__init__(name="tied")
        self.dense = layers.Dense(3, name="dense")

    def call(self, x):
        kernel = tf.convert_to_tensor(self.dense(x) is not None and self.dense.kernel)
        return bad_product(self.dense(x), kernel)


def bad_loss(y, p):
    return tf.reduce_mean(bad_square(p - y))


def unscaled_loss(y, p):
    return bad_mean((p - y) ** 2)


def last_loss(y, p):
    return 0.5 * bad_identity_of_loss(tf.reduce_mean((p - y) ** 2))


def bad_penalty(w):
    return 0.1 * tf.reduce_sum(bad_square(w))


def dense(units: int = 3) -> Callable[[], Any]:
    return lambda: layers.Dense(units)


def functional():
    keras.utils.set_random_seed(3)
    x = keras.Input((4,))
    y = layers.Add()([layers.Dense(3, name="one")(x), Bad(bad_norm)(layers.Dense(3, name="two")(x))])
    return keras.Model(x, layers.Dense(2, name="last")(y), name="functional"), floats(3, 4)


def nested():
    keras.utils.set_random_seed(3)
    inner = keras.Sequential([layers.Dense(3, name="inside"), BadDense()], name="inner")
    return keras.Sequential([keras.Input((4,)), inner, layers.Dense(2, name="after")], name="outer"), floats(2, 4)


def frozen():
    made, x = stack(dense(), layers.BatchNormalization, lambda: BadDense(2), shape=(4,), batch=4)()
    made.layers[0].trainable = made.layers[1].trainable = False
    return made, x


def u_net():
    keras.utils.set_random_seed(3)
    image = keras.Input((4, 4, 1))
    down = layers.Conv2D(2, 3, padding="same", activation="tanh", name="down")(image)
    x = layers.AveragePooling2D(2)(down)
    x = layers.Conv2DTranspose(2, 2, strides=2, name="up")(layers.Conv2D(2, 3, padding="same", name="mid")(x))
    x = BadConv()(layers.Concatenate()([x, down]))
    return keras.Model(image, x, name="u_net"), floats(1, 4, 4, 1)


def transformer():
    keras.utils.set_random_seed(3)
    ids = keras.Input((3,), dtype="int32")
    x = layers.Embedding(5, 3, name="tokens")(ids)
    x = layers.LayerNormalization(name="norm")(x + BadAttention()(x))
    return keras.Model(ids, layers.Dense(2, name="head")(x), name="transformer"), np.array([[1, 4, 2]])


def with_loss(make, y):
    return lambda: (*make(), y)


def wrong_of(op: str, source: str, function: str | None = None) -> Culprit:
    return Culprit(op=op, source=source, function=function)


def _by(function: str, source: str | None = None) -> Culprit:
    return Culprit(op="custom_gradient", source=source or f"{function}(", function=function)


def fault(name: str, fn: Any, *inputs: Any, culprit: Culprit, x: str | None = "inputs[0]", **more: Any) -> Case:
    verdict = more.pop("verdict", Verdict.MISMATCH)
    return Case(name=name, check=gradcheck.check_gradients, make=lambda: (fn, list(inputs)), options=more,
                verdict=verdict, x=x, culprit=culprit)  # fmt: skip


def built(name: str, make: Any, *inputs: Any, culprit: Culprit, x: str) -> Case:
    return Case(name=name, check=gradcheck.check_gradients, make=lambda: (make(), list(inputs)),
                verdict=Verdict.MISMATCH, x=x, culprit=culprit)  # fmt: skip


def broken(name: str, make: Any, *, culprit: Culprit, x: str | None, **more: Any) -> Case:
    return Case(name=name, check=gradcheck.check_model, make=make, options=more, verdict=Verdict.MISMATCH, x=x,
                culprit=culprit)  # fmt: skip


def reference() -> Case:
    return Case(
        name="reference variable", check=lambda **_: of_reference_variable(bad_square), make=lambda: (),
        verdict=Verdict.MISMATCH, x="w", culprit=_by("bad_square", "then(w)"),
    )  # fmt: skip


BOXES = np.float32([[0.11, 0.13, 0.82, 0.71], [0.07, 0.21, 0.93, 0.97]])
FUNCTIONS = (
    fault("in a while loop", in_while, floats(3), culprit=_by("bad_tanh")),
    fault("in nested while loops", in_nested_while, floats(3), culprit=_by("bad_square")),
    fault("registered, in a while loop", registered_in_while, floats(3), culprit=wrong_of("Tanh", "tf.tanh(s) * x")),
    fault("in scan", in_scan, floats(3, 2), culprit=_by("bad_tanh")),
    fault("in map_fn", in_map, floats(3, 2), culprit=_by("bad_square")),
    fault("before vectorized_map", before_vectorized_map, floats(3, 2), culprit=_by("bad_square")),
    fault("in foldl", in_fold, positive(3, 2), culprit=_by("bad_tanh")),
    fault("in the branch taken", in_taken_branch, floats(3), culprit=_by("bad_square")),
    fault("registered, in a branch", registered_in_branch, floats(3), culprit=wrong_of("Exp", "tf.exp(x)")),
    fault("in a TensorArray", in_tensor_array, floats(3), culprit=_by("bad_square")),
    fault("in nested functions", in_nested_functions, floats(3), culprit=_by("bad_square")),
    fault("in compiled code", in_compiled, floats(3), culprit=_by("bad_tanh")),
    fault("in recompute_grad", in_recomputed, floats(3), culprit=_by("bad_square")),
    fault("of ragged values", of_ragged, floats(5), culprit=_by("bad_square", "map_flat_values")),
    fault("registered, of ragged rows", of_ragged_registered, floats(5),
          culprit=wrong_of("UnsortedSegmentSum", "tf.reduce_sum(ragged")),
    fault("registered, of a sparse product", of_sparse, floats(4), floats(3, 2), x="inputs[1]",
          culprit=wrong_of("SparseTensorDenseMatMul", "sparse_dense_matmul")),
    fault("of sparse values", of_sparse_values, floats(4), culprit=_by("bad_square")),
    fault("duplicates of an embedding lost", lookup, floats(4, 2), culprit=_by("bad_lookup")),
    fault("registered, of a gather", registered_gather, floats(3, 2), culprit=wrong_of("GatherV2", "tf.gather(x")),
    fault("registered, of a scatter", registered_scatter, floats(3), culprit=wrong_of("ScatterNd", "tf.scatter_nd")),
    fault("TensorFlow's own: duplicates of a TensorArray's gather", gathered_list, floats(4, 2),
          culprit=wrong_of("TensorListGather", "array.gather")),
    fault("TensorFlow's own: no gradient of joined sparse tensors", joined_sparse, floats(4), verdict=Verdict.CUT,
          culprit=wrong_of("SparseConcat", "tf.sparse.concat")),
    fault("TensorFlow's own: no gradient of a resize by area", resized_by_area, floats(1, 3, 3, 1),
          verdict=Verdict.CUT, culprit=wrong_of("ResizeArea", 'method="area"')),
    fault("of a segment mean", of_segments, floats(5), culprit=_by("bad_segment_mean")),
    fault("of a sort", of_sorted, floats(4), culprit=_by("bad_sort")),
    fault("of top_k", of_top, floats(4), culprit=_by("bad_top")),
    fault("of an FFT", of_fft, floats(4, dtype=c64), culprit=_by("bad_fft")),
    fault("registered, of a real FFT", registered_fft, floats(6), culprit=wrong_of("RFFT", "tf.signal.rfft")),
    fault("of a complex square", of_complex, floats(3, dtype=c64), culprit=_by("bad_complex_square")),
    fault("registered, of a complex magnitude", registered_complex, floats(3, dtype=c64),
          culprit=wrong_of("ComplexAbs", "tf.abs(z * z)")),
    fault("of an inverse", of_inverse, floats(3, 3) + 3 * np.eye(3, dtype=np.float32), culprit=_by("bad_inverse")),
    fault("of a Cholesky factor", of_cholesky, definite(3), culprit=_by("bad_cholesky")),
    fault("of a solve", of_solve, floats(3, 3) + 3 * np.eye(3, dtype=np.float32), floats(3, 1, seed=1), x=None,
          culprit=_by("bad_solve")),
    fault("of a determinant", of_determinant, floats(2, 2) + 3 * np.eye(2, dtype=np.float32),
          culprit=_by("bad_determinant")),
    fault("registered, of a QR", registered_qr, floats(3, 2), culprit=wrong_of("Qr", "tf.linalg.qr(a)")),
    fault("registered, of an SVD", registered_svd, floats(3, 2), culprit=wrong_of("Svd", "tf.linalg.svd")),
    fault("registered, of eigenvalues", registered_eigen, definite(3),
          culprit=wrong_of("SelfAdjointEigV2", "tf.linalg.eigvalsh")),
    fault("of a CTC loss", of_ctc, floats(2, 4, 3), culprit=_by("bad_ctc")),
    fault("of a resize", of_resize, floats(1, 2, 2, 1), culprit=_by("bad_resize")),
    fault("registered, of crops", registered_crop, floats(1, 4, 4, 1), BOXES,
          culprit=wrong_of("CropAndResize", "crop_and_resize")),
    fault("in py_function", in_py_function, floats(3), culprit=wrong_of("EagerPyFunc", "tf.py_function")),
    fault("of a numpy_function's gradient", of_numpy, floats(3), culprit=_by("bad_numpy_sine")),
    fault("of a custom gradient with keywords", of_keywords, positive(3), culprit=_by("bad_power")),
    built("of a variable of a custom gradient", of_own_variables, floats(2, 3), x="b",
          culprit=_by("affine", "affine(x)")),
    fault("in a gradient penalty", penalty_of_wrong_second, floats(3), culprit=_by("slope", "slope(x, up)")),
    fault("straight-through, undeclared", undeclared_straight, floats(3), culprit=_by("straight")),
    fault("straight-through, declared with another slope", undeclared_straight, floats(3), culprit=_by("straight"),
          surrogate=lambda x: x),
    fault("of noise", of_noise, floats(3), culprit=_by("bad_scale")),
    fault("of a dropout", dropped, floats(6), culprit=_by("bad_dropout")),
    built("of one use of a shared variable", shared_variable, floats(3), x="w", culprit=_by("bad_square")),
    built("of a variable beside a frozen one", partly_frozen, floats(2, 2), x="w", culprit=_by("bad_product")),
    fault("registered, of a bias", registered_broadcast, floats(3, 2), floats(2), x="inputs[1]",
          culprit=wrong_of("BiasAdd", "tf.nn.bias_add")),
    fault("registered, of an einsum", registered_einsum, floats(2, 3), floats(3, 2, seed=1),
          culprit=wrong_of("Einsum", "tf.einsum")),
    fault("registered, of a pooling", registered_pool, floats(1, 4, 4, 1),
          culprit=wrong_of("AvgPool", "tf.nn.avg_pool2d")),
    reference(),
)  # fmt: skip

TARGET = floats(2, 2, seed=7)
MODELS = (
    broken("dense kernel", stack(dense(), BadDense, shape=(4,)), x="stack/bad/kernel", culprit=_by("bad_product")),
    broken("dense kernel in training", stack(dense(), lambda: layers.Dropout(0.3), BadDense, shape=(4,)),
           training=True, x="stack/bad/kernel", culprit=_by("bad_product")),
    broken("dense bias", stack(dense(), BadBias, shape=(4,)), x="stack/bad/bias", culprit=_by("bad_bias")),
    broken("dense in a subclassed model", lambda: (Subclassed(), floats(2, 4)), x="subclassed/bad/kernel",
           culprit=_by("bad_product")),
    broken("activation", stack(dense(), lambda: Bad(bad_tanh), dense(2), shape=(4,)), x=None,
           culprit=_by("bad_tanh", "self.act(x)")),
    broken("activation of Keras' own layer", stack(lambda: layers.Dense(4, activation=bad_relu), dense(2), shape=(3,)),
           x=None, culprit=_by("bad_relu", "return tf.nn.relu(x)")),
    broken("normalization of a functional model", functional, x=None, culprit=_by("bad_norm", "self.act(x)")),
    broken("nested model", nested, x=None, culprit=_by("bad_product")),
    broken("frozen layers", frozen, x="stack/bad/kernel", training=True, culprit=_by("bad_product")),
    broken("convolution", stack(BadConv, layers.Flatten, dense(2), shape=(4, 4, 1)), x="stack/bad/kernel",
           culprit=_by("bad_conv")),
    broken("U-Net", u_net, x="bad/kernel", culprit=_by("bad_conv")),
    broken("embedding", lambda: (BadEmbedding(), np.array([[1, 2, 1]])), x="bad/table", culprit=_by("bad_lookup")),
    broken("scale", stack(dense(), BadScale, shape=(4,)), x="stack/bad/scale", culprit=_by("bad_scale")),
    broken("recurrent cell", lambda: (layers.RNN(BadCell()), floats(2, 4, 2)), x=None,
           culprit=_by("bad_tanh", "lambda up: up * (1 - y)")),
    broken("attention", transformer, x=None, culprit=_by("bad_softmax")),
    broken("tied weights", lambda: (TiedBad(), floats(2, 3)), x="tied/dense/kernel", culprit=_by("bad_product")),
    broken("LSTM with a wrong sigmoid",
           lambda: (Registered(layers.LSTM(2, unroll=True, name="lstm"), "Sigmoid"), floats(2, 3, 2)), x=None,
           culprit=wrong_of("Sigmoid", "self.inner(x)")),
    broken("attention with a wrong softmax",
           lambda: (Registered(SelfAttending(), "Softmax"), floats(1, 3, 4)), x=None,
           culprit=wrong_of("Softmax", "self.inner")),
    broken("convolution with a wrong kernel gradient",
           lambda: (Registered(layers.Conv2D(2, 2, name="conv"), "Conv2D", "Last"), floats(1, 4, 4, 1)),
           x="around/conv/kernel", culprit=wrong_of("Conv2D", "self.inner(x)")),
    broken("batch normalization with a wrong root",
           lambda: (Registered(layers.LayerNormalization(name="norm"), "Rsqrt"), floats(2, 4)), wrt="inputs",
           x="inputs[0]", culprit=wrong_of("Rsqrt", "self.inner(x)")),
    broken("loss", with_loss(stack(dense(2), shape=(4,)), TARGET), loss=bad_loss, x=None,
           culprit=_by("bad_square", "bad_square(p - y)")),
    broken("loss that sums where it averages", with_loss(stack(dense(2), shape=(4,)), TARGET), loss=unscaled_loss,
           x=None, culprit=_by("bad_mean")),
    broken("loss that ignores what comes after it", with_loss(stack(dense(2), shape=(4,)), TARGET), loss=last_loss,
           x=None, culprit=_by("bad_identity_of_loss")),
    broken("regularizer",
           with_loss(stack(dense(), lambda: layers.Dense(2, kernel_regularizer=bad_penalty, name="bad"), shape=(4,)),
                     TARGET), loss="mse", x="stack/bad/kernel", culprit=_by("bad_square", "bad_square(w)")),
    *(broken(f"dense kernel in {name}", policy(name, stack(dense(), BadDense, shape=(4,))), x="stack/bad/kernel",
             culprit=_by("bad_product")) for name in ("mixed_bfloat16", "mixed_float16", "float64")),
    broken("activation in mixed_bfloat16",
           policy("mixed_bfloat16", stack(dense(), lambda: Bad(bad_square), shape=(4,))), x=None,
           culprit=_by("bad_square", "self.act(x)")),
)  # fmt: skip


class SelfAttending(layers.Layer):
    def __init__(self) -> None:
        super().__init__(name="attending")
        self.inner = layers.MultiHeadAttention(2, 2, name="heads", flash_attention=False)

    def build(self, shape):
        self.inner.build(shape, shape)

    def call(self, x):
        return self.inner(x, x)


def in_switch_case(x):
    return tf.switch_case(tf.cast(tf.reduce_sum(x) < 9.0, tf.int32), [lambda: 2 * x, lambda: tf.sin(bad_square(x))])


def of_generator_draws(x):
    return tf.sin(bad_scale(x, tf.random.normal(x.shape, seed=3)))


def through_numpy_beside(x):
    return tf.numpy_function(np.sin, [x], tf.float32) + x**2


def of_chosen_positions(x):
    return tf.cast(tf.math.top_k(x, 2).indices, x.dtype) * 0.5


def of_assigned():
    kept = tf.Variable(np.zeros(3, np.float32), trainable=False)

    def run(x):
        kept.assign(tf.sin(x))
        return kept * 2.0

    return run


def registered(layer: Callable[[], Any], op: str, which: str, *shape: int, x: str | None, **more: Any) -> Case:
    """A layer of Keras in which the gradient of one op is wrong."""
    name = layer().name
    return broken(f"{name} with a wrong {op}", lambda: (Registered(layer(), op, which), floats(*shape)), x=x,
                  culprit=wrong_of(op, "self.inner(x)"), **more)  # fmt: skip


DEEPER = (
    fault("in a branch of several", in_switch_case, floats(3), culprit=_by("bad_square")),
    fault("of stateful draws", of_generator_draws, floats(3), culprit=_by("bad_scale")),
    fault("one of two ways through numpy_function", through_numpy_beside, floats(3),
          culprit=wrong_of("PyFunc", "tf.numpy_function")),
    fault("positions of top_k", of_chosen_positions, floats(4), verdict=Verdict.CUT,
          culprit=wrong_of("TopKV2", "tf.math.top_k")),
    Case(name="through an assigned variable", check=gradcheck.check_gradients,
         make=lambda: (of_assigned(), [floats(3)]), verdict=Verdict.CUT, x="inputs[0]",
         culprit=wrong_of("ReadVariableOp", "return kept * 2.0")),
    fault("of second derivatives", bad_second, floats(3), order=2, culprit=_by("slope", "slope(x, up)")),
    registered(lambda: layers.Conv2DTranspose(2, 2, name="transposed"), "Conv2DBackpropInput", "Last", 1, 3, 3, 1,
               x="inputs[0]", wrt="inputs"),
    registered(lambda: layers.Conv3D(1, 2, name="volume"), "Conv3D", "Last", 1, 3, 3, 3, 1, x="around/volume/kernel"),
    registered(lambda: layers.DepthwiseConv2D(2, name="depthwise"), "DepthwiseConv2dNative", "Last", 1, 4, 4, 2,
               x="around/depthwise/kernel"),
    registered(lambda: layers.MaxPooling2D(2, name="pooled"), "MaxPool", "", 1, 4, 4, 1, x="inputs[0]", wrt="inputs"),
    registered(lambda: layers.GRU(2, unroll=True, name="gru"), "Tanh", "", 2, 3, 2, x=None),
    registered(lambda: layers.Bidirectional(layers.SimpleRNN(2, unroll=True), name="both"), "Tanh", "", 1, 3, 2,
               x=None),
    registered(lambda: layers.GroupNormalization(2, name="groups"), "Rsqrt", "", 2, 3, 4, x="inputs[0]", wrt="inputs"),
    broken("loss with sample weights", with_loss(stack(dense(2), shape=(4,)), TARGET), loss=unscaled_loss,
           sample_weight=np.array([0.5, 2.0]), x=None, culprit=_by("bad_mean")),
)  # fmt: skip

WRONG: tuple[Case, ...] = FUNCTIONS + MODELS + DEEPER
