"""`Watchdog.guard`: gradients go through where they are finite, in Python and inside of a tf.function."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import gradcheck
from gradcheck import NonfiniteTrip, Watchdog

BAD = tf.constant([1.0, np.nan, np.inf])
GOOD = tf.constant([1.0, 2.0, 3.0])
FINE, INFINITE = tf.constant([1.0, 2.0]), tf.constant([0.0, 2.0])
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

    def test_steps_go_on_being_counted_where_the_function_is_traced_anew(self, run):
        watchdog = Watchdog(action="skip", every=2, max_skips=1)
        guarded = run(lambda x: watchdog.guard([x, tf.reduce_sum(x)]))
        for length in [3, 4, 3, 3, 5, 5]:  # as the last batch of an epoch is shorter
            guarded(tf.ones([length]))
        assert watchdog.steps == 6
        assert [s.number for s in watchdog.history] == [2, 4, 6]
        assert watchdog.history[1].layers[0].norm == pytest.approx(np.sqrt(3))
        guarded(GOOD), guarded(BAD)
        assert watchdog.report.step == 8
        with pytest.raises((NonfiniteTrip, tf.errors.OpError), match="2 steps in a row have tripped"):
            guarded(GOOD), guarded(tf.constant([np.nan]))

    def test_behind_a_stop_each_further_step_raises_until_reset(self, run):
        watchdog, w = Watchdog(action="stop"), tf.Variable(GOOD)
        step = run(lambda x: w.assign_sub(tf.ones([3]) * tf.reduce_mean(watchdog.guard([x])[0])))
        step(BAD)
        assert watchdog.stopped
        for x in (GOOD, GOOD, tf.constant([1.0])):
            with pytest.raises((NonfiniteTrip, tf.errors.OpError), match=r"step 1 of guard is not finite: .*stop"):
                step(x)
        np.testing.assert_array_equal(w, GOOD)
        assert (watchdog.steps, watchdog.trips) == (1, 1)
        watchdog.reset()
        step(GOOD)
        np.testing.assert_array_equal(w, GOOD - 2)
        assert (watchdog.steps, watchdog.trips, watchdog.stopped) == (1, 0, False)

    def test_nothing_to_look_at(self, run):
        assert run(lambda: Watchdog().guard([None], loss=tf.constant(1)))() == [None]


CALLED = {
    "directly": lambda f: f,
    "in a function": lambda f: tf.function(tf.function(f)),
    "in a branch": lambda f: lambda x: tf.cond(x[1] > 0.0, lambda: f(x), lambda: x),
    "in a loop": lambda f: lambda x: tf.while_loop(lambda k, g: k < 1, lambda k, g: (k + 1, f(g)), (0, x))[1],
}


@pytest.mark.parametrize("called", CALLED)
@pytest.mark.parametrize(("action", "most"), [("raise", 10), ("skip", 0)])
def test_what_raises_comes_before_all_that_is_written_behind_it(called, action, most):
    w, count, loss = tf.Variable([1.0, 2.0]), tf.Variable(0), tf.Variable(0.0)
    optimizer = keras.optimizers.Adam(0.1)
    optimizer.build([w])
    watchdog = Watchdog(action, max_skips=most)
    guarded = CALLED[called](lambda x: watchdog.guard([x], variables=[w])[0])
    counting = tf.function(lambda: count.assign_add(1))

    @tf.function
    def step(x):
        loss.assign(tf.reduce_sum(x))
        optimizer.apply([guarded(x)], [w])
        counting()

    step(FINE)
    before = [v.numpy().tobytes() for v in (w, count, *optimizer.variables)]
    with pytest.raises(tf.errors.OpError, match="gradient of Variable"):
        step(INFINITE / 0.0)
    assert [v.numpy().tobytes() for v in (w, count, *optimizer.variables)] == before
    assert not np.isfinite(loss)
    with pytest.raises(NonfiniteTrip, match=r"^step 1 of guard is not finite"):
        Watchdog().guard([BAD])


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("before", [False, True], ids=["traced by the watch", "traced before"])
def test_within_a_watched_step_the_whole_step_is_taken_back(jit, before):
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


def test_a_guard_tells_its_trip_also_while_another_watched_step_runs():
    """As in another thread."""
    watchdog = Watchdog(action="skip")
    guarded = tf.function(lambda x: watchdog.guard([x]))

    @tf.function
    def step(x):
        tf.py_function(lambda: guarded(BAD), [], [])
        return tf.reduce_sum(x)

    watchdog.watch(step)(GOOD)
    assert (watchdog.trips, watchdog.report.name) == (1, "guard")


HOW = {
    "eager": lambda f: f,
    "function": tf.function,
    "compiled": lambda f: tf.function(f, jit_compile=True),
}


class Applying:
    """A step that leaves its update to the watchdog."""

    def __init__(self, watchdog, how, optimizer):
        self.w = tf.Variable([1.0, 2.0], name="w")
        self.optimizer = optimizer

        def step(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.sqrt(self.w * x))
            watchdog.apply(self.optimizer, tape.gradient(loss, [self.w]), [self.w], loss=loss)
            return loss

        self.step = HOW[how](step)

    @property
    def bits(self):
        return [np.asarray(v).tobytes() for v in (self.w, *self.optimizer.variables)]


class TestApply:
    @pytest.mark.parametrize("how", HOW)
    @pytest.mark.parametrize("action", ["skip", "raise"])
    def test_every_bit_of_weights_slots_and_counts_stays(self, how, action):
        watchdog = Watchdog(action)
        applying = Applying(watchdog, how, keras.optimizers.Adam(0.1, amsgrad=True, use_ema=True))
        applying.step(FINE)
        before = applying.bits
        if action == "raise" and how != "compiled":
            with pytest.raises((NonfiniteTrip, tf.errors.OpError), match="gradient of w"):
                applying.step(INFINITE)
        else:
            applying.step(INFINITE)
        assert applying.bits == before
        assert (watchdog.steps, watchdog.trips) == (2, 1)
        assert [(f.name, f.posinf + f.nan) for f in watchdog.report.found] == [("gradient of w", 1)]
        assert "nothing was written" in str(watchdog.report)
        watchdog.reset()
        applying.step(FINE)
        assert applying.bits != before

    def test_a_healthy_step_does_what_the_optimizer_does(self):
        one, other = (keras.optimizers.SGD(0.1, momentum=0.9) for _ in range(2))
        applying = Applying(Watchdog("skip"), "function", one)
        w = tf.Variable([1.0, 2.0])
        for _ in range(3):
            applying.step(FINE)
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.sqrt(w * FINE))
            other.apply(tape.gradient(loss, [w]), [w])
        assert applying.bits[0] == w.numpy().tobytes()

    def test_an_update_by_hand_and_outputs(self):
        w, slot = tf.Variable([1.0, 1.0, 1.0]), tf.Variable([0.0, 0.0, 0.0])
        watchdog = Watchdog("skip")

        def update(grads, variables):
            slot.assign(0.9 * slot + grads[0])
            variables[0].assign_sub(slot)

        step = tf.function(lambda g, y: watchdog.apply(update, [g], [w], outputs={"layer": y}))
        step(GOOD, GOOD)
        before = w.numpy().tobytes(), slot.numpy().tobytes()
        step(GOOD, BAD)
        assert (w.numpy().tobytes(), slot.numpy().tobytes()) == before
        assert [f.name for f in watchdog.report.found] == ["outputs['layer']"]

    def test_zeros_of_guard_move_momentum_and_the_text_says_so(self):
        """Why there is `apply`."""
        watchdog, w = Watchdog("skip"), tf.Variable([1.0, 2.0])
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        optimizer.apply([tf.constant([1.0, 1.0])], [w])
        before = w.numpy()
        optimizer.apply(watchdog.guard([tf.constant([np.nan, 1.0])]), [w])
        assert (w.numpy() != before).all()
        assert "zeros took the place of its gradients, and training goes on" in str(watchdog.report)


class TestCompiled:
    """Under XLA nothing can be said to Python: what was found waits until Python looks."""

    def guarded(self, watchdog):
        return tf.function(lambda x: watchdog.guard([x], loss=tf.reduce_sum(x))[0], jit_compile=True)

    def test_a_trip_that_is_to_raise_holds_all_later_steps_until_somebody_looks(self):
        watchdog = Watchdog()
        guarded = self.guarded(watchdog)
        np.testing.assert_array_equal(guarded(GOOD), GOOD)
        np.testing.assert_array_equal(guarded(BAD), np.zeros(3))
        np.testing.assert_array_equal(guarded(GOOD), np.zeros(3))
        assert watchdog.trips == 1  # looking does not raise
        with pytest.raises(NonfiniteTrip, match=r"^step 2 of guard is not finite: the step is raised") as raised:
            watchdog.raise_if_tripped()
        assert [(f.name, f.nan, f.posinf) for f in raised.value.report.found] == [("loss", 1, 0), ("grads[0]", 1, 1)]
        watchdog.raise_if_tripped()  # once
        watchdog.reset()
        np.testing.assert_array_equal(guarded(GOOD), GOOD)
        assert (watchdog.steps, watchdog.trips) == (1, 0)

    def test_skips_are_limited_and_off_steps_pass(self):
        watchdog = Watchdog("skip", max_skips=1, every=2)
        guarded = self.guarded(watchdog)
        assert np.isnan(guarded(BAD)).any()
        np.testing.assert_array_equal(guarded(BAD), np.zeros(3))
        watchdog.raise_if_tripped()
        guarded(GOOD), guarded(BAD)
        guarded(GOOD)
        np.testing.assert_array_equal(guarded(GOOD), np.zeros(3))
        with pytest.raises(NonfiniteTrip, match="2 steps in a row have tripped, more than max_skips=1"):
            watchdog.raise_if_tripped()

    def test_traces_of_one_step_are_held_together(self):
        watchdog = Watchdog()
        guarded = self.guarded(watchdog)
        guarded(GOOD), guarded(tf.constant([np.nan, 1.0]))
        np.testing.assert_array_equal(guarded(GOOD), np.zeros(3))
        assert watchdog.report.step == 2

    @pytest.mark.parametrize(("action", "after"), [("log", GOOD), ("stop", 0 * GOOD), (lambda report: "log", GOOD)])
    def test_other_actions(self, action, after):
        watchdog = Watchdog(action)
        guarded = self.guarded(watchdog)
        guarded(BAD)
        assert watchdog.trips == 1
        np.testing.assert_array_equal(guarded(GOOD), after)
        assert watchdog.stopped == (action == "stop")


def test_misuse_is_refused():
    watchdog = Watchdog()
    with pytest.raises(ValueError, match=r"^variables must be one per gradient: found 1 variables and 2 gradients$"):
        watchdog.guard([GOOD, GOOD], variables=[V])
    with pytest.raises(TypeError, match=r"found ResourceVariable at position 1; write wd.guard"):
        watchdog.guard([(GOOD, V)])
    with pytest.raises(TypeError, match=r"^optimizer must be a Keras optimizer or a callable .* got int$"):
        watchdog.apply(3, [GOOD], [V])
    with pytest.raises(ValueError, match=r"^variables must be one per gradient: found 1 variables and 2 gradients$"):
        watchdog.apply(keras.optimizers.SGD(), [GOOD, GOOD], [V])
    with pytest.raises(ValueError, match=r"must not be a LossScaleOptimizer, .*: wd.watch\(step\)$"):
        watchdog.apply(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()), [GOOD], [V])


OPTIONS = [
    ({"action": "ignore"}, ValueError, "action must be one of 'raise', 'skip', 'rollback', 'stop', 'log', or a "
     "callable that takes a TripReport; got action='ignore'"),
    ({"every": 0}, ValueError, "every must be at least 1; got every=0"),
    ({"every": True}, TypeError, "every must be a whole number; got every=True"),
    ({"max_skips": -1}, ValueError, "max_skips must be at least 0; got max_skips=-1"),
    ({"snapshot_every": 1.0}, TypeError, "snapshot_every must be a whole number; got snapshot_every=1.0"),
    ({"dump_dir": 3}, TypeError, "dump_dir must be the path of a directory or None; got dump_dir=3"),
    ({"early_warnings": 1}, TypeError, "early_warnings must be True or False; got early_warnings=1"),
    ({"layer_outputs": "all"}, TypeError, "layer_outputs must be True or False; got layer_outputs='all'"),
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
