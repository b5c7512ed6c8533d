"""Exponents of smoothness, and one-sided derivatives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradcheck._numerics.smoothness import one_sided, shape_at_edge, shape_at_point

_POINTS = np.arange(-4, 5.0)[:, None]
_EPS = 2.0**-52


def _at_point(fn, step=2.0**-9):
    return shape_at_point(fn(_POINTS * step), np.full(1, 1e-16))


GALLERY = {  # name: (function, even exponent, odd exponent, what it is)
    "square": (lambda t: t**2, 2.0, 1.0, None),
    "line": (lambda t: 3 * t + 1, 2.0, 1.0, None),
    "absolute value": (np.abs, 1.0, 1.0, "kink"),
    "relu and more": (lambda t: np.maximum(t, 0) + 5 * t, 1.0, 1.0, "kink"),
    "step": (lambda t: np.where(t >= 0, 1.0, 0.0), 0.0, None, "jump"),
    "sign": (np.sign, 2.0, 0.0, "jump"),
    "root": (lambda t: np.sqrt(np.abs(t)), 0.5, 1.0, "vertical"),
    "cube root": (np.cbrt, 2.0, 1 / 3, "vertical"),
    "between": (lambda t: np.abs(t) ** 1.5, 1.5, 1.0, None),
}


@pytest.mark.parametrize("name", GALLERY)
def test_each_kind_of_point_has_its_exponents(name):
    fn, even, odd, kind = GALLERY[name]
    shape = _at_point(fn)
    assert shape.even[0] == pytest.approx(even, abs=1e-6)
    if odd is not None:
        assert shape.odd[0] == pytest.approx(odd, abs=1e-6)
    assert [k for k in ("kink", "jump", "vertical") if getattr(shape, k)[0]] == ([kind] if kind else [])
    assert shape.singular[0] == (kind is not None)


@pytest.mark.parametrize("distance", [0.5, 1.5])
def test_a_kink_beside_the_point_is_no_kink_at_the_point(distance):
    shape = _at_point(lambda t: np.maximum(t - distance * 2.0**-9, 0))
    assert not shape.kink[0]


def test_what_noise_hides_counts_as_smooth():
    kinked = np.abs(_POINTS)
    assert shape_at_point(kinked, np.full(1, 0.1)).kink[0]
    assert not shape_at_point(kinked, np.full(1, 1.0)).singular[0]


def test_the_bend_of_a_kink_is_the_step_times_the_jump_in_slope():
    assert _at_point(lambda t: 3 * np.abs(t), step=0.25).bend[0] == 1.5


def test_a_vertical_slope_at_an_edge_is_seen_from_one_side():
    grid = np.arange(9.0)[:, None]
    assert shape_at_edge(np.sqrt(grid), np.full(1, 1e-16)).vertical[0]
    assert not shape_at_edge(grid + grid**2, np.full(1, 1e-16)).singular[0]


@given(st.lists(st.integers(-9, 9), min_size=8, max_size=8), st.integers(-20, 20))
def test_cubics_on_either_side_are_differentiated_to_rounding(coefficients, exponent):
    left, right = np.polynomial.Polynomial([1, *coefficients[:3]]), np.polynomial.Polynomial([1, *coefficients[4:7]])
    step = 2.0**exponent
    samples = np.where(_POINTS < 0, left(_POINTS), right(_POINTS))
    noise = _EPS * np.abs(samples).max(axis=0)
    sides = one_sided(samples, np.full(1, step), noise)
    for value, error, slope in (
        (sides.left, sides.left_error, coefficients[0]),
        (sides.right, sides.right_error, coefficients[4]),
    ):
        assert abs(value[0] - slope / step) <= error[0]


def test_the_error_of_a_side_covers_what_order_four_leaves_out():
    step = np.full(1, 0.1)
    sides = one_sided(np.exp(_POINTS * 0.1), step, np.full(1, _EPS))
    for value, error in ((sides.left, sides.left_error), (sides.right, sides.right_error)):
        assert 0 < abs(value[0] - 1) <= error[0] < 1e-3


def test_at_a_jump_the_value_at_the_point_belongs_to_neither_side():
    samples = np.where(_POINTS < 0, 2 * _POINTS, 7 + 3 * _POINTS) + np.where(_POINTS == 0, 10, 0)
    sides = one_sided(samples, np.ones(1), np.full(1, _EPS), jump=np.array([True]))
    assert (sides.left[0], sides.right[0]) == pytest.approx((2, 3), abs=100 * _EPS)
    including = one_sided(samples, np.ones(1), np.full(1, _EPS))
    assert including.right[0] != pytest.approx(3, abs=1)


def test_a_side_that_is_not_finite_has_an_infinite_error_and_the_other_is_unharmed():
    samples = np.where(_POINTS < 0, np.nan, 2 * _POINTS)
    sides = one_sided(samples, np.ones(1), np.full(1, _EPS))
    assert (sides.left[0], sides.left_error[0]) == (0, np.inf)
    assert sides.right[0] == pytest.approx(2, abs=100 * _EPS)
    assert np.isfinite(sides.right_error[0])
