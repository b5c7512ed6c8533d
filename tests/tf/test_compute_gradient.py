"""compute_gradient against tf.test.compute_gradient where that is right, and against the truth where it is not."""

import logging

import numpy as np
import pytest
import tensorflow as tf

from gradcheck import compute_gradient, max_error

v1 = tf.compat.v1
RNG = np.random.default_rng(0)
DELTA = 1.0 / 1024  # of tf.test.compute_gradient: its truncation error is DELTA**2 / 6 times a third derivative
EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


@pytest.fixture(autouse=True)
def _without_tensorflows_warnings(caplog):
    caplog.set_level(logging.ERROR, "tensorflow")


def complex_matrix(*shape):
    return RNG.uniform(0.5, 1.5, shape) + 1j * RNG.uniform(0.5, 1.5, shape)


Z, W = complex_matrix(2, 3), complex_matrix(3, 2)
COMPLEX = {
    "exp": (tf.exp, [Z]),
    "conj": (tf.math.conj, [Z]),
    "real": (tf.math.real, [Z]),
    "imag": (tf.math.imag, [Z]),
    "abs": (tf.abs, [Z]),
    "square": (tf.square, [Z]),
    "matmul": (tf.matmul, [Z, W]),
    "product with a conjugate": (lambda a, b: a * tf.math.conj(b), [Z, Z + 0.25]),
    "complex": (lambda a: tf.complex(a, 2.0 * a), [Z.real]),
}


@pytest.mark.parametrize("name", COMPLEX)
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128], ids=["complex64", "complex128"])
def test_complex_functions_have_the_layout_and_signs_of_tensorflow(name, dtype):
    f, arguments = COMPLEX[name]
    arguments = [a.astype(dtype if np.iscomplexobj(a) else dtype(0).real.dtype) for a in arguments]
    ours, theirs = compute_gradient(f, arguments), tf.test.compute_gradient(f, arguments)
    assert_same_form(ours, theirs)
    for mine, other in zip(ours[0], theirs[0], strict=True):
        np.testing.assert_array_equal(mine, other)
    # Values below 30: truncation of DELTA**2 / 6 of them, and rounding of 30 eps over 2 DELTA, in their differences.
    allowed = 30 * (DELTA**2 / 6 + EPS[str(np.dtype(dtype(0).real.dtype))] / DELTA)
    assert max_error(ours[1], theirs[1]) < allowed


def assert_same_form(ours, theirs):
    assert type(ours) is type(theirs) is tuple
    for mine, other in zip(ours, theirs, strict=True):
        assert type(mine) is type(other) is tuple
        assert [a.shape for a in mine] == [a.shape for a in other]
        assert [a.dtype for a in mine] == [a.dtype for a in other]


REAL = {
    "a list": (tf.sin, [tf.constant([1.0, 2.0])]),
    "a tuple": (tf.sin, (tf.constant([1.0, 2.0]),)),
    "a Python number": (tf.sin, [1.0]),
    "a NumPy array": (tf.sin, [np.array([1.0, 2.0])]),
    "a variable": (tf.sin, [tf.Variable([1.0, 2.0])]),
    "a tf.function": (tf.function(tf.sin), [tf.constant([1.0, 2.0])]),
    "several arguments": (lambda a, b: a * b, [tf.constant([1.0, 2.0]), tf.constant([[3.0], [4.0]])]),
    "an argument that is not used": (lambda a, b: tf.sin(a), [tf.constant([1.0]), tf.constant([3.0, 1.0])]),
    "a constant": (lambda a: tf.constant([1.0, 2.0, 3.0]), [tf.constant([1.0, 2.0])]),
    "an empty output": (lambda a: a[:0], [tf.constant([1.0, 2.0])]),
    "an empty argument": (lambda a: a * 2.0, [tf.zeros([0, 3])]),
    "an empty argument of several": (lambda a, b: tf.reduce_sum(a) + b, [tf.zeros([0, 3]), tf.constant([1.0])]),
    "a wider output": (lambda a: tf.cast(a, tf.float64), [tf.constant([1.0, 2.0])]),
    "a gather": (lambda a: tf.gather(a, [1, 0, 1]), [tf.constant([[1.0, 2.0], [3.0, 4.0]])]),
}


@pytest.mark.parametrize("name", REAL)
def test_it_returns_what_tensorflow_returns_for(name):
    f, arguments = REAL[name]
    ours, theirs = compute_gradient(f, arguments), tf.test.compute_gradient(f, arguments)
    assert_same_form(ours, theirs)
    for mine, other in zip(ours[0], theirs[0], strict=True):
        np.testing.assert_array_equal(mine, other)
    # Values below 4; see above.
    assert max_error(ours[1], theirs[1]) < 4 * (DELTA**2 / 6 + EPS["float32"] / DELTA)


