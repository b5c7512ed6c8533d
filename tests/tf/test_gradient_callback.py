"""`fit` with its gradients recorded: the training stays as it is, to the bit, and the model, too."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradcheck.callbacks import GradientSummaryCallback
from gradcheck.tensorboard import read_events

X = np.random.default_rng(0).normal(size=(28, 3)).astype("float32")
Y = X[:, :1] ** 2
KERNEL = "net/hidden/kernel"


def _model(optimizer=None, **options):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4, activation="relu", name="hidden"), keras.layers.Dropout(0.2)]
    model = keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(1, name="out")], name="net")
    model.compile(optimizer or keras.optimizers.SGD(0.1), "mse", **options)
    return model


def _fit(model, callbacks=(), **options):
    model.fit(X, Y, batch_size=4, verbose=0, shuffle=False, callbacks=list(callbacks), **options)
    return model.get_weights()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Two epochs of seven steps with the callback, and without."""
    logdir = tmp_path_factory.mktemp("logs")
    model, plain = _model(), _model()
    attributes = set(model.__dict__)
    with_it = _fit(model, [GradientSummaryCallback(logdir, every=3)], epochs=2, validation_data=(X, Y))
    return model, attributes, with_it, _fit(plain, epochs=2), read_events(logdir)


def test_the_training_is_the_same_to_the_bit(recorded):
    _, _, with_it, without, _ = recorded
    for one, other in zip(with_it, without, strict=True):
        np.testing.assert_array_equal(one, other)


def test_nothing_is_left_behind_fit(recorded):
    model, attributes, *_ = recorded
    assert set(model.__dict__) - attributes <= {"_called", "history", "stop_evaluating"}
    assert "gradcheck" not in type(model.train_function).__module__
    assert model.train_function.__module__.startswith("keras")
    assert "apply" not in model.optimizer.__dict__


