"""The report of a birth: op, line, what went in, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gradcheck._diagnose.births import Found
from gradcheck._diagnose.cause import INPUT, cause_of
from gradcheck._diagnose.hints import hint_of
from gradcheck._diagnose.ranges import first_nonfinite, kind_at, range_of
from gradcheck._diagnose.surroundings import called, function_of
from gradcheck._graph.program import data_inputs
from gradcheck._graph.rerun import Rerun
from gradcheck._graph.visit import Step, Visit
from gradcheck._report.nonfinite import NonfiniteReport, Range
from gradcheck._results import Place

# Ops whose output has the shape of an input without being made entry by entry.
_NOT_BY_ENTRY = (
    "MatMul", "BatchMatMul", "Softmax", "LogSoftmax", "Cum", "FFT", "IFFT", "RFFT", "Matrix", "Cholesky", "Conv",
    "DepthwiseConv", "Einsum", "Qr", "Roll", "Reverse", "Transpose", "GatherV2", "Sort", "FusedBatchNorm", "LRN",
    "MaxPool", "AvgPool", "Scatter", "TensorScatter", "UnsortedSegment", "Resource",
)  # fmt: skip


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
    forward = rerun.places.forward(seen.name, node.op)
    return NonfiniteReport(
        place=rerun.places.place(seen.name, node.op),
        forward=forward,
        layer=rerun.places.layer(seen.name, node.op),
        output=range_of(f"{node.name}:{birth.output}", birth.tensor),
        inputs=_inputs(seen, index, tuple(birth.tensor.shape.as_list())),
        inside=tuple(_inside(seen, rerun)),
        cause=cause,
        hint=hint_of(birth, cause, forward, rerun),
        **common,
    )


def _inputs(seen: Visit, index: tuple[int, ...], shape: tuple[int, ...]) -> tuple[Range, ...]:
    ranges = []
    names = data_inputs(seen.node)
    shapes = [tuple(v.tensor.shape.as_list()) for v in seen.inputs]
    by_entry = not seen.node.op.startswith(_NOT_BY_ENTRY) and _broadcast(shapes) == shape
    for name, value, own in zip(names, seen.inputs, shapes, strict=True):
        if value.tensor.dtype.name in ("resource", "variant", "string"):
            continue
        there = _entry(index, own) if by_entry else None
        ranges.append(range_of(name.split(":")[0], value.tensor, there))
    return tuple(ranges)


def _broadcast(shapes: list[tuple[int, ...]]) -> tuple[int, ...] | None:
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        return None


def _entry(index: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The entry of an input that is broadcast to the entry of the output."""
    own = index[len(index) - len(shape) :]
    return tuple(0 if length == 1 else i for i, length in zip(own, shape, strict=True))


def _inside(seen: Visit, rerun: Rerun) -> Iterator[str]:
    """The calls, branches and loops on the way in."""
    body = rerun.program.main
    names: list[str] = []
    for step in seen.path:
        call = called(body, step)
        names.append(step.node)
        own = rerun.places.own_name("/".join(names), call.op)
        yield f"{own} ({', '.join(_taken(step))})" if _taken(step) else own
        body = rerun.program.functions[function_of(call, step.part)]


def _taken(step: Step) -> list[str]:
    if step.iteration is not None:
        return [*(["condition"] if step.part == "cond" else []), f"iteration {step.iteration}"]
    if step.part in ("then", "else"):
        return [f"{step.part} branch"]
    return [] if step.part == "call" else [step.part]
