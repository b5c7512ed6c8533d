"""Right and wrong subjects, with the verdict that each has earned.

Subjects are module-level functions; those named in rows with `built=True` are called first and give the function to
check, because it owns variables. A wrong subject is wrong on purpose, in one way.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf

import gradcheck
from gradcheck import Verdict

MODES = ("auto", "directional", "elementwise", "jacobian")
CUT, INCONCLUSIVE, MATCH, MISMATCH = Verdict.CUT, Verdict.INCONCLUSIVE, Verdict.MATCH, Verdict.MISMATCH
NONDETERMINISTIC, NONFINITE = Verdict.NONDETERMINISTIC, Verdict.NONFINITE
NONSMOOTH, UNCONNECTED = Verdict.NONSMOOTH, Verdict.UNCONNECTED
bf16 = tf.bfloat16.as_numpy_dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A subject at a point, and what a check has to say of it."""

    name: str
    subject: Callable[..., Any]
    inputs: Any  # or a function without arguments that makes them
    verdict: Verdict = MATCH  # in WRONG the default means MISMATCH
    ok: bool = True
    built: bool = False  # `subject` makes the function to check
    modes: tuple[str, ...] = MODES
    options: Mapping[str, Any] = field(default_factory=dict)
    index: tuple[int, ...] | None = None  # of the worst finding
    x: str | None = None  # path of the worst finding's input
    op: str | None = None  # op type that the worst finding names, as cut or blame
    says: str | None = None  # what the report's text must say, as a pattern
    slow: bool = False
    known_failure: str | None = None
    failing_modes: tuple[str, ...] = MODES

    def case(self) -> tuple[Callable[..., Any], Any]:
        """The function and its inputs, made anew."""
        fn = self.subject() if self.built else self.subject
        return fn, self.inputs() if callable(self.inputs) else self.inputs


def normal(*shape: int, seed: int = 0, dtype: Any = np.float64, scale: float = 1.0, mean: float = 0.0) -> Any:
    rng = np.random.default_rng(seed)
    values = rng.normal(mean, scale, shape)
    if np.dtype(dtype).kind == "c":
        values = values + 1j * rng.normal(mean, scale, shape)
    return values.astype(dtype)


def positive(*shape: int, seed: int = 0, dtype: Any = np.float64) -> Any:
    return np.random.default_rng(seed).uniform(0.5, 2.0, shape).astype(dtype)


def definite(n: int, seed: int = 0, dtype: Any = np.float64) -> Any:
    a = normal(n, n, seed=seed)
    return (a @ a.T + n * np.eye(n)).astype(dtype)


def array(*values: Any, dtype: Any = np.float64) -> Any:
    return np.array(values, dtype)


f16, f32, f64, c64, c128 = np.float16, np.float32, np.float64, np.complex64, np.complex128
FEW = ("auto", "directional", "elementwise")
DIRECTIONAL = ("auto", "directional")

# ------------------------------------------------------------------------------------------------- elementwise


def atan2(y, x):
    return tf.atan2(y, x)


def power(x, y):
    return x**y


def xlogy(x, y):
    return tf.math.xlogy(x, y)


def igamma(a, x):
    return tf.math.igamma(a, x)


def gelu(x):
    return tf.nn.gelu(x, approximate=False)


def clip(x):
    return tf.clip_by_value(x, -0.5, 0.5)


def norm(x):
    return tf.norm(x, axis=-1)


def clip_by_norm(x):
    return tf.clip_by_norm(x, 0.7)


def safe_where(x):
    positive_x = tf.where(x > 0, x, tf.ones_like(x))
    return tf.where(x > 0, tf.sqrt(positive_x), x)


def sine_50(x):
    return tf.sin(50 * x)


def large_constant(x):
    return 1e6 + 1e-3 * tf.sin(x)


def scaled_1e_30(x):
    return 1e-30 * tf.sin(x)


def scaled_1e30(x):
    return 1e30 * tf.sin(x)


def scaled_1e20(x):
    return 1e20 * tf.sin(x)


def sine_of_1e8(x):
    return tf.sin(1e8 * x)


def sine_of_1e_8(x):
    return tf.sin(1e-8 * x)


def square(x):
    return x * x


def sum_of_squares(x):
    return tf.reduce_sum(x * x)


def mean_of_cubes(x):
    return tf.reduce_mean(x**3)


def step(x):
    """A jump at 0, beside a smooth term that has a gradient."""
    return x + tf.where(x >= 0, tf.ones_like(x), tf.zeros_like(x))


def maximum(x):
    return tf.reduce_max(x, axis=-1)


def product_with_zeros(x):
    return tf.reduce_prod(x, axis=-1)


def real_of_complex(z):
    return tf.math.real(tf.exp(z) * tf.math.conj(z))


def absolute(z):
    return tf.abs(z)


def conjugate_product(z, w):
    return z * tf.math.conj(w)


def angle_and_magnitude(z):
    return tf.math.angle(z) * tf.abs(z)


def complex_of_real(x):
    return tf.complex(tf.sin(x), x * x)


def polynomial_mixed(x):
    return x**5 - 3 * x**2 + 1 / (1 + x * x)


# ---------------------------------------------------------------------------------- reductions, losses, linear algebra


def log_sum_exp(x):
    return tf.reduce_logsumexp(x, axis=-1)


def softmax_cross_entropy_of_logits(logits):
    labels = tf.constant([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]], logits.dtype)
    return tf.nn.softmax_cross_entropy_with_logits(labels, logits)


def sparse_cross_entropy(labels, logits):
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


def sigmoid_cross_entropy(logits):
    return tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.ones_like(logits) * 0.3, logits=logits)


def matmul(a, b):
    return tf.matmul(a, b)


def matmul_transposed(a, b):
    return tf.matmul(a, b, transpose_a=True, transpose_b=True)


def einsum(a, b):
    return tf.einsum("bij,bjk,bk->bi", a, b, b[:, 0])


def conv2d(x, k):
    return tf.nn.conv2d(x, k, strides=2, padding="SAME")


def conv_transpose(x, k):
    return tf.nn.conv2d_transpose(x, k, output_shape=[1, 6, 6, 2], strides=2)


def depthwise(x, k):
    return tf.nn.depthwise_conv2d(x, k, strides=[1, 1, 1, 1], padding="VALID")


def max_pool(x):
    return tf.nn.max_pool2d(x, 2, 2, "VALID")


def avg_pool(x):
    return tf.nn.avg_pool2d(x, 2, 1, "SAME")


def layer_norm(x, gamma, beta):
    mean, variance = tf.nn.moments(x, axes=[-1], keepdims=True)
    return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3)


def fused_batch_norm(x, scale, offset):
    y, mean, variance = tf.compat.v1.nn.fused_batch_norm(x, scale, offset, is_training=True)
    del mean, variance
    return y


def cumulative_sum(x):
    return tf.cumsum(x, axis=1, reverse=True, exclusive=True)


def cumulative_product(x):
    return tf.math.cumprod(x, axis=1)


def cumulative_logsumexp(x):
    return tf.math.cumulative_logsumexp(x, axis=1)


def sort(x):
    return tf.sort(x, direction="DESCENDING")


def top_k(x):
    return tf.math.top_k(x, k=2).values


def centred(x):
    return x - tf.reduce_mean(x)


def gather_duplicates(x):
    return tf.gather(x, [0, 2, 2, 0, 1])


def gather_nd(x):
    return tf.gather_nd(x, [[0, 1], [2, 0], [0, 1]])


def segment_sum(x):
    return tf.math.segment_sum(x, [0, 0, 1, 2, 2])


def unsorted_segment_mean(x):
    return tf.math.unsorted_segment_mean(x, [2, 0, 1, 2, 0], 3)


def scatter_update(x, y):
    return tf.tensor_scatter_nd_update(x, [[1], [3]], y)


def cholesky(a):
    return tf.linalg.cholesky((a + tf.transpose(a)) / 2)


def inverse(a):
    return tf.linalg.inv(a)


def solve(a, b):
    return tf.linalg.solve(a, b)


def least_squares(a, b):
    return tf.linalg.lstsq(a, b)


def triangular_solve(a, b):
    return tf.linalg.triangular_solve(a, b, lower=True)


def log_determinant(a):
    return tf.linalg.slogdet(a).log_abs_determinant


def matrix_exponential(a):
    return tf.linalg.expm(a)


def singular_values(a):
    return tf.linalg.svd(a, compute_uv=False)


def eigen_projector(a):
    """The projector on the leading eigenvector, which does not depend on its sign."""
    values, vectors = tf.linalg.eigh((a + tf.transpose(a)) / 2)
    lead = vectors[:, -1:]
    return values[-1] * tf.matmul(lead, lead, transpose_b=True)


def qr_upper(a):
    q, r = tf.linalg.qr(a)
    return tf.matmul(q, r) * tf.abs(r[0, 0])


def fft(z):
    return tf.signal.fft(z)


def power_spectrum(x):
    return tf.abs(tf.signal.rfft(x)) ** 2


