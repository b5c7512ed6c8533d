"""Misuse is refused with a message that says what was asked, what was found, and what to write instead."""

import inspect
import re

import numpy as np
import pytest
import tensorflow as tf

import gradcheck
from gradcheck import Gradients, Verdict
from gradcheck.pytest_plugin._checker import Checker

X = np.array([1.0, 2.0])
CHECKS = pytest.mark.parametrize(
    "check", [gradcheck.check_gradients, gradcheck.assert_gradients], ids=["check", "assert"]
)


def square(x):
    return x * x


def never(*args, **kwargs):
    raise AssertionError("called before the misuse was seen")


def pair(x):
    return x * x, x[:1]


def mapping(x):
    return {"p": x * x, "q": 3 * x[:1]}


def integers(x):
    return tf.cast(x, tf.int32)


def nothing(x):
    del x


def exactly(message):
    return f"^{re.escape(message)}$"


@CHECKS
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mode": "fast"}, ValueError,
         "mode must be one of 'auto', 'directional', 'elementwise', 'jacobian'; got mode='fast'"),
        ({"mode": None}, ValueError,
         "mode must be one of 'auto', 'directional', 'elementwise', 'jacobian'; got mode=None"),
        ({"rtol": -0.5}, ValueError, "rtol must be a positive finite number, e.g. rtol=1e-6; got rtol=-0.5"),
        ({"rtol": 0.0}, ValueError, "rtol must be a positive finite number, e.g. rtol=1e-6; got rtol=0.0"),
        ({"rtol": float("nan")}, ValueError, "rtol must be a positive finite number, e.g. rtol=1e-6; got rtol=nan"),
        ({"rtol": float("inf")}, ValueError, "rtol must be a positive finite number, e.g. rtol=1e-6; got rtol=inf"),
        ({"rtol": "1e-3"}, TypeError, "rtol must be a positive number or None; got rtol='1e-3'"),
        ({"rtol": True}, TypeError, "rtol must be a positive number or None; got rtol=True"),
        ({"directions": 0}, ValueError, "directions must be at least 1; got directions=0"),
        ({"directions": 1.5}, TypeError, "directions must be a whole number; got directions=1.5"),
        ({"directions": True}, TypeError, "directions must be a whole number; got directions=True"),
        ({"order": 0}, ValueError, "order must be at least 1; got order=0"),
        ({"order": 3}, ValueError, "order must be 1 or 2; got order=3"),
        ({"order": "2"}, TypeError, "order must be a whole number; got order='2'"),
        ({"seed": -1}, ValueError, "seed must be at least 0; got seed=-1"),
        ({"seed": None}, TypeError, "seed must be a whole number; got seed=None"),
        ({"forward": "yes"}, TypeError, "forward must be True or False; got forward='yes'"),
        ({"name": 3}, TypeError, "name must be a string or None; got name=3"),
    ],
)  # fmt: skip
def test_an_option_out_of_range_is_refused_before_the_function_is_called(check, options, error, message):
    with pytest.raises(error, match=exactly(message)):
        check(never, [X], **options)


@pytest.mark.parametrize("options", [
    {"mode": "jacobian"}, {"rtol": 1e-3}, {"rtol": np.float32(1e-3)}, {"directions": 1}, {"directions": np.int64(7)},
    {"order": 2}, {"seed": 123456789}, {"forward": True}, {"name": "a name"},
])  # fmt: skip
def test_an_option_in_range_is_taken(options):
    assert gradcheck.check_gradients(square, [X], **options).ok


@CHECKS
@pytest.mark.parametrize(("fn", "found"), [(3, "int"), (None, "NoneType"), ("tf.sin", "str")])
def test_what_cannot_be_called_is_refused(check, fn, found):
    message = f"fn must be callable, got {found}; for tensors of a graph call check_tf_gradients(ys, xs)"
    with pytest.raises(TypeError, match=exactly(message)):
        check(fn, [X])


@CHECKS
@pytest.mark.parametrize(("inputs", "found"), [(3, "inputs (int)"), ([np.array([1, 2])], "inputs[0] (int64)")])
def test_a_function_of_integers_alone_is_refused_by_its_inputs(check, inputs, found):
    message = (
        "nothing to differentiate with respect to: no input is floating or complex, and no trainable variable is read; "
        f"found {found}; pass a floating tensor, e.g. tf.constant(1.0)"
    )
    with pytest.raises(ValueError, match=exactly(message)):
        check(square, inputs)


