"""Checks of tf.gradients on tensors of a graph: the right ones pass, the wrong ones are caught, nothing is changed."""

import os
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf

import gradcheck
from gradcheck import Verdict, assert_tf_gradients, check_gradients, check_tf_gradients
from gradcheck._errors import GraphUnavailable

v1 = tf.compat.v1


@tf.RegisterGradient("GradcheckTwiceTooLarge")
def _twice_too_large(op, grad):
    return 2.0 * grad * tf.cos(op.inputs[0])


@tf.RegisterGradient("GradcheckLoses")
def _loses(op, grad):
    return tf.zeros_like(grad)


@pytest.fixture
def graph():
    with tf.Graph().as_default() as g:
        yield g


@pytest.fixture
def session(graph):
    with v1.Session(graph=graph) as s:
        yield s


@pytest.fixture
def control_flow_v1():
    v1.disable_control_flow_v2()
    yield
    v1.enable_control_flow_v2()


def initialize(session):
    session.run(v1.global_variables_initializer())


def verdicts(report):
    return {finding.x: finding.verdict.name for finding in report.findings}


def analytic(report):
    return {finding.x: finding.analytic for finding in report.findings}


def doubled_sine(graph, x):
    with graph.gradient_override_map({"Sin": "GradcheckTwiceTooLarge"}):
        return tf.sin(x)


# ------------------------------------------------------------------------------------- the documents' examples

W_GRADIENTS = {"w1": [-6, -9, -12], "w2": [-4, -6, -8], "w3": [0, 0, 0], "w4": [-2, -3, -4]}


def four_variables(use_resource, size=3):
    w = [v1.get_variable(f"w{k}", shape=[size], use_resource=use_resource) for k in (1, 2, 3, 4)]
    return w, [3 * w[0] + 2 * w[1] + w[2], -w[2] + w[3]]


@pytest.mark.parametrize("use_resource", [False, True], ids=["reference", "resource"])
def test_weighted_sums_of_four_variables_have_the_printed_gradients(session, use_resource):
    w, zs = four_variables(use_resource)
    initialize(session)
    report = check_tf_gradients(zs, w, grad_ys=[[-2.0, -3.0, -4.0], [-2.0, -3.0, -4.0]], mode="elementwise")
    assert set(verdicts(report).values()) == {"MATCH"}
    for finding in report.findings:
        expected = W_GRADIENTS[finding.x]
        assert finding.analytic == (expected[finding.index[0]] if finding.index else 0.0)


@pytest.mark.parametrize("entry", [0, 1, 2])
def test_every_printed_entry_is_there(session, entry):
    """A finding names the one entry that comes out worst, so every entry gets variables of its own."""
    w, zs = four_variables(False, size=1)
    initialize(session)
    report = check_tf_gradients(zs, w, grad_ys=[[[-2.0, -3.0, -4.0][entry]]] * 2, mode="elementwise")
    assert report.ok
    assert analytic(report) == {x: expected[entry] for x, expected in W_GRADIENTS.items()}


def test_an_x_that_depends_on_another_x_counts_both_ways(graph):
    a = tf.constant(0.0)
    b = 2 * a
    report = check_tf_gradients(a + b, [a, b])
    assert analytic(report) == {"Const": 3.0, "mul": 1.0}
    assert report.verdict is Verdict.MATCH


def test_stop_gradients_holds_what_depends_on_an_x(graph):
    a = tf.constant(0.0)
    b = 2 * a
    report = check_tf_gradients(a + b, [a, b], stop_gradients=[a, b])
    assert analytic(report) == {"Const": 1.0, "mul": 1.0}
    assert report.verdict is Verdict.MATCH
    assert {held.reason for finding in report.findings for held in finding.held} == {"stop_gradients"}


def test_the_line_of_what_is_held_is_the_users(graph):
    a = tf.constant(0.0)
    b = 2 * a
    report = check_tf_gradients(a + b, [a, b], stop_gradients=b)
    places = {held.place.op: held.place for finding in report.findings for held in finding.held}
    assert places["mul"].file.endswith("test_tf_gradients.py")
    assert places["mul"].source == "b = 2 * a"


def test_several_ys_are_summed_with_ones_where_no_cotangent_is_given(graph):
    x = tf.constant(2.0)
    assert analytic(check_tf_gradients([3 * x, x * x], x, mode="elementwise")) == {"Const": 7.0}
    assert analytic(check_tf_gradients([3 * x, x * x], x, [None, 10.0], mode="elementwise")) == {"Const": 43.0}


def test_a_cotangent_may_be_a_tensor_of_the_graph(session):
    x = v1.placeholder(tf.float32, [], name="x")
    report = check_tf_gradients(x * x, x, grad_ys=[x + 1.0], feed_dict={x: 3.0}, mode="elementwise")
    assert analytic(report) == {"x": 24.0}


def test_a_cotangent_of_the_graph_needs_no_session_where_nothing_is_read(graph):
    x = tf.constant(3.0)
    report = check_tf_gradients(x * x, x, grad_ys=tf.fill([], 2.0) * 2, mode="elementwise")
    assert analytic(report) == {"Const": 24.0}


@pytest.mark.parametrize(("unconnected", "value"), [("none", None), ("zero", 0.0)])
def test_xs_that_ys_do_not_depend_on_are_unconnected(session, unconnected, value):
    x = v1.placeholder(tf.float32, [None], name="x")
    xs = [
        v1.placeholder(tf.float32, [None, 3], name="alone"),
        v1.get_variable("reference", [2], use_resource=False),
        v1.get_variable("resource", [2], use_resource=True),
        tf.sin(x, name="sibling"),
    ]
    initialize(session)
    report = check_tf_gradients(tf.exp(x), xs, unconnected_gradients=unconnected, feed_dict={x: [0.1, 0.2]})
    assert set(verdicts(report).values()) == {"UNCONNECTED"}
    assert analytic(report) == dict.fromkeys(("alone", "reference", "resource", "sibling"), value)


