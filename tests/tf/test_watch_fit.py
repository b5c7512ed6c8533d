"""Keras' `fit` under watch: it trains as it did, leaves nothing of a bad step, and is as before afterwards."""

import dataclasses
import errno
import gc
import json
import os
import resource
import subprocess
import sys
import weakref
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

import gradcheck
from gradcheck import GradientMismatch, NonfiniteTrip
from gradcheck._report.trip import TripReport

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(64, 4)).astype("float32"), RNG.normal(size=(64, 2)).astype("float32")
BAD = X.copy()
BAD[20, 1] = np.nan  # in the second batch of 16
WITHOUT = np.delete(X, range(16, 32), 0), np.delete(Y, range(16, 32), 0)


def new_model(**options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([
        keras.Input((4,)), keras.layers.Dense(8, activation="tanh"), keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.2), keras.layers.Dense(2),
    ])  # fmt: skip
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse", metrics=["mae"], **options)
    return model


def small_model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    return model


def state(model):
    return [np.asarray(v).tobytes() for v in (*model.variables, *model.optimizer.variables)]


def fit(model, x=X, **options):
    return model.fit(x, Y, batch_size=16, shuffle=False, verbose=0, **options)


WAYS = [
    pytest.param({}, id="plain"),
    *(pytest.param({k: v}, id=k, marks=pytest.mark.slow)
      for k, v in (("jit_compile", True), ("run_eagerly", True), ("steps_per_execution", 3))),
]  # fmt: skip


@pytest.mark.parametrize("options", WAYS)
@pytest.mark.slow
def test_a_healthy_fit_is_the_same_to_the_bit_and_fully_undone(options):
    plain, watched = new_model(**options), new_model(**options)
    expected = fit(plain, epochs=2, validation_split=0.25).history
    before = dict(vars(watched))
    with gradcheck.watch(watched) as watchdog:
        found = fit(watched, epochs=2, validation_split=0.25).history
    assert found == expected
    assert state(watched) == state(plain)
    assert (watchdog.steps, watchdog.trips) == (6, 0)
    assert not {k for k, v in vars(watched).items() if type(v).__module__.startswith("gradcheck")}
    assert watched.train_function is before["train_function"]
    assert watched.make_train_function.__func__ is keras.Model.make_train_function


@pytest.mark.parametrize("options", WAYS)
@pytest.mark.slow
def test_a_bad_batch_is_skipped_as_if_it_had_not_been_there(options):
    plain, watched = new_model(**options), new_model(**options)
    plain.fit(*WITHOUT, batch_size=16, shuffle=False, verbose=0)
    with gradcheck.watch(watched, action="skip") as watchdog:
        logs = fit(watched, BAD).history
    assert watchdog.trips == 1
    assert state(watched) == state(plain)
    assert np.isfinite(logs["loss"]).all()


def test_a_trip_raises_out_of_fit_names_the_batch_and_undoes_itself():
    model = small_model()
    with pytest.raises(NonfiniteTrip, match=r"^step 2 of train_step is not finite") as raised, gradcheck.watch(model):
        fit(model, BAD)
    assert raised.value.report.nonfinite.cause == "input"
    assert raised.value.report.nonfinite.index == (4, 1)
    assert raised.value.report.nonfinite.hint.startswith("x is not finite")
    assert raised.value.report.history[0].outputs[0][0] == "loss"
    assert "train_function" in vars(model)
    assert "make_train_function" not in vars(model)
    fit(model)


def test_stop_ends_fit_with_good_weights():
    model = small_model()
    with gradcheck.watch(model, action="stop") as watchdog:
        history = fit(model, BAD, epochs=5)
    assert len(history.epoch) == 1
    assert (watchdog.stopped, watchdog.steps) == (True, 2)
    assert all(np.isfinite(w).all() for w in model.get_weights())


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras, saving
def test_a_backup_outlives_a_trip_that_raises(tmp_path):
    """Keras' BackupAndRestore deletes its files when training ends well, as with TerminateOnNaN."""
    model = small_model()
    backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"), save_freq=1)
    with pytest.raises(NonfiniteTrip), gradcheck.watch(model):
        fit(model, BAD, callbacks=[backup])
    assert list((tmp_path / "backup").iterdir())


def test_the_callback_does_the_same_and_undoes_itself_also_when_it_raises():
    plain, watched = small_model(), small_model()
    plain.fit(*WITHOUT, batch_size=16, shuffle=False, verbose=0)
    callback = gradcheck.callbacks.WatchdogCallback(action="skip")
    fit(watched, BAD, callbacks=[callback])
    assert state(watched) == state(plain)
    assert callback.watchdog.report.step == 2
    for each in (callback, gradcheck.callbacks.WatchdogCallback()):
        with pytest.raises(NonfiniteTrip) if each is not callback else _nothing():
            fit(watched, BAD, callbacks=[each])
        assert "make_train_function" not in vars(watched)
    fit(watched)


