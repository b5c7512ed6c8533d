"""Directions, colours and scales."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from gradcheck._numerics.directions import axis_colours, combine_colours, halves, power_of_two_scale, rademacher

dependences = st.tuples(st.integers(0, 7), st.integers(0, 7)).flatmap(lambda shape: arrays(np.bool_, shape))
filled = st.tuples(st.integers(1, 4), st.integers(1, 5)).flatmap(lambda shape: arrays(np.bool_, shape))


def _share_no_output(colours: np.ndarray, supports: np.ndarray) -> bool:
    """Whether entries of one colour touch disjoint outputs; supports has shape [entries, outputs]."""
    return all(supports[colours == colour].sum(axis=0).max(initial=0) <= 1 for colour in np.unique(colours))


@given(st.integers(0, 2**32 - 1), array_shapes(max_dims=3, max_side=5))
def test_directions_are_signs_and_follow_the_seed(seed, shape):
    first, again = (rademacher(np.random.default_rng(seed), shape) for _ in range(2))
    assert first.shape == shape
    assert first.dtype == np.float64
    assert set(np.unique(first)) <= {-1.0, 1.0}
    assert np.array_equal(first, again)


def test_both_signs_are_equally_frequent():
    # The mean of 10000 signs has the standard deviation 0.01.
    assert abs(rademacher(np.random.default_rng(0), 10000).mean()) < 0.05


@given(arrays(np.int64, st.integers(0, 20)))
def test_halves_join_to_the_whole_and_differ_by_one_at_most(indices):
    first, second = halves(indices)
    assert np.array_equal(np.concatenate([first, second]), indices)
    assert len(first) - len(second) in (0, 1)


@given(dependences)
def test_indices_of_one_colour_touch_no_common_output(depends):
    colours = axis_colours(depends)
    assert colours.shape == (len(depends),)
    assert sorted(set(colours.tolist())) == list(range(int(colours.max(initial=-1)) + 1))
    assert _share_no_output(colours, depends)


def test_one_colour_for_all_is_seen_to_be_wrong_where_outputs_are_shared():
    assert not _share_no_output(np.zeros(2, np.int64), np.array([[True], [True]]))


def test_disjoint_rows_need_one_colour_and_a_band_as_many_as_it_is_wide():
    assert axis_colours(np.eye(6, dtype=bool)).tolist() == [0] * 6
    band = np.abs(np.subtract.outer(np.arange(9), np.arange(9))) <= 1
    assert axis_colours(band).tolist() == [0, 1, 2] * 3


def test_an_index_that_conflicts_with_all_others_leaves_nothing_to_gain():
    depends = np.eye(4, dtype=bool)
    depends[2] = True
    assert axis_colours(depends).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("shape", [(4097, 1), (64, 2**20 + 1)])
def test_what_costs_too_much_to_colour_is_left_as_it_is(shape):
    depends = np.broadcast_to(np.zeros(1, np.bool_), shape)
    assert np.array_equal(axis_colours(depends), np.arange(shape[0]))


@given(st.lists(filled, min_size=1, max_size=3))
def test_entries_of_one_combined_colour_touch_no_common_output(axes):
    shape = tuple(len(depends) for depends in axes)
    colours, count = combine_colours([axis_colours(depends) for depends in axes], shape)
    assert colours.shape == shape
    assert sorted(set(colours.ravel().tolist())) == list(range(count))
    # Entry (i, j, ...) touches the outputs (p, q, ...) with p among those of i, q among those of j, and so on.
    supports = np.ones((1, 1), np.bool_)
    for depends in axes:
        supports = np.kron(supports, depends).astype(bool)
    assert _share_no_output(colours.ravel(), supports)


@given(st.lists(st.lists(st.integers(0, 9), min_size=0, max_size=4), max_size=3))
def test_entries_share_a_colour_only_where_every_axis_says_so(per_axis):
    shape = tuple(len(colours) for colours in per_axis)
    colours, count = combine_colours([np.array(c, np.int64) for c in per_axis], shape)
    assert colours.shape == shape
    expected = np.empty(shape, object)
    for index in np.ndindex(*shape):
        expected[index] = tuple(per_axis[axis][i] for axis, i in enumerate(index))
    pairs = set(zip(colours.ravel().tolist(), expected.ravel().tolist(), strict=True))
    assert len(pairs) == len(set(colours.ravel().tolist()))
    assert count >= len(pairs)


@given(arrays(np.float64, array_shapes(min_dims=0, max_dims=2, min_side=0), elements=st.floats(width=64)))
def test_scales_are_normal_powers_of_two(x):
    scale = power_of_two_scale(x)
    assert scale.shape == x.shape
    assert np.all(np.frexp(scale)[0] == 0.5)
    assert np.all((scale >= np.finfo(np.float64).tiny) & np.isfinite(scale))


@given(arrays(np.float64, st.integers(1, 6), elements=st.floats(2**-20, 2**20)), st.integers(-500, 500))
def test_scales_follow_a_scaling_by_a_power_of_two(x, exponent):
    assert np.array_equal(power_of_two_scale(np.ldexp(x, exponent)), np.ldexp(power_of_two_scale(x), exponent))


def test_small_entries_get_the_typical_scale_and_large_ones_their_own():
    assert power_of_two_scale(np.array([0.0, 1.0, 4.0, 1024.0, np.inf])).tolist() == [16.0, 16.0, 16.0, 1024.0, 16.0]


@pytest.mark.parametrize("x", [np.zeros(3), np.array([]), np.array(0.0), np.array([np.nan, np.inf])])
def test_without_a_typical_magnitude_the_scale_is_one(x):
    assert np.array_equal(power_of_two_scale(x), np.ones(x.shape))