def test_tf_unconnected_gradients_is_understood(graph):
    x = tf.constant(1.0)
    y, other = tf.sin(x), tf.constant(1.0)
    report = check_tf_gradients(y, other, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    assert report.findings[0].analytic == 0.0


# ------------------------------------------------------------------------------------------ wrong ones are caught


def test_a_registered_gradient_twice_too_large_is_caught(graph):
    x = tf.constant([0.1, 0.2])
    report = check_tf_gradients(doubled_sine(graph, x) * 3.0, x)
    assert report.verdict is Verdict.MISMATCH
    assert "analytic = 2 x numeric" in report.worst.hint


def test_the_same_graph_without_the_override_is_right(graph):
    x = tf.constant([0.1, 0.2])
    assert check_tf_gradients(tf.sin(x) * 3.0, x).verdict is Verdict.MATCH


def test_assert_raises_with_the_report_where_check_returns_it(graph):
    x = tf.constant([0.1, 0.2])
    message = r"(?s)^GradientMismatch: d Sin / d Const is wrong at .*$"
    with pytest.raises(gradcheck.GradientMismatch, match=message) as error:
        assert_tf_gradients(doubled_sine(graph, x), x)
    assert error.value.report.verdict is Verdict.MISMATCH
    assert re.search(
        r"not TensorFlow's own: \w+ at .*test_tf_gradients\.py:\d+, registered as 'GradcheckTwiceTooLarge'$",
        error.value.report.worst.reason,
    )
    assert assert_tf_gradients(tf.cos(x), x).ok


def test_a_gradient_that_loses_everything_is_cut(graph):
    x = tf.constant([0.1, 0.2])
    with graph.gradient_override_map({"Sin": "GradcheckLoses"}):
        y = tf.sin(x)
    assert not check_tf_gradients(y, x).ok


def test_rounding_is_a_cut_with_the_users_line(graph):
    x = tf.constant([0.1, 0.2])
    y = tf.round(x * 10.0)
    report = check_tf_gradients(y, x)
    assert report.verdict is Verdict.CUT
    assert report.worst.cut.place.source == "y = tf.round(x * 10.0)"


def test_a_wrong_gradient_of_a_variable_is_caught_and_the_right_variable_named(session):
    graph = v1.get_default_graph()
    right, wrong = (v1.get_variable(n, initializer=[0.3, 0.4], use_resource=False) for n in ("right", "wrong"))
    y = tf.sin(right) + doubled_sine(graph, wrong)
    initialize(session)
    assert verdicts(check_tf_gradients(y, [right, wrong])) == {"right": "MATCH", "wrong": "MISMATCH"}


def test_a_wrong_custom_gradient_is_caught_and_a_right_one_that_reads_the_graph_is_not(graph):
    def log1pexp(factor):
        @tf.custom_gradient
        def f(t):
            e, sigmoid = tf.exp(t), tf.sigmoid(t)  # the gradient alone reads sigmoid
            return tf.math.log(1 + e), lambda dy: factor * dy * sigmoid

        return f

    x = tf.constant([0.1, 2.0])
    assert check_tf_gradients(log1pexp(1.0)(x), x, order=2).verdict is Verdict.MATCH
    assert check_tf_gradients(log1pexp(1.01)(x), x).verdict is Verdict.MISMATCH


def test_a_gradient_wrong_at_second_order_only_is_caught_with_order_2(graph):
    @tf.custom_gradient
    def square(t):
        return t * t, lambda dy: dy * (tf.stop_gradient(t) * 0.5 + t * 1.5)

    @tf.custom_gradient
    def hidden(t):
        @tf.custom_gradient
        def slope(u):
            return 2.0 * u, lambda dy: 3.0 * dy

        return t * t, lambda dy: dy * slope(t)

    x = tf.constant([0.5, 2.0])
    assert check_tf_gradients(hidden(x), x).ok
    second = check_tf_gradients(hidden(x), x, order=2)
    assert not second.ok
    assert "gradient of" in second.worst.y
    assert check_tf_gradients(square(x), x).ok


# ----------------------------------------------------------------------------------- variables and what is fed


@pytest.mark.parametrize("use_resource", [False, True], ids=["reference", "resource"])
def test_embedding_lookups_pass_and_wrong_ones_are_caught(session, use_resource):
    graph = v1.get_default_graph()
    rows = np.linspace(-1.0, 1.0, 20).astype(np.float32).reshape(5, 4)
    table = v1.get_variable("table", initializer=rows, use_resource=use_resource)
    ids = v1.placeholder(tf.int32, [None], name="ids")
    looked_up = tf.nn.embedding_lookup(table, ids)
    y, wrong = tf.reduce_sum(tf.sin(looked_up), 1), tf.reduce_sum(doubled_sine(graph, looked_up), 1)
    initialize(session)
    assert verdicts(check_tf_gradients(y, table, feed_dict={ids: [1, 3, 1]})) == {"table": "MATCH"}
    report = check_tf_gradients(wrong, table, feed_dict={ids: [1, 3, 1]})
    assert report.verdict is Verdict.MISMATCH
    assert report.worst.index[0] in (1, 3)


def test_the_values_are_those_of_the_session_now(session):
    w = v1.get_variable("w", initializer=2.0, use_resource=False)
    r = v1.get_variable("r", initializer=3.0, use_resource=True)
    y, more = w * w * r, [w.assign_add(1.0), r.assign_add(1.0)]
    initialize(session)
    assert analytic(check_tf_gradients(y, [w, r])) == {"w": 12.0, "r": 4.0}
    session.run(more)
    assert analytic(check_tf_gradients(y, [w, r])) == {"w": 24.0, "r": 9.0}


def test_a_fed_intermediate_tensor_is_where_the_check_begins(session):
    x = v1.placeholder(tf.float32, [], name="x")
    h = tf.exp(x, name="h")
    report = check_tf_gradients(h * h, [x, h], feed_dict={h: 3.0})
    assert verdicts(report) == {"x": "UNCONNECTED", "h": "MATCH"}
    assert analytic(report)["h"] == 6.0
    assert any(note.startswith("feed_dict gives h:") for note in report.notes)


def test_placeholders_with_a_default_need_no_feeding(session):
    x = v1.placeholder_with_default(tf.constant([2.0, 3.0]), [2], name="x")
    assert check_tf_gradients(x * x, x).verdict is Verdict.MATCH
    fed = check_tf_gradients(x * x, x, feed_dict={x: [5.0, 5.0]}, mode="jacobian")
    assert fed.findings[0].analytic == 10.0


def test_shapes_may_depend_on_values(session):
    x = v1.placeholder(tf.float32, [None], name="x")
    chosen = tf.boolean_mask(x * 2.0, x > 0.15, name="chosen")
    report = check_tf_gradients(chosen * chosen, [x, chosen], feed_dict={x: [0.1, 0.2, 0.3]}, order=2)
    assert report.verdict is Verdict.MATCH
    assert {finding.size for finding in report.findings} == {2, 3}


def test_devices_and_python_functions_and_assertions_of_the_graph_are_no_hindrance(session):
    x = v1.placeholder(tf.float32, [3], name="x")
    with tf.device("/gpu:0"), tf.control_dependencies([tf.debugging.assert_positive(x)]):
        squared = tf.py_function(lambda a: a * a, [x], tf.float32)
        squared.set_shape([3])
        y = squared * tf.cast(tf.cast(x, tf.bfloat16) * 2.0, tf.float32)
    assert check_tf_gradients(y, x, feed_dict={x: [0.5, 0.25, 2.0]}).ok
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)^.*Condition x > 0 did not hold.*$"):
        check_tf_gradients(y, x, feed_dict={x: [0.5, 0.25, -2.0]})


