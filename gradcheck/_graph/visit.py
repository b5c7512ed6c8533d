"""A program run op by op on the host, so that every value inside is seen: in calls, branches and each iteration."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import tensorflow as tf
from tensorflow.core.framework import types_pb2

from gradcheck._graph.frames import V1, Frames
from gradcheck._graph.nodes import CALLED, Node, data_inputs, functions_named, op_def, output_refs
from gradcheck._graph.program import COMPLEX, Body, Program, prune, topological
from gradcheck._graph.single import Ops, attributes_of, is_write, kind_of
from gradcheck._graph.skim import Skimmer

_ALONE = re.compile(r"{{function_node __wrapped__[^}]*}} | \[Op:\w+\]( name:)?")  # what an op says that runs eagerly


@dataclass(slots=True, eq=False)
class Value:
    """A value on its way through a program.

    The same object goes from the op that made it into every op, call, branch and iteration that takes it, and so
    does `note`, in which whoever visits may keep what is known about it.
    """

    tensor: Any  # eager
    note: Any = None


@dataclass(frozen=True, slots=True)
class Step:
    """One step inwards: the node that calls, which of its functions, and for a loop the iteration, from 0 on."""

    node: str
    part: str  # "call", "then", "else", "branch 2", "body", "cond" or, for a loop of control flow v1, "frame"
    iteration: int | None = None


@dataclass(frozen=True, slots=True)
class Visit:
    """One run of one op."""

    node: Node
    path: tuple[Step, ...]  # from the outermost call on; empty in the main body
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]

    @property
    def name(self) -> str:
        """The names of the calls and of the op, joined by / as they are in an inlined program."""
        return _full_name(self.node, self.path)


def _full_name(node: Node, path: Sequence[Step]) -> str:
    return "/".join([*(step.node for step in path if step.part != "frame"), node.name])


Inward = Generator[Visit, None, tuple[Value, ...]]  # visits, and in the end the values that are returned


class Pace(Protocol):
    """Where loops may be run in one piece instead of being looked into."""

    def target(self, loop: Node, path: tuple[Step, ...], iteration: int, state: Sequence[Value]) -> int | None:
        """The iteration before which to look again, or None to look into this one."""
        ...

    def watches(self) -> bool:
        """Whether to stop before an iteration in which an op gives NaN or an infinity."""
        ...

    def arrived(self, before: Sequence[Value], after: Sequence[Value], loop: Node, skipped: int) -> None:
        """Told of the values that a loop carried before and after it was run in one piece."""
        ...


def visit(program: Program, arguments: Sequence[Value], *, alive: Any = None, pace: Pace | None = None) -> Inward:
    """Run a program op by op and show each op after it ran, in the order in which they ran.

    Calls, conditionals and loops are not shown themselves: what they call is entered, with the branch that is taken,
    and each iteration. A value is dropped after the last op that takes it, unless the visitor keeps it, so that memory
    is bounded by what is live in one iteration. What only acts on the world outside (prints, assertions, summaries,
    writes to tables and files) does not run; variables must be stood for by handles of copies.

    Args:
        program: Any program; nothing needs to be inlined.
        arguments: One value per argument of the main body.
        alive: What must not be collected meanwhile, such as the graph that holds Python functions.
        pace: Which iterations to pass over; by default none.

    Returns:
        An iterator of visits; its return value (`yield from`) is the tuple of values that the main body returns.

    Raises:
        GraphUnavailable: If an op takes a value from outside that cannot be had twice, such as a data set's next.
        tf.errors.OpError: If an op fails, as it does in the user's run.
    """
    walk = _Walk(program.functions, Ops(program.functions, alive), pace, Skimmer(program.functions, alive))
    return walk.body(program.main, list(arguments), ())


def returned_by(walk: Inward) -> tuple[Value, ...]:
    """What is returned at the end of a walk."""
    while True:
        try:
            next(walk)
        except StopIteration as end:
            found: tuple[Value, ...] = end.value
            return found


@dataclass(frozen=True, slots=True)
class _Planned:
    """A node, made ready to run again and again."""

    node: Node
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    kind: str  # "op", "const", "pass", "native", "skip" or the op type of what calls
    attributes: tuple[Any, ...]  # as `Ops.run` takes them
    last: tuple[str, ...]  # references that nothing takes afterwards


@dataclass(slots=True)
class _Walk:
    functions: Mapping[str, Body]
    ops: Ops
    pace: Pace | None
    skimmer: Skimmer
    plans: dict[int, tuple[Body, list[_Planned]]] = field(default_factory=dict)
    skimming: dict[int, bool] = field(default_factory=dict)
    writing: dict[str, bool] = field(default_factory=dict)

    def body(self, body: Body, arguments: Sequence[Value], path: tuple[Step, ...]) -> Inward:
        values = dict(zip((a.name for a in body.args), arguments, strict=True))
        if any(node.op in V1 for node in body.nodes):
            return (yield from self._by_frames(body, values, path))
        for planned in self._plan(body):
            inputs = tuple(values[i] for i in planned.inputs)
            if planned.kind in CALLED:
                outputs = yield from self._enter(planned, inputs, path)
            elif planned.kind == "skip":
                continue
            else:
                outputs = self._run(planned, inputs, path)
                yield Visit(planned.node, path, inputs, outputs)
            values.update(zip(planned.outputs, outputs, strict=True))
            for ref in planned.last:
                del values[ref]
        return tuple(values[r.ref] for r in body.returns)

    def _run(self, planned: _Planned, inputs: Sequence[Value], path: tuple[Step, ...]) -> tuple[Value, ...]:
        tensors = [value.tensor for value in inputs]
        try:
            found = self.ops.run(planned.node, planned.kind, planned.attributes, tensors, len(planned.outputs))
        except tf.errors.OpError as error:  # an op that runs alone does not say which one it is
            said = _ALONE.sub("", error.message)
            raise type(error)(None, None, f"{{{{node {_full_name(planned.node, path)}}}}} {said}") from error
        return tuple(Value(tensor) for tensor in found)

    # ------------------------------------------------------------------------------------------ control flow

    def _by_frames(self, body: Body, values: Mapping[str, Value], path: tuple[Step, ...]) -> Inward:
        """A body with loops or conditions of control flow v1."""
        plan = {planned.node.name: planned for planned in self._plan(body)}
        frames = Frames([p.node for p in plan.values()], values, [r.ref for r in body.returns], _is_true)
        while (due := frames.next()) is not None:
            planned = plan[due.node.name]
            within = (*path, *(Step(frame, "frame", iteration) for frame, iteration in due.tag))
            if planned.kind in CALLED:
                outputs = yield from self._enter(planned, due.inputs, within)
            else:
                outputs = self._run(planned, due.inputs, within)
                yield Visit(due.node, within, due.inputs, outputs)
            frames.give(due, outputs)
        return tuple(frames.returned[r.ref] if r.ref in frames.returned else values[r.ref] for r in body.returns)

    def _enter(self, planned: _Planned, inputs: tuple[Value, ...], path: tuple[Step, ...]) -> Inward:
        node = planned.node
        if planned.kind.endswith("While"):
            return (yield from self._loop(node, inputs, path))
        if planned.kind.endswith("PartitionedCall"):
            return (yield from self.body(self._named(node, "f"), inputs, (*path, Step(node.name, "call"))))
        if planned.kind.endswith("If"):
            taken = "then_branch" if truth(inputs[0].tensor) else "else_branch"
            part = taken.removesuffix("_branch")
            return (yield from self.body(self._named(node, taken), inputs[1:], (*path, Step(node.name, part))))
        branches = node.attr["branches"].list.func
        index = int(inputs[0].tensor.numpy())
        index = index if 0 <= index < len(branches) else len(branches) - 1
        body = self.functions[branches[index].name]
        return (yield from self.body(body, inputs[1:], (*path, Step(node.name, f"branch {index}"))))

    def _loop(self, node: Node, state: tuple[Value, ...], path: tuple[Step, ...]) -> Inward:
        condition, body = self._named(node, "cond"), self._named(node, "body")
        iteration = 0
        while True:
            if self.pace is not None and self._can_skim(node):
                target = self.pace.target(node, path, iteration, state)
                if target is not None and target > iteration:
                    tensors = [value.tensor for value in state]
                    watch = self.pace.watches()
                    found = self.skimmer.run(node, tensors, iteration, target, watch=watch)
                    after = tuple(Value(tensor) for tensor in found.state)
                    self.pace.arrived(state, after, node, found.iteration - iteration)
                    state, iteration = after, found.iteration
                    if found.ended:
                        return state
            (go_on,) = yield from self.body(condition, state, (*path, Step(node.name, "cond", iteration)))
            if not truth(go_on.tensor):
                return state
            state = yield from self.body(body, state, (*path, Step(node.name, "body", iteration)))
            iteration += 1

    def _can_skim(self, node: Node) -> bool:
        """Whether a loop, run in one piece, does what it does op by op."""
        if id(node) not in self.skimming:
            bodies = [self._named(node, key) for key in ("cond", "body")]
            plain = bodies[0].returns[0].dtype == types_pb2.DT_BOOL and all(self._is_plain(body) for body in bodies)
            self.skimming[id(node)] = plain
        return self.skimming[id(node)]

    def _is_plain(self, body: Body) -> bool:
        return all(self._is_plain_node(node) for node in body.nodes)

    def _is_plain_node(self, node: Node) -> bool:
        if node.op in CALLED:
            return all(self._is_plain(self.functions[name]) for name in functions_named(node))
        watched = node.op in V1 or kind_of(node) == "pass" or op_def(node.op).is_stateful
        return not watched and not any(dtype in COMPLEX for _, dtype in output_refs(node))

    def _named(self, node: Node, key: str) -> Body:
        return self.functions[node.attr[key].func.name]

    # ------------------------------------------------------------------------------------------ preparation

    def _plan(self, body: Body) -> list[_Planned]:
        if id(body) not in self.plans:
            self.plans[id(body)] = (body, self._planned(body))
        return self.plans[id(body)][1]

    def _planned(self, body: Body) -> list[_Planned]:
        nodes = self._live(body)
        outputs = [tuple(ref for ref, _ in output_refs(node)) for node in nodes]
        last: list[list[str]] = [[] for _ in nodes]
        seen = {r.ref for r in body.returns}
        for k in range(len(nodes) - 1, -1, -1):
            if kind_of(nodes[k]) != "skip":
                for ref in (*data_inputs(nodes[k]), *outputs[k]):
                    if ref not in seen:
                        seen.add(ref)
                        last[k].append(ref)
        return [
            _Planned(n, tuple(data_inputs(n)), refs, kind_of(n), attributes_of(n), tuple(gone))
            for n, refs, gone in zip(nodes, outputs, last, strict=True)
            if kind_of(n) != "skip"
        ]

    def _live(self, body: Body) -> list[Node]:
        """The nodes that what is returned or kept takes, and those that change variables, in an order that runs."""
        writing = tuple(node.name for node in body.nodes if self._writes(node))
        return topological(prune(replace(body, kept=(*body.kept, *writing))))

    def _writes(self, node: Node) -> bool:
        """Whether running a node may change a variable."""
        if node.op in CALLED:
            return any(self._body_writes(name) for name in functions_named(node))
        return is_write(node)

    def _body_writes(self, name: str) -> bool:
        if name not in self.writing:
            self.writing[name] = False
            self.writing[name] = any(self._writes(node) for node in self.functions[name].nodes)
        return self.writing[name]


def _is_true(value: Value) -> bool:
    return truth(value.tensor)


def truth(tensor: Any) -> bool:
    """What TensorFlow's conditionals and loops take a tensor for: itself, or whether it holds anything."""
    value = tensor.numpy()
    return bool(value) if tensor.shape.rank == 0 else value.size > 0