@CHECKS
def test_inputs_without_a_derivative_are_refused(check):
    def fn(i, flag):
        return tf.where(flag, tf.cast(i, tf.float64), 0)

    message = (
        "nothing to differentiate with respect to: no input is floating or complex, and no trainable variable is read; "
        "found inputs[0] (int64), inputs[1] (bool); pass a floating tensor, e.g. tf.constant(1.0)"
    )
    with pytest.raises(ValueError, match=exactly(message)):
        check(fn, [np.array([1, 2]), np.array([True, False])])


@CHECKS
@pytest.mark.parametrize(
    ("fn", "found"),
    [
        (integers, "output: int32"),
        (nothing, "output: NoneType"),
        (lambda x: [], "no output"),
        (lambda x: "y", "output: str"),
    ],
    ids=["integers", "None", "an empty list", "a string"],
)
def test_outputs_that_cannot_be_differentiated_are_refused(check, fn, found):
    message = (
        f"{fn.__name__} returned nothing that can be differentiated: found {found}; "
        "return at least one tensor of a floating or complex dtype"
    )
    with pytest.raises(ValueError, match=exactly(message)):
        check(fn, [X])


@pytest.mark.parametrize(
    ("fn", "grad_ys", "message"),
    [
        (square, np.ones(3), "grad_ys for output must have the shape of that output, (2,); found shape (3,)"),
        (square, 1.0, "grad_ys for output must have the shape of that output, (2,); found shape ()"),
        (square, [np.ones(2)], "grad_ys for output must have the shape of that output, (2,); found shape (1, 2)"),
        (square, np.ones(2, np.complex128),
         "grad_ys for output must have the dtype of that output, float64; found complex128; "
         "write tf.cast(value, 'float64')"),
        (square, np.array([1.0, np.nan]), "grad_ys for output must be finite, found NaN or infinity"),
        (pair, [np.ones(2)],
         "grad_ys must have the structure of the outputs, outputs[0], outputs[1]; found list with outputs[0]; "
         "use None for an output without a cotangent"),
        (pair, np.ones(2),
         "grad_ys must have the structure of the outputs, outputs[0], outputs[1]; found ndarray with outputs; "
         "use None for an output without a cotangent"),
        (pair, [np.ones(2), np.ones(2)],
         "grad_ys for outputs[1] must have the shape of that output, (1,); found shape (2,)"),
    ],
)  # fmt: skip
def test_cotangents_that_do_not_fit_are_refused(fn, grad_ys, message):
    with pytest.raises(ValueError, match=exactly(message)):
        gradcheck.check_gradients(fn, [X], grad_ys=grad_ys)


@pytest.mark.parametrize("grad_ys", [np.ones(2), [1, 2], np.ones(2, np.float32), tf.ones(2, tf.float64)])
def test_cotangents_that_fit_are_taken(grad_ys):
    assert gradcheck.check_gradients(square, [X], grad_ys=grad_ys).ok


def test_cotangents_in_a_mapping_are_matched_by_key():
    assert gradcheck.check_gradients(mapping, [X], grad_ys={"q": np.ones(1), "p": np.ones(2)}).ok


def test_cotangents_under_unknown_keys_are_refused():
    with pytest.raises(ValueError, match=r"^grad_ys must have the structure of the outputs, .*\['q'\].*$"):
        gradcheck.check_gradients(mapping, [X], grad_ys={"p": np.ones(2), "r": np.ones(1)})


@pytest.mark.parametrize(
    ("wrt", "found"),
    [
        ("foo", "'foo'"),
        (1.5, "a float that is none of them"),
        (tf.constant(1.0), "an EagerTensor that is none of them"),
        (["inputs[0]", "inputs[1]"], "'inputs[1]'"),
        (1, 'the number 1; the input at a position is written wrt="inputs[1]"'),
        ([np.int64(0)], 'the number 0; the input at a position is written wrt="inputs[0]"'),
    ],
    ids=["a name", "a number", "a tensor", "one of two", "a position", "a position in a list"],
)
def test_wrt_that_names_nothing_is_refused(wrt, found):
    message = f"wrt must name inputs or variables of the function: inputs[0]; found {found}"
    with pytest.raises(ValueError, match=exactly(message)):
        gradcheck.check_gradients(square, [X], wrt=wrt)


