"""The pytest plugin, seen by real runs of pytest on a user's project."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import tensorflow as tf

from gradcheck import GradientReport, check_gradients
from gradcheck._report.outcomes import outcomes_from_plain
from gradcheck.cli import main
from gradcheck.tensorboard import read_events
from tests.plugin.users import INI, RIGHT, WRONG

INSTALLED = any(point.value == "gradcheck.pytest_plugin" for point in entry_points(group="pytest11"))
PLUGIN = () if INSTALLED else ("-p", "gradcheck.pytest_plugin")
QUICK = ("-p", "no:hypothesispytest")  # which loads hypothesis anew in every run
ROOT = str(Path(__file__).parents[2])


@pytest.fixture(scope="module", autouse=True)
def _modules_loaded():
    """What checks and their texts import is loaded once: pytester forgets what a run imports."""
    assert str(check_gradients(tf.round, tf.constant([0.25])))


@pytest.fixture
def project(pytester, monkeypatch):
    """Where a user's tests lie; runs of pytest see this very gradcheck."""
    monkeypatch.setenv("PYTHONPATH", ROOT)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setenv("COLUMNS", "200")
    # Where CI or BUILD_NUMBER is set, pytest prints whole messages in its summary.
    for name in ("PYTEST_ADDOPTS", "CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    pytester.makefile(".ini", pytest=INI)
    return pytester


def run(project, *arguments):
    return project.runpytest_inprocess(*PLUGIN, *QUICK, "-p", "no:cacheprovider", *arguments)


IMPORTS = """
import numpy as np
import pytest
import tensorflow as tf
import gradcheck as gc

X = np.array([0.5, -1.5, 2.0])

@tf.custom_gradient
def wrong(x):
    return x * x, lambda up: up * 4 * x

def right(x):
    return x * x
"""


# ------------------------------------------------------------------------------------------------ the whole of it


def assert_whole(result, json_file):
    result.assert_outcomes(failed=10, passed=19, skipped=1)
    text = result.stdout.str()
    assert "gradcheck: 9 of 25 checks are not ok" in text
    summary = text[text.index("gradcheck: 9 of 25") :].splitlines()[1:10]
    assert [line.split("  ")[0] for line in summary] == ["NONFINITE", *["MISMATCH"] * 7, "CUT"]
    assert all(line.endswith("--gradcheck-seed=0") and ": pytest " in line for line in summary)
    outcomes = outcomes_from_plain(json.loads(json_file.read_text(encoding="utf-8")))
    assert len(outcomes) == 25
    assert sum(not each.ok for each in outcomes) == 9
    assert [each.name for each in outcomes] == sorted(each.name for each in outcomes)
    assert main(["show", str(json_file)]) == 1
    assert_logged(result, outcomes, json_file.parent / "logs")


def assert_logged(result, outcomes, logdir):
    """One event file with every check of every test, whichever process ran it."""
    assert f"gradcheck: tensorboard --logdir {logdir}" in result.stdout.lines
    (_,) = logdir.iterdir()
    found = read_events(logdir)
    names = Counter(each.name for each in outcomes)
    assert {tag: len(series.steps) for tag, series in found.texts.items()} == {
        f"checks/report/{name}": count for name, count in names.items()
    }
    assert set(found.scalars) == {
        f"checks/{what}/{name}" for name in names for what in ("worst_error", "evaluations", "seconds")
    }
    assert all(series.steps == tuple(range(len(series.steps))) for series in found.scalars.values())


@pytest.mark.slow
def test_a_project_of_thirty_tests_ten_of_which_fail(project, capsys):
    project.makepyfile(test_right=RIGHT, test_wrong=WRONG)
    result = run(
        project,
        "--gradcheck-json=out/reports.json",
        "--gradcheck-logdir=out/logs",
        "--junitxml=junit.xml",
        "--gradcheck-durations=3",
    )
    assert_whole(result, project.path / "out" / "reports.json")
    result.stdout.fnmatch_lines(["*gradcheck: the slowest 3 of 25 checks*"])
    properties = {
        case.get("name"): {each.get("name"): each.get("value") for each in case.iter("property")}
        for case in ElementTree.parse(project.path / "junit.xml").iter("testcase")
    }
    assert properties["test_by_assert_gradients"]["gradcheck_verdict"] == "MISMATCH"
    assert properties["test_by_assert_gradients"]["gradcheck_worst_error"].endswith(" of what is allowed")
    assert properties["test_a_layer"]["gradcheck_verdict"] == "MATCH"
    assert properties["test_without_a_check"] == {}


@pytest.mark.slow
def test_the_same_project_with_workers(project):
    project.makepyfile(test_right=RIGHT, test_wrong=WRONG)
    result = project.runpytest_subprocess(
        *PLUGIN, "-n", "2", "--gradcheck-json=reports.json", "--gradcheck-logdir=logs", timeout=180
    )
    assert_whole(result, project.path / "reports.json")


# --------------------------------------------------------------------------------------------- what a failure shows


@pytest.mark.parametrize(
    "body",
    [
        "gradcheck(wrong, X)",
        "gc.assert_gradients(wrong, X)",
        "assert gc.check_gradients(wrong, X)",
        "assert gradcheck.check(wrong, X)",
        "report = gc.check_gradients(wrong, X)\n    assert report",
        "report = gc.check_gradients(wrong, X)\n    assert report.ok, 'but it is not'",
        "assert gradcheck.check(right, X) and gradcheck.check(wrong, X)",
    ],
)
def test_a_failure_shows_the_report_and_no_frame_of_ours(project, body):
    project.makepyfile(f"{IMPORTS}\ndef test_it(gradcheck):\n    {body}\n")
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            ">       *",
            "E       GradientMismatch: d wrong / d inputs is wrong at *",
            "E         analytic    *tf.gradients, float64",
            "E         difference *",
            "E         again       check_gradients(wrong, inputs, seed=0)",
            "MISMATCH  d wrong / d inputs at *: pytest *::test_it --gradcheck-seed=0",
            "FAILED *::test_it - GradientMismatch: d wrong*",
        ]
    )
    result.stdout.no_fnmatch_line("*pytest_plugin*")
    result.stdout.no_fnmatch_line("*def check_gradients*")
    assert result.stdout.str().count("E       GradientMismatch") == 1


