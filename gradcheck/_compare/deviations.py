"""The ways in which optimizers of one name are known to differ: conventions, and numbers to be fitted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from gradcheck import optimizers
from gradcheck._compare.arrays import Array
from gradcheck.optimizers._around import Around
from gradcheck.optimizers._clipped import clips_by_norm
from gradcheck.optimizers._decayed import INTO
from gradcheck.optimizers._rule import Assignments, Rule

SAME = "{what} {new} instead of {old}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """A change of a rule that has no number to fit; a rare one is tried beside no other but the learning rate."""

    text: str
    change: Callable[[Rule], Rule]
    rare: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A change of a rule by a number that has to be found; `grid` is where to look for it first, in order."""

    text: Callable[[float], str]
    change: Callable[[Rule, Any], Rule]
    grid: Array
    neutral: float = 0.0  # what changes nothing
    least: float = 0.0
    most: float = np.inf
    rare: bool = False


def conventions(rule: Rule) -> Iterator[Convention]:
    """Those that the rule does not follow already."""
    core = core_of(rule)
    if isinstance(core, optimizers.Momentum):
        yield _flag(core, "nesterov", "Nesterov's momentum", "classical momentum")
        yield _choice(core, "learning_rate_in", ("velocity", "update"), "the learning rate in the {} of momentum")
    if isinstance(core, (optimizers.Adagrad, optimizers.RMSProp)):
        yield _choice(core, "epsilon_in", ("denominator", "root"), "epsilon in the {}")
    if isinstance(core, optimizers.Adam):
        for place in ("uncorrected", "denominator", "root"):
            if place != core.epsilon_in:
                yield _place("epsilon_in", place, f"epsilon in the {_PLACES[place]}", _PLACES[core.epsilon_in])
        for corrected in (True, False, "m", "v"):
            if corrected != core.bias_correction:
                yield Convention(
                    text=_corrected(corrected),
                    change=lambda r, corrected=corrected: with_core(r, bias_correction=corrected),  # type: ignore[misc]
                )
        yield _flag(core, "amsgrad", "the largest v so far (AMSGrad)", "v")
    if isinstance(core, optimizers.RMSProp):
        yield _flag(core, "centered", "centered squares", "plain ones")
    if isinstance(core, optimizers.AdamW):
        yield Convention(text="no weight decay", change=lambda r: with_core(r, weight_decay=0.0))
    yield Convention(text="a gradient that is stale by one step, and zero at first", change=optimizers.Stale)
    yield Convention(
        text="a gradient that is stale by one step, and fresh at first",
        change=lambda r: optimizers.Stale(r, first="fresh"),
    )
    if callable(core.learning_rate) or getattr(core, "bias_correction", False):
        for by, text in ((1, "ahead"), (-1, "behind")):
            yield Convention(
                text=f"steps counted one {text}",
                change=lambda r, by=by: optimizers.Miscounted(r, by),  # type: ignore[misc]
                rare=True,
            )
    yield Convention(text="gradients of the opposite sign", change=lambda r: optimizers.Amplified(r, -1.0), rare=True)
    for steps in _GATHERED:
        yield Convention(
            text=f"gradients gathered over {steps} steps, and their mean taken",
            change=lambda r, steps=steps: _gathering(r, steps),  # type: ignore[misc]
            rare=True,
        )
    if rule is core:
        yield Convention(
            text="the weights assigned before the state", change=lambda r: optimizers.TwoAssignments(r, first="params")
        )
    for kind, text in ((optimizers.Clipped, "no clipping"), (optimizers.Decayed, "no weight decay")):
        if any(isinstance(each, kind) for each in nest_of(rule)):
            yield Convention(text=text, change=lambda r, kind=kind: _without(r, kind))  # type: ignore[misc]


def libraries(rule: Rule) -> Iterator[Convention]:
    """The rule as libraries have it, where that differs from it in more than one field."""
    core = core_of(rule)
    for kind, library, theirs in _LIBRARIES:
        changes = {name: value for name, value in theirs.items() if getattr(core, name, None) != value}
        if type(core) is kind and len(changes) > 1:
            said = " and ".join(_said(name, value, getattr(core, name)) for name, value in changes.items())
            yield Convention(
                text=f"{said}, as {library} has it",
                change=lambda r, changes=changes: with_core(r, **changes),  # type: ignore[misc]
            )