class _nothing:  # noqa: N801
    def __enter__(self):
        return None

    def __exit__(self, *error):
        return None


def test_train_on_batch_and_a_model_compiled_within():
    model = small_model()
    with gradcheck.watch(model, action="skip") as watchdog:
        model.train_on_batch(X, Y)
        model.compile(keras.optimizers.Adam(), "mse")
        before = [w.tobytes() for w in model.get_weights()]
        model.train_on_batch(BAD, Y)
        assert [w.tobytes() for w in model.get_weights()] == before
    assert (watchdog.steps, watchdog.trips) == (2, 1)
    fit(model)


def test_a_model_with_its_own_train_step():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, x):
            return self.dense(x)

        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.sqrt(tf.abs(self(x) - y)))
            self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
            return {"mine": loss}

    model = Own()
    model.compile("adam")
    with gradcheck.watch(model, action="skip") as watchdog:
        history = model.fit(np.zeros([8, 4]), np.zeros([8, 2]), batch_size=4, verbose=0)
    assert watchdog.trips == 2  # the gradient of the root of 0
    assert list(history.history) == ["mine"]
    assert watchdog.report.nonfinite.op_type in ("SqrtGrad", "RealDiv", "Reciprocal", "Mul")
    assert watchdog.report.nonfinite.forward.op_type == "Sqrt"


def test_a_model_twice_under_watch_is_refused():
    model = small_model()
    with gradcheck.watch(model), pytest.raises(ValueError, match=r"is under watch already; leave that scope first$"):
        gradcheck.watch(model).__enter__()


@pytest.mark.slow
def test_nothing_of_ours_is_left_of_a_watch():
    """A FuncGraph per traced step does stay: Keras keeps it, without a watch too."""
    model = small_model()
    with gradcheck.watch(model):
        fit(model)
        watched = next(
            c.cell_contents for c in model.train_function.__closure__ if hasattr(c.cell_contents, "_dispatch")
        )
        traced = next(iter(watched._dispatch._by_function.values()))
        left = weakref.ref(watched), weakref.ref(traced)
        name = traced.guarded._name
        assert context.context().has_function(name)
        del watched, traced
    gc.collect()
    assert [reference() for reference in left] == [None, None]
    assert not context.context().has_function(name)


def _round():
    v = tf.Variable(tf.zeros([100, 100]))

    @tf.function
    def step(x):
        v.assign_add(x)
        return tf.reduce_sum(v)

    watched = gradcheck.Watchdog(action="skip").watch(step)
    watched(tf.ones([100, 100]))
    return weakref.ref(step.get_concrete_function(tf.ones([100, 100])).graph)


def test_no_graph_of_a_step_is_kept():
    graphs = [_round() for _ in range(3)]
    gc.collect()
    assert [graph() for graph in graphs] == [None] * 3


