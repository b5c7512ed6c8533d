"""Right functions of TensorFlow's ops, in float32 unless there is no such form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

import gradcheck

from .case import Case, definite, floats, function, positive

c64, c128, f64 = np.complex64, np.complex128, np.float64


def built(name: str, make: Callable[[], Callable[..., Any]], *inputs: Any, **more: Any) -> Case:
    """A case whose function is made anew, because it owns variables."""
    slow = more.pop("slow", False)
    return Case(
        name=name, check=gradcheck.check_gradients, make=lambda: (make(), list(inputs)), options=more, slow=slow
    )


# ------------------------------------------------------------------------------------------------ control flow


def array_of_tensors(x: Any) -> Any:
    array = tf.TensorArray(x.dtype, size=0, dynamic_size=True)
    for i in range(3):
        array = array.write(i, x[i] * x[(i + 1) % 3])
    return array.stack() + array.read(1) if x.shape[0] else x


def array_in_loop(x: Any) -> Any:
    def body(i: Any, array: Any) -> Any:
        return i + 1, array.write(i, tf.sin(x[i]) * (array.read(i - 1) if False else x[0]))

    return tf.while_loop(lambda i, _: i < 4, body, [0, tf.TensorArray(x.dtype, 4)])[1].stack()


def array_scattered(x: Any) -> Any:
    return tf.TensorArray(x.dtype, 4).scatter([3, 0, 2, 1], x).gather([0, 1, 3]) ** 2


def array_unstacked(x: Any) -> Any:
    array = tf.TensorArray(x.dtype, 3, infer_shape=False).unstack(x)
    return array.concat() ** 2


def loop_of_matrices(w: Any, x: Any) -> Any:
    return tf.while_loop(lambda i, _: i < 5, lambda i, s: (i + 1, tf.tanh(s @ w)), [0, x])[1]


def loop_with_break(x: Any) -> Any:
    total = tf.zeros_like(x)
    for i in tf.range(10):
        if i > 3:
            break
        if i == 1:
            continue
        total += tf.sin(x * tf.cast(i, x.dtype))
    return total


def recursion_of_conds(x: Any) -> Any:
    def nested(depth: int, y: Any) -> Any:
        if not depth:
            return tf.exp(-y)
        return tf.cond(tf.reduce_sum(y) > 0, lambda: nested(depth - 1, y * 0.5), lambda: nested(depth - 1, y * y))

    return nested(3, x)


def cond_in_map(x: Any) -> Any:
    return tf.map_fn(lambda r: tf.cond(r[0] > 0, lambda: tf.sin(r), lambda: r * r), x)


def cond_in_vectorized(x: Any) -> Any:
    return tf.vectorized_map(lambda r: tf.where(r > 0, tf.sin(r), r * r) * tf.reduce_sum(r), x)


def vectorized_matmul(x: Any, w: Any) -> Any:
    return tf.vectorized_map(lambda r: tf.linalg.matvec(w, tf.nn.softmax(r)), x)


def nested_vectorized(x: Any) -> Any:
    return tf.vectorized_map(lambda r: tf.vectorized_map(lambda e: e * e * tf.reduce_sum(r), r), x)


def map_of_several(x: Any, y: Any) -> Any:
    return tf.map_fn(lambda p: (p[0] * p[1], tf.reduce_sum(p[1])), (x, y), fn_output_signature=(tf.float32, tf.float32))


def map_of_ragged(x: Any) -> Any:
    rows = tf.RaggedTensor.from_row_lengths(x, [2, 0, 3])
    return tf.map_fn(lambda r: tf.reduce_sum(r * r), rows, fn_output_signature=tf.float32)


def scan_of_pairs(x: Any) -> Any:
    return tf.scan(lambda s, e: (s[0] * e, s[1] + tf.sin(s[0])), x, (tf.ones_like(x[0]), tf.zeros_like(x[0])))


def backwards_scan(x: Any) -> Any:
    return tf.scan(lambda s, e: tf.tanh(s + e), x, reverse=True)


@tf.function(jit_compile=True)
def _compiled_steps(x: Any) -> Any:
    for k in range(3):
        x = tf.where(x > 0, tf.tanh(x) + x * 0.5, x * x * k)
    return x


def compiled_steps(x: Any) -> Any:
    return _compiled_steps(x) * x


@tf.function(jit_compile=True)
def compiled_whole(x: Any, w: Any) -> Any:
    return tf.nn.softmax(tf.nn.relu(x @ w))


@tf.function(reduce_retracing=True)
def _inner(x: Any, power: int = 2) -> Any:
    return x**power


def functions_of_functions(x: Any) -> Any:
    return _inner(tf.sin(_inner(x)), power=3)


# ---------------------------------------------------------------------------------- ragged, sparse, indexed, sorted


def ragged(x: Any) -> Any:
    return tf.RaggedTensor.from_row_lengths(x, [2, 0, 3])


def ragged_sums(x: Any) -> Any:
    return tf.reduce_sum(ragged(x * x), axis=1), tf.reduce_max(ragged(x)[:1], axis=1)


def ragged_mean_and_gather(x: Any) -> Any:
    return tf.gather(ragged(tf.exp(x)), [2, 0, 2]).flat_values, tf.reduce_mean(ragged(x * x)[2:], axis=1)


def ragged_to_dense(x: Any) -> Any:
    return ragged(x).to_tensor(default_value=1.0) ** 2


def ragged_concat(x: Any) -> Any:
    return tf.concat([ragged(x), ragged(2 * x)], axis=1).flat_values ** 2


def ragged_softmax(x: Any) -> Any:
    exps = tf.exp(ragged(x))
    return (exps / tf.reduce_sum(exps, axis=1, keepdims=True)).flat_values


def ragged_mapped(x: Any) -> Any:
    return tf.ragged.map_flat_values(tf.tanh, ragged(x)) * 2.0


INDICES = np.array([[0, 1], [1, 2], [2, 0], [2, 2]])


def sparse(x: Any) -> Any:
    return tf.SparseTensor(INDICES, x, [3, 3])


def sparse_matmul(x: Any, w: Any) -> Any:
    return tf.sparse.sparse_dense_matmul(sparse(x), w, adjoint_a=True)


def sparse_sums(x: Any) -> Any:
    return tf.sparse.reduce_sum(sparse(x * x), axis=1)


def sparse_to_dense(x: Any) -> Any:
    return tf.sparse.to_dense(tf.sparse.transpose(sparse(x))) ** 2


def sparse_softmax(x: Any) -> Any:
    return tf.sparse.softmax(sparse(x)).values


def sparse_sum_of_two(x: Any, y: Any) -> Any:
    return tf.sparse.add(sparse(x), tf.SparseTensor(INDICES[::-1][:2][::-1], y, [3, 3])).values ** 2


def sparse_times_dense(x: Any, w: Any) -> Any:
    return (sparse(x) * w).values


def sparse_slice(x: Any) -> Any:
    return tf.sparse.slice(sparse(x), [1, 0], [2, 2]).values ** 2


def sparse_embedding(w: Any) -> Any:
    ids = tf.SparseTensor([[0, 0], [0, 1], [1, 0], [2, 1]], [1, 3, 1, 0], [3, 2])
    weights = tf.SparseTensor(ids.indices, tf.constant([1.0, 2.0, 0.5, 1.0]), ids.dense_shape)
    return tf.nn.embedding_lookup_sparse(w, ids, weights, combiner="sqrtn"), tf.nn.safe_embedding_lookup_sparse(w, ids)


def embedding_variable() -> Callable[[], Any]:
    table = tf.Variable(floats(6, 2), name="table")
    return lambda: tf.nn.embedding_lookup(table, [[1, 5, 1], [0, 1, 3]]) ** 2


def embedding_through_function() -> Callable[..., Any]:
    table = tf.Variable(floats(6, 2), name="table")

    @tf.function
    def call(x: Any) -> Any:
        return tf.reduce_sum(tf.gather(table, [2, 2, 4]) * x, axis=0) + tf.gather_nd(table, [[1, 0]])

    return call


def gathered_in_batches(x: Any) -> Any:
    return tf.gather(x, [[0, 0, 2], [1, 1, 1]], axis=1, batch_dims=1) ** 2


def gathered_nd_in_batches(x: Any) -> Any:
    return tf.gather_nd(x, [[[0], [0]], [[2], [1]]], batch_dims=1) ** 2


def scattered(x: Any) -> Any:
    return tf.scatter_nd([[1], [1], [3]], x, [4, 2]) ** 2


def scattered_into(t: Any, x: Any) -> Any:
    at = [[0], [2], [2]]
    return tf.tensor_scatter_nd_add(t, at, x) ** 2 + tf.tensor_scatter_nd_sub(t, at, x)


def scattered_maximum(t: Any, x: Any) -> Any:
    return tf.tensor_scatter_nd_max(t, [[0], [2], [3]], x) ** 2


def segments(x: Any) -> Any:
    ids = [0, 0, 1, 3, 3, 3]
    return [f(x, ids) ** 2 for f in (tf.math.segment_sum, tf.math.segment_mean, tf.math.segment_max)]


def unsorted_segments(x: Any) -> Any:
    ids = [2, 0, 1, 2, 0, 2]
    kinds = (tf.math.unsorted_segment_sum, tf.math.unsorted_segment_max, tf.math.unsorted_segment_prod,
             tf.math.unsorted_segment_sqrt_n)  # fmt: skip
    return [f(x, ids, 3) for f in kinds]


def sparse_segments(x: Any) -> Any:
    return tf.sparse.segment_mean(x, [0, 2, 2, 3], [0, 0, 1, 1]), tf.sparse.segment_sqrt_n(x, [1, 1, 4], [0, 1, 1])


def sorted_with_order(x: Any) -> Any:
    order = tf.argsort(x, direction="DESCENDING")
    return tf.sort(x) * tf.gather(x, order, batch_dims=1)


def top_values(x: Any) -> Any:
    values, indices = tf.math.top_k(x, 3)
    return values * tf.cast(indices + 1, x.dtype)


def nth_element(x: Any) -> Any:
    return tf.raw_ops.NthElement(input=x, n=2) ** 2


def median(x: Any) -> Any:
    return tf.sort(x, axis=-1)[..., 2] * tf.reduce_min(x, axis=-1)


def one_hot_products(x: Any) -> Any:
    return tf.einsum("ni,nj->ij", tf.one_hot([1, 0, 1], 3), x) ** 2


def dynamic_parts(x: Any) -> Any:
    parts = tf.dynamic_partition(x, [0, 1, 0, 1, 1], 2)
    return tf.dynamic_stitch([[0, 2], [1, 3, 4]], [parts[0] * 2.0, tf.sin(parts[1])])


def masked(x: Any) -> Any:
    return tf.boolean_mask(x, [True, False, True, True, False]) ** 2


def repeated(x: Any) -> Any:
    return tf.repeat(x, [2, 0, 3], axis=0) ** 2 * tf.tile(x[:1], [5, 1])


def rolled(x: Any) -> Any:
    return tf.roll(x, 1, 0) * tf.reverse(x, [1]) * tf.reverse_sequence(x, [2, 3, 1], 1, 0)


# ----------------------------------------------------------------------------------------------- FFT and complex


def spectra(x: Any) -> Any:
    return tf.abs(tf.signal.rfft2d(x)) ** 2


def spectrum_and_back(x: Any) -> Any:
    return tf.signal.irfft(tf.signal.rfft(x) * tf.signal.rfft(tf.sin(x)))


def transform_2d(z: Any) -> Any:
    return tf.signal.ifft2d(tf.signal.fft2d(z) ** 2)


def transform_3d(z: Any) -> Any:
    return tf.math.real(tf.signal.fft3d(z)) ** 2


def cosine_transforms(x: Any) -> Any:
    return tf.signal.dct(x, 2, norm="ortho") * tf.signal.idct(tf.sin(x), 3)


def frames(x: Any) -> Any:
    return tf.signal.frame(x, 4, 2) ** 2, tf.signal.overlap_and_add(tf.signal.frame(x, 4, 2) ** 2, 2)


def inverse_short_time(x: Any) -> Any:
    return tf.signal.inverse_stft(tf.signal.stft(x, 8, 4) ** 2, 8, 4)


def shifted(z: Any) -> Any:
    return tf.signal.fftshift(tf.signal.fft(z)) * tf.signal.ifftshift(z)


def logarithm_of_filters(x: Any) -> Any:
    weights = tf.signal.linear_to_mel_weight_matrix(4, 9, 8000.0, 100.0, 3500.0)
    return tf.math.log(tf.abs(tf.signal.rfft(x[None])) @ weights + 1e-2)


def complex_functions(z: Any) -> Any:
    return [f(z) for f in (tf.exp, tf.sin, tf.tanh, tf.math.log, tf.sqrt, tf.math.reciprocal, tf.cosh)]


def complex_power(z: Any, w: Any) -> Any:
    return z**w


def complex_matrix(z: Any) -> Any:
    return tf.linalg.matmul(z, z, adjoint_b=True), tf.linalg.trace(z @ z), tf.linalg.adjoint(z) * 2.0


def polar(r: Any, phi: Any) -> Any:
    z = tf.complex(r * tf.cos(phi), r * tf.sin(phi))
    return tf.math.real(z**2), tf.math.imag(tf.exp(z)), tf.abs(z)


def complex_solve(a: Any, b: Any) -> Any:
    return tf.linalg.solve(a, b), tf.linalg.inv(a)


def complex_sums(z: Any) -> Any:
    return tf.reduce_prod(z), tf.reduce_mean(tf.math.conj(z) * z, axis=0), tf.math.l2_normalize(tf.math.real(z))


# ----------------------------------------------------------------------------------------------- linear algebra


def symmetric(a: Any) -> Any:
    return (a + tf.linalg.matrix_transpose(a)) / 2


def factors(a: Any) -> Any:
    return tf.linalg.cholesky(symmetric(a))


def cholesky_solve(a: Any, b: Any) -> Any:
    return tf.linalg.cholesky_solve(tf.linalg.cholesky(symmetric(a)), b)


def orthogonal(a: Any) -> Any:
    q, r = tf.linalg.qr(a)
    return tf.abs(q), tf.abs(r)


def singular(a: Any) -> Any:
    s, u, v = tf.linalg.svd(a)
    return s, tf.einsum("...ik,...k,...jk->...ij", u, s**2, v)


def eigen(a: Any) -> Any:
    e, v = tf.linalg.eigh(symmetric(a))
    return e, tf.einsum("...ik,...k,...jk->...ij", v, tf.exp(-e), v)


def eigenvalues(a: Any) -> Any:
    return tf.linalg.eigvalsh(symmetric(a))


def determinants(a: Any) -> Any:
    return tf.linalg.det(a), tf.linalg.slogdet(a).log_abs_determinant, tf.linalg.logdet(symmetric(a))


def inverses(a: Any) -> Any:
    return tf.linalg.inv(a), tf.linalg.pinv(a[..., :2])


def solves(a: Any, b: Any) -> Any:
    return tf.linalg.solve(a, b), tf.linalg.solve(a, b, adjoint=True), tf.linalg.triangular_solve(a, b, lower=False)


def least_squares(a: Any, b: Any) -> Any:
    return tf.linalg.lstsq(a, b, l2_regularizer=0.1), tf.linalg.lstsq(a, b)


def tridiagonal(diagonals: Any, b: Any) -> Any:
    return tf.linalg.tridiagonal_solve(diagonals, b), tf.linalg.tridiagonal_matmul(diagonals, b)


def diagonals(a: Any) -> Any:
    return (tf.linalg.diag_part(a) ** 2, tf.linalg.band_part(a, 1, 0) ** 2, tf.linalg.set_diag(a, a[..., 0]) ** 2,
            tf.linalg.diag(a, k=1) * 2.0, tf.linalg.trace(a) ** 2)  # fmt: skip


def matrix_functions(a: Any) -> Any:
    return tf.linalg.expm(a / 4), tf.linalg.sqrtm(symmetric(a))


def products(a: Any, b: Any) -> Any:
    return tf.linalg.cross(a, b), tf.tensordot(a, b, [[1], [1]]), tf.linalg.normalize(a, axis=-1)[0]


def operators(a: Any, x: Any) -> Any:
    full, low = tf.linalg.LinearOperatorFullMatrix(a), tf.linalg.LinearOperatorLowerTriangular(a)
    kron = tf.linalg.LinearOperatorKronecker([full, low])
    return full.solve(x), low.matmul(x, adjoint=True), kron.trace(), low.log_abs_determinant()


def circulant(s: Any, x: Any) -> Any:
    return tf.math.real(tf.linalg.LinearOperatorCirculant(tf.cast(s, tf.complex64)).matmul(tf.cast(x, tf.complex64)))


def norms(a: Any) -> Any:
    return [tf.norm(a, ord=p, axis=[-2, -1]) for p in ("euclidean", 1, np.inf)] + [tf.norm(a, ord=3, axis=-1)]


def einsums(a: Any, b: Any) -> Any:
    return tf.einsum("bij,bjk->bik", a, b), tf.einsum("bii,bij->j", a, b), tf.einsum("...ij,...kj->...ik", a, b)


def moments(x: Any) -> Any:
    return tf.nn.moments(x, [0]), tf.math.reduce_variance(x, 1), tf.math.reduce_std(x), tf.nn.weighted_moments(
        x, [1], tf.abs(x) + 1.0
    )  # fmt: skip


# ------------------------------------------------------------------------------------------- images, CTC, convolution


def resized(method: str) -> Callable[[Any], Any]:
    return lambda x: tf.image.resize(x, [5, 6], method=method)


def cropped(x: Any, boxes: Any) -> Any:
    return tf.image.crop_and_resize(x, boxes, [0, 1, 0], [3, 3])


def cropped_plainly(x: Any) -> Any:
    return tf.image.central_crop(x, 0.5) ** 2, tf.image.crop_to_bounding_box(x, 1, 0, 2, 3) ** 2


def patches(x: Any) -> Any:
    return tf.image.extract_patches(x, [1, 2, 2, 1], [1, 1, 1, 1], [1, 1, 1, 1], "VALID") ** 2


def colours(x: Any) -> Any:
    return tf.image.rgb_to_yuv(x), tf.image.rgb_to_grayscale(x) ** 2, tf.image.per_image_standardization(x)


def differences(x: Any) -> Any:
    return tf.image.image_gradients(x), tf.image.sobel_edges(x), tf.image.total_variation(x * x)


def similarity(x: Any, y: Any) -> Any:
    return tf.image.ssim(x, y, 1.0, filter_size=3), tf.image.psnr(x, y, 1.0)


def turned(x: Any) -> Any:
    return tf.image.rot90(x) * tf.image.flip_left_right(x) * tf.transpose(x, [0, 2, 1, 3])


def depth_and_space(x: Any) -> Any:
    return tf.nn.space_to_depth(x, 2) ** 2, tf.nn.depth_to_space(x, 2) ** 2


def batches_and_space(x: Any) -> Any:
    return tf.space_to_batch(x, [2, 2], [[0, 0], [0, 0]]) ** 2


def ctc(logits: Any) -> Any:
    return tf.nn.ctc_loss([[1, 2, 2], [3, 0, 0]], logits, [3, 1], [6, 5], logits_time_major=False, blank_index=0)


def ctc_of_old(logits: Any) -> Any:
    labels = tf.SparseTensor([[0, 0], [0, 1], [1, 0]], tf.constant([0, 1, 2]), [2, 2])
    return tf.compat.v1.nn.ctc_loss(labels, logits, [5, 4])


def dilation(x: Any, k: Any) -> Any:
    return tf.nn.dilation2d(x, k, [1, 1, 1, 1], "VALID", "NHWC", [1, 1, 1, 1])


def fractional_pool(x: Any) -> Any:
    return tf.nn.fractional_avg_pool(x, [1, 1.5, 1.5, 1], seed=3)[0]


def pools(x: Any) -> Any:
    return tf.nn.max_pool2d(x, 2, 1, "SAME"), tf.nn.avg_pool2d(x, 3, 2, "SAME"), tf.nn.max_pool_with_argmax(
        x, 2, 2, "VALID"
    )[0]  # fmt: skip


def lrn(x: Any) -> Any:
    return tf.nn.local_response_normalization(x, 1, 1.0, 0.5, 0.5)


def separable(x: Any, d: Any, p: Any) -> Any:
    return tf.nn.separable_conv2d(x, d, p, [1, 1, 1, 1], "SAME")


def volume(x: Any, k: Any) -> Any:
    return tf.nn.conv3d(x, k, [1, 1, 1, 1, 1], "SAME"), tf.nn.avg_pool3d(x, 2, 1, "VALID")


# ------------------------------------------------------------------------ Python, custom gradients, gradients inside


def python_sine(x: Any) -> Any:
    y = tf.py_function(lambda v: tf.sin(v) * v, [x], x.dtype)
    y.set_shape(x.shape)
    return y * x


@tf.custom_gradient
def numpy_exp(x: Any) -> Any:
    y = tf.numpy_function(np.exp, [x], x.dtype)
    y.set_shape(x.shape)
    return y, lambda up: up * y


@tf.custom_gradient
def log_plus_one(x: Any) -> Any:
    e = tf.exp(x)
    return tf.math.log1p(e), lambda up: up * (1 - 1 / (1 + e))


@tf.custom_gradient
def _power(x: Any, exponent: float = 2.0) -> Any:
    return x**exponent, lambda up: up * exponent * x ** (exponent - 1)


def with_keywords(x: Any) -> Any:
    return _power(x, exponent=3.0) + _power(tf.abs(x) + 1.0)


def with_variables() -> Callable[..., Any]:
    w = tf.Variable(floats(3), name="w")

    @tf.custom_gradient
    def product(x: Any) -> Any:
        def grad(up: Any, variables: Any = None) -> Any:
            del variables
            return up * w, [tf.reduce_sum(up * x, axis=0)]

        return x * w, grad

    return lambda x: tf.sin(product(x))


@tf.custom_gradient
def of_two(x: Any, y: Any) -> Any:
    def grad(up_sum: Any, up_product: Any) -> Any:
        return up_sum + up_product * y, up_sum + up_product * x

    return (x + y, x * y), grad


def recomputed(x: Any) -> Any:
    return tf.recompute_grad(lambda y: tf.tanh(y) * tf.sin(y))(x)


def gradient_penalty() -> Callable[..., Any]:
    w, v = tf.Variable(floats(3, 4), name="w"), tf.Variable(floats(4, 1, seed=1), name="v")

    def critic(x: Any) -> Any:
        return tf.tanh(x @ w) @ v

    def loss(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            score = critic(x)
        slope = tf.norm(tape.gradient(score, x), axis=-1)
        return tf.reduce_mean(score) + tf.reduce_mean((slope - 1.0) ** 2)

    return loss


def hessian_product(x: Any) -> Any:
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = tf.reduce_sum(tf.sin(x) * x**2)
        g = inner.gradient(y, x)
    return outer.gradient(g, x, output_gradients=tf.stop_gradient(x))


def jacobian_inside(x: Any) -> Any:
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.tanh(x) * tf.reduce_sum(x)
    return tape.jacobian(y, x)


def inner_step() -> Callable[..., Any]:
    """One step of descent inside, as in meta-learning."""
    w = tf.Variable(floats(3), name="w")

    def loss(x: Any) -> Any:
        with tf.GradientTape() as tape:
            first = tf.reduce_sum((x * w - 1.0) ** 2)
        moved = w - 0.1 * tape.gradient(first, w)
        return tf.reduce_sum((tf.sin(x) * moved) ** 2)

    return loss


# -------------------------------------------------------------------------------- random, straight-through


def reparametrized(mean: Any, spread: Any) -> Any:
    return mean + tf.exp(spread) * tf.random.normal(mean.shape, seed=1)


def stateless_draws(x: Any) -> Any:
    seed = [1, 2]
    return x * tf.random.stateless_truncated_normal(x.shape, seed) + tf.random.stateless_uniform(x.shape, seed) ** x


def generator_draws() -> Callable[..., Any]:
    generator = tf.random.Generator.from_seed(4)
    return lambda x: x * generator.normal(x.shape) + generator.uniform(x.shape, 1.0, 2.0) ** x


def categorical_draws(logits: Any) -> Any:
    picked = tf.random.categorical(logits, 2, seed=3)
    return tf.gather(tf.nn.log_softmax(logits), picked, batch_dims=1)


def gumbel(logits: Any) -> Any:
    noise = -tf.math.log(-tf.math.log(tf.random.uniform(logits.shape, 0.1, 0.9, seed=1)))
    return tf.nn.softmax((logits + noise) / 0.7)


def shuffled(x: Any) -> Any:
    return tf.random.shuffle(x, seed=2) * x


def random_crops(x: Any) -> Any:
    return tf.image.random_crop(x, [2, 2, 1], seed=1) ** 2


@tf.custom_gradient
def rounded_straight(x: Any) -> Any:
    return tf.round(x), lambda up: up


@tf.custom_gradient
def binarized(x: Any) -> Any:
    """The sign, with the gradient of a clip."""
    return tf.sign(x), lambda up: up * tf.cast(tf.abs(x) < 1, x.dtype)


def quantized(x: Any) -> Any:
    return tf.sin(rounded_straight(4 * x) / 4)


def quantized_meant(x: Any) -> Any:
    """What the gradient of `quantized` means: the sine's slope where it was rounded, times the slope of x."""
    at = tf.stop_gradient(tf.round(4 * x) / 4)
    return tf.cos(at) * (x - tf.stop_gradient(x))