def test_gradients_are_those_of_the_step_by_variable_and_layer(recorded):
    *_, events = recorded
    train = events.runs["train"]
    assert train.scalars[f"gradient_norm/{KERNEL}"].steps == (0, 3, 6, 9, 12)
    model = _model()
    with tf.GradientTape() as tape:
        loss = keras.losses.MeanSquaredError()(Y[:4], model(X[:4], training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    norms = [float(tf.norm(g)) for g in gradients]
    for variable, norm in zip(model.trainable_variables, norms, strict=True):
        assert train.scalars[f"gradient_norm/{variable.path}"].values[0] == pytest.approx(norm, rel=1e-5)
        size = float(tf.norm(variable))
        assert train.scalars[f"weight_norm/{variable.path}"].values[0] == pytest.approx(size, rel=1e-5)
        if size:
            ratio = train.scalars[f"update_ratio/{variable.path}"].values[0]
            assert ratio == pytest.approx(0.1 * norm / size, rel=1e-4)
        assert {f"gradients/{variable.path}", f"weights/{variable.path}"} <= set(train.histograms)
    assert train.scalars["gradient_norm/net/hidden"].values[0] == pytest.approx(np.hypot(*norms[:2]), rel=1e-5)
    assert train.scalars["global_norm/gradients"].values[0] == pytest.approx(np.linalg.norm(norms), rel=1e-5)


def test_runs_are_named_as_keras_names_them(recorded):
    *_, events = recorded
    assert sorted(events.runs) == ["train", "validation"]
    assert events.scalars == {}
    assert events.runs["train"].scalars["epoch_loss"].steps == (0, 1)
    assert events.runs["validation"].scalars["epoch_loss"].steps == (0, 1)


WAYS = {
    "eager": lambda: _model(run_eagerly=True),
    "xla": lambda: _model(jit_compile=True),
    "several steps a call": lambda: _model(steps_per_execution=3),
    "loss scale": lambda: _model(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))),
    "clipped": lambda: _model(keras.optimizers.SGD(0.1, clipnorm=1e-3)),
    "accumulated": lambda: _model(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_however_fit_runs_the_first_gradient_is_that_of_the_loss(way, tmp_path, recorded):
    *_, events = recorded
    model = WAYS[way]()
    with_it = _fit(model, [GradientSummaryCallback(tmp_path, every=3, weights=False)], epochs=2)
    for one, other in zip(with_it, _fit(WAYS[way](), epochs=2), strict=True):
        np.testing.assert_array_equal(one, other)
    train = read_events(tmp_path).runs["train"]
    mine, theirs = (found.scalars[f"gradient_norm/{KERNEL}"] for found in (train, events.runs["train"]))
    assert mine.steps == (0, 3, 6, 9, 12)
    if "xla" not in way:  # where dropout draws other numbers
        assert mine.values[0] == pytest.approx(theirs.values[0], rel=1e-5)


IN_REPLICAS = """
import sys, keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
sys.path.insert(0, "tests/tf")
import test_gradient_callback as t
from gradcheck.tensorboard import SummaryWriter, read_events
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

def made():
    with strategy.scope():
        return t._model()

with_it = t._fit(made(), [t.GradientSummaryCallback(sys.argv[1], every=3)], epochs=2)
for one, other in zip(with_it, t._fit(made(), epochs=2)):
    np.testing.assert_array_equal(one, other)
found = read_events(sys.argv[1]).runs["train"].scalars["gradient_norm/net/hidden/kernel"]
assert found.steps == (0, 3, 6, 9, 12), found.steps

with strategy.scope():
    w = tf.Variable([1.0, 2.0], name="w")
writer = SummaryWriter(sys.argv[2])

@tf.function
def step(k):
    def one():
        context = tf.distribute.get_replica_context()
        writer.gradients(k, [w * tf.cast(context.replica_id_in_sync_group + 1, tf.float32)], [w])
    strategy.run(one)

for k in range(2):
    step(tf.constant(k))
recorded = writer.record(step)
for k in range(2, 4):
    recorded(tf.constant(k))
writer.close()
found = read_events(sys.argv[2]).scalars["gradient_norm/w"]
assert found.steps == (0, 1, 2, 3), found
np.testing.assert_allclose(found.values, 3 * 5**0.5, rtol=1e-6)
"""


@pytest.mark.slow
def test_gradients_of_replicas_are_added_up_and_written_once(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", IN_REPLICAS, tmp_path / "fit", tmp_path / "own"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_resumed_run_goes_on_at_its_step(tmp_path):
    model = _model()
    for _ in range(2):
        _fit(model, [GradientSummaryCallback(tmp_path, every=4, metrics=False, histograms=False, weights=False)])
    series = read_events(tmp_path).runs["train"].scalars[f"gradient_norm/{KERNEL}"]
    assert series.steps == (0, 4, 8, 12)


def test_a_nan_is_counted_and_the_model_given_back_where_training_raises(tmp_path):
    model = _model()

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                raise KeyboardInterrupt

    bad = X.copy()
    bad[5] = np.nan
    callback = GradientSummaryCallback(tmp_path, every=1)
    with pytest.raises(KeyboardInterrupt):
        model.fit(bad, Y, batch_size=4, verbose=0, shuffle=False, callbacks=[callback, Stop()])
    train = read_events(tmp_path).runs["train"]
    assert train.scalars[f"gradient_nan/{KERNEL}"].values[0] == 0
    assert train.scalars[f"gradient_nan/{KERNEL}"].values[1] > 0
    _fit(model)
    assert model.train_function.__module__.startswith("keras")
    assert read_events(tmp_path).runs["train"].scalars[f"gradient_nan/{KERNEL}"].steps == (0, 1)


@pytest.mark.parametrize(
    ("error", "match", "options"),
    [
        (TypeError, "logdir must be a path", {"logdir": None}),
        (TypeError, "every must be a whole number", {"every": 0.5}),
        (ValueError, "every must be at least 1", {"every": 0}),
        (TypeError, "metrics must be True or False", {"metrics": "loss"}),
        (TypeError, "weights must be True or False", {"weights": 1}),
        (ValueError, "on_error must be one of", {"on_error": "stop"}),
    ],
)
def test_misuse_is_said(error, match, options):
    with pytest.raises(error, match=match):
        GradientSummaryCallback(**{"logdir": "logs", **options})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras, with NumPy 2
@pytest.mark.parametrize("first", [True, False], ids=["before the others", "after the others"])
def test_the_order_of_callbacks_does_not_matter(first, tmp_path, recorded):
    *_, without, events = recorded
    ours = GradientSummaryCallback(tmp_path / "ours", every=3, metrics=False)
    theirs = [
        keras.callbacks.TensorBoard(str(tmp_path / "theirs"), histogram_freq=1, update_freq=1),
        keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.keras")),
        keras.callbacks.EarlyStopping("loss", min_delta=1e9),
    ]
    model = _model()
    weights = _fit(model, [ours, *theirs] if first else [*theirs, ours], epochs=9, validation_data=(X, Y))
    saved = keras.models.load_model(str(tmp_path / "2.keras"))
    assert theirs[-1].stopped_epoch == 1
    for one, other, third in zip(weights, without, saved.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, third)
    tag = f"gradient_norm/{KERNEL}"
    assert read_events(tmp_path / "ours").runs["train"].scalars[tag].values == events.runs["train"].scalars[tag].values
    assert read_events(tmp_path / "theirs").runs["validation"].scalars["epoch_loss"].steps == (0, 1)
    assert "apply" not in model.optimizer.__dict__
    assert model.train_function.__module__.startswith("keras")


def test_fit_goes_on_where_the_disk_fails(tmp_path, caplog):
    (tmp_path / "file").write_text("no directory")
    model = _model()
    weights = _fit(model, [GradientSummaryCallback(tmp_path / "file" / "logs", every=3)], validation_data=(X, Y))
    for one, other in zip(weights, _fit(_model()), strict=True):
        np.testing.assert_array_equal(one, other)
    assert "training goes on without" in caplog.text


class OneGraph(keras.Sequential):
    """A model whose training function is one graph, without another one inside."""

    def make_train_function(self, force=False):
        self.train_function = tf.function(lambda iterator: self.train_step(next(iterator)))
        return self.train_function


def test_a_training_function_of_ones_own_is_recorded(tmp_path):
    model = OneGraph(_model().layers, name="net")
    model.compile("sgd", "mse")
    _fit(model, [GradientSummaryCallback(tmp_path, every=3, metrics=False)])
    assert read_events(tmp_path).runs["train"].scalars[f"gradient_norm/{KERNEL}"].steps == (0, 3, 6)
