"""Places in the user's code: which line made an op."""

from __future__ import annotations

import inspect
import itertools
import linecache
import os
import re
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from gradcheck._graph import keywords
from gradcheck._graph.forward import called_graphs, forward_op
from gradcheck._graph.generated import users_line
from gradcheck._graph.held import HeldProgram, held_inside
from gradcheck._graph.nodes import CALLED, node_of
from gradcheck._graph.quantiles import AT_BASE
from gradcheck._graph.randomness import RANDOM
from gradcheck._graph.trace import Traced
from gradcheck._results import Held, Place

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_LAYER_CALL = os.path.join("keras", "src", "layers", "layer.py")
# The ops that call functions, whose names stand between scopes.
_CALLS = re.compile(r"((Stateful|Stateless)?PartitionedCall|(Stateless)?(While|If|Case)|while|cond|switch_case)(_\d+)?")
_SUBJECTS = os.path.join(_OURS, "subjects") + os.sep  # read as a user's code would be


@lru_cache(maxsize=1)
def _library_roots() -> tuple[str, ...]:
    import keras
    import tensorflow as tf

    roots = {_OURS, *(os.path.dirname(os.path.abspath(m.__file__)) for m in (tf, keras))}
    # tf.__file__ lies in tensorflow/_api for some builds
    roots |= {root.split(f"{os.sep}_api{os.sep}")[0] for root in roots}
    return tuple(root + os.sep for root in roots)


def _is_users(path: str) -> bool:
    if not path.endswith(".py") and not path.startswith("<ipython"):  # such as the script that started us
        return False
    if path.startswith(_library_roots()) and not path.startswith(_SUBJECTS):
        return False
    standard = sysconfig.get_paths()["stdlib"] + os.sep
    return not path.startswith(standard) or f"{os.sep}site-packages{os.sep}" in path


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where an op comes from.

    Attributes:
        place: The op, with the user's line; for an op of a gradient, the line of its forward op.
        own_name: The name that the op has in the graph of the function that made it.
        forward: For an op of a gradient, the op that it differentiates.
        layer: The path of the Keras layer in whose call the op, or its forward op, was made.
    """

    place: Place
    own_name: str
    forward: Place | None = None
    layer: str | None = None


def origin(graph: Any, name: str, op_type: str = "") -> Origin:
    """Where a node of the program traced from a FuncGraph comes from."""
    op = operation(graph, name, op_type)
    if op is None:
        return Origin(place=Place(op=name, op_type=op_type), own_name=name)
    forward = forward_op(graph, op)
    source = op if forward is None else _original(forward.graph, forward)
    found = place_of(op, name, op_type, source)
    return Origin(
        place=found,
        own_name=str(op.name),
        forward=None if forward is None else replace(found, op=forward.name, op_type=forward.type),
        layer=keras_layer(source, name if forward is None else source.name),
    )


def place(graph: Any, name: str, op_type: str = "") -> Place:
    """The place of a node of the program traced from a FuncGraph; for an op of a gradient, that of its forward op."""
    return origin(graph, name, op_type).place


def place_of(op: Any, name: str, op_type: str = "", maker: Any = None) -> Place:
    """The place of an op, by the line that made it or, where it is given, its maker."""
    return at_frame(users_frame(op if maker is None else maker), name, op_type or op.type)


def at_frame(frame: Any, name: str, op_type: str) -> Place:
    """The place of what was made at a frame of a stack; without a line where there is none."""
    found = Place(op=name, op_type=op_type)
    if frame is None:
        return found
    source = linecache.getline(frame.filename, frame.lineno).strip()
    return replace(found, file=_short(frame.filename), line=frame.lineno, function=frame.name, source=source or None)


def written_at(fn: Any) -> str:
    """The name of a function of the user's, and the file and line at which it is written."""
    code = getattr(inspect.unwrap(fn), "__code__", None)
    name = str(getattr(fn, "__name__", type(fn).__name__))
    return name if code is None else f"{name} at {_short(code.co_filename)}:{code.co_firstlineno}"


