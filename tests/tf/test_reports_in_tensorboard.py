"""What TensorBoard shows of reports, trips and comparisons of optimizers."""

import contextlib
import dataclasses
import io
import sys

import numpy as np
import pytest
import tensorflow as tf

import gradcheck
from gradcheck._check.pictures import error_map
from gradcheck._report.markdown import table, trip_markdown
from gradcheck._report.nonfinite import Range
from gradcheck._report.plot import plot_taylor
from gradcheck._report.precision import PrecisionReport
from gradcheck._report.trip import Layer, Step, TripReport
from gradcheck.tensorboard import read_events
from gradcheck.tensorboard._pictures import draw_map
from gradcheck.tensorboard._reports import report_values, trip_values
from gradcheck.tensorboard._sink import EventFile, warn_once

X = np.random.default_rng(5).normal(size=(4, 6)).astype(np.float32)
WRONG = ((0, 5), (2, 1))


@tf.custom_gradient
def two_wrong_entries(x):
    factor = np.ones((4, 6), np.float32)
    factor[WRONG[0]], factor[WRONG[1]] = 1.25, 1.001
    return tf.sin(x), lambda upstream: upstream * tf.cos(x) * factor


@tf.custom_gradient
def all_wrong(x):
    return tf.sin(x), lambda upstream: upstream * tf.cos(x) * 1.25


@pytest.fixture(scope="module")
def report():
    return gradcheck.check_gradients(two_wrong_entries, X, name="two_wrong")


@pytest.fixture(scope="module")
def right():
    return gradcheck.check_gradients(tf.sin, X, name="sin")


def logged(tmp_path, *reports):
    sink = EventFile(tmp_path)
    for step, one in enumerate(reports):
        sink.write(step, report_values(one))
    sink.close()
    return read_events(tmp_path)


def slopes(taylor):
    """Of the remainder in the middle of the range, on logarithmic axes."""
    return np.diff(np.log(taylor.remainder[2:5])) / np.diff(np.log(taylor.steps[2:5]))


def pixels(png):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        return session.run(tf.io.decode_png(png))


