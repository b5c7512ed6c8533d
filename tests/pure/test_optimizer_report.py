"""The report of a comparison of optimizers: its text, its JSON, and what follows from its findings."""

import dataclasses
import json

import pytest

from gradcheck import OptimizerReport
from gradcheck._results import Explanation, VariableDifference

W = VariableDifference(
    variable="w", shape=(2, 3), dtype="float32", first_apart=2, largest=0.5, step=3, index=(1, 2), units=4e6,
    excess=5e6, in_float64=False, differences=(1e-9, 0.25, 0.5), allowed=(1e-7, 1e-7, 1e-7),
    optimizer=(1.0, 2.0, 3.0, 4.0), reference=(1.0, 2.0, 2.75, 3.5),
)  # fmt: skip
B = dataclasses.replace(
    W, variable="b", shape=(), first_apart=None, largest=1e-9, step=1, index=(), units=0.25, excess=0.01,
    differences=(1e-9, 0.0, 0.0),
)  # fmt: skip
FOUND = Explanation(text="momentum 0.8 instead of 0.9", rule="Momentum(0.1, 0.8)", steps=3, excess=0.5)
OTHER = Explanation(text="something else", rule="Momentum(0.1, 0.7)", steps=3, excess=0.5)
NEAR = Explanation(text="weight decay 0.1 into the gradient", rule="Decayed(...)", steps=1, excess=123.0)
APART = OptimizerReport(optimizer="SGD", reference="Momentum(0.1, 0.9)", steps=3, variables=(B, W))
OK = dataclasses.replace(APART, variables=(B,), notes=("a note",))


def test_what_agrees_is_one_line_and_how_close_it_is():
    assert (OK.ok, bool(OK), OK.first_apart, OK.explanation) == (True, True, None, None)
    assert str(OK).splitlines() == [
        "ok: SGD and Momentum(0.1, 0.9) agree to rounding over 3 steps",
        "  largest     1.0e-09 in b at step 1 (0.25 units of rounding), 0.01 of what is allowed",
        "  note        a note",
    ]


def test_what_is_judged_in_float64_says_so():
    variables = [dataclasses.replace(v, in_float64=True) for v in (B, W)]
    assert str(dataclasses.replace(OK, variables=variables[:1])).splitlines()[1:3] == [
        "  largest     1.0e-09 in b at step 1 (0.25 units of rounding)",
        "  in float64  1.0e-09 in b, 0.01 of what is allowed",
    ]
    lines = str(dataclasses.replace(APART, variables=tuple(variables))).splitlines()
    assert lines[1] == "  first apart w at step 2: 2.5e-01 in float64, allowed 1.0e-07"


def test_what_is_explained_names_the_rule_and_what_gives_the_same_numbers():
    report = dataclasses.replace(APART, explanations=(FOUND, OTHER))
    assert (report.ok, bool(report), report.first_apart, report.worst, report.explanation) == (
        False,
        False,
        2,
        W,
        FOUND,
    )
    assert repr(report) == str(report)
    assert str(report).splitlines() == [
        "OptimizerMismatch: SGD and Momentum(0.1, 0.9) part at step 2 of 3",
        "  first apart w at step 2: 2.5e-01, allowed 1.0e-07",
        "  largest     5.0e-01 in w[1, 2] at step 3 (4e+06 units of rounding)",
        "  explained   momentum 0.8 instead of 0.9: accounts for all 3 steps to rounding",
        "  the rule    Momentum(0.1, 0.8)",
        "  or          something else, which gives the same numbers",
    ]


def test_what_is_not_explained_names_what_came_nearest():
    assert str(dataclasses.replace(APART, nearest=NEAR)).splitlines()[3:] == [
        "  explained   by nothing that was tried",
        "  nearest     weight decay 0.1 into the gradient: accounts for 1 step; 1.2e+02 times what is allowed is left",
    ]


@pytest.mark.parametrize("report", [OK, APART, dataclasses.replace(APART, explanations=(FOUND,), nearest=NEAR)])
def test_json_gives_the_report_back(report):
    assert OptimizerReport.from_dict(json.loads(json.dumps(report.to_dict(), allow_nan=False))) == report


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ok": True}, "^report.ok: True contradicts the variables, which say False$"),
        ({"steps": "3"}, "^report.steps: expected an integer, got '3'$"),
        ({"format": 2}, "^report.format: expected 1, got 2$"),
        ({"more": 1}, "^report.more: unknown, got 1; the fields are optimizer, "),
    ],
)
def test_a_document_that_is_no_report_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        OptimizerReport.from_dict({**APART.to_dict(), **change})
