"""Steps under watch: healthy ones do what they did, tripped ones leave nothing behind, in every way a step may run."""

import logging
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

import gradcheck
from gradcheck import NonfiniteTrip, Watchdog
from gradcheck._replay import replay

X = tf.random.stateless_normal([16, 4], (1, 2))
Y = tf.random.stateless_normal([16, 2], (1, 3))
BAD = tf.where(tf.range(16)[:, None] == 3, np.float32("nan"), X)

OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda: keras.optimizers.Adam(0.01, amsgrad=True),
    "clipped": lambda: keras.optimizers.RMSprop(0.01, global_clipnorm=1.0, use_ema=True),
    "accumulating": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, momentum=0.9)),
}


class Training:
    """A model with every kind of state: weights, slots, moving averages, seeds, a generator, a metric."""

    def __init__(self, optimizer="momentum", activation="relu"):
        keras.utils.set_random_seed(0)
        self.model = keras.Sequential([
            keras.Input((4,)), keras.layers.Dense(8, activation=activation), keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3), keras.layers.GaussianNoise(0.1), keras.layers.Dense(2),
        ])  # fmt: skip
        self.optimizer = OPTIMIZERS[optimizer]()
        self.optimizer.build(self.model.trainable_variables)
        self.metric = keras.metrics.Mean()
        self.generator = tf.random.Generator.from_seed(7)

    def step(self, x, y):
        with tf.GradientTape() as tape:
            noise = 0.01 * self.generator.normal(tf.shape(x))
            loss = tf.reduce_mean((self.model(x + noise, training=True) - y) ** 2)
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, self.model.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.model.trainable_variables, strict=True))
        self.metric.update_state(loss)
        return {"loss": loss}

    @property
    def state(self):
        held = [*self.model.variables, *self.optimizer.variables, *self.metric.variables]
        return [np.asarray(v).tobytes() for v in held] + [self.generator.state.numpy().tobytes()]


RUNS = {
    "eager": lambda step: step,
    "function": tf.function,
    "compiled": lambda step: tf.function(step, jit_compile=True),
    "nested": lambda step: _calling(tf.function(step)),
    "looping": lambda step: tf.function(lambda x, y: _twice(step, x, y)),
}


def _calling(inner):
    @tf.function
    def outer(x, y):
        return inner(x, y)

    return outer


def _twice(step, x, y):
    loss = tf.constant(0.0)
    for _ in tf.range(2):
        loss = step(x, y)["loss"]
    return {"loss": loss}


def slow(names, quick):
    return [pytest.param(n, marks=[] if n in quick else pytest.mark.slow) for n in names]


@pytest.mark.parametrize("run", slow(RUNS, ["function"]))
def test_a_healthy_step_does_what_it_did_and_a_tripped_one_leaves_every_bit_as_it_was(run):
    plain, watched = Training(), Training()
    step = RUNS[run](plain.step)
    watchdog = Watchdog(action="skip")
    guarded = watchdog.watch(RUNS[run](watched.step))
    for _ in range(3):
        np.testing.assert_array_equal(step(X, Y)["loss"], guarded(X, Y)["loss"])
    assert watched.state == plain.state
    assert watchdog.trips == 0
    before = watched.state
    guarded(BAD, Y)
    assert watched.state == before
    assert watchdog.trips == 1
    np.testing.assert_array_equal(step(X, Y)["loss"], guarded(X, Y)["loss"])
    assert watched.state == plain.state


@pytest.mark.parametrize("optimizer", slow(sorted(OPTIMIZERS), ["clipped"]))
def test_every_slot_of_every_optimizer_is_as_it_was(optimizer):
    plain, watched = Training(optimizer, "tanh"), Training(optimizer, "tanh")
    step, watchdog = tf.function(plain.step), Watchdog(action="skip")
    guarded = watchdog.watch(tf.function(watched.step))
    for _ in range(3):
        step(X, Y), guarded(X, Y)
    assert watched.state == plain.state
    guarded(BAD, Y)
    assert watched.state == plain.state
    assert watchdog.trips == 1


