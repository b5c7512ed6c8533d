"""Functions that give NaN or infinity: each is to be blamed at the line that ends in `# here`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

f32 = tf.float32


@dataclass(frozen=True)
class Fault:
    """What find_nonfinite must say of a function."""

    name: str
    fn: Callable[..., Any]  # or, if `built`, what makes the function
    inputs: Any
    op: str
    cause: str | None
    hint: str | None = None  # a pattern; None: no hint of a particular kind is claimed
    forward: str | None = None  # the type of the op that is differentiated
    inside: str | None = None
    kind: str | None = None
    layer: str | None = None
    built: bool = False

    def case(self) -> Callable[..., Any]:
        """The function, made anew."""
        return self.fn() if self.built else self.fn


def x(*values: Any, dtype: Any = f32) -> Any:
    return tf.constant(values, dtype)


# --------------------------------------------------------------------------------------------- forward


def log_of_zero(a):
    return tf.math.log(a)  # here


def log_of_difference(a, b):
    d = a - b
    return tf.math.log(d)  # here


def entropy(p):
    return -tf.reduce_sum(p * tf.math.log(p))  # here


def log_of_softmax(z):
    p = tf.nn.softmax(z)
    return tf.math.log(p)  # here


def log_of_sigmoid(z):
    p = tf.sigmoid(z)
    return tf.math.log(p)  # here


def log_one_minus(a):
    return tf.math.log(1.0 - a * a * a)  # here


def log_one_plus(a):
    return 1.0 / tf.math.log(1.0 + a)  # here


def log_one_minus_sigmoid(z):
    return tf.math.log(1.0 - tf.sigmoid(z))  # here


def log_one_minus_exp(z):
    return tf.math.log(1.0 - tf.exp(-z))  # here


def log_det(a):
    return tf.linalg.logdet(a)  # here


def in_numpy(a):
    return tf.numpy_function(lambda v: v * np.float32(np.nan), [a], f32)  # here


def over_a_dataset(a):
    data = tf.data.Dataset.from_tensor_slices(a)
    return data.reduce(0.0, lambda total, each: total + tf.math.log(each))  # here


def vectorized_jacobian(a):
    with tf.GradientTape() as tape:
        tape.watch(a)
        y = tf.sqrt(a)  # here
    return tape.jacobian(y, a)


def recomputed(a):
    return tf.recompute_grad(lambda v: tf.sqrt(v))(a)  # here  # noqa: PLW0108


def lost_before_float64(a):
    return tf.math.log(tf.cast(1.0 - tf.exp(-a), tf.float64))  # here


def complex_exp(z):
    return tf.exp(z)  # here


def log_sum_exp(z):
    e = tf.exp(z)  # here
    return tf.math.log(tf.reduce_sum(e))


def log_sum_exp_below(z):
    total = tf.reduce_sum(tf.exp(z))
    return tf.math.log(total)  # here


def log_one_plus_far_below(z):
    return tf.math.log1p(z)  # here


def hyperbolic_distance(z):
    return tf.math.acosh(z)  # here


def quantile(z):
    return tf.math.erfinv(z)  # here


def log_of_factorial(z):
    return tf.math.lgamma(z)  # here


def entropy_without_a_bound(z):
    return -tf.math.xlogy(tf.ones_like(z), z)  # here


def all_masked(z):
    return tf.reduce_logsumexp(tf.where(z > 5.0, z, -np.inf), axis=1)  # here


def all_masked_softmax(z):
    e = tf.exp(tf.where(z > 5.0, z, -np.inf))
    return e / tf.reduce_sum(e, 1, keepdims=True)  # here


def own_softmax(z):
    e = tf.exp(z)  # here
    return e / tf.reduce_sum(e)


def own_softmax_below(z):
    e = tf.exp(z)
    return e / tf.reduce_sum(e)  # here


def own_softplus(z):
    return tf.math.log(1.0 + tf.exp(z))  # here


def plain_exp(z):
    return tf.exp(z) * 2.0  # here


def divided_by_zero(a, b):
    return a / b  # here


def divided_by_own_norm(v):
    n = tf.sqrt(tf.reduce_sum(v * v))
    return v / n  # here


def divided_by_deviation(v):
    centred = v - tf.reduce_mean(v)
    deviation = tf.sqrt(tf.reduce_mean(centred * centred))
    return centred / deviation  # here


def root_of_negative(a):
    return tf.sqrt(a)  # here


def deviation_by_moments(v):
    variance = tf.reduce_mean(v * v) - tf.square(tf.reduce_mean(v))
    return tf.sqrt(variance)  # here


def inverse_root(a):
    return tf.math.rsqrt(a)  # here


def reciprocal(a):
    return tf.math.reciprocal(a)  # here


def negative_power(a):
    return tf.pow(a, -0.5)  # here


def power_of_negative(a):
    return a**1.5  # here


def arc_cosine(a):
    return tf.acos(a * 1.0000002)  # here


def mean_of_nothing(a):
    return tf.reduce_mean(tf.boolean_mask(a, a > 100.0))  # here


def square_overflows(a):
    return tf.reduce_sum(tf.square(a))  # here


def product_overflows(a):
    return tf.reduce_prod(a)  # here


def half_overflows(a):
    return tf.cast(a, tf.float16)  # here


def half_sum_overflows(a):
    return tf.reduce_sum(a)  # here


def matmul_overflows(a):
    return tf.matmul(a, a)  # here


def fully_masked(z):
    masked = tf.where(z < 100.0, -np.inf, z)
    return tf.nn.softmax(masked)  # here


def masked_in_half(z):
    masked = tf.cast(z > 1.0, tf.float16)
    return z + masked * np.float16(-np.inf)  # here


def masked_elsewhere(z):
    weights = tf.nn.softmax(z + tf.constant([0.0, -np.inf, 0.0]))
    return tf.reduce_sum(weights) + tf.math.log(tf.reduce_sum(z) - tf.reduce_sum(z))  # here


# --------------------------------------------------------------------------------------------- backward


def root_at_zero(a):
    return tf.sqrt(a)  # here


def norm_at_zero(v):
    return tf.norm(v)  # here


def norm_by_hand(v):
    return tf.sqrt(tf.reduce_sum(tf.square(v)))  # here


def unsafe_where(a):
    return tf.where(a > 0.0, tf.math.log(a), 0.0)  # here


def unsafe_where_further_down(a):
    log = tf.math.log(a - 1.0)  # here
    return tf.where(a > 1.0, tf.exp(2.0 * log), tf.zeros_like(a))


def chosen_root(a):
    return tf.where(a >= 0.0, tf.sqrt(a), 0.0)  # here


def half_power(a):
    return tf.pow(a, 0.5)  # here


def arc_sine_at_one(a):
    return tf.asin(a)  # here


def masked_log(a):
    return tf.where(a > 0.0, 1.0, 0.0) * tf.math.log(a)  # here


# --------------------------------------------------------------------------------------------- inside


@tf.function
def inner_log(a):
    return tf.math.log(a - 1.0)  # here


def in_a_call(a):
    return inner_log(a) * 2.0


@tf.function(jit_compile=True)
def compiled_log(a):
    return tf.reduce_sum(tf.math.log(a))  # here


def compiled(a):
    return compiled_log(a) * 2.0


@tf.function
def in_a_while(a):
    for _ in tf.range(6):
        a = tf.sqrt(a - 1.0)  # here
    return a


@tf.function
def in_a_branch(a):
    if tf.reduce_sum(a) > 0.0:
        return a / (a - a)  # here
    return tf.sin(a)


def in_a_case(a):
    return tf.switch_case(tf.constant(1), [lambda: a, lambda: tf.math.log(-a)])  # here


def in_a_map(a):
    return tf.map_fn(lambda row: tf.math.log(tf.reduce_sum(row)), a)  # here


def in_a_scan(a):
    return tf.scan(lambda s, v: s * v, a)  # here


@tf.function
def while_and_branch(a):
    for i in tf.range(4):
        if i == 2:
            a = tf.math.reciprocal(a - a)  # here
        elif i < 2:
            a = a + 1.0
    return a


@tf.function
def loop_backward(a):
    for _ in tf.range(3):
        a = tf.sqrt(a)  # here
    return a


@tf.function
def branch_backward(a):
    if tf.reduce_sum(a) >= 0.0:
        a = tf.sqrt(a)  # here
    return a


def map_backward(a):
    return tf.map_fn(lambda v: tf.sqrt(v), a)  # here  # noqa: PLW0108


def call_backward():
    @tf.function
    def inner(a):
        return tf.sqrt(a)  # here

    inner(tf.ones([2]))  # traced before
    return lambda a: inner(a) + 1.0


def vectorized(a):
    return tf.vectorized_map(lambda row: tf.math.log(tf.reduce_sum(row)), a)  # here


def own_gradient(a):
    @tf.custom_gradient
    def root(v):
        y = tf.sqrt(v)
        return y, lambda dy: dy * 0.5 / y  # here

    return root(a)


def gradient_inside(a):
    with tf.GradientTape() as tape:
        tape.watch(a)
        y = tf.sqrt(a)  # here
    return tape.gradient(y, a)


# --------------------------------------------------------------------------------------------- Keras


class RootLayer(keras.layers.Layer):
    def call(self, inputs):
        return tf.sqrt(tf.reduce_sum(tf.square(inputs), -1))  # here


def model_backward():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4, kernel_initializer="zeros"), RootLayer(name="length")], name="net"
    )


class Scaled(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(), initializer="zeros", name="scale")

    def call(self, inputs):
        return inputs / self.scale  # here


def model_forward():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), Scaled(name="scaled")], name="net")


def weight_is_nan():
    layer = keras.layers.Dense(2, name="head")
    layer.build((None, 3))
    layer.kernel.assign(tf.fill([3, 2], np.nan))
    return layer


FAULTS = [
    Fault("log of 0", log_of_zero, [x(1.0, 0.0)], "Log", "singularity", r"log of 0", kind="-Inf"),
    Fault("log of a negative", log_of_zero, [x(1.0, -2.0)], "Log", "singularity", r"negative number", kind="NaN"),
    Fault("log of a difference, in one place", log_of_difference, [x(1.0, 3.0), x(0.0, 3.0)], "Log", "singularity"),
    Fault("entropy", entropy, [x(0.5, 0.5, 0.0)], "Log", "singularity", r"xlogy", kind="-Inf"),
    Fault("log of a softmax", log_of_softmax, [x(0.0, 200.0)], "Log", "lost precision", r"log_softmax"),
    Fault("log of a sigmoid", log_of_sigmoid, [x(-200.0, 1.0)], "Log", "lost precision", r"log_sigmoid"),
    Fault("log(1 - x) near 1", log_one_minus, [x(1e-4) + 1 - 1e-4], "Log", "singularity", r"log of 0"),
    Fault("1 / log(1 + x), x small", log_one_plus, [x(1e-9)], "RealDiv", "lost precision", r"log1p"),
    Fault("log(1 - sigmoid)", log_one_minus_sigmoid, [x(20.0)], "Log", "lost precision", r"log_sigmoid\(-x\)"),
    Fault("log(1 - exp(-x))", log_one_minus_exp, [x(1e-9)], "Log", "lost precision", r"expm1"),
    Fault("log of a determinant", log_det, [tf.zeros([2, 2])], "Cholesky", "singularity", r"positive definite"),
    Fault("over a dataset", over_a_dataset, [x(1.0, -1.0)], "ReduceDataset", None, r"one op, .*loop in Python"),
    Fault("in NumPy", in_numpy, [x(1.0)], "PyFunc", None, r"Python function"),
    Fault("jacobian", vectorized_jacobian, [x(1.0, 0.0)], "SqrtGrad", "singularity", r"root", "Sqrt"),
    Fault("recomputed", recomputed, [x(1.0, 0.0)], "SqrtGrad", "singularity", None, "Sqrt"),
    Fault("lost before float64", lost_before_float64, [x(1e-9)], "Log", "lost precision", r"expm1"),
    Fault("complex exp", complex_exp, [x(100.0 + 1.0j, dtype=tf.complex64)], "Exp", "overflow", r"above 88\.7"),
    Fault("logsumexp by hand", log_sum_exp, [x(0.0, 1000.0, dtype=tf.float64)], "Exp", "overflow", r"reduce_logsumexp"),
    Fault("logsumexp by hand, float32", log_sum_exp, [x(0.0, 100.0)], "Exp", "overflow", r"reduce_logsumexp"),
    Fault("logsumexp from below", log_sum_exp_below, [x(-120.0, -110.0)], "Log", "lost precision", r"reduce_logsumexp"),
    Fault("logsumexp of nothing", all_masked, [x([6.0, 1.0], [1.0, 2.0])], "Log", "singularity", r"what is masked"),
    Fault("log1p of -1", log_one_plus_far_below, [x(0.5, -1.0)], "Log1p", "singularity", r"log1p at or below"),
    Fault("acosh below 1", hyperbolic_distance, [x(0.5, 2.0)], "Acosh", "singularity", r"tf\.maximum\(x, 1\.0\)"),
    Fault("erfinv at 1", quantile, [x(0.5, 1.0)], "Erfinv", "singularity", r"erfinv at or beyond the ends"),
    Fault("lgamma at a pole", log_of_factorial, [x(0.5, -2.0)], "Lgamma", "singularity", r"negative whole number"),
    Fault("x log 0", entropy_without_a_bound, [x(0.5, 0.0)], "Xlogy", "singularity", r"bound y"),
    Fault("softmax of nothing", all_masked_softmax, [x([6.0], [1.0])], "RealDiv", "singularity", r"what is masked"),
    Fault("softmax by hand", own_softmax, [x(0.0, 100.0)], "Exp", "overflow", r"tf\.nn\.softmax", kind="+Inf"),
    Fault("softmax from below", own_softmax_below, [x(-120.0, -110.0)], "RealDiv", "lost precision", r"nn\.softmax"),
    Fault("softplus by hand", own_softplus, [x(100.0)], "Exp", "overflow", r"softplus"),
    Fault("exp", plain_exp, [x(1.0, 89.0)], "Exp", "overflow", r"above 88\.7"),
    Fault("exp in float64", plain_exp, [x(1.0, 710.0, dtype=tf.float64)], "Exp", "overflow", r"above 709\.8"),
    Fault("divided by 0", divided_by_zero, [x(1.0, 1.0), x(2.0, 0.0)], "RealDiv", "singularity", r"divide_no_nan"),
    Fault("0 / 0", divided_by_zero, [x(0.0), x(0.0)], "RealDiv", "singularity", r"divide_no_nan", kind="NaN"),
    Fault(
        "quotient too large", divided_by_zero, [x(1e30), x(1e-20)], "RealDiv", "overflow", r"values as large as 1e\+30"
    ),
    Fault("divided by its norm", divided_by_own_norm, [x(0.0, 0.0)], "RealDiv", "singularity", r"l2_normalize"),
    Fault("divided by its deviation", divided_by_deviation, [x(2.0, 2.0)], "RealDiv", "singularity", r"epsilon"),
    Fault("root of a negative", root_of_negative, [x(4.0, -1.0)], "Sqrt", "singularity", r"tf\.maximum\(x, 0\.0\)"),
    Fault(
        "deviation by moments", deviation_by_moments, [x(299.8, 299.804, 299.796)], "Sqrt", "lost precision",
        r"reduce_variance",
    ),
    Fault("rsqrt of 0", inverse_root, [x(1.0, 0.0)], "Rsqrt", "singularity", r"rsqrt\(x \+ epsilon\)"),
    Fault("reciprocal of 0", reciprocal, [x(1.0, 0.0)], "Reciprocal", "singularity", r"reciprocal_no_nan"),
    Fault("power below 0 of 0", negative_power, [x(1.0, 0.0)], "Pow", "singularity", r"x \+ epsilon"),
    Fault("power of a negative", power_of_negative, [x(-1.0)], "Pow", "singularity", r"fractional power of a negative"),
    Fault("acos beyond 1", arc_cosine, [x(1.0)], "Acos", "singularity", r"clip_by_value"),
    Fault("mean of nothing", mean_of_nothing, [x(1.0, 2.0)], "Mean", "singularity", r"mean of nothing", kind="NaN"),
    Fault("squares overflow", square_overflows, [x(1e20, 1.0)], "Square", "overflow", r"first, .*learning rate"),
    Fault("product overflows", product_overflows, [tf.fill([50], 10.0)], "Prod", "overflow", r"add logarithms"),
    Fault("cast to float16", half_overflows, [x(1e5)], "Cast", "overflow", r"65504"),
    Fault("sum in float16", half_sum_overflows, [x(6e4, 6e4, dtype=tf.float16)], "Sum", "overflow", r"65504"),
    Fault("matmul overflows", matmul_overflows, [tf.fill([3, 3], 1e25)], "MatMul", "overflow", r"1e\+25"),
    Fault("a row masked throughout", fully_masked, [x(1.0, 2.0)], "Softmax", "singularity", r"-inf throughout"),
    Fault("a mask in float16", masked_in_half, [x(1.0, 2.0, dtype=tf.float16)], "Mul", "singularity", r"such as -6e4"),
    Fault("a healthy mask, and a fault", masked_elsewhere, [x(1.0, 2.0, 3.0)], "Log", "singularity", r"log of 0"),
    Fault("NaN in the data", plain_exp, [x(1.0, np.nan)], "Placeholder", "input", r"inputs\[0\] is not finite before"),
    Fault("+Inf in the data", own_softmax, [x(1.0, np.inf)], "Placeholder", "input", r"inputs\[0\] is not finite"),
    Fault("a weight is NaN", weight_is_nan, tf.ones([1, 3]), "Placeholder", "input", r"head/kernel", built=True),
    Fault("root at 0", root_at_zero, [x(1.0, 0.0)], "SqrtGrad", "singularity", r"inside the root", "Sqrt"),
    Fault("norm at 0", norm_at_zero, [x(0.0, 0.0)], "SqrtGrad", "singularity", r"norm has no gradient at 0", "Sqrt"),
    Fault("norm by hand", norm_by_hand, [x(0.0, 0.0)], "SqrtGrad", "singularity", r"norm has no gradient", "Sqrt"),
    Fault("unsafe where", unsafe_where, [x(1.0, 0.0)], "Reciprocal", "singularity", r"safe = tf\.where", "Log"),
    Fault(
        "unsafe where, further down", unsafe_where_further_down, [x(2.0, 1.0)], "Reciprocal", "singularity", r"safe =",
        "Log",
    ),
    Fault("chosen root", chosen_root, [x(1.0, 0.0)], "SqrtGrad", "singularity", r"slope of a root", "Sqrt"),
    Fault("half power", half_power, [x(1.0, 0.0)], "Pow", "singularity", r"power below 1", "Pow"),
    Fault("arc sine at 1", arc_sine_at_one, [x(1.0)], "Reciprocal", "singularity", r"slope is infinite", "Asin"),
    Fault("masked by a product", masked_log, [x(1.0, 0.0)], "Log", "singularity", r"xlogy"),
    Fault("in a call", in_a_call, [x(1.0, 3.0)], "Log", "singularity", r"log of 0"),
    Fault("compiled by XLA", compiled, [x(0.0, 3.0)], "Log", "singularity", r"log of 0"),
    Fault("in a while", in_a_while, [x(30.0)], "Sqrt", "singularity", inside=r"while \(iteration 4\)"),
    Fault("in a branch", in_a_branch, [x(1.0)], "RealDiv", "singularity", inside=r"cond \(then branch\)"),
    Fault("in a case", in_a_case, [x(1.0)], "Log", "singularity", inside=r"\(branch 1\)"),
    Fault("in a map", in_a_map, [tf.constant([[1.0], [1.0], [0.0]])], "Log", "singularity", inside=r"iteration 2"),
    Fault("in a scan", in_a_scan, [tf.fill([5], 1e10)], "Mul", "overflow", inside=r"iteration 2"),
    Fault(
        "in a branch of a while", while_and_branch, [x(1.0)], "Reciprocal", "singularity",
        inside=r"while \(iteration 2\) > .*cond \(then branch\)",
    ),
    Fault(
        "gradient of a loop", loop_backward, [x(1.0, 0.0)], "SqrtGrad", "singularity", r"root", "Sqrt", "iteration 0"
    ),
    Fault("gradient of a branch", branch_backward, [x(0.0)], "SqrtGrad", "singularity", r"root", "Sqrt", "then branch"),
    Fault("gradient of a map", map_backward, [x(1.0, 0.0)], "SqrtGrad", "singularity", r"root", "Sqrt", "iteration"),
    Fault("gradient of a call", call_backward, [x(1.0, 0.0)], "SqrtGrad", "singularity", r"root", "Sqrt", built=True),
    Fault("vectorized map", vectorized, [tf.constant([[1.0], [0.0]])], "Log", "singularity", r"log of 0"),
    Fault("own gradient", own_gradient, [x(1.0, 0.0)], "RealDiv", "singularity"),
    Fault("a tape inside", gradient_inside, [x(1.0, 0.0)], "SqrtGrad", "singularity", r"root", "Sqrt"),
    Fault(
        "Keras, backward", model_backward, tf.ones([2, 3]), "SqrtGrad", "singularity", r"norm has no gradient", "Sqrt",
        layer="net/length", built=True,
    ),
    Fault("Keras, forward", model_forward, tf.ones([2, 3]), "RealDiv", "singularity", layer="net/scaled", built=True),
]  # fmt: skip


# ----------------------------------------------------------------------------- healthy, or nearly what earns a hint


def healthy_mask(z):
    return tf.nn.softmax(z + tf.constant([0.0, -np.inf, 0.0]))


def safe_where(a):
    safe = tf.where(a > 0.0, a, 1.0)
    return tf.where(a > 0.0, tf.math.log(safe), 0.0)


def no_nan(a):
    return tf.math.divide_no_nan(1.0, a)


HEALTHY = [
    ("a mask of -inf", healthy_mask, [x(1.0, 2.0, 3.0)]),
    ("a double where", safe_where, [x(1.0, 0.0)]),
    ("a where around a root", lambda a: tf.where(a > 1.0, tf.sqrt(a - 1.0), 0.0), [x(2.0, 1.0)]),
    ("divide_no_nan", no_nan, [x(1.0, 0.0)]),
    ("a loop", lambda a: tf.while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, tf.sin(v)), (0, a))[1], [x(1.0)]),
    ("no input", lambda: tf.constant(1.0), []),
    ("integers only", lambda n: tf.cast(n, f32), [tf.constant([1, 2])]),
]


# Faults that nearly earn a hint: a pattern that it must not match.
NEAR_MISSES = [
    ("log of 0 that is no softmax", log_of_zero, [x(1.0, 0.0)], r"softmax|sigmoid|logsumexp|log1p|xlogy"),
    ("log(1 - x) at 1", lambda a: tf.math.log(1.0 - a), [x(1.0)], r"log1p"),
    ("3 * log(0)", lambda a: 3.0 * tf.math.log(a), [x(0.0)], r"xlogy"),
    ("exp that is summed only", lambda a: tf.reduce_sum(tf.exp(a)), [x(100.0)], r"softmax|logsumexp|softplus"),
    ("log(2 + exp(x))", lambda a: tf.math.log(2.0 + tf.exp(a)), [x(100.0)], r"softplus"),
    ("divided by a sum", lambda a: 1.0 / tf.reduce_sum(a), [x(1.0, -1.0)], r"softmax|l2_normalize|root"),
    ("a root that is chosen", chosen_root, [x(1.0, 0.0)], r"safe ="),
    ("a root of no squares", root_at_zero, [x(1.0, 0.0)], r"norm|variance"),
    ("root of a difference", lambda a: tf.sqrt(tf.reduce_mean(a) - 5.0), [x(1.0)], r"variance"),
    ("a sum too large", lambda a: tf.reduce_sum(a), [tf.fill([10], 1e38)], r"clip them first"),  # noqa: PLW0108
    ("a mean too large", lambda a: tf.reduce_mean(a) * 1e30, [x(1e20)], r"mean of nothing"),
    ("a zero that float64 has too", lambda a: tf.math.log(a - a), [x(1.0)], r"float64|digits"),
]
