"""What the user's code raised, and what an op raised in a run of ours: notes that say by which line."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck._graph.evaluate import INNER
from gradcheck._graph.forward import functions_of
from gradcheck._graph.provenance import at_frame, named, operation, origin, place_of, users_frame_of_stack
from gradcheck._results import Place

_NUMPY = os.path.dirname(np.__file__) + os.sep
_NODE = re.compile(r"(?:{{function_node ([^}]*)}}\s*)?{{node ([^}]+)}}")  # as TensorFlow names what failed


def raised_at(error: Exception) -> Place:
    """The user's line below us that raised an error; without a file where there is none."""
    stack = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_NUMPY)]
    return at_frame(users_frame_of_stack(stack), "", "")


def add_note(error: Exception, by: str, place: Place) -> None:
    """Add a note on who raised an exception, and where.

    Under Python 3.10, whose exceptions have no notes, it goes where pytest looks for them.
    """
    where = "" if place.file is None else f" at {place.file}:{place.line}"
    source = "" if place.source is None else f": `{place.source}`"
    text = f"gradcheck: raised{where} by {by}{source}"
    if hasattr(error, "add_note"):
        error.add_note(text)
    else:
        vars(error).setdefault("__notes__", []).append(text)


@contextmanager
def lines_noted(graph: Any, name: str) -> Iterator[None]:
    """A scope for running a program traced from a graph: what an op raises there gets a note with op and line.

    Args:
        graph: The FuncGraph.
        name: What to call the function.
    """
    try:
        yield
    except tf.errors.OpError as error:
        place = None if hasattr(error, "__notes__") else _failed(graph, error)  # a check may run within another
        if place is not None:
            add_note(error, f"{place.op_type} {place.op!r} in {place.function or name}", place)
        raise


def _failed(graph: Any, error: Any) -> Place | None:
    """The op that raised, by what TensorFlow says of it."""
    known = functions_of(graph)
    for function, name in _NODE.findall(error.message):
        if function not in known and not function.startswith(INNER) and operation(graph, name) is not None:
            return origin(graph, name).place
        inside = [known[function]] if function in known else known.values()
        made = [op for each in inside if (op := named(each, name)) is not None]
        places = {(p.file, p.line): p for p in (place_of(op, name) for op in made)}
        if len(places) == 1:
            return next(iter(places.values()))
    return None
