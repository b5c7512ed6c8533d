"""Pictures for the page IMAGES: the error map by NumPy alone, the plots by matplotlib where it is there."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from gradcheck._report.plot import Target
from gradcheck._results import ErrorMap
from gradcheck.tensorboard._sink import warn_once

_SIDE = 384  # pixels, about, of the longer side
_LEAST, _MOST = 6, 96  # pixels of a cell
_DECADES = 3.0  # around 1 that colours tell apart
_WITHIN = np.array([[247.0, 251.0, 255.0], [107.0, 174.0, 214.0]])  # from far below what is allowed up to it,
_BEYOND = np.array([[253.0, 174.0, 97.0], [165.0, 0.0, 38.0]])  # and from there on
_MARK = np.zeros(3, np.uint8)


def draw_map(found: ErrorMap) -> bytes:
    """A PNG of an error map: blue where the difference is allowed, orange to red where not, the worst cell framed."""
    cells = np.array(found.cells)
    with np.errstate(divide="ignore"):
        depth = np.clip(np.log10(cells) / _DECADES, -1.0, 1.0)[..., None]
    within = _WITHIN[0] + (1 + depth) * (_WITHIN[1] - _WITHIN[0])
    colours = np.where(depth <= 0, within, _BEYOND[0] + depth * (_BEYOND[1] - _BEYOND[0]))
    size = int(np.clip(_SIDE // max(cells.shape), _LEAST, _MOST))
    pixels = colours.round().astype(np.uint8).repeat(size, axis=0).repeat(size, axis=1)
    _frame(pixels, found.worst, size)
    return _png(pixels)


def _frame(pixels: NDArray[np.uint8], cell: tuple[int, int], size: int) -> None:
    top, left = cell[0] * size, cell[1] * size
    wide = max(1, size // 8)
    inside = pixels[top + wide : top + size - wide, left + wide : left + size - wide].copy()
    pixels[top : top + size, left : left + size] = _MARK
    pixels[top + wide : top + size - wide, left + wide : left + size - wide] = inside


def _png(pixels: NDArray[np.uint8]) -> bytes:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:  # also where nothing runs eagerly
        encoded: bytes = session.run(tf.io.encode_png(pixels))
    return encoded


def plotted(plot: Callable[[Any, Target], None], what: Any) -> bytes | str:
    """The PNG that a function of `_report.plot` draws; what to install where there is no matplotlib, said once."""
    buffer = io.BytesIO()
    try:
        plot(what, buffer)
    except ImportError as error:
        warn_once(str(error))
        return str(error)
    return buffer.getvalue()
