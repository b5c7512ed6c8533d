import copy
import dataclasses
import json
import math

import pytest
from arbitrary import reports
from hypothesis import given

from gradcheck._report.gradient import Cost, GradientReport
from gradcheck._results import Cut, Finding, Held, Place, Verdict

PLACE = Place(op="Round", op_type="Round", file="model.py", line=7, function="loss", source="tf.round(x)")
REPORT = GradientReport(
    name="loss",
    findings=(
        Finding(
            verdict=Verdict.CUT,
            ok=False,
            y="output",
            x="inputs[0]",
            index=(3, 1),
            numeric=0.5,
            error=math.inf,
            one_sided=(-math.inf, math.nan),
            cut=Cut(place=PLACE, reason="Round has no gradient"),
            held=(Held(place=PLACE, reason="random"),),
        ),
    ),
    mode="elementwise",
    seed=7,
    cost=Cost(evaluations=9, gradients=1, seconds=0.25),
    notes=("a note",),
)


def _through_json(report):
    return json.loads(json.dumps(report.to_dict(), allow_nan=False))


def _changed(path, value):
    """The dict of REPORT with the entry at `path` replaced, or removed where value is ...."""
    data = copy.deepcopy(REPORT.to_dict())
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return data


@given(reports)
def test_a_report_survives_json(report):
    """Compared by repr of the fields, since nan differs from itself."""
    again = GradientReport.from_dict(_through_json(report))
    assert again.to_dict() == report.to_dict()
    assert str(dataclasses.asdict(again)) == str(dataclasses.asdict(report))


def test_the_test_above_can_fail():
    other = dataclasses.replace(REPORT, cost=Cost(evaluations=9, gradients=1, seconds=0.5))
    assert other == REPORT
    assert str(dataclasses.asdict(other)) != str(dataclasses.asdict(REPORT))


def test_numbers_that_json_lacks_are_strings():
    finding = REPORT.to_dict()["findings"][0]
    assert finding["error"] == "inf"
    assert finding["one_sided"] == ["-inf", "nan"]


def test_the_dict_begins_with_its_format_and_says_what_follows_from_the_findings():
    data = REPORT.to_dict()
    assert (data["format"], data["ok"], data["verdict"]) == (1, False, "CUT")


def test_numpy_scalars_become_plain_numbers():
    np = pytest.importorskip("numpy")
    finding = dataclasses.replace(
        REPORT.findings[0], index=(np.int64(2),), numeric=np.float32(0.5), size=np.int32(4), ok=np.bool_(False)
    )
    data = _through_json(dataclasses.replace(REPORT, findings=(finding,)))["findings"][0]
    assert (data["index"], data["numeric"], data["size"], data["ok"]) == ([2], 0.5, 4, False)


def test_an_integer_is_read_where_a_number_is_due():
    read = GradientReport.from_dict(_changed(("findings", 0, "numeric"), 2))
    assert isinstance(read.findings[0].numeric, float)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("seed",), ..., r"report\.seed: missing"),
        (("format",), ..., r"report\.format: missing"),
        (("ok",), ..., r"report\.ok: missing"),
        (("format",), 2, r"report\.format: expected 1, got 2"),
        (("format",), True, r"report\.format: expected 1, got True"),
        (("ok",), True, r"report\.ok: True contradicts the findings, which say False"),
        (("ok",), 0, r"report\.ok: 0 contradicts the findings, which say False"),
        (("verdict",), "MATCH", r"report\.verdict: 'MATCH' contradicts the findings, which say 'CUT'"),
        (("colour",), "red", r"report\.colour: unknown, got 'red'; the fields are name, findings, .*, taylor"),
        (("seed",), "7", r"report\.seed: expected an integer, got '7'"),
        (("seed",), True, r"report\.seed: expected an integer, got True"),
        (("seed",), 7.0, r"report\.seed: expected an integer, got 7\.0"),
        (("name",), None, r"report\.name: expected a string, got None"),
        (("notes",), "a note", r"report\.notes: expected a list, got 'a note'"),
        (("notes",), [1], r"report\.notes\[0\]: expected a string, got 1"),
        (("findings",), {}, r"report\.findings: expected a list, got \{\}"),
        (("findings", 0), [], r"report\.findings\[0\]: expected an object, got \[\]"),
        (("findings", 0, "ok"), 1, r"report\.findings\[0\]\.ok: expected true or false, got 1"),
        (("findings", 0, "x"), ..., r"report\.findings\[0\]\.x: missing"),
        (
            ("findings", 0, "verdict"),
            "WRONG",
            r"report\.findings\[0\]\.verdict: expected one of MATCH, .*, got 'WRONG'",
        ),
        (("findings", 0, "verdict"), ["CUT"], r"report\.findings\[0\]\.verdict: expected one of .*, got \['CUT'\]"),
        (
            ("findings", 0, "error"),
            "Infinity",
            r"report\.findings\[0\]\.error: expected a number, .*, got \'Infinity\'",
        ),
        (("findings", 0, "error"), False, r"report\.findings\[0\]\.error: expected a number, .*, got False"),
        (("findings", 0, "error"), 10**400, r"report\.findings\[0\]\.error: an integer too large for a number"),
        (("findings", 0, "one_sided"), [1.0], r"report\.findings\[0\]\.one_sided: expected a list of 2, got \[1\.0\]"),
        (("findings", 0, "cut", "place", "line"), "7", r".*\.cut\.place\.line: expected an integer, got '7'"),
        (("cost", "seconds"), None, r"report\.cost\.seconds: expected a number, .*, got None"),
    ],
)
def test_what_is_missing_unknown_or_mistyped_is_named(path, value, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        GradientReport.from_dict(_changed(path, value))


@pytest.mark.parametrize("data", [None, [], "report", 1])
def test_what_is_no_object_is_no_report(data):
    with pytest.raises(ValueError, match=r"^report: expected an object, got .*$"):
        GradientReport.from_dict(data)


def test_what_was_found_is_shown_but_never_at_length():
    with pytest.raises(ValueError, match=r"^report\.seed: expected an integer, got \[0, 0, .*\.\.\.$") as raised:
        GradientReport.from_dict(_changed(("seed",), [0] * 1000))
    assert len(str(raised.value)) < 120