class TestACheck:
    def test_gives_scalars_and_text(self, tmp_path, report, right):
        found = logged(tmp_path, report, right)
        assert set(found.scalars) == {
            f"checks/{what}/{name}"
            for what in ("worst_error", "evaluations", "seconds")
            for name in ("two_wrong", "sin")
        }
        worst = max(finding.excess for finding in report.findings)
        assert found.scalars["checks/worst_error/two_wrong"].values == (np.float32(worst),)
        assert found.scalars["checks/worst_error/two_wrong"].values[0] > 1e3
        assert found.scalars["checks/worst_error/sin"].values[0] < 1
        assert found.scalars["checks/worst_error/sin"].steps == (1,)
        assert found.scalars["checks/evaluations/sin"].values == (right.cost.evaluations,)
        (text,) = found.texts["checks/report/two_wrong"].values
        assert text.startswith(
            "### two\\_wrong: MISMATCH\n\n    GradientMismatch: d two_wrong / d inputs is wrong at [0, 5]"
        )
        assert "| output | inputs | MISMATCH | \\[0, 5\\] |" in text
        assert f"mode jacobian, seed 0, {report.cost.evaluations} evaluations" in text

    def test_marks_the_worst_entry_on_the_map_of_a_matrix(self, tmp_path, report):
        (((picture,),),) = [logged(tmp_path, report).images["checks/error_map/two_wrong/inputs"].values]
        shown = pixels(picture.png)
        assert shown.shape == (picture.height, picture.width, 3)
        size = picture.width // 6
        corners, middles = shown[::size, ::size], shown[size // 2 :: size, size // 2 :: size]
        framed = (corners == 0).all(axis=-1)
        assert [tuple(map(int, at)) for at in np.argwhere(framed)] == [WRONG[0]]
        reddish = middles[..., 0].astype(int) > middles[..., 2].astype(int) + 60
        assert [tuple(map(int, at)) for at in np.argwhere(reddish)] == list(WRONG)

    def test_a_large_matrix_is_drawn_in_blocks_and_no_wrong_entry_is_lost(self):
        excess = np.full((70, 130), 0.5)
        excess[65, 129] = 123.456
        found = error_map(excess)
        assert (found.rows, found.columns, found.block, found.worst) == (70, 130, (2, 3), (65 // 2, 129 // 3))
        assert np.shape(found.cells) == (35, 44)
        assert [cell for row in found.cells for cell in row if cell != 0.5] == [123.0]

    @pytest.mark.parametrize(
        ("shape", "dtype", "rows"),
        [((3,), "float32", None), ((2, 0), "float32", None), ((2, 3, 4), "float64", 6), ((2, 3), "complex64", 2)],
    )
    def test_other_shapes_are_folded_or_left_out(self, shape, dtype, rows):
        x = np.ones(shape, dtype)
        (finding,) = gradcheck.check_gradients(tf.sin, x).findings
        assert (finding.map and finding.map.rows) == rows

    @pytest.mark.parametrize("mode", ["jacobian", "elementwise", "directional"])
    def test_the_remainder_shrinks_as_the_square_where_the_gradient_is_right(self, mode):
        assert slopes(gradcheck.check_gradients(tf.sin, X, mode=mode).taylor) == pytest.approx(2.0, abs=0.2)
        assert slopes(gradcheck.check_gradients(all_wrong, X, mode=mode).taylor) == pytest.approx(1.0, abs=0.1)

    def test_the_remainder_is_of_the_worst_pair(self):
        checked = gradcheck.check_gradients(lambda a, b, c: tf.sin(a) + all_wrong(b) + c, [X, X, X])
        assert checked.taylor.x == checked.worst.x == "inputs[1]"

    def test_drawing_changes_nothing_of_the_check(self, report):
        again = gradcheck.check_gradients(two_wrong_entries, X, name="two_wrong")
        assert again == report
        assert gradcheck.GradientReport.from_dict(report.to_dict()) == report

    def test_a_remainder_that_is_zero_or_infinite_is_drawn(self, report):
        for remainder in ((0.0,) * 8, (float("inf"),) * 8, (float("nan"), *report.taylor.remainder[1:])):
            taylor = dataclasses.replace(report.taylor, change=remainder, remainder=remainder)
            plot_taylor(taylor, io.BytesIO())

    def test_nothing_to_differentiate_is_shown_all_the_same(self, tmp_path):
        nothing = gradcheck.check_gradients(lambda x: tf.constant(1.0), X, name="constant")
        infinite = gradcheck.check_gradients(tf.sqrt, np.zeros(2), name="sqrt")
        found = logged(tmp_path, nothing, infinite)
        assert np.isnan(found.scalars["checks/worst_error/sqrt"].values[0])
        assert set(found.texts) == {"checks/report/constant", "checks/report/sqrt"}

    def test_without_matplotlib_the_rest_is_there_and_says_what_is_missing(self, tmp_path, report, monkeypatch, caplog):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        warn_once.cache_clear()
        found = logged(tmp_path, report, report)
        assert set(found.images) == {"checks/error_map/two_wrong/inputs"}
        assert '      pip install "gradcheck[plots]"' in found.texts["checks/report/two_wrong"].values[0]
        (record,) = caplog.records
        assert record.getMessage().startswith("a plot needs matplotlib, and there is none in this environment.")

    def test_with_matplotlib_the_remainders_are_drawn(self, tmp_path, report):
        (((picture,),),) = [logged(tmp_path, report).images["checks/taylor/two_wrong"].values]
        assert (picture.width, picture.height) == (600, 450)
        assert len(np.unique(pixels(picture.png).reshape(-1, 4), axis=0)) > 20


def test_a_map_of_infinities_is_drawn(report):
    cells = ((0.0, 1e300), (0.5, float("inf")))
    shown = pixels(draw_map(dataclasses.replace(report.findings[0].map, cells=cells, worst=(1, 1))))
    assert shown.shape == (192, 192, 3)
    assert tuple(shown[0, 0]) == (247, 251, 255)
    assert tuple(shown[0, -1]) == (165, 0, 38)


STEPS = tuple(
    Step(number=n, outputs=(("loss", 0.5 * n),), layers=(Layer(name="dense|kernel", norm=10.0**n, ratio=0.25),))
    for n in range(3, 6)
)
TRIP = TripReport(
    name="fit", step=5, action="skip", history=STEPS,
    found=(Range(name="loss", dtype="float32", shape=(), nan=1),),
)  # fmt: skip


def test_a_trip_is_a_text_with_the_table_of_the_last_steps(tmp_path):
    sink = EventFile(tmp_path)
    sink.write(5, trip_values(TRIP))
    sink.close()
    found = read_events(tmp_path).texts["trips/fit"]
    assert found.steps == (5,)
    assert found.values[0].split("\n") == [
        "### fit: step 5 is not finite",
        "",
        "    step 5 of fit is not finite: nothing was written, and training goes on with the next step",
        "      found    loss float32[]: 1 NaN of 1",
        "",
        "| step | loss | dense\\|kernel | ratio | min | max |",
        "| --- | --- | --- | --- | --- | --- |",
        "| 3 | 1.5 | 1e+03 | 0.25 | - | - |",
        "| 4 | 2 | 1e+04 | 0.25 | - | - |",
        "| 5 | 2.5 | 1e+05 | 0.25 | - | - |",
    ]


@pytest.mark.parametrize("action", ["skip", "raise"])
def test_a_watchdog_writes_its_trips(tmp_path, action):
    w = tf.Variable(0.75)

    def step():
        loss = tf.sqrt(w)
        w.assign_sub(0.4 * 0.5 / loss)
        return loss

    watchdog = gradcheck.Watchdog(action, logdir=tmp_path)
    watched = watchdog.watch(step)
    with contextlib.suppress(gradcheck.NonfiniteTrip):
        for _ in range(5):
            watched()
    found = read_events(tmp_path).texts["trips/step"]
    assert found.steps[0] == 4
    assert len(found.steps) == watchdog.trips == {"skip": 2, "raise": 1}[action]
    assert found.values[-1] == trip_markdown(watchdog.report)
    assert "| 3 | " in found.values[0]


def test_a_watchdog_refuses_what_is_no_path():
    with pytest.raises(TypeError, match=r"^logdir must be the path of a directory or None; got logdir=3$"):
        gradcheck.Watchdog(logdir=3)


def test_a_trip_without_steps_has_no_table():
    assert "|" not in trip_markdown(dataclasses.replace(TRIP, history=()))


def test_other_reports_are_texts(tmp_path):
    born = gradcheck.find_nonfinite(tf.math.log, np.zeros(1, np.float32))
    precision = gradcheck.profile_precision(lambda x: x - 1.0, np.float32(1.0001))
    assert isinstance(precision, PrecisionReport)
    found = logged(tmp_path, born, precision).texts
    assert f"    {born.name}: Log " in found[f"nonfinite/{born.name}"].values[0]
    assert f"precision/{precision.name}" in found


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: report_values("text"), r"^report must be a report of gradcheck; got str$"),
        (lambda: trip_values("text"), r"^report must be a TripReport; got str$"),
    ],
)
def test_what_is_no_report_is_refused(ask, said):
    with pytest.raises(TypeError, match=said):
        ask()