def test_a_feed_may_be_named_or_sparse(session):
    x = v1.placeholder(tf.float32, [2], name="x")
    sparse = v1.sparse_placeholder(tf.float32, name="sparse")
    y = tf.sparse.sparse_dense_matmul(sparse, x[:, None])
    value = v1.SparseTensorValue([[0, 1]], np.array([3.0], np.float32), [2, 2])
    assert check_tf_gradients(y, x, feed_dict={"x:0": [1.0, 2.0], sparse: value}).verdict is Verdict.MATCH
    assert check_tf_gradients(y, sparse.values, feed_dict={"x:0": [1.0, 2.0], sparse: value}).ok


def test_what_belongs_together_is_read_in_one_run(session):
    """Features and labels of two different batches would not fit: their sizes differ."""
    data = tf.data.Dataset.from_tensor_slices((np.ones((5, 3), np.float32), np.arange(5))).batch(3)
    features, labels = v1.data.make_one_shot_iterator(data).get_next()
    w = v1.get_variable("w", initializer=np.linspace(0, 1, 15).astype(np.float32).reshape(3, 5))
    y = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=features @ w)
    initialize(session)
    report = check_tf_gradients(y, [w, features])
    assert verdicts(report) == {"w": "MATCH", "IteratorGetNext": "MATCH"}
    assert any("held at the value read in the session" in note for note in report.notes)


def test_lookup_tables_and_random_ops_without_a_stateless_twin_are_held(session):
    keys = tf.lookup.KeyValueTensorInitializer(tf.constant(["a", "b"]), tf.constant([2.0, 3.0]))
    table = tf.lookup.StaticHashTable(keys, 0.0)
    shuffled = tf.random.shuffle(tf.constant([1.0, 2.0, 3.0]))
    x = tf.constant([0.1, 0.2, 0.3])
    y = tf.sin(x) * shuffled * table.lookup(tf.constant("b"))
    session.run(v1.tables_initializer())
    assert check_tf_gradients(y, x).verdict is Verdict.MATCH


def test_dropout_is_held_and_a_wrong_gradient_behind_it_is_still_caught(session):
    graph = v1.get_default_graph()
    x = tf.constant(np.linspace(0.1, 1.0, 8), tf.float32)
    right = v1.nn.dropout(tf.tanh(x), rate=0.5)
    wrong = v1.nn.dropout(doubled_sine(graph, x), rate=0.5)
    report = check_tf_gradients(right, x)
    assert report.verdict is Verdict.MATCH
    (held,) = {held.place.op_type: held for finding in report.findings for held in finding.held}.values()
    assert held.reason == "random"
    assert held.place.source == "right = v1.nn.dropout(tf.tanh(x), rate=0.5)"
    assert check_tf_gradients(wrong, x).verdict is Verdict.MISMATCH


def test_a_variable_assigned_before_it_is_read_keeps_its_value_in_the_session(session):
    w = v1.get_variable("w", initializer=2.0, use_resource=True)
    with tf.control_dependencies([w.assign(5.0)]):
        y = w.read_value() * w.read_value()
    initialize(session)
    check_tf_gradients(y, tf.constant(1.0))
    assert session.run(w) == 2.0


def test_what_is_made_by_assigning_is_refused(session):
    w = v1.get_variable("w", initializer=2.0, use_resource=False)
    y = w.assign(w * 2.0) * 3.0
    initialize(session)
    message = r"^ys depend on Assign 'Assign', which writes to a variable when it runs;.*$"
    with pytest.raises(GraphUnavailable, match=message):
        check_tf_gradients(y, w)
    assert session.run(w) == 2.0


# -------------------------------------------------------------------------------------------- loops and branches


def looped(x, w, sine=tf.sin):
    return tf.while_loop(lambda i, a: i < 4, lambda i, a: (i + 1, sine(a) * w), [0, 2.0 * x])[1]


@pytest.mark.parametrize("use_resource", [False, True], ids=["reference", "resource"])
def test_loops_of_control_flow_v1_pass_and_wrong_ones_are_caught(control_flow_v1, session, use_resource):
    graph = v1.get_default_graph()
    x = v1.placeholder(tf.float32, [3], name="x")
    w = v1.get_variable("w", initializer=[1.1, 0.9, 1.2], use_resource=use_resource)
    right, wrong = looped(x, w), looped(x, w, lambda a: doubled_sine(graph, a))
    initialize(session)
    assert "Enter" in {op.type for op in graph.get_operations()}
    feed = {x: [0.1, 0.2, 0.3]}
    assert verdicts(check_tf_gradients(right, [x, w], feed_dict=feed)) == {"x": "MATCH", "w": "MATCH"}
    assert verdicts(check_tf_gradients(wrong, [x, w], feed_dict=feed)) == {"x": "MISMATCH", "w": "MISMATCH"}