def fake_quantized(x: Any) -> Any:
    return tf.quantization.fake_quant_with_min_max_args(x, -1, 1)


def clipped(x: Any) -> Any:
    return tf.clip_by_value(x, -1.0, 1.0)


def straight_of_softmax(logits: Any) -> Any:
    soft = tf.nn.softmax(logits)
    hard = tf.one_hot(tf.argmax(soft, -1), 3)
    return soft + tf.stop_gradient(hard - soft)


# ------------------------------------------------------------------------------------------------------ variables


def two_reads() -> Callable[..., Any]:
    w = tf.Variable(floats(3), name="w")
    return lambda x: tf.sin(w) * x + w**2


def partly_frozen() -> Callable[..., Any]:
    w, frozen = tf.Variable(floats(3), name="w"), tf.Variable(floats(3, seed=1), trainable=False, name="frozen")
    return lambda x: x * w * frozen


def assigned_inside() -> Callable[..., Any]:
    count, w = tf.Variable(1.0, trainable=False, name="count"), tf.Variable(floats(3), name="w")

    def call(x: Any) -> Any:
        count.assign_add(1.0)
        return x * w * count

    return call


def in_module() -> Callable[..., Any]:
    class Affine(tf.Module):
        def __init__(self) -> None:
            super().__init__(name="affine")
            self.w, self.b = tf.Variable(floats(3, 2), name="w"), tf.Variable(floats(2), name="b")

        @tf.function
        def __call__(self, x: Any) -> Any:
            return tf.tanh(x @ self.w + self.b)

    return Affine()


