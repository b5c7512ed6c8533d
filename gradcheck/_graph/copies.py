"""The copy of a part of a graph, cut where its values come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from gradcheck._errors import GraphUnavailable
from gradcheck._graph.contexts import chain, contexts_of, own_graphs, pivots, recreate
from gradcheck._graph.nodes import functions_named
from gradcheck._graph.program import find_function
from gradcheck._graph.sources import (
    OPAQUE,
    PLACEHOLDERS,
    REF_VARIABLES,
    begin_of,
    has_state,
    is_effect,
    is_foreign,
    is_reference,
    plain_node,
    refuse_writing,
)
from gradcheck._graph.values import is_symbolic, variable_dtype


@dataclass(slots=True)
class _Part:
    """What some tensors depend on: ops to copy, and tensors at which the copy begins."""

    ops: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, Any] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)  # names of ops that write, which others waited for


class Copy(FuncGraph):  # type: ignore[misc]
    """A graph with copies of another graph's ops, each made when it is first asked for.

    The copy begins at sources: placeholders, variables, what `feed_dict` gives, and ops whose state cannot leave the
    session, such as iterators. Whatever reads a tensor of the original graph gets the copy of it, be it the user's
    function or a gradient. The original graph is only looked at.

    Attributes:
        origin: The original graph.
        feeds: Placeholders that stand for sources, with their values, or with the tensors whose values they take.
        held: Names of ops whose outputs keep the value that they had in the session.
        left_out: Names of ops that write, and are not copied.

    With `alone`, ops are taken out of the loops and conditions of control flow v1 that they are in, and wait for
    nothing: what they read from there has to be fed.
    """

    def __init__(self, origin: Any, fed: Mapping[str, Any], *, alone: bool = False) -> None:
        # Functions lift some ops out, into the graph around; the user's graph must not be it.
        with tf.Graph().as_default():
            super().__init__("gradcheck", collections={})
        if not origin.building_function:
            # TensorFlow asks for this very attribute to tell whether loops here are those of control flow v2
            # (control_flow_util.EnableControlFlowV2); gradients must be built as they would be in the original.
            self._captured: dict[Any, Any] = {}
        self.origin = origin
        self.feeds: list[tuple[Any, Any]] = []
        self.held: list[str] = []
        self.left_out: list[str] = []
        self._fed = fed
        self._alone = alone
        self._copies: dict[str, Any] = {}  # name of an op -> its copy
        self._originals: dict[str, Any] = {}  # name of a copy -> the op
        self._begins: dict[str, Any] = {}  # name of a source -> the placeholder that stands for it

    def capture(self, tensor: Any, name: str | None = None, shape: Any = None) -> Any:
        """The copy of a tensor of the original graph, or around it; anything else as in any FuncGraph."""
        if not isinstance(tensor, tf.__internal__.EagerTensor):
            around = self.origin.captures if self.origin.building_function else ()
            tensor = next((inner for outer, inner in around if outer is tensor), tensor)
            if tensor.graph is self.origin:
                return self.bring([tensor])[0]
        return super().capture(tensor, name, shape)

    def find(self, tensor: Any) -> Any:
        """The copy of a tensor of the original graph, or None where there is none yet."""
        if tensor.name in self._begins:
            return self._begins[tensor.name]
        copied = self._copies.get(tensor.op.name)
        return None if copied is None else copied.outputs[tensor.value_index]

    def original(self, op: Any) -> Any:
        """The op that an op of the copy was copied from, which knows the user's line; else the op itself."""
        return self._originals.get(op.name, op)

    def bring(self, tensors: Sequence[Any]) -> list[Any]:
        """Copies of tensors of the original graph, with all that they depend on."""
        part = self._part([t for t in tensors if self.find(t) is None])
        self.left_out += part.left_out
        self._begin(list(part.sources.values()))
        if part.ops:
            self._import(part)
        return [self.find(t) for t in tensors]

    def unread(self) -> list[Any]:
        """The tensors of the original graph, and variables' handles, whose values are still to be read."""
        own = [v for _, v in self.feeds if is_symbolic(v)]
        return own + [external for external, _ in self.captures if is_symbolic(external)]

    def variables(self) -> list[Any]:
        """The variables of the original graph that the copy depends on."""
        keys = self.origin.get_all_collection_keys()
        listed = {id(v): v for key in keys for v in self.origin.get_collection(key) if isinstance(v, tf.Variable)}
        return [v for v in listed.values() if begin_of(v).name in self._begins]

    def x_of(self, x: Any) -> Any:
        """What to differentiate with respect to, for a tensor or variable of the original graph."""
        if isinstance(x, tf.Variable):
            if not is_reference(x):
                return x
            x = begin_of(x)
        if x.graph is not self.origin:
            return x
        found = self.find(x)
        return self._stand_in(x) if found is None else found

    def _stand_in(self, tensor: Any) -> Any:
        """A placeholder, of any value, for a tensor that nothing in the copy depends on."""
        shape = [1 if n is None else n for n in tensor.shape.as_list()] if tensor.shape.rank is not None else []
        return self._placeholder(tensor, np.zeros(shape, tensor.dtype.base_dtype.as_numpy_dtype))

    # --------------------------------------------------------------------------------------- what is needed

    def _part(self, tensors: Sequence[Any]) -> _Part:
        part = _Part()
        pending = list(tensors)
        while pending:
            tensor = pending.pop()
            if tensor.name in part.sources or tensor.op.name in part.ops or self.find(tensor) is not None:
                continue
            if self._is_source(tensor):
                part.sources[tensor.name] = tensor
            else:
                pending += self._take(tensor.op, part)
        return part

    def _take(self, op: Any, part: _Part) -> Iterator[Any]:
        """Take an op, and those that it waits for, and give all tensors that they read."""
        waiting = [op]
        while waiting:
            one = waiting.pop()
            if one.name in part.ops or one.name in self._copies or any(self._is_source(t) for t in one.outputs):
                continue
            refuse_writing(one)
            part.ops[one.name] = one
            yield from one.inputs
            for other in () if self._alone else (*one.control_inputs, *pivots(one)):
                if not is_effect(other):
                    waiting.append(other)
                elif any(t.dtype == tf.resource or t.dtype._is_ref_dtype for t in other.inputs):
                    part.left_out.append(other.name)

    def _is_source(self, tensor: Any) -> bool:
        op = tensor.op
        if tensor.name in self._fed or op.type in (
            *PLACEHOLDERS,
            *REF_VARIABLES,
            "VarHandleOp",
            "IsVariableInitialized",
        ):
            return True
        return has_state(op) or any(is_foreign(t) for t in op.inputs)

    # ------------------------------------------------------------------------------------ where values begin

    def _begin(self, sources: Sequence[Any]) -> None:
        captured = {id(i): e for e, i in self.origin.captures} if self.origin.building_function else {}
        for tensor in sources:
            self._refuse_valueless(tensor, captured)
        for tensor in sources:
            external = captured.get(id(tensor), tensor)
            if variable_dtype(external) is not None:
                self._begins[tensor.name] = super().capture(external, tensor.op.name)
                continue
            self._begins[tensor.name] = self._placeholder(tensor, self._fed.get(tensor.name, external))
            if tensor.name not in self._fed and tensor.op.type not in (*REF_VARIABLES, *PLACEHOLDERS):
                self.held.append(tensor.op.name)

    def _refuse_valueless(self, tensor: Any, captured: Mapping[int, Any]) -> None:
        if tensor.name in self._fed or id(tensor) in captured:
            return
        name = tensor.op.name
        if tensor.op.type in PLACEHOLDERS:
            if self.origin.building_function:
                raise GraphUnavailable(
                    f"the argument {name!r} has no value while its function is being traced: call "
                    "check_gradients(the function, inputs) from outside of it, or pass "
                    f"feed_dict={{{tensor.name!r}: value}}"
                )
            raise ValueError(
                f"the placeholder {name!r} has no value: call check_tf_gradients(ys, xs, "
                f"feed_dict={{{tensor.name!r}: value}})"
            )
        if chain(tensor.op) or (tensor.dtype in OPAQUE and tensor.op.type != "VarHandleOp"):
            raise GraphUnavailable(
                f"{tensor.op.type} {name!r} has a state, and its value cannot be read from outside of the loop, the "
                "condition or the resource that it is in; pass feed_dict with the tensor that is made from it"
            )

    def _placeholder(self, tensor: Any, value: Any) -> Any:
        stem = tensor.op.name + (f"_output{tensor.value_index}" if tensor.value_index else "")
        with self._clean():
            placeholder = tf.compat.v1.placeholder(tensor.dtype.base_dtype, tensor.shape, name=stem)
        self.feeds.append((placeholder, value))
        return placeholder

    # ---------------------------------------------------------------------------------------------- copying

    def _import(self, part: _Part) -> None:
        definition = tf.compat.v1.GraphDef()
        definition.versions.CopyFrom(self.origin.graph_def_versions)
        ops = sorted(part.ops.values(), key=lambda op: op._id)
        mapped = {}
        for op in ops:
            definition.node.append(plain_node(op, part.ops))
            mapped.update({t.name: self.find(t) for t in op.inputs if self.find(t) is not None})
        self._add_functions(definition.node)
        with self._clean():
            copies = tf.graph_util.import_graph_def(definition, mapped, [op.name for op in ops], name="")
            self._copies.update({op.name: copied for op, copied in zip(ops, copies, strict=True)})
            self._originals.update({copied.name: op for op, copied in zip(ops, copies, strict=True)})
            if not self._alone:
                recreate(contexts_of(ops), self._new_name)
        with self._clean():  # function calls inside of functions are looked up in the default graph
            for op, copied in zip(ops, copies, strict=True):
                # How a tf.function wants to be differentiated is known to the op in Python alone.
                copied._gradient_function = op._gradient_function
                own_graphs(copied, op)

    def _new_name(self, name: str) -> str | None:
        """The name in the copy of a tensor or op of the original, None where it was not copied."""
        if name in self._begins:
            return str(self._begins[name].name)
        stem, colon, index = name.partition(":")
        return f"{self._copies[stem].name}{colon}{index}" if stem in self._copies else None

    def _add_functions(self, nodes: Iterable[Any]) -> None:
        """Take over the functions that some nodes call, by an attribute or as their op, and those that these call."""
        pending, seen = list(nodes), set[str]()
        while pending:
            node = pending.pop()
            for name in {*functions_named(node), node.op} - seen:
                seen.add(name)
                function = find_function(self.origin, name)
                if function is not None:
                    self._add_function_recursive(function)
                    pending += function.cached_definition.node_def

    def _clean(self) -> Any:
        return _Clean(self)


class _Clean:
    """A graph as default, without the scopes that the caller is in."""

    def __init__(self, graph: Any) -> None:
        self._scopes = (graph.as_default(), tf.compat.v1.name_scope(None), tf.control_dependencies(None))

    def __enter__(self) -> None:
        for scope in self._scopes:
            scope.__enter__()

    def __exit__(self, *error: Any) -> None:
        for scope in reversed(self._scopes):
            scope.__exit__(*error)
