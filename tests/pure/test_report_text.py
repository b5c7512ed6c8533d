import dataclasses
import math
import re
import textwrap

import pytest
from arbitrary import reports
from hypothesis import given

from gradcheck._report.gradient import Cost, GradientReport
from gradcheck._report.text import HEADLINES, MOST_FAILURES, finding_text, report_text
from gradcheck._results import EVERY_INPUT, Cut, Finding, Held, Place, Verdict

SQUARE = Place(op="square", op_type="custom_gradient", file="models/layers.py", line=41, function="call")
DROPOUT = Place(op="dropout/random_uniform", op_type="RandomUniform", file="models/layers.py", line=55)
ROUND = dataclasses.replace(SQUARE, op="model/Round", op_type="Round", source="    return tf.round(x)\n")
HELD = (Held(place=DROPOUT, reason="random"),)

WRONG = Finding(
    verdict=Verdict.MISMATCH,
    ok=False,
    y="output",
    x="inputs[1]",
    index=(3, 1),
    analytic=-1.003296,
    numeric=-0.501648,
    error=3.1e-12,
    allowed=1e-6,
    dtype="float32",
    points=9,
    order=8,
    twin=True,
    wrong=12,
    size=20,
    hint="analytic = 2.000 x numeric in all 12 wrong entries: a factor 2 too much",
    blame=SQUARE,
    held=HELD,
)


def right(x="inputs[0]", **fields):
    numbers = {"analytic": 1.0, "numeric": 1.0 + 3e-8, "error": 1e-12, "allowed": 1e-6, "dtype": "float32"}
    return Finding(**{"verdict": Verdict.MATCH, "ok": True, "y": "output", "x": x, "size": 4, **numbers, **fields})


def failing(verdict, **fields):
    return Finding(**{"verdict": verdict, "ok": False, "y": "output", "x": "inputs[0]", "size": 4, **fields})


def report(*findings, **fields):
    return GradientReport(**{"name": "loss", "findings": findings, "mode": "elementwise", "seed": 7, **fields})


def text(expected):
    return textwrap.dedent(expected).strip("\n")


