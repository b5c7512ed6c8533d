"""A check leaves no trace: variables, random states, settings, arrays and registries are as they were."""

import gc
import random
import weakref

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.framework.func_graph import FuncGraph

import gradcheck
from gradcheck._graph.memory import _MOST


def smooth(x):
    return tf.sin(x) * x


@tf.custom_gradient
def wrong(x):
    return x * x, lambda up: 3 * up * x


def drawing(x):
    return x * tf.random.normal(tf.shape(x), dtype=x.dtype) + tf.random.uniform(tf.shape(x), dtype=x.dtype)


def drawing_from_the_global_generator(x):
    return x * tf.random.get_global_generator().normal(tf.shape(x), dtype=x.dtype)


def drawing_in_python(x):
    return x * np.random.normal() + random.random()


def seeding(x):
    np.random.seed(1)
    random.seed(1)
    return x * x


def drawing_in_numpy_function(x):
    y = tf.numpy_function(lambda v: v * np.random.normal(), [x], x.dtype)
    y.set_shape(x.shape)
    return y + x


class OwnError(Exception):
    pass


def raising(x):
    np.random.normal()
    random.random()
    raise OwnError(x.shape)


def raising_when_run(x):
    with tf.control_dependencies([tf.debugging.assert_less(x, 0 * x)]):
        return tf.identity(x)


def untraceable(x):
    return x * float(tf.reduce_sum(x).numpy())


SUBJECTS = [
    smooth,
    wrong,
    drawing,
    drawing_from_the_global_generator,
    drawing_in_python,
    seeding,
    drawing_in_numpy_function,
    raising,
    raising_when_run,
    untraceable,
]
subjects = pytest.mark.parametrize("fn", SUBJECTS, ids=lambda fn: getattr(fn, "__name__", "wrong"))
X = np.array([0.3, -1.2])


def check(fn, inputs=None, **options):
    """Run a check whatever comes out of it."""
    try:
        return gradcheck.check_gradients(fn, [X] if inputs is None else inputs, **options)
    except (OwnError, tf.errors.InvalidArgumentError):
        return None


def random_states():
    kind, keys, *rest = np.random.get_state()
    return {
        "numpy": (kind, keys.tobytes(), *rest),
        "python": random.getstate(),
        "global generator": tf.random.get_global_generator().state.numpy().tobytes(),
        "global seed": context.global_seed(),
        "operation seeds": (rng := getattr(context.context(), "_rng", None)) and rng.getstate(),
    }


@subjects
def test_random_states_are_as_they_were(fn):
    tf.random.get_global_generator()
    before = random_states()
    check(fn)
    assert random_states() == before


@pytest.mark.parametrize("seed", [None, 5])
def test_the_next_numbers_of_tensorflow_are_those_that_would_have_come_without_a_check(seed):
    def draw(checked):
        tf.random.set_seed(5 if seed is None else seed)
        first = tf.random.normal([3]).numpy().tolist()
        if checked:
            check(drawing)
        return first, tf.random.normal([3]).numpy().tolist()

    assert draw(checked=True) == draw(checked=False)


def test_a_change_of_a_random_state_would_be_seen():
    before = random_states()
    np.random.normal()
    changed = random_states()
    assert changed["numpy"] != before["numpy"]
    random.random()
    tf.random.get_global_generator().normal([])
    again = random_states()
    assert again["python"] != before["python"]
    assert again["global generator"] != before["global generator"]


def settings():
    return {
        "functions run eagerly": tf.config.functions_run_eagerly(),
        "soft placement": tf.config.get_soft_device_placement(),
        "jit": tf.config.optimizer.get_jit(),
        "optimizer": tf.config.optimizer.get_experimental_options(),
        "eager": tf.executing_eagerly(),
        "float": tf.keras.config.floatx(),
        "epsilon": tf.keras.config.epsilon(),
        "synchronous": tf.config.experimental.get_synchronous_execution(),
        "deterministic": tf.config.experimental.is_op_determinism_enabled()
        if hasattr(tf.config.experimental, "is_op_determinism_enabled")
        else None,
        "default graph": id(tf.compat.v1.get_default_graph()),
        "device policy": tf.config.experimental.get_device_policy(),
        "numpy errors": np.geterr(),
        "check numerics": context.context().op_callbacks == [],
    }


@subjects
def test_settings_are_as_they_were(fn):
    before = settings()
    check(fn)
    assert settings() == before


def test_settings_that_are_not_the_defaults_are_as_they_were():
    before = settings()
    with np.errstate(all="raise"):
        tf.config.run_functions_eagerly(True)
        try:
            inside = settings()
            assert inside != before
            check(smooth)
            assert settings() == inside
        finally:
            tf.config.run_functions_eagerly(False)
    assert settings() == before


def underflowing(x):
    return tf.exp(-x * x)


@pytest.mark.parametrize("mode", ["auto", "directional", "elementwise", "jacobian"])
def test_numpy_that_raises_on_rounding_errors_does_not_trouble_a_check(mode):
    with np.errstate(all="raise"):
        assert gradcheck.check_gradients(underflowing, [np.array([0.5, 26.0, 40.0])], mode=mode).ok


def test_functions_that_run_eagerly_by_a_setting_get_the_same_verdict():
    fn = tf.function(lambda x: wrong(tf.sin(x)))
    tf.config.run_functions_eagerly(True)
    try:
        assert gradcheck.check_gradients(fn, [X]).verdict is gradcheck.Verdict.MISMATCH
    finally:
        tf.config.run_functions_eagerly(False)


