"""Event files: what is written is read back, whatever happens to the disk, the process and the package tensorboard."""

import logging
import math
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from gradcheck.tensorboard import assert_scalar_logged, read_events
from gradcheck.tensorboard._pages import hparams, layout
from gradcheck.tensorboard._reading import Image
from gradcheck.tensorboard._sink import DefaultWriter, EventFile
from gradcheck.tensorboard._values import image, text
from gradcheck.tensorboard._wire import histogram, scalar, summary

ROOT = str(Path(__file__).parents[2])
PNG = tf.io.encode_png(np.full((3, 5, 1), 200, np.uint8)).numpy()


def accumulated(logdir):
    """What TensorBoard's own reader makes of a run."""
    found = event_accumulator.EventAccumulator(str(logdir), {event_accumulator.TENSORS: 0})
    found.Reload()
    return found


def test_a_closed_file_takes_nothing(tmp_path):
    file = EventFile(tmp_path)
    file.close()
    with pytest.raises(ValueError, match=r"^the writer to .* was closed; make a new one$"):
        file.write(1, [scalar("loss", 1.0)])


def test_without_a_write_there_is_no_file(tmp_path):
    EventFile(tmp_path / "run").close()
    assert not (tmp_path / "run").exists()


NO_ACTION = r"^on_error must be one of 'log', 'raise'; got on_error='x'$"
NO_PNG = r"^png must hold a PNG picture; got 6 bytes that begin with b'GIF89a'$"


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: EventFile(3), TypeError, r"^logdir must be a path; got logdir=3$"),
        (
            lambda: EventFile("a", on_error="x"),
            ValueError,
            NO_ACTION,
        ),
        (lambda: image("a", b"GIF89a"), ValueError, NO_PNG),
    ],
)
def test_misuse_is_refused(make, error, said):
    with pytest.raises(error, match=said):
        make()


def test_two_writers_may_share_a_directory(tmp_path):
    sinks = [EventFile(tmp_path), EventFile(tmp_path)]
    for step in range(4):
        sinks[step % 2].write(step, [scalar("loss", step)])
    for sink in sinks:
        sink.close()
    assert len(list(tmp_path.iterdir())) == 2
    assert sorted(read_events(tmp_path).scalars["loss"].steps) == [0, 1, 2, 3]
    assert sorted(event.step for event in accumulated(tmp_path).Tensors("loss")) == [0, 1, 2, 3]


def test_nothing_is_printed_by_itself():
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("gradcheck").handlers)


class TestADiskThatFails:
    def test_is_said_once_and_stops_nothing(self, tmp_path, caplog):
        (tmp_path / "file").write_text("no directory")
        sink = EventFile(tmp_path / "file" / "run")
        with caplog.at_level(logging.WARNING, "gradcheck"):
            for step in range(3):
                sink.write(step, [scalar("loss", 1.0)])
            sink.close()
        (record,) = caplog.records
        assert record.getMessage().startswith(f"cannot write to {tmp_path / 'file' / 'run'}: ")
        assert record.getMessage().endswith("; training goes on without")

    def test_raises_where_that_was_asked_for(self, tmp_path):
        (tmp_path / "file").write_text("no directory")
        with pytest.raises((tf.errors.OpError, OSError)):
            EventFile(tmp_path / "file", on_error="raise").write(0, [scalar("loss", 1.0)])

    def test_is_tried_again_with_a_fresh_file(self, tmp_path, caplog, monkeypatch):
        monkeypatch.setattr("gradcheck.tensorboard._sink._PAUSE", 0.0)
        (tmp_path / "run").write_text("in the way")
        sink = EventFile(tmp_path / "run")
        sink.write(0, [scalar("loss", 1.0)])
        (tmp_path / "run").unlink()
        sink.write(1, [scalar("loss", 1.0)])
        sink.close()
        assert [r.getMessage().rpartition("; ")[2] for r in caplog.records] == [
            "training goes on without",
            "steps lost: 1",
        ]
        assert len(list((tmp_path / "run").iterdir())) == 1


