"""What a function writes to variables: which writes can wait until its end, and which are to be taken back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from gradcheck._graph.nodes import (
    CALLED,
    Node,
    control_inputs,
    copy_node,
    data_inputs,
    make_node,
    node_of,
    output_refs,
    set_inputs,
)
from gradcheck._graph.program import Body, Program, redirect, topological

_READS = ("ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VarIsInitializedOp", "VariableShape",
          "DisableCopyOnRead")  # fmt: skip
_SAME_HANDLE = ("Identity", "DisableCopyOnRead")
_ASSIGN = "AssignVariableOp"
_CHANGES = {"AssignAddVariableOp": "AddV2", "AssignSubVariableOp": "Sub"}
_SCATTERS = {  # op -> the position of what it writes
    "ResourceScatterAdd": 2, "ResourceScatterSub": 2, "ResourceScatterUpdate": 2,
    "ResourceScatterNdAdd": 2, "ResourceScatterNdSub": 2, "ResourceScatterNdUpdate": 2,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferred:
    """A write that was taken out of a body, to be done at its end.

    Attributes:
        argument: The argument of the body that is the variable's handle.
        node: The write. Its first input is the handle.
        written: The reference to what it writes: a new value, or what is added or subtracted.
    """

    argument: str
    node: Node
    written: str

    @property
    def kind(self) -> str:
        """What is written: a "value", a "change" that is added or subtracted, or something for some "rows"."""
        return "value" if self.node.op == _ASSIGN else "change" if self.node.op in _CHANGES else "rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A variable whose writes stay where they are: its value is read before the first and after the last."""

    argument: str
    dtype: int
    before: str  # reference to the value before all writes
    after: str  # reference to the value behind them


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A body that is ready to be made conditional."""

    body: Body
    deferred: tuple[Deferred, ...]
    restored: tuple[Restored, ...]

    @property
    def arguments(self) -> list[str]:
        """The handles of all variables that are written."""
        return [*(d.argument for d in self.deferred), *(r.argument for r in self.restored)]


@dataclass(slots=True)
class _Touches:
    """The nodes that use one variable, in an order that runs; and which of them write."""

    nodes: list[Node] = field(default_factory=list)
    writers: set[str] = field(default_factory=set)

    @property
    def later(self) -> list[Node]:
        """The nodes behind the first one that writes."""
        first = next(k for k, n in enumerate(self.nodes) if n.name in self.writers)
        return self.nodes[first + 1 :]


def plan_writes(program: Program, variables: Mapping[str, int], *, defer: bool) -> Plan:
    """Decide for each variable that a program writes how its old value can be kept.

    A write of the main body waits where later reads of the variable can be given the value that it will have; it
    costs nothing then. All other writes are done at once, and the value that was there before is held on to.

    Args:
        program: The program; its main body is looked at, called bodies as far as they write.
        variables: For each argument of the main body that is a variable's handle, the type of its values.
        defer: False leaves all writes where they are.
    """
    body = program.main
    touches, handles = _touches(program, variables)
    editing = _Editing(body, handles)
    for argument, touched in touches.items():
        if not touched.writers:
            continue
        if not (defer and _can_wait(touched)):
            editing.restore(argument, variables[argument], touched)
        elif not any(n.op == "ReadVariableOp" for n in touched.later) and len(touched.writers) == 1:
            editing.defer(argument, next(n for n in touched.nodes if n.name in touched.writers))
        else:
            editing.follow(argument, variables[argument], touched)
    return editing.finished()


def _touches(program: Program, variables: Mapping[str, int]) -> tuple[dict[str, _Touches], dict[str, str]]:
    handles = {name: name for name in variables}
    touches = {name: _Touches() for name in variables}
    for node in topological(program.main):
        for position, ref in enumerate(data_inputs(node)):
            if ref not in handles:
                continue
            variable = handles[ref]
            if node.op in _SAME_HANDLE:
                handles.update({output: variable for output, _ in output_refs(node)})
                continue
            if not touches[variable].nodes or touches[variable].nodes[-1] is not node:
                touches[variable].nodes.append(node)
            if _writes(node, position, program.functions):
                touches[variable].writers.add(node.name)
    return touches, handles


def _writes(node: Node, position: int, functions: Mapping[str, Body]) -> bool:
    """Whether a node writes to the variable whose handle is its input at that position."""
    if node.op in _READS:
        return False
    if node.op not in CALLED:
        return True
    for key, offset in CALLED[node.op].items():
        value = node.attr[key]
        for called in value.list.func if value.WhichOneof("value") == "list" else [value.func]:
            if called.name not in functions:
                return True
            body = functions[called.name]
            if position >= offset and _writes_argument(body, body.args[position - offset].name, functions):
                return True
    return False


def _writes_argument(body: Body, argument: str, functions: Mapping[str, Body]) -> bool:
    handles = {argument}
    for node in topological(body):
        for position, ref in enumerate(data_inputs(node)):
            if ref in handles:
                if node.op in _SAME_HANDLE:
                    handles |= {output for output, _ in output_refs(node)}
                elif _writes(node, position, functions):
                    return True
    return False


def _can_wait(touched: _Touches) -> bool:
    writers = [n for n in touched.nodes if n.name in touched.writers]
    if len(writers) == 1 and writers[0].op in _SCATTERS:
        return not any(n.op not in ("VariableShape", "VarIsInitializedOp") for n in touched.later)
    simple = all(n.op == _ASSIGN or n.op in _CHANGES for n in writers)
    return simple and all(
        n.name in touched.writers or n.op in ("ReadVariableOp", "VariableShape", "VarIsInitializedOp")
        for n in touched.later
    )


class _Editing:
    """A body while its writes are moved."""

    def __init__(self, body: Body, handles: Mapping[str, str]) -> None:
        self._body = body
        self._handles = handles
        self._gone: set[str] = set()  # nodes that are taken out
        self._waits: dict[str, list[str]] = {}  # node -> the reads that it has to wait for
        self._added: list[Node] = []
        self._refs: dict[str, str] = {}
        self._deferred: list[Deferred] = []
        self._restored: list[Restored] = []

    def defer(self, argument: str, node: Node) -> None:
        """Take a write out, as it is."""
        position = _SCATTERS.get(node.op, 1)
        self._gone.add(node.name)
        self._deferred.append(Deferred(argument=argument, node=node, written=data_inputs(node)[position]))

    def follow(self, argument: str, dtype: int, touched: _Touches) -> None:
        """Take writes out, and let later reads see what was to be written; one assignment remains, at the end."""
        current = ""
        for node in touched.nodes:
            if node.name in touched.writers:
                self._gone.add(node.name)
                given = data_inputs(node)[1]
                if node.op != _ASSIGN:
                    old = current or self._read(f"{node.name}/gradcheck_old", argument, dtype, [])
                    new = make_node(_CHANGES[node.op], f"{node.name}/gradcheck_new", [old, given], T=dtype)
                    self._added.append(new)
                    given = f"{new.name}:z:0"
                current = given
            elif node.op == "ReadVariableOp" and current:
                self._gone.add(node.name)
                self._refs[f"{node.name}:value:0"] = current
        assign = make_node(_ASSIGN, f"{argument}/gradcheck_assign", [argument, current], dtype=dtype)
        self._deferred.append(Deferred(argument=argument, node=assign, written=current))

    def restore(self, argument: str, dtype: int, touched: _Touches) -> None:
        """Leave writes where they are, between two reads."""
        before = self._read(f"{argument}/gradcheck_before", argument, dtype, [])
        after = self._read(f"{argument}/gradcheck_after", argument, dtype, sorted(touched.writers))
        for writer in touched.writers:
            self._waits.setdefault(writer, []).append(f"^{node_of(before)}")
        self._restored.append(Restored(argument=argument, dtype=dtype, before=before, after=after))

    def _read(self, name: str, argument: str, dtype: int, behind: Sequence[str]) -> str:
        self._added.append(make_node("ReadVariableOp", name, [argument, *(f"^{n}" for n in behind)], dtype=dtype))
        return f"{name}:value:0"

    def finished(self) -> Plan:
        nodes = []
        for node in [*self._body.nodes, *self._added]:
            if node.name in self._gone:
                continue
            control = [c for c in control_inputs(node) if node_of(c) not in self._gone]
            control += self._waits.get(node.name, [])
            if control != control_inputs(node):
                node = copy_node(node)
                set_inputs(node, data_inputs(node), control)
            nodes.append(node)
        kept = tuple(k for k in self._body.kept if k not in self._gone)
        resolved = {ref: self._resolved(ref) for ref in self._refs}
        body = redirect(replace(self._body, nodes=tuple(nodes), kept=kept), resolved)
        deferred = tuple(
            replace(d, node=self._settled(d.node), written=self._resolved(d.written)) for d in self._deferred
        )
        return Plan(body=body, deferred=deferred, restored=tuple(self._restored))

    def _resolved(self, ref: str) -> str:
        while ref in self._refs:
            ref = self._refs[ref]
        return ref

    def _settled(self, node: Node) -> Node:
        """The write with its inputs as they are in the edited body, waiting for nothing."""
        copy = copy_node(node)
        set_inputs(copy, [self._resolved(self._handles.get(i, i)) for i in data_inputs(node)], [])
        return copy
