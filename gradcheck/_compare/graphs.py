"""A loss, its variables and their optimizers, brought from a `tf.Graph` and its session to where ops run at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from gradcheck._compare.foreign import key_of
from gradcheck._graph.structure import variable_of

_VARIABLES = ("VarHandleOp", "VariableV2", "Variable")
_MADE_ANEW = ("_t", "_tensor")  # endings of attributes that an optimizer fills before each step


class Brought:
    """What a graph says, at the values that its session has; the graph and the session are only read.

    Args:
        loss: A tensor of the graph, or a callable that gives it.
        variables: Those that are trained.

    Raises:
        TypeError, ValueError: If there is no session, a variable has no value, or the loss is no tensor of the graph,
            or one that needs more than variables and constants.
    """

    def __init__(self, loss: Any, variables: Sequence[Any]) -> None:
        graph: Any = tf.compat.v1.get_default_graph()
        self._graph, self._session = graph, _session_of(graph)
        tensor = loss() if callable(loss) else loss
        if not tf.is_tensor(tensor) or getattr(tensor, "graph", None) is not self._graph:
            raise TypeError(f"loss must be a tensor of the graph, or a callable that gives one; got {tensor!r}")
        self._loss, self._ops = tensor, _behind(tensor.op)
        self._definition = graph.as_graph_def()
        self._trained = [variable_of(v) for v in variables]
        for i, variable in enumerate(self._trained):
            if getattr(variable, "graph", None) is not graph:
                raise ValueError(f"variables must be of the default graph, as loss is; number {i} is not")
        known = {v.op.name: v for v in (*tf.compat.v1.global_variables(), *tf.compat.v1.local_variables())}
        known |= {v.op.name: v for v in self._trained}
        read = [op.name for op in self._ops if op.type in _VARIABLES]
        if unknown := [name for name in read if name not in known]:
            raise ValueError(
                f"loss reads {unknown[0]!r}, which is in no collection of the graph: add it to GLOBAL_VARIABLES"
            )
        names = {*read, *(v.op.name for v in self._trained)}
        self._values = dict(zip(names, self._run([known[name] for name in names]), strict=True))

    def eagerly(self) -> tuple[Callable[[], Any], list[Any]]:
        """The loss as a callable, and the variables, both eager; to be called where ops run at once."""
        made = {name: tf.Variable(value, name=name) for name, value in self._values.items()}
        wanted = {op.name for op in self._ops}
        definition = tf.compat.v1.GraphDef(library=self._definition.library, versions=self._definition.versions)
        definition.node.extend(node for node in self._definition.node if node.name in wanted)

        def build() -> Any:
            graph = tf.compat.v1.get_default_graph()
            mapped = {
                f"{op.name}:0": graph.capture(made[op.name].handle)
                if op.type == "VarHandleOp"
                else made[op.name].read_value()
                for op in self._ops
                if op.type in _VARIABLES
            }
            return tf.graph_util.import_graph_def(
                definition, input_map=mapped, return_elements=[self._loss.name], name=""
            )

        function = tf.compat.v1.wrap_function(build, [])
        return lambda: function()[0], [made[v.op.name] for v in self._trained]

    def read(self, what: str, optimizer: Any) -> dict[str, Any] | None:
        """What an optimizer of `tf.compat.v1.train` holds, its slots as arrays; None for any other."""
        if not isinstance(optimizer, tf.compat.v1.train.Optimizer):
            return None
        held = {name: self._number(what, name, value) for name, value in vars(optimizer).items()}
        held["_slots"] = {
            name: {key: (slot.op.name, self._run([slot])[0]) for key, slot in slots.items()}
            for name, slots in optimizer._slots.items()
        }
        held["_non_slot_dict"] = {
            name: (number.op.name, self._run([number])[0])
            for (name, graph), number in optimizer._non_slot_dict.items()
            if graph is self._graph
        }
        return held

    def made(self, optimizer: Any, held: Mapping[str, Any] | None, variables: Sequence[Any]) -> Any:
        """An optimizer that holds the same for eager variables; to be called where ops run at once."""
        if held is None:
            return optimizer
        keys = {key_of(old): key_of(new) for old, new in zip(self._trained, variables, strict=True)}
        new = object.__new__(type(optimizer))
        new.__dict__.update(held)
        new._slots = {
            name: {keys[old]: tf.Variable(value, name=n) for old, (n, value) in slots.items() if old in keys}
            for name, slots in held["_slots"].items()
        }
        new._non_slot_dict = {
            (name, None): tf.Variable(value, name=n) for name, (n, value) in held["_non_slot_dict"].items()
        }
        return new

    def _number(self, what: str, name: str, value: Any) -> Any:
        if not (tf.is_tensor(value) and hasattr(value, "op")):
            return value
        if name.endswith(_MADE_ANEW):
            return None
        static = tf.get_static_value(value)
        if static is None:
            raise ValueError(
                f"{what} must have hyperparameters that are numbers or callables; {name.lstrip('_')} is the tensor "
                f"{value.name!r}, which only the session can compute"
            )
        return static

    def _run(self, variables: Sequence[Any]) -> list[Any]:
        try:
            values: list[Any] = self._session.run(list(variables))
        except tf.errors.FailedPreconditionError as error:
            raise ValueError(
                "variables must have values in the session; run tf.compat.v1.global_variables_initializer() first: "
                f"{error.message.splitlines()[0]}"
            ) from None
        return values


def _session_of(graph: Any) -> Any:
    if graph.building_function:
        raise ValueError("compare_optimizers cannot run while a tf.function is traced: call it outside of it")
    session = tf.compat.v1.get_default_session()
    if session is None or session.graph is not graph:
        raise ValueError(
            "compare_optimizers in a tf.Graph reads the variables in its session, and there is no default session of "
            "this graph: call it inside of `with session.as_default():`"
        )
    return session


def _behind(op: Any) -> list[Any]:
    """The op and all that it is computed from."""
    found, waiting = {op.name: op}, [op]
    while waiting:
        one = waiting.pop()
        for other in [*(tensor.op for tensor in one.inputs), *one.control_inputs]:
            if other.name not in found:
                found[other.name] = other
                waiting.append(other)
    unfed = [name for name, each in found.items() if each.type.startswith(("Placeholder", "Iterator"))]
    if unfed:
        raise ValueError(
            f"loss must be computed from variables and constants; {unfed[0]!r} ({found[unfed[0]].type}) is fed by "
            "nothing here: put the data in with tf.constant"
        )
    return list(found.values())
