"""A traced step, made conditional: what it writes stays only where everything that it computes is finite."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context

from gradcheck._graph.drawn import drawing
from gradcheck._graph.ending import Ending, Value
from gradcheck._graph.evaluate import release
from gradcheck._graph.finite import flags
from gradcheck._graph.kernels import KernelState, with_states
from gradcheck._graph.layers import layer_outputs, rectified
from gradcheck._graph.nodes import Node, data_inputs, make_node, node_of, output_refs
from gradcheck._graph.program import Body, Return, definition_of, fresh_name, from_concrete
from gradcheck._graph.values import variable_dtype
from gradcheck._graph.writes import plan_writes


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one run of a guarded step gave.

    Attributes:
        outputs: What the step returns, flat.
        healthy: Whether everything was finite, so that the writes stayed.
        amounts: For each item the sum of the squares of its entries, float64 of shape [items]; where XLA compiles the
            step 0, or NaN for an item that is not finite.
        counts: For each item its census, int64 of shape [items, 4]. All zero where all amounts are finite.
        changes: For each item of kind "change" its smallest and largest entry, and the sum of the squares of the
            variable before it, float64 of shape [changes, 3]; none where XLA compiles the step.
        drawn: What its ops took from outside, such as a data set's next, by reference.
        units: For each unit of each rectifier whether it gave something, bool of shape [units]; none where not asked.
    """

    outputs: Sequence[Any]
    healthy: bool
    amounts: Any
    counts: Any
    changes: Any
    units: Any
    drawn: Mapping[str, Any]