@pytest.mark.parametrize("wrt", [[], ()])
def test_an_empty_wrt_is_refused(wrt):
    message = "wrt must name at least one input or variable, found an empty list; leave it out for all of them"
    with pytest.raises(ValueError, match=exactly(message)):
        gradcheck.check_gradients(square, [X], wrt=wrt)


def test_wrt_inputs_is_refused_where_no_input_has_a_derivative():
    v = tf.Variable([1.0, 2.0])
    message = 'wrt="inputs" needs a floating or complex input, found inputs[0] (int64)'
    with pytest.raises(ValueError, match=exactly(message)):
        gradcheck.check_gradients(lambda i: tf.gather(v, i), [np.array([1, 0])], wrt="inputs")


def test_wrt_takes_a_path_an_input_and_a_variable():
    v = tf.Variable([1.0, 2.0], dtype=tf.float64, name="v")
    for wrt, path in (("inputs[0]", "inputs[0]"), (X, "inputs[0]"), (v, "v"), ("v", "v")):
        report = gradcheck.check_gradients(lambda x: v * x, [X], wrt=wrt)
        assert [f.x for f in report.findings] == [path]


def product(a, b):
    return a * b


@pytest.mark.parametrize(
    ("inputs", "wrt", "paths"),
    [
        ({"a": X, "b": X + 1}, "a", ["inputs['a']"]),
        ({"a": X, "b": X + 1}, ["b", "inputs['a']", "b"], ["inputs['b']", "inputs['a']"]),
        ([{"w": X, "b": X + 1}, X], "inputs[0]", ["inputs[0]['w']", "inputs[0]['b']"]),
        ({"a": {"w": X, "b": X + 1}, "b": X}, "a", ["inputs['a']['w']", "inputs['a']['b']"]),
    ],
    ids=["a key", "keys and paths", "all of one input", "all under a key"],
)
def test_wrt_takes_keys_and_all_that_is_inside_of_an_input(inputs, wrt, paths):
    report = gradcheck.check_gradients(lambda a, b: sum(tf.nest.flatten([a, b])) ** 2, inputs, wrt=wrt)
    assert [f.x for f in report.findings] == paths


def test_wrt_that_names_an_input_and_a_variable_is_refused():
    v = tf.Variable([1.0, 2.0], dtype=tf.float64, name="a")
    message = "wrt='a' names an input and a variable; write wrt=\"inputs['a']\" for the input, or pass the variable"
    with pytest.raises(ValueError, match=exactly(message)):
        gradcheck.check_gradients(lambda a: a * v, {"a": X}, wrt="a")
    for wrt, path in (("inputs['a']", "inputs['a']"), (v, "a")):
        report = gradcheck.check_gradients(lambda a: a * v, {"a": X}, wrt=wrt)
        assert [f.x for f in report.findings] == [path]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (np.array([1.0, np.nan, np.inf]), "2 of 3"),
        (np.float32(np.nan), "1 of 1"),
        (tf.constant([-np.inf]), "1 of 1"),
        (np.array([complex(1.0, np.nan), 1.0]), "1 of 4"),
    ],
    ids=["NaN and infinity", "a scalar", "a tensor", "complex"],
)
def test_inputs_that_are_not_finite_are_refused(value, found):
    message = (
        f"inputs[0] must be finite where a gradient is checked; found NaN or infinity in {found} entries; "
        "pass a point at which the function has a derivative"
    )
    with pytest.raises(ValueError, match=exactly(message)):
        gradcheck.check_gradients(square, [value])


def test_a_variable_that_is_not_finite_is_refused():
    v = tf.Variable([1.0, np.nan], name="v")
    with pytest.raises(
        ValueError, match=r"^v must be finite where a gradient is checked; found NaN or infinity in 1 of 2 "
    ):
        gradcheck.check_gradients(lambda x: v * x, [tf.constant([1.0, 2.0])])