def test_an_assertion_on_something_else_is_left_alone(project):
    project.makepyfile(
        f"{IMPORTS}\ndef test_it(gradcheck):\n    bad = gradcheck.check(wrong, X)\n    assert 1 + 1 == 3\n"
    )
    result = run(project)
    result.stdout.fnmatch_lines(["E       assert (1 + 1) == 3", "*gradcheck: 1 of 1 checks are not ok*"])


@pytest.mark.parametrize("base", ["unittest.TestCase", "tf.test.TestCase"])
def test_in_a_class_of_unittest(project, base):
    project.makepyfile(
        IMPORTS
        + f"""
import unittest

class Test({base}):
    @pytest.mark.usefixtures("gradcheck")
    def test_by_the_fixture(self):
        self.gradcheck(wrong, X)

    def test_by_an_assertion(self):
        self.assertTrue(gc.check_gradients(wrong, X))

    @pytest.mark.usefixtures("gradcheck")
    @pytest.mark.gradcheck(seed=3)
    def test_a_marker(self):
        assert self.gradcheck(right, X).seed == 3
"""
    )
    result = run(project)
    assert result.parseoutcomes()["failed"] == 2
    assert result.parseoutcomes()["passed"] == 1
    result.stdout.fnmatch_lines(["*gradcheck: 2 of 3 checks are not ok*"])
    assert result.stdout.str().count("GradientMismatch: d wrong / d inputs is wrong at") >= 2


# ------------------------------------------------------------------------------------------- options and markers


