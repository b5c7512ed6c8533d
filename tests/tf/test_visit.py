"""A program that is visited op by op computes what it computes in one piece, and shows every op with its place."""

import weakref
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from gradcheck._errors import GraphUnavailable
from gradcheck._graph.evaluate import Runner, returning
from gradcheck._graph.functions import trace_function
from gradcheck._graph.program import from_concrete
from gradcheck._graph.provenance import place
from gradcheck._graph.visit import Value, visit
from tests import gallery

CHANGES = ("counts", "draws")  # from run to run
ROWS = [row for row in (*gallery.RIGHT, *gallery.WRONG) if not any(word in row.name for word in CHANGES)]
# Every sixth of them stands for the rest where time is short.
rows = pytest.mark.parametrize(
    "row",
    [pytest.param(row, id=row.name, marks=pytest.mark.slow if k % 6 else ()) for k, row in enumerate(ROWS)],
)


def with_cotangents(traced):
    """Values for all arguments, cotangents being ones."""
    values = dict(traced.values)
    main = traced.program.main
    for output in traced.outputs:
        returns = replace(main, returns=tuple(main.returns[p] for p in output.returns))
        runner = Runner(returning(traced.program, returns), alive=traced.graph)
        found = runner.run([values[a.name] for a in runner.program.main.args])
        values.update({name: np.ones_like(v) for name, v in zip(output.cotangents, found, strict=True)})
    return [values[a.name] for a in main.args]


def visited(fn, inputs):
    """What was traced, all visits, and what is returned."""
    traced = trace_function(fn, inputs)
    given = [Value(tf.convert_to_tensor(v)) for v in with_cotangents(traced)]
    walk = visit(traced.program, given, alive=traced.graph)
    seen = []
    while True:
        try:
            seen.append(next(walk))
        except StopIteration as end:
            return traced, seen, [value.tensor for value in end.value]


def find(seen, op):
    return [v for v in seen if v.node.op == op and "gradients" not in v.name]


def is_close(found, expected):
    if expected.dtype.kind not in "fcV" or expected.size == 0:
        return np.array_equal(found, expected)
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    found, expected = found.astype(wide), expected.astype(wide)
    size = np.max(np.abs(expected), where=np.isfinite(expected), initial=0.0)
    return np.allclose(found, expected, rtol=0, atol=1e-5 * size, equal_nan=True)


@rows
def test_an_op_by_op_run_returns_what_the_program_returns(row):
    traced, _, returned = visited(*row.case())
    expected = Runner(traced.program, alive=traced.graph).run(with_cotangents(traced))
    assert len(returned) == len(expected)
    for own, value in zip(returned, expected, strict=True):
        if isinstance(value, np.ndarray):
            assert is_close(own.numpy(), value)


def test_each_iteration_of_a_loop_is_seen_with_its_values():
    def fn(x):
        for _ in tf.range(4):
            x = tf.sqrt(x)
        return x

    _, seen, _ = visited(tf.function(fn), [tf.constant([16.0, 81.0])])
    roots = find(seen, "Sqrt")
    assert [v.path[-1].iteration for v in roots] == [0, 1, 2, 3]
    assert [v.path[-1].part for v in roots] == ["body"] * 4
    np.testing.assert_allclose([v.inputs[0].tensor[0] for v in roots], 16**0.5 ** np.arange(4), rtol=1e-6)
    backward = [v for v in seen if v.node.op == "SqrtGrad"]
    assert [v.path[-1].iteration for v in backward] == [0, 1, 2, 3]
    np.testing.assert_allclose(backward[0].inputs[0].tensor, roots[-1].outputs[0].tensor)


def test_only_the_branch_that_is_taken_is_seen():
    def fn(x):
        return tf.cond(x[0] > 0, lambda: tf.exp(x), lambda: tf.sin(x))

    _, seen, _ = visited(fn, [tf.constant([1.0])])
    assert [v.path[-1].part for v in find(seen, "Exp")] == ["then"]
    assert not find(seen, "Sin")

    def switch(x):
        return tf.switch_case(tf.cast(x[0], tf.int32), [lambda: tf.exp(x), lambda: tf.sin(x)])

    _, seen, _ = visited(switch, [tf.constant([7.0])])
    assert [v.path[-1].part for v in find(seen, "Sin")] == ["branch 1"]