@subjects
def test_the_default_graph_gains_no_ops(fn):
    graph = tf.compat.v1.get_default_graph()
    before = len(graph.get_operations())
    check(fn)
    assert tf.compat.v1.get_default_graph() is graph
    assert len(graph.get_operations()) == before


def test_a_graph_that_is_the_default_stays_so_and_gains_no_ops():
    with tf.Graph().as_default() as graph:
        check(smooth)
        assert tf.compat.v1.get_default_graph() is graph
        assert graph.get_operations() == []


def bits(value):
    return (value.numpy() if hasattr(value, "numpy") else np.asarray(value)).tobytes()


@subjects
def test_arrays_are_as_they_were(fn):
    array = np.array([0.3, -1.2])
    array.setflags(write=False)
    tensor = tf.constant([0.5, 0.25], tf.float64)
    variable = tf.Variable([0.5, -0.0], dtype=tf.float64)
    for value in (array, tensor, variable):
        before = bits(value)
        check(fn, [value])
        assert bits(value) == before
    assert not array.flags.writeable


def model_in_training():
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [layers.Dense(3), layers.BatchNormalization(), layers.Dropout(0.5, seed=1), layers.GaussianNoise(0.1)]
    )
    model.build((None, 2))

    def training(x):
        return model(x, training=True)

    def training_and_raising(x):
        model(x, training=True)
        raise OwnError

    return model, training, training_and_raising


def state_of(model):
    return {v.path: bits(v) for v in model.variables} | {
        f"seed {i}": bits(v) for i, v in enumerate(_seed_states(model))
    }


def _seed_states(model):
    for layer in model.layers:
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            yield generator.state


@pytest.mark.parametrize(
    "mode", ["auto", *(pytest.param(m, marks=pytest.mark.slow) for m in ("directional", "elementwise", "jacobian"))]
)
def test_statistics_and_seeds_of_keras_layers_are_as_they_were(mode):
    model, training, _ = model_in_training()
    before = state_of(model)
    assert check(training, [np.ones((4, 2), np.float32)], mode=mode) is not None
    assert state_of(model) == before
    model(np.ones((4, 2), np.float32), training=True)
    assert state_of(model) != before


def test_statistics_and_seeds_are_as_they_were_after_an_exception():
    model, _, raising_behind = model_in_training()
    before = state_of(model)
    with pytest.raises(OwnError):
        gradcheck.check_gradients(raising_behind, [np.ones((4, 2), np.float32)])
    assert state_of(model) == before


def test_a_variable_that_is_assigned_in_a_loop_and_a_branch_keeps_its_value():
    v = tf.Variable(2.0, dtype=tf.float64)

    @tf.function
    def assigning(x):
        for _ in tf.range(3):
            v.assign_add(1.0)
        if tf.reduce_sum(x) < 100:
            v.assign(7.0)
        return x * x

    check(assigning)
    assert v.numpy() == 2.0


def test_a_slice_that_is_assigned_and_a_scatter_leave_the_variable_as_it_was():
    v = tf.Variable([1.0, 2.0], dtype=tf.float64)

    def assigning(x):
        v[:1].assign(x[:1])
        v.scatter_nd_add([[1]], x[1:])
        return x * x

    check(assigning)
    assert v.numpy().tolist() == [1.0, 2.0]


@subjects
def test_nothing_is_printed_or_warned(fn, capfd, recwarn):
    check(fn)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert not recwarn.list


def registered_functions():
    return len(context.context().list_function_names())


def graphs_alive():
    gc.collect()
    return sum(isinstance(each, FuncGraph) for each in gc.get_objects())


def new_function():
    def fresh(x):
        return tf.while_loop(lambda i, _: i < 3, lambda i, s: (i + 1, tf.sin(s)), [0, x])[1] * tf.stop_gradient(x)

    return fresh


@pytest.mark.slow
@pytest.mark.parametrize("fn", [smooth, None], ids=["one function again and again", "a new function each time"])
def test_a_hundred_checks_leave_a_bounded_number_of_functions_and_graphs(fn):
    """What is remembered is bounded: so many functions and graphs as the first few checks leave, and no more."""
    for _ in range(_MOST + 4):
        check(fn or new_function(), mode="directional")
    gc.collect()
    functions, graphs = registered_functions(), graphs_alive()
    for k in range(100):
        check(fn or new_function(), [X + k], mode="directional")
    gc.collect()
    assert registered_functions() <= functions
    assert graphs_alive() <= graphs


@pytest.mark.slow
def test_functions_of_a_check_leave_the_registry_with_the_function(monkeypatch):
    monkeypatch.setattr("gradcheck._graph.memory._MOST", 1000)  # nothing of other tests is dropped meanwhile
    check(new_function())  # TensorFlow keeps some functions of the first loop in a process
    gc.collect()
    before = registered_functions(), graphs_alive()
    fn = new_function()
    check(fn)
    assert registered_functions() >= before[0]
    del fn
    gc.collect()
    assert (registered_functions(), graphs_alive()) == before


def test_inputs_are_not_kept_alive():
    class Array(np.ndarray):
        pass

    given = np.ones(3).view(Array)
    seen = weakref.ref(given)
    check(smooth, [given])
    del given
    gc.collect()
    assert seen() is None


def test_a_second_check_says_the_same_also_where_the_picture_leaves_the_domain():
    near = [np.full(6, 1.05)]
    first, second = (gradcheck.check_gradients(lambda x: tf.sqrt(x - 1.0), near, seed=3) for _ in range(2))
    assert np.isnan(first.taylor.remainder).any()
    assert (first.findings, first.taylor, first.notes) == (second.findings, second.taylor, second.notes)