def drawing(run, drawn):
    """A step that draws in every way that keeps its state in a kernel."""
    tf.random.set_seed(4)

    @tf.function
    def inner():
        return tf.random.truncated_normal([3])

    def step(x):
        noise = tf.random.uniform([3]) + (inner() if run is tf.function else 0.0)
        for _ in tf.range(2):
            noise += tf.random.normal([3])
            if noise[0] > 0.0:
                noise += tf.cast(tf.random.uniform([3], 0, 9, tf.int32), tf.float32)
        drawn.assign(x * tf.nn.dropout(noise, 0.5))

    return run(step)


@pytest.mark.parametrize("run", [tf.function, lambda step: step], ids=["function", "eager"])
def test_numbers_that_a_tripped_step_drew_are_drawn_again(run):
    """Also by `tf.random.uniform` and its like, whose state no variable holds: as if the step had not been."""
    drawn = tf.Variable(tf.zeros([3]))
    step, expected, found = drawing(run, drawn), [], []
    for _ in range(4):
        step(tf.constant(1.0))
        expected.append(drawn.numpy().tobytes())
    watchdog = Watchdog("skip")
    watched = watchdog.watch(drawing(run, drawn))
    for x in (1.0, 1.0, np.nan, 1.0, np.nan, 1.0):
        watched(tf.constant(x))
        found.append(drawn.numpy().tobytes())
    assert watchdog.trips == 2
    assert [found[k] for k in (0, 1, 3, 5)] == expected
    assert (found[2], found[4]) == (found[1], found[3])


def test_the_op_is_found_on_the_numbers_that_the_step_drew():
    w, reports = tf.Variable(0.0), []
    tf.random.set_seed(1)

    @tf.function
    def step():
        w.assign(tf.math.log(tf.nn.relu(tf.random.normal([]))))

    watched = Watchdog(lambda report: reports.append(report) or "log").watch(step)
    for _ in range(12):
        watched()
    located = [r for r in reports if r.in_a_row <= 3]
    assert 3 <= len(located) < 12
    assert all((r.nonfinite.op_type, r.nonfinite.kind, r.notes) == ("Log", "-Inf", ()) for r in located)


class Hiding(keras.layers.Layer):
    """Takes a logarithm where it may not, and lets nobody see."""

    def call(self, x):
        log = keras.layers.Lambda(tf.math.log, name="log")(x)
        return x + tf.where(x > 0.1, tf.stop_gradient(log), 0.0)


@pytest.mark.parametrize("run", slow(["eager", "function", "compiled"], ["function"]))
def test_layer_outputs_are_looked_at_where_asked(run, tmp_path):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((4,)), keras.layers.Dense(8, "relu"), Hiding(name="hiding"), keras.layers.Dense(2)]
    model = keras.Sequential(layers, name="net")
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build(model.trainable_variables)

    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x) - y) ** 2)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    plain = Watchdog("skip")
    plain.watch(RUNS[run](step))(X, Y)
    assert plain.trips == 0
    before = [np.asarray(v).tobytes() for v in (*model.variables, *optimizer.variables)]
    asked = Watchdog("skip", layer_outputs=True, dump_dir=tmp_path)
    asked.watch(RUNS[run](step))(X, Y)
    assert [np.asarray(v).tobytes() for v in (*model.variables, *optimizer.variables)] == before
    assert [f.name.rpartition("/")[2] for f in asked.report.found] == ["log"]
    assert asked.report.found[0].name.startswith("output of net/hiding")
    found = asked.report.nonfinite
    assert (found.op_type, found.cause, found.kind) == ("Log", "singularity", "-Inf")
    assert replay(asked.report.bundle)[1] == found
    assert keras.layers.Layer.__call__.__qualname__ == "Layer.__call__"


def test_without_the_watch_the_same_step_loses_its_weights():
    """The test above can fail."""
    training = Training()
    before = training.state
    tf.function(training.step)(BAD, Y)
    assert any(np.isnan(w).any() for w in training.model.get_weights())
    assert training.state != before


def test_a_function_that_was_traced_before_is_guarded_and_the_op_is_named():
    w = tf.Variable([4.0, 0.25])

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.sqrt(w * x))  # here
        w.assign_sub(0.1 * tape.gradient(loss, w))
        return loss

    step(tf.constant([1.0, 1.0]))
    before = w.numpy().tobytes()
    with pytest.raises(NonfiniteTrip, match=r"^step 1 of step is not finite: nothing was written") as raised:
        Watchdog().watch(step)(tf.constant([1.0, 0.0]))
    assert w.numpy().tobytes() == before
    report = raised.value.report
    assert report.nonfinite.op_type in ("SqrtGrad", "RealDiv")
    assert "# here" in report.nonfinite.forward.source
    (found,) = [f for f in report.found if f.name.startswith("change of")]
    assert (found.posinf + found.nan, found.shape) == (1, (2,))


