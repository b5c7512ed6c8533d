"""The arguments of `tf.gradients` on tensors of a graph, checked against each other, a session and a feed_dict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck._graph import structure
from gradcheck._graph.asked import check_cotangent, unconnected_name
from gradcheck._graph.contexts import chain
from gradcheck._graph.sources import is_reference
from gradcheck._graph.values import Values, is_symbolic


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
        alone: Whether ys are taken out of the loops and conditions around them, whose values are all fed.
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
    alone: bool = False


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
        names=tuple(plain_name(x) for x in sources),
        grad_ys=tuple(given),
        stops=tuple(stopped),
        unconnected=unconnected,
        values=Values(used, fed),
        fed=fed,
        has_session=used is not None,
    )


def name_of_tensors(asked: Question) -> str:
    """What to call ys: their names, added."""
    names = [plain_name(y) for y in asked.ys]
    return " + ".join(names) if len(names) <= 3 else f"{names[0]} + ... + {names[-1]}"


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
        raise TypeError(
            f"{name} must be a dense tensor, found a {type(value).__name__}; pass its values: {_write(name)}.values"
        )
    if structure.variable_of(value) is None and not isinstance(value, tf.Tensor):
        shown = "; pass its parts: list(variable)" if hasattr(value, "as_tensor") else f": {value!r:.60}"
        raise TypeError(f"{name} must be a tensor or a variable of a graph, found {type(value).__name__}{shown}")


def _write(name: str) -> str:
    return name.partition("[")[0].removesuffix("s")


def _require_continuous(tensor: Any, name: str) -> None:
    if tensor.dtype.base_dtype not in structure.CONTINUOUS:
        raise TypeError(
            f"{name} ({plain_name(tensor)!r}) must have a floating or complex dtype to be differentiated, found "
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
    tensor = value if variable is None else reading(variable)
    if tensor.graph is not graph:
        raise ValueError(
            f"{name} ({plain_name(tensor)!r}) must belong to the graph of ys[0], found another graph; tensors of "
            "two graphs "
            "cannot depend on each other"
        )
    return tensor


def _captured(value: Any, graph: Any) -> Any:
    """The tensor that stands in a function's graph for an eager one that it uses, or None."""
    if isinstance(value, tf.__internal__.EagerTensor) and graph.building_function:
        return next((inner for outer, inner in graph.captures if outer is value), None)
    return None


def reading(variable: Any) -> Any:
    """The tensor of the graph that reads a variable of it; no op is made."""
    read = variable.value() if is_reference(variable) else variable._graph_element
    if read is None:
        raise TypeError(
            f"ys and stop_gradients must be tensors, found the variable {plain_name(variable)!r}; pass "
            "variable.read_value()"
        )
    return read


def _source(x: Any, name: str, graph: Any) -> Any:
    """An x as tf.gradients takes it: a tensor, or a variable."""
    variable = structure.variable_of(x)
    if variable is None:
        tensor = _of_graph(x, name, graph)
        _require_continuous(tensor, name)
        if chain(tensor.op):
            raise ValueError(
                f"{name} ({plain_name(tensor)!r}) is made inside a loop or a condition, where it has no single value; "
                "pass what goes into that"
            )
        return tensor
    _require_continuous(variable, name)
    eager = not is_reference(variable) and isinstance(variable.handle, tf.__internal__.EagerTensor)
    if eager and not graph.building_function:
        raise TypeError(
            f"{name} ({plain_name(variable)!r}) is an eager variable, and ys are tensors of a graph that cannot read it"
        )
    if not eager and variable.graph is not graph:
        raise ValueError(f"{name} ({plain_name(variable)!r}) must belong to the graph of ys[0], found another graph")
    return variable


def plain_name(value: Any) -> str:
    """What to call a tensor or variable."""
    return str(value.name).removesuffix(":0")


