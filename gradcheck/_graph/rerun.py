"""A program with everything that it takes to run it again, on copies of what it would change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager.polymorphic_function import function_type_utils

from gradcheck._graph import structure
from gradcheck._graph.drawn import given_drawn
from gradcheck._graph.evaluate import eagerly
from gradcheck._graph.kernels import KernelState, with_states
from gradcheck._graph.program import Program, from_concrete
from gradcheck._graph.provenance import Origin, origin
from gradcheck._graph.randomness import FROZEN, freeze_randomness, of_generator
from gradcheck._graph.replicas import sum_replicas
from gradcheck._graph.shadows import empty_shadow, read, shadow
from gradcheck._graph.trace import Traced
from gradcheck._graph.twin import WIDER, promote
from gradcheck._graph.values import variable_dtype
from gradcheck._graph.visit import Inward, Pace, Value, visit


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What one argument of the main body is given."""

    label: str  # what the user knows it by: "inputs[0]", "dense/kernel"
    value: Any  # an eager tensor; for a variable the value it holds, None where it was never initialized
    variable: Any = None  # the tf.DType of the variable that the argument is the handle of


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """A program at the values at which it is to run again."""

    name: str
    program: Program
    given: tuple[Given, ...]  # one per argument of the main body
    outputs: tuple[str, ...]  # what the user knows the returned values by
    origin: Callable[[str, str], Origin]  # where an op comes from, by its full name and type
    alive: Any = None
    notes: tuple[str, ...] = ()

    def start(self, pace: Pace | None = None) -> tuple[list[Value], Inward]:
        """The values of the arguments, variables being copies made now, and the visits of a run."""
        values = [Value(_fresh(each)) for each in self.given]
        return values, visit(self.program, values, alive=self.alive, pace=pace)

    def widened(self) -> Rerun:
        """The same in float64; what cannot be promoted keeps its dtype."""
        program, _ = promote(self.program, step_by_step=True)
        return replace(self, program=program, given=tuple(_wide(each) for each in self.given))


def _fresh(given: Given) -> Any:
    if given.variable is None:
        return given.value
    return empty_shadow(given.variable) if given.value is None else shadow(given.value)


def _wide(given: Given) -> Given:
    dtype = None if given.value is None else given.value.dtype
    wider = WIDER.get(dtype.as_datatype_enum) if dtype is not None else None
    if wider is None:
        return given
    with eagerly():
        value = tf.cast(given.value, tf.as_dtype(wider))
    return replace(given, value=value, variable=None if given.variable is None else tf.as_dtype(wider))


def of_traced(traced: Traced, positions: Sequence[int], labels: Sequence[str], more: Mapping[str, Any]) -> Rerun:
    """A traced function, for some of the values that its program returns.

    Args:
        traced: The function; its variables are arguments already.
        positions: Which of the returned values.
        labels: What to call them.
        more: Values of the cotangent arguments.
    """
    main = traced.program.main
    main = replace(main, returns=tuple(main.returns[p] for p in positions), kept=())
    known = {**traced.values, **more}
    paths = {s.argument: s.path for s in traced.sources if s.argument is not None}
    given = []
    with eagerly():
        for arg in main.args:
            # A cotangent of an output that is not asked for is read by nothing.
            value = tf.convert_to_tensor(known[arg.name]) if arg.name in known else None
            given.append(Given(label=paths.get(arg.name, arg.name), value=value))
    return Rerun(
        name=traced.name,
        program=Program(main=main, functions=traced.program.functions),
        given=tuple(given),
        outputs=tuple(labels),
        origin=partial(origin, traced.graph),
        alive=traced.graph,
    )


def of_concrete(
    function: Any,
    arguments: Sequence[Any],
    keywords: Mapping[str, Any] | None,
    variables: Mapping[Any, Any] | None,
    kernels: Sequence[KernelState] = (),
    drawn: Mapping[str, Any] | None = None,
) -> Rerun:
    """A concrete function at the arguments of a call, with variables as they are now or as `variables` says.

    Random kernels draw numbers of their own choice, or those that follow from the states in `kernels`.
    What its ops took from outside is given again where `drawn` has it, by reference.

    Raises:
        TypeError, ValueError: If the arguments are not those of the function, or a value is not one of its variable.
    """
    if not hasattr(function, "captured_inputs") or not hasattr(function, "function_def"):
        raise TypeError(
            "function must be a ConcreteFunction, as tf.function(step).get_concrete_function(...) gives it; found "
            f"{type(function).__name__}"
        )
    before = _before(variables)
    with eagerly():
        flat = [*_flat(function, list(arguments), dict(keywords or {})), *function.captured_inputs]
    names = {id(v.handle): v.name.removesuffix(":0") for v in function.graph.variables if hasattr(v, "handle")}
    program = from_concrete(function)
    paths = dict(zip((a.name for a in program.main.args), _input_paths(function), strict=False))
    if kernels:
        program, kernels = with_states(program, kernels)
        flat += [state.variable.handle for state in kernels]
        names |= {id(state.variable.handle): f"random state of {state.label}" for state in kernels}
    if drawn:
        main, flat = given_drawn(program.main, flat, drawn)
        program = replace(program, main=main)
    labels = [a.name for a in program.main.args]
    numbers = {n: int(v) for n, v in zip(labels, flat, strict=True) if v.dtype == tf.int32 and v.shape.rank == 0}
    program = sum_replicas(program, numbers)
    known = [paths.get(label, label) for label in labels]
    given = tuple(_given(label, value, names, before) for label, value in zip(known, flat, strict=True))
    nodes = [n for body in (program.main, *program.functions.values()) for n in body.nodes]
    frozen = sorted({n.op for n in nodes if n.op in FROZEN and not of_generator(n)})
    return Rerun(
        name=function.graph.name,
        program=freeze_randomness(program, generators=False),
        given=given,
        outputs=_output_paths(function),
        origin=partial(origin, function.graph),
        alive=function,
        notes=(f"{', '.join(frozen)} drew other numbers than in the step itself",) if frozen else (),
    )