def test_a_nan_that_a_fused_kernel_hides_from_the_loss_is_seen():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(1)])
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(x) ** 2)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    before = [w.tobytes() for w in model.get_weights()]
    with pytest.raises(NonfiniteTrip):
        Watchdog().watch(step)(BAD)
    assert [w.tobytes() for w in model.get_weights()] == before


def test_a_nan_born_in_the_optimizer_is_seen_before_it_is_written():
    w, slot = tf.Variable([1.0, 2.0]), tf.Variable([0.0, 0.0])

    @tf.function
    def step(gradient):
        slot.assign(0.9 * slot + gradient**2)
        w.assign_sub(gradient / tf.sqrt(slot))  # 0/0 where the gradient was always 0
        return tf.reduce_sum(w)

    before = w.numpy().tobytes(), slot.numpy().tobytes()
    with pytest.raises(NonfiniteTrip) as raised:
        Watchdog().watch(step)(tf.constant([1.0, 0.0]))
    assert (w.numpy().tobytes(), slot.numpy().tobytes()) == before
    assert raised.value.report.nonfinite.op_type == "RealDiv"
    assert raised.value.report.nonfinite.where.endswith(f"{__name__.rpartition('.')[2]}.py:{_line_of('0/0 where')}")


def _line_of(text):
    with open(__file__, encoding="utf-8") as file:
        return next(k for k, line in enumerate(file, 1) if text in line)


def test_an_overflow_of_a_slot_is_seen_though_the_weights_stay_finite():
    w, second = tf.Variable(1.0), tf.Variable(0.0)

    @tf.function
    def step(gradient):
        second.assign(0.9 * second + 0.1 * gradient**2)
        w.assign_sub(0.1 * gradient / tf.sqrt(second))

    watchdog = Watchdog(action="skip")
    watchdog.watch(step)(tf.constant(1e30))
    assert [(f.name.partition(" of")[0], f.posinf) for f in watchdog.report.found] == [("new value", 1)]
    assert (w.numpy(), second.numpy()) == (1.0, 0.0)


def test_a_sum_of_squares_that_overflows_is_no_trip():
    w = tf.Variable([1.0, 2.0])

    @tf.function
    def step(x):
        w.assign_add(x)

    watchdog = Watchdog()
    watchdog.watch(step)(tf.constant([1e25, -3e38]))
    assert watchdog.trips == 0
    np.testing.assert_array_equal(w, np.float32([1e25, -3e38]))


def test_the_op_is_named_where_the_step_took_its_batch_from_an_iterator(tmp_path):
    w = tf.Variable(2.0, name="w")

    @tf.function
    def step(batches):
        x, scale = next(batches)
        loss = tf.reduce_sum(tf.math.log(w * x)) * scale
        w.assign_sub(loss)
        return loss

    data = tf.data.Dataset.from_tensor_slices(([1.0, 0.0, 2.0], [1.0, 2.0, 3.0]))
    watchdog = Watchdog(action="skip", dump_dir=tmp_path)
    watched, batches = watchdog.watch(step), iter(data)
    for _ in data:
        watched(batches)
    report = watchdog.report
    assert (watchdog.trips, report.step, report.notes) == (1, 2, ())
    assert (report.nonfinite.op_type, report.nonfinite.kind) == ("Log", "-Inf")
    assert str(replay(report.bundle)[1]) == str(report.nonfinite)


@pytest.mark.parametrize("traced", [True, False])
def test_an_entry_of_a_batch_that_is_a_dict_is_called_by_its_key(traced):
    w = tf.Variable(1.0, name="w")

    def step(batch, scale):
        w.assign(tf.reduce_sum(batch["later"] * batch["first"]) * scale)

    watchdog = Watchdog(action="skip")
    watched = watchdog.watch(tf.function(step) if traced else step)
    watched({"later": tf.constant([1.0, np.nan]), "first": tf.constant([1.0, 2.0])}, tf.constant(2.0))
    assert watchdog.report.nonfinite.hint.startswith("batch['later'] is not finite")


