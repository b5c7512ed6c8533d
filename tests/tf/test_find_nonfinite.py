"""find_nonfinite names the op, the line, the cause and the remedy; a healthy function gets none."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf

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


def test_a_function_that_takes_values_into_python_is_followed_at_these_inputs():
    def scaled(x, power):
        if x.numpy().max() > 1.0 and float(power) == 2.0:
            x = tf.sqrt(x / np.max(x))  # here
        return x

    report = gradcheck.find_nonfinite(scaled, [tf.constant([4.0, 0.0]), tf.constant(2.0)])
    assert (report.op_type, report.cause, report.place.source[-6:]) == ("SqrtGrad", "singularity", "# here")
    assert gradcheck.find_nonfinite(scaled, {"x": tf.constant([0.5, 0.0]), "power": tf.constant(2.0)}).ok


def test_misuse_is_refused_before_anything_runs():
    message = (
        r"^fn must be callable, found list; write find_nonfinite\(fn, inputs\) with the function that makes it; in a "
        r"session, gradcheck\.hooks\.NonfiniteHook watches tensors of the graph$"
    )
    with pytest.raises(TypeError, match=message):
        gradcheck.find_nonfinite([1.0], 2.0)
    with pytest.raises(ValueError, match="returned nothing that can be differentiated"):
        gradcheck.find_nonfinite(lambda: None, [])


def test_a_report_with_a_field_of_the_wrong_kind_is_refused():
    data = gradcheck.find_nonfinite(FAULTS[0].fn, FAULTS[0].inputs).to_dict()
    for change, says in (({"ok": 1}, "report.ok"), ({"extra": 1}, "report.extra"), ({"format": 7}, "report.format")):
        with pytest.raises(ValueError, match=says):
            NonfiniteReport.from_dict({**data, **change})


def test_a_check_of_what_cannot_be_run_op_by_op_still_says_nonfinite():
    batches = iter(tf.data.Dataset.from_tensors(tf.constant(0.0, tf.float64)).repeat())
    report = gradcheck.check_gradients(lambda a: tf.math.log(next(batches) * a), tf.constant(1.0, tf.float64))
    assert report.verdict is gradcheck.Verdict.NONFINITE
    assert report.worst.blame is None