def numbers(rule: Rule, variables: int) -> Iterator[Number]:
    """The numbers of the rule and of what may stand around it."""
    core = core_of(rule)
    yield _rate(core)
    for name, most in _FIELDS:
        if name in {field.name for field in fields(core)}:
            yield _field(core, name, most)
    if isinstance(core, optimizers.Momentum):
        yield Number(
            text=lambda x: f"dampening {x:.9g} from the second step on",
            change=lambda r, x: with_core(r, dampening=x, dampening_from=2),
            grid=_NEAR_ONE,
            most=1.0,
        )
    if isinstance(core, optimizers.GradientDescent):
        for nesterov in (False, True):
            yield Number(
                text=lambda x, nesterov=nesterov: f"{'Nesterov ' * nesterov}momentum {x:.9g} instead of none",  # type: ignore[misc]
                change=lambda r, x, nesterov=nesterov: _around_core(  # type: ignore[misc]
                    r, optimizers.Momentum(core.learning_rate, x, nesterov)
                ),
                grid=_NEAR_ONE,
                most=1.0,
            )
        yield Number(
            text=lambda x: f"a moving average of the gradient, with {x:.9g}, in its place",
            change=lambda r, x: _around_core(r, optimizers.Momentum(core.learning_rate, x, dampening=x)),
            grid=_NEAR_ONE,
            most=1.0,
            rare=True,
        )
    if not callable(core.learning_rate):
        yield from _schedules(core)
    for by in ("value", "norm", "global norm")[: 3 if variables > 1 else 2]:
        yield Number(
            text=lambda x, by=by: f"gradients clipped by {by} at {x:.9g}",  # type: ignore[misc]
            change=lambda r, x, by=by: optimizers.Clipped(r, x, by),  # type: ignore[misc]
            grid=_WIDE,
        )
    yield Number(
        text=lambda x: f"steps clipped by value at {x:.9g}",
        change=lambda r, x: optimizers.Clipped(r, x, of="step"),
        grid=_WIDE,
        rare=True,
    )
    for slot in core.slots():
        if slot not in ("accumulator", "mean", "largest_v"):
            yield Number(
                text=lambda x, slot=slot: SAME.format(what=f"initial {slot}", new=f"{x:.9g}", old="0"),  # type: ignore[misc]
                change=lambda r, x, slot=slot: optimizers.Started(r, slot, x),  # type: ignore[misc]
                grid=_WIDE,
                rare=True,
            )
    if isinstance(core, (optimizers.Adagrad, optimizers.RMSProp, optimizers.Adam)):  # others cannot tell it from a rate
        yield Number(
            text=lambda x: f"gradients {x:.9g} times as large",
            change=optimizers.Amplified,
            grid=_WIDE,
            neutral=1.0,
            least=_WIDE[0],
            rare=True,
        )
    for into in INTO:
        yield Number(
            text=lambda x, into=into: f"weight decay {x:.9g} into the {into}",  # type: ignore[misc]
            change=lambda r, x, into=into: optimizers.Decayed(r, x, into),  # type: ignore[misc]
            grid=_WIDE[_WIDE <= 100],
        )
    for held in nest_of(rule)[:-1]:
        yield from _held(held)


def core_of(rule: Any) -> Any:
    """The plain rule inside all that stands around it."""
    return nest_of(rule)[-1]


def with_core(rule: Any, **changes: Any) -> Any:
    """The rule with fields of the plain one changed."""
    return _around_core(rule, replace(core_of(rule), **changes))


def nest_of(rule: Any) -> list[Any]:
    """The rule and those inside of it, the plain one last."""
    found = [rule]
    while isinstance(found[-1], Around):
        found.append(found[-1].rule)
    return found


def with_nest(nest: list[Any]) -> Any:
    """The rules inside each other again."""
    *around, rule = nest
    for each in reversed(around):
        rule = replace(each, rule=rule)
    return rule


