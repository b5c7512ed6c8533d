"""Variables, turned from things that are read into values that are fed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tensorflow.core.framework import types_pb2

from gradcheck._graph.nodes import (
    CALLED,
    Node,
    beside,
    control_inputs,
    copy_node,
    data_inputs,
    make_node,
    node_of,
    output_refs,
    set_inputs,
)
from gradcheck._graph.program import RESOURCE, Argument, Body, Program, Return, fresh_name, reached_library

_READS = {"ReadVariableOp": "Identity", "ResourceGather": "GatherV2", "ResourceGatherNd": "GatherNd"}
_ASSIGNS = {"AssignVariableOp": None, "AssignAddVariableOp": "AddV2", "AssignSubVariableOp": "Sub"}
_PASSES = ("Enter", "Exit", "Merge", "NextIteration", "Switch")  # control flow v1 hands handles on through these
_FUNCTION_ARGS = {"If": "Tin", "StatelessIf": "Tin", "Case": "Tin", "StatelessCase": "Tin", "While": "T",
                  "StatelessWhile": "T", "PartitionedCall": "Tin", "StatefulPartitionedCall": "Tin"}  # fmt: skip


@dataclass(slots=True)
class _Rewriting:
    """What is known while one program is rewritten."""

    functions: Mapping[str, Body]
    made: dict[str, Body] = field(default_factory=dict)
    names: dict[tuple[str, tuple[tuple[int, int], ...]], str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)  # names of the ops that write and were left out


def feed_variables(program: Program, variables: Mapping[str, int]) -> tuple[Program, tuple[str, ...]]:
    """The program with variables as arguments that hold their values.

    An assignment in the main body is followed: later reads see the assigned value. An assignment inside a loop
    or a branch, and any other op that writes, is left out. Nothing in the result changes state through the
    variables that were fed.

    Args:
        program: What to rewrite; nested calls should be inlined.
        variables: For each argument of the main body that is a variable's handle, the type of its values.

    Returns:
        The rewritten program, and the names of the ops whose writing was left out.
    """
    work = _Rewriting(program.functions)
    main = _feed(program.main, variables, work, follow=True)
    library = {**program.functions, **work.made}
    return reached_library(Program(main=main, functions=library)), tuple(work.dropped)


def _feed(body: Body, variables: Mapping[str, int], work: _Rewriting, *, follow: bool) -> Body:
    if not variables:
        return body
    variables = dict(variables)
    current = {name: name for name in variables}  # the value that a read sees now
    handle = {name: name for name in variables}  # reference -> the argument that it is the handle of
    refs: dict[str, str] = {}
    gone: set[str] = set()
    nodes: list[Node] = []
    for node in body.nodes:
        ins = data_inputs(node)
        held = [handle.get(i) for i in ins]
        if not any(held):
            nodes.append(node)
            continue
        variable = next(v for v in held if v)
        if node.op in ("Identity", "DisableCopyOnRead"):
            gone.add(node.name)
            handle.update({ref: variable for ref, _ in output_refs(node)})
        elif node.op in _PASSES:
            nodes.append(_pass_on(node, ins, current, handle, variables[variable]))
            inside = {ref: ref for ref, dtype in output_refs(node) if dtype == RESOURCE}
            current.update(inside)
            handle.update(inside)
            variables.update(dict.fromkeys(inside, variables[variable]))
        elif node.op in _FUNCTION_ARGS:
            nodes.append(_feed_call(node, held, variables, work))
            if node.op.endswith("While"):
                handle.update({f"{node.name}:output:{k}": v for k, v in enumerate(held) if v})
        elif node.op in _ASSIGNS and follow:
            gone.add(node.name)
            value, extra = _assigned(node, ins, current[variable], variables[variable])
            nodes += extra
            current[variable] = value
        else:
            new = _read(node, ins, current[variable], variables[variable])
            if new:
                nodes += new
                if node.op not in ("VarIsInitializedOp", "VariableShape"):
                    refs[f"{node.name}:{_output_name(node)}:0"] = f"{node.name}:{_output_name(new[-1])}:0"
            else:
                gone.add(node.name)
                work.dropped.append(node.name)
    return _finish(body, nodes, refs, gone, variables, handle)


def _finish(
    body: Body, nodes: list[Node], refs: dict[str, str], gone: set[str], variables: Mapping[str, int],
    handle: Mapping[str, str],
) -> Body:  # fmt: skip
    result = []
    for node in nodes:
        if any(i in refs or (i.startswith("^") and node_of(i) in gone) or handle.get(i, i) != i for i in node.input):
            node = copy_node(node)
            data = [refs.get(i, handle.get(i, i)) for i in data_inputs(node)]
            set_inputs(node, data, [i for i in control_inputs(node) if node_of(i) not in gone])
        result.append(node)
    args = tuple(replace(a, dtype=variables.get(a.name, a.dtype)) for a in body.args)
    returns = []
    for value in body.returns:
        ref = refs.get(value.ref, handle.get(value.ref, value.ref))
        returns.append(Return(ref, variables.get(handle.get(value.ref, ""), value.dtype)))
    return replace(
        body,
        args=args,
        nodes=tuple(result),
        returns=tuple(returns),
        kept=tuple(k for k in body.kept if k not in gone),
    )


def _pass_on(node: Node, ins: list[str], current: Mapping[str, str], handle: Mapping[str, str], dtype: int) -> Node:
    """The node handing on a variable's value in place of its handle."""
    copy = copy_node(node)
    copy.attr["T"].type = dtype
    set_inputs(copy, [current[handle[i]] if i in handle else i for i in ins], control_inputs(node))
    return copy


