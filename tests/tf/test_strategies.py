"""The strategies give what they promise, shrink to what is simple, and refuse what they cannot use."""

import random

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

import gradcheck
from gradcheck import Verdict
from gradcheck import strategies as gs

some = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None, derandomize=True
)


def simplest(strategy, condition=lambda value: True):
    options = settings(database=None, max_examples=200, deadline=None)
    return find(strategy, condition, settings=options, random=random.Random(0))


# ---------------------------------------------------------------------------------------------- shapes and values


@some
@given(gs.shapes(min_dims=1, max_dims=2, min_side=2, max_side=3))
def test_shapes_keep_to_their_bounds(shape):
    assert 1 <= len(shape) <= 2
    assert all(2 <= n <= 3 for n in shape)


@some
@given(gs.dtypes(narrow=True, complex=True))
def test_dtypes_have_gradients(dtype):
    assert dtype.is_floating or dtype.is_complex


@some
@given(gs.tensors(gs.shapes(), gs.dtypes(narrow=True, complex=True), min_value=-3, max_value=5, avoid=[0.0, 1.0]))
def test_tensors_keep_to_their_range_and_away_from_what_they_avoid(x):
    assert isinstance(x, tf.Tensor)
    parts = np.stack([np.real(x), np.imag(x)]).astype(np.float64) if x.dtype.is_complex else x.numpy().astype(float)
    assert np.all((parts >= -3) & (parts <= 5))
    assert np.all(np.abs(parts) >= 0.0625)
    assert np.all(np.abs(parts - 1) >= 0.0625)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e6])
@pytest.mark.slow
def test_tensors_of_any_range_have_many_values(scale):
    values = {
        float(simplest(gs.tensors((), min_value=scale, max_value=3 * scale), lambda x, k=k: x > k * scale))
        for k in (1, 2)
    }
    assert len(values) == 2
    assert all(scale <= value <= 3 * scale for value in values)


@pytest.mark.slow
def test_all_shrink_to_zeros_small_shapes_and_float64():
    assert simplest(gs.shapes()) == ()
    assert simplest(gs.dtypes(narrow=True, complex=True)) is tf.float64
    x = simplest(gs.tensors(dtype=gs.dtypes()))
    assert (x.shape.as_list(), x.dtype, float(x)) == ([], tf.float64, 0.0)
    assert simplest(gs.tensors((3,)), lambda x: x[1] > 1).numpy().tolist() == [0.0, 1.03125, 0.0]
    assert simplest(gs.probabilities((2,))).numpy().tolist() == [0.5, 0.5]
    distinct = simplest(gs.distinct((4,))).numpy()
    assert distinct.tolist() == sorted(distinct)
    assert simplest(gs.indices(5, (2,))).numpy().tolist() == [0, 0]
    at_kinks = simplest(gs.at_kinks((2,))).numpy()
    assert at_kinks.tolist() == [0.0, 0.0]
    assert not np.signbit(at_kinks).any()
    away = simplest(gs.away_from_kinks(tf.nn.relu, (2,))).numpy()
    assert np.all((away > 0) & (away < 0.1))
    assert [float(tf.reduce_sum(c)) for c in simplest(gs.cotangents([tf.zeros(2), tf.zeros([])]))] == [2.0, 1.0]
    assert simplest(gs.broadcastable(2)) == ((), ())
    assert simplest(gs.broadcastable(2), lambda pair: pair[0] != pair[1]) == ((1,), ())
    assert simplest(gs.positive_definite()).numpy().tolist() == [[0.5]]
    assert simplest(gs.positive_definite(2)).numpy().tolist() == [[0.5, 0.0], [0.0, 0.75]]
    assert simplest(gs.orthogonal(2)).numpy().tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert simplest(gs.ragged()).to_list() == [[]]
    assert simplest(gs.ragged(), lambda r: len(r.flat_values) > 1).to_list() == [[0.0, 0.0]]
    assert float(simplest(gs.variables())) == 0.0
    assert simplest(gs.programs()).source.count("    t") <= 1


# ---------------------------------------------------------------------------------------------------- properties


