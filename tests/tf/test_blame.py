"""The op at fault is named: which of several, for which input, in which iteration, and when there is none."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradcheck import Verdict, check_gradients, check_model, check_tf_gradients
from gradcheck._check import blame, entries
from gradcheck._results import Finding

X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


@tf.custom_gradient
def leaky(x):
    """Twice the slope where x is negative."""
    return tf.where(x > 0, x, 0.1 * x), lambda up: tf.where(x > 0, up, 0.2 * up)


@tf.custom_gradient
def scaled(x, s):
    """Right for x, and without x for s."""
    return x * s, lambda up: (up * s, tf.reduce_sum(up))


@tf.custom_gradient
def right(x):
    return tf.sin(x), lambda up: up * tf.cos(x)


@tf.custom_gradient
def right_around_wrong(x):
    """Its own gradient is right, so that the one inside is never asked."""
    return leaky(x), lambda up: tf.where(x > 0, up, 0.1 * up)


def blamed(found):
    return [place.op for place in (found.blame, *found.also) if place is not None]


def findings(fn, *inputs):
    report = check_gradients(fn, list(inputs))
    return {found.x: found for found in report.findings}


def test_each_input_is_told_of_the_ops_at_fault_for_it():
    found = findings(lambda x, s: tf.reduce_sum(leaky(scaled(right(x), s))), X, np.float32(1.5))
    assert blamed(found["inputs[0]"]) == ["leaky"]
    assert sorted(blamed(found["inputs[1]"])) == ["leaky", "scaled"]


def test_a_line_that_makes_the_same_mistake_twice_is_named_once():
    found = findings(lambda x: sum(leaky(x * k) for k in (1.0, 2.0)), X)
    assert blamed(found["inputs[0]"]) == ["leaky"]


def test_the_line_that_calls_is_named_through_a_nested_function():
    @tf.function
    def inner(x):
        return tf.reduce_sum(leaky(tf.sin(x)))  # this one

    place = findings(lambda x: inner(x) + tf.reduce_sum(x), X)["inputs[0]"].blame
    assert (place.op_type, place.op, place.function) == ("custom_gradient", "leaky", "inner")
    assert place.source.endswith("# this one")
    assert place.file.endswith("test_blame.py")


def test_the_iteration_is_named():
    def loop(x):
        def body(i, a):
            return i + 1, tf.cond(i > 97, lambda: leaky(a - 0.7), lambda: tf.sin(a) + 0.01)

        return tf.while_loop(lambda i, a: i < 100, body, [0, x[:1]])[1]

    place = findings(loop, X)["inputs[0]"].blame
    assert (place.op, place.iteration) in {("leaky", 98), ("leaky", 99)}
    assert f"iteration {place.iteration}" in str(place)


def test_what_is_inside_of_a_custom_gradient_is_blamed_only_where_its_gradient_is_asked():
    assert check_gradients(lambda x: right_around_wrong(x) + 0.0, [X]).ok
    found = findings(lambda x: right_around_wrong(x) + scaled(x, tf.reduce_sum(x)), X)
    assert blamed(found["inputs[0]"]) == ["scaled"]


def test_tensorflows_own_ops_are_looked_at_where_no_custom_gradient_is_wrong():
    found = findings(lambda x, y: tf.math.xlogy(x, right(y) + 3.0), np.array([0.0, 1.0]), np.array([2.0, 3.0]))
    assert found["inputs[0]"].blame.op_type == "Xlogy"


def test_where_no_op_is_wrong_alone_that_is_said(monkeypatch):
    monkeypatch.setattr(blame, "_look", lambda unit, options, check: (True, None))
    found = findings(leaky, X)["inputs[0]"]
    assert found.verdict is Verdict.MISMATCH
    assert found.blame is None
    assert "right at the values it had" in found.advice


def test_what_cannot_be_looked_at_is_said(monkeypatch):
    def refuse(*_):
        raise RuntimeError("cannot be copied")

    monkeypatch.setattr(blame, "trace_tensors", refuse)
    found = findings(leaky, X)["inputs[0]"]
    assert found.blame is None
    assert found.advice.endswith("not looked into: custom_gradient 'leaky'")


def test_an_op_whose_check_decides_nothing_is_not_called_right(monkeypatch):
    look = blame._look

    def undecided(traced, options):
        return [Finding(verdict=Verdict.INCONCLUSIVE, ok=False, y="output", x="inputs[0]")]

    monkeypatch.setattr(blame, "_look", lambda unit, options, check: look(unit, options, undecided))
    found = findings(leaky, X)["inputs[0]"]
    assert found.blame is None
    assert found.advice.endswith("not looked into: custom_gradient 'leaky'")


def test_what_nothing_reads_of_an_op_is_not_looked_at():
    """Where eigenvalues alone are asked for, the vectors beside them are not set, and only the gradient reads them."""
    a = np.array([[2.0, 0.3, 0.1], [0.3, 1.0, -0.2], [0.1, -0.2, 3.0]], np.float32)
    report = check_gradients(lambda a: leaky(tf.linalg.eigvalsh(a + tf.transpose(a)) - 3.0), [a])
    assert blamed(report.worst) == ["leaky"]
    assert "not looked into" not in str(report)


@pytest.mark.parametrize("fn", [right, lambda x: right(tf.tanh(x)) * x])
def test_what_is_right_is_blamed_on_nobody(fn):
    assert all(found.blame is None for found in check_gradients(fn, [X]).findings)


def test_a_wrong_second_derivative_of_a_right_first_one_is_blamed():
    @tf.custom_gradient
    def cube(x):
        @tf.custom_gradient
        def slope(x, up):
            return 3 * x**2 * up, lambda upper: (upper * 3 * x * up, upper * 3 * x**2)

        return x**3, lambda up: slope(x, up)

    report = check_gradients(cube, [X], order=2)
    assert [blamed(found) for found in report.findings if not found.ok] == [["slope"]]


@pytest.fixture
def control_flow_v1():
    tf.compat.v1.disable_control_flow_v2()
    yield
    tf.compat.v1.enable_control_flow_v2()


@tf.custom_gradient
def doubled(x):
    return 2 * x, lambda up: 3 * up


def loop_of_v1(x):
    return tf.compat.v1.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, 1.5 * doubled(tf.sin(a))), [0, x])[1]


def condition_of_v1(x):
    return tf.compat.v1.cond(tf.reduce_sum(x) > -9.0, lambda: leaky(tf.sin(x)), lambda: 2 * x)


@pytest.mark.parametrize(
    ("build", "op", "iterations"), [(loop_of_v1, "doubled", (0, 1, 2)), (condition_of_v1, "leaky", (None,))]
)
def test_what_is_inside_of_control_flow_v1_is_blamed(build, op, iterations, control_flow_v1):
    with tf.Graph().as_default():
        x = tf.compat.v1.placeholder(tf.float32, X.shape)
        place = check_tf_gradients(build(x), x, feed_dict={x: X}).worst.blame
    assert (place.op_type, place.op) == ("custom_gradient", op)
    assert place.iteration in iterations
    assert op in place.source


@tf.custom_gradient
def tanh(x):
    """Right, by its own argument, which belongs to the graph around a condition or loop."""
    return tf.tanh(x), lambda up: up * (1 - tf.tanh(x) ** 2)


@tf.custom_gradient
def bent(x):
    return tf.tanh(x), lambda up: up * (1.02 - tf.tanh(x) ** 2)


def in_condition(x, one):
    return tf.cond(tf.reduce_sum(x) > -9.0, lambda: one(x), lambda: 2 * x)


AROUND = {
    "loop": lambda x, one: tf.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, one(a)), [0, x])[1],
    "map": lambda x, one: tf.map_fn(one, x),
    "condition in a map": lambda x, one: tf.map_fn(lambda row: in_condition(row, one), x),
    "case": lambda x, one: tf.switch_case(tf.constant(1), [lambda: x, lambda: one(x)]),
}


OFTEN = ("loop", "condition in a map")  # the others are slow in sum


@pytest.mark.parametrize(
    "around", [pytest.param(AROUND[k], id=k, marks=[pytest.mark.slow] * (k not in OFTEN)) for k in AROUND]
)
@pytest.mark.parametrize(("one", "culprits"), [(tanh, []), (bent, ["bent"])])
@pytest.mark.slow
def test_a_custom_gradient_that_uses_its_argument_is_told_of_inside_of_control_flow(around, one, culprits):
    def in_graph():
        with tf.Graph().as_default():
            x = tf.compat.v1.placeholder(tf.float32, X.shape)
            return check_tf_gradients(around(x, one), x, feed_dict={x: X})

    for report in (check_gradients(lambda x: around(x, one), [X]), in_graph()):
        assert (report.ok, blamed(report.worst)) == (not culprits, culprits), str(report)


def test_behind_a_declared_surrogate_what_has_not_its_own_gradient_is_blamed():
    @tf.custom_gradient
    def straight(x):
        return tf.round(x), lambda up: 1.1 * up

    found = check_gradients(lambda x: straight(tf.sin(x)), [X], surrogate=tf.sin).worst
    assert blamed(found) == ["straight"]
    assert "1.1 x numeric" in found.hint
    other = check_gradients(tf.sin, [X], surrogate=lambda x: 2.0 * tf.sin(x)).worst
    assert other.blame is None
    assert "not the surrogate's" in other.advice


def test_a_custom_gradient_around_a_variable_that_a_session_has_is_blamed_for_the_input_at_fault_only():
    @tf.custom_gradient
    def weighted(x):
        w = tf.compat.v1.get_variable("w", initializer=tf.constant(1.5), use_resource=True)
        return x * w, lambda up, variables: (2 * up * w, [tf.reduce_sum(up * x)])

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, X.shape)
        y = tf.reduce_sum(weighted(tf.sin(x)))
        session.run(tf.compat.v1.global_variables_initializer())
        findings = check_tf_gradients(y, [x, *tf.compat.v1.trainable_variables()], feed_dict={x: X}).findings
    assert [(f.ok, blamed(f)) for f in findings] == [(False, ["weighted"]), (True, [])]
    assert "y = tf.reduce_sum(weighted(" in findings[0].blame.source


class Gate(keras.layers.Layer):
    def call(self, x):
        return x * tf.function(leaky)(x)


def test_the_layer_is_named_through_a_function_that_it_calls():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(4, name="dense"), Gate(name="gate")], name="net")
    place = check_model(model, X).worst.blame
    assert (place.op, place.layer) == ("leaky", "net/gate")


def test_an_op_alone_is_judged_and_its_wrong_entries_are_not_searched(monkeypatch):
    """Many wrong entries are halved once, for the function, and not once more for each op."""
    searched = []
    halve = entries.halve
    monkeypatch.setattr(entries, "halve", lambda *args: searched.append(args) or halve(*args))
    found = check_gradients(lambda x: leaky(right(x)), [np.linspace(-1, 1, 4098, dtype=np.float32)]).worst
    assert blamed(found) == ["leaky"]
    assert len(searched) == 1


def test_an_op_of_which_one_entry_in_many_is_slightly_wrong_is_blamed():
    @tf.custom_gradient
    def slightly(x):
        return tf.sin(x), lambda up: up * tf.cos(x) * (1 + 1e-5 * tf.one_hot(77, 5000))

    found = check_gradients(lambda x: slightly(right(x)), [np.linspace(-1, 1, 5000, dtype=np.float32)]).worst
    assert (found.index, blamed(found)) == ((77,), ["slightly"])


def bent_at_zero(n, off=0.0):
    """Right but for one entry, where its gradient is off by a part."""

    @tf.custom_gradient
    def bent(x):
        slope = tf.where(x > 0, 1.0, 0.1)
        return slope * x, lambda up: up * slope * (1 + off * tf.one_hot(3777, n))

    return bent


@pytest.mark.slow
def test_a_wrong_entry_among_thousands_is_named_beside_kinks():
    x = np.random.default_rng(0).normal(size=4097).astype(np.float32)
    x[::41] = 0.0
    found = check_gradients(bent_at_zero(4097, 1e-3), [x], mode="directional").worst
    assert (found.verdict, found.index, found.wrong) == (Verdict.MISMATCH, (3777,), 1)
    assert blamed(found) == ["bent"]


def test_a_wrong_entry_that_kinks_hide_along_every_direction_is_named():
    @tf.custom_gradient
    def size(x):
        return tf.abs(x), lambda up: up * tf.sign(x) * (1 + 0.01 * tf.one_hot(3777, 4097))

    x = np.random.default_rng(0).normal(size=4097).astype(np.float32)
    x[[5, 2000]] = 0.0
    found = check_gradients(size, [x], mode="directional").worst
    assert (found.verdict, found.index, blamed(found)) == (Verdict.MISMATCH, (3777,), ["size"])


def test_several_kinks_among_thousands_at_which_the_gradient_is_between_the_sides_are_no_fault():
    x = np.random.default_rng(0).normal(size=4097).astype(np.float32)
    x[[5, 2000, 3000]] = 0.0
    found = check_gradients(bent_at_zero(4097), [x], mode="directional").worst
    assert (found.verdict, found.ok, found.wrong) == (Verdict.NONSMOOTH, True, 0)


def test_the_iteration_is_named_where_a_gradient_compares_the_counter():
    """Tensors of a function are compared by value, those of a tf.Graph by identity."""

    @tf.custom_gradient
    def once(a, i):
        return tf.sin(a), lambda up: (tf.where(i == 3, 1.5, 1.0) * up * tf.cos(a), None)

    def loop(x):
        return tf.while_loop(lambda i, a: i < 6, lambda i, a: (i + 1, 1.2 * once(a, i)), [0, x[0]])[1]

    place = check_gradients(loop, [X]).worst.blame
    assert (place.op, place.iteration) == ("once", 3)


class Recomputed(keras.layers.Layer):
    def __init__(self):
        super().__init__(name="again")
        self.dense, self.dropout = keras.layers.Dense(6), keras.layers.Dropout(0.5, seed=1)

    def call(self, x, training=False):
        return tf.recompute_grad(lambda t: self.dropout(self.dense(t), training=training))(x)


def test_numbers_that_recompute_grad_draws_anew_are_blamed_and_those_of_a_seed_are_not():
    def dropped(x):
        return tf.nn.dropout(tf.sin(x), 0.5)

    def seeded(x):
        return x * tf.random.stateless_uniform(x.shape, [1, 2])

    plain = check_gradients(tf.recompute_grad(dropped), [X])
    layer = check_model(Recomputed(), X[:2], training=True)
    for report, op in ((plain, "RandomUniform"), (layer, "StatelessRandomUniformV2")):
        assert blamed(report.worst) == ["recompute_grad"]
        assert f"and {op} '" in report.worst.hint
    assert "recompute_grad(lambda t" in layer.worst.blame.source
    assert check_gradients(tf.recompute_grad(seeded), [X]).ok
    assert check_model(Recomputed(), X[:2]).ok


def test_the_layer_inside_of_a_loop_is_named_once():
    cell = keras.layers.SimpleRNNCell(1, activation=bent, name="cell")
    model = keras.Sequential([keras.Input([3, 1]), keras.layers.RNN(cell, name="loop")], name="net")
    place = check_model(model, X[:1, :, None], wrt="net/loop/cell/bias").worst.blame
    assert (place.op, place.layer) == ("bent", "net/loop/cell")


def test_of_a_custom_gradient_that_is_checked_itself_the_gradient_function_is_named():
    @tf.custom_gradient
    def cube(x):
        y = x**3

        def slope(up):
            return up * x**2

        return y, slope

    def through(x):
        return tf.sin(cube(x))

    place = check_gradients(cube, X).worst.blame
    assert (place.op, place.source) == ("cube", "def slope(up):")
    assert check_gradients(tf.keras.layers.Activation(cube), X).worst.blame.source == "def slope(up):"
    assert check_gradients(through, X).worst.blame.source == "return tf.sin(cube(x))"
