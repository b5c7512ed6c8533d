"""Gradients as `SummaryWriter.gradients` records them: eagerly, in graphs, under XLA, in two variants of a step."""

import contextlib
import logging
import math
import time
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from benchmarks.killed import lost_nothing, what_killed_writers_left
from test_gradient_statistics import CASES, _expected

from gradcheck.tensorboard import SummaryWriter, _transport, read_events
from gradcheck.tensorboard._queue import _at_exit

WAYS = {"eager": lambda f: f, "graph": tf.function, "xla": tf.function(jit_compile=True)}


class Trained:
    """Four variables, one of which gets no gradient, and a step that halves w."""

    def __init__(self):
        self.w = tf.Variable([3.0, 4.0], name="w")
        self.kernel = tf.Variable([[1.0, 2.0], [2.0, 4.0]], name="net/kernel")
        self.bias = tf.Variable([0.0], name="net/bias")
        self.idle = tf.Variable([1.0], name="idle")
        self.step = tf.Variable(0, dtype=tf.int64)
        self.variables = [self.w, self.kernel, self.bias, self.idle]

    def train(self, record):
        """A step as users write it; `record` gets the step, gradients and variables."""

        def step(x):
            with tf.GradientTape() as tape:
                loss = x * (tf.reduce_sum(self.w**2) / 2 + tf.reduce_sum(self.kernel**2) + self.bias[0] * 0)
            gradients = tape.gradient(loss, self.variables)
            with record(self.step, gradients, self.variables):
                for variable, gradient in zip(self.variables, gradients, strict=True):
                    if gradient is not None:
                        variable.assign_sub(0.5 * gradient)
            self.step.assign_add(1)
            return loss

        return step