def short_time_transform(x):
    return tf.abs(tf.signal.stft(x, frame_length=8, frame_step=4)) ** 2


def resize_bilinear(x):
    return tf.image.resize(x, [5, 7])


def resize_bicubic(x):
    return tf.image.resize(x, [5, 7], method="bicubic")


def pad_reflect(x):
    return tf.pad(x, [[1, 2], [2, 1]], mode="REFLECT")


def strided_slice(x):
    return x[::-1, 1::2] * x[:1, :1]


def ctc_loss(logits):
    labels = tf.constant([[1, 2, 1], [2, 2, 0]])
    return tf.nn.ctc_loss(labels, logits, [3, 2], [6, 5], logits_time_major=False, blank_index=0)


# ------------------------------------------------------------------------------------------------- control flow


def while_loop(x, w):
    def body(i, state):
        return i + 1, tf.tanh(state * w + x)

    return tf.while_loop(lambda i, _: i < 4, body, [0, x])[1]


def while_with_data_dependent_end(x):
    return tf.while_loop(lambda s: tf.reduce_sum(s) < 20.0, lambda s: (s * 1.7,), [x])[0]


def nested_while(x):
    def outer(i, s):
        inner = tf.while_loop(lambda j, _: j < i + 1, lambda j, t: (j + 1, tf.sin(t) + x), [0, s])
        return i + 1, inner[1] * 0.5

    return tf.while_loop(lambda i, _: i < 3, outer, [0, x])[1]


def scan(x):
    return tf.scan(lambda carry, e: tf.tanh(carry * e + e), x, initializer=tf.ones_like(x[0]))


def map_fn(x):
    return tf.map_fn(lambda row: tf.reduce_sum(row * row) * row, x)


def fold(x):
    return tf.foldl(lambda a, e: tf.sin(a) * e, x)


def vectorized(x):
    return tf.vectorized_map(lambda row: row * tf.reduce_sum(row**3), x)


def cond(x):
    return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.exp(x), lambda: x * x)


def cond_of_bool(flag, x):
    return tf.cond(flag, lambda: tf.exp(x), lambda: x * x)


def switch_case(which, x):
    return tf.switch_case(which, [lambda: x, lambda: x**3, lambda: tf.sin(x)])


def bool_and_floats():
    return [tf.constant(True), normal(3, dtype=f32)]


def branch_and_floats():
    return [tf.constant(1), normal(3)]


def tensor_array(x):
    ta = tf.TensorArray(x.dtype, size=0, dynamic_size=True, clear_after_read=False)
    for i in range(3):
        ta = ta.write(i, x[i] ** (i + 1))
    return ta.stack() * ta.read(1)


@tf.function
def _inner(x):
    return tf.sin(x) * x


@tf.function
def nested_functions(x):
    return _inner(_inner(x) + x)


@tf.function(jit_compile=True)
def compiled(x):
    return tf.reduce_sum(tf.tanh(x) * x, axis=-1)


@tf.function
def autograph(x):
    total = tf.zeros_like(x)
    for i in tf.range(3):
        if tf.reduce_sum(x) > tf.cast(i, x.dtype):
            total += x**2
        else:
            total += tf.sin(x)
    return total


def python_branch(x):
    if tf.reduce_sum(x) > 0:
        return x * x
    return tf.exp(x)


def _eager_cube(x):
    return x**3


def python_function(x):
    y = tf.py_function(_eager_cube, [x], x.dtype)
    y.set_shape(x.shape)
    return y + x


def _numpy_sine(x):
    return np.sin(x)


def _numpy_cosine(x):
    return np.cos(x)


@tf.custom_gradient
def numpy_sine(x):
    y = tf.numpy_function(_numpy_sine, [x], x.dtype)
    y.set_shape(x.shape)

    def gradient(up):
        slope = tf.numpy_function(_numpy_cosine, [x], x.dtype)
        slope.set_shape(x.shape)
        return up * slope

    return y, gradient


def numpy_with_gradient(x):
    return numpy_sine(x) * 2


def recomputed(x):
    return tf.recompute_grad(_deep)(x)


def _deep(x):
    for _ in range(3):
        x = tf.tanh(x) * 1.3
    return x


