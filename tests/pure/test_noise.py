"""Noise measured from nine samples: right within its spread, blind to the smooth part, free of scale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gradcheck._numerics.noise import ecnoise

_POINTS = np.arange(-4, 5)[:, None]


def _smooth(step: float, count: int) -> np.ndarray:
    return np.sin(0.3 + _POINTS * step) * np.ones(count)


@pytest.mark.parametrize("sigma", [1e-12, 1e-8, 1e-4])
def test_noise_on_a_smooth_function_is_measured_within_a_factor_of_four(sigma):
    rng = np.random.default_rng(1)
    noise, settled = ecnoise(_smooth(2**-9, 1000) + sigma * rng.standard_normal((9, 1000)))
    assert settled.mean() > 0.95
    # Faint noise shows in the highest orders only, which have one to three differences: 1 in 25 is further off.
    assert np.mean((noise > sigma / 4) & (noise < 4 * sigma)) > 0.94
    assert np.mean((noise > sigma / 10) & (noise < 4 * sigma)) > 0.99
    assert 0.7 < np.median(noise) / sigma < 1.5


@pytest.mark.parametrize(("sigma", "settle", "near"), [(1e-12, 0.6, 0.8), (1e-8, 0.97, 0.95), (1e-4, 0.99, 0.98)])
def test_seven_samples_measure_it_less_well(sigma, settle, near):
    """Where it does not settle, the function's own differences count as noise: too much, or a little too little."""
    rng = np.random.default_rng(1)
    noise, settled = ecnoise((_smooth(2**-9, 1000) + sigma * rng.standard_normal((9, 1000)))[1:-1])
    assert settled.mean() > settle
    assert np.mean((noise > sigma / 4) & (noise < 4 * sigma)) > near
    assert 0.7 < np.median(noise) / sigma < 1.5


def test_noise_ten_times_larger_is_told_apart():
    rng = np.random.default_rng(2)
    small = ecnoise(_smooth(2**-9, 300) + 1e-9 * rng.standard_normal((9, 300)))[0]
    large = ecnoise(_smooth(2**-9, 300) + 1e-8 * rng.standard_normal((9, 300)))[0]
    assert np.mean(large > 2 * small) > 0.97


def test_a_smooth_function_in_float64_shows_no_more_than_its_rounding():
    noise, _ = ecnoise(np.sin(np.linspace(0.1, 1.5, 500) + _POINTS * 2**-9))
    assert noise.max() < 4 * 2.0**-52


def test_a_function_that_the_step_does_not_resolve_is_noise():
    noise, _ = ecnoise(np.sin(np.linspace(0, 6, 200) + _POINTS * 2.5))
    assert np.median(noise) > 0.1


@pytest.mark.parametrize("value", [0.0, 1.0, -1e300, 5e-324])
def test_constants_have_no_noise(value):
    assert ecnoise(np.full((9, 2), value))[0].tolist() == [0.0, 0.0]


@given(arrays(np.float64, (9, 3), elements=st.floats(-1, 1, allow_subnormal=False)), st.integers(-900, 900))
def test_scaling_by_a_power_of_two_scales_the_noise_exactly(samples, exponent):
    samples = np.where(np.abs(samples) < 2**-60, 0.0, samples)
    noise, settled = ecnoise(samples)
    scaled_noise, scaled_settled = ecnoise(np.ldexp(samples, exponent))
    assert np.array_equal(np.ldexp(noise, exponent), scaled_noise)
    assert np.array_equal(settled, scaled_settled)


@given(arrays(np.float64, (9, 2, 3), elements=st.floats(-1e3, 1e3)))
def test_problems_do_not_see_each_other(samples):
    noise, settled = ecnoise(samples)
    assert noise.shape == settled.shape == (2, 3)
    alone, alone_settled = ecnoise(samples[:, 1, 2])
    # A matrix product may add in another order for another shape.
    assert alone == pytest.approx(noise[1, 2], rel=1e-9, abs=1e-9 * np.ptp(samples[:, 1, 2]))
    del alone_settled
