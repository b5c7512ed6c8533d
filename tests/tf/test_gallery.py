"""Every subject of the gallery, in every mode, gets the verdict that it has earned."""

import dataclasses
import re

import pytest

import gradcheck
from gradcheck import Verdict
from tests.gallery import GALLERY, MODES, RIGHT, WRONG, Row

SEEDS = (0, 1)
# Where time is short, mode auto stands for the rest, with every third row in mode directional.
DIRECTIONAL_TOO = 5


def check(row, **options):
    fn, inputs = row.case()
    return gradcheck.check_gradients(fn, inputs, **{**row.options, **options})


def parameter(row, mode, k):
    marks = []
    if row.known_failure and mode in row.failing_modes:
        marks.append(pytest.mark.xfail(reason=row.known_failure, strict=True))
    if row.slow or (mode != "auto" and (mode != "directional" or k % DIRECTIONAL_TOO)):
        marks.append(pytest.mark.slow)
    return pytest.param(row, mode, marks=marks, id=f"{row.name}-{mode}")


def assert_expected(row, report):
    text = str(report)
    worst = report.worst
    assert (report.verdict, report.ok) == (row.verdict, row.ok), text
    if row.x is not None:
        assert worst.x == row.x, text
    if row.index is not None:
        assert worst.index == row.index, text
    if row.op is not None:
        named = [place.op_type for place in (worst.blame, worst.cut and worst.cut.place) if place]
        assert any(re.fullmatch(row.op, op) for op in named), text
    if row.says is not None:
        assert re.search(row.says, text), text


@pytest.mark.parametrize(
    ("row", "mode"), [parameter(row, mode, k) for k, row in enumerate(GALLERY) for mode in row.modes]
)
def test_a_subject_gets_the_verdict_it_has_earned(row, mode):
    assert_expected(row, check(row, mode=mode))


def test_an_expectation_that_is_not_met_is_seen():
    right = RIGHT[0]
    report = check(right, mode="directional")
    for wrong in (
        dataclasses.replace(right, verdict=Verdict.MISMATCH, ok=False),
        dataclasses.replace(right, x="inputs[7]"),
        dataclasses.replace(right, index=(99,)),
        dataclasses.replace(right, op="Round"),
        dataclasses.replace(right, says="no report says this"),
    ):
        with pytest.raises(AssertionError):
            assert_expected(wrong, report)


def test_the_table_is_large_enough_and_its_names_are_unique():
    assert len(RIGHT) >= 60
    assert len(WRONG) >= 40
    assert len({row.name for row in GALLERY}) == len(GALLERY)
    assert all(row.ok for row in RIGHT)
    assert not any(row.ok for row in WRONG)


VERDICTS_BY_ROW = {
    "sin": Verdict.MATCH,
    "factor 2": Verdict.MISMATCH,
    "constant output": Verdict.UNCONNECTED,
    "round": Verdict.CUT,
    "relu at 0": Verdict.NONSMOOTH,
    "noise above the derivative": Verdict.INCONCLUSIVE,
    "numpy_function that draws": Verdict.NONDETERMINISTIC,
    "sqrt at 0": Verdict.NONFINITE,
}


def test_the_gallery_has_produced_every_verdict():
    rows = {row.name: row for row in GALLERY}
    assert {check(rows[name]).verdict for name in VERDICTS_BY_ROW} == set(Verdict)


REPEATED = [row for row in GALLERY if not row.known_failure and row.verdict is not Verdict.NONDETERMINISTIC]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=pytest.mark.slow if row.slow or k % 8 else (), id=row.name)
        for k, row in enumerate(REPEATED)
    ],
)
@pytest.mark.slow
def test_the_same_seed_gives_the_same_findings_and_another_seed_the_same_verdict(row):
    fn, inputs = row.case()
    first, again, other = (gradcheck.check_gradients(fn, inputs, **{**row.options, "seed": seed}) for seed in (3, 3, 4))
    assert first.findings == again.findings
    assert dataclasses.replace(first, cost=again.cost) == again
    assert (other.verdict, other.ok) == (first.verdict, first.ok), str(other)


def test_the_same_seed_gives_an_equal_report_and_equal_text():
    for row in (RIGHT[0], WRONG[0]):
        fn, inputs = row.case()
        first, again = (gradcheck.check_gradients(fn, inputs, seed=3) for _ in range(2))
        assert first == again
        assert str(first) == str(again)


def test_another_seed_is_recorded_and_changes_the_numbers():
    first, other = (check(RIGHT[0], seed=seed, mode="directional") for seed in SEEDS)
    assert (first.seed, other.seed) == SEEDS
    assert first.findings != other.findings


@pytest.mark.parametrize("row", [row for row in GALLERY if row.name in VERDICTS_BY_ROW], ids=lambda row: row.name)
def test_a_report_survives_json(row):
    report = check(row)
    assert gradcheck.GradientReport.from_dict(report.to_dict()) == report


def test_rows_name_known_modes():
    assert all(set(row.modes) <= set(MODES) and set(row.failing_modes) <= set(MODES) for row in GALLERY)
    assert all(isinstance(row, Row) for row in GALLERY)