def test_loops_of_control_flow_v2_pass_and_wrong_ones_are_caught(session):
    graph = v1.get_default_graph()
    x = v1.placeholder(tf.float32, [3], name="x")
    w = v1.get_variable("w", initializer=[1.1, 0.9, 1.2])

    def doubled(a):
        return doubled_sine(v1.get_default_graph(), a)

    right, wrong = looped(x, w), looped(x, w, doubled)
    initialize(session)
    assert "Enter" not in {op.type for op in graph.get_operations()}
    feed = {x: [0.1, 0.2, 0.3]}
    assert verdicts(check_tf_gradients(right, [x, w], feed_dict=feed)) == {"x": "MATCH", "w": "MATCH"}
    assert check_tf_gradients(wrong, x, feed_dict=feed).verdict is Verdict.MISMATCH


@pytest.mark.parametrize("taken", [True, False])
def test_branches_of_control_flow_v1_pass_and_wrong_ones_are_caught(control_flow_v1, session, taken):
    graph = v1.get_default_graph()
    x, p = v1.placeholder(tf.float32, [3], name="x"), v1.placeholder(tf.bool, [], name="p")
    w = v1.get_variable("w", initializer=[1.1, 0.9, 1.2])
    y = tf.cond(p, lambda: tf.exp(x) * w, lambda: doubled_sine(graph, x) * w)
    initialize(session)
    report = check_tf_gradients(y, [x, w], feed_dict={x: [0.1, 0.2, 0.3], p: taken})
    assert verdicts(report) == {"x": "MATCH" if taken else "MISMATCH", "w": "MATCH"}


def test_nested_loops_and_tensor_arrays_of_control_flow_v1_pass(control_flow_v1, session):
    x = v1.placeholder(tf.float32, [None, 3], name="x")
    y = tf.map_fn(lambda t: tf.sin(t) * tf.reduce_sum(t), x)
    y = tf.cond(tf.reduce_sum(y) > -100.0, lambda: tf.scan(lambda a, b: a * b, y), lambda: y)
    value = np.linspace(0.1, 1.0, 12).reshape(4, 3)
    assert check_tf_gradients(y, x, feed_dict={x: value}).verdict is Verdict.MATCH


def test_what_moves_only_in_later_iterations_is_held_behind_a_stop_gradient(control_flow_v1, session):
    x = v1.placeholder(tf.float32, [3], name="x")
    total = tf.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, a + x), [0, tf.zeros([3])])[1]
    assert check_tf_gradients(tf.stop_gradient(total) * x, x, feed_dict={x: [0.1, 0.2, 0.3]}).verdict is Verdict.MATCH


def test_random_numbers_in_a_loop_are_held(control_flow_v1, session):
    x = v1.placeholder(tf.float32, [3], name="x")
    y = tf.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, tf.sin(a) * tf.random.uniform([3])), [0, x])[1]
    assert check_tf_gradients(y, x, feed_dict={x: [0.1, 0.2, 0.3]}).verdict is Verdict.MATCH


def test_a_stop_gradient_in_a_loop_of_control_flow_v1_is_refused_and_one_of_v2_held(control_flow_v1, session):
    x = v1.placeholder(tf.float32, [3], name="x")

    def build():
        return looped(x, 1.0, lambda a: tf.sin(a) * tf.stop_gradient(a))

    old = build()
    v1.enable_control_flow_v2()
    new = build()
    feed = {x: [0.1, 0.2, 0.3]}
    with pytest.raises(GraphUnavailable, match=r"^tf.stop_gradient 'while/StopGradient' is inside a loop .*$"):
        check_tf_gradients(old, x, feed_dict=feed)
    assert check_tf_gradients(new, x, feed_dict=feed).verdict is Verdict.MATCH


def test_a_stop_gradient_in_a_condition_of_control_flow_v1_is_refused(control_flow_v1, session):
    x = v1.placeholder(tf.float32, [], name="x")
    y = tf.cond(x > 0, lambda: tf.stop_gradient(tf.sin(x)) * x, lambda: x)
    with pytest.raises(GraphUnavailable, match=r"^tf.stop_gradient 'cond/StopGradient' is inside a loop or a cond.*$"):
        check_tf_gradients(y, x, feed_dict={x: 0.5})


def test_a_second_order_through_a_loop_of_control_flow_v1_is_refused(control_flow_v1, session):
    x = v1.placeholder(tf.float32, [3], name="x")
    y = looped(x, 1.0, tf.sin)
    feed = {x: [0.1, 0.2, 0.3]}
    message = (
        r"^order=2 needs the gradient of a gradient, and TensorFlow has none for loops of control flow v1 such as "
        r"the one that 'while/Enter\w*' belongs to; call tf\.compat\.v1\.enable_control_flow_v2\(\) before the "
        r"graph is built$"
    )
    with pytest.raises(GraphUnavailable, match=message):
        check_tf_gradients(y, x, feed_dict=feed, order=2)
    assert check_tf_gradients(looped(tf.ones(3), 1.0, tf.sin) * tf.sin(x), x, feed_dict=feed, order=2).ok


def test_a_tf_function_called_in_a_loop_is_differentiated_as_in_the_original(session):
    @tf.function
    def inner(t):
        return tf.sin(t) * t

    x = v1.placeholder(tf.float32, [3], name="x")
    y = tf.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, inner(a)), [0, inner(x)])[1]
    feed = {x: [0.1, 0.2, 0.3]}
    assert check_tf_gradients(y, x, feed_dict=feed, order=2).verdict is Verdict.MATCH
    assert check_tf_gradients(y, x, feed_dict=feed).verdict is Verdict.MATCH


