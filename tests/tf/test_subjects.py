from itertools import chain

import pytest
import tensorflow as tf

from gradcheck import Verdict, subjects
from gradcheck.subjects import _arguments, _descent, _printed
from gradcheck.subjects._figures import figure

UNIT = 2.0**-23
PRINTED = {
    "linear-regression": [3, 2],
    "norm-grads": [187.66052, 1, 3.0984864, 1, 241.91911, 1],
    "sum-over-ys": [3, 3, 3, 2, 2, 2, 0, 0, 0, 1, 1, 1],
    "grad-ys": [-6, -9, -12, -4, -6, -8, 0, 0, 0, -2, -3, -4],
    "stop-gradients-none": [3, 1],
    "stop-gradients-argument": [1, 1],
    "stop-gradients-inside": [1, 1],
    "stop-gradients-gradients": [1, 1],
    "one-weight-loss": [2, -2, 1, 4, 2, 1, 2, -2, 1, 4, 2, 1, 2, -2, 1],
    "gradient-descent-small-rate": [0.033, *chain.from_iterable(_printed.SMALL_RATE)],
    "momentum-optimizer": [*chain.from_iterable(_printed.MOMENTUM_BY_OPTIMIZER)],
    "momentum-by-hand": [*chain.from_iterable(_printed.MOMENTUM_BY_HAND + _printed.MOMENTUM_AT_REST)],
    "nesterov": [],
    "adagrad-by-hand": [*chain.from_iterable(_printed.ADAGRAD_BY_HAND)],
    "adagrad-optimizer": [*chain.from_iterable(_printed.ADAGRAD_BY_OPTIMIZER)],
    "rmsprop": [],
    "adam": [],
    "adamw": [],
    "keras-cnn": [],
}
RATE, MOMENTUM, START = "inputs['learning_rate']", "inputs['momentum']", "inputs['initial_accumulator_value']"
XS = {
    "linear-regression": ["weight", "biases"],
    "norm-grads": ["weight", "biases"],
    "one-weight-loss": ["w"],
    "keras-cnn": ["inputs['images']", "cnn/conv/kernel", "cnn/conv/bias", "cnn/logits/kernel", "cnn/logits/bias"],
    "sum-over-ys": ["w1", "w2", "w3", "w4"],
    "grad-ys": ["w1", "w2", "w3", "w4"],
    "gradient-descent-small-rate": ["inputs['w']", RATE],
    "momentum-optimizer": ["inputs['w']", RATE, MOMENTUM],
    "momentum-by-hand": ["inputs['w']", RATE, MOMENTUM],
    "adagrad-by-hand": ["inputs['w']", RATE, START],
    "adagrad-optimizer": ["inputs['w']", RATE, START],
}


def test_the_expectations_are_for_all_subjects():
    assert sorted(PRINTED) == sorted(subjects.names())


@pytest.mark.parametrize("name", subjects.names())
def test_the_gradients_of_a_subject_are_right_and_its_figures_are_the_documents(name):
    result = subjects.get(name).check()
    assert result.report.ok, str(result.report)
    assert result.report.verdict is Verdict.MATCH
    assert result.report.name == name
    assert [each.printed for each in result.figures] == PRINTED[name]
    assert [each for each in result.figures if not each.ok] == []
    assert result.ok


@pytest.mark.parametrize("name", XS)
def test_a_subject_is_checked_by_all_that_it_depends_on(name):
    assert [finding.x for finding in subjects.get(name).check().report.findings] == XS[name]


def test_what_is_wrong_on_purpose_is_caught():
    assert subjects.wrong_names() == ("wrong-square", "momentum-wrong-order")
    result = subjects.get("wrong-square").check()
    worst = result.report.worst
    assert not result.ok
    assert worst.verdict is Verdict.MISMATCH
    assert worst.analytic == pytest.approx(2 * worst.numeric, rel=4 * UNIT)
    assert (worst.wrong, worst.size) == (6, 6)


def test_the_wrong_order_of_two_assignments_has_right_gradients_and_another_trajectory():
    result = subjects.get("momentum-wrong-order").check()
    assert result.report.verdict is Verdict.MATCH
    assert not result.ok
    found = {each.label: each for each in result.figures}
    assert (found["w at step 2"].printed, found["w at step 2"].computed) == (2.02, 2.0)
    assert not any(found[f"w at step {step}"].ok for step in range(2, 10))