class MineError(Exception):
    pass


def raising(x):
    raise MineError(f"of shape {x.shape}")


@CHECKS
def test_an_error_of_the_function_comes_through_with_a_note_on_the_call(check):
    with pytest.raises(MineError, match=r"^of shape \(2,\)(\ngradcheck: .*)?$") as caught:
        check(raising, [X], name="mine")
    (note,) = caught.value.__notes__
    line = raising.__code__.co_firstlineno + 1
    said = "by mine when called at the given inputs, before any check: `raise MineError"
    assert re.match(rf"gradcheck: raised at \S*test_bad_input\.py:{line} {said}", note)


def reshaping(x):
    return tf.reshape(x, [7])


def test_an_error_of_tensorflow_comes_through_with_a_note_on_the_call():
    with pytest.raises(tf.errors.InvalidArgumentError, match="Input to reshape is a tensor with 2 values") as caught:
        gradcheck.check_gradients(reshaping, [X])
    assert any("by reshaping when called" in note for note in caught.value.__notes__)


def asserting(x):
    tf.debugging.assert_less(x, 0 * x, message="x must be negative")
    return x * x


def test_an_assertion_of_the_function_speaks():
    with pytest.raises(tf.errors.InvalidArgumentError, match="x must be negative"):
        gradcheck.check_gradients(asserting, [X])


def test_an_assertion_that_holds_at_the_point_only_does_not_speak():
    assert gradcheck.check_gradients(asserting, [np.array([-1e-6, -1.0])]).ok


@CHECKS
@pytest.mark.parametrize(
    ("fn", "inputs", "why", "instead"),
    [
        (square, [1.0, 2.0], "too many positional arguments",
         "inputs is a list of 2, and each entry is one positional argument; for one argument write np.array(inputs), "
         "or [inputs] where the function takes a list"),
        (square, [1, 2, 3], "too many positional arguments",
         "inputs is a list of 3, and each entry is one positional argument; for one argument write "
         'np.array(inputs, "float32"), or [inputs] where the function takes a list'),
        (tf.function(square), (X, X), "too many positional arguments",
         "inputs is a tuple of 2, and each entry is one positional argument; for one argument write np.array(inputs), "
         "or [inputs] where the function takes a tuple"),
        (square, {"p": X, "q": X}, "missing a required argument: 'x'",
         "inputs is a dict, whose keys (p, q) are the names of arguments; for one that is a dict write [inputs]"),
        (product, X, "missing a required argument: 'b'",
         "inputs is one argument, found ndarray; for several write a list of them"),
    ],
    ids=["a list", "whole numbers", "a tuple", "a dict", "one for two"],
)  # fmt: skip
def test_inputs_that_do_not_fit_the_function_are_refused(check, fn, inputs, why, instead):
    with pytest.raises(TypeError, match=exactly(f"mine cannot be called with these inputs ({why}): {instead}")):
        check(fn, inputs, name="mine")


def test_a_type_error_inside_the_function_is_its_own():
    def calling(x):
        return square(x, x)

    with pytest.raises(TypeError, match=r"^square\(\) takes 1 positional argument but 2 were given(\ngradcheck: .*)?$"):
        gradcheck.check_gradients(calling, [X])


def selecting(x):
    return tf.boolean_mask(x, x > 1.5)


def test_outputs_whose_shape_changes_with_the_values_are_refused():
    message = (
        "the function's outputs change shape with the values of its inputs: found [1] and [2] at points close "
        "together; a derivative needs outputs of one shape: multiply by a mask instead of selecting, or check the part "
        "that is fixed"
    )
    with pytest.raises(ValueError, match=exactly(message)):
        gradcheck.check_gradients(selecting, [np.array([1.5, 2.0])])


def test_a_shape_that_depends_on_values_and_does_not_change_nearby_is_fine():
    assert gradcheck.check_gradients(selecting, [np.array([1.0, 2.0, 3.0])]).ok


def without_gradient(x):
    return tf.unique(x)[0] * 2


def test_an_op_for_which_tensorflow_knows_no_gradient_is_a_cut_that_names_it():
    report = gradcheck.check_gradients(without_gradient, [X])
    assert report.verdict is Verdict.CUT
    assert report.worst.cut.place.op_type == "Unique"


