"""A traced training step is run again on copies: the op is named, and nothing of the user's changes."""

import gc
import os
import subprocess
import sys
import tempfile
import textwrap
import time
import weakref
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradcheck._diagnose.nonfinite import locate
from gradcheck._errors import GraphUnavailable


def state(*owners):
    found = []
    for owner in owners:
        found += [v.numpy().tobytes() for v in owner.variables]
    return found


def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dropout(0.5), keras.layers.Dense(3)]
    )


def training(loss_of, optimizer=None, net=None, **options):
    """A model, its optimizer and a traced step."""
    net = net or model()
    optimizer = optimizer or keras.optimizers.Adam(0.1)
    optimizer.build(net.trainable_variables)

    @tf.function(**options)
    def step(x):
        with tf.GradientTape() as tape:
            loss = loss_of(net(x, training=True))
        gradients = tape.gradient(loss, net.trainable_variables)
        optimizer.apply_gradients(zip(gradients, net.trainable_variables, strict=True))
        return loss

    return net, optimizer, step


def length(y):
    return tf.reduce_mean(tf.sqrt(tf.reduce_sum(tf.square(y * 0.0), -1)))  # here


@pytest.mark.parametrize("options", [{}, {"jit_compile": True}], ids=["plain", "jit_compile"])
def test_a_fault_of_the_backward_pass_is_named_and_no_weight_changes(options):
    net, optimizer, step = training(length, **options)
    x = tf.ones([5, 4])
    concrete = step.get_concrete_function(x)
    before = state(net, optimizer)
    report = locate(concrete, [x])
    assert state(net, optimizer) == before
    assert (report.op_type, report.forward.op_type, report.cause) == ("SqrtGrad", "Sqrt", "singularity")
    assert report.place.source.endswith("# here")
    assert any("kernel" in name for name in report.reaches)


def test_a_healthy_step_gets_no_finding():
    _, _, step = training(lambda y: tf.reduce_mean(tf.square(y)))
    x = tf.ones([5, 4])
    assert locate(step.get_concrete_function(x), [x]).ok


def test_dropout_draws_what_it_drew_in_the_step():
    net, _, step = training(lambda y: tf.reduce_mean(tf.square(y)))
    x = tf.ones([5, 4])
    seeds = [layer.seed_generator.state for layer in net.layers if hasattr(layer, "seed_generator")]
    before = {seed.value.ref(): seed.numpy() for seed in seeds}
    dropped = []

    @tf.function
    def draws(x):
        y = net.layers[1](tf.ones([1, 64]), training=True)
        return tf.math.log(y) * tf.reduce_sum(x)

    concrete = draws.get_concrete_function(x)
    before = {seed.value.ref(): seed.numpy() for seed in seeds}
    dropped = concrete(x).numpy()
    report = locate(concrete, [x], before)
    assert report.index == tuple(np.argwhere(~np.isfinite(dropped))[0])
    assert report.output.neginf == int(np.sum(~np.isfinite(dropped)))
    del step


def test_a_generators_draws_are_repeated_from_the_state_before():
    generator = tf.random.Generator.from_seed(7)

    @tf.function
    def draws():
        return tf.math.log(generator.uniform([50]) - 0.5)

    concrete = draws.get_concrete_function()
    before = generator.state.numpy()
    found = concrete().numpy()
    after = generator.state.numpy()
    report = locate(concrete, [], {generator.state.ref(): before})
    assert report.output.nan == int(np.isnan(found).sum())
    np.testing.assert_array_equal(generator.state.numpy(), after)


def test_weights_before_the_step_may_be_given():
    v = tf.Variable(4.0, name="v")

    @tf.function
    def step(x):
        y = tf.sqrt(v * x)
        v.assign_sub(100.0)
        return y

    concrete = step.get_concrete_function(tf.constant(1.0))
    concrete(tf.constant(1.0))
    assert locate(concrete, [tf.constant(1.0)]).op_type == "Sqrt"
    assert locate(concrete, [tf.constant(1.0)], {v.ref(): 4.0}).ok
    assert v.numpy() == -96.0


def test_assignments_in_branches_and_loops_are_followed():
    v = tf.Variable(3.0)

    @tf.function
    def step(x):
        for _ in tf.range(3):
            if x > 0.0:
                v.assign_sub(1.0)
        return tf.math.log(v)

    x = tf.constant(1.0)
    report = locate(step.get_concrete_function(x), [x])
    assert (report.op_type, report.kind) == ("Log", "-Inf")
    assert v.numpy() == 3.0


