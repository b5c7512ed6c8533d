"""A program run op by op on the host, so that every value inside is seen: in calls, branches and each iteration."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf
from tensorflow.python import pywrap_tfe
from tensorflow.python.eager import context, core
from tensorflow.python.framework import tensor_util

from gradcheck._errors import GraphUnavailable
from gradcheck._graph.evaluate import Runner, eagerly
from gradcheck._graph.program import (
    CALLED,
    Argument,
    Body,
    Node,
    Program,
    Return,
    copy_node,
    data_inputs,
    functions_named,
    input_types,
    node_of,
    op_def,
    output_refs,
    reached_library,
    set_inputs,
    topological,
)

# What watches a value and raises: here the watching is ours.
_PASSES = frozenset({"CheckNumerics", "CheckNumericsV2", "DebugIdentity", "DebugIdentityV2", "DebugIdentityV3"})
# What changes variables.
_WRITES = ("Assign", "ResourceApply", "ResourceSparseApply", "ResourceScatter", "ResourceStridedSliceAssign",
           "ResourceCountUpTo", "Rng", "Stateful", "NonDeterministicInts")  # fmt: skip
# What gives another value each time, out of something of the user's.
_ONCE = ("Iterator", "MultiDeviceIterator", "QueueDequeue", "Reader", "Unstage", "Collective", "Nccl")
_V1 = frozenset({"Switch", "Merge", "Enter", "Exit", "NextIteration", "LoopCond"})


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
    part: str  # "call", "then", "else", "branch 2", "body" or "cond"
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
        return "/".join([*(step.node for step in self.path), self.node.name])


Inward = Generator[Visit, None, tuple[Value, ...]]  # visits, and in the end the values that are returned


def visit(program: Program, arguments: Sequence[Value], *, alive: Any = None) -> Inward:
    """Run a program op by op and show each op after it ran, in the order in which they ran.

    Calls, conditionals and loops are not shown themselves: what they call is entered, with the branch that is taken,
    and each iteration. A value is dropped after the last op that takes it, unless the visitor keeps it, so that memory
    is bounded by what is live in one iteration. What only acts on the world outside (prints, assertions, summaries,
    writes to tables and files) does not run; variables must be stood for by handles of copies.

    Args:
        program: Any program; nothing needs to be inlined.
        arguments: One value per argument of the main body.
        alive: What must not be collected meanwhile, such as the graph that holds Python functions.

    Returns:
        An iterator of visits; its return value (`yield from`) is the tuple of values that the main body returns.

    Raises:
        GraphUnavailable: If an op takes a value from outside that cannot be had twice, such as a data set's next.
        tf.errors.OpError: If an op fails, as it does in the user's run.
    """
    walk = _Walk(program.functions, alive)
    walk.context.ensure_initialized()
    return walk.body(program.main, list(arguments), ())


@dataclass(frozen=True, slots=True)
class _Planned:
    """A node, made ready to run again and again."""

    node: Node
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    kind: str  # "op", "const", "pass", "native", "skip" or the op type of what calls
    attributes: tuple[Any, ...]
    last: tuple[str, ...]  # references that nothing takes afterwards


@dataclass(slots=True)
class _Walk:
    functions: Mapping[str, Body]
    alive: Any
    context: Any = field(default_factory=context.context)
    plans: dict[int, tuple[Body, list[_Planned]]] = field(default_factory=dict)
    constants: dict[int, Any] = field(default_factory=dict)
    runners: dict[int, Runner] = field(default_factory=dict)
    writing: dict[str, bool] = field(default_factory=dict)

    def body(self, body: Body, arguments: Sequence[Value], path: tuple[Step, ...]) -> Inward:
        values = dict(zip((a.name for a in body.args), arguments, strict=True))
        for planned in self._plan(body):
            inputs = tuple(values[i] for i in planned.inputs)
            if planned.kind in CALLED:
                outputs = yield from self._enter(planned, inputs, path)
            elif planned.kind == "skip":
                continue
            else:
                outputs = tuple(Value(t) for t in self._run(planned, inputs))
                yield Visit(planned.node, path, inputs, outputs)
            values.update(zip(planned.outputs, outputs, strict=True))
            for ref in planned.last:
                del values[ref]
        return tuple(values[r.ref] for r in body.returns)

    # ------------------------------------------------------------------------------------------ control flow

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
            (go_on,) = yield from self.body(condition, state, (*path, Step(node.name, "cond", iteration)))
            if not truth(go_on.tensor):
                return state
            state = yield from self.body(body, state, (*path, Step(node.name, "body", iteration)))
            iteration += 1

    def _named(self, node: Node, key: str) -> Body:
        return self.functions[node.attr[key].func.name]

    # ------------------------------------------------------------------------------------------ one op

    def _run(self, planned: _Planned, inputs: Sequence[Value]) -> Sequence[Any]:
        if planned.kind == "const":
            return (self._constant(planned.node),)
        tensors = [value.tensor for value in inputs]
        if planned.kind == "pass":
            return tensors[:1]
        if planned.kind == "native":
            return self._natively(planned, tensors)
        try:
            found: list[Any] = pywrap_tfe.TFE_Py_Execute(
                self.context._handle, None, planned.node.op, tensors, planned.attributes, len(planned.outputs)
            )
        except core._NotOkStatusException as error:
            raise core._status_to_exception(error) from None
        return found

    def _constant(self, node: Node) -> Any:
        if id(node) not in self.constants:
            with eagerly():
                self.constants[id(node)] = tf.constant(tensor_util.MakeNdarray(node.attr["value"].tensor))
        return self.constants[id(node)]

    def _natively(self, planned: _Planned, tensors: Sequence[Any]) -> Sequence[Any]:
        """Run an op that calls functions which are not entered, such as one that maps over a data set."""
        node = planned.node
        if id(node) not in self.runners:
            self.runners[id(node)] = Runner(_alone(node, planned.inputs, self.functions), alive=self.alive)
        with eagerly():
            return [tf.convert_to_tensor(v) for v in self.runners[id(node)].run(tensors)]

    # ------------------------------------------------------------------------------------------ preparation

    def _plan(self, body: Body) -> list[_Planned]:
        if id(body) not in self.plans:
            self.plans[id(body)] = (body, self._planned(body))
        return self.plans[id(body)][1]

    def _planned(self, body: Body) -> list[_Planned]:
        if any(node.op in _V1 for node in body.nodes):
            raise GraphUnavailable("loops and conditions of control flow v1 cannot be looked into")
        nodes = self._live(body)
        outputs = [tuple(ref for ref, _ in output_refs(node)) for node in nodes]
        last: list[list[str]] = [[] for _ in nodes]
        seen = {r.ref for r in body.returns}
        for k in range(len(nodes) - 1, -1, -1):
            kind = _kind(nodes[k])
            if kind != "skip":
                for ref in (*data_inputs(nodes[k]), *outputs[k]):
                    if ref not in seen:
                        seen.add(ref)
                        last[k].append(ref)
        return [
            _Planned(n, tuple(data_inputs(n)), refs, _kind(n), _attributes(n), tuple(gone))
            for n, refs, gone in zip(nodes, outputs, last, strict=True)
            if _kind(n) != "skip"
        ]

    def _live(self, body: Body) -> list[Node]:
        """The nodes that what is returned or kept takes, and those that change variables, in an order that runs."""
        producers = {node.name: node for node in body.nodes}
        pending = [node_of(r.ref) for r in body.returns] + [n.name for n in body.nodes if self._writes(n)]
        pending += body.kept
        live: set[str] = set()
        while pending:
            name = pending.pop()
            if name not in live and name in producers:
                live.add(name)
                pending += [node_of(i) for i in producers[name].input]
        return [node for node in topological(body) if node.name in live]

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


def _kind(node: Node) -> str:
    if node.op in CALLED:
        return str(node.op)
    if node.op == "Const":
        return "const"
    if node.op in _PASSES:
        return "pass"
    if node.op.startswith(_ONCE):
        raise GraphUnavailable(
            f"{node.op} {node.name!r} takes its value from outside, where it cannot be had a second time; let the "
            "function take that value as an argument"
        )
    if op_def(node.op).is_stateful and not output_refs(node) and not is_write(node):
        return "skip"
    return "native" if functions_named(node) else "op"


def is_write(node: Node) -> bool:
    """Whether an op, which calls nothing, changes variables that it takes."""
    return str(node.op).startswith(_WRITES)


def truth(tensor: Any) -> bool:
    """What TensorFlow's conditionals and loops take a tensor for: itself, or whether it holds anything."""
    value = tensor.numpy()
    return bool(value) if tensor.shape.rank == 0 else value.size > 0