# ---------------------------------------------------------------------------------- functions with side effects


def counter():
    calls = tf.Variable(0.0, trainable=False, dtype=tf.float64, name="calls")

    def counted(x):
        calls.assign_add(1.0)
        return x * x

    return calls, counted


def test_a_function_that_assigns_a_variable_is_checked_and_noted_and_the_variable_kept():
    calls, counted = counter()
    report = gradcheck.check_gradients(counted, [X])
    assert report.ok
    assert any("assigns variables" in note for note in report.notes), report
    assert calls.numpy() == 0.0


def untraceable_counter():
    calls = tf.Variable(0.0, trainable=False, dtype=tf.float64, name="calls")

    def counted(x):
        calls.assign_add(1.0)
        return x * float(x.numpy()[0])

    return calls, counted


def test_a_function_that_cannot_be_traced_and_assigns_a_variable_leaves_it_as_it_was():
    calls, counted = untraceable_counter()
    gradcheck.check_gradients(counted, [X])
    assert calls.numpy() == 0.0


def test_a_function_that_changes_the_array_it_was_given_is_noted_and_the_array_restored():
    given = np.array([1.0, 2.0])

    def changing(x):
        given[1] = 77.0
        return x * x

    report = gradcheck.check_gradients(changing, [given])
    assert given.tolist() == [1.0, 2.0]
    assert any("inputs[0]" in note for note in report.notes), report


def _doubling(x):
    x *= 2
    return x


def doubling_in_place(x):
    y = tf.numpy_function(_doubling, [x], x.dtype)
    y.set_shape(x.shape)
    return y


def test_a_python_function_that_works_in_place_does_not_reach_the_users_array():
    given = np.array([1.0, 2.0])
    gradcheck.check_gradients(doubling_in_place, [given])
    assert given.tolist() == [1.0, 2.0]


# --------------------------------------------------------------------------------------------------- Gradients


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"ys": "x", "xs": []}, ValueError, "Gradients needs at least one y and one x, found 1 ys and 0 xs"),
        ({"ys": [], "xs": "x"}, ValueError, "Gradients needs at least one y and one x, found 0 ys and 1 xs"),
        ({"ys": "x", "xs": 3.0}, TypeError, "xs[0] must be a tensor or a variable, found float"),
        ({"ys": "x", "xs": "x", "grad_ys": [None, None]}, ValueError,
         "grad_ys must have one entry (or None) per y: 1 ys, found 2 in grad_ys"),
        ({"ys": "x", "xs": "x", "grad_ys": [np.ones(3)]}, ValueError,
         "grad_ys for ys[0] must have the shape of that output, (2,); found shape (3,)"),
        ({"ys": "x", "xs": "x", "unconnected_gradients": "zeros"}, ValueError,
         "unconnected_gradients must be \"none\" or \"zero\", got 'zeros'"),
        ({"ys": 3.0, "xs": "x"}, TypeError, "ys[0] of Gradients must be a tensor, found float"),
        ({"ys": "x", "xs": "x", "stop_gradients": [3]}, TypeError,
         "stop_gradients[0] of Gradients must be a tensor, found int"),
    ],
)  # fmt: skip
def test_gradients_that_do_not_fit_are_refused(fields, error, message):
    def fn(x):
        return Gradients(
            **{key: x if isinstance(value, str) and value == "x" else value for key, value in fields.items()}
        )

    with pytest.raises(error, match=exactly(message)):
        gradcheck.check_gradients(fn, [X])


@pytest.mark.parametrize(
    ("key", "value", "instead"), [("grad_ys", np.ones(2), "grad_ys"), ("wrt", "inputs", "xs")], ids=["grad_ys", "wrt"]
)
def test_what_gradients_say_is_not_taken_twice(key, value, instead):
    message = (
        f"{key} was given, and the function returns gradcheck.Gradients, which says that itself; "
        f"leave {key} out and put it into the Gradients ({instead}=...)"
    )
    with pytest.raises(ValueError, match=exactly(message)):
        gradcheck.check_gradients(lambda x: Gradients(ys=x * x, xs=x), [X], **{key: value})