SNAPSHOTS = {
    "a mismatch says all it knows": (
        report(
            WRONG,
            right("inputs[0]"),
            right("inputs[2]"),
            again='check_gradients(loss, inputs, wrt="inputs[1]", seed=7)',
        ),
        """
        GradientMismatch: d loss / d inputs[1] is wrong at [3, 1]
          analytic    -1.003296e+00   tf.gradients, float32
          numeric     -5.016480e-01 ± 3.1e-12   9 points, order 8, float64 twin
          difference   5.0e-01, allowed 1.0e-06
          hint        analytic = 2.000 x numeric in all 12 wrong entries: a factor 2 too much
          blame       custom_gradient 'square' at models/layers.py:41 in call
          worst of 12 wrong entries among 20; 1 of 3 inputs affected; held: dropout/random_uniform (models/layers.py:55)
          again       check_gradients(loss, inputs, wrt="inputs[1]", seed=7)
        """,
    ),
    "a mismatch along a direction names no entry": (
        report(
            failing(Verdict.MISMATCH, analytic=2.5, numeric=2.0, allowed=1e-6, part="imag", dtype="complex64"),
            name="gradient of loss",
        ),
        """
        GradientMismatch: d (gradient of loss) / d inputs[0] is wrong along a random direction (imaginary part)
          analytic     2.500000e+00   tf.gradients, complex64
          asked for    2.000000e+00
          difference   5.0e-01, allowed 1.0e-06
          1 of 1 input affected
        """,
    ),
    "a search that stopped early says at least": (
        report(failing(Verdict.MISMATCH, y="outputs[1]", index=(0,), y_index=(2, 0), wrong=32, more_wrong=True)),
        """
        GradientMismatch: d loss[1] / d inputs[0] is wrong at [0] for output entry [2, 0]
          worst of at least 32 wrong entries among 4; 1 of 1 input affected
        """,
    ),
    "the only wrong entry is called so": (
        report(failing(Verdict.MISMATCH, index=(), wrong=1, size=1, analytic=1.0000021, numeric=1.0, allowed=2.06e-6)),
        """
        GradientMismatch: d loss / d inputs[0] is wrong
          analytic     1.000002e+00   tf.gradients
          asked for    1.000000e+00
          difference   2.100e-06, allowed 2.060e-06
          the only wrong entry among 1; 1 of 1 input affected
        """,
    ),
    "a cut shows the op, the line and the reason": (
        report(
            failing(
                Verdict.CUT,
                numeric=0.25,
                error=2e-13,
                points=9,
                order=4,
                dtype="float64",
                cut=Cut(place=ROUND, reason="Round has no gradient"),
                advice="replace Round by a smooth op",
            )
        ),
        """
        GradientCut: d loss / d inputs[0] is None, yet loss moves with inputs[0]
          analytic     None           tf.gradients, float64
          numeric      2.500000e-01 ± 2.0e-13   9 points, order 4, float64
          cut         Round 'model/Round' at models/layers.py:41 in call: `return tf.round(x)`
          why         Round has no gradient
          1 of 1 input affected
          next        replace Round by a smooth op
        """,
    ),
    "a cut may be a gradient of zero": (
        report(failing(Verdict.CUT, analytic=0.0, numeric=-3.0, error=math.inf, index=(2,))),
        """
        GradientCut: d loss / d inputs[0] is zero at [2], yet loss moves with inputs[0]
          analytic     0.000000e+00   tf.gradients
          numeric     -3.000000e+00 ± unknown
          difference   3.0e+00, allowed unknown
          1 of 1 input affected
          next        use a differentiable op there; where the cut is meant, say so by tf.stop_gradient
        """,
    ),
    "an input that was meant to be connected": (
        report(failing(Verdict.UNCONNECTED, advice="is the right tensor passed in?")),
        """
        GradientUnconnected: d loss / d inputs[0] is None, and loss does not depend on inputs[0]
          1 of 1 input affected
          next        is the right tensor passed in?
        """,
    ),
    "a kink shows both sides": (
        report(
            failing(Verdict.NONSMOOTH, index=(1,), analytic=2.0, numeric=0.0, error=1.0, one_sided=(-1.0, 1.0), order=1)
        ),
        """
        GradientNonsmooth: d loss / d inputs[0] has no single value at [1]: loss has a kink or a jump at this very point
          analytic     2.000000e+00   tf.gradients
          numeric      0.000000e+00 ± 1.0e+00   order 1
          one-sided   -1.000000e+00 to the left, 1.000000e+00 to the right; the analytic value is not between
          1 of 1 input affected
          next        check at a point beside the kink
        """,
    ),
    "what cannot be decided names the knob": (
        report(failing(Verdict.INCONCLUSIVE, reason="noise of 3.0e-02", advice="rtol=0.05 would decide it")),
        """
        GradientInconclusive: d loss / d inputs[0] is undecided: the numeric error is too large
          reason      noise of 3.0e-02
          1 of 1 input affected
          next        rtol=0.05 would decide it
        """,
    ),
    "a gradient whose own rounding leaves it open": (
        report(failing(Verdict.INCONCLUSIVE, analytic=-0.3, numeric=-0.33, error=1e-13, allowed=0.1, index=())),
        """
        GradientInconclusive: d loss / d inputs[0] is undecided: the gradient's own rounding is too large
          analytic    -3.000000e-01   tf.gradients
          numeric     -3.300000e-01 ± 1.0e-13
          difference   3.0e-02, allowed 1.0e-01
          1 of 1 input affected
          next        pass a larger rtol, or inputs where the function is smoother
        """,
    ),
    "runs that differ": (
        report(failing(Verdict.NONDETERMINISTIC, x="dense/kernel", held=HELD), unpromoted=("Foo", "Bar")),
        """
        GradientNondeterministic: d loss / d dense/kernel cannot be checked: two runs at the same point differ
          1 of 1 input affected; held: dropout/random_uniform (models/layers.py:55)
          next        hand in what changes between runs as an input, or make it repeatable
          not in float64, so that error bars are wider: Foo, Bar
        """,
    ),
    "a gradient that is not finite": (
        report(failing(Verdict.NONFINITE, index=(3,), analytic=math.nan, numeric=0.5, allowed=1e-6, blame=ROUND)),
        """
        GradientNonfinite: d loss / d inputs[0] is NaN or infinite at [3]
          analytic     nan   tf.gradients
          numeric      5.000000e-01 ± unknown
          blame       Round 'model/Round' at models/layers.py:41 in call: `return tf.round(x)`
          1 of 1 input affected
          next        check at a point where every value is finite, or guard the op that is not
        """,
    ),
    "a value that is not finite": (
        report(failing(Verdict.NONFINITE, analytic=1.0, numeric=math.inf)),
        """
        GradientNonfinite: the value of loss is NaN or infinite
          analytic     1.000000e+00   tf.gradients
          numeric      inf ± unknown
          difference   inf, allowed unknown
          1 of 1 input affected
          next        check at a point where every value is finite, or guard the op that is not
        """,
    ),
    "all well is short": (
        report(
            right("inputs[0]"),
            right("inputs[1]", numeric=1.0 - 5e-7, index=(1,)),
            right("dense/kernel", held=HELD),
            cost=Cost(evaluations=4128),
            seed=0,
            notes=("the gradient is linear in the cotangent",),
            skipped=("inputs[2] (int32)",),
            again="check_gradients(loss, inputs, seed=0)",
        ),
        """
        ok: gradient of loss: 3 of 3 pairs match (elementwise, 4128 evaluations, seed 0)
          worst       0.5 of what is allowed: d loss / d inputs[1] at [1]
          held        dropout/random_uniform (models/layers.py:55)
          note        the gradient is linear in the cotangent
          not differentiable: inputs[2] (int32)
          again       check_gradients(loss, inputs, seed=0)
        """,
    ),
    "what is ok without a match says why": (
        report(
            right("inputs[0]", numeric=1.0),
            Finding(verdict=Verdict.UNCONNECTED, ok=True, y="output", x="inputs[1]"),
            Finding(verdict=Verdict.NONSMOOTH, ok=True, y="output", x="inputs[2]", index=(0,), reason="relu at 0"),
            cost=Cost(evaluations=1),
        ),
        """
        ok: gradient of loss: 1 of 3 pairs match, 1 nonsmooth, 1 unconnected (elementwise, 1 evaluation, seed 7)
          worst       0 of what is allowed: d loss / d inputs[0] along a random direction
          unconnected d loss / d inputs[1] is None, and loss does not depend on inputs[1]
          nonsmooth   d loss / d inputs[2] has no single value at [0]: loss has a kink or a jump at this very point
                      relu at 0
        """,
    ),
    "of all inputs at once no input is counted": (
        report(
            failing(Verdict.MISMATCH, x=EVERY_INPUT, analytic=-3.0, numeric=-2.0, allowed=1e-3, reason="not symmetric"),
            right(),
        ),
        """
        GradientMismatch: the gradient of loss by all inputs at once is wrong along a random direction
          analytic    -3.000000e+00   tf.gradients
          asked for   -2.000000e+00
          difference   1.0e+00, allowed 1.0e-03
          reason      not symmetric
        """,
    ),
    "an input that is wrong by itself is counted beside all at once": (
        report(failing(Verdict.MISMATCH, x=EVERY_INPUT, reason="modes"), failing(Verdict.MISMATCH, reason="r")),
        """
        GradientMismatch: the gradient of loss by all inputs at once is wrong
          reason      modes
        GradientMismatch: d loss / d inputs[0] is wrong
          reason      r
          1 of 1 input affected
        """,
    ),
    "nothing to check is said": (
        report(skipped=("inputs[0] (int32)",)),
        """
        ok: gradient of loss: nothing to check (elementwise, 0 evaluations, seed 7)
          not differentiable: inputs[0] (int32)
        """,
    ),
}


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_the_text_is(name):
    shown, expected = SNAPSHOTS[name]
    assert str(shown) == text(expected)