_TWO_DEVICES = """
import gc, resource
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, gradcheck
from gradcheck import Watchdog

def watch_once():
    v = tf.Variable(tf.zeros([100, 100]))

    @tf.function
    def step(x):
        v.assign_add(x)
        return tf.reduce_sum(v)

    Watchdog().watch(step)(tf.ones([100, 100]))

used = []
for k in range(200):
    watch_once()
    if k in (100, 199):
        gc.collect()
        used.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
assert used[1] - used[0] < 5_000, f"{used} KiB"

rng = np.random.default_rng(0)
x, y = rng.normal(size=(32, 4)).astype("float32"), rng.normal(size=(32, 2)).astype("float32")
bad = x.copy()
bad[20] = np.nan

def new():
    keras.utils.set_random_seed(0)
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.BatchNormalization(),
                                  keras.layers.Dropout(0.2), keras.layers.Dense(2)])
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    return model

def small_model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    return model


def state(model):
    return [np.asarray(c).tobytes() for v in (*model.variables, *model.optimizer.variables)
            for c in getattr(v.value, "_values", [v.value])]

plain, watched = new(), new()
plain.fit(x, y, batch_size=16, shuffle=False, verbose=0)
with gradcheck.watch(watched, action="skip") as watchdog:
    watched.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    assert state(watched) == state(plain)
    watched.train_on_batch(x[:16], y[:16])
    before = state(watched)
    watched.train_on_batch(bad[16:], y[16:])
assert state(watched) == before
assert (watchdog.steps, watchdog.trips) == (4, 1), (watchdog.steps, watchdog.trips)

strategy = watched.distribute_strategy
@tf.function
def step(x, y):
    strategy.run(lambda x, y: watched.train_step((x, y)), args=(x, y))

own = Watchdog(action="skip")
batches = iter(strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensor_slices((bad, y)).batch(16)))
guarded = own.watch(step)
guarded(*next(batches))
before = state(watched)
guarded(*next(batches))
assert state(watched) == before and own.trips == 1
assert (watchdog.report.nonfinite.cause, own.report.nonfinite.cause) == ("input", "input")

with strategy.scope():
    w = keras.Variable([1.0, 2.0], name="w")
    optimizer = keras.optimizers.SGD(0.01, momentum=0.5)
    optimizer.build([w])
held = lambda: [np.asarray(c).tobytes() for v in (w, *optimizer.variables) for c in v.value._values]
values = lambda *each: strategy.experimental_distribute_values_from_function(
    lambda context: tf.constant(each[context.replica_id_in_sync_group]))
good, one_bad = values([1.0, 2.0], [3.0, 4.0]), values([1.0, 2.0], [0.0, 4.0])

def step_with(update):
    def replica(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.sqrt(w * x))  # the root
        update(tape.gradient(loss, [w]), loss)
    return tf.function(lambda x: strategy.run(replica, args=(x,)))

for action in ("skip", "raise"):  # one replica's gradient is infinite: none may write
    dog = Watchdog(action)
    applying = step_with(lambda grads, loss: dog.apply(optimizer, grads, [w], loss=loss))
    applying(good)
    before = held()
    try:
        applying(one_bad)
        assert action == "skip"
    except tf.errors.OpError as error:
        assert action == "raise" and "gradient of w" in str(error)
    assert held() == before
    assert (dog.trips, dog.steps) == (1, 2), (dog.trips, dog.steps)
    assert [f.name for f in dog.report.found] == ["gradient of w"]
    applying(good)
    assert held() != before

dog = Watchdog("skip")
guarding = step_with(lambda grads, loss: optimizer.apply(dog.guard(grads, loss=loss, variables=[w]), [w]))
guarding(good), guarding(one_bad)
assert dog.trips == 1 and np.isfinite(w.numpy()).all()

dog = Watchdog("skip")
watching = dog.watch(step_with(lambda grads, loss: optimizer.apply(grads, [w])))
watching(good)
before = held()
watching(one_bad)
assert held() == before
found = dog.report.nonfinite
assert (found.op_type, found.cause, found.forward.op_type) == ("SqrtGrad", "singularity", "Sqrt"), found
assert "replica_1" in found.op

dog = Watchdog("stop")
applying = step_with(lambda grads, loss: dog.apply(optimizer, grads, [w], loss=loss))
applying(one_bad)
assert dog.stopped and held() == before
try:
    applying(good)
    raise AssertionError("a step behind a stop")
except tf.errors.OpError as error:
    assert "training stops" in str(error)
assert held() == before
print("done")
"""


@pytest.mark.slow
def test_two_hundred_watches_keep_memory_constant_and_two_replicas_decide_alike():
    """In a process of its own, since devices are split before TensorFlow starts."""
    ran = subprocess.run([sys.executable, "-c", _TWO_DEVICES], capture_output=True, text=True, check=False, timeout=280)
    assert ran.stdout.endswith("done\n"), ran.stderr[-2000:]


def test_a_trip_is_dumped_where_asked(tmp_path):
    model = small_model()
    with gradcheck.watch(model, action="skip", dump_dir=tmp_path) as watchdog:
        fit(model, BAD)
    assert [str(p) for p in tmp_path.iterdir()] == [watchdog.report.bundle]
    written = json.loads((Path(watchdog.report.bundle) / "trip.json").read_text())
    trip = TripReport.from_dict(written)
    assert (trip.step, trip.action, [s.number for s in trip.history]) == (2, "skip", [1, 2])
    assert str(dataclasses.replace(trip, bundle=watchdog.report.bundle)) == str(watchdog.report)
    assert (Path(watchdog.report.bundle) / "report.txt").read_text() == f"{trip}\n"


def test_a_full_disk_is_said_and_training_goes_on(tmp_path, monkeypatch):
    """Each of the writes of a bundle fails, as it does on a disk without room."""
    writes = {"write_text": Path, "write_bytes": Path, "savez": np, "fsync": os, "mkdir": Path, "rename": Path}
    plain, watched, failed = small_model(), small_model(), []

    def fails(*args, **kwargs):
        failed.append(how)
        raise OSError(errno.ENOSPC, "No space left on device")

    with gradcheck.watch(watched, action="skip", dump_dir=tmp_path / "dumps") as watchdog:
        for how, owner in writes.items():
            with monkeypatch.context() as patched:
                patched.setattr(owner, how, fails)
                watched.train_on_batch(BAD[16:32], Y[16:32])
            assert any("No space left on device" in note for note in watchdog.report.notes), how
            assert watchdog.report.nonfinite.cause == "input"
            watched.train_on_batch(X[:16], Y[:16])
            plain.train_on_batch(X[:16], Y[:16])
    assert set(failed) == set(writes)
    assert state(watched) == state(plain)
    assert not list((tmp_path / "dumps").glob("*"))