def gradient_penalty(x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(tf.sin(x) * x)
    return tf.reduce_sum((tape.gradient(y, x) - 1) ** 2)


def gradients_inside(x):
    y = tf.reduce_sum(x**3)
    return y + tf.reduce_sum(tf.gradients(y, x)[0] ** 2)


# ------------------------------------------------------------------------------------------ variables and layers


def closure_over_variables():
    v = tf.Variable(normal(3, seed=5), name="v")
    frozen = tf.Variable(normal(3, seed=6), trainable=False, name="frozen")

    def scaled(x):
        return v * tf.sin(x) + frozen * v

    return scaled


def embedding():
    table = tf.Variable(normal(6, 3, seed=1), name="table")

    def looked_up(ids):
        return tf.reduce_sum(tf.nn.embedding_lookup(table, ids) ** 2, axis=-1)

    return looked_up


def variable_in_loop():
    w = tf.Variable(normal(3, 3, seed=1, scale=0.5), name="w")

    def recurrent(x):
        return tf.while_loop(lambda i, _: i < 3, lambda i, s: (i + 1, tf.tanh(tf.matmul(s, w))), [0, x])[1]

    return recurrent


def variable_in_function():
    w = tf.Variable(normal(3, seed=1), name="w")

    @tf.function
    def inner(x):
        return w * x**2

    def outer(x):
        return inner(x) + inner(x * w)

    return outer


def keras_dense():
    return tf.keras.layers.Dense(3, activation="gelu", kernel_initializer=_glorot(1), bias_initializer=_glorot(2))


def _glorot(seed):
    return tf.keras.initializers.RandomNormal(stddev=0.5, seed=seed)


def keras_conv2d():
    return tf.keras.layers.Conv2D(2, 3, padding="same", activation="tanh", kernel_initializer=_glorot(1))


def keras_layer_norm():
    return tf.keras.layers.LayerNormalization()


class _InTraining:
    """A layer, called as in training."""

    def __init__(self, layer):
        self.layer = layer
        self.__name__ = layer.name

    def __call__(self, *args):
        return self.layer(*args, training=True)


def keras_batch_norm():
    layer = tf.keras.layers.BatchNormalization()
    layer.build((None, 3))
    return _InTraining(layer)


def keras_batch_norm_images():
    layer = tf.keras.layers.BatchNormalization()
    layer.build((None, 4, 4, 2))
    return _InTraining(layer)


def keras_lstm():
    return tf.keras.layers.LSTM(2, kernel_initializer=_glorot(1), recurrent_initializer=_glorot(2))


def keras_gru():
    return tf.keras.layers.GRU(
        2, return_sequences=True, kernel_initializer=_glorot(1), recurrent_initializer=_glorot(2)
    )


def keras_attention():
    layer = tf.keras.layers.MultiHeadAttention(2, 2, kernel_initializer=_glorot(1))
    layer.build((1, 3, 4), (1, 3, 4))
    return layer


def keras_embedding():
    layer = tf.keras.layers.Embedding(5, 2, embeddings_initializer=_glorot(1))

    def embedded(ids):
        return tf.tanh(layer(ids)) ** 2

    return embedded


def keras_dropout():
    return _InTraining(tf.keras.layers.Dropout(0.5, seed=3))


def keras_model():
    model = tf.keras.Sequential(
        [
            tf.keras.layers.Dense(4, activation="tanh", kernel_initializer=_glorot(1)),
            tf.keras.layers.Dropout(0.3, seed=1),
            tf.keras.layers.BatchNormalization(),
            tf.keras.layers.Dense(2, activation="softmax", kernel_initializer=_glorot(2)),
        ]
    )
    model.build((None, 3))
    return _InTraining(model)


# ------------------------------------------------------------------------------------------ held on purpose


def stopped(x):
    return x * tf.stop_gradient(tf.exp(x))


def stopped_in_while(x):
    def body(i, s):
        return i + 1, s * tf.stop_gradient(tf.sin(s) + x) + x

    return tf.while_loop(lambda i, _: i < 3, body, [0, x])[1]


def stopped_in_nested_while(x):
    def outer(i, s):
        inner = tf.while_loop(lambda j, _: j < 2, lambda j, t: (j + 1, t * tf.stop_gradient(tf.cos(t * x))), [0, s])
        return i + 1, inner[1] + x

    return tf.while_loop(lambda i, _: i < 2, outer, [0, x])[1]


def stopped_in_cond(x):
    return tf.cond(tf.reduce_sum(x) > 0, lambda: x * tf.stop_gradient(x * x), lambda: x)


def stopped_in_cond_in_while(x):
    def body(i, s):
        return i + 1, tf.cond(i < 1, lambda: s * tf.stop_gradient(s), lambda: tf.sin(s) * x)

    return tf.while_loop(lambda i, _: i < 3, body, [0, x])[1]


def stopped_in_switch(which, x):
    return tf.switch_case(which, [lambda: x, lambda: x * tf.stop_gradient(tf.exp(x)), lambda: tf.sin(x)])


@tf.function
def _stopped_inner(x):
    return x * tf.stop_gradient(x**3)


def stopped_in_function(x):
    return _stopped_inner(tf.sin(x)) + x


def stopped_in_map(x):
    return tf.map_fn(lambda e: e * tf.stop_gradient(tf.reduce_sum(e * e)), x)


def stopped_in_scan(x):
    return tf.scan(lambda c, e: tf.tanh(c * tf.stop_gradient(c + e) + e), x, initializer=tf.ones_like(x[0]))


@tf.function(jit_compile=True)
def stopped_in_compiled(x):
    return x * tf.stop_gradient(tf.exp(x))


def straight_through(x):
    return (x + tf.stop_gradient(tf.round(x) - x)) ** 2


def stopped_twice(x):
    """A stopped value that depends on another stopped value."""
    y = tf.stop_gradient(x * x) * x
    return tf.stop_gradient(tf.sin(y)) * y


def stopped_variable():
    v = tf.Variable(normal(3, seed=2), name="v")

    def target_network(x):
        return (v * x - tf.stop_gradient(tf.sin(v) * x)) ** 2

    return target_network


def normal_noise(x):
    return x * tf.random.normal(tf.shape(x), dtype=x.dtype)


def stateless_noise(x):
    return x * tf.random.stateless_uniform(tf.shape(x), seed=[1, 2], dtype=x.dtype)


def noise_in_loop(x):
    def body(i, s):
        return i + 1, s * tf.random.uniform(tf.shape(x), 0.5, 1.5, dtype=x.dtype) + x

    return tf.while_loop(lambda i, _: i < 3, body, [0, x])[1]


def stateless_noise_in_loop(x):
    def body(i, s):
        return i + 1, s * tf.random.stateless_normal(tf.shape(x), [i, 2], dtype=x.dtype) + x

    return tf.while_loop(lambda i, _: i < 3, body, [0, x])[1]


def dropout(x):
    return tf.nn.dropout(tf.sin(x), 0.5)


def generator_noise():
    generator = tf.random.Generator.from_seed(7)

    def drawn(x):
        return x * generator.normal(tf.shape(x), dtype=x.dtype)

    return drawn


def shuffled(x):
    return tf.gather(x, tf.random.shuffle(tf.range(4))) * x


# ------------------------------------------------------------------------------------------------- structures

Pair = namedtuple("Pair", ["left", "right"])


def of_mapping(batch):
    return {"sum": batch["a"] + batch["b"][0], "nested": [batch["b"][1] ** 2, (batch["a"] * 3,)]}


def of_named_tuple(pair):
    return Pair(left=pair.left * pair.right, right=tf.sin(pair.right))


def of_keywords(a, b):
    return a * tf.exp(b)


def of_ragged(ragged):
    return tf.reduce_sum(ragged * ragged, axis=1)


def to_ragged(x):
    return tf.RaggedTensor.from_row_splits(tf.sin(x), [0, 2, 2, 4])


def of_sparse(sparse, dense):
    return tf.sparse.sparse_dense_matmul(sparse, dense)


def ragged_inputs():
    return [tf.ragged.constant([[1.0, 2.0], [], [3.0]], dtype=tf.float64)]


def sparse_inputs():
    return [tf.SparseTensor([[0, 1], [1, 0]], tf.constant([2.0, 3.0], tf.float64), [2, 2]), normal(2, 3)]


def of_mixed(x, index, flag, text):
    del text
    return tf.where(flag, tf.gather(x, index), 0)


def of_scalars(x, y):
    return x * x + tf.sin(y)


def partly_unconnected(x, y):
    return x * x, y * 3


def unused_input(x, y):
    del y
    return x * x


def shape_only(x, y):
    return x * tf.cast(tf.shape(y)[0], x.dtype)


def constant_output(x):
    return tf.ones_like(x) * 2


def thirty_outputs(x):
    return [tf.sin(x * (k + 1)) for k in range(30)]


def variable_input():
    return [tf.Variable(normal(3), name="given")]


def empty_sum(x):
    return tf.reduce_sum(x) + 1


def document_stop_gradients(a):
    b = 2 * a
    return gradcheck.Gradients(ys=a + b, xs=[a, b], stop_gradients=[a, b])


def gradients_of_intermediate(x):
    h = tf.sin(x)
    return gradcheck.Gradients(ys=[h * h, h], xs=[h, x], grad_ys=[None, None])


# --------------------------------------------------------------------- correct, and hard to see as such in float32


def variance(x):
    return tf.math.reduce_variance(x)


def variance_by_moments(x):
    return tf.reduce_mean(x * x) - tf.reduce_mean(x) ** 2


def deep_log_softmax(x):
    w = tf.constant(normal(5, 5, seed=9), x.dtype)
    for _ in range(12):
        x = tf.tanh(tf.matmul(x, w))
    return tf.nn.log_softmax(x * 20)


def small_differences(x, y):
    return tf.reduce_sum((tf.exp(x) - tf.exp(y)) ** 2)


def deep_tanh(x):
    for _ in range(30):
        x = tf.tanh(1.5 * x)
    return x


def cancelling_cosine(x):
    """1 - cos(x): the value loses digits in float32 near 0, its gradient sin(x) does not."""
    return 1 - tf.cos(x)


def log_sigmoid_deep(x):
    return tf.math.log_sigmoid(x)


def sigmoid_saturated(x):
    return tf.sigmoid(x)


def normalized(x):
    return x / tf.norm(x)


RIGHT = (
    Row(name="sin", subject=tf.sin, inputs=[normal(4)]),
    Row(name="exp of float32", subject=tf.exp, inputs=[normal(4, dtype=f32)]),
    Row(name="tanh of float16", subject=tf.tanh, inputs=[normal(4, dtype=f16)]),
    Row(name="sigmoid of bfloat16", subject=tf.sigmoid, inputs=[normal(4, dtype=bf16)]),
    Row(name="square of float16", subject=square, inputs=[normal(4, dtype=f16)]),
    Row(name="mean of cubes, bfloat16", subject=mean_of_cubes, inputs=[normal(20, dtype=bf16)]),
    Row(name="exp of complex64", subject=tf.exp, inputs=[normal(3, dtype=c64)]),
    Row(name="square of complex128", subject=square, inputs=[normal(3, dtype=c128)]),
    Row(name="real part, not holomorphic", subject=real_of_complex, inputs=[normal(3, dtype=c128)]),
    Row(name="abs of complex64", subject=absolute, inputs=[normal(3, dtype=c64)]),
    Row(
        name="conjugate product",
        subject=conjugate_product,
        inputs=[normal(3, dtype=c128), normal(3, seed=1, dtype=c128)],
    ),
    Row(name="angle", subject=angle_and_magnitude, inputs=[normal(3, dtype=c128)]),
    Row(name="complex of real", subject=complex_of_real, inputs=[normal(3, dtype=f32)]),
    Row(name="log", subject=tf.math.log, inputs=[positive(4)]),
    Row(name="softplus", subject=tf.math.softplus, inputs=[array(-30.0, -1.0, 0.0, 2.0, 40.0)]),
    Row(name="gelu", subject=gelu, inputs=[normal(5, dtype=f32)]),
    Row(name="lgamma", subject=tf.math.lgamma, inputs=[positive(4)]),
    Row(name="digamma in float32", subject=tf.math.digamma, inputs=[positive(4, dtype=f32)]),
    Row(name="erf", subject=tf.math.erf, inputs=[normal(4, dtype=f32)]),
    Row(name="erfinv", subject=tf.math.erfinv, inputs=[array(-0.7, 0.1, 0.9)]),
    Row(name="atan2", subject=atan2, inputs=[normal(4), normal(4, seed=1)]),
    Row(name="power", subject=power, inputs=[positive(4), normal(4, seed=1)]),
    Row(name="xlogy", subject=xlogy, inputs=[positive(2), array(2.0, 3.0)]),
    Row(name="igamma", subject=igamma, inputs=[positive(3), positive(3, seed=1)]),
    Row(name="polynomial", subject=polynomial_mixed, inputs=[normal(4)]),
    Row(name="selu", subject=tf.nn.selu, inputs=[normal(5)]),
    Row(name="relu near 0, 1e-3", subject=tf.nn.relu, inputs=[array(1e-3, -1e-3, 1.0)]),
    Row(name="relu near 0, 1e-6", subject=tf.nn.relu, inputs=[array(1e-6, -1e-6, 1.0)]),
    Row(name="relu near 0, 1e-9", subject=tf.nn.relu, inputs=[array(1e-9, -1e-9, 1.0)]),
    Row(name="relu at 0", subject=tf.nn.relu, inputs=[array(0.0, 1.0)], verdict=NONSMOOTH),
    Row(name="relu at 0 in float32", subject=tf.nn.relu, inputs=[array(0.0, -1.0, dtype=f32)], verdict=NONSMOOTH),
    Row(name="abs at 0", subject=tf.abs, inputs=[array(0.0, 2.0)], verdict=NONSMOOTH),
    Row(name="step at 0", subject=step, inputs=[array(0.0, 1.0)], verdict=NONSMOOTH),
    Row(name="max with ties", subject=maximum, inputs=[array([1.0, 3.0, 3.0], [0.0, 1.0, 2.0])], verdict=NONSMOOTH),
    Row(name="clip", subject=clip, inputs=[array(-0.9, -0.4, 0.1, 0.7)]),
    Row(name="clip at its edge", subject=clip, inputs=[array(0.5, 0.1)], verdict=NONSMOOTH),
    Row(name="norm", subject=norm, inputs=[normal(3, 4)]),
    Row(name="clip by norm", subject=clip_by_norm, inputs=[normal(3, 2)]),
    Row(name="safe where", subject=safe_where, inputs=[array(-1.0, -0.5, 0.5, 2.0)]),
    Row(name="sin(50x)", subject=sine_50, inputs=[normal(4)]),
    Row(name="sin(50x) in float32", subject=sine_50, inputs=[normal(4, dtype=f32)]),
    Row(name="large constant plus small term", subject=large_constant, inputs=[normal(3)]),
    Row(name="f scaled by 1e-30", subject=scaled_1e_30, inputs=[normal(3)]),
    Row(name="f scaled by 1e-30 in float32", subject=scaled_1e_30, inputs=[normal(3, dtype=f32)]),
    Row(name="f scaled by 1e30", subject=scaled_1e30, inputs=[normal(3)]),
    Row(name="f scaled by 1e20 in float32", subject=scaled_1e20, inputs=[normal(3, dtype=f32)]),
    Row(name="f scaled by 1e30 in float32", subject=scaled_1e30, inputs=[normal(3, dtype=f32)]),
    Row(name="x of 1e-8", subject=sine_of_1e8, inputs=[normal(3, scale=1e-8)]),
    Row(name="x of 1e-8 in float32", subject=sine_of_1e8, inputs=[normal(3, scale=1e-8, dtype=f32)]),
    Row(name="x of 1e8", subject=sine_of_1e_8, inputs=[normal(3, scale=1e8)]),
    Row(name="float32 square at 1e5", subject=square, inputs=[normal(3, scale=1e5, dtype=f32)]),
    Row(name="x of mixed scales", subject=tf.tanh, inputs=[array(1e-12, -1e-4, 0.0, 3.0)]),
    Row(
        name="sum of 1e5 squares in float32",
        subject=sum_of_squares,
        inputs=[normal(100_000, dtype=f32)],
        modes=DIRECTIONAL,
    ),
    Row(
        name="mean of 1e5 cubes in float32",
        subject=mean_of_cubes,
        inputs=[normal(100_000, dtype=f32)],
        modes=DIRECTIONAL,
    ),
    Row(name="product with a zero", subject=product_with_zeros, inputs=[array([2.0, 0.0, 3.0], [1.0, 2.0, 4.0])]),
    Row(name="softmax", subject=tf.nn.softmax, inputs=[normal(2, 4, dtype=f32)]),
    Row(name="softmax of two", subject=tf.nn.softmax, inputs=[array(0.0, 1.0)], options={"seed": 4}),
    Row(
        name="softmax, saturated",
        subject=tf.nn.softmax,
        inputs=[array(0.0, -700.0, 30.0)],
        options={"seed": 1},
        known_failure="a derivative of 1e-13 of a value of 1: the numeric error is above the resolution asked for",
        failing_modes=("auto", "jacobian"),
    ),
    Row(name="centred pair", subject=centred, inputs=[array(0.0, 1.0)], options={"seed": 4}),
    Row(name="log_softmax, logits of 50", subject=tf.nn.log_softmax, inputs=[normal(2, 4, scale=50, dtype=f32)]),
    Row(name="logsumexp", subject=log_sum_exp, inputs=[normal(2, 4)]),
    Row(name="softmax cross-entropy", subject=softmax_cross_entropy_of_logits, inputs=[normal(2, 3)]),
    Row(
        name="softmax cross-entropy, logits of 50",
        subject=softmax_cross_entropy_of_logits,
        inputs=[normal(2, 3, scale=50, dtype=f32)],
    ),
    Row(name="sparse cross-entropy", subject=sparse_cross_entropy, inputs=[np.array([1, 0]), normal(2, 3, dtype=f32)]),
    Row(name="sigmoid cross-entropy", subject=sigmoid_cross_entropy, inputs=[normal(4, scale=10)]),
    Row(name="matmul", subject=matmul, inputs=[normal(2, 3), normal(3, 2, seed=1)]),
    Row(
        name="matmul in float32",
        subject=matmul,
        inputs=[normal(4, 30, dtype=f32), normal(30, 2, seed=1, dtype=f32)],
        modes=FEW,
    ),
    Row(name="matmul in float16", subject=matmul, inputs=[normal(2, 3, dtype=f16), normal(3, 2, seed=1, dtype=f16)]),
    Row(name="matmul in bfloat16", subject=matmul, inputs=[normal(2, 3, dtype=bf16), normal(3, 2, seed=1, dtype=bf16)]),
    Row(name="matmul of complex64", subject=matmul, inputs=[normal(2, 2, dtype=c64), normal(2, 2, seed=1, dtype=c64)]),
    Row(name="matmul, both transposed", subject=matmul_transposed, inputs=[normal(3, 2), normal(2, 3, seed=1)]),
    Row(name="einsum", subject=einsum, inputs=[normal(2, 2, 3), normal(2, 3, 3, seed=1)]),
    Row(
        name="conv2d",
        subject=conv2d,
        inputs=[normal(1, 5, 5, 2, dtype=f32), normal(3, 3, 2, 2, seed=1, dtype=f32)],
        modes=FEW,
    ),
    Row(
        name="conv2d in float16",
        subject=conv2d,
        inputs=[normal(1, 4, 4, 1, dtype=f16), normal(3, 3, 1, 1, seed=1, dtype=f16)],
    ),
    Row(
        name="transposed convolution",
        subject=conv_transpose,
        inputs=[normal(1, 3, 3, 1, dtype=f32), normal(3, 3, 2, 1, seed=1, dtype=f32)],
        modes=FEW,
    ),
    Row(
        name="depthwise convolution",
        subject=depthwise,
        inputs=[normal(1, 4, 4, 2, dtype=f32), normal(2, 2, 2, 1, seed=1, dtype=f32)],
        modes=FEW,
    ),
    Row(name="max pool", subject=max_pool, inputs=[normal(1, 4, 4, 1, dtype=f32)]),
    Row(name="average pool", subject=avg_pool, inputs=[normal(1, 4, 4, 1, dtype=f32)]),
    Row(
        name="layer norm",
        subject=layer_norm,
        inputs=[normal(2, 4, dtype=f32), positive(4, dtype=f32), normal(4, dtype=f32)],
    ),
    Row(
        name="fused batch norm in training",
        subject=fused_batch_norm,
        inputs=[normal(3, 2, 2, 2, dtype=f32), positive(2, dtype=f32), normal(2, dtype=f32)],
        modes=FEW,
    ),
    Row(name="cumsum", subject=cumulative_sum, inputs=[normal(2, 4)]),
    Row(name="cumprod", subject=cumulative_product, inputs=[normal(2, 4)]),
    Row(name="cumulative logsumexp", subject=cumulative_logsumexp, inputs=[normal(2, 4)]),
    Row(name="sort", subject=sort, inputs=[normal(5)]),
    Row(name="top_k", subject=top_k, inputs=[normal(2, 5)]),
    Row(name="gather with duplicates", subject=gather_duplicates, inputs=[normal(3, 2)]),
    Row(name="gather_nd", subject=gather_nd, inputs=[normal(3, 2)]),
    Row(name="segment_sum", subject=segment_sum, inputs=[normal(5, 2)]),
    Row(name="unsorted_segment_mean", subject=unsorted_segment_mean, inputs=[normal(5)]),
    Row(name="scatter update", subject=scatter_update, inputs=[normal(4), normal(2, seed=1)]),
    Row(name="cholesky", subject=cholesky, inputs=[definite(3)]),
    Row(name="cholesky in float32", subject=cholesky, inputs=[definite(3, dtype=f32)]),
    Row(name="inverse", subject=inverse, inputs=[definite(3)]),
    Row(
        name="inverse in float32, ill-conditioned", subject=inverse, inputs=[array([1.0, 1.0], [1.0, 1.001], dtype=f32)]
    ),
    Row(name="solve", subject=solve, inputs=[definite(3), normal(3, 2, seed=1)]),
    Row(name="least squares", subject=least_squares, inputs=[normal(4, 2), normal(4, 1, seed=1)]),
    Row(name="triangular solve", subject=triangular_solve, inputs=[definite(3), normal(3, 1, seed=1)]),
    Row(name="log determinant", subject=log_determinant, inputs=[definite(3)]),
    Row(name="matrix exponential", subject=matrix_exponential, inputs=[normal(2, 2)]),
    Row(name="singular values", subject=singular_values, inputs=[normal(3, 2)]),
    Row(name="singular values in float32", subject=singular_values, inputs=[normal(3, 2, dtype=f32)]),
    Row(name="eigenvectors", subject=eigen_projector, inputs=[definite(3)]),
    Row(name="qr", subject=qr_upper, inputs=[normal(3, 2)]),
    Row(name="fft", subject=fft, inputs=[normal(4, dtype=c64)]),
    Row(name="power spectrum", subject=power_spectrum, inputs=[normal(6, dtype=f32)]),
    Row(name="short-time transform", subject=short_time_transform, inputs=[normal(16, dtype=f32)], modes=FEW),
    Row(name="bilinear resize", subject=resize_bilinear, inputs=[normal(1, 3, 4, 1, dtype=f32)], modes=FEW),
    Row(name="bicubic resize", subject=resize_bicubic, inputs=[normal(1, 3, 4, 1, dtype=f32)], modes=FEW),
    Row(name="reflecting pad", subject=pad_reflect, inputs=[normal(3, 3)]),
    Row(name="strided slice", subject=strided_slice, inputs=[normal(3, 4)]),
    Row(name="ctc loss", subject=ctc_loss, inputs=[normal(2, 6, 3, dtype=f32)], modes=FEW),
    Row(name="while loop", subject=while_loop, inputs=[normal(2), normal(2, seed=1)]),
    Row(name="while loop in float32", subject=while_loop, inputs=[normal(2, dtype=f32), normal(2, seed=1, dtype=f32)]),
    Row(name="while with an end that depends on data", subject=while_with_data_dependent_end, inputs=[positive(3)]),
    Row(name="nested while", subject=nested_while, inputs=[normal(2, dtype=f32)]),
    Row(name="scan", subject=scan, inputs=[normal(3, 2)]),
    Row(name="map_fn", subject=map_fn, inputs=[normal(3, 2)]),
    Row(name="fold", subject=fold, inputs=[normal(3, 2)]),
    Row(name="vectorized_map", subject=vectorized, inputs=[normal(3, 2)]),
    Row(name="cond", subject=cond, inputs=[normal(3)]),
    Row(name="cond of a bool", subject=cond_of_bool, inputs=bool_and_floats),
    Row(name="cond of a Python bool, which cannot be traced", subject=cond_of_bool, inputs=[True, normal(3)]),
    Row(name="switch_case", subject=switch_case, inputs=branch_and_floats),
    Row(name="TensorArray", subject=tensor_array, inputs=[normal(3)]),
    Row(name="nested functions", subject=nested_functions, inputs=[normal(3, dtype=f32)]),
    Row(name="jit_compile", subject=compiled, inputs=[normal(2, 3, dtype=f32)]),
    Row(name="autograph", subject=autograph, inputs=[normal(3)]),
    Row(name="python branch on a tensor", subject=python_branch, inputs=[positive(3)]),
    Row(name="py_function", subject=python_function, inputs=[normal(3)]),
    Row(name="py_function in float32", subject=python_function, inputs=[normal(3, dtype=f32)]),
    Row(name="numpy_function with a custom gradient", subject=numpy_with_gradient, inputs=[normal(3)]),
    Row(
        name="numpy_function with a custom gradient, float32",
        subject=numpy_with_gradient,
        inputs=[normal(3, dtype=f32)],
    ),
    Row(name="recompute_grad", subject=recomputed, inputs=[normal(3)]),
    Row(name="gradient penalty", subject=gradient_penalty, inputs=[normal(3)]),
    Row(name="tf.gradients inside", subject=gradients_inside, inputs=[normal(3)]),
    Row(name="second order", subject=polynomial_mixed, inputs=[normal(3)], options={"order": 2}),
    Row(
        name="second order of softmax cross-entropy",
        subject=softmax_cross_entropy_of_logits,
        inputs=[normal(2, 3)],
        options={"order": 2},
    ),
    Row(name="closure over variables", subject=closure_over_variables, built=True, inputs=[normal(3)]),
    Row(
        name="frozen variable, asked for",
        subject=closure_over_variables,
        built=True,
        inputs=[normal(3)],
        options={"wrt": "frozen"},
    ),
    Row(name="embedding_lookup", subject=embedding, built=True, inputs=[np.array([1, 4, 1, 0])]),
    Row(name="variable in a loop", subject=variable_in_loop, built=True, inputs=[normal(2, 3)]),
    Row(name="variable in a function", subject=variable_in_function, built=True, inputs=[normal(3)]),
    Row(name="variable as input", subject=square, inputs=variable_input),
    Row(name="Dense", subject=keras_dense, built=True, inputs=[normal(2, 4, dtype=f32)]),
    Row(name="Conv2D", subject=keras_conv2d, built=True, inputs=[normal(1, 4, 4, 2, dtype=f32)], modes=FEW),
    Row(name="LayerNormalization", subject=keras_layer_norm, built=True, inputs=[normal(2, 4, dtype=f32)]),
    Row(name="BatchNormalization in training", subject=keras_batch_norm, built=True, inputs=[normal(4, 3, dtype=f32)]),
    Row(
        name="BatchNormalization of images",
        subject=keras_batch_norm_images,
        built=True,
        inputs=[normal(2, 4, 4, 2, dtype=f32)],
        modes=FEW,
    ),
    Row(name="LSTM", subject=keras_lstm, built=True, inputs=[normal(2, 3, 2, dtype=f32)], modes=FEW),
    Row(name="GRU", subject=keras_gru, built=True, inputs=[normal(2, 3, 2, dtype=f32)], modes=FEW),
    Row(
        name="MultiHeadAttention",
        subject=keras_attention,
        built=True,
        inputs=[normal(1, 3, 4, dtype=f32), normal(1, 3, 4, seed=1, dtype=f32)],
        modes=FEW,
    ),
    Row(name="Embedding", subject=keras_embedding, built=True, inputs=[np.array([[1, 2, 1]])]),
    Row(name="Dropout in training", subject=keras_dropout, built=True, inputs=[normal(2, 4, dtype=f32)]),
    Row(name="Keras model in training", subject=keras_model, built=True, inputs=[normal(4, 3, dtype=f32)], modes=FEW),
    Row(name="stop_gradient", subject=stopped, inputs=[normal(3)]),
    Row(name="stop_gradient in float32", subject=stopped, inputs=[normal(3, dtype=f32)]),
    Row(name="stop_gradient in while", subject=stopped_in_while, inputs=[normal(2)]),
    Row(name="stop_gradient in nested while", subject=stopped_in_nested_while, inputs=[normal(2)]),
    Row(name="stop_gradient in cond", subject=stopped_in_cond, inputs=[positive(3)]),
    Row(name="stop_gradient in cond in while", subject=stopped_in_cond_in_while, inputs=[normal(2)]),
    Row(name="stop_gradient in switch_case", subject=stopped_in_switch, inputs=branch_and_floats),
    Row(name="stop_gradient in a function", subject=stopped_in_function, inputs=[normal(3)]),
    Row(name="stop_gradient in map_fn", subject=stopped_in_map, inputs=[normal(3, 2)]),
    Row(name="stop_gradient in scan", subject=stopped_in_scan, inputs=[normal(3, 2)]),
    Row(name="stop_gradient in compiled code", subject=stopped_in_compiled, inputs=[normal(3, dtype=f32)]),
    Row(name="stop_gradient twice", subject=stopped_twice, inputs=[normal(3)]),
    Row(name="stop_gradient of a variable", subject=stopped_variable, built=True, inputs=[normal(3)]),
    Row(name="straight-through estimator", subject=straight_through, inputs=[normal(4, scale=3)]),
    Row(name="stateful noise", subject=normal_noise, inputs=[normal(3)]),
    Row(name="stateful noise in float32", subject=normal_noise, inputs=[normal(3, dtype=f32)]),
    Row(name="stateless noise", subject=stateless_noise, inputs=[normal(3, dtype=f32)]),
    Row(name="stateful noise in a loop", subject=noise_in_loop, inputs=[normal(3)]),
    Row(name="stateless noise in a loop", subject=stateless_noise_in_loop, inputs=[normal(3)]),
    Row(name="dropout", subject=dropout, inputs=[normal(4, dtype=f32)]),
    Row(name="noise of a Generator", subject=generator_noise, built=True, inputs=[normal(3)]),
    Row(name="shuffled", subject=shuffled, inputs=[normal(4)]),
    Row(
        name="mapping in and out",
        subject=of_mapping,
        inputs=[{"a": normal(2), "b": [normal(2, seed=1), normal(3, seed=2)]}],
    ),
    Row(name="named tuple in and out", subject=of_named_tuple, inputs=[Pair(normal(2), normal(2, seed=1))]),
    Row(name="named tuple, as the only input", subject=of_named_tuple, inputs=Pair(normal(2), normal(2, seed=1))),
    Row(name="keyword inputs", subject=of_keywords, inputs={"b": normal(2), "a": normal(2, seed=1)}),
    Row(name="ragged input", subject=of_ragged, inputs=ragged_inputs),
    Row(name="ragged output", subject=to_ragged, inputs=[normal(4)]),
    Row(name="sparse input", subject=of_sparse, inputs=sparse_inputs),
    Row(
        name="int, bool and string mixed in",
        subject=of_mixed,
        inputs=[normal(4), np.array([1, 3]), np.array([True, False]), "text"],
        says=r"not differentiable: inputs\[1\] \(int64\)",
    ),
    Row(name="numpy scalar of float64", subject=sine_50, inputs=np.float64(1.1)),
    Row(name="scalars", subject=of_scalars, inputs=[np.float64(1.5), array(0.3)[0]]),
    Row(name="python floats", subject=of_scalars, inputs=[1.5, -0.3]),
    Row(name="one python float", subject=tf.sin, inputs=1.5),
    Row(name="empty tensor", subject=empty_sum, inputs=[np.zeros((0, 3))], verdict=UNCONNECTED),
    Row(name="empty output", subject=tf.sin, inputs=[np.zeros((0,))], verdict=UNCONNECTED),
    Row(name="thirty outputs", subject=thirty_outputs, inputs=[normal(2)]),
    Row(name="outputs unconnected to some inputs", subject=partly_unconnected, inputs=[normal(2), normal(2, seed=1)]),
    Row(name="unused input", subject=unused_input, inputs=[normal(2), normal(2, seed=1)]),
    Row(name="only the shape of an input", subject=shape_only, inputs=[normal(2), normal(3, seed=1)]),
    Row(name="constant output", subject=constant_output, inputs=[normal(2)], verdict=UNCONNECTED),
    Row(name="stop_gradients of the document", subject=document_stop_gradients, inputs=np.float64(0.0)),
    Row(name="gradients of an intermediate", subject=gradients_of_intermediate, inputs=[normal(3)]),
    Row(name="given cotangents", subject=square, inputs=[normal(3)], options={"grad_ys": array(0.0, 2.0, -1.0)}),
    Row(name="float32 variance, large mean", subject=variance, inputs=[normal(50, mean=1e4, dtype=f32)], modes=FEW),
    Row(
        name="float32 variance by moments",
        subject=variance_by_moments,
        inputs=[normal(50, mean=1e3, dtype=f32)],
        modes=FEW,
    ),
    Row(name="float32 log_softmax, deep", subject=deep_log_softmax, inputs=[normal(2, 5, dtype=f32)]),
    Row(
        name="float32 small differences",
        subject=small_differences,
        inputs=[normal(5, dtype=f32), (normal(5) + 1e-3 * normal(5, seed=1)).astype(f32)],
    ),
    Row(name="float32 deep tanh", subject=deep_tanh, inputs=[normal(4, dtype=f32)]),
    Row(name="float32 1 - cos", subject=cancelling_cosine, inputs=[array(1e-4, 2e-3, -1e-2, dtype=f32)]),
    Row(name="1 - cos near 0", subject=cancelling_cosine, inputs=[array(1e-4, 2e-3, -1e-2)]),
    Row(
        name="float32 log_sigmoid, deep", subject=log_sigmoid_deep, inputs=[array(-80.0, -10.0, 20.0, 60.0, dtype=f32)]
    ),
    Row(name="float32 sigmoid, saturated", subject=sigmoid_saturated, inputs=[array(-20.0, -5.0, 5.0, dtype=f32)]),
    Row(name="float32 normalized vector", subject=normalized, inputs=[normal(6, dtype=f32, scale=1e-3)]),
    Row(name="bfloat16 softmax", subject=tf.nn.softmax, inputs=[normal(2, 3, dtype=bf16)]),
    Row(name="float16 log_softmax", subject=tf.nn.log_softmax, inputs=[normal(2, 3, dtype=f16)]),
)


# ------------------------------------------------------------------------------------------- wrong on purpose


def _square_times(factor):
    @tf.custom_gradient
    def square_with_factor(x):
        return x * x, lambda up: up * 2 * x * tf.constant(factor, x.dtype)

    return square_with_factor


factor_2 = _square_times(2.0)
factor_1_1e_3 = _square_times(1 + 1e-3)
factor_1_1e_5 = _square_times(1 + 1e-5)
factor_1_1e_6 = _square_times(1 + 1e-6)
factor_1_1e_8 = _square_times(1 + 1e-8)
factor_1_05 = _square_times(1.05)
factor_1_25 = _square_times(1.25)
sign_flipped = _square_times(-1.0)
zeros_returned = _square_times(0.0)


@tf.custom_gradient
def one_entry_wrong(x):
    factor = tf.tensor_scatter_nd_update(tf.ones_like(x), [[537]], tf.constant([1.001], x.dtype))
    return tf.sin(x), lambda up: up * tf.cos(x) * factor


@tf.custom_gradient
def entries_swapped(x):
    return tf.sin(x), lambda up: tf.reverse(up * tf.cos(x), [0])


@tf.custom_gradient
def transposed(a, b):
    def gradient(up):
        return tf.transpose(tf.matmul(up, b, transpose_b=True)), tf.matmul(a, up, transpose_a=True)

    return tf.matmul(a, b), gradient


@tf.custom_gradient
def upstream_forgotten(x):
    return x * x, lambda up: 2 * x + 0 * up


@tf.custom_gradient
def upstream_only_by_sign(x):
    return x * x, lambda up: 2 * x * tf.sign(up)


@tf.custom_gradient
def broadcast_not_reduced(x, b):
    return x + b, lambda up: (up, up)


def broadcast_not_reduced_behind(x, b):
    return tf.sin(broadcast_not_reduced(x, b * 1.0))


@tf.custom_gradient
def mean_for_sum(x):
    return tf.reduce_sum(x * x), lambda up: up * 2 * x / tf.cast(tf.size(x), x.dtype)


@tf.custom_gradient
def inputs_swapped(x, y):
    return x * x * y, lambda up: (up * x * x, up * 2 * x * y)


@tf.custom_gradient
def wrong_below_zero(x):
    return x * x, lambda up: up * tf.where(x < 0, 1.5 * x, 2 * x)


@tf.custom_gradient
def product_term_dropped(x):
    return x * tf.exp(x), lambda up: up * tf.exp(x)


@tf.custom_gradient
def clipped(x):
    return x * x, lambda up: tf.clip_by_value(up * 2 * x, -1, 1)


@tf.custom_gradient
def none_for_second(x, y):
    return x * y, lambda up: (up * y, None)


@tf.custom_gradient
def wrong_dtype(x):
    return x * x, lambda up: tf.cast(up * 2 * x, tf.float64)


@tf.custom_gradient
def duplicates_lost(x):
    """A gather whose gradient keeps only the last of two equal indices."""
    ids = tf.constant([[0], [2], [2]])
    return tf.gather_nd(x, ids), lambda up: tf.tensor_scatter_nd_update(tf.zeros_like(x), ids, up)


def duplicates_lost_in_slices():
    table = tf.Variable(normal(4, 2, seed=1), name="table")

    @tf.custom_gradient
    def rows(x):
        def gradient(up, variables):
            del variables
            found = tf.IndexedSlices(up[:2], tf.constant([1, 3]), tf.constant([4, 2]))
            return tf.zeros_like(x), [found]

        return tf.gather(table, [1, 3, 3]) + 0 * x, gradient

    return rows


def one_variable_wrong():
    v = tf.Variable(normal(3, seed=1), name="v")
    w = tf.Variable(normal(3, seed=2), name="w")

    def both(x):
        return v * x + factor_2(w) * x

    return both


def wrong_in_while(x):
    return tf.while_loop(lambda i, _: i < 3, lambda i, s: (i + 1, factor_1_05(s) * 0.5 + x), [0, x])[1]


def wrong_in_cond(x):
    return tf.cond(tf.reduce_sum(x) > 0, lambda: factor_2(x), lambda: x)


def wrong_in_map(x):
    return tf.map_fn(factor_2, x)


@tf.function
def _wrong_inner(x):
    return factor_2(x) + x


def wrong_in_function(x):
    return _wrong_inner(tf.sin(x))


@tf.function(jit_compile=True)
def wrong_in_compiled(x):
    return factor_2(tf.sin(x))


class _Squaring(tf.keras.layers.Layer):
    def call(self, x):
        return factor_1_25(x)


def wrong_in_layer():
    return tf.keras.Sequential([tf.keras.layers.Dense(3, kernel_initializer=_glorot(1)), _Squaring()])


@tf.custom_gradient
def softplus_cancelling(x):
    """Right in exact arithmetic, yet 1 - 1 / (1 + e^x) has no digits left where e^x is small."""
    return tf.math.softplus(x), lambda up: up * (1 - 1 / (1 + tf.exp(x)))


@tf.custom_gradient
def sqrt_by_difference(x):
    """A numeric gradient in the function's own dtype: half of the digits are gone."""
    h = tf.constant(1e-4, x.dtype)
    return tf.sqrt(x), lambda up: up * (tf.sqrt(x + h) - tf.sqrt(x - h)) / (2 * h)


@tf.custom_gradient
def wrong_in_float32_only(x):
    """A constant that was typed in with six digits and matters only in a narrow dtype's branch."""
    slope = 2 * x if x.dtype == tf.float64 else 2 * x * (1 + 2.0**-14)
    return x * x, lambda up: up * slope


def cosine_quotient(x):
    """(1 - cos x) / x^2 as written: differentiation keeps the cancellation."""
    return (1 - tf.cos(x)) / (x * x)


@tf.custom_gradient
def second_order_wrong(x):
    return x**3, lambda up: up * 3 * _square_wrong_inside(x)


@tf.custom_gradient
def _square_wrong_inside(x):
    return x * x, lambda up: up * 3 * x


def rounded(x):
    return tf.round(x * 3)


def rounded_far(x):
    """No rounding step nearby: the output moves only when x moves far."""
    return tf.floor(x) + tf.zeros_like(x)


def cast_to_int(x):
    return tf.cast(tf.cast(10 * x, tf.int32), x.dtype)


def by_argmax(x):
    return tf.gather(tf.constant([1.0, 5.0, 7.0], x.dtype), tf.argmax(x))


def by_sign(x):
    return tf.sign(x)


def by_comparison(x):
    return tf.cast(x > 0.5, x.dtype)


def numpy_without_gradient(x):
    y = tf.numpy_function(_numpy_sine, [x], x.dtype)
    y.set_shape(x.shape)
    return y


def cut_in_part(x, y):
    return x * x + tf.round(3 * y)


def cut_in_while(x):
    return tf.while_loop(lambda i, _: i < 2, lambda i, s: (i + 1, tf.round(s * 3)), [0, x])[1]


def cut_in_function():
    @tf.function
    def inner(x):
        return tf.round(x * 5)

    def outer(x):
        return inner(tf.sin(x))

    return outer


def unique(x):
    return tf.unique(x)[0] * 2


def betainc(a, b, x):
    return tf.math.betainc(a, b, x)


def detour_through_numpy(x):
    return tf.constant(1.0, x.dtype) * numpy_without_gradient(tf.exp(x)) + 1


def unsafe_where(x):
    return tf.where(x > 0, tf.math.log(x), tf.zeros_like(x))


def unsafe_where_of_power(x):
    return tf.where(x > 0, x**0.5, tf.zeros_like(x))


def square_root(x):
    return tf.sqrt(x)


def noise_above_slope(x):
    return 1e10 + 1e-3 * tf.sin(x)


def drowned(x):
    """A derivative that differences cannot see: 16 digits of the value are spent on a constant."""
    return (x * 1e-12 + 1e6) - 1e6


def norm_at_zero(x):
    return tf.norm(x)


def division(x, y):
    return x / y


def overflowing_exp(x):
    return tf.exp(x * 100)


def log_of_softmax(x):
    return tf.math.log(tf.nn.softmax(x))


def naive_log_sum_exp(x):
    return tf.math.log(tf.reduce_sum(tf.exp(x)))


def nonfinite_in_while(x):
    return tf.while_loop(lambda i, _: i < 3, lambda i, s: (i + 1, tf.math.log(s)), [0, x])[1]


def equal_singular_values(a):
    s, u, v = tf.linalg.svd(a)
    return tf.matmul(u * s, v, adjoint_b=True)


_calls = iter(range(10**9))


def _times_counter(x):
    return x * (1 + next(_calls) % 7)


def counting_python(x):
    y = tf.py_function(_times_counter, [x], x.dtype)
    y.set_shape(x.shape)
    return y


def _noisy(x):
    return x + np.random.default_rng().normal(size=x.shape).astype(x.dtype)


def noisy_numpy(x):
    y = tf.numpy_function(_noisy, [x], x.dtype)
    y.set_shape(x.shape)
    return y + x


def relu_difference(x):
    """x itself, yet TensorFlow's gradient at 0 is 0."""
    return tf.nn.relu(x) - tf.nn.relu(-x)


@tf.custom_gradient
def abs_with_slope_2(x):
    return tf.abs(x), lambda up: up * tf.where(x == 0, 2 * tf.ones_like(x), tf.sign(x))


@tf.custom_gradient
def complex_conjugate_forgotten(z):
    return z * z, lambda up: up * 2 * z


@tf.custom_gradient
def gather_off_by_one(x):
    return x[1:], lambda up: tf.pad(up, [[0, 1]])


@tf.custom_gradient
def cotangent_of_other_output(x):
    return (tf.sin(x), tf.cos(x)), lambda up, down: up * tf.cos(x) - up * tf.sin(x) + 0 * down


@tf.custom_gradient
def softmax_diagonal_only(x):
    y = tf.nn.softmax(x)
    return y, lambda up: up * y * (1 - y)


def layer_norm_wrong_in_gamma(x, gamma):
    mean, variance = tf.nn.moments(x, axes=[-1], keepdims=True)
    return _scale_wrong((x - mean) * tf.math.rsqrt(variance + 1e-3), gamma)


@tf.custom_gradient
def _scale_wrong(x, gamma):
    return x * gamma, lambda up: (up * gamma, tf.reduce_mean(up * x, axis=0))


def noise_in_gradient():
    """The value is repeatable, its gradient is not."""

    @tf.custom_gradient
    def fn(x):
        def gradient(up):
            extra = tf.py_function(_times_counter, [up], up.dtype)
            extra.set_shape(up.shape)
            return extra * 2 * x

        return x * x, gradient

    return fn


def wrong_far_output(x):
    return tf.concat([tf.sin(x), factor_1_1e_3(x)], axis=0)


def tiny_part_wrong(x, y):
    """A wrong term a millionth of the size of the right one."""
    return tf.reduce_sum(x * x) + 1e-6 * tf.reduce_sum(factor_2(y))


WRONG = (
    Row(
        name="factor 2",
        subject=factor_2,
        inputs=[normal(4)],
        says=r"analytic = 2(\.0+)? x numeric in all 4 wrong entries",
    ),
    Row(
        name="factor 2 in float32",
        subject=factor_2,
        inputs=[normal(4, dtype=f32)],
        says=r"analytic = 2(\.0+)? x numeric in all 4 wrong entries",
    ),
    Row(name="factor 2 in float16", subject=factor_2, inputs=[normal(4, dtype=f16)]),
    Row(name="factor 1.05 in bfloat16", subject=factor_1_05, inputs=[normal(4, dtype=bf16)]),
    Row(name="factor 2 in complex64", subject=factor_2, inputs=[normal(3, dtype=c64)]),
    Row(name="factor 1 + 1e-3", subject=factor_1_1e_3, inputs=[normal(4)]),
    Row(name="factor 1 + 1e-6", subject=factor_1_1e_6, inputs=[normal(4)]),
    Row(name="factor 1 + 1e-8", subject=factor_1_1e_8, inputs=[normal(4)]),
    Row(name="factor 1 + 1e-8 of a numpy scalar", subject=factor_1_1e_8, inputs=np.float64(1.1)),
    Row(name="factor 1 + 1e-5 in float32", subject=factor_1_1e_5, inputs=[normal(4, dtype=f32)]),
    Row(name="factor 1 + 1e-5 of large x", subject=factor_1_1e_5, inputs=[normal(4, scale=1e8)]),
    Row(name="factor 1 + 1e-5 of small x", subject=factor_1_1e_5, inputs=[normal(4, scale=1e-8)]),
    Row(name="sign flipped", subject=sign_flipped, inputs=[normal(4)]),
    Row(name="one entry wrong among 1000", subject=one_entry_wrong, inputs=[normal(1000)], index=(537,), modes=FEW),
    Row(
        name="one entry wrong among 1000, float32",
        subject=one_entry_wrong,
        inputs=[normal(1000, dtype=f32)],
        index=(537,),
        modes=FEW,
    ),
    Row(name="entries in reverse order", subject=entries_swapped, inputs=[normal(2)], options={"seed": 9}),
    Row(name="transposed", subject=transposed, inputs=[normal(3, 3), normal(3, 3, seed=1)], x="inputs[0]"),
    Row(
        name="upstream gradient forgotten",
        subject=upstream_forgotten,
        inputs=[normal(4)],
        says="not linear in the cotangent",
    ),
    Row(
        name="upstream gradient forgotten, scalar",
        subject=upstream_forgotten,
        inputs=[np.float64(1.5)],
        says="not linear in the cotangent",
    ),
    Row(
        name="upstream gradient by its sign",
        subject=upstream_only_by_sign,
        inputs=[normal(4)],
        options={"seed": 3},
        says="not linear in the cotangent",
    ),
    Row(name="broadcast not reduced", subject=broadcast_not_reduced, inputs=[normal(3, 2), normal(2, seed=1)]),
    Row(
        name="broadcast not reduced, between ops",
        subject=broadcast_not_reduced_behind,
        inputs=[normal(3, 2), normal(2, seed=1)],
    ),
    Row(name="mean for sum", subject=mean_for_sum, inputs=[normal(5)]),
    Row(name="gradients of two inputs swapped", subject=inputs_swapped, inputs=[normal(3), normal(3, seed=1)]),
    Row(name="wrong below zero", subject=wrong_below_zero, inputs=[array(0.5, 1.0, -0.7, 2.0)], index=(2,)),
    Row(name="term of a product dropped", subject=product_term_dropped, inputs=[normal(3)]),
    Row(name="clipped", subject=clipped, inputs=[array(0.1, 0.4, 3.0)], index=(2,)),
    Row(name="wrong for one closure variable", subject=one_variable_wrong, built=True, inputs=[normal(3)], x="w"),
    Row(name="zeros returned", subject=zeros_returned, inputs=[normal(3)], verdict=CUT),
    Row(
        name="None for the second input",
        subject=none_for_second,
        inputs=[normal(3), normal(3, seed=1)],
        verdict=CUT,
        x="inputs[1]",
    ),
    Row(name="wrong dtype", subject=wrong_dtype, inputs=[normal(3, dtype=f32)], says="dtype float64"),
    Row(name="duplicate indices lost", subject=duplicates_lost, inputs=[normal(4)], index=(2,)),
    Row(
        name="duplicate IndexedSlices lost",
        subject=duplicates_lost_in_slices,
        built=True,
        inputs=[np.float64(1.0)],
        x="table",
    ),
    Row(name="wrong inside while", subject=wrong_in_while, inputs=[normal(2)]),
    Row(name="wrong inside cond", subject=wrong_in_cond, inputs=[positive(3)]),
    Row(name="wrong inside map_fn", subject=wrong_in_map, inputs=[normal(3)]),
    Row(name="wrong inside a function", subject=wrong_in_function, inputs=[normal(3)]),
    Row(name="wrong inside compiled code", subject=wrong_in_compiled, inputs=[normal(3, dtype=f32)]),
    Row(name="wrong inside a Keras layer", subject=wrong_in_layer, built=True, inputs=[normal(2, 3, dtype=f32)]),
    Row(
        name="cancelling in float32",
        subject=softplus_cancelling,
        inputs=[array(-15.0, -12.0, dtype=f32)],
        says="float32|digits",
    ),
    Row(
        name="differences in float32",
        subject=sqrt_by_difference,
        inputs=[positive(3, dtype=f32)],
        says="float32|digits",
    ),
    Row(name="wrong in float32 only", subject=wrong_in_float32_only, inputs=[normal(3, dtype=f32)]),
    Row(
        name="cancelling quotient in float32",
        subject=cosine_quotient,
        inputs=[array(1e-3, -2e-3, dtype=f32)],
        says="float32|digits",
    ),
    Row(name="wrong second derivative", subject=second_order_wrong, inputs=[normal(3)], options={"order": 2}),
    Row(name="round", subject=rounded, inputs=[normal(3)], verdict=CUT, op="Round"),
    Row(name="round in float32", subject=rounded, inputs=[normal(3, dtype=f32)], verdict=CUT, op="Round"),
    Row(name="floor", subject=rounded_far, inputs=[array(0.5, 1.5)], verdict=CUT, op="Floor"),
    Row(name="cast to an integer", subject=cast_to_int, inputs=[normal(3)], verdict=CUT, op="Cast"),
    Row(name="argmax", subject=by_argmax, inputs=[normal(3)], verdict=CUT, op="ArgMax", options={"seed": 3}),
    Row(name="sign", subject=by_sign, inputs=[array(0.5, -0.5)], verdict=CUT, op="Sign"),
    Row(name="comparison", subject=by_comparison, inputs=[array(0.1, 0.9)], verdict=CUT, op="Greater"),
    Row(name="numpy_function", subject=numpy_without_gradient, inputs=[normal(3)], verdict=CUT, op="PyFunc"),
    Row(
        name="numpy_function in float32",
        subject=numpy_without_gradient,
        inputs=[normal(3, dtype=f32)],
        verdict=CUT,
        op="PyFunc",
    ),
    Row(
        name="numpy_function in the middle", subject=detour_through_numpy, inputs=[normal(3)], verdict=CUT, op="PyFunc"
    ),
    Row(
        name="cut for one input",
        subject=cut_in_part,
        inputs=[normal(3), normal(3, seed=1)],
        verdict=CUT,
        op="Round",
        x="inputs[1]",
    ),
    Row(name="cut inside while", subject=cut_in_while, inputs=[normal(3)], verdict=CUT, op="Round"),
    Row(name="cut inside a function", subject=cut_in_function, built=True, inputs=[normal(3)], verdict=CUT, op="Round"),
    Row(name="unique", subject=unique, inputs=[normal(3)], verdict=CUT, op="Unique"),
    Row(
        name="betainc has no gradient for a",
        subject=betainc,
        inputs=[positive(2), positive(2, seed=1), array(0.3, 0.6)],
        verdict=CUT,
        op="Betainc",
    ),
    Row(
        name="unsafe where",
        subject=unsafe_where,
        inputs=[array(0.0, 2.0)],
        verdict=NONFINITE,
        op="Log|Reciprocal",
        says=r"gallery\.py:\d+ in unsafe_where",
    ),
    Row(
        name="unsafe where of a power",
        subject=unsafe_where_of_power,
        inputs=[array(-1.0, 2.0)],
        verdict=NONFINITE,
        op="Pow",
        says=r"gallery\.py:\d+ in unsafe_where_of_power",
    ),
    Row(name="sqrt at 0", subject=square_root, inputs=[array(0.0, 1.0)], verdict=NONFINITE, op="SqrtGrad"),
    Row(
        name="sqrt at 0 in float32",
        subject=square_root,
        inputs=[array(0.0, 1.0, dtype=f32)],
        verdict=NONFINITE,
        op="SqrtGrad",
    ),
    Row(name="norm at 0", subject=norm_at_zero, inputs=[np.zeros(3)], verdict=NONFINITE, op="SqrtGrad|RealDiv"),
    Row(
        name="division by 0",
        subject=division,
        inputs=[array(1.0, 2.0), array(0.0, 1.0)],
        verdict=NONFINITE,
        op="RealDiv",
    ),
    Row(
        name="overflowing exp in float32",
        subject=overflowing_exp,
        inputs=[array(1.0, dtype=f32)],
        verdict=NONFINITE,
        op="Exp",
    ),
    Row(
        name="log of softmax in float32",
        subject=log_of_softmax,
        inputs=[array([0.0, 200.0], dtype=f32)],
        verdict=NONFINITE,
        op="Log",
    ),
    Row(
        name="logsumexp, naive, in float32",
        subject=naive_log_sum_exp,
        inputs=[array(100.0, 1.0, dtype=f32)],
        verdict=NONFINITE,
        op="Exp",
    ),
    Row(
        name="NaN born in a while",
        subject=nonfinite_in_while,
        inputs=[array(1.5)],
        verdict=NONFINITE,
        op="Log",
    ),
    Row(name="equal singular values", subject=equal_singular_values, inputs=[np.eye(2)]),
    Row(name="py_function that counts", subject=counting_python, inputs=[normal(3)], verdict=NONDETERMINISTIC),
    Row(name="numpy_function that draws", subject=noisy_numpy, inputs=[normal(3)], verdict=NONDETERMINISTIC),
    Row(
        name="gradient that counts", subject=noise_in_gradient, built=True, inputs=[normal(3)], verdict=NONDETERMINISTIC
    ),
    Row(name="relu(x) - relu(-x) at 0", subject=relu_difference, inputs=[array(0.0, 1.0)], index=(0,)),
    Row(
        name="abs with slope 2 at 0", subject=abs_with_slope_2, inputs=[array(0.0, 1.0)], verdict=NONSMOOTH, index=(0,)
    ),
    Row(name="conjugate forgotten", subject=complex_conjugate_forgotten, inputs=[normal(3, dtype=c128)]),
    Row(name="gather off by one", subject=gather_off_by_one, inputs=[normal(4)]),
    Row(name="second output's cotangent ignored", subject=cotangent_of_other_output, inputs=[normal(3)]),
    Row(name="only the diagonal of softmax", subject=softmax_diagonal_only, inputs=[normal(2, 3)]),
    Row(
        name="layer norm, mean for sum in gamma",
        subject=layer_norm_wrong_in_gamma,
        inputs=[normal(3, 4), positive(4)],
        x="inputs[1]",
    ),
    Row(name="wrong in some outputs", subject=wrong_far_output, inputs=[normal(3)]),
    Row(
        name="TensorFlow's xlogy at 0",
        subject=xlogy,
        inputs=[array(0.0, 1.0), array(2.0, 3.0)],
        index=(0,),
        x="inputs[0]",
    ),
    Row(name="noise above the derivative", subject=noise_above_slope, inputs=[normal(3)], verdict=INCONCLUSIVE),
    Row(name="derivative below the value's last digit", subject=drowned, inputs=[normal(3)], verdict=INCONCLUSIVE),
    Row(name="a tiny part wrong", subject=tiny_part_wrong, inputs=[normal(3), normal(3, seed=1)], x="inputs[1]"),
)
WRONG = tuple(replace(row, ok=False, verdict=MISMATCH if row.verdict is MATCH else row.verdict) for row in WRONG)
GALLERY = RIGHT + WRONG