@some
@given(gs.positive_definite(dtype=gs.dtypes()), gs.orthogonal())
def test_matrices_are_what_they_are_called(definite, orthogonal):
    eigenvalues = np.linalg.eigvalsh(definite.numpy().astype(np.float64))
    assert np.all((eigenvalues > 0.49) & (eigenvalues < 5.01))
    assert np.all(np.diff(eigenvalues) > 0.24)
    q = orthogonal.numpy()
    np.testing.assert_allclose(q @ q.T, np.eye(len(q)), atol=1e-13)
    assert np.linalg.det(q) == pytest.approx(1.0)


@some
@given(gs.distinct(dtype=gs.dtypes(narrow=True)), gs.probabilities(gs.shapes(min_dims=1)), gs.indices(3))
def test_special_tensors_are_what_they_are_called(distinct, probabilities, indices):
    flat = np.sort(distinct.numpy().astype(np.float64).ravel())
    assert np.all(np.diff(flat) >= 0.25)
    assert np.all(probabilities.numpy() > 0)
    np.testing.assert_allclose(probabilities.numpy().sum(axis=-1), 1.0, rtol=1e-15)
    assert np.all((indices.numpy() >= 0) & (indices.numpy() < 3))


@some
@given(gs.ragged(), gs.variables(gs.tensors((2,)), trainable=False), gs.broadcastable(3))
def test_ragged_tensors_variables_and_shapes_that_broadcast(ragged, variable, shapes):
    assert isinstance(ragged, tf.RaggedTensor)
    assert ragged.ragged_rank == 1
    assert isinstance(variable, tf.Variable)
    assert not variable.trainable
    assert len(shapes) == 3
    np.broadcast_shapes(*shapes)


@some
@given(st.data())
def test_cotangents_have_the_structure_of_outputs(data):
    like = {"y": tf.zeros([2, 3]), "z": [np.zeros(4), tf.zeros([], tf.complex128)]}
    found = data.draw(gs.cotangents(like))
    assert found["y"].dtype == tf.float32
    assert found["z"][1].dtype == tf.complex128
    assert all(np.all(c.numpy() != 0) for c in tf.nest.flatten(found))

    def fn(x):
        return {"y": x * tf.ones([2, 3]), "z": [tf.cast(x, tf.float64) * np.ones(4), tf.cast(x, tf.complex128)]}

    assert gradcheck.check_gradients(fn, tf.constant(0.5), grad_ys=found).ok


KINKED = {"relu": tf.nn.relu, "abs": lambda x: tf.abs(x - 0.5), "max": lambda x: tf.reduce_max(x, axis=-1)}


@pytest.mark.parametrize("name", KINKED)
def test_kinks_are_met_and_kept_away_from(name):
    fn = KINKED[name]

    @some
    @given(gs.away_from_kinks(fn, (2, 3)))
    def away(x):
        assert gradcheck.check_gradients(fn, x).verdict is Verdict.MATCH

    away()
    x = simplest(gs.at_kinks((2, 3)), lambda x: gradcheck.check_gradients(fn, x).verdict is Verdict.NONSMOOTH)
    assert x.shape == (2, 3)
    assert any(
        np.signbit(v) and v == 0 for v in simplest(gs.at_kinks((3,)), lambda x: bool(np.signbit(x.numpy()[0]))).numpy()
    )


@pytest.mark.slow
def test_a_function_that_has_kinks_everywhere_leaves_nothing():
    with pytest.raises(NoSuchExample):
        find(gs.away_from_kinks(lambda x: tf.abs(x - tf.stop_gradient(x)) + 0 * x, (1,)), lambda x: x[0] > 100)


# ------------------------------------------------------------------------------------------------------- refusals

ALL = "float64, float32, float16, bfloat16, complex128, complex64"


