"""Which entry of an op's input an entry of its output is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# Ops whose output has the shape of an input without being made entry by entry.
_NOT_BY_ENTRY = (
    "MatMul", "BatchMatMul", "Softmax", "LogSoftmax", "Cum", "FFT", "IFFT", "RFFT", "Matrix", "Cholesky", "Conv",
    "DepthwiseConv", "Einsum", "Qr", "Roll", "Reverse", "Transpose", "GatherV2", "Sort", "FusedBatchNorm", "LRN",
    "MaxPool", "AvgPool", "Scatter", "TensorScatter", "UnsortedSegment", "Resource",
)  # fmt: skip


def is_by_entry(op: str, inputs: Sequence[Sequence[int]], output: Sequence[int]) -> bool:
    """Whether each entry of an output of that shape is made of the entries that are broadcast to it."""
    try:
        return not op.startswith(_NOT_BY_ENTRY) and np.broadcast_shapes(*map(tuple, inputs)) == tuple(output)
    except ValueError:
        return False


def entry_of(index: tuple[int, ...], shape: Sequence[int]) -> tuple[int, ...] | None:
    """The entry, of a tensor of that shape, that is broadcast to an index; None where shapes do not tell."""
    own = index[len(index) - len(shape) :]
    if len(own) != len(shape) or any(i >= length > 1 for i, length in zip(own, shape, strict=True)):
        return None
    return tuple(0 if length == 1 else i for i, length in zip(own, shape, strict=True))


def at(array: Any, index: tuple[int, ...]) -> Any:
    """The entry of an array that is broadcast to an index, or None where shapes do not tell."""
    entry = None if array is None else entry_of(index, array.shape)
    return None if entry is None else array[entry]