BUCKETS = np.array([[-1.0, 0.0, 3.0], [0.0, 2.0, 4.0]])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A directory with every kind of value, of our sink, of TensorFlow's default writer and of tf.compat.v1."""
    logdir = tmp_path_factory.mktemp("logs")
    sink = EventFile(logdir / "run")
    for step in (1, 2):
        sink.write(step, [scalar("loss", step / 4), text("words", f"**{step}**"), histogram("values", BUCKETS * step)])
    sink.write(
        7, [image("picture", PNG), *layout({"Health": {"norms": ["norm/.*"]}}), *hparams({"rate": 0.1}, ["loss"])]
    )
    sink.close()
    with tf.summary.create_file_writer(str(logdir / "run" / "train")).as_default():
        DefaultWriter().write(
            5, [scalar("loss", math.inf), scalar("nan", math.nan), histogram("none", np.zeros([0, 3]))]
        )
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        old = tf.compat.v1.summary
        merged = old.merge([
            old.scalar("loss", tf.constant(0.75)),
            old.histogram("values", tf.constant([-1.0, 0.0, 0.5, 3.0])),
            old.image("picture", tf.zeros([1, 4, 6, 1])),
        ])  # fmt: skip
        writer = old.FileWriter(str(logdir / "run" / "old"), session.graph)
        writer.add_summary(session.run(merged), 9)
        writer.close()
    return logdir / "run"


class TestReading:
    def test_gives_back_what_was_written(self, written):
        found = read_events(written)
        assert found.notes == ()
        assert (found.scalars["loss"].steps, found.scalars["loss"].values) == ((1, 2), (0.25, 0.5))
        assert abs(found.scalars["loss"].wall_times[0] - time.time()) < 600
        assert found.texts["words"].values == ("**1**", "**2**")
        assert [h.tolist() for h in found.histograms["values"].values] == [BUCKETS.tolist(), (2 * BUCKETS).tolist()]
        assert found.images["picture"].values == ((Image(width=5, height=3, png=PNG),),)
        assert set(found.tensors) == {
            "custom_scalars__config__",
            "_hparams_/experiment",
            "_hparams_/session_start_info",
        }

    def test_gives_runs_inside_a_directory_each_on_its_own(self, written):
        found = read_events(written).runs
        assert set(found) == {"train", "old"}
        assert found["train"].scalars["loss"].values == (math.inf,)
        assert math.isnan(found["train"].scalars["nan"].values[0])
        assert found["train"].histograms["none"].values[0].shape == (0, 3)

    def test_knows_what_tensorflow_1_wrote(self, written):
        found = read_events(written / "old")
        assert (found.scalars["loss"].steps, found.scalars["loss"].values) == ((9,), (0.75,))
        (table,) = found.histograms["values"].values
        assert table[:, 2].sum() == 4
        assert (table[0, 0], table[-1, 1]) == (-1.0, 3.0)
        assert (table[:, 0] <= table[:, 1]).all()
        ((picture,),) = (found.images["picture/image/0"].values,)
        assert (picture[0].width, picture[0].height) == (6, 4)

    def test_works_without_eager_execution(self, written):
        with tf.Graph().as_default():
            assert read_events(written).scalars["loss"].steps == (1, 2)

    def test_what_others_wrote_oddly_is_noted_and_takes_nothing_from_the_rest(self, tmp_path):
        vector, pair = tf.make_tensor_proto([1.0, 2.0]), tf.make_tensor_proto([[1.0, 2.0]])
        odd = [
            (scalar("vector", 1.0), {"tensor": vector}),
            (histogram("pairs", BUCKETS), {"tensor": pair}),
            (image("sizes", PNG), {"tensor": tf.make_tensor_proto([b"wide", b"high", PNG])}),
            (scalar("sound", 1.0), {"audio": tf.compat.v1.Summary.Audio(sample_rate=1.0)}),
            (scalar("nothing", 1.0), {}),
            (scalar("empty", 1.0), {"histo": tf.compat.v1.HistogramProto()}),
            (text("letters", ""), {"tensor": tf.make_tensor_proto([b"\xff", b"a"])}),
        ]
        protos = tf.compat.v1.Summary.FromString(summary([value for value, _ in odd])).value
        values = [
            type(value)(tag=value.tag, metadata=value.metadata, **{"tensor": None, **content})
            for value, (_, content) in zip(protos, odd, strict=True)
        ]
        sink = EventFile(tmp_path)
        sink.write(4, [*values, scalar("loss", 1.0)])
        sink.close()
        found = read_events(tmp_path)
        assert found.scalars["loss"].values == (1.0,)
        assert found.histograms["empty"].values[0].shape == (0, 3)
        assert found.texts["letters"].values == ("\ufffd\na",)
        assert [note.partition(" cannot be read: ")[0] for note in found.notes] == [
            f"{tag!r} at step 4" for tag in ("vector", "pairs", "sizes", "sound", "nothing")
        ]

    @pytest.mark.parametrize("cut", [1, 9, 20])
    def test_of_a_file_that_breaks_off_gives_what_is_whole(self, written, tmp_path, cut):
        (source,) = written.glob("events*")
        whole = tmp_path / source.name
        whole.write_bytes(source.read_bytes()[:-cut])
        found = read_events(tmp_path)
        assert found.scalars["loss"].steps == (1, 2)
        assert "picture" not in found.images
        (note,) = found.notes
        assert note.startswith(f"{whole}: read up to record 3, not further: ")

    @pytest.mark.parametrize(
        ("logdir", "error", "said"),
        [
            (3, TypeError, r"^logdir must be a path; got logdir=3$"),
            ("/nowhere", ValueError, r"^logdir must be a directory; there is none at '/nowhere'$"),
        ],
    )
    def test_refuses_what_is_no_directory(self, logdir, error, said):
        with pytest.raises(error, match=said):
            read_events(logdir)


