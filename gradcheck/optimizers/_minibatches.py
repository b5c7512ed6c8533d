"""Stochastic gradient descent as a way of feeding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck.optimizers._arguments import paths


def minibatches(data: Any, batch_size: int, seed: int, *, epochs: int = 1, keep_last: bool = True) -> Iterator[Any]:
    """Rows of the data in random order, a batch at a time, each row once in every epoch.

    Args:
        data: An array or tensor, or a nested structure of them, all with the same number of rows (first dimension).
            A list is a structure, not an array.
        batch_size: How many rows make a batch.
        seed: Fixes the order, which is another one in each epoch.
        epochs: How many times to go through the data.
        keep_last: Whether a last batch with fewer rows is given or dropped.

    Returns:
        An iterator over batches in the structure of the data; tensors stay tensors, arrays stay arrays.

    Raises:
        TypeError, ValueError: If the rows do not match, a number is not a whole one that makes sense, or no batch
            would come.

    Example:
        >>> import numpy as np
        >>> from gradcheck.optimizers import minibatches
        >>> batches = list(minibatches({"x": np.arange(5.0), "y": np.arange(5)}, batch_size=2, seed=0))
        >>> [len(batch["x"]) for batch in batches]
        [2, 2, 1]
        >>> sorted(int(y) for batch in batches for y in batch["y"])
        [0, 1, 2, 3, 4]
    """
    for name, value, least in (("batch_size", batch_size, 1), ("seed", seed, 0), ("epochs", epochs, 1)):
        _require_whole(name, value, least)
    if not isinstance(keep_last, bool):
        raise TypeError(f"keep_last must be True or False; got keep_last={keep_last!r}")
    columns = tf.nest.map_structure(lambda each: each if tf.is_tensor(each) else np.asarray(each), data)
    rows = _rows(columns)
    if not keep_last and rows < batch_size:
        raise ValueError(
            f"keep_last=False drops the only batch: there are {rows} rows and batch_size={batch_size}; "
            "write keep_last=True or a smaller batch_size"
        )
    return _batches(columns, rows, batch_size, np.random.default_rng(seed), epochs, keep_last)


def _batches(
    columns: Any, rows: int, batch_size: int, rng: np.random.Generator, epochs: int, keep_last: bool
) -> Iterator[Any]:
    for _ in range(epochs):
        order = rng.permutation(rows)
        for start in range(0, rows if keep_last else rows - rows % batch_size, batch_size):
            yield _taken(columns, order[start : start + batch_size])


def _taken(columns: Any, which: Any) -> Any:
    return tf.nest.map_structure(lambda each: tf.gather(each, which) if tf.is_tensor(each) else each[which], columns)


def _rows(columns: Any) -> int:
    counts = {}
    for path, column in zip(paths(columns, "data"), tf.nest.flatten(columns), strict=True):
        if not len(column.shape):
            raise ValueError(f"{path} must have rows; got a single value: an array of shape [rows, ...] is needed")
        counts[path] = int(column.shape[0])
    if len(set(counts.values())) != 1:
        found = ", ".join(f"{path} has {count}" for path, count in counts.items()) or "nothing at all"
        raise ValueError(f"data must have the same number of rows everywhere; got {found}")
    rows = next(iter(counts.values()))
    if not rows:
        raise ValueError("data must have at least one row; got none")
    return rows


def _require_whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer; got {name}={value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}; got {name}={value!r}")