def test_every_verdict_has_a_headline_and_every_headline_was_rendered():
    headlines = {
        verdict: re.compile(re.sub(r"\\\{\w+\\\}", ".*", re.escape(template)))
        for verdict, template in HEADLINES.items()
    }
    assert set(headlines) == set(Verdict)
    rendered = {
        finding.verdict
        for shown, _ in SNAPSHOTS.values()
        for finding in shown.findings
        if headlines[finding.verdict].fullmatch(finding_text(finding, shown).split("\n")[0].partition(": ")[2])
    }
    assert rendered == set(Verdict)


def test_a_finding_that_is_ok_can_be_shown_alone():
    finding = right(index=(2,))
    assert finding_text(finding, report(finding)).startswith("ok: d loss / d inputs[0] is right at [2]\n")


def test_the_gravest_comes_first_and_the_rest_is_counted():
    mild = [failing(Verdict.INCONCLUSIVE, x=f"inputs[{i}]") for i in range(MOST_FAILURES)]
    near = dataclasses.replace(WRONG, x="near", numeric=WRONG.analytic + 2e-6)
    lines = str(report(*mild, near, WRONG, failing(Verdict.NONFINITE, x="last"), right())).split("\n")
    titles = [line for line in lines if not line.startswith(" ")]
    assert [re.split(" is | along ", title)[0] for title in titles] == [
        "GradientNonfinite: the value of loss",
        "GradientMismatch: d loss / d inputs[1]",
        "GradientMismatch: d loss / d near",
        "GradientInconclusive: d loss / d inputs[0]",
        "GradientInconclusive: d loss / d inputs[1]",
        "and 3 more findings that are not ok, among 9",
    ]


