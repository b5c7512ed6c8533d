"""The op or custom gradient whose own gradient is wrong, found by checking each alone at the values it had."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from gradcheck._check.hints import Check, drawn_anew, hints_of, hints_of_unit
from gradcheck._check.options import Options, verdict_only
from gradcheck._check.unconnected import ends, instead_of
from gradcheck._diagnose.cut import find_overwriting, find_partial_cut, under_its_name
from gradcheck._diagnose.likeness import Likeness
from gradcheck._diagnose.remedies import PARTLY
from gradcheck._errors import GraphUnavailable
from gradcheck._graph.graphs import trace_tensors
from gradcheck._graph.provenance import at_frame, origin, written_at
from gradcheck._graph.regions import gradient_function, gradient_name
from gradcheck._graph.trace import Traced
from gradcheck._graph.units import Frame, Unit, enclosing, units_of
from gradcheck._results import Cut, Finding, Place, Verdict

_ITERATIONS = 12  # runs of an op in a loop that are checked
_MOST = 600  # ops of TensorFlow's own that are checked where no custom gradient is wrong
_FAULTS = (Verdict.MISMATCH, Verdict.CUT)
_NONE_ALONE = (
    "each op's own gradient is right at the values it had, so that the fault lies between them: a state that changes "
    "between runs, an input changed in place, or Python code that runs while the function is traced and not after"
)
_OTHERS = "no op that can be checked alone is wrong alone; not looked into: {ops}"
_ITS_OWN = "every op has its own gradient, so that the function has its own too, and not the surrogate's"
_ENDS = "the gradient of {op} is zero or None for this input, and what it gives moves with it"
_CORRECT = "correct the gradient of what is blamed; where the cut is meant, say so by tf.stop_gradient"
_REGISTERED = "what {op} has as its gradient here is not TensorFlow's own: {fn}, registered as {name!r}"
_UNSEEN = "no op could be checked alone: {why}"


@dataclass(frozen=True, slots=True)
class _Wrong:
    """A unit that is wrong alone."""

    unit: Unit
    frame: Frame
    xs: frozenset[str]  # those of its xs whose gradient is wrong
    ends: bool  # whether its gradient is zero or None wherever it is wrong
    cut: Cut | None  # where it ends, as far as that is known

    @property
    def reached(self) -> set[int]:
        """The sources that come in where its gradient is wrong."""
        return set().union(*(self.unit.reached[x] for x in self.xs))


def blame(traced: Traced, options: Options, findings: dict[tuple[int, int], Finding], check: Check) -> None:
    """Name the ops at fault in findings that disagree.

    Args:
        traced: The function.
        options: Of the check.
        findings: By output and source; those that are wrong get `blame` or, where no op is wrong alone, advice.
        check: What checks a unit.
    """
    for pair, known in findings.items():
        if known.blame is not None and known.blame.op_type == "IdentityN":
            findings[pair] = replace(known, blame=under_its_name(traced, known.blame))
        fault = traced.outputs[pair[0]].faults.get(pair[1])
        if fault is not None:
            findings[pair] = replace(findings[pair], hint=fault.hint)
    wrong = {pair for pair, found in findings.items() if _is_open(found)}
    for a in sorted({a for a, _ in wrong}):
        _blame_output(traced, options, findings, check, a, sorted(x for b, x in wrong if b == a))
        unnamed = [x for b, x in wrong if b == a and findings[a, x].blame is None and findings[a, x].cut is None]
        if unnamed:
            hints = hints_of(traced, options, a, {s.path: s.path for s in traced.sources})
            for x in unnamed:
                findings[a, x] = _hinted(findings[a, x], [traced.sources[x].path], hints)


def _blame_output(
    traced: Traced, options: Options, findings: dict[tuple[int, int], Finding], check: Check, a: int, xs: Sequence[int]
) -> None:
    try:
        units, others = units_of(traced, a, xs)
    except GraphUnavailable as error:
        return _advise(findings, a, xs, _UNSEEN.format(why=str(error)))
    found, unseen = _culprits(units, options, check)
    if not found:  # at the values it had, what is drawn anew is drawn alike
        drawing = [unit for unit in units if drawn_anew(unit) is not None]
        found = [_Wrong(unit, unit.frames[-1], frozenset(unit.reached), ends=False, cut=None) for unit in drawing]
    hints: dict[int, dict[str, Likeness]] = {}
    for x in xs:
        own = [each for each in found if x in each.reached]
        if own:
            first = own[0]
            if id(first) not in hints:
                hints[id(first)] = hints_of_unit(first.unit, first.frame, options, check, set(first.xs))
            blamed, *also = dict.fromkeys(_place(traced, each) for each in own)  # one line may make several
            known = replace(findings[a, x], blame=blamed, also=tuple(also))
            reasons = filter(None, (known.reason, _registered(first.unit)))
            known = _with_cut(replace(known, reason="; ".join(reasons) or None), first)
            names = [name for name in sorted(first.xs) if x in first.unit.reached[name]]
            findings[a, x] = _hinted(known, names, hints[id(first)])
        elif not found and (cut := find_partial_cut(traced, *ends(traced, a, x))) is not None:
            known = findings[a, x]
            partly = known.reason if known.analytic is None else PARTLY  # where TensorFlow gives None, no way has one
            findings[a, x] = replace(known, cut=cut, reason=partly, hint=None, advice=instead_of(cut))
        elif not found and (cut := find_overwriting(traced, *ends(traced, a, x))) is not None:
            findings[a, x] = replace(findings[a, x], cut=cut, advice=cut.remedy)
        elif not found and (unseen or others):
            _advise(findings, a, [x], _OTHERS.format(ops=", ".join([*unseen, *others][:5])))
        elif not found and units:
            _advise(findings, a, [x], _NONE_ALONE)
    return None


def blame_surrogate(traced: Traced, options: Options, findings: dict[tuple[int, int], Finding], check: Check) -> None:
    """Name, in findings on a declared surrogate, what has a gradient other than its own.

    Args:
        traced: The function itself, without the surrogate.
        options: Of the check.
        findings: By output and source; those that disagree get `blame`, or advice where every gradient is its op's own.
        check: What checks a unit.
    """
    for (a, x), known in findings.items():
        if not _is_open(known):
            continue
        with suppress(GraphUnavailable):
            found, _ = _culprits(units_of(traced, a, [x])[0], options, check)
            places = list(dict.fromkeys(_place(traced, each) for each in found))
            if places:
                findings[a, x] = replace(known, blame=places[0], also=tuple(places[1:]))
            else:
                _advise(findings, a, [x], _ITS_OWN)


def _registered(unit: Unit) -> str | None:
    """Which function an op of TensorFlow's is differentiated by where that is none of TensorFlow's."""
    if unit.region is not None or unit.trusted:
        return None
    fn = gradient_function(unit.op)
    return _REGISTERED.format(op=unit.op_type, fn=written_at(fn), name=gradient_name(unit.op))


def _with_cut(known: Finding, first: _Wrong) -> Finding:
    """The finding with the way's end, where the gradient of its culprit is zero or None, and with what to write."""
    remedy = None if first.cut is None else first.cut.remedy
    if known.verdict is not Verdict.CUT or known.blame is None or known.cut is not None:
        return known if remedy is None else replace(known, advice=known.advice or remedy)
    if not first.ends:
        return replace(known, advice=_CORRECT)
    cut = Cut(place=known.blame, reason=_ENDS.format(op=f"{known.blame.op_type} {known.blame.op!r}"), remedy=remedy)
    return replace(known, cut=cut, advice=instead_of(cut) if remedy is not None else _CORRECT)


