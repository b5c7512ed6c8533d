"""Tensors with a property that some ops ask for."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gradcheck.strategies._arguments import FLOATING, count_of, dtype_of, shape_of, tensor
from gradcheck.strategies._values import tensors

_WIDE = ("float64", "float32")


@st.composite
def orthogonal(draw: st.DrawFn, side: Any = None, dtype: Any = "float64") -> Any:
    """Orthogonal matrices of determinant 1: Cayley transforms (I - A)(I + A)^-1 of skew matrices A.

    Args:
        draw: Given by hypothesis.
        side: The number of rows, a strategy for it, or None for any up to 4.
        dtype: float64, float32, or a strategy for one.

    Reference: Cayley, Sur quelques propriétés des déterminants gauches, J. reine angew. Math. 32 (1846), 119-123.
    """
    wanted, n = dtype_of(draw, dtype, _WIDE), _side(draw, side)
    return tensor(_rotation(draw, n), wanted)


def _side(draw: st.DrawFn, side: Any) -> int:
    return count_of(draw, "side", st.integers(1, 4) if side is None else side, 1)


def _rotation(draw: st.DrawFn, n: int) -> Any:
    below = draw(hnp.arrays(np.int64, (n, n), elements=st.integers(-8, 8), fill=st.nothing())) / 8.0
    skew = np.tril(below, -1) - np.tril(below, -1).T
    return np.linalg.solve((np.eye(n) + skew).T, (np.eye(n) - skew).T).T


@st.composite
def positive_definite(draw: st.DrawFn, side: Any = None, dtype: Any = "float64") -> Any:
    """Symmetric positive definite matrices with eigenvalues that are apart, between 1/2 and 5.

    Args:
        draw: Given by hypothesis.
        side: As for `orthogonal`.
        dtype: As for `orthogonal`.
    """
    wanted, n = dtype_of(draw, dtype, _WIDE), _side(draw, side)
    rotation = _rotation(draw, n)
    grains = draw(st.lists(st.integers(0, 18), min_size=n, max_size=n, unique=True)) if n <= 19 else range(n)
    eigenvalues = 0.5 + np.array(grains) / 4.0
    product = (rotation * eigenvalues) @ rotation.T
    return tensor((product + product.T) / 2, wanted)


@st.composite
def distinct(draw: st.DrawFn, shape: Any = None, dtype: Any = "float64") -> Any:
    """Tensors of which no two entries are near: for sort, top_k, max and median. They shrink to sorted ones.

    Args:
        draw: Given by hypothesis.
        shape: As for `tensors`.
        dtype: As for `tensors`, but floating.
    """
    wanted, size = dtype_of(draw, dtype, FLOATING), shape_of(draw, shape)
    n = int(np.prod(size, dtype=np.int64))
    order = np.array(draw(st.permutations(range(n))), np.float64)
    return tensor((0.25 * (order - n // 2)).reshape(size), wanted)


@st.composite
def probabilities(draw: st.DrawFn, shape: Any = None, dtype: Any = "float64") -> Any:
    """Positive tensors that sum to 1 along their last axis; they shrink to equal ones.

    Args:
        draw: Given by hypothesis.
        shape: As for `tensors`, with at least one dimension.
        dtype: As for `tensors`, but floating.
    """
    wanted, size = dtype_of(draw, dtype, FLOATING), shape_of(draw, shape, least=1)
    weights = draw(hnp.arrays(np.int64, size, elements=st.integers(1, 8), fill=st.nothing())).astype(np.float64)
    return tensor(weights / np.maximum(weights.sum(axis=-1, keepdims=True), 1.0), wanted)


@st.composite
def indices(draw: st.DrawFn, size: int, shape: Any = None) -> Any:
    """int32 tensors of indices below a size, with repetitions.

    Args:
        draw: Given by hypothesis.
        size: How many things there are to index.
        shape: As for `tensors`.
    """
    many = count_of(draw, "size", size, 1)
    found = draw(hnp.arrays(np.int32, shape_of(draw, shape), elements=st.integers(0, many - 1), fill=st.nothing()))
    return tf.constant(found)


@st.composite
def ragged(draw: st.DrawFn, dtype: Any = "float64", *, max_rows: int = 3, max_length: int = 4) -> Any:
    """tf.RaggedTensor of two dimensions, empty rows among them; they shrink to few rows of zeros.

    Args:
        draw: Given by hypothesis.
        dtype: As for `tensors`.
        max_rows: The largest number of rows.
        max_length: The largest length of a row.
    """
    rows = count_of(draw, "max_rows", max_rows, 1)
    longest = count_of(draw, "max_length", max_length, 1)
    lengths = draw(st.lists(st.integers(0, longest), min_size=1, max_size=rows))
    return tf.RaggedTensor.from_row_lengths(draw(tensors((sum(lengths),), dtype)), lengths)
