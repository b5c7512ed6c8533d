"""`Watchdog.guard`: gradients go through where they are finite, in Python and inside of a tf.function."""

import numpy as np
import pytest
import tensorflow as tf

import gradcheck
from gradcheck import NonfiniteTrip, Watchdog

BAD = tf.constant([1.0, np.nan, np.inf])
GOOD = tf.constant([1.0, 2.0, 3.0])
V = tf.Variable([0.0, 0.0, 0.0], name="v")


@pytest.mark.parametrize("run", [lambda f: f, tf.function], ids=["eager", "function"])
class TestBoth:
    def test_finite_gradients_come_through_in_their_structure(self, run):
        slices = tf.IndexedSlices(GOOD, tf.constant([0, 2, 2]), tf.constant([5]))
        watchdog = Watchdog()

        def step(x):
            return watchdog.guard({"a": [x, None], "b": slices}, loss=tf.reduce_sum(x))

        for _ in range(3):
            found = run(step)(GOOD)
        assert found["a"][1] is None
        np.testing.assert_array_equal(found["a"][0], GOOD)
        np.testing.assert_array_equal(found["b"].values, GOOD)
        np.testing.assert_array_equal(found["b"].indices, [0, 2, 2])
        assert watchdog.trips == 0

    def test_zeros_stand_for_what_is_not_finite_and_names_are_those_of_variables(self, run):
        watchdog = Watchdog(action="skip")
        guarded = run(lambda x: watchdog.guard([x, 2.0 * GOOD], loss=1.0, variables=[V, V]))
        guarded(GOOD)
        np.testing.assert_array_equal(guarded(BAD), np.zeros([2, 3]))
        (found,) = watchdog.report.found
        assert (found.name, found.nan, found.posinf, found.shape) == ("gradient of v", 1, 1, (3,))
        assert (watchdog.report.step, watchdog.report.in_a_row, watchdog.trips) == (2, 1, 1)
        assert [s.number for s in watchdog.report.history] == [1, 2]

    def test_the_loss_and_rows_of_a_sparse_gradient_are_looked_at(self, run):
        watchdog = Watchdog(action="skip")
        guarded = run(lambda x, y: watchdog.guard([tf.IndexedSlices(x, tf.constant([0, 1, 2]))], loss={"main": y}))
        guarded(BAD, tf.constant(np.inf))
        assert [f.name for f in watchdog.report.found] == ["loss['main']", "grads[0]"]

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64", "complex64"])
    def test_other_dtypes_and_large_finite_values(self, run, dtype):
        watchdog = Watchdog(action="skip")
        large = tf.cast(tf.as_dtype(dtype).real_dtype.max, dtype) if dtype != "complex64" else tf.constant(3e38, dtype)
        guarded = run(lambda x: watchdog.guard([x]))
        assert bool(guarded(large)[0] == large)
        assert watchdog.trips == 0
        guarded(tf.cast(large, dtype) * tf.cast(4.0, dtype))
        assert watchdog.trips == 1

    def test_every_nth_step(self, run):
        watchdog = Watchdog(action="skip", every=2)
        guarded = run(lambda x: watchdog.guard([x]))
        assert np.isnan(guarded(BAD)).any()
        assert not np.isnan(guarded(BAD)).any()

    def test_too_many_in_a_row_raise(self, run):
        watchdog = Watchdog(action="skip", max_skips=1)
        guarded = run(lambda x: watchdog.guard([x]))
        guarded(BAD), guarded(GOOD), guarded(BAD)
        with pytest.raises((NonfiniteTrip, tf.errors.OpError), match="2 steps in a row have tripped"):
            guarded(BAD)