@pytest.fixture
def no_room(tmp_path):
    """A directory where the system itself refuses to write more than 8 kB to a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    yield tmp_path / "dumps"
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_where_the_system_refuses_to_write_every_way_of_training_goes_on_and_says_so(no_room):
    def loss_of(w, x):
        return tf.reduce_sum(tf.sqrt(w * x))

    w, options, reports = tf.Variable([1.0, 4.0]), {"action": "skip", "dump_dir": no_room}, []

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            loss = loss_of(w, x)
        w.assign_sub(0.1 * tape.gradient(loss, w))

    with gradcheck.watch(step, **options) as watched:
        for x in ([1.0, 1.0], [0.0, 1.0], [1.0, 1.0]):
            watched(tf.constant(x))
    reports.append(watched.watchdog.report)
    with tf.Graph().as_default():
        fed = tf.compat.v1.placeholder(tf.float32, [2])
        v = tf.compat.v1.get_variable("v", initializer=[1.0, 4.0])
        optimizer = tf.compat.v1.train.GradientDescentOptimizer(0.1)
        gradients = optimizer.compute_gradients(loss_of(v, fed), [v])
        train = optimizer.apply_gradients(gradients)
        hook = gradcheck.hooks.NonfiniteHook([g for g, _ in gradients], **options)
        with tf.compat.v1.train.MonitoredSession(hooks=[hook]) as session:
            for x in ([1.0, 1.0], [0.0, 1.0], [1.0, 1.0]):
                session.run(train, {fed: x})
            trained = session.run(v)
    np.testing.assert_allclose(trained, w, rtol=1e-6)
    reports.append(hook.report)
    model = small_model()
    with gradcheck.watch(model, **options) as watchdog:
        fit(model, BAD)
    assert watchdog.steps == 4
    reports.append(watchdog.report)
    assert [report.nonfinite.op_type for report in reports] == ["SqrtGrad", "SqrtGrad", "Placeholder"]
    for report in reports:
        assert any("no bundle was written" in n and "File too large" in n for n in report.notes), report
    assert not list(no_room.iterdir())


def test_a_dump_that_cannot_be_written_is_said_and_training_goes_on(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("no directory")
    model = small_model()
    with gradcheck.watch(model, action="skip", dump_dir=blocked) as watchdog:
        fit(model, BAD)
    assert watchdog.steps == 4
    assert any("no bundle was written" in note for note in watchdog.report.notes)


class TestGradientChecks:
    def test_a_model_with_a_wrong_gradient_is_found_while_it_trains(self):
        @tf.custom_gradient
        def wrong(x):
            return x * x, lambda upstream: 3.0 * x * upstream

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), keras.layers.Lambda(wrong)])
        model.compile("sgd", "mse")
        callback = gradcheck.callbacks.GradientCheckCallback()
        with pytest.raises(GradientMismatch):
            fit(model, callbacks=[callback])
        assert callback.report.verdict.name == "MISMATCH"
        logged = gradcheck.callbacks.GradientCheckCallback(every=2, action="log")
        fit(model, callbacks=[logged])
        assert logged.checks == 2
        assert not logged.report.ok

    @pytest.mark.slow
    def test_training_is_the_same_beside_it_and_beside_the_watchdog(self):
        plain, checked = small_model(), small_model()
        expected = fit(plain, epochs=2).history
        check = gradcheck.callbacks.GradientCheckCallback(every=3)
        found = fit(checked, epochs=2, callbacks=[gradcheck.callbacks.WatchdogCallback(), check]).history
        assert found == expected
        assert state(checked) == state(plain)
        assert check.checks == 3  # before batches 1, 4 and 7
        assert check.report.ok

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"every": 0}, ValueError, "^every must be at least 1; got every=0$"),
            ({"every": 1.5}, TypeError, "^every must be a whole number; got every=1.5$"),
            ({"action": "skip"}, ValueError, "^action must be one of 'raise', 'stop', 'log'; got action='skip'$"),
            ({"directions": 0}, ValueError, "^directions must be at least 1; got directions=0$"),
        ],
    )
    def test_misuse(self, options, error, message):
        with pytest.raises(error, match=message):
            gradcheck.callbacks.GradientCheckCallback(**options)
