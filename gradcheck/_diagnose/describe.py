"""The report of a birth: op, line, what went in, and why."""

from __future__ import annotations

from typing import Any

from gradcheck._diagnose.births import Found
from gradcheck._diagnose.cause import INPUT, cause_of
from gradcheck._diagnose.entries import entry_of, is_by_entry
from gradcheck._diagnose.hints import hint_of
from gradcheck._diagnose.inside import inside
from gradcheck._diagnose.ranges import first_nonfinite, kind_at, range_of
from gradcheck._graph.nodes import data_inputs
from gradcheck._graph.rerun import Rerun
from gradcheck._graph.visit import Visit
from gradcheck._report.nonfinite import NonfiniteReport, Range
from gradcheck._results import Place


def describe(rerun: Rerun, found: Found) -> NonfiniteReport:
    """The report of what was found; ok where nothing was."""
    birth = found.birth
    if birth is None:
        return NonfiniteReport(name=rerun.name, ok=True, notes=rerun.notes)
    index = first_nonfinite(birth.tensor)
    common: dict[str, Any] = {
        "name": rerun.name,
        "ok": False,
        "kind": kind_at(birth.tensor, index),
        "index": index,
        "reaches": found.reaches,
        "notes": rerun.notes,
    }
    if birth.visit is None:
        return NonfiniteReport(
            hint=hint_of(birth, INPUT, None, rerun), place=Place(op=birth.label, op_type="Placeholder"), cause=INPUT,
            output=range_of(birth.label, birth.tensor), **common,
        )  # fmt: skip
    seen, node, cause = birth.visit, birth.visit.node, cause_of(birth, rerun)
    origin = rerun.origin(seen.name, node.op)
    return NonfiniteReport(
        place=origin.place,
        forward=origin.forward,
        layer=origin.layer,
        output=range_of(f"{node.name}:{birth.output}", birth.tensor),
        inputs=_inputs(seen, index, birth.tensor.shape.as_list()),
        inside=tuple(inside(seen, rerun)),
        cause=cause,
        hint=hint_of(birth, cause, origin.forward, rerun),
        **common,
    )


def _inputs(seen: Visit, index: tuple[int, ...], shape: list[int]) -> tuple[Range, ...]:
    shapes = [value.tensor.shape.as_list() for value in seen.inputs]
    by_entry = is_by_entry(seen.node.op, shapes, shape)
    ranges = []
    for name, value, own in zip(data_inputs(seen.node), seen.inputs, shapes, strict=True):
        if value.tensor.dtype.name not in ("resource", "variant", "string"):
            there = entry_of(index, own) if by_entry else None
            ranges.append(range_of(name.split(":")[0], value.tensor, there))
    return tuple(ranges)