# ---------------------------------------------------------------------------------------------- nothing is changed


def test_a_finalized_graph_is_checked_and_gets_no_op(session):
    graph = v1.get_default_graph()
    x = v1.placeholder(tf.float32, [2], name="x")
    w = v1.get_variable("w", initializer=[1.0, 2.0], use_resource=False)
    y = tf.cond(tf.reduce_sum(x) > 0, lambda: tf.sin(x) * w, lambda: x)
    y = tf.while_loop(lambda i, a: i < 2, lambda i, a: (i + 1, a * w), [0, y])[1]
    initialize(session)
    graph.finalize()
    before = graph.as_graph_def()
    report = check_tf_gradients(y, [x, w], unconnected_gradients="zero", feed_dict={x: [0.1, 0.2]}, order=2)
    assert report.ok
    assert graph.as_graph_def() == before
    assert v1.get_default_graph() is graph


def test_the_users_own_gradients_can_still_be_built_after_a_check(session):
    x = v1.placeholder(tf.float32, [2], name="x")
    y = tf.while_loop(lambda i, a: i < 2, lambda i, a: (i + 1, tf.sin(a)), [0, x])[1]
    for _ in range(2):
        assert check_tf_gradients(y, x, feed_dict={x: [0.1, 0.2]}).ok
    (gradient,) = tf.gradients(y, x)
    assert check_tf_gradients(y, x, feed_dict={x: [0.1, 0.2]}).ok
    expected = np.cos(np.sin([0.1, 0.2])) * np.cos([0.1, 0.2])
    np.testing.assert_allclose(session.run(gradient, {x: [0.1, 0.2]}), expected, rtol=8 * 2.0**-23)


def test_variables_and_random_numbers_of_the_session_go_on_as_without_a_check(graph):
    v1.set_random_seed(7)
    w = v1.get_variable("w", initializer=[1.0, 2.0])
    drawn = tf.random.uniform([4])
    y = w * v1.nn.dropout(w, rate=0.5)

    def draws(checked):
        with v1.Session(graph=graph) as session:
            initialize(session)
            first = session.run(drawn)
            if checked:
                check_tf_gradients(y, w, session=session)
            return np.stack([first, session.run(drawn)]), session.run(w)

    initialized = v1.global_variables_initializer()
    assert initialized is not None
    for without, after in zip(draws(False), draws(True), strict=True):
        np.testing.assert_array_equal(without, after)


def test_a_tensor_can_still_be_fed_after_a_check(session):
    """TensorFlow forbids feeding a tensor once its static value was asked for."""
    x = tf.constant([1.0, 2.0])
    assert check_tf_gradients(x * x, x, grad_ys=x).ok
    np.testing.assert_array_equal(session.run(x * x, {x: [3.0, 4.0]}), [9.0, 16.0])


def test_the_same_seed_gives_the_same_report(graph):
    x = tf.constant([0.1, 0.2])
    y = tf.exp(x)
    assert check_tf_gradients(y, x, seed=3) == check_tf_gradients(y, x, seed=3)


def test_the_line_that_repeats_the_check_names_what_was_given(session):
    x = v1.placeholder(tf.float32, [], name="x")
    report = check_tf_gradients(
        tf.sin(x), x, 1.0, feed_dict={x: 0.5}, unconnected_gradients="zero", mode="jacobian", rtol=1e-3, directions=2,
        seed=5,
    )  # fmt: skip
    assert report.again == (
        'check_tf_gradients(ys, xs, grad_ys=grad_ys, feed_dict=feed_dict, unconnected_gradients="zero", '
        "mode='jacobian', rtol=0.001, directions=2, seed=5)"
    )


def test_the_report_is_called_after_ys_unless_it_is_given_a_name(graph):
    x = tf.constant(0.5)
    y = tf.sin(x, name="wave")
    assert check_tf_gradients(y, x).name == "wave"
    assert check_tf_gradients([y, tf.cos(x, name="other")], x).name == "wave + other"
    assert check_tf_gradients(y, x, name="loss").name == "loss"


def test_a_monitored_session_reads_without_calling_its_hooks(graph):
    calls = []

    class Hook(v1.train.SessionRunHook):
        def before_run(self, run_context):
            calls.append(run_context)

    w = v1.get_variable("w", initializer=[1.0, 2.0])
    y = w * w
    with v1.train.MonitoredSession(hooks=[Hook()]) as session:
        report = check_tf_gradients(y, w, session=session)
    assert report.ok
    assert not calls


# --------------------------------------------------------------------------------- inside functions, and closures


def inside_a_function(build, *arguments):
    """What `build` returns when it is called while a tf.function is traced."""
    found = []

    @tf.function
    def traced(*tensors):
        found.append(build(*tensors))
        return tf.constant(0)

    traced(*map(tf.constant, arguments))
    return found[0]


def test_inside_a_function_captured_values_are_enough():
    w, large = tf.Variable([1.0, 2.0, 3.0], name="w"), tf.constant(np.ones(200, np.float32))
    report = inside_a_function(lambda: check_tf_gradients(tf.sin(w) * tf.reduce_sum(large), [w, large]))
    assert report.verdict is Verdict.MATCH
    assert verdicts(report)["w"] == "MATCH"


def test_inside_a_function_a_wrong_gradient_is_caught():
    w = tf.Variable([1.0, 2.0, 3.0])
    report = inside_a_function(lambda: check_tf_gradients(doubled_sine(v1.get_default_graph(), w + 0.0), w))
    assert report.verdict is Verdict.MISMATCH


def test_inside_a_function_arguments_can_be_fed():
    report = inside_a_function(lambda x: check_tf_gradients(x * x, x, feed_dict={x.ref(): 3.0}), 1.0)
    assert list(analytic(report).values()) == [6.0]


def test_inside_a_function_an_argument_without_a_value_is_refused_by_its_name():
    expected = (
        r"^the argument '(\w+)' has no value while its function is being traced: call check_gradients\(the function, "
        r"inputs\) from outside of it, or pass feed_dict=\{'\1:0': value\}$"
    )
    with pytest.raises(GraphUnavailable, match=expected):
        inside_a_function(lambda x: check_tf_gradients(x * x, x), 1.0)