def test_the_op_of_a_step_in_python_with_defaults_is_named():
    w = tf.Variable(1.0, name="w")

    def step(x, mode="log", training=True):
        w.assign(tf.math.log(x * w) if mode == "log" and training else x)

    watchdog = Watchdog(action="skip")
    watched = watchdog.watch(step)
    for call in ({}, {"mode": "log"}, {"training": True}):
        watched(tf.constant(0.0), **call)
        assert watchdog.report.nonfinite is not None, watchdog.report
        assert watchdog.report.nonfinite.op_type == "Log"


def test_an_object_that_refuses_to_say_which_variables_it_has_is_watched():
    class Stateless(tf.Module):
        @property
        def variables(self):
            raise ValueError("contains no variables")

        def __call__(self, x):
            return tf.math.log(x)

    w, layer, watchdog = tf.Variable(1.0), Stateless(), Watchdog(action="skip")
    watched = watchdog.watch(tf.function(lambda x: w.assign(layer(x * w))))
    watched(tf.constant(0.0))
    assert watchdog.report.nonfinite.op_type == "Log"
    assert w.numpy() == 1.0


def test_what_was_infinite_before_is_no_trip():
    lowest = tf.Variable([np.inf, 1.0])

    @tf.function
    def step(x):
        lowest.assign(tf.minimum(lowest, x))

    watchdog = Watchdog()
    watched = watchdog.watch(step)
    watched(tf.constant([np.inf, 0.5]))
    watched(tf.constant([2.0, 0.25]))
    np.testing.assert_array_equal(lowest, [2.0, 0.25])
    assert watchdog.trips == 0


@pytest.mark.parametrize("traced", [True, False])
def test_weights_that_were_nan_before_are_told_once(caplog, traced):
    w, rest = tf.Variable([np.nan, 1.0], name="w"), tf.Variable([np.nan], trainable=False, name="rest")

    def step(x):
        w.assign_sub(tf.nn.relu(w * x) * 0.1 + 0.0 * tf.reduce_sum(x) * tf.cast(rest > 0, tf.float32))

    watchdog = Watchdog()
    watched = watchdog.watch(tf.function(step) if traced else step)
    for _ in range(2):
        watched(tf.constant([1.0, 1.0]))
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith("NaN before step=1 variable=w: 1 of its entries; ")
    assert watchdog.trips == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64", "complex64", "complex128"])
def test_other_dtypes(dtype):
    w = tf.Variable(tf.cast([1.0, 2.0], dtype))

    @tf.function
    def step(x):
        w.assign_sub(x)
        return tf.reduce_sum(w)

    watchdog = Watchdog(action="skip")
    watched = watchdog.watch(step)
    watched(tf.cast([0.5, 0.25], dtype))
    np.testing.assert_array_equal(tf.cast(w, "complex64"), [0.5, 1.75])
    nan = tf.constant(complex(1, np.nan), dtype) if dtype.startswith("complex") else tf.cast(np.nan, dtype)
    watched(tf.stack([nan, tf.cast(1.0, dtype)]))
    np.testing.assert_array_equal(tf.cast(w, "complex64"), [0.5, 1.75])
    assert [f.nan for f in watchdog.report.found] == [1, 1]


def test_rows_of_a_sparse_gradient():
    table = tf.Variable(tf.ones([5, 2]))

    @tf.function
    def step(ids, x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.gather(table, ids) * x)
        gradient = tape.gradient(loss, table)
        assert isinstance(gradient, tf.IndexedSlices)
        table.scatter_sub(gradient)

    watchdog = Watchdog(action="skip")
    watched = watchdog.watch(step)
    watched(tf.constant([1, 1, 3]), tf.constant(0.5))
    expected = np.ones([5, 2])
    expected[1], expected[3] = 0.0, 0.5
    np.testing.assert_array_equal(table, expected)
    watched(tf.constant([0, 4]), tf.constant(np.inf))
    np.testing.assert_array_equal(table, expected)
    assert watchdog.report.found[0].name == "rows of Variable"


def test_an_assignment_that_is_read_again_is_followed():
    a, b = tf.Variable(1.0), tf.Variable(0.0)

    @tf.function
    def step(x):
        a.assign_add(x)
        b.assign(a * 2.0)
        a.assign_sub(tf.sqrt(b))
        return a + b

    plain = float(step(tf.constant(3.0)))
    after = a.numpy(), b.numpy()
    a.assign(1.0), b.assign(0.0)
    watched = Watchdog(action="skip").watch(step)
    assert float(watched(tf.constant(3.0))) == plain
    assert (a.numpy(), b.numpy()) == after
    watched(tf.constant(-1000.0))
    assert (a.numpy(), b.numpy()) == after


