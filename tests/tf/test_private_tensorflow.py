"""What gradcheck uses of TensorFlow that TensorFlow does not promise to keep.

Each test tries one purpose in the way that one file of gradcheck does. Where a new TensorFlow breaks it, the failure
names the purpose and says what to look at; all other failures of the suite may then have that one cause.
"""

import gc
import os
import sys
from contextlib import contextmanager

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.framework import ops
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from gradcheck._compare.watched import float32_seen
from gradcheck._graph import (
    contexts,
    differentiate,
    evaluate,
    keywords,
    nodes,
    program,
    quantiles,
    questions,
    reads,
    sources,
    twin,
    values,
)
from gradcheck._graph.concrete import seen_by_python
from gradcheck._graph.copies import Copy
from gradcheck._graph.evaluate import Runner
from gradcheck._graph.functions import FuncGraph, trace_function
from gradcheck._graph.gates import hold_writes
from gradcheck._graph.guarded import Guarded
from gradcheck._graph.provenance import place
from gradcheck._graph.randomness import FROM_PARAMETERS
from gradcheck._graph.stateless import STATELESS
from gradcheck._watchdog.session import SessionWatch
from gradcheck.tensorboard._transport import (
    Mailbox,
    default_writer,
    is_within_another,
    leave,
    variants,
    without_warning,
)

v1 = tf.compat.v1
X = np.array([0.5, 1.0])


@contextmanager
def purpose(what, look_at):
    """A scope whose failure says what broke."""
    try:
        yield
    except Exception as error:
        pytest.fail(f"TensorFlow {tf.__version__} broke this: {what}. Look at {look_at}. It said: {error!r:.300}")


@pytest.fixture
def graph():
    graph = FuncGraph("test")
    with graph.as_default():
        yield graph


def test_the_helper_of_these_tests_says_what_broke():
    said = r"broke this: the impossible\. Look at here\. .*ZeroDivisionError"
    with pytest.raises(pytest.fail.Exception, match=said), purpose("the impossible", "here"):
        1 / 0  # noqa: B018


def test_a_graph_gives_its_function_definition(graph):
    what = "a FuncGraph gives the FunctionDef of itself, its outputs under names of our own"
    with purpose(what, "atomic_function.from_func_graph and FuncGraph._output_names, in _graph/program.py"):
        x = v1.placeholder(tf.float64, [2], name="x")
        graph.inputs, graph.outputs = [x], [tf.sin(x), x]
        main = program.from_func_graph(graph).main
        assert [a.name for a in main.args] == ["x"]
        assert [n.op for n in main.nodes if n.op not in ("Identity", "NoOp")] == ["Sin"]
        assert len(main.returns) == 2


def test_the_functions_that_a_graph_calls_are_found(graph):
    with purpose(
        "functions are found by name", "Graph._get_function and context.get_function_def, in _graph/program.py"
    ):
        x = v1.placeholder(tf.float64, [2], name="x")
        graph.inputs, graph.outputs = [x], [tf.function(tf.sin)(x)]
        found = program.from_func_graph(graph)
        (name,) = found.functions
        assert "Sin" in {n.op for n in found.functions[name].nodes}
        assert program.find_function(graph, name).graph is not None


def test_op_definitions_are_found():
    with purpose("the definition of an op type is found by its name", "op_def_registry.get, in _graph/nodes.py"):
        assert [a.name for a in nodes.op_def("MatMul").input_arg] == ["a", "b"]
        assert nodes.op_def("no such op") is None


def sine():
    (node,) = [n for n in trace_function(tf.sin, [X]).program.main.nodes if n.op == "Sin"]
    argument = program.Argument("x", tf.float64.as_datatype_enum)
    node = nodes.copy_node(node)
    program.set_inputs(node, ["x"], [])
    returned = program.Return(f"{node.name}:y:0", tf.float64.as_datatype_enum)
    return program.Program(main=program.Body(args=(argument,), nodes=(node,), returns=(returned,)), functions={})


def test_a_definition_is_registered_called_and_forgotten():
    what = "a FunctionDef is registered, called by its name, and removed"
    with purpose(what, "context.add_function_def, execute.execute and remove_function, in _graph/evaluate.py"):
        names = set(context.context().list_function_names())
        runner = Runner(sine())
        np.testing.assert_allclose(runner.run([X])[0], np.sin(X))
        del runner
        gc.collect()
        assert set(context.context().list_function_names()) <= names


