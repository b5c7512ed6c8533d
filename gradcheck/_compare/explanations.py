"""The search for what explains an optimizer's trajectory: one change of the reference, else two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradcheck._compare.arrays import CORRECTIONS, FACTORS, PLACES, Array
from gradcheck._compare.deviations import Convention, Number, conventions, libraries, numbers, pairs
from gradcheck._compare.fitting import Fit
from gradcheck._compare.judging import excess
from gradcheck._compare.recording import Recording
from gradcheck._results import Explanation
from gradcheck.optimizers._rule import Rule

_MOST_DIGITS = 7
_LIKELY_DIGITS = 5  # of a number that somebody wrote
_MOST_NAMED = 4
_FRONT = 3
_SPARE = 2  # observations that a claim needs beyond the numbers that were fitted to them
_CLOSE = 30.0  # in units of allowed for the reference, what a fit must reach for all of the trajectory to be judged
_NOTHING = 1e-5  # the least that one of two numbers must change, of itself: less would only fit the rounding
_EXACT = 1e-3  # in units of allowed; less is not better
_NEARLY = 4.0  # in units of allowed, what the fitted numbers must reach for short decimals beside them to be tried

_ROUNDED_IN = {FACTORS: "as factors", CORRECTIONS: "in the bias correction", PLACES: "everywhere"}


@dataclass(frozen=True, slots=True)
class Found:
    """Changes of the reference, and how far they leave it from the optimizer at each step, in units of allowed."""

    explanation: Explanation
    excess: Array
    refuted: bool  # the reference, by the same measure
    rule: Rule
    digits: int = 0  # of the numbers that were fitted
    partly: bool = False  # in some variables only
    numbers: tuple[Number, ...] = ()  # that were fitted

    @property
    def accounts(self) -> bool:
        return self.refuted and bool(np.all(self.excess <= 1))

    def order(self) -> int:
        """By what it leaves, in powers of ten: what accounts for all exactly comes first."""
        return math.ceil(math.log10(max(self.explanation.excess, _EXACT)))


def explain(
    rule: Rule, recording: Recording, first_apart: int, apart: Sequence[int]
) -> tuple[tuple[Explanation, ...], Explanation | None]:
    """What accounts for every step to rounding, simplest first; where nothing does, what comes nearest.

    Searched for in the variables that are apart. What does not account for the others too is said of these only.
    """
    there = recording.of_variables(apart) if len(apart) < len(recording.layout.names) else recording
    search = _Search(rule, there, Fit(there, first_apart), Fit(there, first_apart, early=True))
    singles = search.singles()
    accounting = [found for found in singles if found.accounts]
    if all(found.digits > _LIKELY_DIGITS for found in accounting):
        accounting = search.libraries() + accounting
    accounting = sorted(accounting, key=Found.order) or search.pairs()
    if accounting:
        if there is not recording:
            accounting = sorted((_placed(found, recording, apart) for found in accounting), key=lambda f: f.partly)
        return tuple(found.explanation for found in accounting[:_MOST_NAMED]), None
    return (), search.nearest(singles)


def _placed(found: Found, recording: Recording, apart: Sequence[int]) -> Found:
    if bool(np.all(excess(found.rule, recording)[0] <= 1)):
        return found
    names = ", ".join(recording.layout.names[i] for i in apart)
    text = f"{found.explanation.text}, in {names} only"
    return replace(found, explanation=replace(found.explanation, text=text), partly=True)


class _Search:
    def __init__(self, rule: Rule, recording: Recording, fit: Fit, early: Fit) -> None:
        self._rule, self._recording, self._fit, self._early = rule, recording, fit, early
        self._variables = len(recording.layout.names)
        informative = sum(int(np.count_nonzero(gradient)) for gradient in recording.gradients)
        self._most_numbers = informative - _SPARE

    def singles(self) -> list[Found]:
        found = [self._judged((each,), ()) for each in conventions(self._rule)]
        if not self._recording.layout.narrow:
            found += [self._held_in_float32(rounded) for rounded in _ROUNDED_IN]
        for number in numbers(self._rule, self._variables):
            if self._most_numbers >= 1 and (fitted := self._fitted((number,))):
                found.append(fitted)
        return found

    def nearest(self, tried: Sequence[Found]) -> Explanation | None:
        """By one measure for all, what is allowed for the reference; those in front are fitted to all steps first."""

        def left(found: Found) -> float:
            return _closeness(self._fit, found.rule, (), ())

        front = sorted(tried, key=left)[:_FRONT]
        front += [self._judged((each,), self._fit.best(self._rule, [each])) for f in front for each in f.numbers]
        nearest = min(front, key=left, default=None)
        return replace(nearest.explanation, excess=left(nearest)) if nearest else None

    def libraries(self) -> list[Found]:
        return [found for each in libraries(self._rule) if (found := self._judged((each,), ())).accounts]

    def pairs(self) -> list[Found]:
        accounting = []
        for pair in pairs(self._rule, self._variables):
            if sum(isinstance(each, Number) for each in pair) <= self._most_numbers:
                found = self._fitted(pair)
                if found is not None and found.accounts:
                    accounting.append(found)
            if len(accounting) == _MOST_NAMED:
                break
        return accounting

    def _fitted(self, changes: Sequence[Convention | Number]) -> Found | None:
        """With the shortest decimals that account for all, else with what was fitted; of a pair None if that is far."""
        rule, fitted = _conventional(self._rule, changes), [c for c in changes if isinstance(c, Number)]
        best = self._early.best(rule, fitted)
        if _closeness(self._early, rule, fitted, best) > _CLOSE:
            return replace(self._judged(changes, best), refuted=False) if len(changes) == 1 else None
        best = self._fit.best(rule, fitted)
        if len(changes) > 1 and (
            _closeness(self._fit, rule, fitted, best) > _CLOSE
            or any(abs(x - n.neutral) <= _NOTHING * abs(n.neutral) for n, x in zip(fitted, best, strict=True))
        ):
            return None
        exact = self._judged(changes, best)
        if exact.excess.max() > _NEARLY or not self._fit.determines(rule, fitted, best):
            return replace(exact, refuted=False)
        for digits in range(1, _MOST_DIGITS + 1):
            short = tuple(float(f"{x:.{digits}g}") for x in best)
            if (
                _closeness(self._fit, rule, fitted, short) <= _CLOSE
                and (found := self._judged(changes, short)).accounts
            ):
                return replace(found, digits=digits)
        return replace(exact, digits=_MOST_DIGITS + 1)

    def _judged(self, changes: Sequence[Convention | Number], at: Sequence[float]) -> Found:
        rule: Any = self._rule
        texts, remaining = [], list(at)
        for change in changes:
            if isinstance(change, Convention):
                rule = change.change(rule)
                texts.append(change.text)
            else:
                number = remaining.pop(0)
                rule = change.change(rule, number)
                texts.append(change.text(number))
        numbers = tuple(change for change in changes if isinstance(change, Number))
        return replace(self._found(" and ".join(texts), rule, excess(rule, self._recording)), numbers=numbers)

    def _held_in_float32(self, rounded: tuple[str, ...]) -> Found:
        text = f"hyperparameters rounded to float32 {_ROUNDED_IN[rounded]}"
        return self._found(text, self._rule, excess(self._rule, self._recording, rounded))

    def _found(self, text: str, rule: Rule, both: tuple[Array, Array]) -> Found:
        over, reference = both
        within = np.flatnonzero(over > 1)
        explanation = Explanation(
            text=text, rule=repr(rule), steps=int(within[0]) if len(within) else len(over), excess=float(over.max())
        )
        return Found(explanation, over, refuted=bool(np.any(reference > 1)), rule=rule)


def _closeness(fit: Fit, rule: Rule, fitted: Sequence[Number], at: Sequence[float]) -> float:
    if not all(n.least <= x <= n.most for n, x in zip(fitted, at, strict=True)):
        return np.inf
    return float(abs(fit.residuals(rule, fitted, np.array([at]))).max())


def _conventional(rule: Any, changes: Sequence[Convention | Number]) -> Any:
    for change in changes:
        if isinstance(change, Convention):
            rule = change.change(rule)
    return rule