@pytest.mark.parametrize("field", ["hint", "reason", "advice"])
def test_text_of_many_lines_is_put_on_one(field):
    finding = dataclasses.replace(WRONG, **{field: "first\n  second\r\n\tthird"})
    assert "first second third" in str(report(finding))


def test_a_long_line_of_source_is_shortened():
    place = dataclasses.replace(SQUARE, source=f"y = {'x + ' * 200}x")
    shown = finding_text(dataclasses.replace(WRONG, blame=place), report(WRONG))
    assert max(map(len, shown.split("\n"))) < 200
    assert "...`" in shown


def test_long_lists_are_counted():
    assert "a, b, c, d, e and 2 more" in str(report(right(), skipped=tuple("abcdefg")))


def test_the_time_it_took_is_not_in_the_text():
    slow, fast = (report(right(), cost=Cost(evaluations=9, seconds=seconds)) for seconds in (12345.678, 0.5))
    assert str(slow) == str(fast)


@given(reports)
def test_rendering_never_raises_and_repeats_itself(shown):
    assert report_text(shown) == str(shown) == repr(shown)
    for finding in shown.findings:
        assert finding_text(finding, shown)


@given(reports)
def test_only_headlines_begin_a_line(shown):
    """Whatever names and hints hold: a line is a headline, a count, or indented."""
    headline = re.compile(r"ok: |Gradient[A-Z][a-z]+: |and \d+ more findings ")
    assert all(line.startswith("  ") or headline.match(line) for line in str(shown).splitlines())


def test_difference_in_units_of_allowed():
    at = {"analytic": 1.0, "numeric": 1.0}
    assert right(**at, allowed=0.0).excess == 0.0
    assert right(**{**at, "numeric": 2.0}, allowed=0.0).excess == math.inf
    assert right(**{**at, "numeric": 2.0}, allowed=0.5).excess == 2.0
    assert right(**{**at, "numeric": math.nan}, allowed=0.5).excess == math.inf
    assert right(**at, allowed=None).excess is None
    assert failing(Verdict.CUT).excess is None
