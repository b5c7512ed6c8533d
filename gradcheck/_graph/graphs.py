"""Tensors of a `tf.Graph`, traced: what `tf.gradients` would differentiate, at the values that a session has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck._errors import GraphUnavailable
from gradcheck._graph import structure
from gradcheck._graph.contexts import chain
from gradcheck._graph.copies import Copy
from gradcheck._graph.evaluate import Runner
from gradcheck._graph.functions import check_cotangent, gradients_as_outputs, unconnected_name
from gradcheck._graph.trace import Asked, Traced, finish, settled
from gradcheck._graph.values import Values, raw_session


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The arguments of `tf.gradients` on tensors of one graph, checked.

    Attributes:
        graph: The graph, or the FuncGraph of a function that is being traced.
        ys: Tensors, to be summed.
        xs: Tensors and variables.
        names: What to call each x.
        grad_ys: Arrays and tensors, and None.
        stops: Tensors.
        unconnected: "none" or "zero".
        values: Where the values come from.
        fed: What `feed_dict` gives, by the names of tensors.
    """

    graph: Any
    ys: tuple[Any, ...]
    xs: tuple[Any, ...]
    names: tuple[str, ...]
    grad_ys: tuple[Any, ...]
    stops: tuple[Any, ...]
    unconnected: str
    values: Values
    fed: Mapping[str, Any]
    has_session: bool


def question(
    ys: Any, xs: Any, grad_ys: Any, *, stop_gradients: Any, unconnected_gradients: Any, session: Any, feed_dict: Any
) -> Question:
    """Check the arguments of `tf.gradients`, a session and a feed_dict; nothing runs, and no graph is changed.

    Raises:
        TypeError, ValueError: If they do not fit together; the text says what to write instead.
    """
    y_list, x_list = _listed(ys, "ys"), _listed(xs, "xs")
    for i, y in enumerate(y_list):
        _require_symbolic(y, f"ys[{i}]")
    graph = _graph_of(y_list[0])
    tensors = [_of_graph(y, f"ys[{i}]", graph) for i, y in enumerate(y_list)]
    sources = [_source(x, f"xs[{i}]", graph) for i, x in enumerate(x_list)]
    for i, tensor in enumerate(tensors):
        _require_continuous(tensor, f"ys[{i}]")
    stops = [] if stop_gradients is None else _as_list(stop_gradients)
    stopped = [_of_graph(s, f"stop_gradients[{i}]", graph) for i, s in enumerate(stops)]
    given = _cotangents(grad_ys, tensors, graph)
    unconnected = unconnected_name(unconnected_gradients)
    used = _session(session, graph)
    fed = _fed(feed_dict, graph)
    return Question(
        graph=graph,
        ys=tuple(tensors),
        xs=tuple(sources),
        names=tuple(_name(x) for x in sources),
        grad_ys=tuple(given),
        stops=tuple(stopped),
        unconnected=unconnected,
        values=Values(used, feed_dict),
        fed=fed,
        has_session=used is not None,
    )


def trace_tensors(asked: Question, name: str, *, order: int = 1, seed: int = 0) -> Traced:
    """Copy what ys depend on, and differentiate the copy.

    Args:
        asked: The question.
        name: What to call the tensors.
        order: 2 makes the gradients the outputs.
        seed: Of the cotangents of those gradients, with order 2.

    Raises:
        ValueError: If a placeholder is not fed, or a session is needed and there is none.
        GraphUnavailable: If a value that is needed cannot be read.
    """
    # A graph of our own around it all: what TensorFlow lifts out of functions must not land in the user's.
    with tf.Graph().as_default():
        copy = Copy(asked.graph, asked.values, asked.fed)
        ys = copy.bring(asked.ys)
        cotangents = _cotangent_values(asked, copy)
        xs = [_in_copy(x, copy) for x in asked.xs]
        stops = [t for t in map(copy.find, asked.stops) if t is not None]
        _refuse_stops_in_loops(copy)
        outputs = [("output", ys, cotangents)]
        wanted = Asked(outputs=outputs, xs=list(zip(asked.names, xs, strict=True)), stops=stops, unconnected=asked.unconnected)
        if order == 2:
            wanted = gradients_as_outputs(copy, wanted, seed)
        traced = finish(copy, name, wanted, copy.feeds, asked.values, notes=_notes(asked, copy))
    variables = {n for n, x in zip(asked.names, asked.xs, strict=True) if structure.variable_of(x) is not None}
    return replace(traced, sources=tuple(replace(s, variable=s.path in variables) for s in traced.sources))


