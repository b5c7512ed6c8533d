"""Tensors held at their base value while the inputs move: stop_gradient and stop_gradients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from gradcheck._graph.nodes import (
    CALLED,
    Node,
    control_inputs,
    copy_node,
    data_inputs,
    make_node,
    output_refs,
    set_inputs,
)
from gradcheck._graph.program import Argument, Body, Program, Return, fresh_name, redirect, topological
from gradcheck._graph.randomness import PARAMETRIC

_STOPS = PARAMETRIC | {"StopGradient"}
_CONDITIONALS = ("If", "StatelessIf", "Case", "StatelessCase")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldProgram:
    """A program with arguments for what is held, and where their base values are found."""

    program: Program
    names: tuple[str, ...]  # the arguments that were added, at the end
    sources: tuple[Return, ...]  # references in the unheld main body whose base values they take


def hold(program: Program, moving: Iterable[str], refs: Iterable[str] = (), *, stem: str = "held") -> HeldProgram:
    """The program with held tensors turned into arguments.

    Held are the outputs of every `tf.stop_gradient` that depends on something moving, and `refs`. A loop or a
    conditional that holds something inside runs its base values along: it takes them as further inputs, and what
    is held in it is read from that second computation.

    Args:
        program: What to rewrite; nested calls should be inlined.
        moving: Names of the arguments, and references, whose values will change between runs.
        refs: References in the main body to hold besides.
        stem: What the names of the arguments that are added begin with.
    """
    body = program.main
    wanted = list(refs)
    moved, stops, paired = _scan(program, set(moving), set(wanted))
    types = {ref: dtype for node in body.nodes for ref, dtype in output_refs(node)}
    types.update({a.name: a.dtype for a in body.args})
    held = [*dict.fromkeys([*wanted, *stops])]
    work = _Pairing(program.functions)
    sources = {ref: f"{stem}_{k}" for k, ref in enumerate(held)}
    # Base values have arguments of their own: an inner x is held so that it can be moved, and its base is not.
    bases: dict[str, str] = {}
    nodes = [_paired_call(n, bases, moved, work, f"{stem}_base") if n.name in paired else n for n in body.nodes]
    changed = redirect(replace(body, nodes=tuple(nodes)), sources)
    added = [*sources.items(), *bases.items()]
    arguments = [Argument(name, types[ref]) for ref, name in added]
    return HeldProgram(
        program=Program(
            main=replace(changed, args=(*body.args, *arguments)), functions={**program.functions, **work.made}
        ),
        names=tuple(name for _, name in added),
        sources=tuple(Return(ref, types[ref]) for ref, _ in added),
    )


def _scan(program: Program, moved: set[str], held: set[str]) -> tuple[set[str], list[str], set[str]]:
    """What moves, which stops to hold in the main body, and which nodes hold something inside."""
    stops: list[str] = []
    paired: set[str] = set()
    moved = set(moved)
    order = topological(program.main)
    # What moves only in a later iteration of a loop of control flow v1 is met in another round.
    order *= 1 + sum(node.op == "LoopCond" for node in order)
    for node in order:
        if not any(i in moved for i in data_inputs(node)):
            continue
        outputs = [ref for ref, _ in output_refs(node)]
        if node.op in _STOPS:
            stops += [ref for ref in outputs if ref not in held]
            continue
        if node.op in CALLED and _holds(node, program.functions):
            paired.add(node.name)
        moved.update(ref for ref in outputs if ref not in held)
    return moved, stops, paired


def _holds(node: Node, library: Mapping[str, Body], seen: frozenset[str] = frozenset()) -> bool:
    for name in _functions(node):
        if name in library and name not in seen:
            for inner in library[name].nodes:
                if inner.op in _STOPS or (inner.op in CALLED and _holds(inner, library, seen | {name})):
                    return True
    return False


def held_inside(node: Node, library: Mapping[str, Body]) -> list[str]:
    """Names of the stops inside the functions that a node calls."""
    found = []
    for name in _functions(node):
        for inner in library[name].nodes if name in library else ():
            if inner.op in _STOPS:
                found.append(inner.name)
            elif inner.op in CALLED:
                found += held_inside(inner, library)
    return found


def _functions(node: Node) -> list[str]:
    names = []
    for key in CALLED.get(node.op, ()):
        value = node.attr[key]
        names += [f.name for f in value.list.func] if value.WhichOneof("value") == "list" else [value.func.name]
    return names


# ------------------------------------------------------------------------- base values along the moving ones


@dataclass(slots=True)
class _Pairing:
    functions: Mapping[str, Body]
    made: dict[str, Body] = field(default_factory=dict)
    names: dict[tuple[str, bool], str] = field(default_factory=dict)


def _paired_call(node: Node, bases: dict[str, str], moved: set[str], work: _Pairing, stem: str) -> Node:
    """The call in the main body, taking the base values of its inputs as further arguments."""
    ins = data_inputs(node)
    offset = min(CALLED[node.op].values()) if node.op in _CONDITIONALS else 0
    base = []
    for ref in ins[offset:]:
        base.append(bases.setdefault(ref, f"{stem}_{len(bases)}") if ref in moved else ref)
    return _double(node, ins, base, work)


def _double(node: Node, ins: list[str], base: list[str], work: _Pairing) -> Node:
    copy = copy_node(node)
    set_inputs(copy, [*ins, *base], control_inputs(node))
    for key in CALLED[node.op]:
        value = copy.attr[key]
        only_moving = key == "cond"
        for func in value.list.func if value.WhichOneof("value") == "list" else [value.func]:
            func.name = _paired_function(func.name, only_moving, work)
    for key in ("T", "Tin", "Tout"):
        if key in copy.attr and not (key == "T" and not node.op.endswith("While")):
            types = list(copy.attr[key].list.type)
            copy.attr[key].list.type.extend(types)
    if "output_shapes" in copy.attr:
        shapes = list(copy.attr["output_shapes"].list.shape)
        copy.attr["output_shapes"].list.shape.extend(shapes)
    return copy


def _paired_function(name: str, only_moving: bool, work: _Pairing) -> str:
    key = (name, only_moving)
    if key not in work.names:
        work.names[key] = fresh_name("paired")
        work.made[work.names[key]] = _pair(work.functions[name], only_moving, work)
    return work.names[key]


def _pair(body: Body, only_moving: bool, work: _Pairing) -> Body:
    """The body computing moving values and base values side by side, stops reading from the base."""
    suffix, taken = "_base", {part.name for part in (*body.args, *body.nodes)}
    while any(f"{name}{suffix}" in taken for name in taken):  # the body was paired before
        suffix += "_base"
    base_args = tuple(Argument(f"{a.name}{suffix}", a.dtype) for a in body.args)
    if only_moving:
        return replace(body, args=(*body.args, *base_args))
    base = {a.name: b.name for a, b in zip(body.args, base_args, strict=True)}
    nodes: list[Node] = []
    for node in body.nodes:
        if node.op in CALLED and _holds(node, work.functions):
            ins = data_inputs(node)
            offset = min(CALLED[node.op].values()) if node.op in _CONDITIONALS else 0
            nodes.append(_double(node, ins, [base.get(i, i) for i in ins[offset:]], work))
            refs = [ref for ref, _ in output_refs(node)]
            both = [ref for ref, _ in output_refs(nodes[-1])]
            base.update(dict(zip(refs, both[len(refs) :], strict=True)))
            continue
        twin = copy_node(node)
        twin.name = f"{node.name}{suffix}"
        set_inputs(twin, [base.get(i, i) for i in data_inputs(node)], control_inputs(node))
        base.update(dict(zip([r for r, _ in output_refs(node)], [r for r, _ in output_refs(twin)], strict=True)))
        nodes.append(twin)
        if node.op in _STOPS:
            held = make_node("Identity", node.name, [output_refs(twin)[0][0]], T=output_refs(twin)[0][1])
            nodes.append(held)
        else:
            nodes.append(node)
    returns = (*body.returns, *(Return(base.get(r.ref, r.ref), r.dtype) for r in body.returns))
    return replace(body, args=(*body.args, *base_args), nodes=tuple(nodes), returns=returns)
