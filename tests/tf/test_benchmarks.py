"""The benchmarks in their quick form: what holds by derivation is asserted, speed never."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from benchmarks import catches, optimizers, others, peers, power, smooth, truth
from benchmarks.__main__ import main
from benchmarks.beside import libraries, seeded
from benchmarks.correct import CORRECT, Correct
from benchmarks.outcome import Outcome, text_of

from gradcheck import Verdict, check_gradients

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_truth_lies_within_ten_times_the_stated_error():
    outcome = truth.run(quick=True)
    assert outcome.figures["functions"] >= 40
    assert outcome.figures["share"] >= truth.LEAST_SHARE, text_of(outcome)
    assert outcome.figures["median"] <= truth.MEDIAN
    assert outcome.ok


def test_a_derivative_that_is_not_the_functions_lies_outside_of_the_interval(monkeypatch):
    cosine = next(row for row in smooth.SMOOTH if row.name == "cos")
    wrong = replace(cosine, derivative=lambda m, x: -m.sin(x) * (1 + 1e-9))
    monkeypatch.setattr(truth, "SMOOTH", (wrong,))
    monkeypatch.setattr(truth, "COUPLED", ())
    outcome = truth.run(quick=True)
    assert not outcome.ok
    assert outcome.figures["share"] < 0.1
    assert "missed: cos" in text_of(outcome)


def test_constants_are_taken_as_rounded_in_the_dtype_of_the_function():
    """Within 1e-12, where float32 has rounded the 1.3 of 1.3^x by 4e-8."""
    row = next(row for row in smooth.SMOOTH if row.name == "exponential of base")
    (measured,) = truth._of_smooth(row, np.float32(1.7), 0, "scalar", np.random.default_rng(0))
    assert measured.ratio.max() <= 10
    assert measured.relative.max() < 1e-12


@pytest.mark.slow
def test_small_defects_are_found_and_named_and_correct_functions_left_in_peace():
    outcome = power.run(quick=True)
    for dtype, _ in power.DEFECTS:
        for mode in power.MODES:
            found = outcome.figures[f"{dtype.__name__} {mode}"]
            assert found["tries"] == found["found"] == found["named"] == 20, text_of(outcome)
    assert outcome.figures["correct"]["checks"] == 100
    assert outcome.ok, text_of(outcome)


@pytest.mark.parametrize("kind", power.KINDS)
def test_a_subject_without_a_defect_is_right(kind):
    x, entry = power.data(0, np.float64)
    report = check_gradients(power.with_wrong_entry(power.KINDS[kind], entry, 0.0), [x], mode="directional")
    assert report.verdict is Verdict.MATCH, str(report)


def test_a_function_that_is_not_correct_counts_as_an_alarm(monkeypatch):
    @tf.custom_gradient
    def wrong(x):
        return x * x, lambda up: 2.1 * up * x

    draw = next(row for row in CORRECT if row.name == "sin").draw
    monkeypatch.setattr(power, "CORRECT", (Correct(name="wrong", fn=wrong, draw=draw),))
    details = []
    assert power._peace(4, 0, details) == (4, 4, 0)
    assert all("alarm: wrong" in line for line in details)


def test_there_are_enough_correct_functions():
    assert len(CORRECT) >= 40
    assert len({row.name for row in CORRECT}) == len(CORRECT)
    assert 50 * len(CORRECT) >= 2000


@pytest.mark.slow
def test_what_others_get_wrong_is_judged_as_it_must_be():
    outcome = others.run(quick=True)
    assert outcome.ok, text_of(outcome)


def test_a_judgement_other_than_expected_is_noticed():
    case = others.cases()[0]
    report = check_gradients(case.fn, case.inputs)
    assert others.is_as_expected(case, report)
    for wrong in ({"verdict": Verdict.MISMATCH}, {"ok": False}, {"index": (7,)}, {"x": "weight"}, {"held": True}):
        assert not others.is_as_expected(replace(case, **wrong), report)


@pytest.mark.slow
def test_optimizers_agree_with_their_rules_and_what_is_planted_is_explained():
    outcome = optimizers.run(quick=True)
    assert outcome.ok, text_of(outcome)
    assert outcome.figures == {"agrees": "13/13", "explained": "19/19", "no_claim": "7/7"}


@pytest.mark.slow
def test_the_command_writes_what_it_found_and_leaves_other_sections_of_the_page(tmp_path, capsys):
    file, page = tmp_path / "found.json", tmp_path / "page.md"
    page.write_text("# Old\n\n## truth\n\nKept.\n\n## figures\n\nReplaced.\n", encoding="utf-8")
    assert main(["figures", "--quick", "--json", str(file), "--page", str(page)]) == 0
    assert "== figures ==" in capsys.readouterr().out
    found = json.loads(file.read_text(encoding="utf-8"))
    assert [(one["name"], one["ok"]) for one in found["outcomes"]] == [("figures", True)]
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Benchmarks\n")
    assert text.index("`python -m tests.benchmarks figures --quick`") < text.index("## truth\n\nKept.")
    assert "Replaced" not in text


@pytest.mark.slow
def test_defects_are_caught_and_right_functions_left_in_peace_in_a_process_that_is_asked(monkeypatch):
    names = ("sign", "not summed over a broadcast axis", "right: relu at 0")
    monkeypatch.setattr(catches, "CASES", tuple(case for case in seeded.CASES if case.name in names))
    monkeypatch.setattr(catches, "DEFECTS", {})
    monkeypatch.setattr(libraries, "_MODULES", {"tensorflow": "of_tensorflow", "no_such_library": ""})
    outcome = catches.run(quick=True)
    assert outcome.ok, text_of(outcome)
    assert {row[0]: row[1] for row in outcome.rows}["sign"] == "2 of 2"
    assert outcome.summary.endswith("left out, not installed: no_such_library")


ANSWERS = """
import json, os, sys, time
for line in sys.stdin:
    if json.loads(line)["do"] == "grow":
        time.sleep(60)
    print(json.dumps({"by": os.getpid()}), flush=True)