def averaged() -> Callable[..., Any]:
    w = tf.Variable(floats(3), name="w")
    average = tf.train.ExponentialMovingAverage(0.9)
    average.apply([w])
    return lambda x: x * w + average.average(w)


def of_reference_variable(then: Callable[[Any], Any] = tf.identity) -> gradcheck.GradientReport:
    """A reference variable of TensorFlow 1, in a session."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        w = tf.compat.v1.Variable(floats(3), use_resource=False, name="w")
        session.run(w.initializer)
        x = tf.constant(floats(3, seed=1))
        return gradcheck.check_tf_gradients(tf.reduce_sum(tf.sin(w) * x * then(w)), [w, x])


def reference_case(name: str) -> Case:
    return Case(name=name, check=lambda **_: of_reference_variable(), make=lambda: ())


BOXES = np.float32([[0.11, 0.13, 0.82, 0.71], [0.07, 0.21, 0.93, 0.97], [0.31, 0.05, 0.62, 0.53]])
UPPER = np.triu(definite(2, 3)) + 2 * np.eye(3, dtype=np.float32)

RIGHT: tuple[Case, ...] = (
    function("TensorArray", array_of_tensors, floats(3)),
    function("TensorArray in a loop", array_in_loop, floats(4)),
    function("TensorArray, scattered and gathered", array_scattered, floats(4, 2)),
    function("TensorArray, unstacked and joined", array_unstacked, floats(3, 2)),
    function("loop of matrices", loop_of_matrices, floats(3, 3), floats(2, 3, seed=1)),
    function("loop with break and continue", loop_with_break, floats(3)),
    function("conditions in conditions", recursion_of_conds, floats(3)),
    function("condition in map_fn", cond_in_map, floats(3, 2)),
    function("condition in vectorized_map", cond_in_vectorized, floats(3, 2)),
    function("product in vectorized_map", vectorized_matmul, floats(3, 4), floats(2, 4, seed=1)),
    function("vectorized_map in vectorized_map", nested_vectorized, floats(2, 3)),
    function("map_fn of several", map_of_several, floats(3, 2), floats(3, 2, seed=1)),
    function("map_fn of ragged rows", map_of_ragged, floats(5)),
    function("scan of pairs", scan_of_pairs, floats(4, 2)),
    function("scan, backwards", backwards_scan, floats(4, 2)),
    function("compiled steps", compiled_steps, floats(3)),
    function("compiled function", compiled_whole, floats(2, 3), floats(3, 4, seed=1)),
    function("functions of functions", functions_of_functions, floats(3)),
    function("ragged sums", ragged_sums, floats(5)),
    function("ragged mean and gather", ragged_mean_and_gather, floats(5)),
    function("ragged to dense", ragged_to_dense, floats(5)),
    function("ragged, joined", ragged_concat, floats(5)),
    function("ragged softmax", ragged_softmax, floats(5)),
    function("ragged, mapped", ragged_mapped, floats(5)),
    function("sparse times dense matrix", sparse_matmul, floats(4), floats(3, 2, seed=1)),
    function("sparse sums", sparse_sums, floats(4)),
    function("sparse to dense", sparse_to_dense, floats(4)),
    function("sparse softmax", sparse_softmax, floats(4)),
    function("sparse sum of two", sparse_sum_of_two, floats(4), floats(2, seed=1)),
    function("sparse times dense", sparse_times_dense, floats(4), positive(3, 3)),
    function("sparse, sliced", sparse_slice, floats(4)),
    function("sparse embedding lookup", sparse_embedding, floats(5, 2)),
    built("embedding lookup of a variable", embedding_variable),
    built("gather of a variable in a function", embedding_through_function, floats(3, 2)),
    function("gather in batches", gathered_in_batches, floats(2, 3)),
    function("gather_nd in batches", gathered_nd_in_batches, floats(2, 3, 2)),
    function("scatter with duplicates", scattered, floats(3, 2)),
    function("scatter into a tensor", scattered_into, floats(4, 2), floats(3, 2, seed=1)),
    function("scatter, the larger", scattered_maximum, floats(4), floats(3, seed=1)),
    function("segments", segments, floats(6, 2)),
    function("unsorted segments", unsorted_segments, floats(6, 2)),
    function("sparse segments", sparse_segments, floats(5, 2)),
    function("sort and argsort", sorted_with_order, floats(2, 4)),
    function("top_k with indices", top_values, floats(2, 5)),
    function("nth element", nth_element, floats(2, 5)),
    function("median and minimum", median, floats(2, 5)),
    function("one-hot products", one_hot_products, floats(3, 2)),
    function("dynamic partition and stitch", dynamic_parts, floats(5)),
    function("boolean mask", masked, floats(5)),
    function("repeat and tile", repeated, floats(3, 2)),
    function("roll and reverse", rolled, floats(3, 3)),
    function("2-D power spectrum", spectra, floats(4, 4)),
    function("convolution by spectra", spectrum_and_back, floats(8)),
    function("2-D transform", transform_2d, floats(3, 4, dtype=c64)),
    function("3-D transform", transform_3d, floats(2, 2, 3, dtype=c64)),
    function("cosine transforms", cosine_transforms, floats(8)),
    function("frames and their sum", frames, floats(10)),
    function("inverse short-time transform", inverse_short_time, floats(16), mode="elementwise"),
    function("shifted transform", shifted, floats(5, dtype=c64)),
    function("logarithms of filters", logarithm_of_filters, floats(16)),
    function("complex functions", complex_functions, floats(3, dtype=c64)),
    function("complex power", complex_power, floats(3, dtype=c128), floats(3, seed=1, dtype=c128)),
    function("complex matrix", complex_matrix, floats(2, 2, dtype=c64)),
    function("polar", polar, positive(3), floats(3)),
    function("complex solve", complex_solve, floats(2, 2, dtype=c64), floats(2, 1, seed=1, dtype=c64)),
    function("complex sums", complex_sums, floats(2, 2, dtype=c64)),
    function("Cholesky of a batch", factors, definite(2, 3)),
    function("Cholesky solve", cholesky_solve, definite(2, 3), floats(2, 3, 1)),
    function("QR of a batch", orthogonal, floats(2, 3, 3)),
    function("QR of tall", orthogonal, floats(4, 2)),
    function("SVD with vectors", singular, floats(2, 3, 3)),
    function("SVD of wide", singular, floats(2, 4)),
    function("eigenvectors of a batch", eigen, definite(2, 3)),
    function("eigenvalues", eigenvalues, definite(4)),
    function("determinants", determinants, definite(2, 3)),
    function("inverse and pseudo-inverse", inverses, definite(2, 3)),
    function("solves", solves, UPPER, floats(2, 3, 2)),
    function("least squares of a batch", least_squares, floats(2, 4, 2), floats(2, 4, 1, seed=1)),
    function("tridiagonal", tridiagonal, positive(3, 4) + np.float32([[0], [4], [0]]), floats(4, 2)),
    function("diagonals", diagonals, floats(2, 3, 3)),
    function("matrix functions", matrix_functions, definite(3, dtype=f64)),
    function("vector products", products, floats(2, 3), floats(2, 3, seed=1)),
    function("linear operators", operators, definite(2), floats(2, 2)),
    function("circulant", circulant, positive(4), floats(4, 1)),
    function("norms of a batch", norms, floats(2, 3, 2)),
    function("einsums", einsums, floats(2, 3, 3), floats(2, 3, 3, seed=1)),
    function("moments", moments, floats(3, 4)),
    *(function(f"resize, {m}", resized(m), floats(1, 3, 4, 1))
      for m in ("nearest", "bilinear", "bicubic", "lanczos3", "gaussian")),
    function("crop and resize", cropped, floats(2, 4, 4, 1), BOXES),
    function("crops", cropped_plainly, floats(4, 4, 2)),
    function("patches", patches, floats(1, 3, 3, 2)),
    function("colours", colours, positive(2, 2, 3)),
    function("differences of images", differences, floats(1, 3, 3, 1)),
    function("similarity of images", similarity, positive(4, 4, 1) / 2, positive(4, 4, 1, seed=1) / 2),
    function("turned images", turned, floats(1, 3, 3, 1)),
    function("depth and space", depth_and_space, floats(1, 2, 2, 4)),
    function("batches and space", batches_and_space, floats(1, 4, 2, 1)),
    function("CTC", ctc, floats(2, 6, 4)),
    function("CTC of TensorFlow 1", ctc_of_old, floats(5, 2, 4)),
    function("dilation", dilation, floats(1, 4, 4, 1), floats(2, 2, 1, seed=1)),
    function("fractional pooling", fractional_pool, floats(1, 5, 5, 1)),
    function("poolings", pools, floats(1, 4, 4, 1)),
    function("local response", lrn, floats(1, 2, 2, 3)),
    function("separable convolution", separable, floats(1, 3, 3, 2), floats(2, 2, 2, 1, seed=1), floats(1, 1, 2, 2)),
    function("3-D convolution", volume, floats(1, 3, 2, 2, 1), floats(2, 2, 2, 1, 2, seed=1)),
    function("py_function", python_sine, floats(3)),
    function("numpy_function with a gradient", numpy_exp, floats(3)),
    function("custom gradient, stable", log_plus_one, floats(4)),
    function("custom gradient with keywords", with_keywords, floats(3)),
    built("custom gradient with variables", with_variables, floats(2, 3)),
    function("custom gradient of two", of_two, floats(3), floats(3, seed=1)),
    function("recompute_grad", recomputed, floats(3)),
    built("gradient penalty", gradient_penalty, floats(2, 3)),
    function("Hessian product inside", hessian_product, floats(3)),
    function("Jacobian inside", jacobian_inside, floats(3)),
    built("step of descent inside", inner_step, floats(3)),
    function("reparametrized noise", reparametrized, floats(3), floats(3, seed=1)),
    function("stateless draws", stateless_draws, positive(3)),
    built("draws of a generator", generator_draws, positive(3)),
    function("categorical draws", categorical_draws, floats(2, 3)),
    function("Gumbel softmax", gumbel, floats(2, 3)),
    function("shuffled", shuffled, floats(4)),
    function("random crop", random_crops, floats(3, 3, 1)),
    function("declared straight-through", rounded_straight, floats(4, scale=2), surrogate=tf.identity),
    function("declared binary", binarized, floats(4), surrogate=clipped),
    function("declared quantization", quantized, floats(4), surrogate=quantized_meant),
    function("declared fake quantization", fake_quantized, floats(4), surrogate=clipped),
    function("straight-through by stop_gradient", straight_of_softmax, floats(2, 3)),
    built("variable read twice", two_reads, floats(3)),
    built("variable, frozen beside", partly_frozen, floats(3)),
    built("variable assigned inside", assigned_inside, floats(3)),
    built("variables of a module", in_module, floats(2, 3)),
    built("moving average", averaged, floats(3)),
    reference_case("reference variable"),
)  # fmt: skip