def test_an_x_that_is_a_constant_which_nothing_reads_is_unconnected():
    report = gradcheck.check_gradients(lambda x: Gradients(ys=x * x, xs=tf.constant(1.0)), [X])
    assert report.verdict is Verdict.UNCONNECTED


def test_gradients_take_names_only():
    with pytest.raises(TypeError, match=r"^Gradients\.__init__\(\) takes 1 positional argument but 3 were given$"):
        Gradients(1, 2)


# --------------------------------------------------------------------------------------------- assert_gradients


@tf.custom_gradient
def wrong(x):
    return x * x, lambda up: up * 3 * x


def test_an_assertion_that_fails_carries_the_report_and_its_text():
    with pytest.raises(gradcheck.GradientMismatch, match=r"^GradientMismatch: d wrong / d inputs") as caught:
        gradcheck.assert_gradients(wrong, [X], name="wrong")
    assert isinstance(caught.value, AssertionError)
    assert not caught.value.report.ok
    assert str(caught.value) == str(caught.value.report)


def test_an_assertion_that_holds_gives_the_report():
    assert gradcheck.assert_gradients(square, [X]).verdict is Verdict.MATCH


@pytest.mark.parametrize(
    ("fn", "error"),
    [(lambda x: tf.square(x.numpy()), "AttributeError"), (lambda x: np.sum(x**2), "NotImplementedError")],
)
def test_the_note_on_a_function_that_cannot_be_traced_says_at_which_line(fn, error):
    (note,) = gradcheck.check_gradients(fn, X).notes
    line = fn.__code__.co_firstlineno
    assert re.match(rf"<lambda> cannot be traced \({error} at .*test_bad_input\.py:{line}: .*\); it was called", note)


@pytest.mark.parametrize("inner", [tf.float32, tf.float64])
def test_python_that_computes_in_float32_between_casts_is_not_taken_for_a_wrong_gradient(inner):
    weights = tf.constant(np.random.default_rng(3).normal(size=(6, 6)), inner)

    def fn(x):
        hidden = tf.tanh(tf.cast(x + 0 * float(x[0, 0]), inner) @ weights)  # float: it cannot be traced
        return tf.cast(tf.reduce_sum(hidden**2, axis=1), tf.float64)

    report = gradcheck.check_gradients(fn, np.random.default_rng(4).normal(size=(3, 6)))
    assert report.verdict is Verdict.MATCH, str(report)
    assert any("EagerPyFunc" in op for op in report.unpromoted) == (inner is tf.float32)


def test_an_object_that_refuses_to_say_which_variables_it_has_is_checked():
    class Stateless(tf.Module):
        @property
        def variables(self):
            raise ValueError("contains no variables")

        def __call__(self, x):
            return tf.sin(x)

    assert gradcheck.check_gradients(Stateless(), X).verdict is Verdict.MATCH


@pytest.mark.parametrize(("factor", "verdict"), [(2.0, Verdict.MATCH), (3.0, Verdict.MISMATCH)])
def test_a_gradient_function_with_numpy_in_it_is_run_eagerly(factor, verdict):
    @tf.custom_gradient
    def squared(x):
        return x**2, lambda up: factor * np.asarray(x) * up

    report = gradcheck.check_gradients(lambda x: tf.reduce_sum(tf.sin(squared(x))), X)
    assert report.verdict is verdict
    place = r"NotImplementedError at .*test_bad_input\.py:\d+: "
    assert re.match(rf"the gradient of <lambda> cannot be traced \({place}.*\); it was taken eagerly", report.notes[0])


def test_what_a_gradient_function_raises_says_where_it_was_raised():
    @tf.custom_gradient
    def broken(x):
        return x**2, lambda up: up * {}["absent"]

    with pytest.raises(KeyError) as raised:
        gradcheck.check_gradients(broken, X)
    (note,) = raised.value.__notes__
    assert re.match(r"gradcheck: raised at \S*:\d+ by a gradient function within broken, before any check: `ret", note)


