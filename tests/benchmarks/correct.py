"""Correct functions, ordinary and ill-conditioned, with random inputs: none of them may be called wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

Rng = np.random.Generator
Draw = Callable[[Rng, Any], list[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Correct:
    """A function whose gradient is right.

    Attributes:
        name: What to call it.
        fn: The function, one object for all its checks.
        draw: Gives its inputs, from random numbers and a dtype.
    """

    name: str
    fn: Callable[..., Any]
    draw: Draw


def _shape(rng: Rng) -> tuple[int, ...]:
    """A scalar, a vector or a matrix."""
    return tuple(int(n) for n in rng.integers(1, 13, rng.integers(0, 3)))


def _uniform(low: float, high: float) -> Draw:
    return lambda rng, dtype: [np.asarray(rng.uniform(low, high, _shape(rng)), dtype)]


def _normal(scale: float = 1.0, mean: float = 0.0) -> Draw:
    return lambda rng, dtype: [np.asarray(rng.normal(mean, scale, _shape(rng)), dtype)]


def _of_shape(*shapes: tuple[int, ...], scale: float = 1.0, mean: float = 0.0) -> Draw:
    return lambda rng, dtype: [rng.normal(mean, scale, shape).astype(dtype) for shape in shapes]


def _definite(floor: float) -> Draw:
    """A symmetric matrix with eigenvalues from `floor` to 1."""

    def draw(rng: Rng, dtype: Any) -> list[Any]:
        n = int(rng.integers(2, 6))
        q = np.linalg.qr(rng.normal(size=(n, n)))[0]
        return [((q * np.geomspace(floor, 1.0, n)) @ q.T).astype(dtype)]

    return draw


def _near_kinks(rng: Rng, dtype: Any) -> list[Any]:
    """Within 1e-9 to 1 of 0, on both sides, never at it."""
    shape = _shape(rng)
    return [np.asarray(10.0 ** rng.uniform(-9, 0, shape) * rng.choice([-1.0, 1.0], shape), dtype)]


def _logits(scale: float) -> Draw:
    return lambda rng, dtype: [
        (scale * rng.normal(size=(int(rng.integers(1, 5)), int(rng.integers(2, 9))))).astype(dtype)
    ]


def _with_labels(scale: float) -> Draw:
    def draw(rng: Rng, dtype: Any) -> list[Any]:
        (logits,) = _logits(scale)(rng, dtype)
        return [logits, rng.integers(0, logits.shape[1], logits.shape[0])]

    return draw


def _pairs(rng: Rng, dtype: Any) -> list[Any]:
    return [rng.normal(size=(int(rng.integers(1, 4)), 2)).astype(dtype)]


def _ids(rng: Rng, dtype: Any) -> list[Any]:
    return [rng.normal(size=(5, 3)).astype(dtype), rng.integers(0, 5, 8)]


# ------------------------------------------------------------------------------------------------- functions


def _sparse_cross_entropy(logits: Any, labels: Any) -> Any:
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def _sigmoid_cross_entropy(x: Any) -> Any:
    return tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.ones_like(x) * 0.3, logits=x)


def _dense(x: Any, w: Any, b: Any) -> Any:
    return tf.tanh(x @ w + b)


def _deep(x: Any, w: Any) -> Any:
    for _ in range(20):
        x = tf.tanh(x @ w)
    return x


def _relu_net(x: Any, w: Any, v: Any) -> Any:
    return tf.reduce_mean(tf.nn.relu(tf.nn.relu(x @ w) @ v), axis=1)


def _layer_norm(x: Any, gain: Any, bias: Any) -> Any:
    mean, variance = tf.nn.moments(x, [-1], keepdims=True)
    return gain * (x - mean) * tf.math.rsqrt(variance + 1e-3) + bias


def _convolution(x: Any, kernel: Any) -> Any:
    return tf.nn.max_pool2d(tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME")), 2, 2, "VALID")


def _attention(q: Any, k: Any, v: Any) -> Any:
    return tf.nn.softmax(q @ tf.transpose(k) / 2.0) @ v


def _gated(x: Any, h: Any, w: Any) -> Any:
    for _ in range(3):
        gate = tf.sigmoid(tf.concat([x, h], 1) @ w)
        h = gate * h + (1 - gate) * tf.tanh(x)
    return h


def _loop(x: Any) -> Any:
    return tf.while_loop(lambda i, _: i < 6, lambda i, s: (i + 1, tf.sin(s) + 0.5 * x), [0, x])[1]


def _scan(x: Any) -> Any:
    return tf.scan(lambda s, v: tf.tanh(s + v), x)


def _mapped(x: Any) -> Any:
    return tf.map_fn(lambda v: tf.reduce_sum(v) * tf.exp(-v[0]), x)


def _branches(x: Any) -> Any:
    return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.sin(x), lambda: x * x)


def _stopped(x: Any) -> Any:
    return x * tf.stop_gradient(tf.exp(x)) + tf.sin(x)


def _gather(x: Any, ids: Any) -> Any:
    return tf.sin(tf.gather(x, ids))


def _segments(x: Any, ids: Any) -> Any:
    return tf.math.unsorted_segment_sum(tf.gather(x, ids) ** 2, ids, 5)


def _cosine(a: Any, b: Any) -> Any:
    return tf.reduce_sum(a * b) / (tf.norm(a) * tf.norm(b))


def _logistic_map(x: Any) -> Any:
    for _ in range(5):
        x = 3.7 * x * (1 - x)
    return x


def _variance_by_moments(x: Any) -> Any:
    return tf.nn.moments(x, [0])[1]


def _likelihood(x: Any, deviation: Any) -> Any:
    return tf.reduce_sum(0.5 * (x / tf.exp(deviation)) ** 2 + deviation)


def _huber(x: Any) -> Any:
    size = tf.abs(x)
    return tf.where(size < 1, 0.5 * x * x, size - 0.5)


def _power_spectrum(x: Any) -> Any:
    spectrum = tf.signal.rfft(tf.cast(x, tf.float32)) if x.dtype == tf.float32 else tf.signal.rfft(x)
    return tf.math.log(1 + tf.abs(spectrum) ** 2)


def _complex(x: Any, y: Any) -> Any:
    z = tf.complex(x, y)
    return tf.math.real(tf.exp(z) * tf.math.conj(z) / (2 + z * z))


def _rotations(x: Any) -> Any:
    return tf.linalg.expm(x - tf.transpose(x))


def _five_roots(x: Any) -> Any:
    return (x - 1) * (x - 2) * (x - 3) * (x - 4) * (x - 5)


def _symmetric(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """fn of the symmetric part: TensorFlow's gradient of what reads one triangle is that of a symmetric matrix."""
    return lambda a: fn((a + tf.transpose(a)) / 2)