def test_a_definition_runs_at_many_points_in_one_call():
    with purpose("a function is called at many points by one op", "the op MapDefun, in _graph/evaluate.py"):
        points = np.stack([X, 2 * X, 3 * X])
        np.testing.assert_allclose(Runner(sine()).run_batch({"x": points}, [X])[0], np.sin(points))


def test_tensors_and_arrays_lend_each_other_their_memory():
    with purpose("arrays and tensors are not copied", "ops.EagerTensor and EagerTensor._numpy, in _graph/evaluate.py"):
        points = np.zeros((64, 64))
        own = evaluate.lendable(points, np.float64)
        assert np.shares_memory(evaluate._array(evaluate._lent(own)), own)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_what_was_called_takes_no_memory_afterwards():
    """Measured with TensorFlow 2.21: 0.1 kB per function here, 48 kB where it is an attribute of another op."""

    def resident():
        gc.collect()
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for _ in range(50):
        Runner(sine()).run([X])
    before = resident()
    for _ in range(300):
        Runner(sine()).run([X])
    with purpose("a removed function is forgotten", "how kernels are cached, in _call of _graph/evaluate.py"):
        assert resident() - before < 300 * 15_000


def test_kernels_tell_their_types():
    with purpose("kernels tell which dtypes they take", "kernels.get_registered_kernels_for_op, in _graph/twin.py"):
        double, single = tf.float64.as_datatype_enum, tf.float32.as_datatype_enum
        assert twin._has_kernel("MatMul", "T", double)
        assert not twin._has_kernel("FusedBatchNormV3", "T", double)
        assert twin._has_kernel("FusedBatchNormV3", "T", single)


@pytest.mark.parametrize("op", sorted(STATELESS))
def test_a_random_op_has_a_stateless_twin(op):
    with purpose(f"{op} can be written as a stateless op", "its definition, and the row of _graph/stateless.py"):
        assert nodes.op_def(op) is not None


@pytest.mark.parametrize("op", sorted(quantiles._PARAMETERS))
def test_implicit_gradients_are_of_the_parameters_that_are_moved(op):
    with purpose(f"the parameters of {op} are where they were", "its definition, and _graph/quantiles.py"):
        assert op in FROM_PARAMETERS
        names = {"alpha"} if "Gamma" in op else {"means", "stddevs", "minvals", "maxvals"}
        positions, _ = quantiles._PARAMETERS[op]
        assert {nodes.op_def(op).input_arg[k].name for k in positions} == names


def test_the_gradient_of_an_op_can_be_replaced(graph):
    what = "an op's own gradient function goes before the registered one"
    with purpose(what, "Operation._gradient_function and ops.get_gradient_function, in _graph/differentiate.py"):
        x = v1.placeholder(tf.float64, [2])
        y = tf.sin(x)
        y.op._gradient_function = lambda op, up: 7.0 * up
        (gradient,) = tf.gradients(y, x)
        assert gradient.op.type == "Mul"
        assert differentiate._registered(y.op) is y.op._gradient_function


def test_a_gradient_of_a_wrong_form_is_told_from_other_errors(graph):
    @tf.custom_gradient
    def wrong(x):
        return x * x, lambda up: tf.concat([up, up], 0)

    with purpose("TensorFlow refuses a wrong shape in known words", "_WRONG_FORM, in _graph/differentiate.py"):
        x = v1.placeholder(tf.float64, [2])
        y = wrong(x)
        with pytest.raises(ValueError, match=differentiate._WRONG_FORM[0]):
            tf.gradients(y, x)


def test_the_gradient_of_a_function_is_kept_where_it_can_be_set_aside(graph):
    look = "_DelayedRewriteGradientFunctions (_cached_function_pairs, _func_graph), in _graph/differentiate.py"
    with purpose("the gradient of a tf.function knows the graph that it is built from", look):
        x = v1.placeholder(tf.float64, [2])
        (call,) = [op for op in (tf.function(tf.sin)(x), graph)[1].get_operations() if "PartitionedCall" in op.type]
        ((body, offset),) = differentiate._bodies(call)
        assert offset == 0
        assert "Sin" in {op.type for op in body.get_operations()}
        assert call._gradient_function.__self__._cached_function_pairs == {}


