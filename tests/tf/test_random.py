"""Random ops: the same numbers in every run, others in every iteration, moved along quantiles where TensorFlow does."""

import numpy as np
import pytest
import tensorflow as tf

import gradcheck
from gradcheck import Verdict
from gradcheck._derivatives.point import Point
from gradcheck._graph.functions import trace_function
from gradcheck._graph.quantiles import _gamma, _truncated_normal

ALPHA = np.array([0.3, 2.5, 40.0])
RATE = np.array([0.5, 3.0, 20.0])
SEED = [3, 5]
f64 = tf.float64
low, high = np.float64(-1.0), np.float64(2.0)


def values(fn, *inputs):
    """What the traced function gives, twice."""
    point = Point(trace_function(fn, list(inputs)))
    return [point.outputs_at_base(wide=False)[0][0] for _ in range(2)]


# -------------------------------------------------------------------------------------------- implicit gradients


def gamma(alpha):
    return tf.random.gamma([2], alpha, dtype=alpha.dtype)


def gamma_and_rate(alpha, beta):
    return tf.random.gamma([2], alpha, beta, dtype=f64)


def stateless_gamma(alpha):
    return tf.random.stateless_gamma([2, 3], SEED, alpha * alpha, dtype=f64)


def old_stateless_gamma(alpha):
    return tf.raw_ops.StatelessRandomGammaV2(shape=[2, 3], seed=SEED, alpha=alpha)


def beta_number(a, b):
    first, second = (tf.random.stateless_gamma([3], [k, 1], p, dtype=f64) for k, p in enumerate((a, b)))
    return first / (first + second)


def dirichlet(alpha):
    numbers = tf.random.gamma([2], alpha, dtype=f64)
    return numbers / tf.reduce_sum(numbers, axis=-1, keepdims=True)


def student_t(freedom):
    return tf.random.normal([3], dtype=f64) * tf.math.rsqrt(tf.random.gamma([], freedom / 2, dtype=f64) * 2 / freedom)


def gamma_in_loop(alpha):
    return tf.while_loop(
        lambda i, s: i < 3, lambda i, s: (i + 1, s + tf.random.gamma([], alpha + s, dtype=f64)), [0, alpha]
    )[1]


def gamma_in_cond(alpha):
    return tf.cond(alpha[0] > 0, lambda: tf.random.gamma([], alpha, dtype=f64), lambda: alpha)


def truncated(minimum, maximum):
    return tf.random.stateless_parameterized_truncated_normal([4, 3], SEED, low * 0, high, minimum, maximum)