def test_raise_comes_before_the_update():
    w = tf.Variable(GOOD)
    watchdog = Watchdog()

    @tf.function
    def step(x):
        (gradient,) = watchdog.guard([x], variables=[w])
        w.assign_sub(gradient)

    step(GOOD)
    with pytest.raises(tf.errors.OpError, match="gradient of Variable"):
        step(BAD)
    np.testing.assert_array_equal(w, np.zeros(3))
    with pytest.raises(NonfiniteTrip, match=r"^step 1 of guard is not finite"):
        Watchdog().guard([BAD])


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("before", [False, True], ids=["traced by the watch", "traced before"])
def test_within_a_watched_step_the_whole_step_is_taken_back(jit, before):
    if jit and before:
        pytest.skip("refused, see below")
    w, count = tf.Variable([1.0, 1.0, 1.0]), tf.Variable(0)
    watchdog = Watchdog(action="skip")

    @tf.function(jit_compile=jit)
    def step(x):
        (gradient,) = watchdog.guard([x])
        gradient = tf.where(tf.math.is_finite(gradient), gradient, 0.0)  # clipped before it is written
        w.assign_sub(gradient)
        count.assign_add(1)

    if before:
        step(GOOD)
        w.assign([1.0, 1.0, 1.0]), count.assign(0), watchdog.reset()
    watched = watchdog.watch(step)
    watched(BAD)
    np.testing.assert_array_equal(w, [1.0, 1.0, 1.0])
    assert count.numpy() == 0
    assert (watchdog.steps, watchdog.trips) == (1, 1)
    assert "grads[0]" in [f.name for f in watchdog.report.found]
    watched(GOOD)
    assert count.numpy() == 1


def test_within_a_watched_step_in_python():
    w = tf.Variable([1.0, 1.0, 1.0])
    watchdog = Watchdog(action="skip")

    def step(x):
        (gradient,) = watchdog.guard([x])
        w.assign_sub(tf.where(tf.math.is_finite(gradient), gradient, 0.0))

    watchdog.watch(step)(BAD)
    np.testing.assert_array_equal(w, [1.0, 1.0, 1.0])
    assert (watchdog.steps, watchdog.trips) == (1, 1)


def test_misuse_is_refused():
    watchdog = Watchdog()
    with pytest.raises(ValueError, match=r"^variables must be one per gradient: found 1 variables and 2 gradients$"):
        watchdog.guard([GOOD, GOOD], variables=[V])
    with pytest.raises(TypeError, match=r"found ResourceVariable at position 1; write wd.guard"):
        watchdog.guard([(GOOD, V)])
    with pytest.raises(ValueError, match=r"put the step under watch instead: wd.watch\(step\)$"):
        tf.function(lambda x: watchdog.guard([x]), jit_compile=True)(GOOD)


OPTIONS = [
    ({"action": "ignore"}, ValueError, "action must be one of 'raise', 'skip', 'rollback', 'stop', 'log', or a "
     "callable that takes a TripReport; got action='ignore'"),
    ({"every": 0}, ValueError, "every must be at least 1; got every=0"),
    ({"every": True}, TypeError, "every must be a whole number; got every=True"),
    ({"max_skips": -1}, ValueError, "max_skips must be at least 0; got max_skips=-1"),
    ({"snapshot_every": 1.0}, TypeError, "snapshot_every must be a whole number; got snapshot_every=1.0"),
    ({"dump_dir": 3}, TypeError, "dump_dir must be the path of a directory or None; got dump_dir=3"),
    ({"early_warnings": 1}, TypeError, "early_warnings must be True or False; got early_warnings=1"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "error", "message"), OPTIONS)
@pytest.mark.parametrize(
    "make", [Watchdog, gradcheck.callbacks.WatchdogCallback, lambda **o: gradcheck.watch(len, **o)]
)
def test_options_are_validated(make, options, error, message):
    with pytest.raises(error) as raised:
        make(**options)
    assert str(raised.value) == message


def test_what_cannot_be_watched_is_refused():
    with pytest.raises(TypeError, match=r"^step must be callable, got int; write wd.watch\(train_step\)$"):
        Watchdog().watch(3)
    with pytest.raises(TypeError, match=r"^model_or_step must be a Keras model or a callable training step, got str$"):
        gradcheck.watch("model")
    with pytest.raises(
        TypeError, match=r"^model must be a Keras model, got builtin_function_or_method; for a step write"
    ):
        Watchdog().fit(len)
    with pytest.raises(ValueError, match=r"or None, from a callable action; got action='again'$"):
        Watchdog(action=lambda report: "again").guard([BAD])