def keras_layer(op: Any, name: str) -> str | None:
    """The path of the Keras layer in whose call an op was made; `name` is the op's with the calls that lead to it."""
    calls = [f for f in op.traceback or () if f.name == "__call__" and f.filename.endswith(_LAYER_CALL)]
    # Each call opens a scope named like the layer, made unique by a number of its own.
    scopes: list[str] = []
    for outside, part in itertools.groupby(name.split("/")[:-1], lambda part: not _CALLS.fullmatch(part)):
        inner = list(part) if outside else []
        # In the body of a loop, names begin with the scopes around the loop once more.
        scopes = inner if scopes and inner[: len(scopes)] == scopes else scopes + inner
    return "/".join(re.sub(r"_\d+$", "", scope) for scope in scopes[: len(calls)]) or None


def users_frame(op: Any) -> Any:
    """The innermost frame of the user's in which an op was made; None where only those are left that called us."""
    return users_frame_of_stack(op.traceback or ())


def users_frame_of_stack(stack: Iterable[Any]) -> Any:
    """The innermost frame of the user's in a stack, outermost first; None where only those are left that called us."""
    frames = [users_line(frame) for frame in stack]
    ours = [k for k, f in enumerate(frames) if _calls_users(f.filename)]
    return next((f for f in reversed(frames[max(ours, default=-1) + 1 :]) if _is_users(f.filename)), None)


def _calls_users(path: str) -> bool:
    """Whether a file of ours is one that calls the user's function, and is not called by it."""
    return path.startswith(_OURS + os.sep) and path != keywords.__file__ and not _is_users(path)


def _short(path: str) -> str:
    if path.startswith(_SUBJECTS):  # wherever they are installed
        return os.path.relpath(path, os.path.dirname(_OURS))
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def _original(graph: Any, op: Any) -> Any:
    """The op that was copied, where the graph holds copies of the user's ops: that one knows its line."""
    return graph.original(op) if hasattr(graph, "original") else op


def operation(graph: Any, name: str, op_type: str = "") -> Any:
    """The op of that name, in the graph or in a function that it calls (names of inlined nodes are joined by /)."""
    exact = named(graph, name)
    if exact is not None and op_type in ("", exact.type):
        return exact
    parts = name.split("/")
    for k in range(len(parts) - 1, 0, -1):
        for prefix in _spellings("/".join(parts[:k])):
            call = named(graph, prefix)
            for inner in called_graphs(call) if call is not None else ():
                found = operation(inner, "/".join(parts[k:]), op_type)
                if found is not None:
                    return found
    return next((op for spelling in _spellings(name) if (op := named(graph, spelling)) is not None), None)


def named(graph: Any, name: str) -> Any:
    """The op of exactly that name in a graph, or None."""
    try:
        return _original(graph, graph.get_operation_by_name(name))
    except (KeyError, ValueError):
        return None


def _spellings(name: str) -> list[str]:
    """A node's name in a function, and the op's in its graph: what a function returns may take the name of an op."""
    return list(dict.fromkeys((name, re.sub(r"_\d+$", "", name))))


def held_places(traced: Traced, held: HeldProgram) -> tuple[Held, ...]:
    """What is held while inputs move: stopped tensors, and random numbers that outputs depend on."""
    stops = set(traced.stops)
    types = {node.name: node for node in traced.program.main.nodes}
    found = []
    for source in held.sources:
        node = types.get(node_of(source.ref))
        if node is None or AT_BASE in node.attr:
            continue
        if node.op == "StopGradient":
            found.append(Held(place=place(traced.graph, node.name, node.op), reason="stop_gradient"))
        elif source.ref in stops:
            found.append(Held(place=place(traced.graph, node.name, node.op), reason="stop_gradients"))
    for node in traced.program.main.nodes:
        if node.op in RANDOM and "gradients/" not in node.name:
            found.append(Held(place=place(traced.graph, node.name, node.op), reason="random"))
        elif node.op in CALLED and "gradients/" not in node.name:
            inside = held_inside(node, traced.program.functions)
            found += [
                Held(place=place(traced.graph, f"{node.name}/{n}", "StopGradient"), reason="stop_gradient")
                for n in inside
            ]
    return tuple({str(h): h for h in found}.values())