class TestAssertScalarLogged:
    @pytest.mark.parametrize(
        "asked",
        [
            {},
            {"step": 2},
            {"step": 2, "approx": 0.5},
            {"approx": 0.25},
            {"approx": 0.25 * (1 + 5e-7)},
            {"step": 1, "approx": pytest.approx(0.3, abs=0.1)},
        ],
    )
    def test_passes_where_it_was(self, written, asked):
        assert_scalar_logged(written, "loss", **asked)

    @pytest.mark.parametrize(
        ("tag", "asked", "said"),
        [
            ("los", {}, r"^no scalar 'los' was logged; there are 'loss'.*$"),
            ("nan", {}, r"^no scalar 'nan' was logged; there are 'loss'; it is in 'train' inside that directory$"),
            ("loss", {"step": 3}, r"^scalar 'loss' was not logged at step 3; it was at steps 1, 2$"),
            ("loss", {"step": 1, "approx": 0.5}, r"^scalar 'loss' is 0.25 at step 1; not 0.5$"),
            ("loss", {"approx": 0.25001}, r"^scalar 'loss' is 0.25 at step 1, 0.5 at step 2; not 0.25001$"),
        ],
    )
    def test_says_what_was_logged_instead(self, written, tag, asked, said):
        with pytest.raises(AssertionError, match=said):
            assert_scalar_logged(written, tag, **asked)

    def test_knows_nan_and_infinity(self, written):
        assert_scalar_logged(written / "train", "nan", approx=math.nan)
        assert_scalar_logged(written / "train", "loss", 5, math.inf)
        with pytest.raises(AssertionError):
            assert_scalar_logged(written / "train", "loss", 5, math.nan)


# ------------------------------------------------------------------------------------- beside TensorBoard's own reader


def test_tensorboard_reads_the_same(written):
    ours, theirs = read_events(written), accumulated(written)
    plugins = {"scalars": ours.scalars, "histograms": ours.histograms, "text": ours.texts, "images": ours.images}
    for plugin, series in plugins.items():
        assert set(theirs.PluginTagToContent(plugin)) == set(series)
    for tag, series in ours.scalars.items():
        events = theirs.Tensors(tag)
        assert tuple(event.step for event in events) == series.steps
        assert tuple(event.wall_time for event in events) == series.wall_times
        assert tuple(float(tf.make_ndarray(event.tensor_proto)) for event in events) == series.values
    (event,) = theirs.Tensors("picture")
    assert list(tf.make_ndarray(event.tensor_proto)) == [b"5", b"3", PNG]
    tables = [tf.make_ndarray(event.tensor_proto) for event in theirs.Tensors("values")]
    assert [table.tolist() for table in tables] == [BUCKETS.tolist(), (2 * BUCKETS).tolist()]
    words = [tf.make_ndarray(event.tensor_proto).item() for event in theirs.Tensors("words")]
    assert words == [b"**1**", b"**2**"]


