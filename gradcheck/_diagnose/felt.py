"""What a function's outputs feel of the digits that an op loses: all else in float64, with that op's own error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck._diagnose.digits import LEAST, UNITS, Beside, digits_lost, is_zero, relative_error
from gradcheck._diagnose.entries import is_by_entry
from gradcheck._diagnose.ranges import is_continuous, wide_array
from gradcheck._graph.evaluate import eagerly
from gradcheck._graph.rerun import Rerun
from gradcheck._graph.rounding import hands_on
from gradcheck._graph.visit import Inward, Value, Visit, returned_by

_FELT = 10.0  # units of rounding, of an output as a whole
_FELT_EACH, _SHARE = 100.0, 0.25  # or of each in more than such a share of its entries


def compared(own: Visit) -> Iterator[tuple[int, Beside]]:
    """The outputs of an op that can lose digits, by their positions; what it takes and gives notes its twin."""
    if hands_on(own.node.op):
        return
    for k, value in enumerate(own.outputs):
        if value.tensor.dtype.name in UNITS:
            known = [v for v in own.inputs if v.note is not None and is_continuous(v.tensor)]
            known = [v for v in known if v.tensor.shape == v.note.shape]
            result = wide_array(value.tensor)
            shapes = [v.tensor.shape.as_list() for v in own.inputs]
            yield (
                k,
                Beside(
                    op=own.node.op,
                    dtype=value.tensor.dtype.name,
                    inputs=[(wide_array(v.tensor), wide_array(v.note)) for v in known],
                    value=result,
                    exact=wide_array(value.note),
                    by_entry=is_by_entry(own.node.op, shapes, list(result.shape)),
                ),
            )


def side_by_side(rerun: Rerun, see: Callable[[Visit], None]) -> tuple[Value, ...] | str:
    """Run a program beside its twin; each value notes what it is in float64.

    Args:
        rerun: The program.
        see: Called with each visit.

    Returns:
        What is returned; or the name of the op from which on float64 takes another way.
    """
    twin = rerun.widened()
    given, own_walk = rerun.start()
    wide_given, twin_walk = twin.start()
    for narrow, wide, each in zip(given, wide_given, rerun.given, strict=True):
        narrow.note = None if each.variable is not None else wide.tensor
    while True:
        try:
            own = next(own_walk)
        except StopIteration as end:
            found: tuple[Value, ...] = end.value
            return found
        other = _same(twin_walk, own)
        if other is None:
            return own.name
        for narrow, wide in zip(own.outputs, other.outputs, strict=True):
            narrow.note = wide.tensor
        see(own)


def felt(rerun: Rerun, names: list[str]) -> set[str]:
    """Those of some ops of which the outputs of the function feel the digits that they lose.

    Each of them has a run in float64 of its own, to which only the entries in which the op loses digits bring their
    error. It is felt by an output that it puts off by 10 units of rounding as a whole; that of an op that works entry
    by entry also by one that it puts off by 100 in a quarter of its entries; and where the run takes another way.
    """
    twin = rerun.widened()
    walks = {name: twin.start()[1] for name in names}
    strayed, by_entry = set[str](), set[str]()

    def see(own: Visit) -> None:
        for name in walks.keys() - strayed:
            other = _same(walks[name], own)
            if other is None:
                strayed.add(name)
            elif own.name == name and _bring(own, other):
                by_entry.add(name)

    returned = side_by_side(rerun, see)
    if isinstance(returned, str):  # what comes after is not known
        return set(names)
    found = {name: returned_by(walk) for name, walk in walks.items() if name not in strayed}
    return strayed | {name for name, wrong in found.items() if _is_felt(returned, wrong, each=name in by_entry)}


def _same(walk: Inward, own: Visit) -> Visit | None:
    """The visit of another walk that is of the same op, in the same run of it."""
    return next((v for v in walk if v.node.name == own.node.name and v.path == own.path), None)


def _bring(own: Visit, other: Visit) -> bool:
    """Add an op's own error to what it gives in another run, where it loses digits; whether it works entry by entry."""
    by_entry = False
    for k, beside in compared(own):
        digits = digits_lost(beside)
        if digits is not None:
            error = np.where(digits >= LEAST, beside.value - beside.exact, 0.0)
            with eagerly():
                taken = other.outputs[k].tensor
                other.outputs[k].tensor = taken + tf.cast(tf.constant(error), taken.dtype)
            by_entry = beside.by_entry
    return by_entry


def _is_felt(returned: tuple[Value, ...], wrong: tuple[Value, ...], *, each: bool) -> bool:
    pairs = [(v, w) for v, w in zip(returned, wrong, strict=True) if v.tensor.dtype.name in UNITS]
    return any(
        _differs(wide_array(w.tensor), wide_array(v.note), wide_array(v.tensor), UNITS[v.tensor.dtype.name], each)
        for v, w in pairs
    )


def _differs(value: Any, exact: Any, narrow: Any, unit: float, each: bool) -> bool:
    if not value.shape == exact.shape == narrow.shape or not np.all(np.isfinite(value)):
        return True
    if not value.size:
        return False
    value = np.where(is_zero(narrow, exact, unit), exact, value)
    whole = np.linalg.norm(value - exact) > _FELT * unit * np.linalg.norm(exact)
    return bool(whole or (each and np.mean(relative_error(value, exact) > _FELT_EACH * unit) > _SHARE))