def test_an_option_of_the_call_goes_before_markers_and_these_before_the_command_line_and_the_ini_file(project):
    project.makefile(".ini", pytest=f"{INI}\ngradcheck_mode = directional\ngradcheck_seed = 1\n")
    project.makepyfile(
        IMPORTS
        + """
pytestmark = pytest.mark.gradcheck(rtol=1e-3)

def test_ini_and_command_line(gradcheck):
    report = gradcheck(right, X)
    assert (report.mode, report.seed) == ("directional", 2)

@pytest.mark.gradcheck(mode="elementwise")
class TestMarked:
    def test_class(self, gradcheck):
        report = gradcheck(right, X)
        assert (report.mode, report.seed) == ("elementwise", 2)
        assert "rtol=0.001" in report.again

    @pytest.mark.gradcheck(seed=3)
    def test_function(self, gradcheck):
        assert gradcheck(right, X).seed == 3

    def test_call(self, gradcheck):
        assert gradcheck(right, X, mode="jacobian", seed=4, rtol=None).again == (
            "check_gradients(right, inputs, mode='jacobian', seed=4)"
        )
"""
    )
    run(project, "--gradcheck-seed=2").assert_outcomes(passed=4)


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ("mod='directional'", "@pytest.mark.gradcheck has no option 'mod': did you mean 'mode'?"),
        ("tolerance=1", "@pytest.mark.gradcheck has no option 'tolerance': it takes mode, order, rtol, directions*"),
        ("mode='fast'", "mode must be one of 'auto', 'directional', 'elementwise', 'jacobian'; got mode='fast'"),
        ("rtol='1e-3'", "rtol must be a positive number or None; got rtol='1e-3'"),
        ("'directional'", "@pytest.mark.gradcheck takes names only, such as mode=...; found ('directional',)"),
    ],
)
def test_a_marker_that_cannot_be_used_is_an_error_at_collection(project, marker, said):
    project.makepyfile(f"import pytest\n\n@pytest.mark.gradcheck({marker})\ndef test_it():\n    assert False\n")
    result = run(project)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*::test_it: {said.replace('[', '[[]')}"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gradcheck-mode=fast"], "*--gradcheck-mode: invalid choice: 'fast'*"),
        (["--gradcheck-seed=-1"], "*--gradcheck-seed: expected a number of at least 0, got '-1'"),
        (["--gradcheck-durations=many"], "*--gradcheck-durations: expected a number of at least 0, got 'many'"),
        (["-o", "gradcheck_mode=fast"], "ERROR: gradcheck_mode must be one of auto, *; found 'fast'"),
        (["-o", "gradcheck_seed=x"], "ERROR: gradcheck_seed: expected a number of at least 0, got 'x'"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused(project, arguments, said):
    result = run(project, *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])


def test_a_random_seed_is_said_and_repeats_the_run(project):
    project.makepyfile(f"{IMPORTS}\ndef test_it(gradcheck):\n    assert not gradcheck(right, X).seed\n")
    first = run(project, "--gradcheck-seed=random")
    (said,) = [line for line in first.stdout.lines if line.startswith("gradcheck: --gradcheck-seed=")]
    option = said.split()[1]
    assert f"assert not {option.partition('=')[2]}" in first.stdout.str()
    again = run(project, option)
    assert f"assert not {option.partition('=')[2]}" in again.stdout.str()


@pytest.mark.slow
def test_a_random_seed_is_one_for_all_workers(project, tmp_path):
    """Each worker reads `random` on the command line, and is told what was drawn."""
    project.makepyfile(
        """
import pytest

@pytest.mark.parametrize("part", range(4))
def test_it(request, part):
    (settings,) = [each._settings for each in request.config.pluginmanager.get_plugins()
                   if type(each).__module__ == "gradcheck.pytest_plugin._session"]
    assert not settings.seed
"""
    )
    result = project.runpytest_subprocess(*PLUGIN, "-n", "2", "-p", "no:cacheprovider", "--gradcheck-seed=random")
    seed = result.stdout.str().partition("--gradcheck-seed=")[2].split()[0]
    assert result.stdout.str().count(f"E       assert not {seed}\n") == 4


def test_every_option_has_an_ini_value_and_a_line_of_help(project):
    result = run(project, "--help")
    for name in ("mode", "seed", "json", "logdir", "dump", "durations"):
        result.stdout.fnmatch_lines([f"*--gradcheck-{name}=*", f"*gradcheck_{name} *"])
    run(project, "--markers").stdout.fnmatch_lines(["@pytest.mark.gradcheck(mode, order, rtol, *"])