def name_of_tensors(asked: Question) -> str:
    """What to call ys: their names, added."""
    names = [_name(y) for y in asked.ys]
    return " + ".join(names) if len(names) <= 3 else f"{names[0]} + ... + {names[-1]}"


# ------------------------------------------------------------------------------------------------- arguments


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _listed(value: Any, name: str) -> list[Any]:
    found = _as_list(value)
    if not found:
        raise ValueError(f"{name} must hold at least one tensor, found an empty {type(value).__name__}")
    return found


def _require_symbolic(value: Any, name: str) -> None:
    """A tensor of a graph, or a variable."""
    if isinstance(value, tf.__internal__.EagerTensor):
        raise TypeError(
            f"{name} must be a tensor of a graph, found an eager tensor, which does not remember how it was made; "
            "call check_gradients(fn, inputs) with the function that makes it"
        )
    if structure.is_composite(value):
        raise TypeError(f"{name} must be a dense tensor, found a {type(value).__name__}; pass its values: {_write(name)}.values")
    if structure.variable_of(value) is None and not isinstance(value, tf.Tensor):
        raise TypeError(f"{name} must be a tensor or a variable of a graph, found {type(value).__name__}: {value!r:.60}")


def _write(name: str) -> str:
    return name.partition("[")[0].removesuffix("s")


def _require_continuous(tensor: Any, name: str) -> None:
    if tensor.dtype.base_dtype not in structure.CONTINUOUS:
        raise TypeError(
            f"{name} ({_name(tensor)!r}) must have a floating or complex dtype to be differentiated, found "
            f"{tensor.dtype.base_dtype.name}"
        )


def _graph_of(y: Any) -> Any:
    variable = structure.variable_of(y)
    if variable is None:
        return y.graph
    if isinstance(variable.handle if hasattr(variable, "handle") else None, tf.__internal__.EagerTensor):
        raise TypeError("ys[0] must be a tensor of a graph, found an eager variable; call check_gradients(fn, inputs)")
    return variable.graph


def _of_graph(value: Any, name: str, graph: Any) -> Any:
    """The tensor itself or, for a variable, the one that reads it."""
    captured = _captured(value, graph)
    if captured is not None:
        return captured
    _require_symbolic(value, name)
    variable = structure.variable_of(value)
    tensor = value if variable is None else _reading(variable)
    if tensor.graph is not graph:
        raise ValueError(
            f"{name} ({_name(tensor)!r}) must belong to the graph of ys[0], found another graph; tensors of two graphs "
            "cannot depend on each other"
        )
    return tensor


def _captured(value: Any, graph: Any) -> Any:
    """The tensor that stands in a function's graph for an eager one that it uses, or None."""
    if isinstance(value, tf.__internal__.EagerTensor) and graph.building_function:
        return next((inner for outer, inner in graph.captures if outer is value), None)
    return None


def _reading(variable: Any) -> Any:
    read = variable.value() if is_reference(variable) else variable._graph_element
    if read is None:
        raise TypeError(f"ys and stop_gradients must be tensors, found the variable {_name(variable)!r}; pass variable.read_value()")
    return read


def is_reference(variable: Any) -> bool:
    """Whether a variable is one of TensorFlow 1, without a resource handle."""
    return not hasattr(variable, "handle") or hasattr(variable, "_variable")


