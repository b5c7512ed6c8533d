"""Every row once an epoch, in an order that the seed fixes."""

import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from gradcheck.optimizers import minibatches


@given(rows=st.integers(1, 40), size=st.integers(1, 50), seed=st.integers(0, 99), epochs=st.integers(1, 3))
def test_every_row_comes_once_in_every_epoch(rows, size, seed, epochs):
    batches = list(minibatches(np.arange(rows), size, seed, epochs=epochs))
    each = -(-rows // size)
    assert len(batches) == each * epochs
    for epoch in range(epochs):
        seen = np.concatenate(batches[epoch * each : (epoch + 1) * each])
        assert sorted(seen) == list(range(rows))
    assert all(len(batch) == size for i, batch in enumerate(batches) if i % each < each - 1)


def test_the_seed_fixes_the_order_and_epochs_differ():
    def order(seed):
        return [int(i) for batch in minibatches(np.arange(50), 8, seed, epochs=2) for i in batch]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1)[:50] != order(1)[50:]
    assert order(1)[:50] != list(range(50))


def test_the_last_short_batch_is_dropped_on_request():
    assert [len(batch) for batch in minibatches(np.arange(10), 4, 0)] == [4, 4, 2]
    assert [len(batch) for batch in minibatches(np.arange(10), 4, 0, keep_last=False)] == [4, 4]
    assert [len(batch) for batch in minibatches(np.arange(8), 4, 0, keep_last=False)] == [4, 4]


def test_rows_of_a_structure_stay_together_and_the_data_as_it_is():
    x, y = np.arange(12.0).reshape(6, 2), tf.range(6)
    before = x.copy()
    for batch in minibatches({"x": x, "y": (y, np.arange(6))}, 4, 0):
        first, second = batch["y"]
        assert tf.is_tensor(first)
        np.testing.assert_array_equal(batch["x"][:, 0], 2 * first.numpy())
        np.testing.assert_array_equal(first, second)
        batch["x"][...] = -1
    np.testing.assert_array_equal(x, before)


def test_numpys_own_random_state_is_left_alone():
    before = np.random.get_state()[1].copy()
    list(minibatches(np.arange(9), 2, 0))
    np.testing.assert_array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((np.arange(3), 0, 0), {}, ValueError, "batch_size must be at least 1; got batch_size=0"),
        ((np.arange(3), 1.5, 0), {}, TypeError, "batch_size must be an integer; got batch_size=1.5"),
        ((np.arange(3), 2, None), {}, TypeError, "seed must be an integer; got seed=None"),
        ((np.arange(3), 2, -1), {}, ValueError, "seed must be at least 0; got seed=-1"),
        ((np.arange(3), 2, 0), {"epochs": 0}, ValueError, "epochs must be at least 1; got epochs=0"),
        ((np.arange(3), 2, 0), {"keep_last": None}, TypeError, "keep_last must be True or False; got keep_last=None"),
        ((np.arange(3), 5, 0), {"keep_last": False}, ValueError,
         "keep_last=False drops the only batch: there are 3 rows and batch_size=5; write keep_last=True or a smaller "
         "batch_size"),
        ((3.0, 2, 0), {}, ValueError,
         "data must have rows; got a single value: an array of shape [rows, ...] is needed"),
        (((np.arange(3), np.arange(4)), 2, 0), {}, ValueError,
         "data must have the same number of rows everywhere; got data[0] has 3, data[1] has 4"),
        (([], 2, 0), {}, ValueError, "data must have the same number of rows everywhere; got nothing at all"),
        ((np.zeros((0, 2)), 2, 0), {}, ValueError, "data must have at least one row; got none"),
    ],
)  # fmt: skip
def test_misuse_is_refused_at_once(arguments, options, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        minibatches(*arguments, **options)
