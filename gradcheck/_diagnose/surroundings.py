"""What lies around an op in its program: what its inputs are made of, and what becomes of its output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from gradcheck._diagnose.inside import body_around
from gradcheck._diagnose.paces import Towards
from gradcheck._diagnose.ranges import array_of, wide_array
from gradcheck._graph.evaluate import RUN_ERRORS
from gradcheck._graph.nodes import CALLED, Node, data_inputs, node_of
from gradcheck._graph.program import Body, Program, map_bodies
from gradcheck._graph.rerun import Rerun
from gradcheck._graph.visit import Step, Visit

# They change no entry but by a shape, a dtype or a sign.
_SEEN_THROUGH = frozenset(
    {"Identity", "Cast", "Reshape", "Squeeze", "ExpandDims", "StopGradient", "CheckNumerics", "CheckNumericsV2"}
)
ADDED = ("AddV2", "Add")
_FAR = 6
# How many ops are run for one value: a hint is not worth more.
_MOST = 20_000


@dataclass(slots=True)
class Surroundings:
    """A node of a program, and the body that it stands in."""

    node: Node
    body: Body
    rerun: Rerun
    path: tuple[Step, ...] | None = None  # the way to the run of it that is meant
    _takers: dict[str, list[tuple[Node, int]]] = field(default_factory=dict)
    _makers: dict[str, Node] = field(default_factory=dict)
    _seen: dict[str, Visit | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in self.body.nodes:
            self._makers[node.name] = node
            for k, ref in enumerate(data_inputs(node)):
                self._takers.setdefault(node_of(ref), []).append((node, k))

    def maker(self, node: Node, k: int) -> Node | None:
        """The node that makes the k-th input of a node; None for an argument."""
        ins = data_inputs(node)
        found = self._makers.get(node_of(ins[k])) if k < len(ins) else None
        while found is not None and found.op in _SEEN_THROUGH:
            found = self._makers.get(node_of(data_inputs(found)[0]))
        return found

    def makers(self, node: Node | None, op: str | tuple[str, ...]) -> Iterator[Node]:
        """Those of a node's inputs that are made by an op of some types."""
        wanted = (op,) if isinstance(op, str) else op
        for k in range(len(data_inputs(node)) if node is not None else 0):
            made = self.maker(node, k)
            if made is not None and made.op in wanted:
                yield made

    def takers(self, node: Node) -> list[tuple[Node, int]]:
        """The nodes that take a node's output, and as which input."""
        found = []
        for taker, k in self._takers.get(node.name, []):
            found += self.takers(taker) if taker.op in _SEEN_THROUGH else [(taker, k)]
        return found

    def taken_by(self, node: Node, *ops: str) -> Node | None:
        """The first node of such a type that takes a node's output."""
        return next((taker for taker, _ in self.takers(node) if taker.op in ops), None)

    def selections(self) -> Iterator[tuple[Node, int]]:
        """The tf.where that the node's output, or what is computed from it, is a branch of; 1 is where it is true."""
        pending, known = [(self.node, 0)], set()
        while pending:
            node, far = pending.pop()
            for taker, k in self.takers(node):
                if taker.op in ("Select", "SelectV2") and k > 0:
                    yield taker, k
                elif taker.name not in known and far < _FAR and taker.op not in CALLED:
                    known.add(taker.name)
                    pending.append((taker, far + 1))

    def is_one(self, node: Node, k: int) -> bool:
        """Whether an input of a node is the constant 1."""
        made = self.maker(node, k)
        if made is None or made.op != "Const":
            return False
        value = self.value(made)
        return value is not None and value.size == 1 and bool(value.reshape(-1)[0] == 1)

    def adds_one(self, node: Node) -> bool:
        """Whether a node is 1 + x or 1 - x."""
        if node.op in ADDED:
            return self.is_one(node, 0) or self.is_one(node, 1)
        return node.op == "Sub" and self.is_one(node, 0)

    def value(self, node: Node, output: int = 0) -> Any:
        """What a node of the same body gave when the program ran (the last time), wide; None if it did not."""
        seen = self._run(node)
        if seen is None or output >= len(seen.outputs):
            return None
        tensor = seen.outputs[output].tensor
        return array_of(tensor) if tensor.dtype.is_bool else wide_array(tensor)

    def input_value(self, node: Node, k: int) -> Any:
        """What a node took as its k-th input; None if it did not run."""
        seen = self._run(node)
        if seen is None or k >= len(seen.inputs) or seen.inputs[k].tensor.dtype.name in ("resource", "variant"):
            return None
        tensor = seen.inputs[k].tensor
        return array_of(tensor) if tensor.dtype.is_bool else wide_array(tensor)

    def _run(self, node: Node) -> Visit | None:
        if node.name not in self._seen:
            self._seen[node.name] = None
            pace = None if self.path is None else Towards(self.path)
            _, walk = replace(self.rerun, program=self._keeping(node)).start(pace)
            try:
                for visit in islice(walk, _MOST):
                    if visit.node is node:
                        self._seen[node.name] = visit
            except RUN_ERRORS:
                pass
        return self._seen[node.name]

    def _keeping(self, node: Node) -> Program:
        """The program in which a node of this body runs even if nothing takes what it gives."""

        def kept(body: Body) -> Body:
            return replace(body, kept=(node.name,)) if body is self.body else body

        return map_bodies(self.rerun.program, kept)


def of_visit(rerun: Rerun, visit: Visit) -> Surroundings:
    """Around an op that ran."""
    return Surroundings(visit.node, body_around(rerun.program, visit.path), rerun, visit.path)


def of_forward(rerun: Rerun, name: str, op_type: str) -> Surroundings | None:
    """Around an op of the forward pass, by its name in the graph and its type; None where the program has none."""
    for body in (rerun.program.main, *rerun.program.functions.values()):
        for node in body.nodes:
            if node.op == op_type and (node.name == name or node.name.endswith(f"/{name}")):
                return Surroundings(node, body, rerun)
    return None