WRONG_IN_TENSORFLOW = {
    "float32, squared at 1e5": (tf.square, tf.constant([1e5]), lambda x: 2 * x),
    "bfloat16 at 1": (tf.sin, tf.constant([1.0], tf.bfloat16), np.cos),
    "float16": (tf.sin, tf.constant([0.5, 1.0], tf.float16), np.cos),
    "float32, an input of 1e-8": (tf.square, tf.constant([1e-8]), lambda x: 2 * x),
}


@pytest.mark.parametrize("name", WRONG_IN_TENSORFLOW)
def test_the_numeric_side_is_right_where_a_fixed_step_is_not(name):
    f, x, derivative = WRONG_IN_TENSORFLOW[name]
    analytic, numeric = compute_gradient(f, [x])
    point = np.asarray(x).astype(np.float64)
    expected, eps = np.diag(derivative(point)), EPS[x.dtype.name]
    # Half a unit of rounding, on returning to the dtype of x, for the numeric side; some more for TensorFlow's.
    np.testing.assert_allclose(numeric[0].astype(np.float64), expected, rtol=eps)
    np.testing.assert_allclose(analytic[0].astype(np.float64), expected, rtol=4 * eps)
    assert numeric[0].dtype == analytic[0].dtype == x.dtype.as_numpy_dtype


@pytest.mark.parametrize("name", WRONG_IN_TENSORFLOW)
def test_the_test_above_can_fail(name):
    f, x, derivative = WRONG_IN_TENSORFLOW[name]
    numeric = tf.test.compute_gradient(f, [x])[1][0].astype(np.float64)
    expected = np.diag(derivative(np.asarray(x).astype(np.float64)))
    assert not np.allclose(numeric, expected, rtol=EPS[x.dtype.name], atol=0.0)


def test_rows_of_a_complex_array_can_be_gathered():
    """tf.test.compute_gradient cannot add up the complex slices of such a gradient."""
    analytic, numeric = compute_gradient(lambda z: tf.gather(z, [1, 0, 1]), [Z])
    rows = np.kron(np.eye(2)[[1, 0, 1]], np.eye(6))
    np.testing.assert_array_equal(analytic[0], rows)
    assert max_error(numeric, [rows]) < 100 * EPS["float64"]


def test_the_same_tensor_given_twice_is_two_arguments():
    x = tf.constant([1.0, 2.0])
    analytic, numeric = compute_gradient(lambda a, b: a * 2.0, [x, x])
    for found in (analytic, numeric):
        np.testing.assert_allclose(found[0], 2.0 * np.eye(2), rtol=EPS["float32"])
        np.testing.assert_array_equal(found[1], np.zeros((2, 2)))


@tf.custom_gradient
def one_percent_off(x):
    return x * x, lambda dy: 2.02 * x * dy


@tf.custom_gradient
def transposed(x):
    return 2.0 * tf.transpose(x), lambda dy: 2.0 * dy


@pytest.mark.parametrize(
    ("f", "gap"), [(one_percent_off, 0.06), (transposed, 2.0)], ids=["one percent off", "not transposed"]
)
def test_a_wrong_gradient_shows_in_the_difference(f, gap):
    analytic, numeric = compute_gradient(f, [tf.constant([[1.0, 2.0], [0.5, 3.0]])])
    assert max_error(analytic, numeric) == pytest.approx(
        gap, rel=1e-5
    )  # float32: gap is a difference of numbers near 6


def test_a_right_gradient_shows_no_difference():
    assert max_error(*compute_gradient(tf.square, [tf.constant([[1.0, 2.0], [0.5, 3.0]])])) < 1e-6


def test_the_middle_of_a_kink_is_between_its_sides():
    analytic, numeric = compute_gradient(tf.nn.relu, [tf.constant([0.0, 1.0])])
    assert 0.0 <= numeric[0][0, 0] <= 1.0
    assert analytic[0][0, 0] == 0.0


def test_nan_stays_nan():
    analytic, numeric = compute_gradient(tf.sin, [tf.constant([np.nan, 1.0])])
    assert np.isnan(analytic[0][0, 0])
    assert np.isnan(numeric[0][0, 0])
    assert np.isnan(max_error(analytic, numeric))


def test_what_stop_gradient_gives_is_held_still():
    analytic, numeric = compute_gradient(lambda x: x * tf.stop_gradient(x), [tf.constant([2.0, 3.0])])
    assert max_error(analytic, numeric) < 1e-6
    np.testing.assert_array_equal(analytic[0], np.diag([2.0, 3.0]))


def test_delta_changes_nothing():
    once, again = (compute_gradient(tf.sin, [tf.constant([1.0])], delta=d) for d in (None, 0.5))
    assert once == again