def test_writes_within_branches_are_taken_back():
    v, n = tf.Variable([1.0]), tf.Variable(0)

    @tf.function
    def step(x):
        n.assign_add(1)
        if x > 0.0:
            v.assign(v / x)
        else:
            v.assign(v / (x - x))
        return n

    watched = Watchdog(action="skip").watch(step)
    watched(tf.constant(2.0))
    watched(tf.constant(-1.0))
    assert (v.numpy().tolist(), n.numpy()) == ([0.5], 1)


def test_arguments_are_told_apart_as_the_function_does():
    v = tf.Variable(0.0)

    @tf.function
    def step(data, scale=2, *, sign):
        v.assign_add(sign * scale * tf.reduce_sum(data["b"]) - tf.reduce_sum(data["a"][0]))
        return data

    watched = Watchdog().watch(step)
    data = {"b": np.ones([2], "float32"), "a": [tf.ones([1])]}
    returned = watched(data, sign=tf.constant(1.0))
    assert v.numpy() == 3.0
    assert sorted(returned) == ["a", "b"]
    watched(data, 5, sign=tf.constant(-1.0))
    assert v.numpy() == -8.0
    watched(sign=tf.constant(1.0), data={"b": np.ones([3], "float32"), "a": [tf.ones([1])]})
    assert v.numpy() == -3.0
    watched(data, scale=0, sign=tf.constant(1.0))
    assert v.numpy() == -4.0


def test_methods_and_concrete_functions():
    class Owner:
        def __init__(self):
            self.v = tf.Variable(1.0)

        @tf.function
        def step(self, x):
            self.v.assign(tf.math.log(x))
            return x

        def plain(self, x):
            self.v.assign(tf.math.log(x))

    owner = Owner()
    for step in (owner.step, owner.step.get_concrete_function(tf.constant(1.0)), owner.plain):
        owner.v.assign(5.0)
        Watchdog(action="skip").watch(step)(tf.constant(0.0))
        assert owner.v.numpy() == 5.0
        Watchdog().watch(step)(tf.constant(1.0))
        assert owner.v.numpy() == 0.0


def test_an_eager_step_gives_back_random_states_and_what_it_made():
    made = []

    def step(x):
        if not made:
            made.append(tf.Variable(2.0))
        made[0].assign_sub(x + np.random.rand())
        return x

    watched = Watchdog(action="skip").watch(step)
    state = np.random.get_state()[1].tobytes()
    watched(tf.constant(np.nan))
    assert made[0].numpy() == 2.0
    assert np.random.get_state()[1].tobytes() == state
    np.random.seed(0)
    watched(tf.constant(1.0))
    first = made[0].numpy()
    made[0].assign(2.0)
    np.random.seed(0)
    watched(tf.constant(np.nan))
    watched(tf.constant(1.0))
    assert made[0].numpy() == first


def test_variables_that_an_eager_step_changes_may_be_named():
    hidden = {"deep": {}}
    hidden["deep"]["v"] = v = tf.Variable(1.0)
    stranger = [lambda: hidden["deep"]["v"]]
    seen = Watchdog(action="skip").watch(lambda x: stranger[0]().assign(x), variables=[v])
    seen(tf.constant(np.inf))
    assert v.numpy() == 1.0


def takes_arrays(w, x, _):
    with tf.GradientTape() as tape:
        y = w * x
        z = tf.sqrt(y / float(np.max(np.abs(y.numpy()))))  # here
        loss = tf.reduce_sum(z)
    w.assign_sub(tape.gradient(loss, w))
    return loss.numpy()


def takes_decisions(w, x, scale):
    w.assign_add([1.0, 0.0])
    if tf.reduce_sum(x) > 0.5 and not np.isnan(x).any():
        for k in range(int(scale)):
            x = x + float(k) * len(x)
    said = f"{tf.reduce_sum(x):.3f}"
    nothing = 2.0 - w.numpy()[0]  # 1 but for the assignment
    w.assign(tf.math.log(x * nothing))  # here
    return {"said": said}