def _source(x: Any, name: str, graph: Any) -> Any:
    """An x as tf.gradients takes it: a tensor, or a variable."""
    variable = structure.variable_of(x)
    if variable is None:
        tensor = _of_graph(x, name, graph)
        _require_continuous(tensor, name)
        if chain(tensor.op):
            raise ValueError(
                f"{name} ({_name(tensor)!r}) is made inside a loop or a condition, where it has no single value; "
                "pass what goes into that"
            )
        return tensor
    _require_continuous(variable, name)
    eager = not is_reference(variable) and isinstance(variable.handle, tf.__internal__.EagerTensor)
    if eager and not graph.building_function:
        raise TypeError(f"{name} ({_name(variable)!r}) is an eager variable, and ys are tensors of a graph that cannot read it")
    if not eager and variable.graph is not graph:
        raise ValueError(f"{name} ({_name(variable)!r}) must belong to the graph of ys[0], found another graph")
    return variable


def _name(value: Any) -> str:
    return str(value.name).removesuffix(":0")


def _cotangents(grad_ys: Any, ys: Sequence[Any], graph: Any) -> list[Any]:
    if grad_ys is None:
        return [None] * len(ys)
    given = [grad_ys] if len(ys) == 1 and not isinstance(grad_ys, (list, tuple)) else grad_ys
    if not isinstance(given, (list, tuple)) or len(given) != len(ys):
        found = f"{len(given)} in a {type(given).__name__}" if isinstance(given, (list, tuple)) else f"one {type(given).__name__}"
        raise ValueError(f"grad_ys must be a list with one entry (or None) per y, {len(ys)} of them; found {found}")
    return [_cotangent(g, y, f"ys[{i}]", graph) for i, (g, y) in enumerate(zip(given, ys, strict=True))]


def _cotangent(value: Any, y: Any, path: str, graph: Any) -> Any:
    if value is None:
        return None
    if structure.is_composite(value):
        raise TypeError(f"grad_ys for {path} must be dense, found a {type(value).__name__}; write tf.convert_to_tensor(value)")
    if structure.variable_of(value) is None and not (isinstance(value, tf.Tensor) and hasattr(value, "op")):
        return check_cotangent(value, y, path)
    if isinstance(value, tf.__internal__.EagerTensor):
        return check_cotangent(value, y, path)
    tensor = _of_graph(value, f"grad_ys for {path}", graph)
    if tensor.dtype.base_dtype != y.dtype.base_dtype:
        raise ValueError(
            f"grad_ys for {path} must have the dtype of that output, {y.dtype.base_dtype.name}; found "
            f"{tensor.dtype.base_dtype.name}; write tf.cast(value, {y.dtype.base_dtype.name!r})"
        )
    if not tensor.shape.is_compatible_with(y.shape):
        raise ValueError(f"grad_ys for {path} must have the shape of that output, {y.shape}; found shape {tensor.shape}")
    return tensor


def _session(session: Any, graph: Any) -> Any:
    """The session to read values from: the given one, or the default one where it is one of this graph."""
    if session is None:
        default = tf.compat.v1.get_default_session()
        return default if default is not None and default.graph is graph else None
    raw = raw_session(session) if not getattr(session, "_is_closed", lambda: False)() else session
    if not hasattr(raw, "run") or not hasattr(raw, "graph"):
        raise TypeError(f"session must be a tf.compat.v1.Session, found {type(session).__name__}")
    if graph.building_function:
        raise ValueError("session must be None here: ys belong to a function that is being traced, which no session can run")
    if raw.graph is not graph:
        raise ValueError("session must be one of the graph of ys, found a session of another graph; write tf.compat.v1.Session(graph=ys.graph)")
    if getattr(raw, "_closed", False) or raw is session and hasattr(session, "_is_closed"):
        raise ValueError("session must be open, found a closed one; call check_tf_gradients inside of `with session:`")
    return raw