SAMPLERS = {
    "gamma": (gamma, [ALPHA]),
    "gamma in float32": (gamma, [ALPHA.astype(np.float32)]),
    "gamma with a rate": (gamma_and_rate, [ALPHA, RATE]),
    "stateless gamma": (stateless_gamma, [ALPHA]),
    "stateless gamma by its seed": (old_stateless_gamma, [ALPHA]),
    "beta": (beta_number, [ALPHA, RATE]),
    "dirichlet": (dirichlet, [ALPHA]),
    "student t": (student_t, [np.array([1.5, 4.0, 30.0])]),
    "gamma in a function": (tf.function(gamma), [ALPHA]),
    "gamma in a loop": (gamma_in_loop, [ALPHA]),
    "gamma in a branch": (gamma_in_cond, [ALPHA]),
    "bounds of a truncated normal": (truncated, [np.array([-1.0, -0.2, 0.1]), np.array([0.5, 1.0, 4.0])]),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_numbers_with_implicit_gradients_match(name):
    fn, inputs = SAMPLERS[name]
    report = gradcheck.check_gradients(fn, inputs)
    assert report.verdict is Verdict.MATCH, report
    assert any("fixed value of the distribution function" in note for note in report.notes)


def test_a_tiny_parameter_beside_large_ones_matches():
    assert gradcheck.check_gradients(gamma, [np.array([0.01, 500.0])]).verdict is Verdict.MATCH


@pytest.mark.slow
def test_an_implicit_gradient_that_is_wrong_is_caught():
    @tf.custom_gradient
    def scaled(alpha):
        number = tf.random.stateless_gamma([3], SEED, alpha, dtype=f64)
        partial = tf.raw_ops.RandomGammaGrad(alpha=alpha, sample=number)
        return number, lambda up: up * partial * 1.0001

    @tf.custom_gradient
    def held_at_its_mean(alpha):
        return tf.random.gamma([], alpha, dtype=f64), lambda up: up

    for wrong in (scaled, held_at_its_mean):
        report = gradcheck.check_gradients(wrong, [ALPHA])
        assert report.verdict is Verdict.MISMATCH, report


def test_tensorflows_gradient_of_a_truncated_normal_by_its_mean_is_seen_to_be_wrong():
    """It leaves the bounds where they are relative to the mean: it says 1 where the truth, on average, is below 1/2."""

    def fn(mean):
        return tf.random.stateless_parameterized_truncated_normal([3], SEED, mean, np.float64(1), -high / 2, high / 2)

    report = gradcheck.check_gradients(fn, [np.zeros(3)])
    assert report.verdict is Verdict.MISMATCH
    assert report.worst.analytic == pytest.approx(1.0)
    assert report.worst.numeric < 0.9


def test_quantiles_give_back_what_they_are_given_and_follow_the_probability():
    rng = np.random.default_rng(0)
    alpha = np.exp(rng.uniform(-3, 6, 200))
    number = rng.gamma(alpha)
    assert np.array_equal(_gamma(number, alpha, alpha), number)
    moved = _gamma(number, alpha, alpha * 1.01).numpy()
    lower, upper = (f(alpha, number) - f(alpha * 1.01, moved) for f in (tf.math.igamma, tf.math.igammac))
    assert np.max(np.minimum(np.abs(lower), np.abs(upper))) < 1e-12
    parameters = [np.float64(v) for v in (0.5, 1.5, -1.0, 3.0)]
    inside = rng.uniform(-0.9, 2.9, 50)
    assert np.array_equal(_truncated_normal(inside, *parameters, *parameters), inside)
    np.testing.assert_allclose(  # moved and stretched as a whole, it keeps its place
        _truncated_normal(inside, *parameters, 0.5 * 2 + 1, 1.5 * 2, -1.0 * 2 + 1, 3.0 * 2 + 1),
        2 * inside + 1,
        rtol=1e-12,
    )


# ------------------------------------------------------------------------------------- draws that jump are held


def poisson(rate):
    return tf.random.poisson([], rate, dtype=f64)


def stateless_poisson(rate):
    return tf.random.stateless_poisson([2, 3], SEED, rate, dtype=f64)


def stateless_binomial(rate):
    return tf.random.stateless_binomial([3], SEED, tf.constant(10.0, f64), tf.sigmoid(rate), output_dtype=f64)


def stateless_categorical(rate):
    return tf.cast(tf.random.stateless_categorical(rate[None], 5, SEED), f64)


def categorical(rate):
    return tf.cast(tf.random.categorical(rate[None], 5), f64)


@pytest.mark.parametrize(
    "fn",
    [poisson, stateless_poisson, stateless_binomial, stateless_categorical, categorical],
    ids=lambda fn: fn.__name__,
)
def test_draws_that_jump_when_their_parameter_moves_are_held(fn):
    report = gradcheck.check_gradients(fn, [RATE])
    assert report.verdict is Verdict.UNCONNECTED, report
    assert "random" in {held.reason for f in report.findings for held in f.held} or fn in (
        categorical,
        stateless_categorical,
    )


def test_a_gradient_beside_a_held_draw_matches():
    report = gradcheck.check_gradients(lambda rate: rate * stateless_poisson(rate), [RATE])
    assert report.verdict is Verdict.MATCH
    assert {held.reason for f in report.findings for held in f.held} == {"random"}


@pytest.mark.parametrize("op", ["RandomPoissonV2", "StatefulRandomBinomial"])
def test_a_draw_that_tensorflow_refuses_to_differentiate_is_a_cut(op):
    generator = tf.random.Generator.from_seed(1)

    def fn(rate):
        if op == "RandomPoissonV2":
            return rate * poisson(rate)
        return rate * generator.binomial([3], tf.constant(10.0, f64), tf.sigmoid(rate), dtype=f64)

    before = generator.state.numpy()
    report = gradcheck.check_gradients(fn, [RATE])
    assert report.verdict is Verdict.CUT
    assert "TensorFlow has no gradient of" in report.worst.cut.reason
    assert np.array_equal(generator.state.numpy(), before)


# -------------------------------------------------------------------------------- every iteration draws its own

DRAWS = {
    "uniform": lambda: tf.random.uniform([], dtype=f64),
    "normal": lambda: tf.random.normal([], dtype=f64),
    "truncated normal": lambda: tf.random.truncated_normal([], dtype=f64),
    "whole numbers": lambda: tf.cast(tf.random.uniform([], 0, 2**30, tf.int32), f64),
    "gamma": lambda: tf.random.gamma([], tf.constant(2.0, f64), dtype=f64),
    "poisson": lambda: tf.random.poisson([], tf.constant(1e9, f64), dtype=f64),
    "categorical": lambda: tf.cast(tf.random.categorical(tf.zeros([1, 100_000]), 1)[0, 0], f64),
    "shuffle": lambda: tf.cast(tf.random.shuffle(tf.range(100_000))[0], f64),
    "generator": lambda: GENERATOR.normal([], dtype=f64),
    "binomial": lambda: GENERATOR.binomial([], tf.constant(1e12, f64), tf.constant(0.5, f64), dtype=f64),
}
GENERATOR = tf.random.Generator.from_seed(7)


def drawn_in_loop(draw):
    return lambda x: tf.map_fn(lambda e: e * 0 + draw(), x)


@pytest.mark.parametrize("name", DRAWS)
def test_iterations_of_a_loop_draw_different_numbers_that_are_the_same_in_every_run(name):
    first, again = values(drawn_in_loop(DRAWS[name]), np.zeros(5))
    assert np.array_equal(first, again)
    assert np.unique(first).size == 5


def test_iterations_of_nested_loops_draw_different_numbers():
    def fn(x):
        return tf.map_fn(lambda row: tf.map_fn(lambda e: e * 0 + tf.random.uniform([], dtype=f64), row), x)

    first, again = values(fn, np.zeros((6, 7)))
    assert np.array_equal(first, again)
    assert np.unique(first).size == 42


def test_branches_in_a_loop_draw_different_numbers():
    def fn(x):
        def pick(e):
            return tf.cond(e > 0, lambda: tf.random.uniform([], dtype=f64), lambda: tf.random.uniform([], dtype=f64))

        return tf.map_fn(pick, x)

    first, _ = values(fn, np.array([1.0, -1.0, 2.0, -2.0]))
    assert np.unique(first).size == 4


def test_two_calls_of_a_function_draw_different_numbers():
    draw = tf.function(lambda: tf.random.uniform([3], dtype=f64), jit_compile=True)
    first, again = values(lambda x: x * 0 + draw() - draw(), np.zeros(3))
    assert np.array_equal(first, again)
    assert np.all(first != 0)


def test_draws_in_a_loop_have_the_distribution_of_the_op():
    (sample, _) = values(drawn_in_loop(DRAWS["uniform"]), np.zeros(2000))
    assert abs(sample.mean() - 0.5) < 4 / np.sqrt(12 * 2000)
    assert abs(np.corrcoef(sample[1:], sample[:-1])[0, 1]) < 4 / np.sqrt(2000)


def test_gradients_through_a_loop_that_draws_match():
    def fn(x):
        return tf.while_loop(
            lambda i, s: i < 4, lambda i, s: (i + 1, s * tf.random.uniform([3], 0.5, 1.5, f64) + x), [0, x]
        )[1]

    assert gradcheck.check_gradients(fn, [ALPHA]).verdict is Verdict.MATCH


def test_the_classes_that_a_loss_samples_are_held_at_one_draw():
    def loss(w, b, x):
        return tf.nn.sampled_softmax_loss(w, b, tf.constant([[1], [2]]), x, num_sampled=3, num_classes=8)

    report = gradcheck.check_gradients(loss, [np.ones(shape, np.float32) for shape in ([8, 3], [8], [2, 3])])
    assert report.ok, str(report)
