"""Stacks of arrays that are mostly alike, as the first and what differs from it: bit for bit, in fewer bytes.

Points at which single entries move differ in a few numbers of many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_SHARE = 4  # at most one number in so many may differ


@dataclass(frozen=True, slots=True, kw_only=True)
class Thin:
    """A stack of rows, [k, ..].

    Attributes:
        dtype, shape: Of the stack.
        first: The bits of the first row.
        index, bits: Where among all bits of the stack others stand, and which.
    """

    dtype: Any
    shape: tuple[int, ...]
    first: Any
    index: Any
    bits: Any


def thinned(stack: Any) -> Any:
    """The stack as a `Thin`, where that is smaller; else as it is."""
    if stack.dtype.hasobject or stack.size < _SHARE * 8 or len(stack) < 2:
        return stack
    word = np.dtype(f"u{min(stack.dtype.itemsize, 8)}")
    rows = np.ascontiguousarray(stack).reshape(len(stack), -1).view(word)
    differs = rows != rows[0]
    if _SHARE * np.count_nonzero(differs) > differs.size:
        return stack
    index = np.flatnonzero(differs)
    return Thin(dtype=stack.dtype, shape=stack.shape, first=rows[0].copy(), index=index, bits=rows.reshape(-1)[index])


def whole(stack: Any) -> Any:
    """The stack that `thinned` was given."""
    if not isinstance(stack, Thin):
        return stack
    rows = np.tile(stack.first, (stack.shape[0], 1))
    rows.reshape(-1)[stack.index] = stack.bits
    return rows.view(stack.dtype).reshape(stack.shape)
