"""Loops run in one piece: to an iteration, or to the first in which a value is not finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.python.framework import tensor_util

from gradcheck._graph.evaluate import Runner, eagerly
from gradcheck._graph.inline import inline_calls
from gradcheck._graph.nodes import (
    CALLED,
    Node,
    control_inputs,
    copy_node,
    data_inputs,
    functions_named,
    make_node,
    output_refs,
    rename_called,
    set_inputs,
)
from gradcheck._graph.program import FLOATING, Argument, Body, Program, Return, fresh_name, prune

_BOOL, _I32, _I64 = types_pb2.DT_BOOL, types_pb2.DT_INT32, types_pb2.DT_INT64
TO_THE_END = 2**62


@dataclass(frozen=True, slots=True)
class Skimmed:
    """How far a loop has come: the state before `iteration`, and whether the loop ends there."""

    iteration: int
    state: tuple[Any, ...]
    ended: bool


@dataclass(slots=True)
class Skimmer:
    """Runs the loops of a program in one piece.

    Args:
        functions: The functions that the program calls.
        alive: What must not be collected meanwhile.
    """

    functions: Mapping[str, Body]
    alive: Any = None
    _runners: dict[tuple[int, bool], tuple[Node, Runner]] = field(default_factory=dict)

    def run(self, loop: Node, state: Sequence[Any], iteration: int, target: int, *, watch: bool) -> Skimmed:
        """Run on from the state before `iteration` to that before `target`, or to the end of the loop.

        Args:
            loop: A While node, without effects, complex values or a condition that is no bool.
            state: The values that the loop carries.
            iteration: How many iterations have run.
            target: The iteration before which to stop.
            watch: Stop also before the first iteration in which an op gives NaN or an infinity.
        """
        key = (id(loop), watch)
        if key not in self._runners:
            program = _skimming(loop, self.functions, watch)
            self._runners[key] = loop, Runner(program, alive=self.alive)
        n = len(state)
        with eagerly():
            limit = tf.constant(target - iteration, tf.int64)
            found = [tf.convert_to_tensor(v) for v in self._runners[key][1].run([*state, limit])]
        count, fine, goes_on = int(found[n]), bool(found[n + 1]), bool(found[n + 2])
        if fine:
            return Skimmed(iteration + count, tuple(found[:n]), ended=not goes_on)
        if count == 1:
            return Skimmed(iteration, tuple(state), ended=False)
        # Up to there once more: to keep each state until the next is known makes every list that grows a copy.
        return self.run(loop, state, iteration, iteration + count - 1, watch=False)


def _skimming(loop: Node, functions: Mapping[str, Body], watch: bool) -> Program:
    """A program that takes a loop's state and a limit; its results are those that `Skimmer.run` takes apart."""
    types = list(loop.attr["T"].list.type)
    work = _Watching(functions)
    body_name = loop.attr["body"].func.name
    body = work.flagged(body_name, False) if watch else body_name
    cond = loop.attr["cond"].func.name
    state = [Argument(f"s{k}", t) for k, t in enumerate(types)]
    rest = [Argument("count", _I64), Argument("fine", _BOOL), Argument("limit", _I64)]
    carried = [*state, *rest]
    all_types = [a.dtype for a in carried]
    test = _call("test", cond, [a.name for a in state], types, [_BOOL])
    below = make_node("Less", "below", ["count", "limit"], T=_I64)
    first = make_node("LogicalAnd", "first", ["fine", "below:z:0"])
    both = make_node("LogicalAnd", "both", ["first:z:0", "test:output:0"])
    condition = Body(args=tuple(carried), nodes=(test, below, first, both), returns=(Return("both:z:0", _BOOL),))
    one = _constant("one", 1, _I64)
    more = make_node("AddV2", "more", ["count", "one:output:0"], T=_I64)
    step = _call("step", body, [a.name for a in state], types, [*types, *([_BOOL] if watch else [])])
    fine = f"step:output:{len(types)}" if watch else "fine"
    results = [
        *(Return(f"step:output:{k}", t) for k, t in enumerate(types)),
        Return("more:z:0", _I64), Return(fine, _BOOL), Return("limit", _I64),
    ]  # fmt: skip
    stepping = Body(args=tuple(carried), nodes=(one, more, step), returns=tuple(results))
    names = fresh_name("skim_cond"), fresh_name("skim_body")
    run = make_node(
        "While", "run",
        [*(a.name for a in state), "zero:output:0", "true:output:0", "limit"],
    )  # fmt: skip
    run.attr["T"].list.type.extend(all_types)
    run.attr["cond"].func.name, run.attr["body"].func.name = names
    run.attr["parallel_iterations"].i = 10
    run.attr["_lower_using_switch_merge"].b = True  # as tf.while_loop asks for: else each iteration is a call
    n = len(types)
    last = _call("last", cond, [f"run:output:{k}" for k in range(n)], types, [_BOOL])
    returns = [Return(f"run:output:{k}", t) for k, t in enumerate(all_types[:-1])] + [Return("last:output:0", _BOOL)]
    main = Body(
        args=(*state, rest[-1]),
        nodes=(_constant("zero", 0, _I64), _constant("true", True, _BOOL), run, last),
        returns=tuple(returns),
    )
    library = {**functions, **work.made, names[0]: condition, names[1]: stepping}
    return inline_calls(Program(main=main, functions=library), keep_compiled=False)


