"""Lines of the user's code behind those that AutoGraph generated from it.

TensorFlow maps them where it traces in the caller's thread; a replica of a distribution strategy has another.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tensorflow.python.autograph.impl import api


class Line(NamedTuple):
    """A line of the user's, as a frame of a traceback names it."""

    filename: str
    lineno: int
    name: str


def users_line(frame: Any) -> Any:
    """The frame itself; for one in generated code, the line that it was generated from, where that is known."""
    if "__autograph_generated_file" not in frame.filename:
        return frame
    for source_map in _source_maps():
        for place, origin in source_map.items():
            if (place.filename, place.lineno) == (frame.filename, frame.lineno):
                return Line(origin.loc.filename, origin.loc.lineno, origin.function_name)
    return frame


def _source_maps() -> Iterator[Any]:
    for made in list(api._TRANSPILER._cache._cache.values()):
        for factory in list(made.values()):
            yield factory.source_map or {}
