"""find_nonfinite names the op, the line, the cause and the remedy; a healthy function gets none."""

import json
import re

import pytest

import gradcheck
from gradcheck import NonfiniteReport
from tests.faults import FAULTS, HEALTHY, NEAR_MISSES


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_blamed_on_its_op_and_line(fault):
    report = gradcheck.find_nonfinite(fault.case(), fault.inputs)
    text = str(report)
    assert not report.ok
    assert report.op_type == fault.op, text
    assert report.cause == fault.cause, text
    if fault.cause != "input":
        assert report.place.source is not None, text
        assert "# here" in report.place.source, text
        assert report.where == f"{report.place.file}:{report.place.line}"
    assert (report.forward.op_type if report.forward else None) == fault.forward, text
    if fault.kind is not None:
        assert report.kind == fault.kind, text
    if fault.inside is not None:
        assert re.search(fault.inside, " > ".join(report.inside)), text
    if fault.hint is not None:
        assert report.hint is not None, text
        assert re.search(fault.hint, report.hint), text
    if fault.layer is not None:
        assert report.layer == fault.layer, text
    assert len(text.splitlines()) <= 12, text
    assert NonfiniteReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report


@pytest.mark.parametrize(("name", "fn", "inputs"), HEALTHY, ids=[name for name, _, _ in HEALTHY])
def test_a_healthy_function_gets_no_finding(name, fn, inputs):
    report = gradcheck.find_nonfinite(fn, inputs)
    assert report.ok, str(report)
    assert "finite" in str(report)


@pytest.mark.parametrize(("name", "fn", "inputs", "pattern"), NEAR_MISSES, ids=[name for name, *_ in NEAR_MISSES])
def test_a_hint_is_not_given_where_it_is_not_earned(name, fn, inputs, pattern):
    report = gradcheck.find_nonfinite(fn, inputs)
    assert not report.ok
    assert not re.search(pattern, report.hint or ""), str(report)