def test_a_fault_of_the_optimizer_is_named():
    net, optimizer, step = training(lambda y: tf.reduce_mean(y) * 0.0, keras.optimizers.Adam(0.1, epsilon=0.0))
    x = tf.ones([5, 4])
    before = state(net, optimizer)
    report = locate(step.get_concrete_function(x), [x])
    assert state(net, optimizer) == before
    assert (report.op_type, report.kind) == ("RealDiv", "NaN")
    assert report.inputs[1].there == "0"


def test_fused_optimizer_ops_are_named_too():
    v = tf.Variable([1.0, 2.0])

    @tf.function
    def step(g):
        tf.raw_ops.ResourceApplyGradientDescent(var=v.handle, alpha=tf.constant(1e38), delta=g)

    g = tf.constant([1.0, 100.0])
    report = locate(step.get_concrete_function(g), [g])
    assert (report.op_type, report.kind, report.index) == ("ResourceApplyGradientDescent", "-Inf", (1,))
    np.testing.assert_array_equal(v.numpy(), [1.0, 2.0])


def test_a_guard_that_skips_the_update_is_seen_through():
    net, optimizer, _ = training(length)

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            loss = length(net(x, training=True))
        gradients = tape.gradient(loss, net.trainable_variables)
        healthy = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in gradients])
        if healthy:
            optimizer.apply_gradients(zip(gradients, net.trainable_variables, strict=True))
        return loss

    x = tf.ones([5, 4])
    report = locate(step.get_concrete_function(x), [x])
    assert report.op_type == "SqrtGrad"


def test_a_sparse_gradient_is_followed():
    table = tf.Variable(tf.ones([10, 2]), name="table")
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build([table])

    @tf.function
    def step(ids):
        with tf.GradientTape() as tape:
            rows = tf.gather(table, ids)
            loss = tf.reduce_sum(tf.sqrt(rows - 1.0))  # here
        gradient = tape.gradient(loss, table)
        optimizer.apply_gradients([(gradient, table)])
        return loss

    ids = tf.constant([3, 4])
    report = locate(step.get_concrete_function(ids), [ids])
    assert (report.op_type, report.place.source.endswith("# here")) == ("SqrtGrad", True)
    np.testing.assert_array_equal(table.numpy(), np.ones([10, 2]))


def test_keras_train_steps_are_run_again():
    net = model()
    net.compile("adam", loss=lambda y, p: tf.reduce_mean(tf.math.log(p - p)))  # here
    net.optimizer.build(net.trainable_variables)
    step = tf.function(lambda x, y: net.train_step((x, y)))
    x, y = tf.ones([8, 4]), tf.zeros([8, 3])
    before = state(net)
    report = locate(step.get_concrete_function(x, y), [x, y])
    assert (report.op_type, report.place.source.endswith("# here")) == ("Log", True)
    assert state(net) == before


def test_summaries_prints_and_assertions_do_not_run(tmp_path, capfd):
    writer = tf.summary.create_file_writer(str(tmp_path))

    @tf.function
    def step(x):
        with writer.as_default():
            tf.summary.write("x", x, step=1)
        tf.print("printed", x)
        tf.debugging.assert_all_finite(tf.math.log(x), "message")
        return tf.math.log(x)

    x = tf.constant(0.0)
    concrete = step.get_concrete_function(x)
    writer.flush()
    size = sum(f.stat().st_size for f in tmp_path.iterdir())
    assert locate(concrete, [x]).op_type == "Log"
    writer.flush()
    assert sum(f.stat().st_size for f in tmp_path.iterdir()) == size
    assert "printed" not in capfd.readouterr().err


def test_enable_check_numerics_does_not_get_in_the_way():
    tf.debugging.enable_check_numerics()
    try:
        step = tf.function(lambda x: tf.math.log(x) * 2.0)
        x = tf.constant([1.0, 0.0])
        report = locate(step.get_concrete_function(x), [x])
    finally:
        tf.debugging.disable_check_numerics()
    assert (report.op_type, report.index) == ("Log", (1,))