def test_loops_in_loops_tell_both_iterations():
    def fn(x):
        for _ in tf.range(2):
            for _ in tf.range(3):
                x = tf.tanh(x)
        return x

    _, seen, _ = visited(tf.function(fn), [tf.constant(0.5)])
    assert [tuple(s.iteration for s in v.path) for v in find(seen, "Tanh")] == [
        (i, j) for i in (0, 1) for j in range(3)
    ]


def test_an_op_inside_knows_the_users_line():
    def fn(x):
        return tf.map_fn(tf.math.softplus, x)

    traced, seen, _ = visited(fn, [tf.ones([2, 3])])
    ops = find(seen, "Softplus")
    assert len(ops) == 2
    found = place(traced.graph, ops[0].name, "Softplus")
    assert found.file is not None
    assert found.source == "return tf.map_fn(tf.math.softplus, x)"


def test_what_a_value_is_known_by_travels_through_calls_branches_and_iterations():
    @tf.function
    def inner(x):
        return tf.cond(x[0] > 0, lambda: x, lambda: -x)

    def fn(x):
        for _ in tf.range(2):
            x = inner(x)
        return tf.exp(x)

    traced = trace_function(tf.function(fn), [tf.ones([2])], wrt="inputs")
    given = [Value(tf.convert_to_tensor(v), note=k) for k, v in enumerate(with_cotangents(traced))]
    noted = []
    for seen in visit(traced.program, given, alive=traced.graph):
        if seen.node.op == "Identity":
            seen.outputs[0].note = seen.inputs[0].note
        noted += [seen.inputs[0].note] if seen.node.op == "Exp" else []
    assert noted == [[a.name for a in traced.program.main.args].index(traced.sources[0].argument)]


def test_values_that_nobody_needs_any_more_are_dropped():
    def fn(x):
        for _ in tf.range(200):
            x = tf.sin(x)
        return x

    traced = trace_function(tf.function(fn), [tf.ones([10])])
    plain = returning(traced.program, replace(traced.program.main, returns=traced.program.main.returns[:1]))
    given = [Value(tf.convert_to_tensor(traced.values[a.name])) for a in plain.main.args]
    made = []
    most = 0
    for seen in visit(plain, given, alive=traced.graph):
        made += [weakref.ref(value.tensor) for value in seen.outputs if value.tensor.dtype == tf.float32]
        del seen
        most = max(most, sum(ref() is not None for ref in made))
    assert most < 20


def test_a_walk_may_be_left_half_way():
    traced = trace_function(lambda x: tf.exp(tf.sin(x)), [tf.ones([2])])
    walk = visit(traced.program, [Value(tf.convert_to_tensor(v)) for v in with_cotangents(traced)])
    next(walk)
    walk.close()
    with tf.Graph().as_default():
        assert not tf.executing_eagerly()
    assert tf.executing_eagerly()


def test_a_graph_of_tensorflow_1_may_be_the_default_one_meanwhile():
    traced = trace_function(tf.exp, [tf.ones([2])])
    given = [Value(tf.convert_to_tensor(v)) for v in with_cotangents(traced)]
    with tf.Graph().as_default() as graph:
        ops = [v.node.op for v in visit(traced.program, given)]
        assert not graph.get_operations()
    assert "Exp" in ops


def test_what_only_acts_on_the_world_outside_does_not_run(capfd):
    @tf.function
    def fn(x):
        tf.print("printed", x)
        tf.debugging.assert_positive(x)
        return tf.sqrt(x)

    walk = program_of(fn, tf.constant([-1.0]))
    assert "Sqrt" in [v.node.op for v in walk]
    assert "printed" not in capfd.readouterr().err


def program_of(fn, *inputs):
    concrete = fn.get_concrete_function(*inputs)
    return visit(from_concrete(concrete), [Value(x) for x in (*inputs, *concrete.captured_inputs)], alive=concrete)


def test_an_error_of_an_op_is_tensorflows_own():
    walk = program_of(tf.function(tf.reshape), tf.ones([3]), tf.constant([2, 2]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="3 values"):
        list(walk)


def test_a_data_sets_next_element_is_refused():
    batches = iter(tf.data.Dataset.from_tensor_slices([1.0, 2.0]))
    fn = tf.function(lambda: tf.sqrt(next(batches)))
    concrete = fn.get_concrete_function()
    walk = visit(from_concrete(concrete), [Value(x) for x in concrete.captured_inputs], alive=concrete)
    with pytest.raises(GraphUnavailable, match=r"IteratorGetNext .* let the function take that value as an argument"):
        list(walk)
    assert next(batches).numpy() == 1.0