def _attributes(node: Node) -> tuple[Any, ...]:
    """The attributes of a node as TensorFlow's eager execution takes them: names and values in turn."""
    definition = op_def(node.op)
    flat: list[Any] = []
    for attr in definition.attr if definition is not None else ():
        if attr.name in node.attr and not functions_named(node):
            value = node.attr[attr.name]
            kind = value.WhichOneof("value")
            flat += [attr.name, _listed(value.list, attr.type) if kind == "list" else getattr(value, kind)]
    return tuple(flat)


def _listed(values: Any, kind: str) -> list[Any]:
    fields = {
        "string": "s",
        "int": "i",
        "float": "f",
        "bool": "b",
        "type": "type",
        "shape": "shape",
        "tensor": "tensor",
    }
    found = list(getattr(values, fields[kind[5:-1]]))  # kind is such as "list(type)"
    return [None if s.unknown_rank else tf.TensorShape(s).as_list() for s in found] if kind == "list(shape)" else found


def _alone(node: Node, inputs: Sequence[str], functions: Mapping[str, Body]) -> Program:
    """A program that runs one node."""
    args = tuple(Argument(f"a{k}", dtype) for k, dtype in enumerate(input_types(node)))
    copy = copy_node(node)
    set_inputs(copy, [a.name for a in args], [])
    returns = tuple(Return(ref, dtype) for ref, dtype in output_refs(node))
    return reached_library(Program(main=Body(args=args, nodes=(copy,), returns=returns), functions=functions))
