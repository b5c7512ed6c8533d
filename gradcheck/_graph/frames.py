"""Loops and conditions of control flow v1: which node runs next, on which values, and in which iteration.

Every value carries the iterations that it belongs to; a node runs where all its inputs belong to the same ones. A
branch that is not taken hands on that it is dead. After: Arvind and R. S. Nikhil, Executing a program on the MIT
tagged-token dataflow architecture, IEEE Trans. Comput. 39 (1990); Y. Yu et al., Dynamic control flow in large-scale
machine learning, EuroSys 2018.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradcheck._graph.nodes import Node, control_inputs, data_inputs, node_of, output_refs

V1 = frozenset(
    {
        "Switch", "RefSwitch", "Merge", "RefMerge", "Enter", "RefEnter", "Exit", "RefExit", "NextIteration",
        "RefNextIteration", "LoopCond",
    }
)  # fmt: skip
Tag = tuple[tuple[str, int], ...]  # frame and iteration, from the outermost on
_DEAD = object()


@dataclass(slots=True)
class _Waiting:
    """A node in one iteration, and what has arrived of its inputs."""

    inputs: list[Any]
    missing: int
    dead: bool = False


@dataclass(frozen=True, slots=True)
class Due:
    """A node that is to run, in which iterations, and on what."""

    node: Node
    tag: Tag
    inputs: tuple[Any, ...]


@dataclass(slots=True)
class Frames:
    """Hands out the nodes of a body in an order that runs, and takes what they give.

    Args:
        nodes: Those that are to run.
        given: The values of arguments.
        wanted: References whose values are to be kept.
        truth: What a condition takes a value for.
    """

    nodes: Sequence[Node]
    given: Mapping[str, Any]
    wanted: Iterable[str]
    truth: Any
    returned: dict[str, Any] = field(default_factory=dict)
    _takers: dict[str, list[tuple[Node, int]]] = field(default_factory=dict)
    _waiting: dict[tuple[str, Tag], _Waiting] = field(default_factory=dict)
    _due: deque[Due] = field(default_factory=deque)
    _constant: dict[Tag, list[tuple[str, Any]]] = field(default_factory=dict)  # frame -> what all iterations may take
    _begun: dict[Tag, int] = field(default_factory=dict)  # frame -> how many iterations have begun
    _back: frozenset[str] = frozenset()
    _fired: set[tuple[str, Tag]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.wanted = frozenset(self.wanted)
        names = {node.name for node in self.nodes}
        self._back = frozenset(n.name for n in self.nodes if n.op.endswith("NextIteration"))
        for node in self.nodes:
            ins = [*data_inputs(node), *(c for c in control_inputs(node) if node_of(c) in names)]
            for k, ref in enumerate(ins):
                self._takers.setdefault(ref, []).append((node, k))
            if not ins:
                self._due.append(Due(node, (), ()))
        for ref, value in self.given.items():
            self._deliver(ref, (), value)

    def next(self) -> Due | None:
        """The next node to run; None where all is done. Nodes of control flow are run on the way."""
        while self._due:
            due = self._due.popleft()
            if due.node.op not in V1:
                return due
            self._steer(due)
        return None

    def give(self, due: Due, outputs: Sequence[Any]) -> None:
        """Take what a node gave."""
        for (ref, _), value in zip(output_refs(due.node), outputs, strict=True):
            self._deliver(ref, due.tag, value)
        self._deliver(f"^{due.node.name}", due.tag, None)

    # ------------------------------------------------------------------------------------------ arriving

    def _deliver(self, ref: str, tag: Tag, value: Any) -> None:
        if ref in self.wanted and not tag:
            self.returned[ref] = value
        for node, k in self._takers.get(ref, ()):
            self._arrive(node, k, tag, value)

    def _arrive(self, node: Node, k: int, tag: Tag, value: Any) -> None:
        ins = data_inputs(node)
        key = node.name, tag
        waiting = self._waiting.get(key)
        if waiting is None:
            expected = len(ins) + sum(f"^{node_of(c)}" in self._takers for c in control_inputs(node))
            if node.op.endswith("Merge"):  # an iteration has one input from before, the first one those from outside
                expected = sum(node_of(i) not in self._back for i in ins)
            waiting = self._waiting[key] = _Waiting([None] * len(ins), expected)
        if node.op.endswith("Merge"):
            self._merge(node, k, tag, value, waiting)
            return
        if k < len(ins):
            waiting.inputs[k] = value
        waiting.dead |= value is _DEAD
        waiting.missing -= 1
        if not waiting.missing:
            del self._waiting[key]
            self._ready(node, tag, waiting)

    def _merge(self, node: Node, k: int, tag: Tag, value: Any, waiting: _Waiting) -> None:
        if k >= len(waiting.inputs) or (node.name, tag) in self._fired:
            return
        waiting.missing -= 1
        if value is not _DEAD or not waiting.missing:
            self._fired.add((node.name, tag))
            del self._waiting[node.name, tag]
            if value is _DEAD:
                self._kill(node, tag)
            else:
                self._due.append(Due(node, tag, (value,)))

    def _ready(self, node: Node, tag: Tag, waiting: _Waiting) -> None:
        if waiting.dead:
            self._kill(node, tag)
        else:
            self._due.append(Due(node, tag, tuple(waiting.inputs)))

    # ------------------------------------------------------------------------------------------ leaving

    def _kill(self, node: Node, tag: Tag) -> None:
        """A node that does not run hands that on; not into another iteration, nor out of one."""
        if node.op.endswith("NextIteration") or (node.op.endswith("Exit") and not self._is_dead(tag)):
            return
        if node.op.endswith("Enter"):
            tag = (*tag, (node.attr["frame_name"].s.decode(), -1))
        elif node.op.endswith("Exit"):
            tag = tag[:-1]
        for ref, _ in output_refs(node):
            self._deliver(ref, tag, _DEAD)
        self._deliver(f"^{node.name}", tag, _DEAD)

    def _is_dead(self, tag: Tag) -> bool:
        """Whether a loop was never entered: what is dead there belongs to an iteration of its own, -1."""
        return bool(tag) and tag[-1][1] == -1

    def _steer(self, due: Due) -> None:
        node, tag = due.node, due.tag
        op = node.op.removeprefix("Ref")
        refs = [ref for ref, _ in output_refs(node)]
        value = due.inputs[0]
        if op == "Switch":
            taken = int(self.truth(due.inputs[1]))
            self._deliver(refs[taken], tag, value)
            self._deliver(refs[1 - taken], tag, _DEAD)
        elif op == "Enter":
            frame: Tag = (*tag, (node.attr["frame_name"].s.decode(), 0))
            tag = frame
            self._begun.setdefault(frame, 1)
            if node.attr["is_constant"].b:
                self._constant.setdefault(frame, []).append((refs[0], value))
                for i in range(1, self._begun[frame]):
                    self._deliver(refs[0], (*frame[:-1], (frame[-1][0], i)), value)
            self._deliver(refs[0], tag, value)
        elif op == "NextIteration":
            name, i = tag[-1]
            frame, tag = (*tag[:-1], (name, 0)), (*tag[:-1], (name, i + 1))
            self._deliver(refs[0], tag, value)
            if self._begun.get(frame, 1) < i + 2:
                self._begun[frame] = i + 2
                for ref, constant in self._constant.get(frame, []):
                    self._deliver(ref, tag, constant)
        else:
            tag = tag[:-1] if op == "Exit" else tag
            self._deliver(refs[0], tag, value)
        self._deliver(f"^{node.name}", tag, None)