@pytest.mark.parametrize("use_resource", [False, True], ids=["reference", "resource"])
def test_check_gradients_follows_a_closure_through_the_graph(session, use_resource):
    graph = v1.get_default_graph()
    w = v1.get_variable("w", initializer=[1.0, 2.0], use_resource=use_resource)
    through, wrong = tf.exp(w), doubled_sine(graph, w)
    initialize(session)
    before = graph.as_graph_def()
    point = np.array([0.1, 0.2], np.float32)
    assert verdicts(check_gradients(lambda x: tf.sin(x) * w * through, point)) == {"inputs": "MATCH", "w": "MATCH"}
    assert verdicts(check_gradients(lambda x: tf.sin(x) * wrong, point)) == {"inputs": "MATCH", "w": "MISMATCH"}
    assert graph.as_graph_def() == before


def test_check_gradients_takes_tensors_of_the_graph_as_inputs(session):
    x = v1.placeholder_with_default([0.1, 0.2], [2])
    assert check_gradients(lambda t: tf.sin(t) * x, x * 2.0).verdict is Verdict.MATCH


def test_check_gradients_says_which_placeholder_has_no_value(session):
    p = v1.placeholder(tf.float32, [2], name="p")
    message = r"^the placeholder 'p' has no value: call check_tf_gradients\(.*'p:0': value\}\)$"
    with pytest.raises(ValueError, match=message):
        check_gradients(lambda x: tf.sin(x) * p, np.ones(2, np.float32))


WITHOUT_V2 = """
    import numpy as np, tensorflow as tf
    v1 = tf.compat.v1
    v1.{switch}()
    import gradcheck

    @tf.RegisterGradient("TwiceTooLarge")
    def twice_too_large(op, grad):
        return 2.0 * grad * tf.cos(op.inputs[0])

    with tf.Graph().as_default() as graph, v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        w = v1.get_variable("w", [3, 2])
        b = tf.Variable(np.zeros(2, np.float32), name="b")
        h = tf.nn.tanh(tf.matmul(x, w) + b)
        total = tf.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, a + h), [0, tf.zeros_like(h)])[1]
        y = tf.square(total) * tf.stop_gradient(total)
        with graph.gradient_override_map({{"Sin": "TwiceTooLarge"}}):
            wrong = tf.sin(h)
        session.run(v1.global_variables_initializer())
        feed = {{x: np.linspace(0, 1, 6).reshape(2, 3)}}
        for tensor in (y, wrong):
            report = gradcheck.check_tf_gradients(tensor, [x, w, b, h], feed_dict=feed)
            print(*(finding.verdict.name for finding in report.findings))
        print(gradcheck.check_gradients(lambda t: tf.sin(t) @ w, np.ones((1, 3), np.float32)).verdict.name)
        print(gradcheck.compute_gradient(tf.square, [np.array([1.5])])[1][0].tolist())
"""


@pytest.mark.parametrize("switch", ["disable_v2_behavior", "disable_eager_execution"])
@pytest.mark.slow
def test_it_works_without_the_behaviour_of_tensorflow_2(switch):
    code = textwrap.dedent(WITHOUT_V2.format(switch=switch))
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    *lines, jacobian = run.stdout.splitlines()
    assert lines == ["MATCH MATCH MATCH MATCH", "MISMATCH MISMATCH MISMATCH MISMATCH", "MATCH"]
    assert float(re.sub(r"[\[\]]", "", jacobian)) == pytest.approx(3.0, abs=1e-9)


# --------------------------------------------------------------------------------------------------------- misuse


def other_graph():
    with tf.Graph().as_default():
        return v1.placeholder(tf.float32, [2], name="elsewhere")