def _hinted(found: Finding, names: Sequence[str], hints: dict[str, Likeness]) -> Finding:
    """The finding with the first hint at one of some xs; a plain one gives way to what is known already."""
    best = min((hints[name] for name in names if name in hints), key=lambda each: each.plain, default=None)
    if best is None or (best.plain and found.hint is not None):
        return found
    return replace(found, hint=best.text)


def _is_open(found: Finding) -> bool:
    if found.ok or found.blame is not None or found.cut is not None:
        return False
    return found.verdict in _FAULTS


def _advise(findings: dict[tuple[int, int], Finding], a: int, sources: Sequence[int], text: str) -> None:
    for x in sources:
        if findings[a, x].advice is None:
            findings[a, x] = replace(findings[a, x], advice=text)


def _culprits(units: Sequence[Unit], options: Options, check: Check) -> tuple[list[_Wrong], list[str]]:
    """The units that are wrong alone, those first whose gradient the user wrote; and what could not be looked at."""
    known: dict[int, _Wrong | None] = {}
    unseen: list[str] = []

    def looked(unit: Unit) -> _Wrong | None:
        if id(unit) not in known:
            seen, known[id(unit)] = _look(unit, options, check)
            if not seen:
                unseen.append(f"{unit.op_type} {unit.region.name or '' if unit.region else unit.name!r}".rstrip())
        return known[id(unit)]

    def at_fault(some: Sequence[Unit]) -> list[_Wrong]:
        wrong = [each for unit in some if (each := looked(unit)) is not None]
        # What lies inside a custom gradient is not differentiated where that brings its own.
        wrong = [w for w in wrong if all(looked(outer) is not None for outer in enclosing(w.unit, units))]
        inner = {id(outer) for w in wrong for outer in enclosing(w.unit, units)}
        return [w for w in wrong if id(w.unit) not in inner]

    found = at_fault([unit for unit in units if not unit.trusted])
    if found:
        return found, unseen
    rest = [unit for unit in units if unit.trusted and not any(enclosing(unit, units))]
    found = at_fault(rest[-_MOST:])
    return found, unseen + [f"{len(rest) - _MOST} more ops"] * (len(rest) > _MOST)