def test_cells_of_a_table_are_shown_as_they_are():
    assert table(["a|b"], [["<x> & *y*"]]) == "| a\\|b |\n| --- |\n| &lt;x&gt; &amp; \\*y\\* |"


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    logdir = tmp_path_factory.mktemp("compared")
    w = tf.Variable([2.0, 1.0], name="w")
    theirs, by_hand = tf.compat.v1.train.AdagradOptimizer(0.6), gradcheck.optimizers.Adagrad(0.6)

    def loss():
        return tf.reduce_sum((w - 3) ** 2)

    return gradcheck.compare_optimizers(theirs, by_hand, loss, [w], steps=6, logdir=logdir), logdir


class TestAComparisonOfOptimizers:
    def test_shows_both_trajectories_and_their_difference_over_each_other(self, compared):
        report, logdir = compared
        (variable,) = report.variables
        found = read_events(logdir)
        assert set(found.runs) == {"optimizer", "reference", "difference", "allowed"}
        for run, first, values in (
            ("optimizer", 0, variable.optimizer),
            ("reference", 0, variable.reference),
            ("difference", 1, variable.differences),
            ("allowed", 1, variable.allowed),
        ):
            (series,) = found.runs[run].scalars.values()
            assert series.steps == tuple(range(first, 7))
            assert series.values == pytest.approx(values, rel=1e-6)
        assert set(found.runs["difference"].scalars) == set(found.runs["allowed"].scalars)

    def test_shows_the_report(self, compared):
        report, logdir = compared
        found = read_events(logdir)
        assert found.scalars["optimizers/first_apart"].values == (1,)
        assert found.scalars["optimizers/worst_error"].values == (np.float32(report.worst.excess),)
        assert "initial accumulator 0.1 instead of 0" in found.texts["optimizers/report"].values[0]
        assert set(found.images) == {"optimizers/trajectories"}
        assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= set(found.tensors)

    def test_refuses_what_is_no_path(self):
        w = tf.Variable(1.0)
        with pytest.raises(TypeError, match=r"^logdir must be a path or None; got logdir=3$"):
            gradcheck.compare_optimizers(
                gradcheck.optimizers.Adagrad(0.6), gradcheck.optimizers.Adagrad(0.6), lambda: w**2, w, 1, logdir=3
            )
