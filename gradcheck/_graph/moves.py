"""Arguments that move: x + t d, computed inside the program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tensorflow.core.framework import types_pb2

from gradcheck._graph.nodes import Node, make_node
from gradcheck._graph.program import COMPLEX, Argument, Program, redirect

DISTANCE = "distance"  # name of the argument that holds t, a float64 scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """A program whose arguments move along directions that are arguments too.

    Attributes:
        program: Takes `DISTANCE` and one direction per moving argument besides what it took before.
        directions: Names of the arguments that hold the directions.
    """

    program: Program
    directions: tuple[str, ...]


def move_along(program: Program, names: Sequence[str]) -> Moving:
    """Let arguments of a float64 program move: each is replaced by its value plus distance times direction.

    Large inputs are then copied once per direction, not once per point.
    """
    types = {a.name: a.dtype for a in program.main.args}
    nodes: list[Node] = []
    refs: dict[str, str] = {}
    directions = []
    for k, name in enumerate(names):
        dtype, distance = types[name], DISTANCE
        direction = f"direction_{k}"
        if dtype in COMPLEX:
            cast = make_node("Cast", f"move_{k}/cast", [DISTANCE], SrcT=types_pb2.DT_DOUBLE, DstT=dtype)
            nodes.append(cast)
            distance = f"{cast.name}:y:0"
        product = make_node("Mul", f"move_{k}/mul", [distance, direction], T=dtype)
        total = make_node("AddV2", f"move_{k}/add", [name, f"{product.name}:z:0"], T=dtype)
        nodes += [product, total]
        refs[name] = f"{total.name}:z:0"
        directions.append(direction)
    moved = redirect(program.main, refs)
    args = (
        *moved.args,
        Argument(DISTANCE, types_pb2.DT_DOUBLE),
        *(Argument(d, types[n]) for d, n in zip(directions, names, strict=True)),
    )
    return Moving(
        program=Program(main=replace(moved, args=args, nodes=(*nodes, *moved.nodes)), functions=program.functions),
        directions=tuple(directions),
    )