def with_variables(rerun: Rerun, values: Sequence[Given]) -> Rerun:
    """The same with other values of its variables, one each, in order."""
    following = iter(values)
    given = tuple(replace(g, value=next(following).value) if g.variable is not None else g for g in rerun.given)
    return replace(rerun, given=given)


def _before(variables: Mapping[Any, Any] | None) -> dict[int, Any]:
    """Values by the identity of the handle of their variable."""
    found = {}
    for key, value in (variables or {}).items():
        variable = structure.variable_of(key.deref() if hasattr(key, "deref") else key)
        if variable is None:
            raise TypeError(
                "variables must map variable.ref() to a value, found a key of type "
                f"{type(key).__name__}; write {{v.ref(): value for v, value in ...}}"
            )
        if tuple(np.shape(value)) != tuple(variable.shape) and variable.shape.is_fully_defined():
            raise ValueError(
                f"variables must give {variable.name!r} a value of shape {tuple(variable.shape)}, found shape "
                f"{tuple(np.shape(value))}"
            )
        found[id(variable.handle)] = value
    return found


def _flat(function: Any, arguments: list[Any], keywords: dict[str, Any]) -> list[Any]:
    """The flat tensors of a call, as ConcreteFunction itself tells them from its arguments."""
    own = [t.dtype for t in function.inputs[: len(function.inputs) - len(function.captured_inputs)]]
    try:
        named = {**_defaults(function, len(arguments)), **keywords}
        bound = function_type_utils.canonicalize_function_inputs(arguments, named, function.function_type)
        flat = list(function.function_type.unpack_inputs(bound))
    except (TypeError, ValueError) as error:
        if keywords or [getattr(a, "dtype", None) for a in arguments] != own:
            raise TypeError(
                f"arguments must be those of {function.graph.name}, {function.function_type}; found "
                f"{', '.join(structure.dtype_name(a) for a in arguments) or 'none'}: {str(error).splitlines()[0][:200]}"
            ) from error
        flat = arguments
    return [tf.convert_to_tensor(value) for value in flat]


def _defaults(function: Any, count: int) -> dict[str, Any]:
    """What a call with so many positional arguments leaves to defaults: values of Python's, which a trace holds."""
    left = list(function.function_type.parameters.items())[count:]
    return {name: p.type_constraint.value for name, p in left if type(p.type_constraint).__name__ == "Literal"}


def _given(label: str, value: Any, names: Mapping[int, str], before: Mapping[int, Any]) -> Given:
    dtype = variable_dtype(value)
    if dtype is None:
        return Given(label=label, value=value)
    name = names.get(id(value), label)
    if id(value) in before:
        with eagerly():
            return Given(label=name, value=tf.convert_to_tensor(before[id(value)], dtype), variable=dtype)
    return Given(label=name, value=read(value, dtype), variable=dtype)


def _input_paths(function: Any) -> list[str]:
    """What the user knows the tensors by that a call takes, in order; none where that cannot be told."""
    args, kwargs = function.structured_input_signature
    named = [*zip(function.function_type.parameters, args, strict=False), *kwargs.items()]
    paths = {id(leaf.value): leaf.path for name, part in named for leaf in structure.leaves(part, name)}
    specs = [s for s in tf.nest.flatten([part for _, part in named]) if isinstance(s, tf.TensorSpec)]
    taken = len(function.inputs) - len(function.captured_inputs)
    return [paths[id(s)] for s in specs] if len(specs) == taken and all(id(s) in paths for s in specs) else []


def _output_paths(function: Any) -> tuple[str, ...]:
    structured = function.structured_outputs
    several = isinstance(structured, (list, tuple, Mapping))
    paths = {id(leaf.value): leaf.path for leaf in structure.leaves(structured, "outputs" if several else "output")}
    flat = [t for t in tf.nest.flatten(structured, expand_composites=True) if t is not None]
    count = len(function.outputs)
    if len(flat) != count:
        return tuple(f"outputs[{k}]" for k in range(count))
    return tuple(paths.get(id(t), f"outputs[{k}]") for k, t in enumerate(flat))
