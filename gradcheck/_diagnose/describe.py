"""The report of a birth: op, line, what went in, and why."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradcheck._diagnose.births import Found
from gradcheck._diagnose.cause import INPUT, cause_of
from gradcheck._diagnose.ranges import first_nonfinite, kind_at, range_of
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
            place=Place(op=birth.label, op_type="Placeholder"), cause=INPUT,
            output=range_of(birth.label, birth.tensor), **common,
        )  # fmt: skip
    seen, node = birth.visit, birth.visit.node
    return NonfiniteReport(
        place=rerun.places.place(seen.name, node.op),
        forward=rerun.places.forward(seen.name, node.op),
        layer=rerun.places.layer(seen.name, node.op),
        output=range_of(f"{node.name}:{birth.output}", birth.tensor),
        inputs=_inputs(seen, index, tuple(birth.tensor.shape.as_list())),
        inside=tuple(_step(step) for step in seen.path),
        cause=cause_of(birth, rerun),
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


def _step(step: Step) -> str:
    if step.iteration is not None:
        condition = "condition, " if step.part == "cond" else ""
        return f"{step.node} ({condition}iteration {step.iteration})"
    if step.part in ("then", "else"):
        return f"{step.node} ({step.part} branch)"
    return step.node if step.part == "call" else f"{step.node} ({step.part})"