def _inside(rule: Any, change: Callable[[Any], Any]) -> Any:
    return replace(rule, rule=change(rule.rule))


def _around_core(rule: Any, core: Assignments) -> Any:
    return _inside(rule, lambda inner: _around_core(inner, core)) if isinstance(rule, Around) else core


def _gathering(rule: Any, steps: int) -> Any:
    """Means of gradients inside of what clips by norm, for that of the mean is not known."""
    if isinstance(rule, Around) and clips_by_norm(rule):
        return _inside(rule, lambda inner: _gathering(inner, steps))
    return optimizers.Accumulated(rule, steps)


def _without(rule: Any, kind: type) -> Any:
    if isinstance(rule, kind):
        return rule.rule  # type: ignore[attr-defined]
    return _inside(rule, lambda inner: _without(inner, kind)) if isinstance(rule, Around) else rule


_PLACES = {
    "uncorrected": "uncorrected denominator", "denominator": "corrected denominator", "root": "corrected root",
}  # fmt: skip
_WIDE = 10.0 ** np.linspace(-9, 4, 53)
_GATHERED = (2, 3, 4, 5, 8)
_NEAR_ONE = np.sort(np.concatenate([np.linspace(0, 1, 21), 1 - 10.0 ** np.linspace(-5, -1.5, 15)]))
_FIELDS = (
    ("momentum", 1.0), ("dampening", 1.0), ("initial_accumulator_value", np.inf), ("rho", 1.0), ("beta_1", 1.0),
    ("beta_2", 1.0), ("weight_decay", np.inf), ("epsilon", np.inf),
)  # fmt: skip


# What the libraries take where nothing is said, without learning rates.
_LIBRARIES: tuple[tuple[type, str, dict[str, Any]], ...] = (
    (optimizers.Adagrad, "Keras", {"initial_accumulator_value": 0.1, "epsilon": 1e-7, "epsilon_in": "root"}),
    (optimizers.Adagrad, "TensorFlow", {"initial_accumulator_value": 0.1, "epsilon": 0.0}),
    (optimizers.Adagrad, "PyTorch", {"initial_accumulator_value": 0.0, "epsilon": 1e-10, "epsilon_in": "denominator"}),
    (optimizers.RMSProp, "Keras", {"initial_accumulator_value": 0.0, "epsilon": 1e-7, "epsilon_in": "root"}),
    (optimizers.RMSProp, "TensorFlow", {"initial_accumulator_value": 1.0, "epsilon": 1e-10, "epsilon_in": "root"}),
    (optimizers.RMSProp, "PyTorch", {
        "rho": 0.99, "initial_accumulator_value": 0.0, "epsilon": 1e-8, "epsilon_in": "denominator"
    }),
    (optimizers.Adam, "Keras", {"epsilon": 1e-7, "epsilon_in": "uncorrected", "bias_correction": True}),
    (optimizers.Adam, "TensorFlow", {"epsilon": 1e-8, "epsilon_in": "uncorrected", "bias_correction": True}),
    (optimizers.Adam, "PyTorch", {"epsilon": 1e-8, "epsilon_in": "denominator", "bias_correction": True}),
)  # fmt: skip


def _said(name: str, new: Any, old: Any) -> str:
    if isinstance(new, str):
        what = _PLACES if {new, old} <= set(_PLACES) and "uncorrected" in (new, old) else {}
        return f"epsilon in the {what.get(new, new)} instead of the {what.get(old, old)}"
    if isinstance(new, bool):
        return _corrected(new)
    return SAME.format(what=_label(name), new=f"{new:.9g}", old=f"{number_of(old):.9g}")


def _corrected(what: bool | str) -> str:
    if isinstance(what, str):
        return f"bias correction of {what} only"
    return "bias correction of m and v" if what else "no bias correction"


def _label(name: str) -> str:
    return name.removesuffix("_value").replace("_", " ")


def _place(name: str, new: str, text: str, old: str) -> Convention:
    return Convention(text=f"{text} instead of the {old}", change=lambda r: with_core(r, **{name: new}))