@pytest.mark.parametrize("kind", ["While", "If", "Case"])
def test_control_flow_knows_its_graphs(graph, kind):
    look = "the attributes _cond_graph, _true_graph ... of its op, in _graph/contexts.py"
    with purpose(f"{kind} keeps the graphs that it was built from", look):
        x = v1.placeholder(tf.float64, [2])
        if kind == "While":
            tf.while_loop(lambda i, a: i < 2, lambda i, a: (i + 1, tf.sin(a)), [0, x])
        elif kind == "If":
            tf.cond(x[0] > 0, lambda: tf.sin(x), lambda: x)
        else:
            tf.switch_case(tf.cast(x[0], tf.int32), [lambda: tf.sin(x), lambda: x])
        (op,) = [op for op in graph.get_operations() if op.type in (kind, f"Stateless{kind}")]
        assert len(contexts.python_graphs(op)) == 2
        assert all(hasattr(op, name) for name in contexts.python_graphs(op))


def test_control_flow_v1_is_known_and_copied():
    look = "WhileContext, its fields, and from_control_flow_context_def, in _graph/contexts.py and _graph/copies.py"
    with purpose("loops of control flow v1 know their ops, and can be made anew for a copy", look):
        v1.disable_control_flow_v2()
        try:
            with tf.Graph().as_default() as origin:
                x = v1.placeholder(tf.float64, [2], name="x")
                y = tf.while_loop(lambda i, a: i < 2, lambda i, a: (i + 1, tf.sin(a)), [0, x])[1]
                (inner,) = [op for op in origin.get_operations() if op.type == "Sin"]
                assert len(contexts.chain(inner)) == 1
                assert contexts.pivots(inner)
                copy = Copy(origin, {"x:0": X})
                (copied,) = copy.bring([y])
                with copy.as_default():
                    (gradient,) = tf.gradients(copied, copy.x_of(x))
            assert gradient is not None
        finally:
            v1.enable_control_flow_v2()


def test_a_graph_tells_which_variables_were_read(graph):
    with purpose("a FuncGraph knows the variables read in it", "FuncGraph._watched_variables, in _graph/reads.py"):
        v = tf.Variable(X, name="v")
        tf.sin(v)
        assert [(read.path, read.variable is v) for read in reads.variables_read(graph, [])] == [("v", True)]


def test_a_handle_tells_the_dtype_of_its_variable():
    with purpose("a handle knows its variable's dtype", "_handle_data and handle_data_util, in _graph/values.py"):
        assert values.variable_dtype(tf.Variable(X).handle) is tf.float64
        with tf.Graph().as_default():
            assert values.variable_dtype(v1.get_variable("v", [2], use_resource=True).handle) is tf.float32
        assert values.variable_dtype(tf.constant(1.0)) is None


def test_a_monitored_session_gives_the_one_inside():
    with (
        purpose("a monitored session has a plain one inside", "_tf_sess, in _graph/values.py"),
        tf.Graph().as_default(),
    ):
        v1.train.create_global_step()
        with v1.train.MonitoredSession() as session:
            assert isinstance(values.raw_session(session), v1.Session)


def test_control_edges_of_a_graph_can_be_changed():
    look = "Operation._add_control_input(s), _remove_all_control_inputs and _control_outputs, in _watchdog/session.py"
    with purpose("a hook holds back updates", look), tf.Graph().as_default():
        loss, v = v1.placeholder(tf.float32, []), v1.get_variable("v", [], use_resource=True)
        write = v.assign(loss, read_value=False)
        with tf.control_dependencies([write]):
            after = tf.no_op()
        SessionWatch([("loss", loss)], 1)
        assert [op.type for op in write.control_inputs] == ["Identity"]
        assert [op.type for op in after.control_inputs] == ["Merge"]


def test_reference_variables_are_known():
    with purpose("variables of TensorFlow 1 are told apart", "_variable and _is_ref_dtype, in _graph/sources.py"):
        with tf.Graph().as_default():
            old = v1.get_variable("old", [2], use_resource=False)
            new = v1.get_variable("new", [2], use_resource=True)
        assert sources.is_reference(old)
        assert sources.begin_of(old).dtype._is_ref_dtype
        assert not sources.is_reference(new)


def test_a_variable_gives_the_tensor_that_reads_it_and_a_session_whether_it_is_closed():
    look = "Variable._graph_element and Session._closed, in _graph/questions.py"
    with purpose("variables and sessions tell of themselves", look), tf.Graph().as_default() as graph:
        v = v1.get_variable("v", [2])
        assert questions.reading(v).graph is graph
        session = v1.Session()
        assert questions._open(session) is session
        session.close()
        with pytest.raises(ValueError, match="must be open"):
            questions._open(session)