MISUSE = {
    "x of another graph": (
        lambda x, y: check_tf_gradients(y, other_graph()),
        ValueError,
        r"^xs\[0\] \('elsewhere'\) must belong to the graph of ys\[0\], found another graph; .*$",
    ),
    "y of another graph": (
        lambda x, y: check_tf_gradients([y, other_graph()], x),
        ValueError,
        r"^ys\[1\] \('elsewhere'\) must belong to the graph of ys\[0\], found another graph; .*$",
    ),
    "variable of another graph": (
        lambda x, y: check_tf_gradients(y, foreign_variable()),
        ValueError,
        r"^xs\[0\] \('foreign'\) must belong to the graph of ys\[0\], found another graph$",
    ),
    "eager variable": (
        lambda x, y: check_tf_gradients(y, EAGER_VARIABLE),
        TypeError,
        r"^xs\[0\] \('eager'\) is an eager variable, and ys are tensors of a graph that cannot read it$",
    ),
    "eager y": (
        lambda x, y: check_tf_gradients(EAGER, x),
        TypeError,
        r"^ys\[0\] must be a tensor of a graph, found an eager tensor, .*; call check_gradients\(fn, inputs\) .*$",
    ),
    "eager x": (
        lambda x, y: check_tf_gradients(y, [x, EAGER]),
        TypeError,
        r"^xs\[1\] must be a tensor of a graph, found an eager tensor, .*; call check_gradients\(fn, inputs\) .*$",
    ),
    "number as x": (
        lambda x, y: check_tf_gradients(y, 3.0),
        TypeError,
        r"^xs\[0\] must be a tensor or a variable of a graph, found float: 3\.0$",
    ),
    "partitioned variable": (
        lambda x, y: check_tf_gradients(y, partitioned_variable()),
        TypeError,
        r"^xs\[0\] must be a tensor or a variable of a graph, found PartitionedVariable; pass its parts: list\(.*\)$",
    ),
    "no xs": (
        lambda x, y: check_tf_gradients(y, []),
        ValueError,
        r"^xs must hold at least one tensor, found an empty list$",
    ),
    "no ys": (
        lambda x, y: check_tf_gradients((), x),
        ValueError,
        r"^ys must hold at least one tensor, found an empty tuple$",
    ),
    "sparse x": (
        lambda x, y: check_tf_gradients(y, v1.sparse_placeholder(tf.float32)),
        TypeError,
        r"^xs\[0\] must be a dense tensor, found a SparseTensor; pass its values: x\.values$",
    ),
    "integer x": (
        lambda x, y: check_tf_gradients(y, tf.constant(1, name="whole")),
        TypeError,
        r"^xs\[0\] \('whole'\) must have a floating or complex dtype to be differentiated, found int32$",
    ),
    "integer y": (
        lambda x, y: check_tf_gradients(tf.constant(1, name="whole"), x),
        TypeError,
        r"^ys\[0\] \('whole'\) must have a floating or complex dtype to be differentiated, found int32$",
    ),
    "too few cotangents": (
        lambda x, y: check_tf_gradients([y, y], x, grad_ys=[None]),
        ValueError,
        r"^grad_ys must be a list with one entry \(or None\) per y, 2 of them; found 1 in a list$",
    ),
    "cotangents that are no list": (
        lambda x, y: check_tf_gradients([y, y], x, grad_ys=np.ones(2)),
        ValueError,
        r"^grad_ys must be a list with one entry \(or None\) per y, 2 of them; found one ndarray$",
    ),
    "cotangent of a wrong shape": (
        lambda x, y: check_tf_gradients(y, x, grad_ys=[np.ones(3)]),
        ValueError,
        r"^grad_ys for ys\[0\] must have the shape of that output, \(2,\); found shape \(3,\)$",
    ),
    "tensor as a cotangent of a wrong shape": (
        lambda x, y: check_tf_gradients(y, x, grad_ys=[tf.ones([3])]),
        ValueError,
        r"^grad_ys for ys\[0\] must have the shape of that output, \(2,\); found shape \(3,\)$",
    ),
    "cotangent of a wrong dtype": (
        lambda x, y: check_tf_gradients(y, x, grad_ys=[tf.ones([2], tf.float64)]),
        ValueError,
        r"^grad_ys for ys\[0\] must have the dtype of that output, float32; found float64; write tf\.cast\(.*\)$",
    ),
    "cotangent of strings": (
        lambda x, y: check_tf_gradients(y, x, grad_ys=[np.array(["a", "b"])]),
        ValueError,
        r"^grad_ys for ys\[0\] must be numbers of dtype float32, found dtype <U1$",
    ),
    "unknown unconnected_gradients": (
        lambda x, y: check_tf_gradients(y, x, unconnected_gradients="nil"),
        ValueError,
        r"^unconnected_gradients must be \"none\" or \"zero\", got 'nil'$",
    ),
    "placeholder not fed": (
        lambda x, y: check_tf_gradients(y, x),
        ValueError,
        r"^the placeholder 'x' has no value: call check_tf_gradients\(ys, xs, feed_dict=\{'x:0': value\}\)$",
    ),
    "feed of a wrong shape": (
        lambda x, y: check_tf_gradients(y, x, feed_dict={x: [1.0]}),
        ValueError,
        r"^feed_dict must give 'x' a value of shape \(2,\), found shape \(1,\)$",
    ),
    "feed that is a tensor": (
        lambda x, y: check_tf_gradients(y, x, feed_dict={x: EAGER}),
        TypeError,
        r"^feed_dict must give 'x' an array, found a tensor; write value\.numpy\(\) or session\.run\(value\)$",
    ),
    "feed of another graph": (
        lambda x, y: check_tf_gradients(y, x, feed_dict={other_graph(): [1.0, 2.0]}),
        ValueError,
        r"^feed_dict must name tensors of the graph of ys, found a \w+ that is none$",
    ),
    "feed by an unknown name": (
        lambda x, y: check_tf_gradients(y, x, feed_dict={"nothing:0": 1.0}),
        ValueError,
        r"^feed_dict must name tensors of the graph of ys, found 'nothing:0' that is none$",
    ),
    "fractions for integers": (
        lambda x, y: check_tf_gradients(y, x, feed_dict={v1.placeholder(tf.int32, name="n"): 0.5}),
        TypeError,
        r"^feed_dict must give 'n' values of dtype int32, found dtype float64$",
    ),
    "feed_dict that is no dict": (
        lambda x, y: check_tf_gradients(y, x, feed_dict=[1.0]),
        TypeError,
        r"^feed_dict must be a dict from tensors to values, found list$",
    ),
    "no session": (
        lambda x, y: check_tf_gradients(y, x, session="here"),
        TypeError,
        r"^session must be a tf\.compat\.v1\.Session, found str$",
    ),
    "session of another graph": (
        lambda x, y: check_tf_gradients(y, x, session=v1.Session(graph=other_graph().graph)),
        ValueError,
        r"^session must be one of the graph of ys, found a session of another graph; .*$",
    ),
    "closed session": (
        lambda x, y: check_tf_gradients(y, x, session=closed_session()),
        ValueError,
        r"^session must be open, found a closed one; .*$",
    ),
    "unknown mode": (
        lambda x, y: check_tf_gradients(y, x, mode="fast"),
        ValueError,
        r"^mode must be one of .*; got mode='fast'$",
    ),
}
EAGER = tf.constant([1.0, 2.0])
EAGER_VARIABLE = tf.Variable([1.0], name="eager")


def foreign_variable():
    with tf.Graph().as_default():
        return v1.get_variable("foreign", [2], use_resource=False)


def partitioned_variable():
    return v1.get_variable("parts", [4, 3], partitioner=v1.fixed_size_partitioner(2))


def closed_session():
    session = v1.Session(graph=v1.get_default_graph())
    session.close()
    return session


@pytest.mark.parametrize("name", MISUSE)
def test_misuse_is_refused_with_what_to_write_instead(graph, name):
    call, kind, message = MISUSE[name]
    x = v1.placeholder(tf.float32, [2], name="x")
    y = tf.sin(x)
    with pytest.raises(kind, match=message):
        call(x, y)


