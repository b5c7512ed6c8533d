"""What is wrong in the op at fault is said where its Jacobian shows it, and not where it nearly does."""

import numpy as np
import pytest
import tensorflow as tf

from gradcheck import check_gradients
from gradcheck._check import blame
from gradcheck._check import hints as explained

rng = np.random.default_rng(0)
X = rng.normal(size=(4, 3)).astype(np.float32)
SQUARE = rng.normal(size=(3, 3)).astype(np.float32)


@tf.custom_gradient
def product(a, b):
    return a @ b, lambda up: (up @ b, tf.transpose(a) @ up)


@tf.custom_gradient
def crossed(a, b):
    return a * tf.sin(b), lambda up: (up * a * tf.cos(b), up * tf.sin(b))


@tf.custom_gradient
def bias(x, b):
    return x + b, lambda up: (up, up[0])


@tf.custom_gradient
def bias_unsummed(x, b):
    return x + b, lambda up: (up, up)


@tf.custom_gradient
def row_unsummed(x, b):
    return x + b, lambda up: (up, up)


@tf.custom_gradient
def mean_of_squares(x):
    return tf.reduce_mean(x * x), lambda up: up * 2 * x


@tf.custom_gradient
def clipped_square(x):
    return x**2, lambda up: tf.clip_by_value(up * 2 * x, -1.0, 1.0)


@tf.custom_gradient
def swish(x):
    s = tf.sigmoid(x)
    return x * s, lambda up: up * s


@tf.custom_gradient
def nearly_swish(x):
    s = tf.sigmoid(x)
    return x * s, lambda up: up * (s + 0.9 * x * s * (1 - s))


@tf.custom_gradient
def normalized(x):
    mean = tf.reduce_mean(x, -1, keepdims=True)
    variance = tf.reduce_mean((x - mean) ** 2, -1, keepdims=True)
    return (x - mean) / tf.sqrt(variance + 0.1), lambda up: up / tf.sqrt(variance + 0.1)


@tf.custom_gradient
def pooled(x):
    return tf.reduce_max(x, axis=1), lambda up: tf.repeat(up[:, None], 3, axis=1)


@tf.custom_gradient
def leaky(x):
    return tf.where(x > 0, x, 0.1 * x), lambda up: tf.where(x > 0, up, 0.2 * up)


@tf.custom_gradient
def rounded(x):
    return tf.round(x), lambda up: up


@tf.custom_gradient
def sine(x):
    return tf.sin(x), lambda up: tf.cos(x)


@tf.custom_gradient
def complex_square(z):
    return z * z, lambda up: up * 2 * z


def hints(fn, *inputs):
    def loss(*args):
        return tf.reduce_sum(tf.sin(1.3 * fn(*(1.1 * a for a in args))))

    report = check_gradients(loss, list(inputs))
    assert not report.ok
    return {finding.x: finding.hint for finding in report.findings if not finding.ok}


@pytest.mark.parametrize(
    ("fn", "inputs", "wanted"),
    [
        (product, [X[:2], SQUARE], {"inputs[0]": "in product, for its argument 0: a matrix is used where its "}),
        (crossed, [X, X[::-1] + 1], {
            "inputs[0]": "in crossed, for its argument 0: the gradients of two inputs are swapped: this is the one of "
            "argument 1",
            "inputs[1]": "in crossed, for its argument 1: the gradients of two inputs are swapped",
        }),
        (lambda a: crossed(a, tf.constant(X[::-1] + 1)), [X], {
            "inputs[0]": "in crossed, for its argument 0: the gradients of two inputs are swapped",
        }),
        (bias, [X, X[0]], {"inputs[1]": "in bias, for its argument 1: the sum over a broadcast axis is missing: "}),
        (bias_unsummed, [X, X[0]], {"inputs[1]": "broadcast axis is missing: tf.reduce_sum(gradient, axis=[0])"}),
        (row_unsummed, [X, X[:1]], {"inputs[1]": "is missing: tf.reduce_sum(gradient, axis=[0], keepdims=True)"}),
        (mean_of_squares, [X], {"inputs[0]": "12 x numeric, and each entry of the output is made of 12"}),
        (clipped_square, [X], {"inputs[0]": "in clipped_square: the gradient is clipped to [-1, 1]"}),
        (swish, [X], {"inputs[0]": "in swish: one term of a product is missing: the gradient treats as constant what "
                      "Sigmoid 'Sigmoid' (line"}),
        (normalized, [X], {"inputs[0]": "in normalized: a term is missing: the gradient treats as constant what Mean"}),
        (pooled, [X], {"inputs[0]": "in pooled: the gradient of a maximum goes to 3 entries, and belongs to the "}),
        (leaky, [X], {"inputs[0]": "in leaky: wrong only where x < 0: in all 5 entries there, analytic = 2 x"}),
        (rounded, [X], {"inputs[0]": "in rounded: the function stands still here, and its gradient is that of the "}),
        (sine, [X], {"inputs[0]": "in sine: the upstream gradient is ignored: it is the one for an upstream of ones"}),
        (lambda a: tf.math.real(complex_square(tf.complex(a, 1.0)) * (1 + 2j)), [X[0]], {
            "inputs[0]": "in complex_square: the derivative is not conjugated",
        }),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)  # fmt: skip
def test_a_gradient_that_is_wrong_in_a_known_way_is_recognized(fn, inputs, wanted):
    found = hints(fn, *inputs)
    assert found.keys() == wanted.keys()
    for x, text in wanted.items():
        assert text in found[x]


@pytest.mark.parametrize(("factor", "wanted"), [(1.5, "1.5 x numeric in the wrong entry"), (0.3217, None)])
def test_the_factor_of_a_single_entry_is_said_where_it_is_a_simple_one(factor, wanted):
    wrong = tf.custom_gradient(lambda x: (tf.sin(x), lambda up: factor * up * tf.cos(x)))
    hint = check_gradients(wrong, np.float32(0.7)).worst.hint
    assert hint is None if wanted is None else wanted in hint


def test_a_gradient_that_is_wrong_in_no_known_way_gets_no_hint():
    assert hints(nearly_swish, X) == {"inputs[0]": None}


def test_where_no_op_can_be_looked_at_the_function_is_looked_at_as_a_whole(monkeypatch):
    def refuse(*_):
        raise RuntimeError("cannot be copied")

    monkeypatch.setattr(blame, "trace_tensors", refuse)
    found = check_gradients(lambda x: leaky(x) * 2.0, [X]).worst
    assert found.blame is None
    assert found.hint.startswith("wrong only where x < 0: in all 5 entries there")


def test_a_hint_that_cannot_be_had_costs_no_report(monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(explained, "begin", fail)
    found = check_gradients(leaky, [X]).worst
    assert found.blame.op == "leaky"
    assert "a constant factor" in found.hint


def test_levels_are_not_explained_by_how_steep_their_steps_are():
    x = np.float32([0.31, -0.77, 1.9])
    found = check_gradients(lambda x: tf.quantization.fake_quant_with_min_max_args(x, -2.5, 2.5), x).worst
    assert "stands still between its levels" in found.hint
    assert "surrogate=lambda x: tf.clip_by_value(x, min, max)" in found.hint