def _call(name: str, function: str, inputs: Sequence[str], takes: Sequence[int], gives: Sequence[int]) -> Node:
    call = make_node("StatefulPartitionedCall", name, inputs)
    call.attr["f"].func.name = function
    call.attr["Tin"].list.type.extend(takes)
    call.attr["Tout"].list.type.extend(gives)
    return call


def _constant(name: str, value: Any, dtype: int) -> Node:
    node = make_node("Const", name, [], dtype=dtype)
    node.attr["value"].tensor.CopyFrom(tensor_util.make_tensor_proto(value, dtype))
    return node


# ------------------------------------------------------------------------------------------------ watching


@dataclass(slots=True)
class _Watching:
    """Functions that return besides whether every value inside them was finite."""

    functions: Mapping[str, Body]
    made: dict[str, Body] = field(default_factory=dict)
    names: dict[tuple[str, bool], str] = field(default_factory=dict)

    def flagged(self, name: str, carried: bool) -> str:
        """The name of such a function; `carried`: as the body of a loop, which takes the flag and hands it on."""
        key = (name, carried)
        if key not in self.names:
            self.names[key] = fresh_name("watched")
            self.made[self.names[key]] = self._flag(prune(self.functions[name]), carried)
        return self.names[key]

    def _flag(self, body: Body, carried: bool) -> Body:
        nodes: list[Node] = [_constant("watch/flat", [-1], _I32), _constant("watch/axis", [0], _I32)]
        flags = ["watch/carried"] if carried else []
        for node in body.nodes:
            if node.op in CALLED:
                nodes += self._call(node, flags)
                continue
            nodes.append(node)
            for ref, dtype in output_refs(node) if node.op != "Const" else ():
                if dtype in FLOATING:
                    nodes += _finite(ref, dtype, flags)
        if not flags:
            nodes.append(_constant("watch/none", True, _BOOL))
            flags = ["watch/none:output:0"]
        total = flags[0]
        for k, flag in enumerate(flags[1:]):
            nodes.append(make_node("LogicalAnd", f"watch/and_{k}", [total, flag]))
            total = f"watch/and_{k}:z:0"
        args = (*body.args, *([Argument("watch/carried", _BOOL)] if carried else []))
        return replace(body, args=args, nodes=tuple(nodes), returns=(*body.returns, Return(total, _BOOL)))

    def _call(self, node: Node, flags: list[str]) -> list[Node]:
        """A call that returns one flag more."""
        copy = copy_node(node)
        before: list[Node] = []
        if node.op.endswith("While"):
            names = {node.attr["body"].func.name: self.flagged(node.attr["body"].func.name, True)}
            rename_called(copy, names)
            copy.attr["cond"].func.name = self._ignoring(node.attr["cond"].func.name)
            before = [_constant(f"{node.name}/watch", True, _BOOL)]
            set_inputs(copy, [*data_inputs(node), f"{node.name}/watch:output:0"], control_inputs(node))
            copy.attr["T"].list.type.append(_BOOL)
            if copy.attr["output_shapes"].list.shape:
                copy.attr["output_shapes"].list.shape.add()
        else:
            rename_called(copy, {name: self.flagged(name, False) for name in functions_named(node)})
            copy.attr["Tout"].list.type.append(_BOOL)
            if copy.attr["output_shapes"].list.shape:
                copy.attr["output_shapes"].list.shape.add()
        flags.append(f"{node.name}:output:{len(output_refs(node))}")
        return [*before, copy]

    def _ignoring(self, name: str) -> str:
        """The condition of a loop, taking a flag that it does not look at."""
        body = self.functions[name]
        made = fresh_name("watched_cond")
        self.made[made] = replace(body, args=(*body.args, Argument("watch/carried", _BOOL)))
        return made


def _finite(ref: str, dtype: int, flags: list[str]) -> list[Node]:
    stem = f"watch/{ref.replace(':', '_')}"
    test = make_node("IsFinite", f"{stem}/finite", [ref], T=dtype)
    flat = make_node("Reshape", f"{stem}/flat", [f"{test.name}:y:0", "watch/flat:output:0"], T=_BOOL, Tshape=_I32)
    every = make_node("All", f"{stem}/all", [f"{flat.name}:output:0", "watch/axis:output:0"], Tidx=_I32)
    flags.append(f"{every.name}:output:0")
    return [test, flat, every]
