"""Reports as text for people."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from gradcheck._results import EVERY_INPUT, Finding, Held, Place, Verdict

if TYPE_CHECKING:
    from gradcheck._report.gradient import GradientReport

MOST_FAILURES = 5  # printed in full
_MOST_NAMES = 5  # in one list
_LONGEST_SOURCE = 100  # characters of the user's line
_LABEL_WIDTH = 12

HEADLINES = {
    Verdict.MATCH: "{gradient} is right{where}",
    Verdict.MISMATCH: "{gradient} is wrong{where}",
    Verdict.UNCONNECTED: "{gradient} is {absent}{where}, and {y} does not depend on {x}",
    Verdict.CUT: "{gradient} is {absent}{where}, yet {y} moves with {x}",
    Verdict.NONSMOOTH: "{gradient} has no single value{where}: {y} has a kink or a jump at this very point",
    Verdict.INCONCLUSIVE: "{gradient} is undecided{where}: the numeric error is too large",
    Verdict.NONDETERMINISTIC: "{gradient} cannot be checked{where}: two runs at the same point differ",
    Verdict.NONFINITE: "{nonfinite} is NaN or infinite{where}",
}
_BLURRED = "{gradient} is undecided{where}: the gradient's own rounding is too large"
_OUTSIDE = {  # by the type of the op at the cut
    "Variable": "{gradient} is {absent}{where}, yet {y} is made from the value of {x}",
    "Constant": "{gradient} is {absent}{where}, yet {y} takes a constant that looks like {constant}",
}

_NEXT = {
    Verdict.CUT: "use a differentiable op there; where the cut is meant, say so by tf.stop_gradient",
    Verdict.NONSMOOTH: "check at a point beside the kink",
    Verdict.INCONCLUSIVE: "pass a larger rtol, or inputs where the function is smoother",
    Verdict.NONDETERMINISTIC: "hand in what changes between runs as an input, or make it repeatable",
    Verdict.NONFINITE: "check at a point where every value is finite, or guard the op that is not",
}


def report_text(report: GradientReport) -> str:
    """The whole report: what failed in full, gravest first, or one line where all is well; then what else was noticed.

    It holds no times, so that two reports of the same check have the same text.
    """
    failures = report.failures
    lines = [] if failures else [_ok_line(report), *_ok_details(report)]
    for finding in failures[:MOST_FAILURES]:
        lines += finding_text(finding, report).split("\n")
    if len(failures) > MOST_FAILURES:
        lines.append(f"and {len(failures) - MOST_FAILURES} more findings that are not ok, among {len(report.findings)}")
    return "\n".join([*lines, *_tail(report)])


def finding_text(finding: Finding, report: GradientReport) -> str:
    """One finding: its headline, the numbers, what explains them, and what to do next."""
    lines = [
        *_numbers(finding),
        *_labelled("reason", finding.reason),
        *_labelled("hint", finding.hint),
        *(line for each in _blamed(finding) for line in _labelled("blame", _place(each))),
        *_cut(finding),
        *_extent(finding, report),
        *_labelled("next", finding.advice or (None if finding.ok else _NEXT.get(finding.verdict))),
    ]
    return "\n".join([f"{_title(finding)}: {_headline(finding, report)}", *lines])


def _title(finding: Finding) -> str:
    return "ok" if finding.ok else f"Gradient{finding.verdict.name.capitalize()}"


def _headline(finding: Finding, report: GradientReport) -> str:
    y, x = _output(finding, report), _line(finding.x)
    gradient = gradient_name(y, x)
    gradient_is_nonfinite = finding.analytic is not None and not math.isfinite(finding.analytic)
    cut = Place(op="", op_type="") if finding.cut is None else finding.cut.place
    headline = _OUTSIDE.get(cut.op_type) if finding.verdict is Verdict.CUT else None
    if finding.blurred:
        headline = _BLURRED
    return (headline or HEADLINES[finding.verdict]).format(
        gradient=gradient,
        y=y,
        x=x,
        where=_where(finding),
        absent="None" if finding.analytic is None else "zero",
        constant=_line(cut.op),
        nonfinite=gradient if gradient_is_nonfinite else f"the value of {y}",
    )


def gradient_name(y: str, x: str) -> str:
    """What a report calls the gradient of y with respect to x."""
    if x == EVERY_INPUT:
        return f"the gradient of {y} by {x}"
    return f"d {f'({y})' if ' ' in y else y} / d {x}"


def _output(finding: Finding, report: GradientReport) -> str:
    """The output as the user knows it: `loss` for the only one, `loss[1]` for one of many."""
    y, name = _line(finding.y), _line(report.name)
    if not name:
        return y or "output"
    if y in ("", "output"):
        return name
    return name + y.removeprefix("outputs") if y.startswith("outputs[") else y


_NUMBERS = (Verdict.MATCH, Verdict.MISMATCH, Verdict.NONSMOOTH, Verdict.INCONCLUSIVE)


def _where(finding: Finding) -> str:
    parts = []
    if finding.index is not None:
        parts += [f"at {_index(finding.index)}"] if finding.index else []
    elif finding.analytic is not None and finding.verdict in _NUMBERS:
        parts.append("along a random direction")
    if finding.y_index:
        parts.append(f"for output entry {_index(finding.y_index)}")
    if finding.part:
        parts.append({"real": "(real part)", "imag": "(imaginary part)"}.get(finding.part, f"({_line(finding.part)})"))
    return "".join(f" {part}" for part in parts)


def _index(index: Sequence[int]) -> str:
    return f"[{', '.join(map(str, index))}]"


def _numbers(finding: Finding) -> Iterator[str]:
    if finding.analytic is not None or finding.numeric is not None:
        source = ", ".join(filter(None, ["tf.gradients", _line(finding.dtype)]))
        yield _measured("analytic", f"{_number(finding.analytic)}   {source}")
    if finding.numeric is not None and finding.error is None and finding.verdict is Verdict.MISMATCH:
        yield _measured("asked for", _number(finding.numeric))  # by linearity, by forward mode: nothing was measured
    elif finding.numeric is not None:
        error = "unknown" if finding.error is None or finding.error == math.inf else f"{finding.error:.1e}"
        yield _measured("numeric", f"{_number(finding.numeric)} ± {error}   {_method(finding)}")
    if finding.one_sided is not None:
        left, right = finding.one_sided
        between = "the analytic value lies between" if finding.ok else "the analytic value is not between"
        yield _measured("one-sided", f"{_number(left)} to the left, {right:.6e} to the right; {between}")
    elif finding.difference is not None and not math.isnan(finding.difference):
        yield _measured("difference", " {}, allowed {}".format(*_told_apart(finding.difference, finding.allowed)))


def _method(finding: Finding) -> str:
    parts = [f"{finding.points} points" if finding.points else "", f"order {finding.order}" if finding.order else ""]
    return ", ".join(filter(None, [*parts, "float64 twin" if finding.twin else _line(finding.dtype)]))


def _number(value: float | None) -> str:
    return " None        " if value is None else f"{value: .6e}"


def _told_apart(difference: float, allowed: float | None) -> tuple[str, str]:
    """Both with as few digits as show which is larger."""
    if allowed is None:
        return f"{difference:.1e}", "unknown"
    for digits in (1, 3, 6):
        shown = f"{difference:.{digits}e}", f"{allowed:.{digits}e}"
        if shown[0] != shown[1]:
            return shown
    return repr(difference), repr(allowed)


def _cut(finding: Finding) -> Iterator[str]:
    if finding.cut is not None:
        yield from _labelled("cut", _place(finding.cut.place))
        yield from _labelled("why", finding.cut.reason)


def _blamed(finding: Finding) -> list[Place]:
    return [] if finding.blame is None else [finding.blame, *finding.also[: MOST_FAILURES - 1]]


def _place(place: Place) -> str:
    source = _line(place.source or "")
    shown = source if len(source) <= _LONGEST_SOURCE else f"{source[: _LONGEST_SOURCE - 3]}..."
    return _line(str(place)) + (f": `{shown}`" if shown else "")


def _extent(finding: Finding, report: GradientReport) -> Iterator[str]:
    parts = []
    if finding.wrong == 1 and not finding.more_wrong:
        parts.append(f"the only wrong entry among {finding.size}")
    elif finding.wrong:
        parts.append(f"worst of {'at least ' * finding.more_wrong}{finding.wrong} wrong entries among {finding.size}")
    alone = [each for each in report.findings if each.x != EVERY_INPUT]
    affected = {each.x for each in alone if not each.ok}
    if not finding.ok and finding.x != EVERY_INPUT:
        parts.append(f"{len(affected)} of {_count(len({each.x for each in alone}), 'input')} affected")
    if finding.held:
        parts.append(f"held: {_held(finding.held)}")
    if parts:
        yield f"  {'; '.join(parts)}"


def _held(held: Iterable[Held]) -> str:
    return _listed(dict.fromkeys(f"{_line(each.place.op)} ({_line(_where_held(each))})" for each in held))


def _where_held(held: Held) -> str:
    if held.place.file is None:
        return held.reason
    return held.place.file if held.place.line is None else f"{held.place.file}:{held.place.line}"


def _ok_line(report: GradientReport) -> str:
    counts = Counter(finding.verdict for finding in report.findings)
    matching = f"{counts.pop(Verdict.MATCH, 0)} of {_count(len(report.findings), 'pair')} match"
    others = [f"{count} {verdict.name.lower()}" for verdict, count in sorted(counts.items(), key=lambda at: at[0].name)]
    what = ", ".join([matching, *others]) if report.findings else "nothing to check"
    how = ", ".join(
        filter(None, [_line(report.mode), _count(report.cost.evaluations, "evaluation"), f"seed {report.seed}"])
    )
    return f"ok: gradient of {_line(report.name) or 'output'}: {what} ({how})"


def _ok_details(report: GradientReport) -> Iterator[str]:
    matching = [finding for finding in report.findings if finding.verdict is Verdict.MATCH]
    measured = [(excess, finding) for finding in matching if (excess := finding.excess) is not None]
    if measured:
        excess, worst = max(measured, key=lambda pair: pair[0])
        at = f"d {_output(worst, report)} / d {_line(worst.x)}{_where(worst)}"
        yield from _labelled("worst", f"{excess:.2g} of what is allowed: {at}")
    told = [finding for finding in report.findings if finding.verdict is not Verdict.MATCH]
    for finding in told[:MOST_FAILURES]:
        yield from _labelled(finding.verdict.name.lower(), _headline(finding, report))
        yield from _labelled("", finding.reason)
    if len(told) > MOST_FAILURES:
        yield from _labelled("", f"and {len(told) - MOST_FAILURES} more like these")
    if held := [each for finding in report.findings for each in finding.held]:
        yield from _labelled("held", _held(held))


def _tail(report: GradientReport) -> Iterator[str]:
    for note in report.notes:
        yield from _labelled("note", note)
    if report.skipped:
        yield f"  not differentiable: {_listed(report.skipped)}"
    if report.unpromoted:
        yield f"  not in float64, so that error bars are wider: {_listed(report.unpromoted)}"
    yield from _labelled("again", report.again)


def _listed(names: Iterable[str]) -> str:
    names = [_line(name) for name in names]
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _labelled(label: str, text: str | None) -> Iterator[str]:
    if text and not text.isspace():
        yield _measured(label, _line(text))


def _measured(label: str, text: str) -> str:
    return f"  {label:<{_LABEL_WIDTH - 1}} {text}".rstrip()


def _line(text: str) -> str:
    """The text on one line: names, hints and source lines come from anywhere."""
    return " ".join(text.split())
