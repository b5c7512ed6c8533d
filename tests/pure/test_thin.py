"""Stacks of arrays in fewer bytes: bit for bit what they were."""

import numpy as np
import pytest

from gradcheck._farm.thin import Thin, thinned, whole

RNG = np.random.default_rng(0)


def alike(dtype, rows=9):
    stack = np.tile(RNG.normal(size=(3, 5)).astype(dtype), (rows, 1, 1))
    stack[0, 2, 2] = 0.0
    stack[3, 2, 2] = -0.0
    stack[5, 0, 1] = 7
    return stack


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "c8", "c16", "i4", "?"])
def test_what_is_mostly_alike_is_sent_thin_and_comes_back_bit_for_bit(dtype):
    stack = alike(dtype)
    sent = thinned(stack)
    assert isinstance(sent, Thin)
    back = whole(sent)
    assert (back.dtype, back.shape, back.tobytes()) == (stack.dtype, stack.shape, stack.tobytes())


def test_bits_of_nan_and_the_sign_of_zero_are_kept():
    stack = np.zeros((40, 4))
    stack[7, 1] = -0.0
    stack[8].view(np.uint64)[2] = 0x7FF8000000000123  # a NaN with a payload
    back = whole(thinned(stack))
    assert back.tobytes() == stack.tobytes()


@pytest.mark.parametrize(
    "stack",
    [
        RNG.normal(size=(8, 30)),
        np.zeros((1, 100)),
        np.zeros((5, 0)),
        np.zeros(3),
        np.array([[b"a", b"b"]] * 40, dtype=object),
    ],
    ids=["all differ", "one row", "nothing", "few", "strings"],
)
def test_what_would_not_be_smaller_is_sent_as_it_is(stack):
    assert thinned(stack) is stack
    assert whole(stack) is stack


def test_a_fortran_ordered_stack_keeps_its_values():
    stack = np.asfortranarray(alike("f8"))
    assert np.array_equal(whole(thinned(stack)), stack)