@pytest.mark.parametrize("use_resource", [False, True], ids=["reference", "resource"])
def test_it_works_in_a_graph_with_a_session_and_adds_no_op(use_resource):
    with tf.Graph().as_default() as graph, v1.Session() as session:
        w = v1.get_variable("w", initializer=[2.0, 3.0], use_resource=use_resource)
        arguments = [w, w * 1.0, np.array([2.0, 3.0], np.float32)]
        session.run(v1.global_variables_initializer())
        before = graph.as_graph_def()
        for x in arguments:
            # As in eager mode: an argument is a value, and the variable that f reads besides stays where it is.
            analytic, numeric = compute_gradient(lambda t: tf.square(t) * w, [x])
            np.testing.assert_allclose(numeric[0], np.diag([8.0, 18.0]), rtol=EPS["float32"])
            np.testing.assert_allclose(analytic[0], np.diag([8.0, 18.0]), rtol=4 * EPS["float32"])
        assert graph.as_graph_def() == before


def test_it_needs_no_session_where_nothing_is_read():
    with tf.Graph().as_default():
        analytic, _ = compute_gradient(lambda t: tf.square(t) * tf.constant(2.0), [np.array([1.0], np.float32)])
    np.testing.assert_array_equal(analytic[0], [[4.0]])


X = tf.constant([1.0, 2.0])
MISUSE = {
    "x that is no list": (
        lambda: compute_gradient(tf.sin, X),
        ValueError,
        r"^x must be a list or tuple of the arguments of f, got EagerTensor; write \[x\]$",
    ),
    "no arguments": (
        lambda: compute_gradient(tf.sin, []),
        ValueError,
        r"^x must hold at least one argument of f, got an empty list$",
    ),
    "integers": (
        lambda: compute_gradient(tf.square, [tf.constant([1, 2])]),
        TypeError,
        r"^x\[0\] must have a floating or complex dtype to be differentiated, found int32; leave it out of x .*$",
    ),
    "integers beside floats": (
        lambda: compute_gradient(tf.gather, [X, tf.constant([0])]),
        TypeError,
        r"^x\[1\] must have a floating or complex dtype to be differentiated, found int32; leave it out of x .*$",
    ),
    "strings": (
        lambda: compute_gradient(tf.sin, ["a"]),
        TypeError,
        r"^x\[0\] must have a floating or complex dtype to be differentiated, found string; .*$",
    ),
    "None": (
        lambda: compute_gradient(tf.sin, [None]),
        TypeError,
        r"^x\[0\] must be convertible to a dense tensor, got NoneType$",
    ),
    "an integer output": (
        lambda: compute_gradient(lambda x: tf.cast(x, tf.int32), [X]),
        TypeError,
        r"^f must return a tensor of a floating or complex dtype to be differentiated, found int32$",
    ),
    "two outputs": (
        lambda: compute_gradient(lambda x: [x, x], [X]),
        TypeError,
        r"^f must return one tensor, found list; write lambda \*x: f\(\*x\)\[0\]$",
    ),
    "f that cannot be called": (lambda: compute_gradient(5, [X]), TypeError, r"^f must be callable, got int$"),
    "delta that is no number": (
        lambda: compute_gradient(tf.sin, [X], "small"),
        TypeError,
        r"^delta must be a positive number or None; got delta='small'$",
    ),
    "delta of zero": (
        lambda: compute_gradient(tf.sin, [X], delta=0.0),
        ValueError,
        r"^delta must be a positive finite number or None; got delta=0\.0$",
    ),
    "arrays of other shapes": (
        lambda: max_error([np.ones((2, 2))], [np.ones((2, 3))]),
        ValueError,
        r"^max_error needs arrays of the same shape, found \(2, 2\) and \(2, 3\) at \[0\]$",
    ),
    "more arrays on one side": (
        lambda: max_error([np.ones(2)], []),
        ValueError,
        r"^max_error needs as many arrays on either side, found 1 and 0$",
    ),
}


@pytest.mark.parametrize("name", MISUSE)
def test_misuse_is_refused_with_what_to_write_instead(name):
    call, kind, message = MISUSE[name]
    with pytest.raises(kind, match=message):
        call()


@tf.custom_gradient
def wrong_shape(x):
    return tf.sin(x), lambda dy: tf.zeros([3])


def test_a_gradient_of_a_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"^TensorFlow cannot use this gradient: .*$"):
        compute_gradient(wrong_shape, [X])


def test_max_error_is_the_largest_over_all():
    assert max_error([np.zeros((1, 2)), np.zeros((1, 1))], [np.array([[1.0, -2.0]]), np.array([[0.5]])]) == 2.0


def test_max_error_of_nothing_is_zero():
    assert max_error([], []) == 0.0
    assert max_error([np.zeros((0, 2))], [np.zeros((0, 2))]) == 0.0


def test_max_error_keeps_nan_wherever_it_is():
    pair = [np.array([[np.nan]]), np.array([[1.0]])], [np.array([[1.0]]), np.array([[5.0]])]
    assert np.isnan(max_error(*pair))
    assert np.isnan(max_error(pair[0][::-1], pair[1][::-1]))