@pytest.mark.parametrize("recorded", [False, True], ids=["called", "record"])
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("way", ["eager", "graph", pytest.param("xla", marks=pytest.mark.slow)])
def test_a_training_is_recorded_step_by_step(way, every, recorded, tmp_path):
    trained = Trained()
    with SummaryWriter(tmp_path, every=every) as writer:
        step = WAYS[way](trained.train(writer.gradients))
        if recorded:
            step = writer.record(step)
        losses = [float(step(tf.constant(1.0))) for _ in range(4)]
    assert losses[0] == 12.5 + 25
    assert trained.w.numpy().tolist() == [3 / 16, 4 / 16]
    found = read_events(tmp_path)
    expected = {0: 5.0, 1: 2.5, 2: 1.25, 3: 0.625}
    for tag in ("gradient_norm/w", "weight_norm/w"):
        series = found.scalars[tag]
        assert dict(zip(series.steps, series.values, strict=True)) == {
            k: v for k, v in expected.items() if k % every == 0
        }
    assert found.scalars["update_ratio/w"].values == (0.5,) * (4 // every)
    assert found.scalars["gradient_norm/net"].values[0] == pytest.approx(10)
    assert found.scalars["global_norm/gradients"].values[0] == pytest.approx(125**0.5)
    assert found.scalars["gradient_zero/net/bias"].values == (1.0,) * (4 // every)
    assert found.scalars["gradient_largest/net/kernel"].values[0] == 8
    assert "update_ratio/net/bias" not in found.scalars  # of zeros there is no ratio
    assert sorted(found.histograms) == ["gradients/net/bias", "gradients/net/kernel", "gradients/w"]
    assert found.histograms["gradients/w"].values[0][:, 2].sum() == 2
    assert found.texts["gradients_none"].values == ("No gradient arrives at:\n\n- `idle`",)
    assert found.notes == ()


def test_what_is_no_finite_number_is_counted_and_the_rest_drawn(tmp_path):
    """NaN, infinities, zero-size, scalar, all dtypes, IndexedSlices and None, as TensorBoard reads them."""
    gradients = {name.replace(" ", "_"): value for name, value in CASES.items()} | {"none": None}
    with SummaryWriter(tmp_path) as writer:
        for step in range(2):
            writer.gradients(step, list(gradients.values()), list(gradients))
    found = read_events(tmp_path)
    for name, value in CASES.items():
        tag = name.replace(" ", "_")
        expected = _expected(value)
        for kind in ("nan", "posinf", "neginf", "zero", "subnormal"):
            assert found.scalars[f"gradient_{kind}/{tag}"].values[1] == expected[kind]
        assert np.isfinite(found.histograms[f"gradients/{tag}"].values[1]).all()
        with np.errstate(over="ignore"):
            norm = np.float32(expected["norm"])
        assert found.scalars[f"gradient_norm/{tag}"].values[1] == pytest.approx(norm, rel=3e-6, nan_ok=True)
    _drawn_by_tensorboard(tmp_path, found)


def _drawn_by_tensorboard(logdir, found):
    """What the pages HISTOGRAMS and DISTRIBUTIONS ask TensorBoard's own reader and compressor for."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.plugins.histogram import metadata

    read = accumulator.EventAccumulator(str(logdir)).Reload()
    for tag, series in found.histograms.items():
        assert read.SummaryMetadata(tag).plugin_data.plugin_name == metadata.PLUGIN_NAME
        for event, mine in zip(read.Tensors(tag), series.values, strict=True):
            assert tf.make_ndarray(event.tensor_proto).tolist() == mine.tolist()
    assert set(found.scalars) <= set(read.Tags()["tensors"])


def test_a_default_writer_of_tensorflow_takes_gradients_also_from_graphs(tmp_path):
    trained = Trained()
    writer = SummaryWriter()
    traced = tf.function(trained.train(writer.gradients))
    with tf.summary.create_file_writer(str(tmp_path)).as_default():
        traced(tf.constant(1.0))
        trained.train(writer.gradients)(tf.constant(1.0))
        writer.record(tf.function(lambda: writer.gradients(7, [G], ["x"]) and None))()  # does not wait
        tf.summary.flush()
    found = read_events(tmp_path).scalars
    assert (found["gradient_norm/w"].steps, found["gradient_norm/x"].steps) == ((0, 1), (7,))
    trained.train(writer.gradients)(tf.constant(1.0))  # there is none: nothing is written, as by tf.summary
    assert read_events(tmp_path).scalars["gradient_norm/w"].steps == (0, 1)


@pytest.mark.parametrize("way", ["graph", "xla"])
def test_nothing_is_left_of_recording_in_the_steps_between(way, tmp_path):
    trained = Trained()
    writer = SummaryWriter(tmp_path, every=3)
    step = writer.record(WAYS[way](trained.train(writer.gradients)))
    for _ in range(2):
        step(tf.constant(1.0))
    plain = WAYS[way](trained.train(lambda *_: contextlib.nullcontext()))

    def ops(function):
        return Counter(op.type for op in function.get_concrete_function(tf.constant(1.0)).graph.get_operations())

    assert ops(step._off) == ops(plain)
    assert ops(step._on) != ops(plain)
    assert step._off.experimental_get_tracing_count() == step._on.experimental_get_tracing_count() == 1
    writer.close()
    assert read_events(tmp_path).scalars["gradient_norm/w"].steps == (0,)


@pytest.mark.parametrize("recorded", [False, True], ids=["called", "record"])
def test_no_update_comes_before_what_is_recorded_of_its_variable(recorded, tmp_path):
    """It would copy the variable, whose value is still held."""
    trained = Trained()
    with SummaryWriter(tmp_path) as writer:
        step = tf.function(trained.train(writer.gradients))
        graph = (writer.record(step)._on if recorded else step).get_concrete_function(tf.constant(1.0)).graph
    updates = [op for op in graph.get_operations() if op.type == "AssignSubVariableOp"]
    assert len(updates) == 3
    for update in updates:
        assert "gradcheck_gate" in [op.name for op in update.control_inputs]


def test_an_inner_function_is_recorded_at_the_same_steps(tmp_path):
    trained = Trained()
    with SummaryWriter(tmp_path, every=2) as writer:
        inner = tf.function(trained.train(writer.gradients))
        step = writer.record(tf.function(lambda x: 1 * inner(x)), first_step=4)
        for _ in range(4):
            step(tf.constant(1.0))
    assert read_events(tmp_path).scalars["gradient_norm/w"].steps == (0, 2)


def test_what_waits_too_long_in_a_compiled_function_is_said_to_be_lost(tmp_path, caplog):
    number = tf.Variable(0, dtype=tf.int64)
    with SummaryWriter(tmp_path, histograms=False) as writer, caplog.at_level(logging.WARNING, "gradcheck"):

        @tf.function(jit_compile=True)
        def step():
            writer.gradients(number, [G], ["x"])
            number.assign_add(1)

        for _ in range(40):
            step()
        writer.flush()
        step()
    assert read_events(tmp_path).scalars["gradient_norm/x"].steps == tuple(range(8, 41))
    assert "8 steps of a compiled function were not recorded" in caplog.text


def test_a_loop_is_recorded_in_each_iteration(tmp_path):
    trained = Trained()
    with SummaryWriter(tmp_path) as writer:
        one = trained.train(writer.gradients)

        @tf.function
        def several(x):
            for _ in tf.range(3):
                one(x)

        writer.record(several)(tf.constant(1.0))
        several(tf.constant(1.0))
    assert read_events(tmp_path).scalars["gradient_norm/w"].steps == tuple(range(6))


def test_traces_of_a_step_share_what_it_is_read_from(tmp_path):
    number = tf.Variable(0, dtype=tf.int64)
    with SummaryWriter(tmp_path, histograms=False) as writer:

        @tf.function
        def train(x):
            writer.gradients(number, [G], ["x"])
            writer.gradients(number, [2 * G], ["x"])
            return tf.reduce_sum(x)

        step = writer.record(train)
        for k in range(4):
            number.assign(k)
            step(tf.zeros([1 + k % 2]))
        assert step._on.experimental_get_tracing_count() == len(writer._queued) // 2 == 2
    norm = math.sqrt(5)
    series = read_events(tmp_path).scalars["gradient_norm/x"]
    assert series.steps == (0, 0, 1, 1, 2, 2, 3, 3)
    assert series.values == pytest.approx([norm, 2 * norm] * 4)


def test_a_step_that_fails_leaves_nothing_to_the_next(tmp_path):
    number = tf.Variable(0, dtype=tf.int64)

    @tf.function
    def train(x):
        writer.gradients(number, [G], ["x"])
        tf.debugging.assert_less(x, 1.0)

    with SummaryWriter(tmp_path, histograms=False, flush_millis=10**6) as writer:
        step = writer.record(train)
        step(tf.constant(0.0))
        assert read_events(tmp_path).scalars == {}
        number.assign(1)
        with pytest.raises(tf.errors.InvalidArgumentError):
            step(tf.constant(2.0))
        assert read_events(tmp_path).scalars["gradient_norm/x"].steps in [(0,), (0, 1)]  # what led to it is on disk
        number.assign(2)
        step(tf.constant(0.0))
    assert read_events(tmp_path).scalars["gradient_norm/x"].steps in [(0, 2), (0, 1, 2)]


def recording(logdir, way="graph", **options):
    """A writer, and a step that it records, of one gradient."""
    writer = SummaryWriter(logdir, histograms=False, **{"flush_millis": 10**6, **options})
    number = tf.Variable(0, dtype=tf.int64)

    def step():
        writer.gradients(number, [G], ["x"])
        number.assign_add(1)

    return writer, writer.record(WAYS[way](step))


def on_disk(logdir):
    found = read_events(logdir).scalars if logdir.exists() else {}
    return found["gradient_norm/x"].steps if found else ()


@pytest.mark.parametrize("way", ["graph", pytest.param("xla", marks=pytest.mark.slow)])
def test_recorded_steps_wait_and_are_written_together(way, tmp_path):
    writer, step = recording(tmp_path, way, max_queue=3)
    seen, clock = [], [time.time()]
    for _ in range(5):
        step()
        clock.append(time.time())
        seen.append(on_disk(tmp_path))
    assert seen == [(), (), (0, 1, 2), (0, 1, 2), (0, 1, 2)]
    writer.flush()
    assert on_disk(tmp_path) == (0, 1, 2, 3, 4)
    step()
    writer.close()
    assert on_disk(tmp_path) == (0, 1, 2, 3, 4, 5)
    step()  # outlives its writer
    assert writer._queue._waiting == 0
    events = tf.compat.v1.train.summary_iterator(str(next(tmp_path.iterdir())))
    times = [event.wall_time for event in events if event.summary.value]
    assert times == sorted(times)
    assert all(begun <= at <= ended for begun, at, ended in zip(clock, times, clock[1:], strict=False))  # its own


def test_how_long_steps_wait_can_be_chosen(tmp_path, monkeypatch):
    writer, step = recording(tmp_path / "one", max_queue=1)
    for k in range(2):
        step()
        assert on_disk(tmp_path / "one") == tuple(range(k + 1))
    writer.close()
    _, step = recording(tmp_path / "soon", flush_millis=20)
    step()
    del _, step
    ends = time.monotonic() + 60
    while on_disk(tmp_path / "soon") != (0,):
        assert time.monotonic() < ends
        time.sleep(0.01)
    monkeypatch.setattr(_transport, "_ROOM", 100)
    writer, step = recording(tmp_path / "exit")
    for _ in range(2 * writer._queue.most):
        step()
        if on_disk(tmp_path / "exit"):
            break
    together = writer._queue.most  # as many as have room in memory
    assert 1 < together < 32
    assert on_disk(tmp_path / "exit") == tuple(range(together))
    step()
    assert on_disk(tmp_path / "exit") == tuple(range(together))
    _at_exit()
    assert on_disk(tmp_path / "exit") == tuple(range(together + 1))
    writer.close()


def test_a_function_in_a_step_of_python_is_recorded_at_the_steps_that_are_due(tmp_path):
    number = tf.Variable(-1, dtype=tf.int64)
    with SummaryWriter(tmp_path, every=2, histograms=False) as writer:

        @tf.function
        def inner(factor):
            writer.gradients(number, [factor * G], ["x"])

        def step():
            number.assign_add(1)
            for k in range(3):
                inner(tf.constant(10.0**k))

        step = writer.record(step)
        for _ in range(4):
            step()
    series = read_events(tmp_path).scalars["gradient_norm/x"]
    assert series.steps == (0, 0, 0, 2, 2, 2)
    assert series.values == pytest.approx([5**0.5 * 10**k for k in range(3)] * 2)


def test_names_tell_variables_apart(tmp_path):
    twins = [tf.Variable(1.0), tf.Variable(2.0)]
    with SummaryWriter(tmp_path) as writer:
        writer.gradients(0, {"b": tf.constant(3.0), "a": tf.constant(4.0)}, {"b": twins[0], "a": twins[1]})
        writer.gradients(0, tf.constant(5.0), "named")
    scalars = read_events(tmp_path).scalars
    assert {t: s.values for t, s in scalars.items() if t.startswith("gradient_norm/")} == {
        "gradient_norm/Variable_1": (4.0,), "gradient_norm/Variable_2": (3.0,), "gradient_norm/named": (5.0,),
    }  # fmt: skip


def test_weights_are_drawn_too_if_asked(tmp_path):
    trained = Trained()
    with SummaryWriter(tmp_path, weights=True, histograms=False) as writer:
        tf.function(trained.train(writer.gradients))(tf.constant(1.0))
    found = read_events(tmp_path)
    assert sorted(found.histograms) == ["weights/idle", "weights/net/bias", "weights/net/kernel", "weights/w"]
    assert found.scalars["weight_norm/net/kernel"].values == (5.0,)
    assert found.scalars["gradient_subnormal/w"].values == (0.0,)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("histograms", [False, True])
def test_what_a_graph_computes_itself_is_what_numpy_finds(histograms, weights, tmp_path):
    found = []
    for way in ("eager", "graph"):
        trained = Trained()
        with SummaryWriter(tmp_path / way, histograms=histograms, weights=weights) as writer:
            step = writer.record(WAYS[way](trained.train(writer.gradients)))
            for _ in range(2):
                step(tf.constant(1.0))
        events = read_events(tmp_path / way)
        found.append((
            {tag: series.values for tag, series in events.scalars.items()},
            {tag: [table.tolist() for table in series.values] for tag, series in events.histograms.items()},
        ))  # fmt: skip
    assert found[0] == found[1]
    assert any(tag.startswith("update_ratio/") for tag in found[0][0])


def test_where_no_gradient_arrives_that_is_said(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        for step in range(2):
            writer.gradients(step, [None], ["x"])
    found = read_events(tmp_path)
    assert found.texts["gradients_none"].values == ("No gradient arrives at:\n\n- `x`",)
    assert (found.scalars, found.notes) == ({}, ())


@pytest.mark.parametrize("way", ["eager", "graph"])
def test_weights_that_are_not_finite_are_recorded_as_such(way, tmp_path):
    trained = Trained()
    trained.w.assign([math.inf, 1.0])
    with SummaryWriter(tmp_path) as writer:
        WAYS[way](trained.train(writer.gradients))(tf.constant(1.0))
    scalars = read_events(tmp_path).scalars
    assert scalars["weight_norm/w"].values == (math.inf,)
    assert math.isnan(scalars["update_ratio/w"].values[0])
    assert scalars["gradient_posinf/w"].values == (1,)


@pytest.mark.parametrize("way", ["eager", "graph"])
def test_the_norm_of_weights_whose_squares_are_lost_is_right(way, tmp_path):
    trained = Trained()
    trained.w.assign([3e-25, 4e-25])
    with SummaryWriter(tmp_path, histograms=False) as writer:
        WAYS[way](trained.train(writer.gradients))(tf.constant(0.0))
    scalars = read_events(tmp_path).scalars
    assert scalars["weight_norm/w"].values == (pytest.approx(5e-25, rel=1e-6),)
    assert scalars["update_ratio/w"].values == (0.0,)


W = tf.Variable([1.0, 2.0], name="w")
G = tf.constant([1.0, 2.0])


@pytest.mark.parametrize(
    ("error", "match", "step", "gradients", "variables"),
    [
        (ValueError, "found 1 variables and 2 gradients", 0, [G, G], [W]),
        (ValueError, r"gradient 0 has the shape \(1,\), its variable \(2,\)", 0, [G[:1]], [W]),
        (TypeError, "variables must hold variables, or names as strings; found int at 0", 0, [G], [7]),
        (TypeError, "gradients must be tensors, IndexedSlices or None.*found float at position 0", 0, [1.0], [W]),
        (TypeError, "found ResourceVariable at position 0", 0, [W], [W]),
        (TypeError, "gradients must be floating or complex; found int32", 0, [tf.constant([1, 2])], [W]),
        (TypeError, "step must be a whole number", 1.5, [G], [W]),
        (TypeError, "step must be a whole number", True, [G], [W]),
        (TypeError, "step must be a whole number", tf.constant([1]), [G], [W]),
        (ValueError, "step is None, and tf.summary has no default step", None, [G], [W]),
    ],
)
def test_misuse_is_said_before_anything_is_written(error, match, step, gradients, variables, tmp_path):
    with SummaryWriter(tmp_path / "new") as writer, pytest.raises(error, match=match):
        writer.gradients(step, gradients, variables)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("error", "match", "options"),
    [
        (TypeError, "every must be a whole number; got every=1.5", {"every": 1.5}),
        (ValueError, "every must be at least 1; got every=0", {"every": 0}),
        (TypeError, "histograms must be True or False", {"histograms": 1}),
        (TypeError, "weights must be True or False", {"weights": None}),
        (ValueError, "on_error must be one of 'log', 'raise'", {"on_error": "ignore"}),
        (TypeError, "logdir must be a path", {"logdir": 7}),
        (ValueError, "max_queue must be at least 1; got max_queue=0", {"max_queue": 0}),
        (TypeError, "flush_millis must be a whole number; got flush_millis=0.5", {"flush_millis": 0.5}),
    ],
)
def test_a_writer_says_what_it_does_not_take(error, match, options):
    with pytest.raises(error, match=match):
        SummaryWriter(**{"logdir": "logs", **options})


def test_what_cannot_be_recorded_twice_is_refused(tmp_path):
    writer = SummaryWriter(tmp_path)
    with pytest.raises(TypeError, match="step must be callable, got int"):
        writer.record(7)
    with pytest.raises(TypeError, match=r"give writer\.record the tf\.function"):
        writer.record(tf.function(lambda: G).get_concrete_function())
    with tf.Graph().as_default(), pytest.raises(ValueError, match=r"gradcheck\.tensorboard\.v1\.gradient_summaries"):
        writer.gradients(0, [tf.constant(1.0)], ["x"])
    for step in (lambda x: x, tf.function(lambda x: x)):
        with pytest.raises(ValueError, match=r"outer = writer\.record\(outer\)"):
            tf.data.Dataset.range(2).map(writer.record(step))
    writer.close()
    with pytest.raises(ValueError, match="was closed; make a new one"):
        writer.gradients(0, [G], [W])


def test_a_step_outlives_its_writer(tmp_path):
    trained = Trained()
    with SummaryWriter(tmp_path) as writer:
        step = tf.function(trained.train(writer.gradients))
        step(tf.constant(1.0))
    step(tf.constant(1.0))
    assert trained.w.numpy().tolist() == [0.75, 1.0]
    assert read_events(tmp_path).scalars["gradient_norm/w"].steps == (0,)


@pytest.mark.parametrize("way", ["eager", "graph"])
def test_a_training_goes_on_where_nothing_can_be_written(way, tmp_path, caplog):
    (tmp_path / "file").write_text("no directory")
    trained = Trained()
    with SummaryWriter(tmp_path / "file" / "logs") as writer, caplog.at_level(logging.WARNING, "gradcheck"):
        step = WAYS[way](trained.train(writer.gradients))
        for _ in range(3):
            step(tf.constant(1.0))
    assert trained.step.numpy() == 3
    assert ["training goes on without" in r.getMessage() for r in caplog.records if r.name == "gradcheck"] == [True]
    assert "Recording" not in caplog.text  # TensorFlow warns of nothing that is ours
    raising = SummaryWriter(tmp_path / "file" / "logs", on_error="raise", max_queue=2)
    with pytest.raises(tf.errors.OpError):
        WAYS[way](trained.train(raising.gradients))(tf.constant(1.0))
    step = raising.record(WAYS[way](lambda: raising.gradients(0, [G], ["x"]) and None))
    with pytest.raises(tf.errors.FailedPreconditionError):
        [step() for _ in range(2)]


def test_two_writers_on_one_directory_do_not_disturb_each_other(tmp_path):
    with SummaryWriter(tmp_path) as one, SummaryWriter(tmp_path) as other:
        for step in range(3):
            one.gradients(step, [G], ["one"])
            other.gradients(step, [2 * G], ["other"])
    found = read_events(tmp_path)
    assert found.notes == ()
    assert found.scalars["gradient_norm/one"].steps == found.scalars["gradient_norm/other"].steps == (0, 1, 2)


def test_recording_changes_no_state_of_random_generators(tmp_path):
    tf.random.set_seed(1)
    before = tf.random.get_global_generator().state.numpy().tolist()
    numbers = np.random.get_state()[1].tolist()
    with SummaryWriter(tmp_path) as writer:
        tf.function(Trained().train(writer.gradients))(tf.constant(1.0))
    assert tf.random.get_global_generator().state.numpy().tolist() == before
    assert np.random.get_state()[1].tolist() == numbers


@pytest.mark.slow
def test_what_was_recorded_before_a_kill_is_read(tmp_path):
    for way, left in what_killed_writers_left(tmp_path, 0.3).items():
        assert lost_nothing(*left), (way, left)
