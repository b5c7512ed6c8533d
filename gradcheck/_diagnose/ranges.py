"""What a tensor holds, in a few numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradcheck._graph.structure import CONTINUOUS
from gradcheck._report.nonfinite import Range


def array_of(tensor: Any) -> Any:
    """The entries of an eager tensor; not a copy where TensorFlow can do without."""
    return np.asarray(tensor._numpy())


def is_continuous(tensor: Any) -> bool:
    """Whether a tensor's entries can be NaN or infinite."""
    return tensor.dtype in CONTINUOUS


def is_finite(tensor: Any) -> bool:
    """Whether every entry of a floating or complex tensor is finite."""
    array = array_of(tensor)
    if array.dtype.kind in "fc":
        with np.errstate(all="ignore"):
            if np.isfinite(array.sum()):  # several times faster, and no sum hides a NaN or an infinity
                return True
    return bool(np.all(np.isfinite(array)))


def has_nan(tensor: Any) -> bool:
    """Whether an entry is NaN."""
    return bool(np.any(np.isnan(array_of(tensor))))


def has_infinity(tensor: Any) -> bool:
    """Whether an entry is infinite."""
    return bool(np.any(np.isinf(array_of(tensor))))


def has_positive_infinity(tensor: Any) -> bool:
    """Whether an entry, or the real or imaginary part of one, is +Inf."""
    array = array_of(tensor)
    return bool(np.any(np.real(array) == np.inf) or np.any(np.imag(array) == np.inf))


def wide_array(tensor: Any) -> Any:
    """The entries in float64 or complex128; integers and bools too."""
    array = array_of(tensor)
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def first_nonfinite(tensor: Any) -> tuple[int, ...]:
    """The index of the first entry that is not finite."""
    bad = ~np.isfinite(array_of(tensor))
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape))


def kind_at(tensor: Any, index: tuple[int, ...]) -> str:
    """ "NaN", "+Inf" or "-Inf"."""
    entry = wide_array(tensor)[index]
    if np.isnan(entry):
        return "NaN"
    return "-Inf" if np.real(entry) == -np.inf else "+Inf"


def range_of(name: str, tensor: Any, there: tuple[int, ...] | None = None) -> Range:
    """The range and the counts of a tensor; `there` is an index into it."""
    shape, dtype = tuple(tensor.shape.as_list()), tensor.dtype.name
    if tensor.dtype.name in ("resource", "variant", "string"):
        return Range(name=name, dtype=dtype, shape=shape)
    array = wide_array(tensor)
    entry = None if there is None else _shown(array[there], tensor.dtype)
    parts = np.stack([array.real, array.imag]) if array.dtype.kind == "c" else array
    finite = parts[np.isfinite(parts)]
    finite = np.abs(array[np.isfinite(array)]) if array.dtype.kind == "c" else finite
    return Range(
        name=name,
        dtype=dtype,
        shape=shape,
        low=float(finite.min()) if finite.size else None,
        high=float(finite.max()) if finite.size else None,
        nan=int(np.isnan(array).sum()),
        posinf=int(np.sum((parts == np.inf) & ~np.isnan(parts))),
        neginf=int(np.sum((parts == -np.inf) & ~np.isnan(parts))),
        there=entry,
    )


def _shown(entry: Any, dtype: Any) -> str:
    if dtype.is_bool:
        return str(bool(entry))
    if dtype.is_integer:
        return str(int(entry))
    return f"{entry:.9g}"