def _fed(feed_dict: Any, graph: Any) -> dict[str, Any]:
    if feed_dict is None:
        return {}
    if not isinstance(feed_dict, Mapping):
        raise TypeError(f"feed_dict must be a dict from tensors to values, found {type(feed_dict).__name__}")
    fed: dict[str, Any] = {}
    for key, value in feed_dict.items():
        keys, values = [key], [value]
        if structure.is_composite(key):
            keys, values = tf.nest.flatten(key, expand_composites=True), list(value)
        for one, part in zip(keys, values, strict=True):
            tensor = _fed_tensor(one, graph)
            fed[tensor.name] = _fed_value(tensor, part)
    return fed


def _fed_tensor(key: Any, graph: Any) -> Any:
    try:
        return graph.as_graph_element(key, allow_tensor=True, allow_operation=False)
    except (TypeError, ValueError, KeyError) as error:
        shown = repr(key) if isinstance(key, str) else f"a {type(key).__name__}"
        raise ValueError(f"feed_dict must name tensors of the graph of ys, found {shown} that is none") from error


def _fed_value(tensor: Any, value: Any) -> Any:
    if isinstance(value, tf.Tensor):
        raise TypeError(f"feed_dict must give {_name(tensor)!r} an array, found a tensor; write value.numpy() or session.run(value)")
    wanted = tensor.dtype.base_dtype
    array = np.asarray(value)
    if wanted.is_integer and array.dtype.kind in "fc":
        raise TypeError(f"feed_dict must give {_name(tensor)!r} values of dtype {wanted.name}, found {array.dtype}")
    if not tensor.shape.is_compatible_with(array.shape):
        raise ValueError(f"feed_dict must give {_name(tensor)!r} a value of shape {tensor.shape}, found shape {array.shape}")
    return array.astype(wanted.as_numpy_dtype)


# ---------------------------------------------------------------------------------------------- in the copy


def _in_copy(x: Any, copy: Copy) -> Any:
    """What stands for an x in the copy; a placeholder where ys do not depend on it."""
    variable = structure.variable_of(x)
    if variable is not None and not is_reference(variable):
        return variable
    tensor = x if variable is None else variable._variable
    found = copy.find(tensor)
    return copy.stand_in(tensor) if found is None else found


def _cotangent_values(asked: Question, copy: Copy) -> list[Any]:
    symbolic = [g for g in asked.grad_ys if isinstance(g, tf.Tensor)]
    if not symbolic:
        return list(asked.grad_ys)
    if asked.has_session:
        asked.values.read(symbolic)
        found = [asked.values.value(g) for g in symbolic]
    else:
        found = _evaluate(copy, copy.bring(symbolic), asked.values)
    values = iter(found)
    return [
        check_cotangent(np.asarray(next(values)), y, f"ys[{i}]") if isinstance(g, tf.Tensor) else g
        for i, (g, y) in enumerate(zip(asked.grad_ys, asked.ys, strict=True))
    ]


def _evaluate(copy: Copy, tensors: Sequence[Any], values: Values) -> list[Any]:
    """Values of tensors of the copy, computed without a session."""
    program, held, *_ = settled(copy, tensors, copy.feeds, values)
    return Runner(program, alive=copy).run([held.get(a.name) for a in program.main.args])


def _refuse_stops_in_loops(copy: Copy) -> None:
    for op in copy.get_operations():
        if op.type == "StopGradient" and chain(op):
            raise GraphUnavailable(
                f"tf.stop_gradient {op.name!r} is inside a loop or a condition of control flow v1, where it cannot be "
                "held still; call tf.compat.v1.enable_control_flow_v2() before the graph is built"
            )


def _notes(asked: Question, copy: Copy) -> list[str]:
    notes = []
    if copy.held:
        notes.append(f"held at the value read in the session: {', '.join(sorted(set(copy.held))[:5])}")
    if copy.left_out:
        notes.append(f"left out, because it changes state: {', '.join(sorted(set(copy.left_out))[:5])}")
    inner = [n for n in asked.fed if asked.graph.as_graph_element(n).op.inputs]
    if inner:
        names = ", ".join(n.removesuffix(":0") for n in sorted(inner)[:5])
        notes.append(f"feed_dict gives {names}: what they were computed from is not looked at")
    return notes
