"""The ops and custom gradients through which an output depends on inputs, each with the values that it had."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck._errors import GraphUnavailable
from gradcheck._graph import structure
from gradcheck._graph.evaluate import RUN_ERRORS
from gradcheck._graph.nodes import output_refs
from gradcheck._graph.provenance import operation, users_frame
from gradcheck._graph.questions import Question, plain_name
from gradcheck._graph.regions import Region, gradient_function, gradient_name, is_library, is_region, region_of
from gradcheck._graph.rerun import Rerun, of_traced
from gradcheck._graph.trace import Traced
from gradcheck._graph.values import Values
from gradcheck._graph.visit import Step, Value, Visit

_MEMORY = 2**31  # bytes of values that are kept
_NO_GRADIENT = frozenset({"StopGradient", "PreventGradient", "Const", "Placeholder"})
_LISTS = ("TensorList", "EmptyTensorList")
# They hand on gradients as they are.
_PLAIN = frozenset({"Identity", "ReadVariableOp", "Reshape", "Squeeze", "ExpandDims", "Snapshot"})


@dataclass(slots=True, eq=False)
class Frame:
    """One run of one body: the values of the tensors of its graph, by their names."""

    path: tuple[Step, ...]
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Unit:
    """An op, or a custom gradient, that has a gradient to be checked.

    Attributes:
        op: The op in its graph; of a custom gradient, the one that gives the results.
        name: Its full name, as places are looked up by.
        region: The custom gradient, or None.
        xs: What it is differentiated with respect to: tensors of its graph, and variables.
        inside: Names of the ops that it consists of, besides `op`: those of a custom gradient, or those that made the
            list of tensors that the op reads.
        reached: Positions of the traced function's sources that come in, by the name of the x that they come in by.
        frames: Where it ran; several times in a loop.
        read: Names of the tensors of its graph that something reads, gradients left aside.
        trusted: Whether its gradient is TensorFlow's own.
        session: What reads the variables inside, where a session has them.
    """

    op: Any
    name: str
    region: Region | None
    xs: tuple[Any, ...]
    inside: frozenset[str]
    reached: dict[str, set[int]]
    frames: list[Frame]
    read: set[str]
    trusted: bool
    session: Values | None = None

    @property
    def op_type(self) -> str:
        """What it is called in a report."""
        return "custom_gradient" if self.region is not None else str(self.op.type)

    @property
    def inputs(self) -> tuple[Any, ...]:
        """What it takes, in order, whether it comes from a source or not."""
        return self.region.arguments if self.region is not None else tuple(self.op.inputs)

    def question(self, frame: Frame, *, of_all: bool = False) -> Question:
        """The gradient of what it gives, as a question to be traced and checked, at the values of a frame.

        With `of_all`, the gradient with respect to every input of a floating or complex dtype.
        """
        inside = {*self.inside, self.op.name}
        if self.region is not None and self.region.variables:  # read once more where its results come out
            inside |= {t.op.name for t in self.op.inputs[-len(self.region.variables) :]}
        others = [t for t in self.inputs if _is_continuous(t) and t.name in frame.values] if of_all else []
        xs = tuple({id(x): x for x in (*self.xs, *others)}.values())
        given = {id(x) for x in xs}
        fed = {
            name: np.asarray(value.numpy())
            for name, value in frame.values.items()
            if _op_name(name) not in inside or any(id(x) in given and x.name == name for x in xs)
        }
        outputs = self.region.outputs if self.region is not None else self.op.outputs
        # What nothing reads need not even be set, such as the vectors where eigenvalues alone are asked for.
        returned = {id(t) for t in getattr(self.op.graph, "outputs", ())}
        taken = [t for t in outputs if t.name in self.read or id(t) in returned]
        ys = tuple(t for t in taken or outputs if _is_continuous(t))
        return Question(
            graph=self.op.graph,
            ys=ys,
            xs=xs,
            names=tuple(map(plain_name, xs)),
            grad_ys=(None,) * len(ys),
            stops=(),
            unconnected="none",
            values=self.session or Values(None, {}),
            fed=fed,
            has_session=self.session is not None,
            alone=True,
        )


def units_of(traced: Traced, output: int, sources: Sequence[int]) -> tuple[list[Unit], tuple[str, ...]]:
    """What lies between some sources and an output, in the order in which it ran.

    Args:
        traced: The function.
        output: Which of its outputs.
        sources: Which of its sources.

    Returns:
        The units, and the types of ops that are none although a gradient passes, such as those on lists of tensors.

    Raises:
        GraphUnavailable: If the program cannot be run op by op.
    """
    positions = traced.outputs[output].returns
    rerun = of_traced(traced, positions, [traced.outputs[output].path] * len(positions), {})
    walk = _Walk(traced, sources)
    return walk.over(rerun), tuple(sorted(walk.others))


@dataclass(slots=True)
class _Walk:
    traced: Traced
    sources: Sequence[int]
    frames: dict[tuple[Any, ...], Frame] = field(default_factory=dict)
    ops: dict[tuple[str, str], Any] = field(default_factory=dict)
    units: dict[int, Unit] = field(default_factory=dict)
    regions: dict[int, Region] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    read: dict[int, set[str]] = field(default_factory=dict)  # names of tensors that are read, by the id of their graph
    bytes: int = 0

    def over(self, rerun: Rerun) -> list[Unit]:
        values, visits = rerun.start()
        labels = {a.name: value for a, value in zip(rerun.program.main.args, values, strict=True)}
        inner = {}
        for k in self.sources:
            source = self.traced.sources[k]
            if source.argument in labels:
                labels[source.argument].note = {k, *(labels[source.argument].note or ())}
            elif source.ref is not None:
                inner[source.ref] = k
        try:
            for visit in visits:
                self._see(visit, inner)
        except RUN_ERRORS as error:
            raise GraphUnavailable(f"the function fails when it is run op by op: {str(error)[:200]}") from error
        return [unit for unit in self.units.values() if unit.frames]

    def _see(self, visit: Visit, inner: Mapping[str, int]) -> None:
        op = self._op(visit)
        reached: set[int] = set().union(*(v.note or () for v in visit.inputs))
        if op is not None:
            reached = self._noted(op, visit, reached)
        elif visit.node.op in _NO_GRADIENT:
            reached = set()
        for k, value in enumerate(visit.outputs):
            value.note = set(reached) or None
            ref = output_refs(visit.node)[k][0] if inner and not visit.path else None
            if ref is not None and ref in inner:
                value.note = {*(value.note or ()), inner[ref]}

    def _noted(self, op: Any, visit: Visit, reached: set[int]) -> set[int]:
        """Keep what an op took and gave, and the op itself where a gradient passes; gives what it passes on."""
        frame = self._frame(op, visit)
        self.read.setdefault(id(op.graph), set()).update(t.name for t in op.inputs)
        self._keep(frame, op.outputs, visit.outputs)
        if len(op.inputs) == len(visit.inputs):
            self._keep(frame, op.inputs, visit.inputs)
        if op.type in _NO_GRADIENT or gradient_function(op) is None:
            return set()
        if not reached or (op.type in _PLAIN and gradient_name(op) == op.type):
            return reached
        outputs = [t for t in op.outputs if _is_continuous(t)]
        xs = self._xs(op, visit)
        if not (outputs and xs) or (op.type == "EagerPyFunc" and _is_whole(op)):
            self.others.add(str(op.type))
        else:
            unit = self.units.get(id(op)) or self._unit(op, visit, xs)
            for x in xs:
                unit.reached.setdefault(plain_name(x), set()).update(self._coming(op, visit, x) or reached)
            unit.frames.append(frame)
        return reached

    def _xs(self, op: Any, visit: Visit) -> tuple[Any, ...]:
        """What an op is to be differentiated with respect to: inputs that come from sources, each once."""
        if is_region(op):
            region = self._region(op)
            notes = dict(zip((t.name for t in op.inputs), visit.inputs, strict=False))
            moving = [t for t in region.arguments if _is_continuous(t) and _noted(notes.get(t.name))]
            found = [*moving, *(v for v in region.variables if _is_continuous(v))]
        else:
            pairs = zip(op.inputs, visit.inputs, strict=False)
            found = [t for t, value in pairs if _is_continuous(t) and _noted(value)]
            found += [t for made in _list_makers(op) for t in made.inputs if _is_continuous(t)]
        return tuple({id(x): x for x in found}.values())

    def _coming(self, op: Any, visit: Visit, x: Any) -> set[int]:
        """The sources that come in by one x; none for a variable, which is read inside."""
        notes = (value.note for t, value in zip(op.inputs, visit.inputs, strict=False) if t is x)
        return set().union(*(note for note in notes if note))

    def _unit(self, op: Any, visit: Visit, xs: tuple[Any, ...]) -> Unit:
        region = self._region(op) if is_region(op) else None
        trusted = region.trusted if region is not None else _is_trusted(op)
        inside = region.inside if region is not None else frozenset(made.name for made in _list_makers(op))
        read = self.read.setdefault(id(op.graph), set())
        unit = Unit(op, visit.name, region, xs, inside, {}, [], read, trusted, self.traced.session)
        self.units[id(op)] = unit
        return unit

    def _region(self, op: Any) -> Region:
        if id(op) not in self.regions:
            self.regions[id(op)] = region_of(op)
        return self.regions[id(op)]

    def _op(self, visit: Visit) -> Any:
        key = visit.name, visit.node.op
        if key not in self.ops:
            found = operation(self.traced.graph, visit.name, visit.node.op)
            fits = found is not None and len(found.outputs) == len(visit.outputs)
            self.ops[key] = found if fits else None
        return self.ops[key]

    def _frame(self, op: Any, visit: Visit) -> Frame:
        prefix = visit.name.removesuffix(op.name)
        key = visit.path, prefix, id(op.graph)
        if key not in self.frames:
            self.frames[key] = Frame(visit.path)
        return self.frames[key]

    def _keep(self, frame: Frame, tensors: Sequence[Any], values: Sequence[Value]) -> None:
        for tensor, value in zip(tensors, values, strict=True):
            given = value.tensor
            if (
                tensor.name in frame.values
                or given.dtype != tensor.dtype
                or given.dtype.name in ("resource", "variant")
            ):
                continue
            size = given.dtype.size * int(np.prod(given.shape)) if given.dtype.name != "string" else 0
            if self.bytes + size <= _MEMORY:
                self.bytes += size
                frame.values[tensor.name] = given


def _noted(value: Value | None) -> bool:
    return value is not None and bool(value.note)


def _list_makers(op: Any) -> list[Any]:
    """The ops of its graph that made the lists of tensors that an op reads: a list has no value to be moved alone."""
    found: dict[str, Any] = {}
    pending = [t for t in op.inputs if t.dtype == tf.variant]
    while pending:
        made = pending.pop().op
        if made.name not in found:
            found[made.name] = made
            pending += [t for t in made.inputs if t.dtype == tf.variant]
    known = all(made.type.startswith(_LISTS) for made in found.values())
    return list(found.values()) if known else []


def _op_name(tensor_name: str) -> str:
    return tensor_name.rpartition(":")[0]


def _is_continuous(x: Any) -> bool:
    return x.dtype.base_dtype in structure.CONTINUOUS


def _is_trusted(op: Any) -> bool:
    """Whether an op's gradient is TensorFlow's own, of an op that is no Python of the user's."""
    return op.type != "EagerPyFunc" and is_library(gradient_function(op))


def _is_whole(op: Any) -> bool:
    """Whether an op is a function of the user's that could not be traced, and runs as one."""
    return users_frame(op) is None


def enclosing(unit: Unit, units: Sequence[Unit]) -> Iterator[Unit]:
    """The custom gradients inside of which a unit lies."""
    for other in units:
        if other.region is not None and other.op.graph is unit.op.graph and unit.op.name in other.region.inside:
            yield other