@pytest.mark.parametrize(("rows", "column"), [("MOMENTUM_BY_HAND", 2), ("ADAGRAD_BY_HAND", 2), ("SMALL_RATE", 0)])
def test_a_printed_row_that_is_a_little_off_is_not_met(rows, column, monkeypatch):
    name = {"MOMENTUM_BY_HAND": "momentum-by-hand", "ADAGRAD_BY_HAND": "adagrad-by-hand"}
    printed = [list(row) for row in getattr(_printed, rows)]
    printed[-1][column] *= 1 + 1e-5
    monkeypatch.setattr(_printed, rows, tuple(map(tuple, printed)))
    result = subjects.get(name.get(rows, "gradient-descent-small-rate")).check()
    assert [each.printed for each in result.figures if not each.ok] == [printed[-1][column]]


def test_the_rate_in_the_documents_comment_does_not_give_its_figures(monkeypatch):
    """The comment says 0.11, the figures 0.033: with rows that shrink as 0.11 has them the figure is not met."""
    rows = [(3 - 0.003 * 0.78**k / 2, -0.003 * 0.78**k, (0.0015 * 0.78**k) ** 2) for k in range(12)]
    monkeypatch.setattr(_printed, "SMALL_RATE", tuple(rows))
    found = {each.label: each for each in subjects.get("gradient-descent-small-rate").check().figures}
    rate = found["learning rate that the gradients imply"]
    assert not rate.ok
    assert rate.computed == pytest.approx(0.11)


def test_a_norm_in_a_summary_that_is_not_the_documents_is_not_met(monkeypatch):
    epochs = [(loss, gradient * 1.0001) for loss, gradient in _descent._EPOCHS]
    examples = _descent._examples_behind_the_epochs()
    monkeypatch.setattr(_descent, "_examples_behind_the_epochs", lambda: examples)
    monkeypatch.setattr(_descent, "_EPOCHS", epochs)
    figures = subjects.get("norm-grads").check().figures
    assert [each.ok for each in figures] == [False, True] * 3


def test_mode_and_seed_reach_the_check():
    report = subjects.get("wrong-square").check(mode="directional", seed=3).report
    assert (report.mode, report.seed) == ("directional", 3)


@pytest.mark.parametrize("name", ["stop-gradients-argument", "stop-gradients-inside", "stop-gradients-gradients"])
def test_a_path_that_is_stopped_on_purpose_is_held(name):
    held = {each.reason for finding in subjects.get(name).check().report.findings for each in finding.held}
    assert held == {"stop_gradient" if name == "stop-gradients-inside" else "stop_gradients"}


def test_a_printed_number_that_tensorflow_does_not_give_is_not_met():
    result = _arguments.on_a_graph(_arguments.unstopped, (1.0, 1.0))(name="wrong", mode="auto", seed=0)
    assert result.report.ok
    assert [each.ok for each in result.figures] == [False, True]
    assert not result.ok


@pytest.mark.parametrize("change", [{"_EXAMPLES": 16}, {"_EXAMPLES": 31}, {"_RATE": 0.011}, {"_RATE": -0.01}])
def test_another_loss_or_learning_rate_than_the_documents_does_not_give_its_line(change, monkeypatch):
    """The figures of the random experiment can fail: they are no tautology."""
    for name, value in change.items():
        monkeypatch.setattr(_descent, name, value)
    assert not all(each.ok for each in _descent._line_behind_the_epochs())


@pytest.mark.parametrize(
    ("printed", "computed", "ok"),
    [
        (3.0, 3.0, True),
        (3.0, 3.0 * (1 + 4 * UNIT), True),
        (3.0, 3.0 * (1 + 5 * UNIT), False),
        (-3.0, 3.0, False),
        (0.0, -0.0, True),
        (0.0, 1e-30, False),
        (3.0, float("nan"), False),
    ],
)
def test_a_figure_is_met_to_a_few_units_of_rounding(printed, computed, ok):
    assert figure("a number", printed, computed).ok is ok


def test_a_check_leaves_the_default_graph_and_eager_mode_alone():
    graph = tf.Graph()
    with graph.as_default():
        for name in ("grad-ys", "stop-gradients-gradients"):
            subjects.get(name).check()
        assert tf.compat.v1.get_default_graph() is graph
        assert graph.get_operations() == []
    assert tf.executing_eagerly()


def test_an_unknown_name_is_refused_with_those_that_are_known():
    with pytest.raises(ValueError, match=r"^name must be one of 'linear-regression', .*; got name='cnn'$"):
        subjects.get("cnn")


def test_names_are_unique_and_summaries_are_a_line():
    every = [subjects.get(name) for name in (*subjects.names(), *subjects.wrong_names())]
    assert len({subject.name for subject in every}) == len(every)
    assert all(subject.summary and "\n" not in subject.summary and len(subject.summary) < 80 for subject in every)