def test_keyword_structured_and_flat_arguments_are_taken():
    @tf.function
    def step(batch, scale):
        return tf.math.log(batch["x"] * scale) + batch["y"]

    batch = {"x": tf.constant([1.0, 0.0]), "y": tf.constant([1.0, 1.0])}
    scale = tf.constant(1.0)
    concrete = step.get_concrete_function(batch, scale)
    assert locate(concrete, [batch, scale]).op_type == "Log"
    assert locate(concrete, [batch], keywords={"scale": scale}).op_type == "Log"
    assert locate(concrete, [batch["x"], batch["y"], scale]).op_type == "Log"


def test_a_draw_that_cannot_be_repeated_is_told():
    step = tf.function(lambda x: tf.math.log(tf.random.uniform([3]) * x))
    x = tf.constant(0.0)
    report = locate(step.get_concrete_function(x), [x])
    assert report.op_type == "Log"
    assert report.notes == ("RandomUniform drew other numbers than in the step itself",)


def test_a_step_that_takes_its_batch_from_a_data_set_is_refused():
    batches = iter(tf.data.Dataset.from_tensors(tf.ones([2])).repeat())
    step = tf.function(lambda: tf.math.log(next(batches)))
    with pytest.raises(GraphUnavailable, match="let the function take that value as an argument"):
        locate(step.get_concrete_function(), [])


def test_what_a_step_does_not_take_is_refused():
    v = tf.Variable([1.0, 2.0], name="v")
    step = tf.function(lambda x: x * v)
    concrete = step.get_concrete_function(tf.ones([2]))
    with pytest.raises(TypeError, match=r"function must be a ConcreteFunction.*found Function"):
        locate(step, [tf.ones([2])])
    with pytest.raises(TypeError, match=r"arguments must be those of .*found none"):
        locate(concrete, [])
    with pytest.raises(TypeError, match=r"variables must map variable\.ref\(\) to a value, found a key of type str"):
        locate(concrete, [tf.ones([2])], {"v": 1.0})
    with pytest.raises(ValueError, match=r"variables must give 'v:0' a value of shape \(2,\), found shape \(3,\)"):
        locate(concrete, [tf.ones([2])], {v.ref(): [1.0, 2.0, 3.0]})


def test_nothing_is_left_behind():
    v = tf.Variable(0.0)

    def once():
        def step(x):
            with tf.GradientTape() as tape:
                loss = length(x * v)
            return tape.gradient(loss, v)

        x = tf.ones([5, 4])
        concrete = tf.function(step).get_concrete_function(x)
        assert not locate(concrete, [x]).ok
        return weakref.ref(concrete.graph)

    graphs = [once() for _ in range(3)]
    gc.collect()
    assert all(graph() is None for graph in graphs)


@pytest.mark.parametrize(("layers", "seconds"), [(3, 0.6), (13, 2.0)])
def test_a_step_is_searched_within_the_time_promised(layers, seconds):
    net = keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(8, activation="tanh") for _ in range(layers))])
    net, _, step = training(length, keras.optimizers.SGD(0.1, momentum=0.9), net)
    x = tf.ones([5, 4])
    concrete = step.get_concrete_function(x)
    start = time.process_time()
    locate(concrete, [x])
    took = time.process_time() - start
    assert len(concrete.graph.get_operations()) > {3: 130, 13: 390}[layers]
    assert took < 2 * seconds  # the machine that runs tests may be busy


@pytest.mark.slow
def test_a_step_of_two_replicas_is_run_on_one_device():
    code = textwrap.dedent(
        """
        import tensorflow as tf
        from gradcheck._diagnose.nonfinite import locate

        cpus = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        with strategy.scope():
            v = tf.Variable([1.0, 2.0], name="v")

        @tf.function
        def step(x):
            def replica(x):
                with tf.GradientTape() as tape:
                    loss = tf.reduce_sum(tf.sqrt(x * v))  # here
                gradient = tape.gradient(loss, v)
                total = tf.distribute.get_replica_context().all_reduce("SUM", gradient)
                v.assign_sub(0.1 * total)
                return loss

            return strategy.reduce("SUM", strategy.run(replica, args=(x,)), axis=None)

        x = tf.constant([0.0, 1.0])
        report = locate(step.get_concrete_function(x), [x])
        assert report.op_type == "SqrtGrad", report
        assert report.place.source.endswith("# here"), report
        assert v.numpy().tolist() == [1.0, 2.0]
        healthy = tf.constant([1.0, 1.0])
        assert locate(step.get_concrete_function(healthy), [healthy]).ok
        """
    )
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "replicas.py"
        script.write_text(code)
        done = subprocess.run(
            [sys.executable, str(script)], check=False, capture_output=True, text=True, timeout=200,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