def _output_name(node: Node) -> str:
    return output_refs(node)[0][0].split(":")[1]


def _assigned(node: Node, ins: list[str], current: str, dtype: int) -> tuple[str, list[Node]]:
    combine = _ASSIGNS[node.op]
    if combine is None:
        return ins[1], []
    new = make_node(combine, f"{node.name}/assigned", [current, ins[1]], T=dtype)
    return f"{new.name}:z:0", [new]


def _read(node: Node, ins: list[str], current: str, dtype: int) -> list[Node]:
    """The nodes that stand for one that reads a variable, or [] for one that writes."""
    control = control_inputs(node)
    if node.op == "VarIsInitializedOp":
        new = make_node("Const", node.name, control, dtype=types_pb2.DT_BOOL)
        new.attr["value"].tensor.dtype = types_pb2.DT_BOOL
        new.attr["value"].tensor.tensor_shape.SetInParent()
        new.attr["value"].tensor.bool_val.append(True)
        return [new]
    if node.op == "VariableShape":
        out = node.attr["out_type"].type or types_pb2.DT_INT32
        return [make_node("Shape", node.name, [current, *control], T=dtype, out_type=out)]
    if node.op == "ReadVariableOp":
        return [make_node("Identity", node.name, [current, *control], T=dtype)]
    if node.op == "ResourceGatherNd":
        indices = node.attr["Tindices"].type
        return [make_node("GatherNd", node.name, [current, ins[1], *control], Tparams=dtype, Tindices=indices)]
    if node.op == "ResourceGather":
        return _gather(node, ins, current, dtype)
    return []


def _gather(node: Node, ins: list[str], current: str, dtype: int) -> list[Node]:
    batch = node.attr["batch_dims"].i
    axis = make_node("Const", f"{node.name}/axis", beside(ins[1]), dtype=types_pb2.DT_INT32)
    axis.attr["value"].tensor.dtype = types_pb2.DT_INT32
    axis.attr["value"].tensor.tensor_shape.SetInParent()
    axis.attr["value"].tensor.int_val.append(batch)
    gather = make_node(
        "GatherV2", node.name, [current, ins[1], f"{axis.name}:output:0", *control_inputs(node)],
        Tparams=dtype, Tindices=node.attr["Tindices"].type, Taxis=types_pb2.DT_INT32,
    )  # fmt: skip
    gather.attr["batch_dims"].i = batch
    return [axis, gather]


def _feed_call(node: Node, held: list[str | None], variables: Mapping[str, int], work: _Rewriting) -> Node:
    """The node with the functions that it calls rewritten to take values where it passes handles."""
    copy = copy_node(node)
    offset = max(CALLED[node.op].values())
    kinds = {k - offset: variables[v] for k, v in enumerate(held) if v}
    for key in CALLED[node.op]:
        attribute = copy.attr[key]
        for func in attribute.list.func if attribute.WhichOneof("value") == "list" else [attribute.func]:
            func.name = _specialised(func.name, kinds, work)
    types = copy.attr[_FUNCTION_ARGS[node.op]].list.type
    for k, dtype in kinds.items():
        types[k] = dtype
    if node.op.endswith("While"):
        for k in kinds:
            if k < len(copy.attr["output_shapes"].list.shape):
                copy.attr["output_shapes"].list.shape[k].Clear()
                copy.attr["output_shapes"].list.shape[k].unknown_rank = True
    return copy


def _specialised(name: str, kinds: Mapping[int, int], work: _Rewriting) -> str:
    key = (name, tuple(sorted(kinds.items())))
    if key not in work.names:
        body = work.functions[name]
        work.names[key] = fresh_name("fed")
        fed = {body.args[k].name: dtype for k, dtype in kinds.items() if body.args[k].dtype == RESOURCE}
        work.made[work.names[key]] = _feed(body, fed, work, follow=False)
    return work.names[key]


def handle_arguments(body: Body) -> tuple[Argument, ...]:
    """The arguments of a body that are handles of something."""
    return tuple(a for a in body.args if a.dtype == RESOURCE)