"""


def test_a_checker_that_takes_too_long_is_stopped_and_one_that_ends_is_told(monkeypatch):
    def begin(_):
        return subprocess.Popen(
            [sys.executable, "-c", ANSWERS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    monkeypatch.setattr(libraries, "_begin", begin)
    way = libraries.Way("any", "of_any")
    try:
        first = way.ask("time")
        assert way.ask("grow", limit=0.1) is None
        again = way.ask("time")
        assert again["by"] != first["by"]
        os.kill(again["by"], signal.SIGKILL)
        with pytest.raises(RuntimeError, match="ended while it was asked"):
            way.ask("time")
    finally:
        way.end()


def test_what_was_stopped_stands_in_the_table_as_longer_than_the_limit():
    (problem, *_) = peers.problems(0, ("small",))
    ours = {"seconds": 2.0, "warm": 1.0, "evaluations": 9, "megabytes": 0.5, "ok": True}
    row = peers._row(problem, "slow", {libraries.OURS: ours, "slow": {"ok": True, "warm": None}})
    assert row[2:] == ("slow", "> 60", None, None, None, None, None)


@pytest.mark.parametrize("case", seeded.CASES, ids=lambda case: case.name)
def test_a_defect_that_rounding_hides_is_none(case):
    assert case.exists(1000, "float64")
    assert case.exists(1000, "bfloat16") == (case.relative > 2**-7)


def test_an_unknown_benchmark_is_refused_with_the_names_there_are():
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "beauty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert (
        "no benchmark is called beauty; there are figures, truth, power, others, programs, plugin, optimizers, "
        "speed, resnet, watch, watchdog, trips, tensorboard, farm, peers, catches, growth" in done.stderr
    )


def test_a_table_shows_failures_and_ends_with_the_summary():
    outcome = Outcome(
        name="example", columns=("what", "ok"), rows=(("one", True), ("two", False)), summary="example: 1 of 2",
        ok=False, details=("  two: why",),
    )  # fmt: skip
    assert text_of(outcome) == "== example ==\nwhat  ok\none   yes\ntwo   NO\n  two: why\nexample: 1 of 2"