def takes_rows(w, x, scale):
    total = [0.0]
    for row in w * x:
        total.append(total[-1] + (1.0 / row) * scale)  # here
    w.assign_sub(np.asarray([np.asarray(t) for t in total[1:]]))
    return total[-1]


def makes_it_in_numpy(w, x, _):
    with np.errstate(all="ignore"):
        w.assign(tf.constant(np.log(x.numpy())))  # here


@pytest.mark.parametrize(
    ("step", "op"),
    [(takes_arrays, "SqrtGrad"), (takes_decisions, "Log"), (takes_rows, "RealDiv"), (makes_it_in_numpy, "Const")],
    ids=lambda value: getattr(value, "__name__", value),
)  # fmt: skip
def test_the_op_of_a_step_that_takes_values_into_python_is_named(step, op, tmp_path):
    w = tf.Variable([1.0, 4.0])
    watchdog = Watchdog(action="skip", dump_dir=tmp_path)
    watchdog.watch(lambda *args, **options: step(w, *args, **options))(tf.constant([1.0, 0.0]), 3.0)
    found = watchdog.report.nonfinite
    assert found is not None, watchdog.report
    assert (found.op_type, found.place.source[-6:]) == (op, "# here")
    assert "takes into Python" in watchdog.report.notes[0]
    assert w.numpy().tolist() == [1.0, 4.0]
    assert (tmp_path / watchdog.report.bundle).exists()


def test_a_step_that_no_graph_can_hold_says_why_and_what_to_write():
    v = tf.Variable(1.0)

    def step(x):
        if not tf.executing_eagerly():
            raise KeyError("eager only")
        v.assign(tf.math.log(x))

    watchdog = Watchdog(action="skip")
    watchdog.watch(step)(tf.constant(0.0))
    (note,) = watchdog.report.notes
    assert note.startswith("the op is not named, because the step cannot be traced: KeyError at test_watch_steps.py:")
    assert note.endswith("or hand that to gradcheck.find_nonfinite")


class TestActions:
    def step(self, v):
        @tf.function
        def step(x):
            v.assign_add(x)
            return v

        return step

    def test_skips_in_a_row_are_limited_and_a_healthy_step_ends_the_row(self):
        v = tf.Variable(0.0)
        watchdog = Watchdog(action="skip", max_skips=2)
        watched = watchdog.watch(self.step(v))
        bad, good = tf.constant(np.nan), tf.constant(1.0)
        for x in (bad, bad, good, bad, bad):
            watched(x)
        assert watchdog.report.in_a_row == 2
        with pytest.raises(NonfiniteTrip, match="3 steps in a row have tripped, more than max_skips=2"):
            watched(bad)
        assert (v.numpy(), watchdog.trips, watchdog.steps) == (1.0, 5, 6)

    def test_log_has_no_limit(self, caplog):
        v = tf.Variable(0.0)
        watched = Watchdog(action="log", max_skips=0).watch(self.step(v))
        with caplog.at_level(logging.WARNING, "gradcheck"):
            for _ in range(3):
                watched(tf.constant(np.nan))
        assert v.numpy() == 0.0
        messages = [r.getMessage() for r in caplog.records]
        assert [m.partition(" op=")[0] for m in messages] == [
            f"trip step={k} name=step action=log in_a_row={k}" for k in (1, 2, 3)
        ]
        assert all(r.name == "gradcheck" for r in caplog.records)
        assert all(" op=x where=None" in m for m in messages)

    def test_rollback_goes_to_the_last_kept_state(self):
        v = tf.Variable(0.0)
        watched = Watchdog(action="rollback", snapshot_every=2).watch(self.step(v))
        for _ in range(5):  # states are kept at 0, 2 and 4
            watched(tf.constant(1.0))
        watched(tf.constant(np.nan))
        assert v.numpy() == 4.0

    def test_stop_raises_at_the_next_step_until_reset(self):
        v = tf.Variable(0.0)
        watchdog = Watchdog(action="stop")
        watched = watchdog.watch(self.step(v))
        watched(tf.constant(np.nan))
        assert watchdog.stopped
        with pytest.raises(NonfiniteTrip, match="training stops"):
            watched(tf.constant(1.0))
        watchdog.reset()
        watched(tf.constant(1.0))
        assert v.numpy() == 1.0

    def test_a_callable_sees_the_report_and_decides(self):
        v, seen = tf.Variable(0.0), []

        def decide(report):
            seen.append(report)
            return "raise" if report.in_a_row == 2 else None

        watched = Watchdog(action=decide).watch(self.step(v))
        watched(tf.constant(np.nan))
        with pytest.raises(NonfiniteTrip):
            watched(tf.constant(np.nan))
        assert [(r.step, r.action) for r in seen] == [(1, "undecided"), (2, "undecided")]
        assert v.numpy() == 0.0

    def test_only_every_nth_step_is_looked_at(self):
        v = tf.Variable(0.0)
        watchdog = Watchdog(action="skip", every=3)
        watched = watchdog.watch(self.step(v))
        watched(tf.constant(1.0)), watched(tf.constant(1.0))
        watched(tf.constant(np.nan))
        assert (v.numpy(), watchdog.trips) == (2.0, 1)
        watched(tf.constant(np.nan))
        assert np.isnan(v.numpy())


