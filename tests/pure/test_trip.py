import json
import math

import pytest

from gradcheck._report.nonfinite import NonfiniteReport, Range
from gradcheck._report.trip import MEANING, Layer, Step, TripReport
from gradcheck._results import Place

FOUND = Range(name="change of dense/kernel", dtype="float32", shape=(2, 3), nan=1, posinf=2, neginf=0)
OP = NonfiniteReport(
    name="step", ok=False, place=Place(op="Log", op_type="Log", file="train.py", line=7, source="tf.math.log(x)"),
    kind="-Inf", cause="singularity", index=(0,), output=Range(name="Log:0", dtype="float32", shape=(1,), neginf=1),
)  # fmt: skip
HISTORY = (
    Step(
        number=41, outputs=(("loss", 0.5),),
        layers=(Layer(name="dense/kernel", norm=0.25, low=-0.125, high=0.0625, ratio=0.001),
                Layer(name="a/very/long/path/to/a/layer/bias", norm=4.0, ratio=math.inf)),
    ),
    Step(number=42, outputs=(("loss", math.nan),), layers=(Layer(name="dense/kernel", norm=math.nan),)),
)  # fmt: skip
TRIP = TripReport(
    name="train_step", step=42, action="skip", found=(FOUND,) * 5, nonfinite=OP, in_a_row=2, history=HISTORY,
    notes=("a note",), bundle="dumps/trip-1",
)  # fmt: skip

TEXT = """\
step 42 of train_step is not finite, 2 in a row: nothing was written, and training goes on with the next step
  found    change of dense/kernel float32[2, 3]: 1 NaN, 2 +Inf of 6
  found    change of dense/kernel float32[2, 3]: 1 NaN, 2 +Inf of 6
  found    change of dense/kernel float32[2, 3]: 1 NaN, 2 +Inf of 6
  and 2 more
  step: Log 'Log' gives -Inf at [0]
    output   Log:0 float32[1]; 1 -Inf of 1
    where    train.py:7:  tf.math.log(x)
    cause    singularity: not finite there, however exactly it is computed
  note     a note
  bundle   dumps/trip-1
  step  loss  dense/kernel  ratio     min     max
    41   0.5          0.25  0.001  -0.125  0.0625
    42   nan           nan      -       -       -"""


def test_the_text_has_the_step_what_was_found_the_op_and_the_last_steps():
    assert str(TRIP) == TEXT
    assert repr(TRIP) == TEXT


@pytest.mark.parametrize("action", MEANING)
def test_every_action_has_its_sentence(action):
    (line,) = str(TripReport(name="f", step=1, action=action, found=())).split("\n")
    assert line == f"step 1 of f is not finite: {MEANING[action]}"


@pytest.mark.parametrize("action", MEANING)
def test_where_zeros_were_given_nothing_is_said_to_be_unwritten(action):
    text = str(TripReport(name="guard", step=1, action=action, found=(), zeros=True))
    assert "nothing was written" not in text
    assert ("zeros took the place of its gradients" in text) == (action != "raise")


def test_a_report_is_not_ok():
    assert not TRIP
    assert TRIP.ok is False


def test_a_report_survives_json():
    carried = TripReport.from_dict(json.loads(json.dumps(TRIP.to_dict(), allow_nan=False)))
    assert str(carried) == TEXT
    assert carried.to_dict() == TRIP.to_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": "42"}, r"^report.step: expected an integer, got '42'$"),
        ({"unknown": 1}, r"^report.unknown: unknown, got 1; the fields are "),
        ({"format": 2}, r"^report.format: expected 1, got 2$"),
        ({"found": 3}, r"^report.found: expected a list, got 3$"),
    ],
)
def test_a_damaged_dict_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        TripReport.from_dict({**TRIP.to_dict(), **change})