def test_tensorboard_understands_layout_and_hparams(written):
    theirs = accumulated(written)
    (event,) = theirs.Tensors("custom_scalars__config__")
    (category,) = layout_pb2.Layout.FromString(tf.make_ndarray(event.tensor_proto).item()).category
    assert (category.title, category.chart[0].title, list(category.chart[0].multiline.tag)) == (
        "Health",
        "norms",
        ["norm/.*"],
    )
    content = theirs.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    started = HParamsPluginData.FromString(content).session_start_info
    assert {name: value.number_value for name, value in started.hparams.items()} == {"rate": 0.1}


# ----------------------------------------------------------------------------------------------- processes of their own


def python(script, *arguments, timeout=300):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT}/tests/tf", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=timeout, env=environment,
    )  # fmt: skip


WITHOUT_PACKAGES = """
    import sys

    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in ("tensorboard", "matplotlib"):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Blocked())
    import logging
    logging.basicConfig(format="%(message)s")
    import numpy as np
    import tensorflow as tf
    import gradcheck
    from gradcheck.tensorboard._reports import report_values
    from gradcheck.tensorboard._sink import EventFile
    from gradcheck.tensorboard._wire import histogram

    logdir = sys.argv[1]
    try:
        with tf.summary.create_file_writer(logdir + "/theirs").as_default():
            tf.summary.scalar("loss", 1.0, 0)
    except Exception as error:
        print("tf.summary.scalar:", type(error).__name__)
    w = tf.Variable(2.0)
    adagrad = gradcheck.optimizers.Adagrad(0.6)
    gradcheck.compare_optimizers(adagrad, adagrad, lambda: (w - 3) ** 2, [w], 2, logdir=logdir)
    sink = EventFile(logdir)
    report = gradcheck.check_gradients(tf.sin, np.ones((2, 3)), name="sin")
    sink.write(0, [*report_values(report), histogram("h", np.array([[0.0, 1.0, 2.0]]))])
    found = gradcheck.tensorboard.read_events(logdir)
    gradcheck.tensorboard.assert_scalar_logged(logdir, "optimizers/first_apart", 2, 0)
    print(*sorted({**found.scalars, **found.histograms, **found.texts, **found.images, **found.tensors}))
    print("tensorboard" in sys.modules, "matplotlib" in sys.modules)
"""


@pytest.mark.slow
def test_all_is_written_and_read_without_the_packages_tensorboard_and_matplotlib(tmp_path):
    ran = python(WITHOUT_PACKAGES, tmp_path)
    assert ran.returncode == 0, ran.stderr[-2000:]
    theirs, *tags, loaded = ran.stdout.splitlines()
    assert theirs == "tf.summary.scalar: TBNotInstalledError"  # so that it is really blocked
    assert tags == [
        "checks/error_map/sin/inputs checks/evaluations/sin checks/report/sin checks/seconds/sin "
        "checks/worst_error/sin h optimizers/first_apart optimizers/report optimizers/worst_error"
    ]
    assert loaded == "False False"
    assert ran.stderr.count("a plot needs matplotlib") == 1
    assert ran.stderr.count("nothing is written for the page HPARAMS: that needs the package tensorboard") == 1