def _mixed_scales(a: Any, b: Any) -> Any:
    return tf.sin(1e6 * a) * tf.tanh(1e-6 * b)


def _row(name: str, fn: Callable[..., Any], draw: Draw) -> Correct:
    return Correct(name=name, fn=fn, draw=draw)


CORRECT = (
    _row("sin", tf.sin, _uniform(-4, 4)),
    _row("tanh, saturated", tf.tanh, _uniform(-12, 12)),
    _row("sigmoid, saturated", tf.sigmoid, _uniform(-15, 15)),
    _row("exp", tf.exp, _uniform(-20, 20)),
    _row("log", tf.math.log, _uniform(1e-3, 10)),
    _row("sqrt near 0", tf.sqrt, _uniform(1e-4, 0.1)),
    _row("atanh near 1", tf.atanh, _uniform(0.9, 0.999)),
    _row("erf", tf.math.erf, _normal()),
    _row("gelu", tf.nn.gelu, _normal()),
    _row("erfinv", tf.math.erfinv, _uniform(-0.95, 0.95)),
    _row("lgamma", tf.math.lgamma, _uniform(0.1, 20)),
    _row("digamma", tf.math.digamma, _uniform(0.5, 8)),
    _row("power", lambda x: tf.abs(x) ** 2.7, _uniform(0.1, 5)),
    _row("sin(50x)", lambda x: tf.sin(50 * x), _normal()),
    _row("sin(200x)", lambda x: tf.sin(200 * x), _normal()),
    _row("sin(3000x)", lambda x: tf.sin(3000 * x), _normal()),
    _row("time of day", lambda x: tf.sin(7.27e-5 * x), _uniform(1.6e9, 1.8e9)),
    _row("two frequencies", lambda x: tf.sin(x) + 1e-3 * tf.sin(300 * x), _normal()),
    _row("Runge", lambda x: 1 / (1 + 25 * x * x), _normal()),
    _row("near a pole", lambda x: 1 / (x - 1), _uniform(1.001, 1.1)),
    _row("1 - cos", lambda x: 1 - tf.cos(x), _uniform(0.01, 0.2)),
    _row("log cosh", lambda x: tf.math.log(tf.cosh(x)), _normal(2.0)),
    _row("five roots", _five_roots, _uniform(0, 6)),
    _row("logistic map", _logistic_map, _uniform(0.05, 0.95)),
    _row("large constant, small term", lambda x: 1e6 + 1e-3 * tf.sin(x), _normal()),
    _row("scaled by 1e-6", lambda x: 1e-6 * tf.sin(x), _normal()),
    _row("scaled by 1e9", lambda x: 1e9 * tf.sin(x), _normal()),
    _row("x of 1e-8", lambda x: tf.sin(1e8 * x), _normal(1e-8)),
    _row("x of 1e8", lambda x: tf.sin(1e-8 * x), _normal(1e8)),
    _row("square of 1e5", tf.square, _normal(1e5)),
    _row("huber", _huber, _normal(2.0)),
    _row("relu near 0", tf.nn.relu, _near_kinks),
    _row("abs near 0", tf.abs, _near_kinks),
    _row("softmax", tf.nn.softmax, _logits(1.0)),
    _row("softmax of pairs", tf.nn.softmax, _pairs),
    _row("softmax, saturated", tf.nn.softmax, _logits(15.0)),
    _row("log_softmax, logits of 50", tf.nn.log_softmax, _logits(50.0)),
    _row("logsumexp", tf.reduce_logsumexp, _logits(5.0)),
    _row("sparse cross-entropy, logits of 30", _sparse_cross_entropy, _with_labels(30.0)),
    _row("sigmoid cross-entropy, logits of 20", _sigmoid_cross_entropy, _normal(20.0)),
    _row("dense", _dense, _of_shape((6, 8), (8, 5), (5,))),
    _row("20 dense layers", _deep, _of_shape((3, 6), (6, 6), scale=0.5)),
    _row("relu network", _relu_net, _of_shape((5, 6), (6, 10), (10, 4))),
    _row("layer norm", _layer_norm, _of_shape((4, 12), (12,), (12,))),
    _row("layer norm, small deviation", _layer_norm, _of_shape((4, 12), (12,), (12,), scale=1e-2, mean=1.0)),
    _row("convolution", _convolution, _of_shape((1, 6, 6, 2), (3, 3, 2, 2))),
    _row("attention", _attention, _of_shape((4, 5), (6, 5), (6, 3))),
    _row("gated cell", _gated, _of_shape((2, 4), (2, 4), (8, 4))),
    _row("while loop", _loop, _normal()),
    _row("scan", _scan, _of_shape((5, 3))),
    _row("map_fn", _mapped, _of_shape((4, 3))),
    _row("cond", _branches, _normal()),
    _row("stop_gradient", _stopped, _normal()),
    _row("gather with duplicates", _gather, _ids),
    _row("segment sum", _segments, _ids),
    _row("sort", lambda x: tf.sort(x) * tf.range(1, 10, dtype=x.dtype), _of_shape((9,))),
    _row("cumprod", tf.math.cumprod, _of_shape((10,))),
    _row("product of 60", tf.reduce_prod, _of_shape((60,), scale=0.1, mean=1.0)),
    _row("sin of cumsum", lambda x: tf.sin(tf.cumsum(x)), _of_shape((40,))),
    _row("norm of a tiny vector", tf.norm, _of_shape((12,), scale=1e-8)),
    _row("clip by norm", lambda x: tf.clip_by_norm(x, 2.0), _of_shape((10,))),
    _row("cosine similarity", _cosine, _of_shape((12,), (12,))),
    _row("variance, large mean", tf.math.reduce_variance, _of_shape((40,), mean=1e3)),
    _row("variance by moments, large mean", _variance_by_moments, _of_shape((40,), mean=1e3)),
    _row("likelihood, small deviation", _likelihood,
         lambda rng, dtype: [rng.normal(size=8).astype(dtype), np.asarray(-4.0, dtype)]),
    _row("Cholesky, condition 1e3", _symmetric(tf.linalg.cholesky), _definite(1e-3)),
    _row("inverse, condition 1e4", tf.linalg.inv, _definite(1e-4)),
    _row("log determinant, condition 1e3", _symmetric(tf.linalg.logdet), _definite(1e-3)),
    _row("solve, condition 1e3", lambda a: tf.linalg.solve(a, tf.ones_like(a)), _definite(1e-3)),
    _row("singular values", lambda a: tf.linalg.svd(a, compute_uv=False), _of_shape((5, 3))),
    _row("matrix exponential", _rotations, _of_shape((3, 3))),
    _row("einsum", lambda a, b: tf.einsum("bij,bjk->bik", a, b), _of_shape((2, 3, 4), (2, 4, 3))),
    _row("power spectrum", _power_spectrum, _of_shape((16,))),
    _row("complex arithmetic", _complex, _of_shape((5,), (5,))),
    _row("mixed scales", _mixed_scales,
         lambda rng, dtype: [rng.normal(0, 1e-6, 4).astype(dtype), rng.normal(0, 1e6, 4).astype(dtype)]),
    _row("sum of 5,000 squares", lambda x: tf.reduce_sum(x * x), _of_shape((5000,))),
    _row("mean of 5,000 cubes", lambda x: tf.reduce_mean(x**3), _of_shape((5000,))),
)  # fmt: skip