def _look(unit: Unit, options: Options, check: Check) -> tuple[bool, _Wrong | None]:
    """Check one unit where it ran; whether that decided anything, and its gravest disagreement."""
    own = verdict_only(options)
    worst: tuple[float, Frame] | None = None
    xs: set[str] = set()
    every: list[Finding] = []
    seen = False
    for frame in _spread(unit.frames):
        try:
            findings = check(trace_tensors(unit.question(frame), unit.name), own)
        except Exception:  # whatever an op alone may raise, the report on the whole must not be lost
            continue
        seen = seen or all(each.ok or each.verdict in _FAULTS for each in findings)
        bad = [each for each in findings if not each.ok and each.verdict in _FAULTS]
        size = max(map(_size, bad), default=0.0)
        if bad and (worst is None or size > worst[0]):
            worst = size, frame
        xs.update(each.x for each in bad)
        every += bad
    if worst is None:
        return seen, None
    ends = all(each.verdict is Verdict.CUT for each in every)
    return seen, _Wrong(unit, worst[1], frozenset(xs), ends, next((f.cut for f in every if f.cut is not None), None))


def _size(found: Finding) -> float:
    return found.difference if found.difference is not None else float("inf")


def _spread(frames: Sequence[Frame]) -> list[Frame]:
    """Some of the frames, the first and the last among them."""
    if len(frames) <= _ITERATIONS:
        return list(frames)
    step = (len(frames) - 1) / (_ITERATIONS - 1)
    return [frames[round(k * step)] for k in range(_ITERATIONS)]


def _place(traced: Traced, wrong: _Wrong) -> Place:
    unit = wrong.unit
    where = origin(traced.graph, unit.name, unit.op.type)
    found = where.place
    if found.file is None and unit.region is not None and not unit.region.trusted:
        # Called by a library or by us: where the gradient is written.
        found = at_frame(unit.region.gradient or unit.region.frame, unit.name, unit.op.type)
    iterations = [step for step in wrong.frame.path if step.iteration is not None]
    name: Any = unit.region.name if unit.region is not None else None
    return replace(
        found,
        op=name or found.op,
        op_type=unit.op_type,
        layer=where.layer,
        iteration=iterations[-1].iteration if iterations else None,
    )