def test_what_a_test_says_itself_is_kept_and_no_frame_but_its_own_is_shown(project):
    project.makepyfile(
        IMPORTS
        + """
import unittest

def test_said():
    assert gc.check_gradients(wrong, X), "said by pytest"

class TestSaid(unittest.TestCase):
    def test_said(self):
        self.assertTrue(gc.check_gradients(wrong, X), "said by unittest")

    def test_unsaid(self):
        self.assertTrue(gc.check_gradients(wrong, X))

    def test_graph(self):
        with tf.Graph().as_default():
            x = tf.constant(X)
            gc.assert_tf_gradients(wrong(x), x)

    def test_subtests(self):
        for k in (1.0, 2.0):
            with self.subTest(k=k):
                self.assertTrue(gc.check_gradients(lambda x: k * wrong(x), X))
"""
    )
    result = run(project)
    text = result.stdout.str()
    first = "GradientMismatch: d wrong / d inputs is wrong at [0] for output entry [0]"
    for said in ("pytest", "unittest"):
        assert f"E       AssertionError: said by {said}\nE       {first}\n" in text
    assert " is not true" not in text
    assert "gradcheck: 6 of 6 checks are not ok" in text
    result.stdout.no_fnmatch_line("*api.py*")
    result.stdout.no_fnmatch_line("*tf_gradients.py*")


def test_costs_are_listed_with_v(project):
    project.makepyfile(f"{IMPORTS}\ndef test_it(gradcheck):\n    gradcheck(right, X)\n")
    result = run(project, "-v")
    result.stdout.fnmatch_lines(
        ["*gradcheck: what checks cost*", "* s * evaluations * gradients  MATCH *::test_it (right)"]
    )
    run(project).stdout.no_fnmatch_line("*evaluations*")


def test_what_failed_last_runs_again(project):
    project.makepyfile(
        f"{IMPORTS}\ndef test_a(gradcheck): gradcheck(wrong, X)\ndef test_b(gradcheck): gradcheck(right, X)\n"
    )
    assert project.runpytest_inprocess(*PLUGIN, *QUICK).parseoutcomes() == {"failed": 1, "passed": 1}
    assert project.runpytest_inprocess(*PLUGIN, *QUICK, "--lf").parseoutcomes() == {"failed": 1}


def test_nothing_leaks_from_test_to_test(project):
    project.makepyfile(
        IMPORTS
        + """
import random

def state():
    return (
        tf.config.functions_run_eagerly(), tf.executing_eagerly(), random.getstate(),
        np.random.get_state()[1].tobytes(), tf.random.get_global_generator().state.numpy().tobytes(),
    )

@pytest.mark.parametrize("fn", [right, wrong, None, tf.sqrt])
def test_it(gradcheck, fn):
    before = state()
    try:
        gradcheck(fn, np.array([0.0, 1.0]))
    except (AssertionError, TypeError):
        pass
    assert state() == before
"""
    )
    run(project).assert_outcomes(passed=4)


# ---------------------------------------------------------------------------------------------------- watchdogs

STEP = """
import pytest
import tensorflow as tf

w = tf.Variable([1.0, 4.0])

@tf.function
def step(x):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.sqrt(w * x))
    w.assign_sub(0.1 * tape.gradient(loss, w))
    return loss
"""


