"""The end of a guarded step: where it is decided whether what was written stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

from gradcheck._graph.finite import COUNTED, amounts, census, extents
from gradcheck._graph.nodes import data_inputs, input_types
from gradcheck._graph.program import CONTINUOUS
from gradcheck._graph.values import variable_type
from gradcheck._graph.writes import Deferred, Plan


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the step's body that the decision needs: the reference to it, and what it is."""

    ref: str
    dtype: Any
    shape: Any = None

    @property
    def is_checked(self) -> bool:
        return self.dtype.as_datatype_enum in CONTINUOUS

    @property
    def spec(self) -> Any:
        return tf.TensorSpec(self.shape, self.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Something that a guarded step looks at: an output of it, or what it writes to a variable.

    Attributes:
        kind: "output", "guarded" (marked by `mark`), "change" (what is added to a variable, or subtracted), "value"
            (what a variable will hold) or "rows" (what is written to some rows of it).
        at: The position of the output, of the node, or of the variable's handle among the inputs of the step.
        value: What is looked at.
        owner: The position of the variable among those that are written; None for what is not written.
    """

    kind: str
    at: int
    value: Value
    owner: int | None = None


_MARK = "_gradcheck_guarded"


def mark(tensor: Any, name: str) -> None:
    """Put a name on a tensor of a graph, so that a guarded step looks at it too."""
    copy = tf.identity(tensor, name="gradcheck_guarded")
    copy.op._set_attr(_MARK, attr_value_pb2.AttrValue(s=name.encode()))


class Ending:
    """What is looked at behind a step, and what follows from it.

    Args:
        plan: The step, with the writes that wait and those to be taken back.
        inputs, outputs: The tensors of the step's graph.
        compiled: Whether XLA compiles the step: the values that variables have behind it are read outside of it then.
        more: Further values to look at, with names.
        rectified: Outputs of rectifiers, of which it is told which units gave something.

    Attributes:
        compiled: As given.
        items: What is looked at.
        marks: Names of what is marked, by the position of the node.
        before: For each variable whose writes are taken back, the value before them.
    """

    def __init__(
        self,
        plan: Plan,
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        *,
        compiled: bool,
        more: Sequence[tuple[str, Value]] = (),
        rectified: Sequence[Value] = (),
    ) -> None:
        self._plan, self.compiled = plan, compiled
        self._rectified = list(rectified)
        self._variables = {
            a.name: known
            for a, t in zip(plan.body.args, inputs, strict=True)
            if (known := variable_type(t)) is not None
        }
        at = {a.name: k for k, a in enumerate(plan.body.args)}
        self.before = [self._of_variable(r.argument, r.before) for r in plan.restored]
        self._given = [self._inputs(d) for d in plan.deferred]
        self._handles = [
            *(Value(r.argument, tf.resource, ()) for r in plan.restored),
            *(Value(d.argument, tf.resource, ()) for d in plan.deferred),
        ]
        marked = {k: node for k, node in enumerate(plan.body.nodes) if _MARK in node.attr}
        self.marks = {k: node.attr[_MARK].s.decode() for k, node in marked.items()}
        found = [
            Item(kind="output", at=k, value=Value(r.ref, t.dtype, t.shape))
            for k, (r, t) in enumerate(zip(plan.body.returns, outputs, strict=True))
            if t.shape.rank == 0
        ]
        found += [
            Item(kind="guarded", at=k, value=Value(f"{node.name}:output:0", tf.as_dtype(node.attr["T"].type)))
            for k, node in marked.items()
        ]
        for k, (name, value) in enumerate(more, start=len(plan.body.nodes)):
            self.marks[k] = name
            found.append(Item(kind="guarded", at=k, value=value))
        found += [
            Item(kind="value", at=at[r.argument], value=self._of_variable(r.argument, r.after), owner=k)
            for k, r in enumerate(plan.restored)
        ]
        for k, (d, given) in enumerate(zip(plan.deferred, self._given, strict=True), start=len(plan.restored)):
            written = next(v for v in given if v.ref == d.written)
            found.append(Item(kind=d.kind, at=at[d.argument], value=written, owner=k))
        self.items = tuple(item for item in found if item.value.is_checked)

    def _of_variable(self, argument: str, ref: str) -> Value:
        shape, dtype = self._variables[argument]
        return Value(ref, dtype, shape)

    def _inputs(self, deferred: Deferred) -> list[Value]:
        """What a write takes besides the handle."""
        shape = self._variables[deferred.argument][0] if deferred.kind != "rows" else None
        pairs = zip(data_inputs(deferred.node)[1:], input_types(deferred.node)[1:], strict=True)
        return [Value(ref, tf.as_dtype(dtype), shape) for ref, dtype in pairs]

    @property
    def taken(self) -> list[Value]:
        """The values that the decision takes, in order; under XLA one vector of flags besides, in front."""
        checked = [i.value for i in self.items if i.owner is None or not self.compiled]
        every = [*checked, *self._rectified, *self.before, *(v for g in self._given for v in g), *self._handles]
        return list({v.ref: v for v in every}.values())

    def traced(self) -> Any:
        """The decision as a ConcreteFunction of `taken`.

        It returns whether all is well, amounts, counts, changes and units, as `Outcome` has them.
        """
        flags = [tf.TensorSpec([len(self.items)], tf.bool)] if self.compiled else []
        function = tf.function(self._decide, autograph=False)
        return function.get_concrete_function(*flags, *(v.spec for v in self.taken))

    def _decide(self, *tensors: Any) -> tuple[Any, ...]:
        flags, tensors = (tensors[0], tensors[1:]) if self.compiled else (None, tensors)
        at = dict(zip((v.ref for v in self.taken), tensors, strict=True))
        if flags is None:
            sums = amounts([at[item.value.ref] for item in self.items])
        else:
            sums = tf.where(flags, tf.zeros([], tf.float64), tf.constant(float("nan"), tf.float64))
        # Before the decision, behind which variables hold other values.
        changes = tf.concat([extents(self._changes(at)), amounts(self._changed(at))[:, None]], 1)
        units = [_gave(at[value.ref]) for value in self._rectified]
        with tf.control_dependencies([changes]):
            healthy, counts = tf.cond(
                tf.reduce_all(tf.math.is_finite(sums)), lambda: (self._keep(at), self._none()), lambda: self._look(at)
            )
        return healthy, sums, counts, changes, tf.concat(units, 0) if units else tf.zeros([0], tf.bool)

    def _none(self) -> Any:
        return tf.zeros([len(self.items), len(COUNTED)], tf.int64)

    def _look(self, at: Mapping[str, Any]) -> tuple[Any, Any]:
        """Decide by exact counts."""
        counts = self._counts(at)
        sound = tf.reduce_all(tf.equal(counts[:, COUNTED.index("new")], 0))
        with tf.control_dependencies([counts]):
            return tf.cond(sound, lambda: self._keep(at), lambda: self._take_back(at)), counts

    def _changes(self, at: Mapping[str, Any]) -> list[Any]:
        return [at[item.value.ref] for item in self.items if item.kind == "change"]

    def _changed(self, at: Mapping[str, Any]) -> list[Any]:
        """The variables that the changes are for, as they are before."""
        return [self._now(item, at) for item in self.items if item.kind == "change"]

    def _now(self, item: Item, at: Mapping[str, Any]) -> Any:
        """What the variable of an item holds."""
        handle = self._handles[item.owner or 0]
        return tf.raw_ops.ReadVariableOp(resource=at[handle.ref], dtype=item.value.dtype)

    def _keep(self, at: Mapping[str, Any]) -> Any:
        """Do what waited."""
        writes = [_write(d, [at[v.ref] for v in g], at) for d, g in zip(self._plan.deferred, self._given, strict=True)]
        with tf.control_dependencies(writes):
            return tf.constant(True)

    def _take_back(self, at: Mapping[str, Any]) -> Any:
        """Give variables that were written the value that they had before."""
        writes = [tf.raw_ops.AssignVariableOp(resource=at[r.argument], value=at[r.before]) for r in self._plan.restored]
        with tf.control_dependencies(writes):
            return tf.constant(False)

    def _counts(self, at: Mapping[str, Any]) -> Any:
        found = [self._count(item, at) for item in self.items]
        return tf.stack(found) if found else self._none()

    def _count(self, item: Item, at: Mapping[str, Any]) -> Any:
        if item.owner is None or (item.kind == "rows" and item.owner >= len(self.before)):
            given = [at[item.value.ref]]
        elif item.owner < len(self.before):  # the writes are done: what the variable holds is new
            given = [self._now(item, at), at[self.before[item.owner].ref]]
        else:
            given = [at[item.value.ref], self._now(item, at)]
        return _traced_census(given[0].dtype, len(given))(*given)


@cache
def _traced_census(dtype: Any, count: int) -> Any:
    """`census` as one op, traced once for all variables of a dtype, with or without their old values."""
    with tf.init_scope():
        return tf.function(census, autograph=False).get_concrete_function(*[tf.TensorSpec(None, dtype)] * count)


def _gave(output: Any) -> Any:
    """For each unit, the last axis, whether it gave something other than 0 anywhere."""
    return tf.reduce_any(tf.not_equal(output, 0), range(output.shape.rank - 1))


def _write(deferred: Deferred, given: Sequence[Any], at: Mapping[str, Any]) -> Any:
    """The write, as an op of the graph that is being traced."""
    graph = tf.compat.v1.get_default_graph()
    inputs = [at[deferred.argument], *given]
    inputs = [graph.capture(t) for t in inputs]
    return graph.create_op(deferred.node.op, inputs, [], attrs=dict(deferred.node.attr), name="write")