@pytest.mark.parametrize("use_resource", [False, True], ids=["reference", "resource"])
def test_a_variable_without_a_session_is_refused(graph, use_resource):
    w = v1.get_variable("w", initializer=[1.0, 2.0], use_resource=use_resource)
    y = tf.sin(w)
    message = r"^session must be given: ys depend on 'w' \(\w+\), which has its value in a session, and there is no .*$"
    with pytest.raises(ValueError, match=message):
        check_tf_gradients(y, w)
    message = r"^session must be given: .*, and the default session is one of another graph; .*$"
    with v1.Session(graph=other_graph().graph).as_default(), pytest.raises(ValueError, match=message):
        check_tf_gradients(y, w)


@pytest.mark.parametrize("use_resource", [True, False])
def test_variables_that_were_not_initialized_are_named(session, use_resource):
    w, v, u = (v1.get_variable(name, initializer=[1.0, 2.0], use_resource=use_resource) for name in "wvu")
    session.run(u.initializer)
    advice = r"e\.g\. session\.run\(tf\.compat\.v1\.global_variables_initializer\(\)\)$"
    with pytest.raises(
        GraphUnavailable, match=r"^'w' has no value in the session: run its initializer first, " + advice
    ):
        check_tf_gradients(tf.sin(w) * u, w)
    both = r"^'[vw]', '[vw]' have no value in the session: run their initializers first, "
    with pytest.raises(GraphUnavailable, match=both + advice):
        check_tf_gradients(w * u * v, [u, w])


def test_an_x_made_inside_a_loop_is_refused(control_flow_v1, graph):
    inner = []

    def body(i, a):
        inner.append(tf.sin(a))
        return i + 1, inner[-1]

    x = tf.constant([1.0])
    y = tf.while_loop(lambda i, a: i < 2, body, [0, x])[1]
    with pytest.raises(ValueError, match=r"^xs\[0\] \('while/Sin'\) is made inside a loop or a condition, .*$"):
        check_tf_gradients(y, inner[0])


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            tf.random.shuffle,
            r"^RandomShuffle 'while/RandomShuffle' is inside a loop .*, where it cannot be held .*$",
        ),
        (
            lambda a: tf.random.gamma([], a),
            r"^RandomGamma '.*' is inside a loop .*, where it cannot be held .*$",
        ),
        (
            lambda a: tf.raw_ops.ParameterizedTruncatedNormal(
                shape=[2], means=a[:1], stdevs=[1.0], minvals=[-1.0], maxvals=[1.0]
            ),
            r"^ParameterizedTruncatedNormal 'while/ParameterizedTruncatedNormal' has a state, .*$",
        ),
    ],
    ids=["shuffle", "gamma", "a state"],
)
def test_draws_of_a_loop_of_control_flow_v1_that_cannot_be_held_are_refused(control_flow_v1, session, draw, message):
    x = tf.constant([1.0, 2.0])
    y = tf.while_loop(lambda i, a: i < 2, lambda i, a: (i + 1, a * draw(a)), [0, x])[1]
    with pytest.raises(GraphUnavailable, match=message):
        check_tf_gradients(y, x)


# --------------------------------------------------------------------------------------- ys that are gradients


def of_uses(x, h):
    return tf.gradients(tf.reduce_sum(tf.sin(x) * x, name="loss"), x)


def of_several(x, h):
    return tf.gradients([tf.tanh(x * h), tf.cos(x)], [x, h], grad_ys=[h, x])


def of_a_variable(x, h):
    w = v1.get_variable("w", [3], initializer=v1.ones_initializer())
    return tf.identity(tf.gradients(tf.reduce_sum(tf.exp(w * x)), w)[0])


def of_a_loop(x, h):
    return tf.gradients(tf.while_loop(lambda i, y: i < 3, lambda i, y: [i + 1, tf.sin(y) * y], [0, x])[1], x)


def of_a_penalty(x, h):
    return tf.gradients(tf.reduce_sum(of_uses(x, h)[0] ** 2), x)


def beside_what_is_not_fed(x, h):
    other = v1.placeholder(tf.float32, [3], name="other")
    return tf.gradients(tf.reduce_sum(tf.concat([x**3, other], 0)), x)


def penalized(x, h):
    return tf.reduce_sum(tf.sin(x)) + tf.reduce_sum(of_uses(x, h)[0] ** 2)


def scaled(x, h):
    return 2.0 * of_uses(x, h)[0]


def stepped(x, h):
    return x - 0.1 * of_uses(x, h)[0]


def with_a_loss(x, h):
    return [tf.reduce_sum(x**2), of_uses(x, h)[0]]


def of_another(x, h):
    return tf.gradients(tf.sin(x * h), h)


def of_what_is_between(x, h):
    product = x * h
    return tf.gradients(tf.sin(product), product)


@pytest.mark.parametrize(
    ("build", "last"),
    [
        (of_uses, "loss"), (of_several, "Tanh, Cos"), (of_a_variable, "Sum"), (of_a_loop, "while:3"),
        (of_a_penalty, "Sum"), (beside_what_is_not_fed, "Sum"), (penalized, None), (scaled, None), (stepped, None),
        (with_a_loss, None), (of_another, None), (of_what_is_between, None),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_that_ys_are_gradients_already_is_said_where_they_are(graph, session, build, last):
    x, h = (v1.placeholder(tf.float32, [3], name=name) for name in "xh")
    ys = build(x, h)
    xs = {of_several: [x, h], of_a_variable: v1.global_variables()}.get(build, [x])
    initialize(session)
    report = check_tf_gradients(
        ys, xs, session=session, feed_dict={x: [0.3, 0.7, 1.1], h: [0.9, 0.5, 0.2]}, mode="directional", directions=1
    )
    assert report.ok, report
    found = [note for note in report.notes if "tf.gradients gave for xs" in note]
    names = ", ".join(each.op.name for each in xs)
    assert bool(found) == (last is not None)
    if found:
        assert found[0].endswith(
            "what was checked is the derivative of that, a second derivative; for the gradient itself write "
            f"check_tf_gradients([{last}], [{names}])"
        )