def test_a_body_under_watch_fails_with_the_report_and_writes_nothing(project):
    project.makepyfile(
        STEP
        + """
def test_by_the_fixture(no_nans):
    step(tf.constant([1.0, 0.0]))

@pytest.mark.no_nans
class TestMarked(tf.test.TestCase):
    def test_by_the_marker(self):
        step(tf.constant([1.0, 0.0]))

@pytest.mark.no_nans
def test_all_is_finite(gradcheck):
    step(tf.constant([1.0, 1.0]))

@pytest.mark.no_nans
def test_of_something_else():
    assert 1 + 1 == 3

@pytest.mark.no_nans
def test_a_gradient_that_is_only_computed():
    x = tf.constant([1.0, 0.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(tf.sqrt(x))
    tape.gradient(y, x)

@pytest.mark.no_nans
def test_a_variable_of_its_own():
    own = tf.Variable([0.0, 1.0])
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(tf.sqrt(own + 0.0))
    own.assign_sub(tape.gradient(y, own))

@pytest.mark.no_nans
def test_python_in_between():
    w.assign(w * float(tf.math.log(w[0] - 1.0).numpy()))

@pytest.mark.no_nans
def test_what_is_masked_is_no_fault():
    x = tf.constant([1.0, 0.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        logs = tf.where(x > 0, tf.math.log(tf.where(x > 0, x, 1.0)), tf.math.log(tf.zeros(2)))
        y = tf.reduce_sum(tf.where(x > 0, logs, 0.0))
    assert (tape.gradient(y, x).numpy() == [1.0, 0.0]).all()

def test_the_tape_is_as_before():
    assert tf.GradientTape.gradient.__module__.startswith("tensorflow")

def test_nothing_was_written():
    assert tf.reduce_all(tf.math.is_finite(w))

def test_a_watchdog_of_the_tests(gradcheck):
    watchdog = gradcheck.watchdog(action="skip")
    watchdog.watch(step)(tf.constant([1.0, 0.0]))
    assert watchdog.trips == 1
"""
    )
    result = run(project)
    assert result.parseoutcomes()["failed"] == 6
    result.stdout.fnmatch_lines(
        [
            "step 1 of test_by_the_fixture is not finite: *",
            "* where *in step: *",
            "E       assert (1 + 1) == 3",
            "step 1 of test_a_gradient_that_is_only_computed is not finite: *",
            "* where *y = tf.reduce_sum(tf.sqrt(x))*",
            "step 1 of test_a_variable_of_its_own is not finite: *",
            "* where *y = tf.reduce_sum(tf.sqrt(own + 0.0))*",
            "*what the step takes into Python, by .numpy() and the like, is a constant where it was run again*",
            "*gradcheck: a watchdog failed 5 tests*",
            "NONFINITE  step 1 of test_by_the_fixture is not finite: *: pytest *::test_by_the_fixture",
        ]
    )
    result.stdout.no_fnmatch_line("*_watchdog/*.py*")
    assert result.stdout.str().count("name=test_by_the_fixture") == 0  # the log, which would say it all again


def test_what_the_fixture_hands_on_to_others(project):
    """The functions of the same names are called with what the fixture was given."""
    project.makepyfile(
        """
        import gradcheck as gc
        import pytest

        @pytest.mark.parametrize("name, method, given", [
            ("Watchdog", "watchdog", ()), ("find_nonfinite", "find_nonfinite", (abs, 1.0)),
            ("compare_optimizers", "compare_optimizers", (1, 2)),
        ])
        def test_it(gradcheck, monkeypatch, name, method, given):
            monkeypatch.setattr(gc, name, lambda *a, **k: (a, k), raising=False)
            arguments, options = getattr(gradcheck, method)(*given, more=1)
            assert arguments == given
            assert options.pop("more") == 1
            assert method != "watchdog" or options.pop("dump_dir").endswith("dumps")
            assert options == {}
        """
    )
    run(project, "--gradcheck-dump=dumps").assert_outcomes(passed=3)


# -------------------------------------------------------------------------------------- those who do not use it


def _modules_after(statement):
    code = f"{statement}; import sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    environment = {**os.environ, "PYTHONPATH": ROOT}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.split())


def test_the_plugin_loads_neither_tensorflow_nor_numpy():
    assert not {"tensorflow", "keras", "numpy", "hypothesis"} & _modules_after("import gradcheck.pytest_plugin")


def test_the_test_above_can_fail():
    assert "numpy" in _modules_after("import numpy")


def test_a_project_without_checks_sees_nothing_of_it_and_loads_no_tensorflow(project):
    project.makepyfile(
        """
        import sys

        def test_it():
            assert not {"tensorflow", "numpy"} & set(sys.modules)
        """
    )
    quiet = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:xdist", "-p", "no:randomly")
    with_plugin = project.runpytest_subprocess(*PLUGIN, *quiet)
    with_plugin.assert_outcomes(passed=1)
    without = project.runpytest_subprocess("-p", "no:gradcheck", *quiet)

    def said(result):
        lines = (line.partition(" in ")[0].strip("= ") for line in (*result.outlines, *result.errlines))
        return [line for line in lines if not line.startswith("plugins:")]

    assert said(with_plugin) == said(without)


def test_reports_travel_in_plain_values():
    """What pytest-xdist sends is what JSON can hold."""
    plain = check_gradients(tf.sqrt, tf.constant([0.0, 1.0])).to_dict()
    assert GradientReport.from_dict(json.loads(json.dumps(plain, allow_nan=False))).to_dict() == plain