KILLED = """
    import os, random, signal, sys, time
    import numpy as np
    import tensorflow as tf
    from tensorboard.backend.event_processing import event_accumulator
    from gradcheck.tensorboard import read_events
    from gradcheck.tensorboard._sink import EventFile
    from gradcheck.tensorboard._values import text
    from gradcheck.tensorboard._wire import histogram, scalar

    logdir, times = sys.argv[1], int(sys.argv[2])
    draw = random.Random(1)
    buckets = np.linspace(0.0, 1.0, 3 * 500).reshape(-1, 3)

    def train(run, done):
        sink = EventFile(run)
        for step in range(10**9):
            sink.write(step, [scalar("loss", step), histogram("weights", buckets), text("long", "word " * 5000)])
            os.write(done, b"%d\\n" % step)  # said after it was written

    torn = 0
    for number in range(times):
        run = f"{logdir}/{number}"
        told, done = os.pipe()
        child = os.fork()  # importing TensorFlow anew for each would take minutes
        if not child:
            try:
                train(run, done)
            finally:
                os._exit(1)
        os.close(done)
        with os.fdopen(told) as lines:
            first = lines.readline()
            time.sleep(draw.random() / 50)
            os.kill(child, signal.SIGKILL)
            last = int(([first] + [line for line in lines if line.endswith("\\n")])[-1])
        os.waitpid(child, 0)
        found = read_events(run)
        theirs = event_accumulator.EventAccumulator(run, {event_accumulator.TENSORS: 0})
        theirs.Reload()
        steps = found.scalars["loss"].steps
        assert steps[: last + 1] == tuple(range(last + 1)), (number, last, steps)
        assert len(steps) <= last + 2
        assert found.scalars["loss"].values == steps
        for tag in ("loss", "weights", "long"):
            assert [event.step for event in theirs.Tensors(tag)] == list(steps), (number, tag)
        assert len(found.texts["long"].steps) == len(found.histograms["weights"].steps) == len(steps)
        torn += bool(found.notes)
    print(times, "killed,", torn, "in the middle of a record")
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_both_readers_read_all_steps_of_a_killed_writer(tmp_path):
    ran = python(KILLED, tmp_path, 15)  # 50 training processes are killed by the benchmark
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.startswith("15 killed, ")


FULL = """
    import logging, os, resource, signal, sys, tempfile
    import numpy as np
    import test_gradient_callback as t
    from gradcheck.tensorboard import _sink, read_events
    from gradcheck.tensorboard._sink import EventFile
    from gradcheck.tensorboard._values import text
    from gradcheck.tensorboard._wire import scalar

    def limit(size):
        "Writes beyond it fail, as on a full disk."
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def weights_of(logdir, **options):
        return t._fit(t._model(), [t.GradientSummaryCallback(logdir, every=1, metrics=False, **options)], epochs=2)

    logdir = sys.argv[1]
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limit(100_000)
    sink = EventFile(logdir)
    for step in range(10):
        if step == 8:
            limit(resource.RLIM_INFINITY)
            _sink._PAUSE, sink._pause_ends = 0.0, 0.0
        sink.write(step, [scalar("loss", step), text("long", "x" * 30_000)])
    sink.close()
    found = read_events(logdir)
    print(*found.scalars["loss"].steps)
    print(len(found.notes))
    os.remove(os.path.join(logdir, min(os.listdir(logdir))))
    print(*read_events(logdir).scalars["loss"].steps)

    _sink._PAUSE = 60.0
    plain = t._fit(t._model(), epochs=2)
    limit(30_000)
    filled = weights_of(logdir + "/full")
    limit(resource.RLIM_INFINITY)
    train = read_events(logdir + "/full").runs["train"]
    steps = train.scalars["gradient_norm/net/hidden/kernel"].steps
    print(0 < len(steps) < 14, steps == tuple(range(len(steps))), len(train.notes))
    shut = tempfile.mkdtemp()  # where others than the owner may come
    os.chmod(shut, 0o555)
    if os.geteuid() == 0:
        os.seteuid(65534)  # what root may do tells nothing
    closed = weights_of(shut)
    try:
        weights_of(shut, on_error="raise")
    except Exception as error:
        print("raised", type(error).__name__)
    os.seteuid(os.getuid())
    os.rmdir(shut)
    for one, other, third in zip(plain, filled, closed, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, third)
"""


@pytest.mark.slow
def test_a_full_disk_and_a_directory_that_is_closed_are_said_once_and_stop_no_training(tmp_path):
    ran = python(FULL, tmp_path)
    assert ran.returncode == 0, ran.stderr[-2000:]
    said, again, steps, notes, afresh, full, recorded, closed, raised = ran.stdout.splitlines()
    assert said.startswith(f"cannot write to {tmp_path}: ")
    assert said.endswith("; training goes on without")
    assert again == f"writing to {tmp_path} again; steps lost: 5"
    assert (steps, notes, afresh) == ("0 1 2 8 9", "1", "8 9")
    assert full.startswith(f"cannot write to {tmp_path}/full/train: ")
    assert recorded == "True True 1"
    assert closed.startswith("cannot write to ")
    assert "Permission denied" in closed
    assert raised == "raised PermissionDeniedError"
