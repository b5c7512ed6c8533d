"""Tensors in .npz files: numbers as they are, all else as the bytes of a TensorProto; never pickled."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck._errors import BundleDamaged
from gradcheck._graph.evaluate import eagerly

_NATIVE = frozenset("biufc")


def save_arrays(path: Path, tensors: Mapping[str, Any]) -> None:
    """Write eager tensors of any dtype but resource and variant."""
    with path.open("xb") as file:
        np.savez(file, **{name: _to_array(tensor) for name, tensor in tensors.items()})  # none holds objects


def size_of(tensor: Any) -> int:
    """How many bytes a tensor takes in a file, about."""
    array = tensor._numpy()
    return int(array.nbytes) if hasattr(array, "nbytes") else len(array)


def _to_array(tensor: Any) -> Any:
    array = np.asarray(tensor.numpy())
    if array.dtype.kind in _NATIVE:
        return array
    with eagerly():  # strings, bfloat16 and what else NumPy does not know
        return np.frombuffer(tf.io.serialize_tensor(tensor).numpy(), np.uint8)


def load_arrays(path: Path, dtypes: Mapping[str, str]) -> dict[str, Any]:
    """Read tensors of the dtypes that are expected.

    Raises:
        BundleDamaged: If the file is no .npz, holds other names or dtypes, or anything that only a pickle could give.
    """
    try:
        _require_plain(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if sorted(archive.files) != sorted(dtypes):
                raise BundleDamaged(f"{path.name}: expected {len(dtypes)} arrays, found {len(archive.files)} others")
            return {name: _to_tensor(archive[name], dtype, f"{path.name}: {name}") for name, dtype in dtypes.items()}
    except (ValueError, KeyError, EOFError, OSError, MemoryError, zipfile.BadZipFile, NotImplementedError) as error:
        if isinstance(error, BundleDamaged):
            raise
        raise BundleDamaged(f"{path.name}: cannot be read as arrays: {_first_line(error)}") from error


def _require_plain(path: Path) -> None:
    """Refuse an archive that would take more room than its file does."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if (
        any(m.compress_type != zipfile.ZIP_STORED for m in members)
        or sum(m.file_size for m in members) > path.stat().st_size
    ):
        raise BundleDamaged(f"{path.name}: cannot be read as arrays: it is compressed, which none is that was written")


def _to_tensor(array: Any, dtype: str, name: str) -> Any:
    try:
        wanted = tf.as_dtype(dtype)
    except TypeError as error:
        raise BundleDamaged(f"{name}: there is no dtype {dtype!r}") from error
    if not isinstance(array, np.ndarray):
        raise BundleDamaged(f"{name}: expected {dtype}, found no array")
    with eagerly():
        if array.dtype.kind in _NATIVE and array.dtype == wanted.as_numpy_dtype:
            return tf.convert_to_tensor(array)
        if array.dtype != np.uint8 or array.ndim != 1:
            raise BundleDamaged(f"{name}: expected {dtype}, found {array.dtype}")
        try:
            return tf.io.parse_tensor(array.tobytes(), wanted)
        except tf.errors.OpError as error:
            raise BundleDamaged(f"{name}: expected {dtype}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