def test_an_op_knows_the_line_that_made_it(graph):
    with purpose("an op knows its traceback", "Operation.traceback, in _graph/provenance.py"):
        y = tf.sin(v1.placeholder(tf.float64, [2]))
        found = place(graph, y.op.name)
        assert found.file.endswith("test_private_tensorflow.py")
        assert "tf.sin" in found.source


def test_the_default_summary_writer_of_a_thread_is_known(tmp_path):
    with purpose("finding the default summary writer", "gradcheck/tensorboard/_transport.py"):
        assert default_writer() is None
        writer = tf.summary.create_file_writer(str(tmp_path))
        with writer.as_default():
            assert default_writer() is writer


def test_a_tf_function_can_be_traced_anew_in_a_second_variant():
    with purpose("cloning a tf.function with its options", "variants in gradcheck/tensorboard/_transport.py"):
        function = tf.function(lambda x: x + 1, jit_compile=True)
        one, other = variants(function)
        assert len({id(function), id(one), id(other)}) == 3
        assert one._jit_compile
        output, left = one(tf.constant(1))
        assert (int(output), left) == (2, {})
        assert other.experimental_get_tracing_count() == function.experimental_get_tracing_count() == 0


class Doubling:
    """A method that is a `tf.function`, which AutoGraph converts."""

    @tf.function
    def until(self, x, *, most=8):
        leave("x", [x])
        while x < most:
            x *= 2
        return x


@pytest.mark.parametrize("autograph", [True, False])
def test_tensors_leave_a_tf_function_beside_its_outputs(autograph):
    def shifted(x, by=2):
        leave("b", [x])
        leave("a", [2 * x, 3 * x])
        return {"sum": x + by, "none": None}

    with purpose("adding outputs to a tf.function", "variants in gradcheck/tensorboard/_transport.py"):
        one, _ = variants(tf.function(shifted, autograph=autograph))
        output, left = one(tf.constant(1), by=3)
        assert (int(output["sum"]), output["none"]) == (4, None)
        assert {name: [int(t) for t in tensors] for name, tensors in left.items()} == {"a": [2, 3], "b": [1]}
        if autograph:
            output, left = variants(Doubling().until)[0](tf.constant(1), most=5)
            assert (int(output), [int(t) for t in left["x"]]) == (8, [1])


def test_a_function_of_many_is_not_warned_of(caplog):
    with purpose("silencing the warning of frequent tracing", "without_warning in gradcheck/tensorboard/_transport.py"):

        def traced(silent):
            function = tf.function(lambda x: x + 1)
            (without_warning(function) if silent else function)(tf.constant(1))

        for silent, warned in ((True, False), (False, True)):
            for _ in range(8):
                traced(silent)
            assert ("retracing" in caplog.text) == warned


def test_a_table_in_a_variable_is_filled_by_compiled_code_and_read_without_a_copy():
    with purpose("leaving vectors in a variable under XLA", "Mailbox in gradcheck/tensorboard/_transport.py"):
        mailbox = Mailbox(1)

        @tf.function(jit_compile=True)
        def put(step):
            mailbox.put(step, tf.ones([1], tf.float64) / 2)

        put(tf.constant(3, tf.int64))
        found = mailbox.empty(7.0)
        assert (found.numbers, found.times, found.seen[0].tolist()) == ([3], [7.0], [0.5])
        assert mailbox.empty(8.0).numbers == []


def test_the_variables_of_an_optimizer_are_known():
    with purpose("finding what apply(gradients) updates", "gradcheck/tensorboard/_fit.py"):
        variable = keras.Variable([1.0])
        optimizer = keras.optimizers.SGD()
        optimizer.build([variable])
        assert list(optimizer._trainable_variables) == [variable]


def test_keyword_arguments_of_a_custom_gradient_are_refused_in_a_graph_and_can_be_bound(graph):
    @tf.custom_gradient
    def power(x, exponent=2.0):
        return x**exponent, lambda up: up * exponent

    what = "a custom gradient that is called with keyword arguments can be traced with them bound"
    with purpose(what, "custom_gradient._graph_mode_decorator, in _graph/keywords.py"):
        x = v1.placeholder(tf.float64, [2], name="x")
        with pytest.raises(ValueError, match="keyword") as refused:
            power(x, exponent=3.0)
        assert keywords.is_refused(refused.value)
        with keywords.bound_keywords():
            y = power(x, exponent=3.0)
        assert y.op.type == "IdentityN"
        with pytest.raises(ValueError, match="keyword"):
            power(x, exponent=3.0)


