"""Intervals cover the truth: on smooth functions, beside and at kinks, under noise, at every scale.

The truth comes from the same formulas run on pairs of value and derivative in extended precision.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradcheck._numerics.directions import power_of_two_scale
from gradcheck._numerics.intervals import differentiate
from gradcheck._numerics.stencils import NINE, SEVEN

EPS = 2.0**-52
STEP = 2.0**-9
SEED = 20240229
Long = np.longdouble


class Pair:
    """A value and its derivative."""

    __array_ufunc__ = None

    def __init__(self, value, slope=0):
        self.value, self.slope = value, slope

    def __add__(self, other):
        other = other if isinstance(other, Pair) else Pair(Long(other))
        return Pair(self.value + other.value, self.slope + other.slope)

    def __mul__(self, other):
        other = other if isinstance(other, Pair) else Pair(Long(other))
        return Pair(self.value * other.value, self.slope * other.value + self.value * other.slope)

    def __pow__(self, power):
        return Pair(self.value**power, power * self.value ** (power - 1) * self.slope)

    def __neg__(self):
        return self * -1

    def __sub__(self, other):
        return self + -other

    def __rsub__(self, other):
        return -self + other

    def __truediv__(self, other):
        return self * other**-1 if isinstance(other, Pair) else Pair(self.value / Long(other), self.slope / Long(other))

    def __rtruediv__(self, other):
        return self**-1 * other

    __radd__, __rmul__ = __add__, __mul__


def _digamma(x):
    total = np.zeros_like(x)
    for _ in range(20):
        total, x = np.where(x < 20, total - 1 / x, total), np.where(x < 20, x + 1, x)
    square = 1 / (x * x)
    tail = square * (Long(1) / 12 - square * (Long(1) / 120 - square * (Long(1) / 252 - square / 240)))
    return total + np.log(x) - 1 / (2 * x) - tail


DERIVATIVES = {
    "sin": np.cos,
    "cos": lambda x: -np.sin(x),
    "exp": np.exp,
    "log": lambda x: 1 / x,
    "tan": lambda x: 1 / np.cos(x) ** 2,
    "tanh": lambda x: 1 / np.cosh(x) ** 2,
    "cosh": np.sinh,
    "sinh": np.cosh,
    "sqrt": lambda x: 1 / (2 * np.sqrt(x)),
    "cbrt": lambda x: 1 / (3 * np.cbrt(x) ** 2),
    "arctan": lambda x: 1 / (1 + x * x),
    "arcsin": lambda x: 1 / np.sqrt(1 - x * x),
    "arcsinh": lambda x: 1 / np.sqrt(1 + x * x),
    "log1p": lambda x: 1 / (1 + x),
    "expm1": np.exp,
    "abs": np.sign,
    "erf": lambda x: 2 / np.sqrt(4 * np.arctan(Long(1))) * np.exp(-x * x),
    "lgamma": _digamma,
}
_SCALAR = {name: np.vectorize(getattr(math, name), otypes=[float]) for name in ("erf", "lgamma")}


def apply(name, x):
    """A named function of an array or of a pair."""
    plain = _SCALAR.get(name) or getattr(np, name)
    if not isinstance(x, Pair):
        return plain(x)
    return Pair(np.asarray(plain(x.value), Long), DERIVATIVES[name](x.value) * x.slope)


def _named(name):
    return lambda x: apply(name, x)


sin, cos, exp, log, tanh, tan = (_named(n) for n in ("sin", "cos", "exp", "log", "tanh", "tan"))
sqrt, atan, erf, absolute, log1p = (_named(n) for n in ("sqrt", "arctan", "erf", "abs", "log1p"))
_COEFFICIENTS = np.random.default_rng(5).normal(size=(3, 1000))
_LAYERS = np.random.default_rng(6).normal(size=(3, 8, 8)) / 2


def _thousand_terms(x):
    total = x * 0
    for a, b, c in _COEFFICIENTS.T:
        total = total + sin(x * b + c) * a
    return total


def _network(x):
    units = [tanh(x * w + b) for w, b in zip(_LAYERS[0, 0], _LAYERS[0, 1], strict=True)]
    for layer in _LAYERS[1:]:
        units = [tanh(sum((u * w for u, w in zip(units, row, strict=True)), x * 0) + 0.1) for row in layer]
    return sum(units, x * 0)


def _horner(coefficients):
    def polynomial(x):
        total = x * 0
        for c in coefficients:
            total = total * x + c
        return total

    return polynomial


SMOOTH = {  # name: (function, least point, largest point)
    "sin": (sin, -10, 10),
    "exp": (exp, -20, 20),
    "log": (log, 0.01, 20),
    "tanh": (tanh, -5, 5),
    "sqrt": (sqrt, 1e-3, 10),
    "arctan": (atan, -10, 10),
    "arcsin": (_named("arcsin"), -0.99999, 0.99999),
    "arcsinh": (_named("arcsinh"), -10, 10),
    "cube root": (_named("cbrt"), 1e-3, 3),
    "lgamma": (_named("lgamma"), 0.05, 20),
    "erf": (erf, -4, 4),
    "line": (lambda x: 3 * x + 1, -5, 5),
    "square": (lambda x: x * x, -3, 3),
    "15th power": (lambda x: x**15, -3, 3),
    "50th power": (lambda x: x**50, -1.2, 1.2),
    "polynomial of degree 20": (_horner(np.cos(np.arange(21.0)).tolist()), -1.5, 1.5),
    "roots 1 to 12": (_horner(np.poly(np.arange(1, 13)).tolist()), 0, 13),
    "Chebyshev of degree 12": (_horner(np.polynomial.chebyshev.cheb2poly([0] * 12 + [1])[::-1].tolist()), -1, 1),
    "Runge": (lambda x: 1 / (1 + 25 * x * x), -1, 1),
    "narrow Lorentz": (lambda x: 1 / ((x - 1) ** 2 + 1e-6), 0.9, 1.1),
    "Gauss": (lambda x: exp(-(x * x)), -6, 6),
    "narrow Gauss": (lambda x: exp(-1e6 * x * x), -0.003, 0.003),
    "sin 50 x": (lambda x: sin(50 * x), -3, 3),
    "sin 1000 x": (lambda x: sin(1000 * x), -1, 1),
    "sin of large arguments": (sin, 1e3, 1e5),
    "sin x^2": (lambda x: sin(x * x), -30, 30),
    "sin 1/x": (lambda x: sin(1 / x), 0.01, 1),
    "sin exp": (lambda x: sin(exp(x)), -3, 5),
    "exp sin": (lambda x: exp(sin(3 * x)), -5, 5),
    "exp exp": (lambda x: exp(-exp(-x)), -2, 9),
    "two frequencies": (lambda x: sin(x) * cos(7 * x), -4, 4),
    "ripple": (lambda x: sin(x) + 1e-3 * sin(200 * x), -3, 3),
    "faint ripple": (lambda x: sin(x) + 1e-6 * sin(2e4 * x), -3, 3),
    "Weierstrass, ten terms": (lambda x: sum((cos(3.0**k * x) * 0.5**k for k in range(10)), x * 0), -1, 1),
    "tan beside its pole": (tan, 1.56, 1.5707),
    "tan": (tan, -1.57, 1.57),
    "1/x": (lambda x: 1 / x, 0.01, 3),
    "flat": (lambda x: exp(-1 / (x * x)), 0.05, 2),
    "bump": (lambda x: exp(-1 / (1 - x * x)), -0.999, 0.999),
    "log cosh": (lambda x: log(apply("cosh", x)), -5, 5),
    "softplus, naive": (lambda x: log(1 + exp(x)), -30, 30),
    "softplus": (lambda x: log1p(exp(x)), -30, 30),
    "gelu": (lambda x: x * 0.5 * (1 + erf(x / math.sqrt(2))), -6, 6),
    "silu": (lambda x: x / (1 + exp(-x)), -10, 10),
    "mish": (lambda x: x * tanh(log1p(exp(x))), -10, 10),
    "saturated": (lambda x: tanh(100 * (x - 1)), 0.9, 1.1),
    "log of a sum of exp": (lambda x: log(exp(3 * x) + exp(-x) + exp(x * x)), -3, 3),
    "entropy": (lambda x: -x * log(x) - (1 - x) * log(1 - x), 0.001, 0.999),
    "x to the x": (lambda x: exp(x * log(x)), 0.01, 5),
    "cancelling": (lambda x: (1 - cos(x)) / (x * x), 1e-2, 1),
    "expm1, naive": (lambda x: (exp(x) - 1) / x, 1e-4, 1e-1),
    "logistic map, ten times": (lambda x: _iterate(lambda z: 3.7 * z * (1 - z), x, 10), 0.05, 0.95),
    "cosine, ten times": (lambda x: _iterate(cos, 2 * x, 10), -3, 3),
    "thousand terms": (_thousand_terms, -3, 3),
    "network": (_network, -3, 3),
    "large constant": (lambda x: 1e6 + 1e-6 * sin(x), -3, 3),
    "tiny": (lambda x: 1e-30 * sin(x), -3, 3),
    "huge": (lambda x: 1e30 * sin(x), -3, 3),
}


def _iterate(fn, x, times):
    for _ in range(times):
        x = fn(x)
    return x


def _truth(fn, x, scale):
    with np.errstate(all="ignore"):
        pair = fn(Pair(x.astype(Long), scale.astype(Long)))
    return (np.broadcast_to(np.asarray(a, np.float64), x.shape) for a in (pair.value, pair.slope))


def _sampler(fn, x, scale=1.0):
    x, scale = np.broadcast_arrays(np.atleast_1d(np.asarray(x, np.float64)), scale)

    def sample(index, step, grid):
        moves = np.array(grid)[:, None] * step
        with np.errstate(all="ignore"):
            return (fn(x[index] + scale[index] * moves) + 0 * moves)[:, :, None]

    return sample


def _measure(fn, x, *, scale, wanted=1e-12, step=STEP, begin=NINE):
    """The measured derivatives in units of the scale, and the true ones."""
    value, slope = _truth(fn, x, scale)
    found = differentiate(
        _sampler(fn, x, scale),
        len(x),
        step=step,
        eps=EPS,
        target=wanted * np.maximum(np.abs(value), np.abs(slope))[:, None],
        argument_noise=0.5 * EPS * np.abs(x / scale * slope)[:, None],
        begin=begin,
    )
    return found, slope


def _one(fn, x=0.0, *, target=1e-12, step=STEP):
    found = differentiate(_sampler(fn, x), 1, step=step, eps=EPS, target=target)
    names = ("value", "error", "kink", "jump", "left", "right", "left_error", "right_error", "nonfinite", "base")
    return {name: getattr(found, name)[0, 0] for name in names} | {"evaluations": found.evaluations}


def _battery(scale_of, **options):
    rng = np.random.default_rng(SEED)
    ratios, relative = [], []
    for name, (fn, low, high) in SMOOTH.items():
        x = rng.uniform(low, high, 8 if name == "thousand terms" else 60)
        found, slope = _measure(fn, x, scale=scale_of(x), **options)
        difference = np.abs(found.value[:, 0] - slope)
        assert not np.isnan(found.error).any()
        assert not found.kink.any(), name
        assert not found.nonfinite.any(), name
        ratios.append(difference / found.error[:, 0])
        relative.append(difference[slope != 0] / np.abs(slope[slope != 0]))
    return np.concatenate(ratios), np.concatenate(relative)


@pytest.mark.parametrize(
    "scale_of",
    [np.ones_like, lambda x: np.array([power_of_two_scale(entry) for entry in x])],
    ids=["unit scale", "own scale"],
)
def test_the_truth_lies_within_ten_errors_on_smooth_functions(scale_of):
    ratios, relative = _battery(scale_of)
    assert len(ratios) > 3000
    assert np.mean(ratios <= 10) >= 0.999
    assert np.mean(ratios <= 1) >= 0.98
    assert np.median(relative) < 2e-13


@pytest.mark.parametrize(("step", "wanted"), [(STEP, 1e-7), (STEP / 4, 1e-7), (STEP / 4, 1e-11)])
def test_seven_samples_first_are_as_honest_as_nine(step, wanted):
    """A ripple too faint and too fine for so coarse a look misleads either, and nothing else does."""
    own = lambda x: np.array([power_of_two_scale(entry) for entry in x])  # noqa: E731
    (nine, _), (seven, relative) = (_battery(own, begin=begin, step=step, wanted=wanted) for begin in (NINE, SEVEN))
    assert np.mean(seven > 10) <= np.mean(nine > 10) + 1e-3
    assert np.mean(seven > 10) <= 3e-3
    assert np.mean(seven <= 1) >= 0.97
    assert np.median(relative) < wanted / 10


def test_a_derivative_wrong_by_a_millionth_is_outside_in_nearly_all_cases():
    """The errors above are not just large."""
    rng = np.random.default_rng(SEED)
    seen = []
    for name in ("sin", "exp", "tanh", "log cosh", "network", "lgamma", "two frequencies", "sin 1000 x"):
        fn, low, high = SMOOTH[name]
        x = rng.uniform(low, high, 50)
        found, slope = _measure(fn, x, scale=np.ones(50))
        seen.append(np.abs(found.value[:, 0] - slope * (1 + 1e-6)) > 10 * found.error[:, 0])
    assert np.mean(seen) > 0.95


@pytest.mark.parametrize("step", [1 / 8, 2.0**-9, 2.0**-14])
def test_an_oscillation_is_not_mistaken_for_a_slow_one(step):
    found = _one(lambda t: np.sin(50 * (0.3 + t)), step=step, target=1e-9)
    assert abs(found["value"] - 50 * math.cos(15)) <= 10 * found["error"] < 1e-6


@pytest.mark.parametrize(("begin", "target", "count"), [(NINE, 1e-12, 9), (SEVEN, 1e-9, 7), (SEVEN, 1e-15, None)])
def test_smooth_functions_cost_one_round(begin, target, count):
    x = np.linspace(0.5, 1.2, 7)
    asked = []

    def sample(index, step, grid):
        asked.append(grid)
        return _sampler(np.sin, x)(index, step, grid)

    found = differentiate(sample, 7, step=STEP, eps=EPS, target=target, begin=begin)
    if count is None:  # not enough: the samples that there are become nine
        assert asked[:2] == [SEVEN, (-4, 4)]
        assert (found.points == 9).all()
        return
    assert (found.points == count).all()
    assert found.evaluations == count * 7
    assert set(np.unique(found.order)) <= {2, 4, 6, 8}
    assert np.array_equal(found.left, found.value)
    assert np.array_equal(found.right_error, found.error)


def _with_kink(name):
    return {
        "relu": lambda x, at: absolute(x - at) * 0.5 + (x - at) * 0.5,
        "bent sine": lambda x, at: sin(x) + 0.3 * absolute(x - at),
        "weak": lambda x, at: sin(x) + 1e-4 * absolute(x - at),
        "relu times exp": lambda x, at: exp(x) * (absolute(x - at) + (x - at)) + cos(3 * x),
        "on a fast sine": lambda x, at: sin(50 * x) + absolute(x - at),
        "two kinks": lambda x, at: absolute(x - at) + absolute(x - at - 1e-3),
        "third power": lambda x, at: (absolute(x - at) + (x - at)) ** 3 + sin(x),
    }[name]


@pytest.mark.parametrize(("begin", "wanted"), [(NINE, 1e-12), (SEVEN, 1e-12), (SEVEN, 1e-7)])
@pytest.mark.parametrize(
    "name", ["relu", "bent sine", "weak", "relu times exp", "on a fast sine", "two kinks", "third power"]
)
def test_a_point_near_a_kink_gets_the_derivative_of_its_own_side(name, begin, wanted):
    rng = np.random.default_rng(SEED)
    at = rng.uniform(0.3, 2, 200)
    x = at + 10 ** rng.uniform(-9, -1, 200) * rng.choice([-1, 1], 200)
    # The kinks lie where they lie: each point has a function of its own.
    kinked = _with_kink(name)
    with np.errstate(all="ignore"):
        pair = kinked(Pair(x.astype(Long), np.ones(200, Long)), at)
    slope, value = np.asarray(pair.slope, float), np.asarray(pair.value, float)

    def sample(index, step, grid):
        return kinked(x[index] + np.array(grid)[:, None] * step, at[index])[:, :, None]

    found = differentiate(
        sample,
        200,
        step=STEP,
        eps=EPS,
        target=wanted * np.maximum(np.abs(value), np.abs(slope))[:, None],
        argument_noise=0.5 * EPS * np.abs(x * slope)[:, None],
        begin=begin,
    )
    assert np.all(np.abs(found.value[:, 0] - slope) <= 10 * found.error[:, 0])
    # Rounding of the argument and of the value leaves about 2**-52 / 1e-10 at the smallest step that is tried.
    firm = found.error[:, 0] <= 1e-4 * np.maximum(np.abs(slope), 1)
    assert firm.mean() >= 0.98
    assert found.kink.mean() <= 0.02


AT_THE_POINT = {  # name: (function of t, slope to the left, slope to the right, jump)
    "absolute value": (np.abs, -1, 1, False),
    "relu": (lambda t: np.maximum(t, 0), 0, 1, False),
    "relu and sine": (lambda t: np.maximum(t, 0) + np.sin(3 * t), 3, 4, False),
    "weak": (lambda t: np.sin(0.7 + t) + 1e-4 * np.abs(t), math.cos(0.7) - 1e-4, math.cos(0.7) + 1e-4, False),
    "large": (lambda t: 1e6 * np.maximum(t, 0), 0, 1e6, False),
    "floor": (np.floor, 0, 0, True),
    "sign": (lambda t: np.sign(t) + t, 1, 1, True),
    "two branches": (lambda t: np.where(t > 0, t + 1, 2 * t), 2, 1, True),
}


@pytest.mark.parametrize("name", AT_THE_POINT)
def test_a_kink_at_the_point_is_told_with_both_sides(name):
    fn, left, right, jump = AT_THE_POINT[name]
    found = _one(fn)
    assert found["kink"]
    assert found["jump"] == jump
    assert abs(found["left"] - left) <= 10 * found["left_error"] < 1e-7 * max(1, abs(left))
    assert abs(found["right"] - right) <= 10 * found["right_error"] < 1e-7 * max(1, abs(right))
    assert found["value"] == pytest.approx((left + right) / 2, rel=1e-8, abs=1e-8)
    assert found["error"] == (np.inf if jump else pytest.approx((right - left) / 2, rel=1e-4))


@pytest.mark.parametrize("fn", [lambda t: np.sqrt(np.abs(t)), np.cbrt], ids=["root", "cube root"])
def test_a_slope_without_bound_has_no_finite_error(fn):
    found = _one(fn)
    assert found["kink"]
    assert found["error"] == found["left_error"] == found["right_error"] == np.inf


@pytest.mark.parametrize(
    ("fn", "slope"),
    [
        (lambda t: t * np.abs(t), 0),
        (lambda t: np.abs(t) ** 1.5, 0),
        (lambda t: np.maximum(t, 0) - np.maximum(-t, 0), 1),
    ],
    ids=["x|x|", "power 1.5", "a line made of two kinks"],
)
def test_what_has_a_derivative_is_no_kink(fn, slope):
    found = _one(fn)
    assert not found["kink"]
    assert abs(found["value"] - slope) <= 10 * found["error"] < 1e-4


@pytest.mark.parametrize(
    ("fn", "right"),
    [(lambda t: np.where(t < 0, np.nan, np.sin(0.7 + t)), True), (lambda t: np.where(t > 0, np.inf, np.exp(t)), False)],
    ids=["nothing to the left", "nothing to the right"],
)
def test_at_the_edge_of_a_domain_one_side_gives_the_derivative(fn, right):
    found = _one(fn)
    known, unknown = ("right", "left") if right else ("left", "right")
    truth = math.cos(0.7) if right else 1.0
    assert abs(found["value"] - truth) <= 10 * found["error"] < 1e-10
    assert found[known] == found["value"]
    assert found[f"{unknown}_error"] == np.inf
    assert not found["kink"]
    assert not found["nonfinite"]


def test_a_root_at_the_edge_of_its_domain_has_no_finite_error():
    found = _one(np.sqrt)
    assert found["error"] == np.inf
    assert not found["nonfinite"]


@pytest.mark.parametrize("x", [1e-6, 1e-9, 1e-12])
def test_close_to_the_edge_of_a_domain_the_step_shrinks_until_it_fits(x):
    for fn, slope in ((np.sqrt, 0.5 / math.sqrt(x)), (np.log, 1 / x)):
        found = _one(fn, x)
        assert abs(found["value"] - slope) <= 10 * found["error"]
        assert found["error"] < 0.01 * slope


@pytest.mark.parametrize("fn", [np.log, lambda t: t * np.nan], ids=["log 0", "nan"])
def test_without_a_value_at_the_point_there_is_no_derivative(fn):
    found = _one(fn)
    assert found["nonfinite"]
    assert found["error"] == np.inf
    assert found["value"] == 0
    assert found["evaluations"] == 9


@pytest.mark.parametrize("sigma", [1e-12, 1e-10, 1e-8, 1e-6])
@pytest.mark.parametrize("kind", ["normal", "uniform", "rounded"])
def test_noise_far_above_rounding_is_covered(sigma, kind):
    rng = np.random.default_rng(SEED)
    missed = asked = 0
    for name in ("sin", "exp", "two frequencies", "Runge", "tanh", "log cosh", "exp sin", "arctan"):
        fn, low, high = SMOOTH[name]
        x = rng.uniform(low, high, 60)
        value, slope = _truth(fn, x, np.ones(60))
        size = sigma * np.maximum(np.abs(value), np.abs(slope))

        def sample(index, step, grid, fn=fn, x=x, size=size):
            y = fn(x[index] + np.array(grid)[:, None] * step)
            draw = {"normal": rng.standard_normal, "uniform": lambda shape: rng.uniform(-2, 2, shape)}.get(kind)
            amount = size[index]
            return (np.round(y / amount) * amount if draw is None else y + amount * draw(y.shape))[:, :, None]

        found = differentiate(sample, 60, step=STEP, eps=EPS, target=1e-12)
        missed += np.sum(np.abs(found.value[:, 0] - slope) > 10 * found.error[:, 0])
        asked += 60
    # Where a function is nearly straight, values rounded to a grid may be exactly straight on that grid, for nine
    # points: about one in thirty is, if the grid is coarse.
    assert missed <= (0.04 if kind == "rounded" else 0.003) * asked


@pytest.mark.parametrize("units", [100, 10000])
def test_a_sum_of_many_kinks_near_the_point_is_covered(units):
    rng = np.random.default_rng(SEED)
    weights, offsets = rng.standard_normal((2, 20, units))
    slope, size = (weights * (offsets > 0)).sum(axis=1), np.abs(weights).sum(axis=1)

    def sample(index, step, grid):
        rows = [np.maximum(offsets[index] + point * step[:, None], 0) * weights[index] for point in grid]
        return np.stack([row.sum(axis=1) for row in rows])[:, :, None]

    noise = (0.5 * EPS * size)[:, None]
    found = differentiate(sample, 20, step=STEP, eps=EPS, target=1e-12, argument_noise=noise)
    assert np.all(np.abs(found.value[:, 0] - slope) <= 10 * found.error[:, 0])
    assert np.all(found.error[:, 0] <= 1e-6 * size)
    assert not found.kink.any()


def test_a_large_constant_makes_the_error_large_and_the_answer_not_wrong():
    found = _one(lambda t: 1e6 + 1e-6 * np.sin(0.4 + t))
    assert abs(found["value"] - 1e-6 * math.cos(0.4)) <= found["error"]
    assert found["error"] > 1e-11


@pytest.mark.parametrize("value", [0.0, 3.0, -1e30, 1e-300])
def test_a_constant_has_the_derivative_zero_and_an_error_of_rounding(value):
    found = _one(lambda t: value + 0 * t)
    assert found["value"] == 0
    # At most one rounding over the eight steps of the first window.
    assert found["error"] <= EPS * abs(value) / (8 * STEP) + 1e-300


@pytest.mark.parametrize("slope", [1.0, 3.0, -1e30, 1e-30])
def test_a_line_is_exact_to_rounding(slope):
    found = _one(lambda t: slope * t, target=1e-12 * abs(slope))
    assert abs(found["value"] - slope) <= found["error"] <= 1e-13 * abs(slope)


def test_where_results_underflow_the_error_says_so():
    found = _one(lambda t: 1e-200 * np.sin(1 + t) * 1e-115)
    assert abs(found["value"] - 1e-315 * math.cos(1)) <= found["error"]


@settings(deadline=None)
@given(st.sampled_from(["sin", "network", "log cosh", "sin 1000 x", "15th power"]), st.integers(-300, 300))
def test_scaling_a_function_by_a_power_of_two_scales_its_interval(name, exponent):
    fn, low, high = SMOOTH[name]
    x = np.linspace(low, high, 5) * 0.9 + 0.05
    plain = differentiate(_sampler(fn, x), 5, step=STEP, eps=EPS, target=1e-10)
    sample = _sampler(lambda z: np.ldexp(fn(z), exponent), x)
    scaled = differentiate(sample, 5, step=STEP, eps=EPS, target=math.ldexp(1e-10, exponent))
    assert np.array_equal(scaled.value, np.ldexp(plain.value, exponent))
    assert scaled.error == pytest.approx(np.ldexp(plain.error, exponent), rel=1e-12)


def _six_channels(index, step, grid):
    x = 0.3 + 0.1 * index + np.array(grid)[:, None] * step
    return np.stack([np.sin(x), np.sin(300 * x), np.abs(x - 0.5), x * 0, 1e9 * np.exp(x), np.log(x - 0.3)], axis=2)


def test_channels_of_a_group_share_evaluations_and_keep_their_own_intervals():
    asked = []

    def sample(index, step, grid):
        assert index.dtype == np.int64
        assert step.shape == index.shape
        assert len(set(zip(index.tolist(), step.tolist(), strict=True))) == len(index)
        asked.append(len(grid) * len(index))
        with np.errstate(all="ignore"):
            return _six_channels(index, step, grid)

    target = np.array([1e-12, 1e-9, 1e-12, 1e-12, 1e-3, 1e-10])
    found = differentiate(sample, 4, step=np.full(4, STEP), eps=EPS, target=target)
    x = 0.3 + 0.1 * np.arange(4)
    with np.errstate(divide="ignore"):
        slopes = [np.cos(x), 300 * np.cos(300 * x), np.sign(x - 0.5), 0 * x, 1e9 * np.exp(x), 1 / (x - 0.3)]
        values = _six_channels(np.arange(4), np.zeros(4), (0,))[0]
    expected = np.stack(slopes, axis=1)
    smooth = np.isfinite(values) & ~found.kink
    assert found.value.shape == found.nonfinite.shape == (4, 6)
    assert np.all(np.abs(found.value - expected)[smooth] <= 10 * found.error[smooth])
    assert found.kink.tolist() == [[False] * 6, [False] * 6, [False, False, True, False, False, False], [False] * 6]
    assert found.nonfinite[:, 5].tolist() == [True, False, False, False]
    assert np.array_equal(found.base, values)
    assert found.evaluations == sum(asked)


def test_a_wide_window_asked_for_by_one_channel_does_not_settle_what_noise_is_in_another():
    """A line between two nearly symmetric kinks, beside channels that send the group to other steps."""
    x = np.array([-1.0706563, -1.0789423, 0.8835642, -0.8607215, -0.22190864, -1.0872498, -0.35221225, -0.19394183])
    weights = np.arange(1, 9)

    def sample(index, step, grid):
        t = np.array(grid)[:, None] * step[None]
        moved = np.broadcast_to(x, (*t.shape, x.size)).copy()
        moved[..., 1] += t
        return (np.sort(moved, -1) - np.sort(x)) * weights

    found = differentiate(sample, 1, step=0.77 * STEP, eps=EPS, target=1e-14, argument_noise=EPS / 2)
    # -1.0789423 is the second of them.
    assert np.all(np.abs(found.value[0] - 2.0 * (np.arange(8) == 1)) <= 10 * found.error[0])
    assert found.error[0, 1] < 1e-10


def test_problems_do_not_see_each_other():
    x = np.linspace(0.1, 1.4, 11)
    together = differentiate(_sampler(np.tan, x), 11, step=STEP, eps=EPS, target=1e-13)
    for k in range(11):
        alone = differentiate(_sampler(np.tan, x[k]), 1, step=STEP, eps=EPS, target=1e-13)
        # A matrix product may add in another order for another shape.
        assert abs(alone.value[0, 0] - together.value[k, 0]) <= together.error[k, 0]


def test_one_round_is_one_call():
    calls = []

    def sample(index, step, grid):
        calls.append(len(index))
        return np.abs(np.array(grid)[:, None] * step)[:, :, None]

    differentiate(sample, 3, step=STEP, eps=EPS, target=1e-12, rounds=1)
    assert calls == [3]


@pytest.mark.parametrize("shape", [(0, 2), (2, 0)])
def test_nothing_to_do_is_done(shape):
    groups, channels = shape
    found = differentiate(lambda i, s, g: np.zeros((len(g), len(i), channels)), groups, step=STEP, eps=EPS, target=1.0)
    assert found.value.shape == shape


def test_narrow_samples_get_wider_errors():
    """Sampled in float32: the caller says so by eps."""
    x = np.linspace(0.1, 3, 50).astype(np.float32)

    def sample(index, step, grid):
        moved = x[index] + (np.array(grid)[:, None] * step).astype(np.float32)
        return np.sin(moved).astype(np.float64)[:, :, None]

    eps = 2.0**-23
    noise = (0.5 * eps * np.abs(x * np.cos(x)))[:, None]
    found = differentiate(sample, 50, step=2.0**-5, eps=eps, target=1e-5, argument_noise=noise)
    difference = np.abs(found.value[:, 0] - np.cos(x.astype(np.float64)))
    assert np.all(difference <= 10 * found.error[:, 0])
    assert np.median(found.error) < 2e-5
    assert np.median(found.error) > 1e-8