def test_the_last_twenty_steps_are_kept_with_norms_ratios_and_ends():
    v = tf.Variable([3.0, 4.0], name="v")

    @tf.function
    def step(x):
        v.assign_add(x)
        return tf.reduce_sum(x)

    watchdog = Watchdog()
    watched = watchdog.watch(step)
    for _ in range(25):
        v.assign([3.0, 4.0])
        watched(tf.constant([-0.3, 0.4]))
    assert [s.number for s in watchdog.history] == list(range(6, 26))
    last = watchdog.history[-1]
    assert last.outputs == (("output", pytest.approx(0.1)),)
    (layer,) = last.layers
    assert (layer.name, layer.norm, layer.ratio) == ("v", pytest.approx(0.5), pytest.approx(0.1))
    assert (layer.low, layer.high) == (pytest.approx(-0.3), pytest.approx(0.4))


@pytest.mark.slow
def test_a_loss_scale_that_falls_for_ever_is_a_trip_and_a_few_overflows_are_none():
    training = Training("loss scale")
    watchdog = Watchdog(action="skip", max_skips=3)
    w = training.model.trainable_variables[0]

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(training.model(X) ** 2)
            scaled = training.optimizer.scale_loss(loss) * x
        gradients = tape.gradient(scaled, training.model.trainable_variables)
        training.optimizer.apply(gradients, training.model.trainable_variables)
        return loss

    watched = watchdog.watch(step)
    before = w.numpy().tobytes()
    for _ in range(10):
        watched(tf.constant(np.inf))
    assert watchdog.trips == 0
    for _ in range(10):
        watched(tf.constant(np.inf))
        if watchdog.trips:
            break
    assert "the LossScaleOptimizer has skipped" in str(watchdog.report)
    assert w.numpy().tobytes() == before


def test_in_worker_threads():
    watchdog = Watchdog(action="skip")

    def work(k):
        v = tf.Variable(float(k))

        @tf.function
        def step(x):
            v.assign_add(x)

        watched = watchdog.watch(step)
        for _ in range(5):
            watched(tf.constant(1.0)), watched(tf.constant(np.nan))
        results[k] = v.numpy()

    results = {}
    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert results == {k: k + 5.0 for k in range(4)}
    assert (watchdog.steps, watchdog.trips) == (40, 20)


def test_beside_enable_check_numerics():
    v = tf.Variable([1.0])

    @tf.function
    def step(x):
        v.assign_add(x)
        return tf.reduce_sum(v)

    tf.debugging.enable_check_numerics()
    try:
        watched = Watchdog().watch(step)
        watched(tf.constant([1.0]))
        with pytest.raises((NonfiniteTrip, tf.errors.InvalidArgumentError)):
            watched(tf.constant([np.nan]))
    finally:
        tf.debugging.disable_check_numerics()
    np.testing.assert_array_equal(v, [2.0])


def test_what_the_step_raises_comes_through():
    def step(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        Watchdog().watch(step)(tf.constant(1.0))


def test_a_watched_step_is_refused_inside_of_a_graph():
    watched = Watchdog().watch(tf.function(lambda x: x))
    with pytest.raises(ValueError, match=r"watch the outermost function that is called from Python$"):
        tf.function(watched.__call__)(tf.constant(1.0))


def test_a_step_in_a_with():
    v = tf.Variable(1.0)
    with gradcheck.watch(tf.function(v.assign), action="skip") as step:
        step(tf.constant(np.nan))
    assert v.numpy() == 1.0