def test_where_a_function_that_cannot_be_traced_reads_variables_alone_the_error_says_both():
    kept = tf.Variable(2.0)

    def grown():
        return tf.while_loop(lambda y: y < 9.0, lambda y: [y * y, y], [kept * 9.0])[0]  # eagerly it does not run

    with pytest.raises(ValueError, match=r"nothing to differentiate .*; grown cannot be traced \(ValueError"):
        gradcheck.check_gradients(grown, [])


# ------------------------------------------------------------------------------------ ops that raise at run time


def far(x):
    return tf.cast(x, tf.int32) + 7


def gathering(x):
    return 2 * tf.gather(x, far(x))  # here


def branching(x):
    @tf.function
    def inner(y):
        return tf.cond(y[0] > 0, lambda: tf.gather(y, far(y)), lambda: 2.0 * y)  # here

    return inner(x) + 1.0


def within(x):
    @tf.function
    def inner(y):
        return tf.gather(y, far(y))  # here

    return inner(tf.gather(x, [0, 1]))  # an op of the same name


def looping(x):
    def body(i, y):
        return i + 1, tf.reshape(tf.tile(x, [i + 1]), tf.shape(y))  # here

    return tf.while_loop(lambda i, y: i < 3, body, [0, x])[1]


@tf.custom_gradient
def backwards(x):
    def grad(upstream):
        return tf.gather(upstream, far(x))  # here

    return x * 2, grad


def asserted(x):
    tf.debugging.assert_less(x, 0.5 * tf.ones_like(x))  # here
    return x * x


class Gathers(tf.keras.layers.Layer):
    def call(self, x):
        return tf.gather(x, far(x))  # here


@pytest.mark.parametrize(
    ("front", "fns"),
    [
        (gradcheck.find_nonfinite, (gathering, branching, looping, backwards, Gathers(name="gathers"))),
        (gradcheck.check_gradients, (gathering, branching, looping, backwards, asserted)),
        (gradcheck.profile_precision, (branching, within)),
        (lambda fn, x: gradcheck.compute_gradient(fn, [x]), (gathering,)),
        (lambda fn, x: gradcheck.Watchdog().watch(tf.function(fn))(x), (gathering, branching, within, asserted)),
        (lambda fn, x: session_of(fn), (gathering,)),
    ],
    ids=["find_nonfinite", "check_gradients", "profile_precision", "compute_gradient", "watch", "check_tf_gradients"],
)  # fmt: skip
def test_an_op_that_raises_is_named_with_the_users_line(front, fns):
    for fn in fns:
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            front(fn, tf.constant(X, tf.float32))
        assert "/device:" not in str(caught.value)
        (note,) = caught.value.__notes__
        kind = {asserted: "Assert", looping: "Reshape"}.get(fn, "GatherV2")
        assert re.match(rf"gradcheck: raised at \S*test_bad_input\.py:\d+ by {kind} '.*' in \w+: `", note), note
        assert note.endswith("# here`"), note


def session_of(fn):
    with tf.Graph().as_default(), tf.compat.v1.Session():
        x = tf.constant(X)
        gradcheck.check_tf_gradients(fn(x), x)


# ------------------------------------------------------------------------------- calls that fit no signature


def product(a, b, *, scale=1.0):
    return a * b * scale


def sparse(a, b=1.0):
    return a * b


