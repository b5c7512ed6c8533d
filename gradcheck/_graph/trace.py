"""The tracing of a function, with its gradients, into one program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck._graph import quantiles, structure
from gradcheck._graph.differentiate import Fault, differentiate
from gradcheck._graph.evaluate import Runner, returning
from gradcheck._graph.inline import inline_calls
from gradcheck._graph.nodes import called_functions, output_refs
from gradcheck._graph.program import Argument, Body, Program, Return, from_func_graph, redirect
from gradcheck._graph.randomness import UNREPEATABLE, freeze_randomness, with_seed
from gradcheck._graph.values import Values, is_symbolic
from gradcheck._graph.variables import feed_variables
from gradcheck._results import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradients:
    """The arguments of `tf.gradients`, as what a checked function may return instead of its outputs.

    Attributes:
        ys: A tensor, or a list of tensors, to differentiate; with several, the sum is differentiated.
        xs: A tensor or variable, or a list of them, to differentiate with respect to. Any tensor that the
            function made will do: an input, an intermediate, a constant.
        grad_ys: None, or a list with one cotangent (or None) per tensor of `ys`, of the same shape.
        stop_gradients: Tensors to treat as constants.
        unconnected_gradients: "none" or "zero": what TensorFlow gives where ys do not depend on an x.

    Example:
        >>> import gradcheck, tensorflow as tf
        >>> def build(a):
        ...     b = 2 * a
        ...     return gradcheck.Gradients(ys=a + b, xs=[a, b], stop_gradients=[a, b])
        >>> gradcheck.check_gradients(build, tf.constant(0.0)).verdict
        <Verdict.MATCH: 'the analytic gradient agrees with the numeric one'>

    Reference: TensorFlow API documentation, `tf.gradients`.
    """

    ys: Any
    xs: Any
    grad_ys: Any = None
    stop_gradients: Any = None
    unconnected_gradients: str = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Something that gradients are taken with respect to: an argument of the program, or a tensor inside it."""

    path: str
    shape: tuple[int, ...]
    dtype: Any  # tf.DType
    argument: str | None = None  # name of the argument that holds it
    ref: str | None = None  # reference to it, where it is no argument
    variable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Something that is differentiated: one tensor or, as `tf.gradients` sums, several."""

    path: str
    returns: tuple[int, ...]  # positions among what the program returns
    cotangents: tuple[str, ...]  # names of the arguments that hold the cotangents, one per tensor
    given: tuple[Any, ...]  # cotangents that the user gave (None where not)
    sliced: tuple[tuple[int, ...] | None, ...]  # per x: positions of the gradient, or of its values and indices
    faults: Mapping[int, Fault] = field(default_factory=dict)  # per x, why TensorFlow could not use a gradient


@dataclass(frozen=True, slots=True)
class Slope:
    """A derivative along one direction: what a tape sees of it, and what differences say, with their error."""

    analytic: float
    numeric: float
    error: float

    @property
    def allowed(self) -> float:
        return 10 * self.error + 0.02 * max(abs(self.analytic), abs(self.numeric))

    @property
    def is_off(self) -> bool:
        return abs(self.analytic - self.numeric) > self.allowed


@dataclass(frozen=True, slots=True)
class Outside:
    """A variable whose value enters as a constant.

    Attributes:
        variable: The variable.
        place: Where it enters; an op of type "Variable", or "Constant" where it only looks like something of it.
        slopes: Of each output, where a tape sees some of the ways from the variable, and not all.
    """

    variable: Any
    place: Place
    slopes: tuple[Slope, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """A function traced once, with its gradients: what every question is answered from."""

    name: str
    program: Program  # returns: all outputs, then the parts of the gradients, then `stops` and inner xs
    values: Mapping[str, Any]  # argument -> its value; cotangents have none
    outputs: tuple[Output, ...]
    sources: tuple[Source, ...]
    stops: tuple[str, ...]  # references given as stop_gradients
    skipped: tuple[str, ...]  # inputs that have no derivative
    notes: tuple[str, ...]
    graph: Any  # the FuncGraph: for places in the user's code, and to keep Python functions alive
    fed: tuple[str, ...] = ()  # arguments of the placeholders, in the order of the feeds
    captured: tuple[tuple[Any, str], ...] = ()  # what was captured from outside, with its argument
    session: Values | None = None  # what reads the variables of a graph of the user's, where a session has them
    outside: Mapping[str, Outside] = field(default_factory=dict)  # by path, variables whose values enter as constants
    compiled: dict[Any, Any] = field(default_factory=dict)  # what was made of the program so far, by key


def with_values(
    traced: Traced, feeds: Sequence[Any], externals: Sequence[Any], values: Values, given: Sequence[Any]
) -> Traced:
    """The same trace at other values.

    Args:
        traced: What was traced before.
        feeds: Values of the placeholders.
        externals: What a new trace of the same function captured; those that the gradient captured besides stay.
        values: Where the values of what is captured come from.
        given: Per output, the cotangents that the user gave.
    """
    held = dict(zip(traced.fed, feeds, strict=True))
    captured = [(e, name) for e, (_, name) in zip(externals, traced.captured, strict=False)]
    captured += traced.captured[len(externals) :]
    held.update({name: values.value(external) for external, name in captured})
    outputs = tuple(replace(o, given=tuple(g)) for o, g in zip(traced.outputs, given, strict=True))
    return replace(traced, values=held, captured=tuple(captured), outputs=outputs)


def place_inputs(graph: Any, inputs: Any, path: str) -> tuple[Any, list[tuple[str, Any, Any]], list[str]]:
    """The inputs with a placeholder for each continuous leaf.

    Returns:
        The structure to call the function with; for each continuous leaf its path, the tensor or variable in the
        graph, and its value; and the leaves that pass through as they are, each with its dtype.
    """
    found: list[tuple[str, Any, Any]] = []
    skipped: list[str] = []
    paths = iter(structure.leaves(inputs, path))

    def place(value: Any) -> Any:
        leaf = next(paths)
        if not structure.is_continuous(value):
            if value is not None:
                skipped.append(f"{leaf.path} ({structure.dtype_name(value)})")
            return value
        variable = structure.variable_of(value)
        if variable is not None:
            found.append((leaf.path, variable, None))
            return value
        if is_symbolic(value):
            placeholder = tf.compat.v1.placeholder(value.dtype, value.shape, name="input")
            found.append((leaf.path, placeholder, value))
            return placeholder
        array = structure.as_array(value)
        placeholder = tf.compat.v1.placeholder(array.dtype, array.shape, name="input")
        found.append((leaf.path, placeholder, array))
        return placeholder

    return structure.rebuild(inputs, place), found, skipped


@dataclass(slots=True)
class Asked:
    """What is to be differentiated, as tensors of the graph."""

    outputs: list[tuple[str, list[Any], list[Any]]]  # path, tensors that are summed, cotangents given or None
    xs: list[tuple[str, Any]]  # path, tensor or variable
    stops: list[Any]
    unconnected: str = "none"
    shown: list[list[Any]] | None = None  # per output, tensors whose values are shown in place of its own


def finish(
    graph: Any, name: str, asked: Asked, feeds: Sequence[tuple[Any, Any]], values: Values,
    skipped: Sequence[str] = (), notes: Sequence[str] = (),
) -> Traced:  # fmt: skip
    """Differentiate inside the graph and turn it into a program.

    Args:
        graph: The FuncGraph that holds everything asked for.
        name: What to call the function.
        asked: What to differentiate.
        feeds: Placeholders of the graph, with their values, or with tensors of another graph whose values they take.
        values: Where the values of captured tensors and variables come from.
        skipped: Inputs without a derivative.
        notes: What was noticed so far.
    """
    returned: list[Any] = []
    cotangent_inputs: list[Any] = []
    with graph.as_default():
        xs = [_in_graph(graph, x) for _, x in asked.xs]
        stops = [graph.capture(s) if isinstance(s, tf.__internal__.EagerTensor) else s for s in asked.stops]
        outputs = [
            _differentiated(graph, one, shown, xs, stops, asked.unconnected, returned, cotangent_inputs)
            for one, shown in zip(asked.outputs, asked.shown or [t for _, t, _ in asked.outputs], strict=True)
        ]
    inner_stops = len(returned)
    returned += stops
    inner_xs = len(returned)
    returned += [x for x, (_, asked_x) in zip(xs, asked.xs, strict=True) if structure.variable_of(asked_x) is None]
    program, held, at, more, dropped = settled(
        graph, returned, [*feeds, *((c, None) for c in cotangent_inputs)], values
    )
    for c in cotangent_inputs:
        del held[at[id(c)]]
    captures, names = list(graph.captures), [a.name for a in program.main.args]
    notes = [*notes, *more]
    if dropped:
        notes.append(f"left out, because it changes state: {', '.join(sorted(set(dropped))[:5])}")
    returns = program.main.returns
    inner = iter(returns[inner_xs:])
    sources = []
    for x, (path, asked_x) in zip(xs, asked.xs, strict=True):
        variable = structure.variable_of(asked_x)
        if variable is not None:
            argument = next((at[id(i)] for e, i in captures if e is variable.handle or i is x), None)
            sources.append(_of_variable(path, variable, argument))
        else:
            ref = next(inner).ref
            known = x.shape.is_fully_defined()
            shape = tuple(x.shape.as_list()) if known else _shape(program, ref, held, graph)
            sources.append(_of_tensor(path, x, shape, ref, inside=ref not in names))
    renamed = {c.op.name: at[id(c)] for c in cotangent_inputs}
    return Traced(
        name=name,
        program=program,
        values=held,
        outputs=tuple(replace(o, cotangents=tuple(renamed[c] for c in o.cotangents)) for o in outputs),
        sources=tuple(sources),
        stops=tuple(r.ref for r in returns[inner_stops:inner_xs]),
        skipped=tuple(skipped),
        notes=tuple(notes),
        graph=graph,
        fed=tuple(at[id(p)] for p, _ in feeds),
        captured=tuple((external, at[id(inner)]) for external, inner in captures),
    )


def _differentiated(
    graph: Any, one: tuple[str, list[Any], list[Any]], shown: list[Any], xs: list[Any], stops: list[Any],
    unconnected: str,
    returned: list[Any], cotangent_inputs: list[Any],
) -> Output:  # fmt: skip
    """One output with its gradients; what they return and the cotangents they take are added to the lists."""
    path, tensors, given = one
    first = len(returned)
    returned += shown
    cotangents = [tf.compat.v1.placeholder(t.dtype, t.shape, name="cotangent") for t in tensors]
    cotangent_inputs += cotangents
    built = differentiate(graph, tensors, xs, cotangents, stops, unconnected)
    return Output(
        path=path,
        returns=tuple(range(first, first + len(tensors))),
        cotangents=tuple(c.op.name for c in cotangents),
        given=tuple(given),
        sliced=tuple(_add_parts(g, returned) for g in built.gradients),
        faults=built.faults,
    )


def _of_variable(path: str, variable: Any, argument: str | None) -> Source:
    shape, dtype = tuple(variable.shape.as_list()), variable.dtype.base_dtype
    return Source(path=path, shape=shape, dtype=dtype, argument=argument, variable=True)


def _of_tensor(path: str, x: Any, shape: tuple[int, ...], ref: str, *, inside: bool) -> Source:
    argument, ref_inside = (None, ref) if inside else (ref, None)
    return Source(path=path, shape=shape, dtype=x.dtype.base_dtype, argument=argument, ref=ref_inside)


def settled(
    graph: Any, returned: Sequence[Any], feeds: Sequence[tuple[Any, Any]], values: Values
) -> tuple[Program, dict[str, Any], dict[int, str], list[str], tuple[str, ...]]:
    """The program that returns some tensors of a FuncGraph, with variables fed and random ops frozen.

    Returns:
        The program; the values of its arguments; the name of the argument for each input of the graph, by its id;
        notes; and names of ops that were left out.
    """
    captures = list(graph.captures)
    feeds = [*feeds, *getattr(graph, "feeds", ())]
    graph.inputs = [p for p, _ in feeds] + [inner for _, inner in captures]
    graph.outputs = list(returned)
    program = from_func_graph(graph)
    at = {id(tensor): a.name for tensor, a in zip(graph.inputs, program.main.args, strict=True)}
    values.read([*(v for _, v in feeds if is_symbolic(v)), *(external for external, _ in captures)])
    held = {at[id(p)]: values.value(v) if is_symbolic(v) else v for p, v in feeds}
    program, notes, dropped = _settle(program, held, captures, at, values)
    return _hold_draws(program, held, graph), held, at, notes, dropped


def _hold_draws(program: Program, held: dict[str, Any], graph: Any) -> Program:
    """The program with what stateful random ops draw, that have no stateless twin, fed with one draw of theirs."""
    main = program.main
    drawn = [(ref, dtype) for node in main.nodes if node.op in UNREPEATABLE for ref, dtype in output_refs(node)]
    if not drawn:
        return program
    returns = tuple(Return(ref, dtype) for ref, dtype in drawn)
    seeded = replace(main, nodes=tuple(with_seed(node) for node in main.nodes), returns=returns, kept=())
    runner = Runner(returning(program, seeded), alive=graph)
    draws = runner.run([held.get(a.name) for a in runner.program.main.args])
    arguments = tuple(Argument(f"drawn_{k}", dtype) for k, (_, dtype) in enumerate(drawn))
    held.update({a.name: draw for a, draw in zip(arguments, draws, strict=True)})
    fed = redirect(main, {ref: a.name for (ref, _), a in zip(drawn, arguments, strict=True)})
    return Program(main=replace(fed, args=(*fed.args, *arguments)), functions=program.functions)


def _shape(program: Program, ref: str, held: Mapping[str, Any], graph: Any) -> tuple[int, ...]:
    """The shape that a value has at the base point."""
    if ref in held:
        return tuple(np.shape(held[ref]))
    wanted = next(r for r in program.main.returns if r.ref == ref)
    runner = Runner(returning(program, replace(program.main, returns=(wanted,), kept=())), alive=graph)
    return tuple(np.shape(runner.run([held.get(a.name) for a in runner.program.main.args])[0]))


def _in_graph(graph: Any, x: Any) -> Any:
    variable = structure.variable_of(x)
    if variable is not None:
        return variable
    return graph.capture(x) if isinstance(x, tf.__internal__.EagerTensor) else x


def _add_parts(gradient: Any, returned: list[Any]) -> tuple[int, ...] | None:
    if gradient is None:
        return None
    parts = [gradient.values, gradient.indices] if isinstance(gradient, tf.IndexedSlices) else [gradient]
    returned += parts
    return tuple(range(len(returned) - len(parts), len(returned)))


def _settle(
    program: Program, held: dict[str, Any], captures: Sequence[tuple[Any, Any]], at: Mapping[int, str], values: Values
) -> tuple[Program, list[str], tuple[str, ...]]:
    """Variables fed, random ops frozen, calls inlined, assertions kept; the values of captures are added to `held`."""
    program = freeze_randomness(inline_calls(program, keep_compiled=True))
    notes = [quantiles.NOTE] if quantiles.follows(program) else []
    program = quantiles.follow_quantiles(program)
    handles: dict[str, int] = {}
    for external, inner in captures:
        name = at[id(inner)]
        dtype = values.variable_dtype(external)
        held[name] = values.value(external)
        if dtype is not None:
            handles[name] = dtype.as_datatype_enum
    kept = tuple(node.name for node in program.main.nodes if _asserts(node, program))
    program = Program(main=replace(program.main, kept=kept), functions=program.functions)
    writes = _writes(program.main, handles)
    program, dropped = feed_variables(program, handles)
    if writes:
        notes.append(
            f"the function assigns variables ({writes} assignment{'s' if writes > 1 else ''}); they keep their values: "
            "within the check an assignment is followed, not carried out"
        )
    return program, notes, dropped


def _asserts(node: Any, program: Program) -> bool:
    """Whether a node is an assertion, or the conditional around one."""
    if node.op in ("If", "StatelessIf"):
        bodies = [program.functions[name] for name, _ in called_functions(node) if name in program.functions]
        return any(inner.op == "Assert" for body in bodies for inner in body.nodes)
    return bool(node.op == "Assert")


def _writes(body: Body, handles: Mapping[str, int]) -> int:
    return sum(node.op.startswith("Assign") and node.op.endswith("VariableOp") for node in body.nodes)


__all__ = ["Asked", "Gradients", "Output", "Source", "Traced", "finish", "place_inputs", "settled"]