def test_random_kernels_count_as_generators_do():
    tf.random.set_seed(3)

    @tf.function
    def draws():
        return tf.random.uniform([5]), tf.random.normal([7], dtype=tf.float64), tf.random.truncated_normal([9])

    with purpose("the numbers of random kernels, drawn by ops that are told a state", "_graph/kernels.py"):
        guarded = Guarded(draws.get_concrete_function())
        assert len(guarded.kernels) == 3
        for _ in range(2):
            for own, found in zip(draws(), guarded([]).outputs, strict=True):
                np.testing.assert_array_equal(own, found)


def test_all_that_is_written_can_wait_for_a_tensor():
    count = tf.Variable(0)

    @tf.function
    def counting(x):
        hold_writes(x)
        count.assign_add(1)

    with purpose("which variables an op uses, asked when a function is traced", "_graph/gates.py"):
        ops = counting.get_concrete_function(tf.constant(1.0)).graph.get_operations()
        (write,) = [op for op in ops if op.type == "AssignAddVariableOp"]
        assert [op.name for op in write.control_inputs] == ["gradcheck_gate"]


def test_an_op_of_a_gradient_knows_the_op_that_it_differentiates():
    with (
        purpose("telling that ys are gradients already", "_original_op, in _graph/already.py"),
        tf.Graph().as_default(),
    ):
        x = tf.constant(X)
        y = tf.sin(x)
        (gradient,) = tf.gradients(y, x)
        assert gradient.op._original_op is y.op
        assert y.op._original_op is None


def test_tensors_of_a_graph_can_be_given_values_for_a_while(graph):
    with purpose("values for Python while a function is traced", "SymbolicTensor, in _graph/concrete.py"):
        known = tf.Variable([2.0, 3.0])
        with seen_by_python() as trace, graph.as_default():
            fn = trace.around(lambda x: [float(x[0]), np.asarray(x * known).tolist(), f"{x[1]:.1f}", len(x)], [X], {})
            assert fn(tf.compat.v1.placeholder(tf.float32, [2])) == [X[0], [1.0, 3.0], "1.0", 2]
            assert not graph.outputs
        for name in ("numpy", "__float__", "__index__"):
            assert not hasattr(ops.SymbolicTensor, name)
        with graph.as_default(), pytest.raises(NotImplementedError):
            known.numpy()


def test_ops_that_run_at_once_are_seen():
    wide = tf.constant([1.0, 2.0], tf.float64)
    with purpose("callbacks of ops that run at once", "_compare/watched.py"):
        with float32_seen() as seen:
            wide * 0.5 + np.float64(0.1)
            assert seen == []
            tf.cast(0.1, tf.float64)
            assert seen == ["Cast"]
        tf.constant(1.0) + 1.0
        assert seen == ["Cast"]


def test_a_function_that_is_not_inlined_stays_one_op():
    what = "functions that are called seldom cost nothing where they are not called"
    with purpose(what, "_noinline, in _watchdog/deciding.py"):

        @tf.function
        def outer(x):
            kept = tf.function(lambda x: tf.sin(tf.cos(x)), experimental_attributes={"_noinline": True})
            return kept(x) + tf.function(tf.tan)(x)

        frozen = convert_variables_to_constants_v2(outer.get_concrete_function(tf.constant(1.0)))
        types = {node.op for node in frozen.graph.as_graph_def().node}
        assert "Tan" in types
        assert types.isdisjoint({"Sin", "Cos"})


def test_the_graph_of_a_function_knows_the_one_around_it():
    with purpose("finding what is outside a function", "outer_graph, in _graph/ and tensorboard/_transport.py"):
        found = []

        def look():
            graph = tf.compat.v1.get_default_graph()
            found.append((graph, graph.outer_graph, is_within_another()))

        inner = tf.function(look)
        tf.function(lambda: look() or inner())()
        tf.function(look)()
        (around, _, _), (_, outer, within), (_, _, alone) = found
        assert outer is around
        assert (within, alone) == (True, False)
