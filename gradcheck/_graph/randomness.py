"""Random ops, made to draw the same numbers in every run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tensorflow.core.framework import types_pb2

from gradcheck._graph.nodes import (
    CALLED,
    Node,
    add_inputs,
    beside,
    copy_node,
    data_inputs,
    make_node,
    output_refs,
    rename_called,
    set_inputs,
)
from gradcheck._graph.program import Argument, Body, Program, Return, called_names, fresh_name
from gradcheck._graph.stateless import STATELESS, constant, key_of, output_of, stateless

_SKIPS = ("RngReadAndSkip", "RngSkip")
FROZEN = frozenset(STATELESS) | frozenset(_SKIPS)  # the ops that `freeze_randomness` knows

# Their state is a variable.
_GENERATORS = frozenset(_SKIPS) | {
    "StatefulUniform", "StatefulStandardNormalV2", "StatefulTruncatedNormal", "StatefulUniformInt",
    "StatefulUniformFullInt", "StatefulRandomBinomial",
}  # fmt: skip

# Stateful, without a stateless twin of the same draws: one draw of theirs is fed.
UNREPEATABLE = frozenset({
    "ParameterizedTruncatedNormal", "NonDeterministicInts", "SampleDistortedBoundingBox",
    "SampleDistortedBoundingBoxV2", "AllCandidateSampler", "FixedUnigramCandidateSampler",
    "LearnedUnigramCandidateSampler", "LogUniformCandidateSampler", "ThreadUnsafeUnigramCandidateSampler",
    "UniformCandidateSampler",
})  # fmt: skip

# Their draws jump when their inputs move, and are held.
PARAMETRIC = frozenset(
    {"StatelessMultinomial", "StatelessRandomPoisson", "StatelessRandomBinomial", "StatelessShuffle"}
)

# What draws from parameters, which are held while inputs move.
FROM_PARAMETERS = PARAMETRIC | {
    "Multinomial", "RandomPoisson", "RandomPoissonV2", "StatefulRandomBinomial", "RandomShuffle", "RandomGamma",
    "StatelessRandomGammaV2", "StatelessRandomGammaV3", "StatelessParameterizedTruncatedNormal",
}  # fmt: skip

# What draws numbers, with or without a state; the gradient stops there, but for those with implicit gradients.
RANDOM = frozenset(STATELESS) | FROM_PARAMETERS | {
    "StatelessRandomUniform", "StatelessRandomUniformV2", "StatelessRandomNormal", "StatelessRandomNormalV2",
    "StatelessTruncatedNormal", "StatelessTruncatedNormalV2", "StatelessRandomUniformInt",
    "StatelessRandomUniformIntV2", "StatelessRandomUniformFullInt", "StatelessRandomUniformFullIntV2",
    "ParameterizedTruncatedNormal",
}  # fmt: skip

_I64 = types_pb2.DT_INT64
_STREAM = "draw_stream"  # the argument by which a function is told which of its calls this is
_SPREAD = 6364136223846793005  # odd, so that streams of nested loops do not meet (Knuth's MMIX multiplier)


@dataclass(slots=True)
class _Freezing:
    functions: Mapping[str, Body]
    frozen: frozenset[str]  # types of the ops that are replaced
    drawing: frozenset[str]  # functions that draw, themselves or by what they call
    made: dict[str, Body] = field(default_factory=dict)
    names: dict[tuple[str, bool], str] = field(default_factory=dict)


def freeze_randomness(program: Program, *, generators: bool = True) -> Program:
    """The program with stateful random ops replaced by stateless ones, each with a key of its own.

    Two runs then draw the same numbers, and no generator of the user's advances. The numbers are not those that
    the stateful op would have drawn next. Every call of a function and every iteration of a loop draws its own; in
    a loop of control flow v1 all iterations draw the same.

    Args:
        program: What draws.
        generators: Replace also what draws from a generator whose state is a variable.
    """
    frozen = FROZEN if generators else FROZEN - _GENERATORS
    work = _Freezing(program.functions, frozen, _drawing(program.functions, frozen))
    main = _freeze(program.main, None, work)
    plain = {name: _freeze(body, None, work) for name, body in program.functions.items()}
    return Program(main=main, functions={**plain, **work.made})


def of_generator(node: Node) -> bool:
    """Whether a node draws from a generator whose state is a variable, or moves that on."""
    return node.op in _GENERATORS


def _drawing(functions: Mapping[str, Body], frozen: frozenset[str]) -> frozenset[str]:
    found = {name for name, body in functions.items() if any(node.op in frozen for node in body.nodes)}
    while more := {name for name, body in functions.items() if called_names(body) & found} - found:
        found |= more
    return frozenset(found)


def _freeze(body: Body, stream: str | None, work: _Freezing) -> Body:
    nodes: list[Node] = []
    refs: dict[str, str] = {}
    gone: set[str] = set()
    for node in body.nodes:
        if node.op in CALLED and called_names(replace(body, nodes=(node,))) & work.drawing:
            nodes += _told(node, stream, work)
        elif node.op not in work.frozen:
            nodes.append(node)
        elif node.op in STATELESS:
            new = stateless(node, stream)
            nodes += new
            refs[output_of(node)] = output_of(new[-1])
        elif node.op == "RngSkip":
            gone.add(node.name)
        else:
            nodes += _state(node, refs, stream)
    result = []
    for node in nodes:
        if any(i in refs or i.lstrip("^") in gone for i in node.input):
            node = copy_node(node)
            set_inputs(node, [refs.get(i, i) for i in node.input if i.lstrip("^") not in gone], [])
        result.append(node)
    returns = tuple(replace(r, ref=refs.get(r.ref, r.ref)) for r in body.returns)
    return replace(body, nodes=tuple(result), returns=returns, kept=tuple(k for k in body.kept if k not in gone))


def _state(node: Node, refs: dict[str, str], stream: str | None) -> list[Node]:
    """A constant in place of the state that a generator would have given: two numbers to count with, and a key."""
    at = beside(data_inputs(node)[-1])
    key = key_of(node.name)
    if stream is None:
        new = constant(node.name, _I64, [key, 0, key], at)
        refs[output_of(node)] = output_of(new)
        return [new]
    one = constant(f"{node.name}/key", _I64, key, at)
    pack = make_node("Pack", node.name, [output_of(one), stream, output_of(one)], T=_I64)
    pack.attr["N"].i = 3
    refs[output_of(node)] = output_of(pack)
    return [one, pack]


# ---------------------------------------------------------------------------------- each call draws its own


def _told(node: Node, stream: str | None, work: _Freezing) -> list[Node]:
    """The call with a number more, which differs from call to call and from iteration to iteration."""
    copy = copy_node(node)
    loop = node.op.endswith("While")
    names = {name: _streamed(name, loop, work) for name in called_names(Body(args=(), nodes=(node,), returns=()))}
    if loop:
        names[node.attr["cond"].func.name] = _streamed(node.attr["cond"].func.name, False, work)
    rename_called(copy, names)
    at = [control for ref in data_inputs(node)[-1:] for control in beside(ref)]
    added = [constant(f"{node.name}/stream", _I64, key_of(node.name), at)]
    if stream is not None:
        spread = constant(f"{node.name}/spread", _I64, _SPREAD, [])
        product = make_node("Mul", f"{node.name}/mixed", [stream, output_of(spread)], T=_I64)
        total = make_node("AddV2", f"{node.name}/own", [output_of(product), output_of(added[0])], T=_I64)
        added += [spread, product, total]
    add_inputs(copy, [(output_of(added[-1]), _I64)])
    return [*added, copy]


def _streamed(name: str, loop: bool, work: _Freezing) -> str:
    """The function taking a stream besides; the body of a loop returns the next one."""
    key = (name, loop)
    if key not in work.names:
        work.names[key] = fresh_name("drawing")
        body = _freeze(work.functions[name], _STREAM, work)
        body = replace(body, args=(*body.args, Argument(_STREAM, _I64)))
        if loop:
            one = constant(f"{_STREAM}/one", _I64, 1, [])
            following = make_node("AddV2", f"{_STREAM}/next", [_STREAM, output_of(one)], T=_I64)
            returned = Return(output_refs(following)[0][0], _I64)
            body = replace(body, nodes=(*body.nodes, one, following), returns=(*body.returns, returned))
        work.made[work.names[key]] = body
    return work.names[key]


def with_seed(node: Node) -> Node:
    """The node with a seed of its own, if it is one that draws without a stateless twin."""
    if node.op not in UNREPEATABLE or "seed" not in node.attr:
        return node
    seeded = copy_node(node)
    seeded.attr["seed"].i = key_of(node.name) % 2**31 + 1
    seeded.attr["seed2"].i = 1
    return seeded