@pytest.mark.parametrize(
    ("strategy", "error", "message"),
    [
        (lambda: gs.tensors("ab"), TypeError,
         "shape must be a whole number, a tuple of them, a strategy for one, or None; found 'ab'"),
        (lambda: gs.tensors((2, -1)), ValueError, "shape must have at least 0 sides, none below 0; found (2, -1)"),
        (lambda: gs.tensors((), "int32"), TypeError,
         f"dtype must be one of {ALL}, or a strategy for one; found int32"),
        (lambda: gs.tensors((), "floot"), TypeError,
         f"dtype must be one of {ALL}, or a strategy for one; found 'floot'"),
        (lambda: gs.tensors(min_value=2, max_value=1), ValueError, "min_value must be below max_value; found 2 and 1"),
        (lambda: gs.tensors(min_value=float("nan")), ValueError, "min_value must be finite; found nan"),
        (lambda: gs.tensors(max_value="1"), TypeError, "max_value must be a number; found '1'"),
        (lambda: gs.tensors(min_value=0, max_value=1, avoid=np.arange(0, 1.1, 0.05)), ValueError,
         "nothing is left between 0.0 and 1.0 when all near the 22 numbers to avoid is left out"),
        (lambda: gs.probabilities(()), ValueError, "shape must have at least 1 sides, none below 0; found ()"),
        (lambda: gs.orthogonal(0), ValueError, "side must be at least 1; found 0"),
        (lambda: gs.orthogonal(1.5), TypeError, "side must be a whole number, or a strategy for one; found 1.5"),
        (lambda: gs.indices(0), ValueError, "size must be at least 1; found 0"),
        (lambda: gs.cotangents([]), ValueError, "like must hold at least one tensor, found none"),
        (lambda: gs.cotangents(tf.constant(1)), TypeError, "like must hold floating or complex tensors, found int32"),
        (lambda: gs.away_from_kinks(3), TypeError, "fn must be callable; found int"),
        (lambda: gs.programs(wrong=1), TypeError, "wrong must be True or False; found 1"),
        (lambda: gs.programs(max_steps=0), ValueError, "max_steps must be at least 1; found 0"),
        (lambda: gs.programs(dtype="float16"), TypeError,
         "dtype must be one of float64, float32, or a strategy for one; found float16"),
    ],
)  # fmt: skip
def test_arguments_that_cannot_be_used_are_refused_when_a_test_draws(strategy, error, message):
    made = strategy()
    with pytest.raises(error) as caught:
        simplest(made)
    assert str(caught.value) == message


def test_a_strategy_shows_how_it_was_made():
    assert repr(gs.tensors((2, 3), avoid=0.0)) == "tensors(shape=(2, 3), avoid=0.0)"
    assert repr(gs.programs(wrong=True)) == "programs(wrong=True)"


def test_the_profile_is_registered():
    assert settings.get_profile("gradcheck").deadline is None


# ------------------------------------------------------------------------------------------------------- programs

DTYPES = st.sampled_from(["float64", "float32"])
generate = settings(some, max_examples=40, phases=[Phase.generate, Phase.shrink])


@generate
@given(gs.programs(dtype=DTYPES))
def test_right_programs_are_ok(program):
    report = gradcheck.check_gradients(program, program.inputs)
    assert report.ok, f"{program}\n{report}"


@generate
@given(gs.programs(wrong=True, dtype=DTYPES))
@pytest.mark.slow
def test_wrong_programs_are_caught_and_blamed(program):
    assert program.wrong in program.source
    report = gradcheck.check_gradients(program, program.inputs)
    assert not report.ok, f"{program}\n{report}"
    if report.verdict is Verdict.MISMATCH:
        blame = report.worst.blame
        assert blame is not None, f"{program}\n{report}"
        assert program.wrong in f"{blame.op} {blame.source}", f"{program}\n{report}"
    assert gradcheck.check_gradients(program.repaired(), program.inputs).ok, str(program)


@some
@given(gs.programs())
def test_the_repr_of_a_program_is_code_that_computes_the_same(program):
    namespace = {}
    exec(repr(program), namespace)
    theirs = namespace["program"](*namespace["inputs"])
    for one, other in zip(program(*program.inputs), theirs, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.slow
def test_a_wrong_program_shrinks_and_is_as_wrong_as_it_is_said_to_be():
    """The oracle of these tests: the wrong gradient differs from the right one where TensorFlow computes both."""
    program = simplest(gs.programs(wrong=True))
    assert program.source.count(" = ") <= 6
    assert program.matters()
    assert not program.repaired().matters()
