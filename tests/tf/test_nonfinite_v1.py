"""In graphs of TensorFlow 1, with loops and conditions of control flow v1, the op inside is named as well."""

import numpy as np
import pytest
import tensorflow as tf

import gradcheck
from gradcheck import Verdict

v1 = tf.compat.v1


@pytest.fixture
def control_flow_v1():
    v1.disable_control_flow_v2()
    yield
    v1.enable_control_flow_v2()


def log_in_while(x):
    return tf.while_loop(lambda i, a: i < 5, lambda i, a: (i + 1, tf.math.log(a - 0.5) + 1.0), [0, x])[1]  # here


def log_in_cond(x):
    return tf.cond(x[0] > 0, lambda: tf.math.log(x - x), lambda: tf.sin(x))  # here


def root_in_cond_in_while(x):
    def body(i, a):
        return i + 1, tf.cond(tf.equal(i, 1), lambda: tf.sqrt(-a), lambda: a * x)  # here

    return tf.while_loop(lambda i, a: i < 3, body, [0, x])[1]


def log_in_while_in_while(x):
    def outer(i, a):
        return i + 1, tf.while_loop(lambda j, b: j < 2, lambda j, b: (j + 1, tf.math.log(b)), [0, a])[1]  # here

    return tf.while_loop(lambda i, a: i < 3, outer, [0, x])[1]


def log_in_map(x):
    return tf.map_fn(lambda t: tf.math.log(t), x)  # here  # noqa: PLW0108


def root_backward(x):
    return tf.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, tf.sqrt(a)), [0, x])[1]  # here


def branch_not_taken(x):
    return tf.cond(
        x[0] > 0, lambda: tf.while_loop(lambda a: a < 2.0, lambda a: a * 2.0, [x[0]])[0], lambda: x[0] - x[0]
    )


@pytest.mark.parametrize(
    ("build", "feed", "op"),
    [
        (log_in_while, [1.0], "Log"),
        (log_in_cond, [1.0], "Log"),
        (root_in_cond_in_while, [1.0], "Sqrt"),
        (log_in_while_in_while, [5.0], "Log"),
        (log_in_map, [1.0, 0.0], "Log"),
        (root_backward, [0.0], "SqrtGrad"),
        (lambda x: tf.math.log(branch_not_taken(x)), [-1.0], "Log"),  # here
    ],
    ids=["while", "cond", "cond in while", "while in while", "map", "backward", "a loop in a branch not taken"],
)
def test_the_op_inside_is_named(control_flow_v1, build, feed, op):
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, np.shape(feed))
        report = gradcheck.check_tf_gradients(build(x), x, session=session, feed_dict={x: feed})
    blame = report.worst.blame
    assert report.verdict is Verdict.NONFINITE
    assert blame.op_type == op, str(report)
    assert blame.source.endswith("# here  # noqa: PLW0108" if build is log_in_map else "# here"), str(report)
    assert report.worst.hint is not None


def test_the_iteration_is_told(control_flow_v1):
    with tf.Graph().as_default(), v1.Session():
        report = gradcheck.find_nonfinite(log_in_while, [tf.constant([1.0])])
    assert (report.op_type, report.inside) == ("Log", ("while (iteration 1)",))
