"""Stencils: exact on polynomials, and nothing else will do."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradcheck._numerics.stencils import LEFT, NINE, ORDERS, RIGHT, SEVEN, Stencil, ladder, stencil, weight_matrix

grids = st.lists(st.integers(-8, 8), min_size=1, max_size=7, unique=True)


def _applied_to_power(found: Stencil, degree: int) -> Fraction:
    return sum((w * Fraction(g) ** degree for w, g in zip(found.weights, found.grid, strict=True)), Fraction(0))


@given(grids, st.data())
def test_polynomials_below_the_grid_size_are_differentiated_exactly(grid, data):
    order = data.draw(st.integers(0, len(grid) - 1))
    degree = data.draw(st.integers(0, len(grid) - 1))
    assert _applied_to_power(stencil(grid, order), degree) == (math.factorial(order) if degree == order else 0)


def test_a_stencil_with_one_wrong_weight_is_seen_by_the_law_above():
    right = stencil((-1, 0, 1), 1)
    wrong = Stencil(grid=right.grid, weights=(*right.weights[:-1], right.weights[-1] + Fraction(1, 1000)))
    assert [_applied_to_power(wrong, degree) for degree in range(3)] != [0, 1, 0]


def test_the_central_ladder_has_the_weights_of_the_textbooks():
    half = [
        ["1/2"],
        ["2/3", "-1/12"],
        ["3/4", "-3/20", "1/60"],
        ["4/5", "-1/5", "4/105", "-1/280"],
    ]
    for found, expected in zip(ladder(NINE), half, strict=True):
        middle = len(found.grid) // 2
        assert [str(w) for w in found.weights[middle + 1 :]] == expected
        assert [-w for w in reversed(found.weights[:middle])] == list(found.weights[middle + 1 :])


@pytest.mark.parametrize("grid", [NINE, SEVEN, RIGHT, LEFT])
def test_each_rung_of_a_ladder_is_exact_up_to_its_order(grid):
    for order, found in zip(ORDERS[: (len(grid) - 1) // 2], ladder(grid), strict=True):
        assert set(found.grid) <= set(grid)
        assert [_applied_to_power(found, degree) for degree in range(order + 1)] == [0, 1, *[0] * (order - 1)]


@pytest.mark.parametrize("grid", [NINE, SEVEN, RIGHT, LEFT])
def test_a_weight_matrix_places_each_weight_at_its_point(grid):
    matrix = weight_matrix(ladder(grid), grid)
    assert matrix.shape == ((len(grid) - 1) // 2, len(grid))
    for row, found in zip(matrix, ladder(grid), strict=True):
        weights = dict(zip(found.grid, found.weights, strict=True))
        assert np.array_equal(row, [float(weights.get(g, 0)) for g in grid])


def test_repeated_points_are_refused():
    with pytest.raises(ValueError, match=r"^grid points must be distinct, got grid=\(0, 1, 0\)$"):
        stencil((0, 1, 0), 1)


@pytest.mark.parametrize("order", [-1, 2])
def test_an_order_that_the_points_cannot_give_is_refused(order):
    message = rf"^order must be at least 0 and below the 2 grid points, got order={order}$"
    with pytest.raises(ValueError, match=message):
        stencil((0, 1), order)
