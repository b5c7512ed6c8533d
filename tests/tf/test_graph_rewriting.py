"""Rewriting a program keeps what it computes, and leaves the program that was rewritten as it was."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from gradcheck._check.options import Options
from gradcheck._check.run import run
from gradcheck._derivatives.point import Point
from gradcheck._graph.evaluate import Runner
from gradcheck._graph.functions import FuncGraph, trace_function
from gradcheck._graph.held import hold
from gradcheck._graph.invariant import split
from gradcheck._graph.program import called_names, from_func_graph
from gradcheck._graph.structure import is_continuous, leaves
from tests import gallery

RANDOM = ("noise", "dropout", "Dropout", "shuffled", "Keras model", "of an intermediate", "of the document")
EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "complex64": 2.0**-23}
# Kernels that run eagerly may be fused or take sums in another order: units of rounding of the largest entry.
REORDERED = 64
ROWS = [row for row in gallery.RIGHT if not any(word in row.name for word in RANDOM)]
# Every fourth of them stands for the rest where time is short.
rows = pytest.mark.parametrize(
    "row",
    [pytest.param(row, id=row.name, marks=pytest.mark.slow if k % 4 else ()) for k, row in enumerate(ROWS)],
)


def call(fn, inputs):
    def converted(value):
        return (
            tf.convert_to_tensor(value)
            if isinstance(value, (np.ndarray, np.generic)) and is_continuous(value)
            else value
        )

    inputs = tf.nest.map_structure(converted, inputs)
    if isinstance(inputs, dict):
        return fn(**inputs)
    return fn(*inputs) if isinstance(inputs, list) else fn(inputs)


def values(result):
    found = []
    for leaf in leaves(result, ""):
        value = leaf.value
        if is_continuous(value):
            found.append(value.numpy() if hasattr(value, "numpy") else np.asarray(value))
    return found


@rows
def test_a_traced_program_computes_what_the_function_computes(row):
    fn, inputs = row.case()
    eager = tf.function(fn) if fn is gallery.gradients_inside else fn
    expected = values(call(eager, inputs))
    found = [v for output in Point(trace_function(fn, inputs)).outputs_at_base(wide=False) for v in output]
    assert [v.shape for v in found] == [v.shape for v in expected]
    for own, value in zip(found, expected, strict=True):
        assert own.dtype == value.dtype
        size = np.max(np.abs(value.astype(np.complex128)), initial=0.0)
        gap = np.max(np.abs(own.astype(np.complex128) - value.astype(np.complex128)), initial=0.0)
        assert gap <= REORDERED * EPS.get(value.dtype.name, 2.0**-52) * size


def snapshot(program):
    bodies = {"": program.main, **program.functions}
    return {name: [node.SerializeToString(deterministic=True) for node in body.nodes] for name, body in bodies.items()}


@pytest.mark.parametrize(
    "fn",
    [
        gallery.stopped_in_while, gallery.stopped_in_cond_in_while, gallery.nested_functions, gallery.autograph,
        gallery.factor_2, gallery.stopped_in_compiled, gallery.rounded,
    ],
)  # fmt: skip
def test_a_check_leaves_the_nodes_of_the_program_as_they_were(fn):
    inputs = [np.array([0.4, 0.9], np.float32)]
    traced = trace_function(fn, inputs)
    before = snapshot(traced.program)
    run(traced, Options())
    assert snapshot(traced.program) == before


def test_nested_calls_are_written_out_and_compiled_ones_are_kept():
    plain = trace_function(gallery.nested_functions, [gallery.normal(3)]).program
    assert not {n.op for n in plain.main.nodes} & {"PartitionedCall", "StatefulPartitionedCall"}
    compiled = trace_function(gallery.compiled, [gallery.normal(2, 3)]).program
    calls = [n for n in compiled.main.nodes if n.op.endswith("PartitionedCall")]
    assert calls
    assert {n.attr["f"].func.name for n in calls} <= set(compiled.functions)


@pytest.mark.parametrize(
    "name", ["ctc loss", "nested while", "scan", "LSTM", "nested functions", "autograph", "MultiHeadAttention"]
)
def test_a_library_holds_all_that_is_called(name):
    row = next(row for row in gallery.GALLERY if row.name == name)
    program = trace_function(*row.case()).program
    for body in (program.main, *program.functions.values()):
        assert called_names(body) <= set(program.functions)


@pytest.mark.parametrize(
    "fn", [gallery.normal_noise, gallery.stateless_noise, gallery.noise_in_loop, gallery.dropout, gallery.shuffled]
)
def test_random_ops_draw_the_same_numbers_in_every_run_of_a_program(fn):
    point = Point(trace_function(fn, [np.array([0.5, 1.0, -1.0, 2.0])]))
    first, again = (point.outputs_at_base(wide=False)[0][0] for _ in range(2))
    assert np.array_equal(first, again)
    assert np.unique(first).size > 1


def two_draws(x):
    return x * 0 + tf.random.uniform([4], dtype=x.dtype) - tf.random.uniform([4], dtype=x.dtype)


def test_two_random_ops_draw_different_numbers():
    (value,) = Point(trace_function(two_draws, [np.zeros(4)])).outputs_at_base(wide=False)[0]
    assert np.all(value != 0)


def test_holding_nothing_leaves_the_arguments():
    traced = trace_function(tf.sin, [np.array([1.0])])
    held = hold(traced.program, [a.name for a in traced.program.main.args])
    assert held.program.main.args == traced.program.main.args
    assert held.names == held.sources == ()


def test_variables_are_fed_so_that_a_program_holds_no_resources():
    fn, inputs = gallery.closure_over_variables(), [np.array([1.0, 2.0, 3.0])]
    program = trace_function(fn, inputs).program
    resource = tf.resource.as_datatype_enum
    assert resource not in {a.dtype for a in program.main.args}
    assert not {n.op for n in program.main.nodes} & {"ReadVariableOp", "VarHandleOp", "AssignVariableOp"}


def test_a_variable_that_is_assigned_and_read_again_has_its_new_value_in_the_program():
    v = tf.Variable(2.0, dtype=tf.float64)

    def fn(x):
        v.assign_add(1.0)
        first = v * x
        v.assign(10.0)
        return first + v

    (value,) = Point(trace_function(fn, [np.array([1.0])])).outputs_at_base(wide=False)[0]
    assert value == [13.0]
    assert v.numpy() == 2.0


@pytest.fixture
def tanh_of_a_product():
    """A program of w (held) and c (moved) in which most depends on w alone, with a check and a constant."""
    graph = FuncGraph("shared")
    with graph.as_default():
        w, c = (tf.compat.v1.placeholder(tf.float64, [2, 2], name=n) for n in "wc")
        tf.raw_ops.Assert(condition=tf.reduce_all(w > 0), data=[w], name="positive")
        inside = tf.tanh(w @ w)
        graph.inputs, graph.outputs = [w, c], [c * (1 - inside**2), inside]
    program = from_func_graph(graph)
    return replace(program, main=replace(program.main, kept=("positive",)))


def test_what_no_moving_argument_changes_is_set_apart(tanh_of_a_product):
    parts = split(tanh_of_a_product.main, ["c"])
    apart, rest = {n.op for n in parts.nodes}, {n.op for n in parts.rest.nodes}
    assert {"MatMul", "Tanh", "Pow", "Sub"} <= apart
    assert not {"MatMul", "Tanh", "Pow", "Sub"} & rest
    assert "Mul" in rest
    assert "Mul" not in apart
    assert "Assert" not in apart  # it has a state: each point runs it
    assert [a.name for a in parts.rest.args[:2]] == ["w", "c"]
    assert len(parts.shared) == len(parts.rest.args) - 2


def test_nothing_is_set_apart_where_all_moves():
    program = trace_function(tf.tanh, [np.ones(2)]).program
    parts = split(program.main, [a.name for a in program.main.args])
    assert parts.nodes == parts.shared == ()
    assert parts.rest is program.main


@pytest.mark.parametrize("sharing", [True, False])
def test_a_batch_gives_what_single_runs_give(tanh_of_a_product, sharing):
    w, points = np.array([[1.0, 0.5], [0.25, 2.0]]), np.arange(12.0).reshape(3, 2, 2)
    runner = Runner(tanh_of_a_product, sharing=sharing)
    together = runner.run_batch({"c": points}, [w, None])
    for k, point in enumerate(points):
        for own, alone in zip(together, runner.run([w, point]), strict=True):
            np.testing.assert_allclose(own[k], alone, rtol=1e-15)


@pytest.mark.parametrize("sharing", [True, False])
def test_a_check_inside_of_what_is_shared_still_runs(tanh_of_a_product, sharing):
    runner = Runner(
        replace(tanh_of_a_product, main=replace(tanh_of_a_product.main, kept=assertions(tanh_of_a_product)))
    )
    runner.sharing = sharing
    with pytest.raises(tf.errors.InvalidArgumentError, match="assert"):
        runner.run_batch({"c": np.ones((3, 2, 2))}, [-np.ones((2, 2)), None])


def assertions(program):
    return tuple(n.name for n in program.main.nodes if n.op == "Assert")