class Guarded:
    """A concrete function whose writes to variables happen only where what it computes is finite.

    What it does besides, such as taking a batch from an iterator, is done anyway.

    Args:
        function: The ConcreteFunction of a step.
        layers: Look also at what its Keras layers give.
        units: Also tell which units of its rectifiers gave something, where XLA does not compile the step.

    Attributes:
        items: What is looked at, in order.
        marks: Names of the items that are marked, by their `at`.
        written: Positions, among the inputs of the step, of the handles of variables that it writes to.
        rectifiers: The layers or ops of `Outcome.units`, each with how many units it has.
        kernels: The states of the step's random kernels, whose handles come behind its inputs.
        called: The tokens of the Python functions that it calls as `tf.py_function`.
    """

    def __init__(self, function: Any, *, layers: bool = False, units: bool = False) -> None:
        self.kernels: list[KernelState] = []
        self._alive = [function]  # what is called by name has to stay in TensorFlow's registry
        self._captured = list(function.captured_inputs)
        self._arg_attr = function.function_def.arg_attr
        program = from_concrete(function)
        effects = tuple(dict.fromkeys(function.function_def.control_ret.values()))
        program = replace(program, main=replace(program.main, kept=effects))
        compiled = "_XlaMustCompile" in program.main.attributes and program.main.attributes["_XlaMustCompile"].b
        nodes = [node for body in (program.main, *program.functions.values()) for node in body.nodes]
        self.called = [node.attr["token"].s.decode() for node in nodes if node.op == "EagerPyFunc"]
        known = program.functions.keys()
        if not compiled:  # XLA draws without a state
            program, self.kernels = with_states(program)
            for name in program.functions.keys() - known:
                self._register(definition_of(name, program.functions[name]))
        own = [state.variable.handle for state in self.kernels]
        self._captured += own
        inputs = [*function.graph.inputs, *own]
        handles = {
            a.name: dtype.as_datatype_enum
            for a, t in zip(program.main.args, inputs, strict=True)
            if (dtype := variable_dtype(t)) is not None
        }
        plan = plan_writes(program, handles, defer=not compiled)
        present = {ref for node in plan.body.nodes for ref, _ in output_refs(node)}
        given = [g for g in layer_outputs(function.graph) if g[1] in present] if layers else []
        rectifiers = [r for r in rectified(function.graph) if r[1] in present] if units and not compiled else []
        self.rectifiers = [(name, int(t.shape[-1])) for name, _, t in rectifiers]
        ending = Ending(
            plan, inputs, function.graph.outputs, compiled=compiled,
            more=[(f"output of {path}", Value(ref, t.dtype, t.shape)) for path, ref, t in given],
            rectified=[Value(ref, t.dtype, t.shape) for _, ref, t in rectifiers],
        )  # fmt: skip
        at = {a.name: k for k, a in enumerate(program.main.args)}
        self.items, self.marks = ending.items, ending.marks
        self.written = tuple(sorted({at[argument] for argument in plan.arguments}))
        body = self._with_decision(*(self._apart(plan.body, ending) if compiled else (plan.body, {})), ending, handles)
        self._drawing = [] if compiled else drawing(plan.body)
        body = replace(body, returns=(*body.returns, *self._drawing))
        self._name, self._returned = self._registered("guarded", body), len(body.returns)

    def __call__(self, inputs: Sequence[Any]) -> Outcome:
        """Run the step once, on the flat tensors that the function takes, without what it captures."""
        every = context.context().call_function(self._name.encode(), [*inputs, *self._captured], self._returned)
        cut = len(every) - len(self._drawing)
        *outputs, healthy, sums, counts, changes, units = every[:cut]
        drawn = {d.ref: value for d, value in zip(self._drawing, every[cut:], strict=True)}
        return Outcome(
            outputs=outputs, healthy=bool(healthy), amounts=sums, counts=counts, changes=changes, units=units,
            drawn=drawn,
        )  # fmt: skip

    def handles(self, inputs: Sequence[Any]) -> list[Any]:
        """The handles of the variables that the step writes to."""
        every = [*inputs, *self._captured]
        return [every[k] for k in self.written]

    def _registered(self, stem: str, body: Body) -> str:
        """The name under which TensorFlow knows a body, for as long as this object lives."""
        name = fresh_name(stem)
        definition = definition_of(name, body)
        for k, attributes in self._arg_attr.items():
            definition.arg_attr[k].CopyFrom(attributes)
        self._register(definition)
        return name

    def _register(self, definition: Any) -> None:
        ctx = context.context()
        ctx.ensure_initialized()
        ctx.add_function_def(definition)
        weakref.finalize(self, release, [definition.signature.name])

    def _apart(self, body: Body, ending: Ending) -> tuple[Body, dict[str, str]]:
        """A body that calls the given one, which XLA compiles; and the references that what it returned has there.

        The flags of the items are returned as well. Reads before the step are done outside of it.
        """
        values = [item.value for item in ending.items]
        finite = tf.function(flags_of, autograph=False).get_concrete_function(*(v.spec for v in values))
        self._alive.append(finite)
        look = _call("PartitionedCall", "gradcheck_flags", finite, [v.ref for v in values])
        marked = [i.value for i in ending.items if i.kind == "guarded"]
        inside = (*marked, Value(_FLAGS, tf.bool))
        returns = (*body.returns, *(Return(v.ref, v.dtype.as_datatype_enum) for v in inside))
        inner = replace(body, nodes=(*body.nodes, look), returns=returns)
        before = {node_of(v.ref) for v in ending.before}
        reads = [n for n in body.nodes if n.name in before]
        step = make_node(
            "StatefulPartitionedCall", "gradcheck_step", [*(a.name for a in body.args), *(f"^{n}" for n in before)]
        )
        step.attr["f"].func.name = self._registered("compiled", inner)
        step.attr["_XlaMustCompile"].b = True
        step.attr["Tin"].list.type.extend(a.dtype for a in body.args)
        step.attr["Tout"].list.type.extend(r.dtype for r in returns)
        renamed = {r.ref: f"{step.name}:output:{k}" for k, r in enumerate(returns)}
        outer = tuple(replace(r, ref=renamed[r.ref]) for r in body.returns)
        return Body(args=body.args, nodes=(*reads, step), returns=outer, kept=(step.name,)), renamed

    def _with_decision(
        self, body: Body, renamed: Mapping[str, str], ending: Ending, handles: Mapping[str, int]
    ) -> Body:
        """The body with the decision behind everything that uses a variable."""
        decision = ending.traced()
        self._alive.append(decision)
        values = [*([_FLAGS] if ending.compiled else []), *(v.ref for v in ending.taken)]
        users = [n.name for n in body.nodes if n.name in body.kept or any(i in handles for i in data_inputs(n))]
        call = _call(
            "StatefulPartitionedCall", "gradcheck_decide", decision, [renamed.get(v, v) for v in values], users
        )
        decided = (Return(f"{call.name}:output:{k}", t.dtype.as_datatype_enum) for k, t in enumerate(decision.outputs))
        return replace(body, nodes=(*body.nodes, call), returns=(*body.returns, *decided), kept=(*body.kept, call.name))


_FLAGS = "gradcheck_flags:output:0"


def read(handle: Any) -> Any:
    """The value that a variable has now, copied only when it is written to."""
    return tf.raw_ops.ReadVariableOp(resource=handle, dtype=variable_dtype(handle))


def write(handle: Any, value: Any) -> None:
    """Give a variable a value that was read before."""
    tf.raw_ops.AssignVariableOp(resource=handle, value=value)


def flags_of(*tensors: Any) -> Any:
    return flags(tensors)


def _call(op: str, name: str, function: Any, inputs: Sequence[str], behind: Sequence[str] = ()) -> Node:
    """A node that calls a ConcreteFunction."""
    node = make_node(op, name, [*inputs, *(f"^{n}" for n in behind)])
    node.attr["f"].func.name = function.name
    node.attr["Tin"].list.type.extend(t.dtype.as_datatype_enum for t in function.inputs)
    node.attr["Tout"].list.type.extend(t.dtype.as_datatype_enum for t in function.outputs)
    return node