def _choice(core: Any, name: str, choices: tuple[str, str], text: str) -> Convention:
    old = getattr(core, name)
    new = choices[1 - choices.index(old)]
    return _place(name, new, text.format(new), old)


def _flag(core: Any, name: str, text: str, other: str) -> Convention:
    on = getattr(core, name)
    said = f"{other if on else text} instead of {text if on else other}"
    return Convention(text=said, change=lambda r: with_core(r, **{name: not on}))


def _field(core: Any, name: str, most: float) -> Number:
    old, label = number_of(getattr(core, name)), _label(name)
    near_one = name not in ("epsilon", "initial_accumulator_value", "weight_decay")
    return Number(
        text=lambda x: SAME.format(what=label, new=f"{x:.9g}", old=f"{old:.9g}"),
        change=lambda r, x: with_core(r, **{name: x}),
        grid=_NEAR_ONE if near_one else np.concatenate([[0.0], _WIDE]),
        neutral=old,
        most=most,
    )


def _rate(core: Any) -> Number:
    held = core.learning_rate
    if callable(held):
        return Number(
            text=lambda x: f"learning rate off by the constant factor {x:.9g}",
            change=lambda r, x: with_core(r, learning_rate=optimizers.Scaled(held, x)),
            grid=10.0 ** np.linspace(-4, 4, 49),
            neutral=1.0,
        )
    old = number_of(held)
    return Number(
        text=lambda x: (
            f"learning rate {x:.9g} instead of {old:.9g}" + (f", {_factor(x / old)} times it" if old else "")
        ),
        change=lambda r, x: with_core(r, learning_rate=x),
        grid=(old or 1.0) * 10.0 ** np.linspace(-4, 4, 49),
        neutral=old,
    )


def _factor(ratio: float) -> str:
    return f"{ratio:.9g}" if abs(ratio - 1) < 1e-4 else f"{ratio:.6g}"


def _schedules(core: Any) -> Iterator[Number]:
    rate = number_of(core.learning_rate)
    yield Number(
        text=lambda x: f"learning rate that decays as {rate:.9g} / (1 + {x:.9g} step)",
        change=lambda r, x: with_core(r, learning_rate=optimizers.InverseTimeDecay(rate, x)),
        grid=_WIDE[_WIDE <= 100],
    )
    yield Number(
        text=lambda x: f"learning rate that decays as {rate:.9g} * {x:.9g} ** step",
        change=lambda r, x: with_core(r, learning_rate=optimizers.ExponentialDecay(rate, x)),
        grid=_NEAR_ONE[1:],
        neutral=1.0,
        most=2.0,
    )


def _held(held: Any) -> Iterator[Number]:
    """The number of what already stands around a rule."""
    names = {optimizers.Clipped: ("limit", "limit of clipping"), optimizers.Decayed: ("decay", "weight decay")}
    if type(held) in names:
        name, label = names[type(held)]
        old = number_of(getattr(held, name))
        yield Number(
            text=lambda x: SAME.format(what=label, new=f"{x:.9g}", old=f"{old:.9g}"),
            change=lambda r, x: _replaced(r, held, {name: x}),
            grid=_WIDE,
            neutral=old,
        )


def _replaced(rule: Any, held: Any, changes: dict[str, Any]) -> Any:
    if rule is held or (type(rule) is type(held) and rule == held):
        return replace(rule, **changes)
    return _inside(rule, lambda inner: _replaced(inner, held, changes)) if isinstance(rule, Around) else rule


def number_of(value: Any) -> float:
    """A number; of one that is held in a narrow dtype, the shortest decimal that is rounded to it."""
    return float(str(value.numpy() if hasattr(value, "numpy") else value))


def pairs(rule: Rule, variables: int) -> Iterator[tuple[Convention | Number, ...]]:
    """Two changes at once: a convention and a number, or two numbers; the number's change comes second."""
    rate, *others = numbers(rule, variables)
    for convention in conventions(rule):
        beside = numbers(convention.change(rule), variables)
        for number in itertools.islice(beside, 1) if convention.rare else beside:
            if not number.rare:
                yield convention, number
    yield from ((rate, other) for other in others)
    yield from itertools.combinations([other for other in others if not other.rare], 2)