def _cotangents(grad_ys: Any, ys: Sequence[Any], graph: Any) -> list[Any]:
    if grad_ys is None:
        return [None] * len(ys)
    given = [grad_ys] if len(ys) == 1 and not isinstance(grad_ys, (list, tuple)) else grad_ys
    if not isinstance(given, (list, tuple)) or len(given) != len(ys):
        found = (
            f"{len(given)} in a {type(given).__name__}"
            if isinstance(given, (list, tuple))
            else f"one {type(given).__name__}"
        )
        raise ValueError(f"grad_ys must be a list with one entry (or None) per y, {len(ys)} of them; found {found}")
    return [_cotangent(g, y, f"ys[{i}]", graph) for i, (g, y) in enumerate(zip(given, ys, strict=True))]


def _cotangent(value: Any, y: Any, path: str, graph: Any) -> Any:
    if value is None:
        return None
    if structure.is_composite(value):
        raise TypeError(
            f"grad_ys for {path} must be dense, found a {type(value).__name__}; write tf.convert_to_tensor(value)"
        )
    if structure.variable_of(value) is None and not is_symbolic(value):
        return check_cotangent(value, y, path)
    tensor = _of_graph(value, f"grad_ys for {path}", graph)
    if tensor.dtype.base_dtype != y.dtype.base_dtype:
        raise ValueError(
            f"grad_ys for {path} must have the dtype of that output, {y.dtype.base_dtype.name}; found "
            f"{tensor.dtype.base_dtype.name}; write tf.cast(value, {y.dtype.base_dtype.name!r})"
        )
    if not tensor.shape.is_compatible_with(y.shape):
        raise ValueError(
            f"grad_ys for {path} must have the shape of that output, {y.shape}; found shape {tensor.shape}"
        )
    return tensor


def _session(session: Any, graph: Any) -> Any:
    """The session to read values from: the given one, or the default one where it is one of this graph."""
    if session is None:
        default = tf.compat.v1.get_default_session()
        return _open(default) if default is not None and default.graph is graph else None
    if not hasattr(session, "run") or not hasattr(session, "graph"):
        raise TypeError(f"session must be a tf.compat.v1.Session, found {type(session).__name__}")
    if graph.building_function:
        raise ValueError(
            "session must be None, for ys belong to a function that is being traced, which no session runs"
        )
    _open(session)
    if session.graph is not graph:
        raise ValueError(
            "session must be one of the graph of ys, found a session of another graph; write "
            "tf.compat.v1.Session(graph=ys.graph)"
        )
    return session


def _open(session: Any) -> Any:
    closed = session._is_closed() if hasattr(session, "_is_closed") else getattr(session, "_closed", False)
    if closed:
        raise ValueError("session must be open, found a closed one; call check_tf_gradients inside of `with session:`")
    return session


def _fed(feed_dict: Any, graph: Any) -> dict[str, Any]:
    if feed_dict is None:
        return {}
    if not isinstance(feed_dict, Mapping):
        raise TypeError(f"feed_dict must be a dict from tensors to values, found {type(feed_dict).__name__}")
    fed: dict[str, Any] = {}
    for key, value in feed_dict.items():
        key = key.deref() if hasattr(key, "deref") else key
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
        raise TypeError(
            f"feed_dict must give {plain_name(tensor)!r} an array, found a tensor; write value.numpy() or "
            "session.run(value)"
        )
    wanted = tensor.dtype.base_dtype
    array = np.asarray(value)
    if wanted.is_integer and array.dtype.kind in "fc":
        raise TypeError(
            f"feed_dict must give {plain_name(tensor)!r} values of dtype {wanted.name}, found dtype {array.dtype}"
        )
    if not tensor.shape.is_compatible_with(array.shape):
        raise ValueError(
            f"feed_dict must give {plain_name(tensor)!r} a value of shape {tensor.shape}, found shape {array.shape}"
        )
    return array.astype(wanted.as_numpy_dtype)
