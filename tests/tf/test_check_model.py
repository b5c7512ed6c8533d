"""What `check_model` differentiates, leaves as it was, and refuses."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import gradcheck
from gradcheck import Verdict
from tests.gallery import normal

X, Y = normal(4, 3, dtype=np.float32), normal(4, 2, seed=1, dtype=np.float32)


def exactly(message):
    return f"^{re.escape(message)}$"


def small(**compiled):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(5, activation="tanh", name="first"), keras.layers.Dense(2, name="second")]
    model = keras.Sequential([keras.Input((3,)), *layers], name="small")
    if compiled:
        model.compile(**compiled)
    return model


def noisy():
    """A model with all that a call in training may change."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Dense(6, kernel_regularizer="l2", activity_regularizer="l2"), keras.layers.BatchNormalization(),
        keras.layers.GaussianNoise(0.1), keras.layers.Dropout(0.5), keras.layers.Dense(2),
    ]  # fmt: skip
    model = keras.Sequential([keras.Input((3,)), *layers], name="noisy")
    model.compile("adam", loss="mse", metrics=["mae"])
    return model


@keras.saving.register_keras_serializable("tests")
class Wrong(keras.layers.Layer):
    """A dense layer whose gradient with respect to its kernel is twice what it should be."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 2), name="kernel")

    def call(self, x):
        return wrong_product(x, tf.convert_to_tensor(self.kernel))


@tf.custom_gradient
def wrong_product(x, w):
    def grad(up):
        return tf.matmul(up, w, transpose_b=True), 2 * tf.matmul(x, up, transpose_a=True)

    return tf.matmul(x, w), grad


def wrong_model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(3, name="right"), Wrong(name="wrong")], name="wrongly"
    )


def paths(report):
    return [finding.x for finding in report.findings]


# ------------------------------------------------------------------------------------------------- what is checked


def test_every_trainable_variable_is_checked_by_its_path():
    model = small()
    report = gradcheck.check_model(model, X)
    assert report.verdict is Verdict.MATCH, str(report)
    assert paths(report) == [v.path for v in model.trainable_variables]
    assert report.name == "small"


LOSSES = {
    "compiled": None, "name": "mse", "object": keras.losses.Huber(),
    "scalar": lambda y, p: tf.reduce_mean(tf.abs(y - p) ** 3), "entries": lambda y, p: (y - p) ** 2,
}  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_loss_is_one_output(loss):
    report = gradcheck.check_model(small(loss="mae"), X, Y, loss=loss)
    assert report.verdict is Verdict.MATCH, str(report)
    assert {f.y for f in report.findings} == {"output"}
    assert report.name == "loss of small"


def test_the_wrong_variable_is_named_with_and_without_a_loss():
    for more in ({}, {"y": Y, "loss": "mse"}):
        report = gradcheck.check_model(wrong_model(), X, **more)
        assert [(f.x, f.verdict) for f in report.findings if not f.ok] == [("wrongly/wrong/kernel", Verdict.MISMATCH)]


def test_in_training_regularizers_dropout_and_batch_statistics_are_part_of_it():
    report = gradcheck.check_model(noisy(), X, Y, training=True)
    assert report.ok, str(report)
    assert {h.reason for f in report.findings for h in f.held} >= {"random"}
    kernel = next(f for f in gradcheck.check_model(noisy(), X, Y, mode="elementwise").findings if "kernel" in f.x)
    with tf.GradientTape() as tape:
        model = noisy()
        loss = model.compute_loss(y=Y, y_pred=model(X))
    gradient = tape.gradient(loss, model.trainable_variables[0].value).numpy()
    assert kernel.analytic == pytest.approx(float(gradient[kernel.index]), rel=1e-5)


def test_a_regularizer_with_a_wrong_gradient_is_found():
    @tf.custom_gradient
    def penalty(w):
        return tf.reduce_sum(w * w), lambda up: up * w

    class Penalty(keras.regularizers.Regularizer):
        def __call__(self, w):
            return penalty(w)

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, kernel_regularizer=Penalty())])
    assert gradcheck.check_model(model, X).ok
    report = gradcheck.check_model(model, X, Y, loss="mse")
    assert report.verdict is Verdict.MISMATCH
    assert report.worst.x == model.trainable_variables[0].path


def test_sample_weights_weigh_the_loss():
    weights = np.array([0.0, 1.0, 0.0, 0.0], np.float32)
    model = small(loss="mse")
    for loss in (None, "mse"):
        report = gradcheck.check_model(model, X, Y, loss=loss, sample_weight=weights, mode="elementwise")
        assert report.ok, str(report)
        bias = next(f for f in report.findings if f.x == "small/second/bias")
        expected = 2 * (model(X).numpy() - Y)[1] / 8
        assert bias.analytic == pytest.approx(expected[bias.index], rel=1e-5)


def test_frozen_layers_are_left_out_and_may_be_asked_for():
    model = small()
    model.layers[0].trainable = False
    assert paths(gradcheck.check_model(model, X)) == ["small/second/kernel", "small/second/bias"]
    assert paths(gradcheck.check_gradients(model, X)) == ["inputs", "small/second/kernel", "small/second/bias"]
    assert paths(gradcheck.check_model(model, X, wrt="small/first/kernel")) == ["small/first/kernel"]
    assert paths(gradcheck.check_model(model, X, wrt=model.layers[0].bias)) == ["small/first/bias"]
    assert paths(gradcheck.check_model(model, X, wrt="inputs")) == ["inputs[0]"]


def test_a_variable_that_is_never_read_is_unconnected():
    class Idle(keras.layers.Layer):
        def build(self, shape):
            self.used = self.add_weight(shape=shape[-1:], name="used")
            self.idle = self.add_weight(shape=(2,), name="idle")

        def call(self, x):
            return x * self.used

    report = gradcheck.check_model(Idle(name="layer"), X)
    assert [(f.x, f.verdict) for f in report.findings] == [
        ("layer/used", Verdict.MATCH), ("layer/idle", Verdict.UNCONNECTED),
    ]  # fmt: skip


def test_variables_of_one_name_are_told_apart():
    keras.utils.set_random_seed(0)

    class Twins(keras.Model):
        def __init__(self):
            super().__init__()
            self.one, self.two = keras.layers.Dense(2, name="same"), keras.layers.Dense(2, name="same")

        def call(self, x):
            return self.two(tf.tanh(self.one(x)))

    found = paths(gradcheck.check_model(Twins(), X))
    assert len(set(found)) == 4


def test_layers_of_several_arguments_take_them_from_a_list_or_by_name():
    x = normal(1, 3, 4, dtype=np.float32)
    for inputs in ([x, x[:, :2]], {"query": x, "value": x[:, :2]}):
        layer = keras.layers.MultiHeadAttention(2, 2, name="attention")
        report = gradcheck.check_model(layer, inputs, mode="directional")
        assert report.ok, str(report)
        assert len(report.findings) == 8


def test_models_of_several_inputs_and_outputs_take_and_give_structures():
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    joined = keras.layers.Concatenate()([a, b])
    outputs = {"p": keras.layers.Dense(2, name="p")(joined), "q": keras.layers.Dense(1, name="q")(joined)}
    model = keras.Model({"a": a, "b": b}, outputs)
    model.compile(loss={"p": "mse", "q": "mae"}, loss_weights={"p": 1.0, "q": 0.5})
    x, y = {"a": X, "b": Y}, {"p": Y, "q": Y[:, :1]}
    assert {f.y for f in gradcheck.check_model(model, x).findings} == {"outputs['p']", "outputs['q']"}
    for loss in (None, {"p": "mse", "q": "mae"}):
        report = gradcheck.check_model(model, x, y, loss=loss)
        assert report.ok, str(report)
        assert len(report.findings) == 4


def test_options_reach_the_check_and_the_line_that_repeats_it():
    report = gradcheck.check_model(
        small(loss="mse"), X, Y, training=True, mode="directional", directions=2, seed=3, rtol=1e-4, name="mine"
    )
    assert (report.name, report.mode, report.seed) == ("mine", "directional", 3)
    assert report.again == (
        "check_model(model, x, y, training=True, mode='directional', rtol=0.0001, directions=2, seed=3)"
    )
    assert gradcheck.check_model(small(), X, order=2, mode="directional").order == 2
    assert gradcheck.check_model(small(), X, grad_ys=np.ones((4, 2), np.float32), forward=True).ok


def test_forward_mode_goes_through_the_variables():
    report = gradcheck.check_model(wrong_model(), X, forward=True, mode="directional")
    assert any("forward mode and reverse mode disagree" in (f.reason or "") for f in report.findings)


def test_the_same_model_is_traced_again_and_its_gradients_are_not_built_again():
    from gradcheck._graph import memory

    model = small(loss="mse")
    gradcheck.check_model(model, X, Y)
    first = next(reversed(memory._known.values()))[2]
    model.trainable_variables[0].assign_add(np.full((3, 5), 0.1, np.float32))
    report = gradcheck.check_model(model, X, Y)
    assert report.ok, str(report)
    assert next(reversed(memory._known.values()))[2] is first


# ------------------------------------------------------------------------------------------- nothing is changed


def state(model):
    optimizer = model.optimizer.variables if model.optimizer else []
    variables = [*model.variables, *model.non_trainable_variables, *model.metrics_variables, *optimizer]
    return [(v.path, v.numpy().tobytes()) for v in variables]


@pytest.mark.parametrize(
    "more",
    [
        {},
        *(
            pytest.param(more, marks=pytest.mark.slow)
            for more in ({"forward": True}, {"order": 2, "mode": "directional"})
        ),
    ],
    ids=str,
)
def test_variables_metrics_optimizer_and_random_states_stay_as_they_were(more):
    model = noisy()
    model.fit(X, Y, verbose=0)
    before, numpy_state = state(model), np.random.get_state()[1].tobytes()
    names = keras.layers.Dense(1).name
    model(X)
    kept = [float(value) for value in model.losses]
    gradcheck.check_model(model, X, Y, training=True, **more)
    gradcheck.check_model(model, X, training=True)
    assert state(model) == before
    assert np.random.get_state()[1].tobytes() == numpy_state
    assert [float(value) for value in model.losses] == kept
    first, second = (int(name.rpartition("_")[2]) for name in (names, keras.layers.Dense(1).name))
    assert second == first + 1


def test_a_layer_that_raises_is_named_with_its_line():
    class Stretching(keras.layers.Layer):
        def call(self, x):
            return tf.matmul(x, tf.ones([7, 2]))  # here

    with pytest.raises(ValueError, match=r"^.* cannot be called on x ") as caught:
        gradcheck.check_model(keras.Sequential([keras.layers.Dense(3), Stretching()]), X)
    assert re.match(r"gradcheck: raised at \S*test_check_model.py:\d+ by call: `.*# here`", caught.value.__notes__[0])


def test_a_model_is_as_it_was_after_an_error():
    model = noisy()
    before = state(model)
    with pytest.raises(ValueError, match="cannot be called on x"):
        gradcheck.check_model(model, X[:, :1], Y, training=True)
    assert state(model) == before
    assert gradcheck.check_model(model, X, Y, training=True).ok


def test_an_unbuilt_model_is_built():
    model = keras.Sequential([keras.layers.Dense(2), keras.layers.Dense(1)])
    assert gradcheck.check_model(model, X).ok
    assert model.built
    assert len(model.trainable_variables) == 4


# ------------------------------------------------------------------------------------------------------- misuse


def raising(y, p):
    raise ValueError("no such target")


@pytest.mark.parametrize(
    ("make", "arguments", "options", "error", "message"),
    [
        (lambda: tf.sin, (X,), {}, TypeError,
         "model must be a Keras 3 model or layer, got function; any other callable is checked by "
         "check_gradients(fn, inputs)"),
        (lambda: keras.layers.Dense, (X,), {}, TypeError,
         "model must be a Keras 3 model or layer, got type; any other callable is checked by "
         "check_gradients(fn, inputs)"),
        (small, (None,), {}, TypeError, "x must be one batch of inputs, arrays or tensors; got NoneType"),
        (small, ("x",), {}, TypeError, "x must be one batch of inputs, arrays or tensors; got str"),
        (small, (tf.data.Dataset.from_tensors(X),), {}, TypeError,
         "x must be one batch of inputs, got a Dataset; write x, y = next(iter(dataset))"),
        (small, (X, Y), {}, ValueError,
         "y was given, and there is no loss to compute from it: small is not compiled; pass loss=..., or call "
         "model.compile(loss=...)"),
        (small, (X,), {"loss": "mse"}, ValueError,
         "loss was given without y, the targets to compute a loss from; pass y, or leave loss out"),
        (small, (X,), {"sample_weight": np.ones(4)}, ValueError,
         "sample_weight was given without y, the targets to compute a loss from; pass y, or leave sample_weight out"),
        (small, (X,), {"training": None}, TypeError, "training must be True or False; got training=None"),
        (small, (X,), {"mode": "fast"}, ValueError,
         "mode must be one of 'auto', 'directional', 'elementwise', 'jacobian'; got mode='fast'"),
        (small, (X,), {"name": 3}, TypeError, "name must be a string or None; got name=3"),
        (small, (X,), {"wrt": "third/kernel"}, ValueError,
         "wrt must name inputs or variables of the function: inputs[0], small/first/kernel, small/first/bias, "
         "small/second/kernel, small/second/bias; found 'third/kernel'"),
        (lambda: keras.layers.ReLU(name="relu"), (X,), {}, ValueError,
         'relu has no trainable variable to differentiate with respect to; pass wrt="inputs", or the paths of frozen '
         "variables"),
    ],
)  # fmt: skip
def test_misuse_is_refused(make, arguments, options, error, message):
    with pytest.raises(error, match=exactly(message)):
        gradcheck.check_model(make(), *arguments, **options)


@pytest.mark.parametrize(
    ("make", "arguments", "options", "message"),
    [
        (small, (X[:, :1],), {}, r"small cannot be called on x \(float32 \[4, 1\]\): .*"),
        (lambda: keras.layers.Conv2D(2, 3, name="conv"), (X,), {},
         r"conv cannot be called on x \(float32 \[4, 3\]\): .*"),
        (small, (X, Y[:, :1].repeat(3, 1)), {"loss": "mse"},
         r"the loss of small cannot be computed from y \(float32 \[4, 3\]\) and outputs float32 \[4, 2\]: .*"),
        (small, (X, Y), {"loss": "no such loss"}, r"the loss of small cannot be computed .*no such loss.*"),
        (small, (X, Y), {"loss": raising}, r"the loss of small cannot be computed .*: no such target"),
        (small, (X, Y), {"loss": lambda y, p: None}, r"the loss of small cannot be computed .*"),
        (lambda: small(optimizer="sgd"), (X, Y), {}, r"the loss of small cannot be computed .*: No loss to compute.*"),
    ],
    ids=["shape", "rank, unbuilt", "targets", "unknown loss", "raising loss", "loss of None", "compiled without"],
)  # fmt: skip
def test_what_does_not_fit_the_model_is_named(make, arguments, options, message):
    with pytest.raises((TypeError, ValueError), match=rf"^{message}(\ngradcheck: .*)?$"):
        gradcheck.check_model(make(), *arguments, **options)


def test_a_model_that_cannot_be_traced_is_refused_for_its_variables_would_be_hidden():
    class Eager(keras.layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=shape[-1:], name="w")

        def call(self, x):
            return x * float(self.w.value.numpy()[0])

    with pytest.raises(Exception, match="numpy"):
        gradcheck.check_model(Eager(), X)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"surrogate": 3}, TypeError, "surrogate must be callable or None, got int; write lambda x: x"),
        ({"surrogate": tf.sin, "order": 2}, ValueError,
         "surrogate stands for the first reverse derivative only; leave order=2 out"),
        ({"surrogate": tf.sin, "forward": True}, ValueError,
         "surrogate stands for the first reverse derivative only; leave forward=True out"),
        ({"surrogate": lambda x: x[:1]}, ValueError,
         "surrogate must return what fn returns, output float32 (4, 3); found output float32 (1, 3)"),
        ({"surrogate": lambda x: [x, x]}, ValueError,
         "surrogate must return what fn returns, output float32 (4, 3); found outputs[0] float32 (4, 3), outputs[1] "
         "float32 (4, 3)"),
    ],
)  # fmt: skip
def test_an_odd_surrogate_is_refused(options, error, message):
    with pytest.raises(error, match=exactly(message)):
        gradcheck.check_gradients(tf.round, [X], **options)