@pytest.mark.parametrize(
    "front", [gradcheck.check_gradients, gradcheck.assert_gradients, gradcheck.find_nonfinite,
              gradcheck.profile_precision], ids=lambda front: front.__name__,
)  # fmt: skip
@pytest.mark.parametrize(
    ("given", "keywords", "found", "written"),
    [
        ((product, X, X), {}, "takes fn and inputs by position, found 3 arguments (function, ndarray, ndarray); "
         "the arguments of product go into a list: ", "(product, [a, b])"),
        ((product, 1.0, 2.0), {}, "takes fn and inputs by position, found 3 arguments (function, float, float); "
         "the arguments of product go into a list: ", "(product, [a, b])"),
        ((lambda *x: x, [1.0], [2.0]), {}, "takes fn and inputs by position, found 3 arguments (function, list, list); "
         "the arguments of fn go into a list: ", "(fn, [x0, x1])"),
        ((product, X), {"b": X, "scale": 3.0}, "has no argument 'b'; keyword arguments of product go into a dict: ",
         '(product, {"a": ..., "b": ..., "scale": ...})'),
        ((sparse, X), {"b": X}, "has no argument 'b'; keyword arguments of sparse go into a dict: ",
         '(sparse, {"a": ..., "b": ...})'),
        ((product,), {}, "needs inputs, found fn alone; write ",
         "(product, [a, b]), or [] for a function without arguments"),
    ],
    ids=["arrays", "numbers", "lists", "keywords", "a default", "no inputs"],
)  # fmt: skip
def test_arguments_given_one_by_one_are_refused_with_what_to_write(front, given, keywords, found, written):
    name = front.__name__
    with pytest.raises(TypeError, match=exactly(f"{name} {found}{name}{written}")):
        front(*given, **keywords)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gradcheck.check_gradients(square, [X], "jacobian"),
         "check_gradients takes fn and inputs by position, found 3 arguments (function, list, str); options are given "
         "by name: grad_ys=, wrt=, mode=, order=, rtol=, directions=, seed=, forward=, surrogate=, executor=, name="),
        (lambda: gradcheck.check_gradients(square, [X], 1e-3), "*function, list, float); options are given by name: *"),
        (lambda: gradcheck.check_gradients(square, X, True), "*function, ndarray, bool); options are given by name: *"),
        (lambda: gradcheck.check_gradients(square, X, direction=3),
         "check_gradients has no argument 'direction'; write directions="),
        (lambda: gradcheck.find_nonfinite(square, X, out=3),
         "find_nonfinite has no argument 'out'; there are fn and inputs"),
        (lambda: gradcheck.find_nonfinite(square, X, "auto"),
         "*(function, ndarray, str); leave out what stands behind inputs"),
        (gradcheck.check_gradients, "check_gradients: missing a required argument: 'fn'"),
        (lambda: gradcheck.check_gradients(square, [X], inputs=X),
         "check_gradients: multiple values for argument 'inputs'"),
        (lambda: gradcheck.check_model(square), "check_model needs x, found model alone; write check_model(square, x)"),
        (lambda: gradcheck.check_model(object(), X, X, X),
         "check_model takes model, x and y by position, found 4 arguments (object, ndarray, ndarray, ndarray); the "
         "arguments of model go into a list: check_model(model, [x0, x1, x2])"),
        (lambda: gradcheck.check_tf_gradients(X, X, None, X),
         "check_tf_gradients takes ys, xs and grad_ys by position, found 4 arguments (ndarray, ndarray, NoneType, "
         "ndarray); options are given by name: stop_gradients=, *"),
        (lambda: Checker({}, None, None)(product, X, X),
         "gradcheck takes fn and inputs by *: gradcheck(product, [a, b])"),
        (lambda: Checker({}, None, None).model(square), "gradcheck.model needs x, *; write gradcheck.model(square, x)"),
        (lambda: gradcheck.watch(square, "skip"),
         "watch takes model_or_step by position, found 2 *: action=, every=, *"),
        (lambda: gradcheck.Watchdog("skip").guard([X], X),
         "guard takes grads by position, found 2 *: loss=, outputs=, *"),
        (lambda: gradcheck.compute_gradient(product, X, X, X),
         "*go into a list: compute_gradient(product, [x0, x1, x2])"),
    ],
)  # fmt: skip
def test_a_call_that_fits_no_signature_says_what_to_write(call, message):
    with pytest.raises(TypeError, match=exactly(message).replace(r"\*", ".*")):
        call()


def test_a_third_argument_of_compute_gradient_that_is_no_number_was_meant_for_f():
    message = (
        "x must be a list or tuple of the arguments of f, got ndarray; write compute_gradient(f, [x, y]): a third "
        "argument is delta, a number"
    )
    with pytest.raises(ValueError, match=exactly(message)):
        gradcheck.compute_gradient(product, X, X)


@pytest.mark.parametrize("front", [gradcheck.check_gradients, gradcheck.check_tf_gradients, gradcheck.find_nonfinite])
def test_what_explains_calls_leaves_the_signature_as_it_is(front):
    names = list(inspect.signature(front).parameters)
    assert names[:2] == (["ys", "xs"] if front is gradcheck.check_tf_gradients else ["fn", "inputs"])
    assert front.__doc__
