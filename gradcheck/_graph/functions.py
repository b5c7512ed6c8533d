"""A Python callable, traced: what the user's function computes, and with respect to what it is differentiated."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from gradcheck._graph import structure
from gradcheck._graph.copies import Copy
from gradcheck._graph.memory import fingerprint, recall, remember
from gradcheck._graph.trace import Asked, Gradients, Traced, finish, place_inputs, with_values
from gradcheck._graph.values import Values


def trace_function(
    fn: Callable[..., Any], inputs: Any, *, grad_ys: Any = None, wrt: Any = None, name: str | None = None,
    order: int = 1, seed: int = 0,
) -> Traced:  # fmt: skip
    """Trace a callable at the given inputs, with its gradients.

    Args:
        fn: What to call.
        inputs: A list or tuple is positional arguments, a dict keyword arguments, anything else one argument.
        grad_ys: None, or cotangents in the structure of the outputs.
        wrt: None, "inputs", or names, tensors and variables.
        name: What to call the function; default its own name.
        order: 2 makes the gradients of the function the outputs.
        seed: Of the cotangents of those gradients, with order 2.

    Raises:
        TypeError, ValueError: If the outputs, `grad_ys` or `wrt` cannot be used; the text says why.
    """
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a string or None; got name={name!r}")
    name = name or name_of(fn)
    notes: list[str] = []
    arrays = [leaf.value for leaf in structure.leaves(inputs, "") if isinstance(leaf.value, np.ndarray)]
    copies = [a.copy() for a in arrays]
    graph, placed, result, skipped = _call(fn, inputs, name, notes)
    _give_back(arrays, copies, name, notes)
    variables = _variables_read(graph, fn)
    if isinstance(result, Gradients):
        _refuse_with_gradients(grad_ys, wrt)
        asked = _asked_by_gradients(result, placed, variables)
    else:
        outputs = _outputs(result, grad_ys, graph, name)
        xs = _xs(placed, variables, wrt, skipped, inputs)
        asked = Asked(outputs=outputs, xs=xs, stops=[])
    if isinstance(graph, Copy):
        asked.xs = [(path, graph.x_of(x)) for path, x in asked.xs]
    feeds = [(tensor, value) for _, tensor, value in placed if value is not None]
    key = fingerprint(graph, asked, (name, order, seed, tuple(skipped)))
    lasting = not notes and not isinstance(graph, Copy)
    known = recall(fn, key) if lasting else None
    if known is not None:
        externals = [external for external, _ in graph.captures]
        return with_values(known, [v for _, v in feeds], externals, Values(), [g for _, _, g in asked.outputs])
    if order == 2:
        asked = gradients_as_outputs(graph, asked, seed)
    traced = finish(graph, name, asked, feeds, Values(), skipped, notes)
    if lasting and not any(name.startswith("drawn_") for name in traced.values):
        remember(fn, key, traced)
    return traced


def _give_back(arrays: Sequence[Any], copies: Sequence[Any], name: str, notes: list[str]) -> None:
    """Undo what fn did to the user's arrays."""
    for array, copy in zip(arrays, copies, strict=True):
        if array.tobytes() != copy.tobytes():
            array[...] = copy
            notes.append(f"{name} changes an array among its inputs in place; it was given its values back")


def name_of(fn: Any) -> str:
    """What to call a callable: its __name__, or the name of its class."""
    name = getattr(fn, "__name__", None) or getattr(fn, "name", None)
    return name if isinstance(name, str) else type(fn).__name__


# ----------------------------------------------------------------------------------------------- calling it


@contextmanager
def python_state_kept() -> Iterator[None]:
    """A scope that gives Python's and NumPy's random states back."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


@contextmanager
def _tracing() -> Iterator[None]:
    """A scope for calling fn: random states are kept, and TensorFlow's logger speaks of errors only."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # AutoGraph warns of what is then run eagerly, and so reported by us
    try:
        with python_state_kept():
            yield
    finally:
        logger.setLevel(level)


def _call(fn: Callable[..., Any], inputs: Any, name: str, notes: list[str]) -> tuple[Any, Any, Any, list[str]]:
    with _tracing():
        try:
            return _in_graph(fn, inputs)
        except Exception as error:
            first = error
        eager = _eager_outputs(fn, inputs, name) if tf.executing_eagerly() else None
    with _tracing():
        try:
            converted = tf.__internal__.autograph.tf_convert(fn, tf.__internal__.autograph.control_status_ctx())
            return _in_graph(converted, inputs)
        except Exception:
            if eager is None:
                raise first from None
        notes.append(
            f"{name} cannot be traced ({type(first).__name__}: {str(first).splitlines()[0][:120]}); it was called "
            "eagerly, "
            "through tf.py_function: in its own dtype, and without the variables it reads"
        )
        return _in_graph(_through_python(fn, inputs, eager), inputs)


def _in_graph(fn: Callable[..., Any], inputs: Any) -> tuple[Any, Any, Any, list[str]]:
    # In a graph of the user's, what fn reads of it is copied: gradients then pass through it, and values are read once.
    graph = FuncGraph("gradcheck") if tf.executing_eagerly() else Copy(tf.compat.v1.get_default_graph(), {})
    with graph.as_default():
        arguments, placed, skipped = place_inputs(graph, inputs, "inputs")
        result = apply(fn, arguments, inputs)
    return graph, placed, result, skipped


def apply(fn: Callable[..., Any], arguments: Any, inputs: Any) -> Any:
    """Call fn with arguments of the structure of `inputs`: positional, by keyword, or one."""
    if isinstance(inputs, Mapping):
        return fn(**arguments)
    if isinstance(inputs, (list, tuple)) and not hasattr(inputs, "_fields"):
        return fn(*arguments)
    return fn(arguments)


def _eager_outputs(fn: Callable[..., Any], inputs: Any, name: str) -> Any:
    """Call fn eagerly; an error is the user's, and comes through with a note on which call it was."""
    with kept_variables(fn, inputs):
        return _eagerly(fn, inputs, name)


@contextmanager
def kept_variables(fn: Any, inputs: Any) -> Iterator[None]:
    """A scope that gives variables their values back: those among the inputs, and those that fn holds."""
    owners = [*_owners(fn), *(leaf.value for leaf in structure.leaves(inputs, ""))]
    found = [structure.variable_of(v) for owner in owners for v in _variables_of(owner)]
    variables = {id(v): v for v in found if v is not None}.values()
    saved = [(v, v.numpy()) for v in variables if tf.executing_eagerly()]
    try:
        yield
    finally:
        for variable, value in saved:
            if variable.numpy().tobytes() != value.tobytes():
                variable.assign(value)


def _eagerly(fn: Callable[..., Any], inputs: Any, name: str) -> Any:
    try:
        arguments = structure.rebuild(inputs, lambda v: tf.convert_to_tensor(v) if _is_array(v) else v)
        return apply(fn, arguments, inputs)
    except Exception as error:
        if hasattr(error, "add_note"):
            error.add_note(f"gradcheck: raised by {name} when called at the given inputs, before any check")
        raise


def _is_array(value: Any) -> bool:
    return structure.is_continuous(value) and structure.variable_of(value) is None


def _through_python(fn: Callable[..., Any], inputs: Any, eager: Any) -> Callable[..., Any]:
    """fn as one op that runs it eagerly and is differentiated by a tape inside."""
    if isinstance(eager, Gradients):
        raise TypeError("a function that returns gradcheck.Gradients must be traceable: it names tensors of a graph")
    flat = [leaf.value for leaf in structure.leaves(inputs, "")]
    moving = [i for i, value in enumerate(flat) if _is_array(value)]
    specs = [tf.convert_to_tensor(leaf.value) for leaf in structure.leaves(eager, "")]

    def run(*tensors: Any) -> list[Any]:
        values = list(flat)
        for i, tensor in zip(moving, tensors, strict=True):
            values[i] = tensor
        rest = iter(values)
        outputs = apply(fn, structure.rebuild(inputs, lambda _: next(rest)), inputs)
        return [tf.convert_to_tensor(leaf.value) for leaf in structure.leaves(outputs, "")]

    def call(*args: Any, **kwargs: Any) -> Any:
        given = kwargs if isinstance(inputs, Mapping) else args
        single = not isinstance(inputs, (Mapping, list, tuple))
        tensors = [leaf.value for leaf in structure.leaves(args[0] if single else given, "")]
        outputs = tf.py_function(run, [tensors[i] for i in moving], [s.dtype for s in specs])
        for output, spec in zip(outputs, specs, strict=True):
            output.set_shape(spec.shape)
        rest = iter(outputs)
        return structure.rebuild(eager, lambda _: next(rest))

    return call


# -------------------------------------------------------------------------------- what it reads and returns


def _variables_read(graph: Any, fn: Any) -> list[tuple[str, Any]]:
    """Paths and variables of all that was read, in the order of first use."""
    watched = {id(v.handle): v for v in graph._watched_variables}
    paths = _keras_paths(fn)
    found, taken = [], set()
    read = [watched.get(id(external)) for external, _ in graph.captures]
    read += graph.variables() if isinstance(graph, Copy) else []
    for variable in {id(v): v for v in read}.values():
        if variable is not None:
            path = paths.get(id(variable), variable.name.removesuffix(":0"))
            unique, n = path, 2
            while unique in taken:
                unique, n = f"{path}#{n}", n + 1
            taken.add(unique)
            found.append((unique, variable))
    return found


def _keras_paths(fn: Any) -> dict[int, str]:
    """Keras' paths of the variables that fn holds: as a layer or model, a bound method, in its closure or globals."""
    paths: dict[int, str] = {}
    for owner in _owners(fn):
        for variable in _variables_of(owner):
            inner = structure.variable_of(variable)
            if inner is not None and isinstance(getattr(variable, "path", None), str):
                paths[id(inner)] = variable.path
    return paths


def _owners(fn: Any) -> list[Any]:
    """What fn holds that may hold variables: itself, the object it is bound to, its closure and its globals."""
    inner = getattr(fn, "python_function", fn)
    owners = [fn, getattr(fn, "__self__", None), getattr(inner, "__self__", None)]
    for cell in getattr(inner, "__closure__", None) or ():
        try:
            owners.append(cell.cell_contents)
        except ValueError:  # a cell that is not filled yet
            continue
    code, scope = getattr(inner, "__code__", None), getattr(inner, "__globals__", {})
    owners += [scope[n] for n in getattr(code, "co_names", ()) if n in scope]
    return [part for owner in owners for part in (owner if isinstance(owner, (list, tuple)) else [owner])]


def _variables_of(owner: Any) -> Sequence[Any]:
    if owner is None or isinstance(owner, (type, str)) or not hasattr(type(owner), "variables"):
        return [owner] if structure.variable_of(owner) is not None else []
    if type(owner).__module__.partition(".")[0] == "numpy":
        return []
    found = owner.variables
    return found if isinstance(found, (list, tuple)) else []


def _outputs(result: Any, grad_ys: Any, graph: Any, name: str) -> list[tuple[str, list[Any], list[Any]]]:
    several = isinstance(result, (list, tuple, Mapping))
    outputs = []
    with graph.as_default():
        for leaf in structure.leaves(result, "outputs" if several else "output"):
            if leaf.value is None or isinstance(leaf.value, (str, bytes)):
                continue
            if structure.is_continuous(leaf.value):
                outputs.append((leaf.path, tf.convert_to_tensor(_read(leaf.value))))
    if not outputs:
        found = [f"{leaf.path}: {structure.dtype_name(leaf.value)}" for leaf in structure.leaves(result, "output")]
        raise ValueError(
            f"{name} returned nothing that can be differentiated: found {', '.join(found) or 'no output'}; "
            "return at least one tensor of a floating or complex dtype"
        )
    given = _cotangents(grad_ys, [path for path, _ in outputs], [t for _, t in outputs], result)
    return [(path, [tensor], [cotangent]) for (path, tensor), cotangent in zip(outputs, given, strict=True)]


def _read(value: Any) -> Any:
    variable = structure.variable_of(value)
    return value if variable is None else variable


def _cotangents(grad_ys: Any, paths: Sequence[str], tensors: Sequence[Any], result: Any) -> list[Any]:
    if grad_ys is None:
        return [None] * len(tensors)
    if len(tensors) == 1 and not isinstance(result, (list, tuple, Mapping)):
        given = [grad_ys]
    else:
        by_path = {leaf.path: leaf.value for leaf in structure.leaves(grad_ys, "outputs")}
        extra = [p for p, v in by_path.items() if p not in paths and v is not None]
        if extra or any(p not in by_path for p in paths):
            raise ValueError(
                f"grad_ys must have the structure of the outputs, {', '.join(paths)}; "
                f"found {type(grad_ys).__name__} with {', '.join(by_path) or 'nothing'}; use None for an output "
                "without "
                "a cotangent"
            )
        given = [by_path[p] for p in paths]
    return [check_cotangent(g, t, p) for g, t, p in zip(given, tensors, paths, strict=True)]


def check_cotangent(value: Any, tensor: Any, path: str) -> Any:
    """The cotangent as an array of the tensor's dtype; None stays None.

    Raises:
        ValueError: If its shape or dtype does not fit, or it is not finite.
    """
    if value is None:
        return None
    if tf.is_tensor(value) and not isinstance(value, tf.__internal__.EagerTensor):
        # Not tf.get_static_value for a graph that is not ours: it would forbid feeding what it looked at.
        value = tf.get_static_value(value) if value.graph.building_function else Values().value(value)
    if value is None:
        raise TypeError(
            f"grad_ys for {path} must be a value (a number, an array, an eager tensor), found a tensor of a graph"
        )
    array = np.asarray(value.numpy() if hasattr(value, "numpy") else value)
    wanted = tensor.dtype.as_numpy_dtype
    if not tensor.shape.is_compatible_with(array.shape):
        raise ValueError(
            f"grad_ys for {path} must have the shape of that output, {tensor.shape}; found shape {array.shape}"
        )
    exact_dtype = hasattr(value, "dtype") and tf.is_tensor(value)
    if array.dtype.kind not in "fciub" and array.dtype != wanted:
        raise ValueError(f"grad_ys for {path} must be numbers of dtype {tensor.dtype.name}, found dtype {array.dtype}")
    if (exact_dtype and array.dtype != wanted) or (array.dtype.kind == "c" and not tensor.dtype.is_complex):
        raise ValueError(
            f"grad_ys for {path} must have the dtype of that output, {tensor.dtype.name}; found {array.dtype}; "
            f"write tf.cast(value, {tensor.dtype.name!r})"
        )
    converted = array.astype(wanted)
    if not np.all(np.isfinite(converted.astype(np.complex128))):
        raise ValueError(f"grad_ys for {path} must be finite, found NaN or infinity")
    return converted


# ------------------------------------------------------------------------------------ with respect to what


def _xs(
    placed: Sequence[tuple[str, Any, Any]],
    variables: Sequence[tuple[str, Any]],
    wrt: Any,
    skipped: Sequence[str],
    inputs: Any,
) -> list[tuple[str, Any]]:
    as_input = {id(x) for _, x, value in placed if value is None}
    named = [(path, x) for path, x, _ in placed]
    named += [(path, v) for path, v in variables if v.trainable and id(v) not in as_input]
    frozen = [(path, v) for path, v in variables if not v.trainable and id(v) not in as_input]
    if wrt is None:
        if not named:
            raise ValueError(
                "nothing to differentiate with respect to: no input is floating or complex, and no trainable "
                "variable is read; "
                f"found {', '.join(skipped) or 'no inputs'}; pass a floating tensor, e.g. tf.constant(1.0)"
            )
        return named
    if isinstance(wrt, str) and wrt == "inputs" and not (len(placed) == 1 and placed[0][0] == "inputs"):
        if not placed:
            raise ValueError(
                f'wrt="inputs" needs a floating or complex input, found {", ".join(skipped) or "no inputs"}'
            )
        return [(path, x) for path, x, _ in placed]
    values = {id(leaf.value): leaf.path for leaf in structure.leaves(inputs, "inputs")}
    wanted = wrt if isinstance(wrt, (list, tuple)) else [wrt]
    if not len(wanted):
        raise ValueError(
            "wrt must name at least one input or variable, found an empty list; leave it out for all of them"
        )
    return [_selected(w, named + frozen, values) for w in wanted]


def _selected(wanted: Any, named: Sequence[tuple[str, Any]], values: Mapping[int, str]) -> tuple[str, Any]:
    variable = structure.variable_of(wanted)
    for path, x in named:
        if isinstance(wanted, str) and wanted == path:
            return path, x
        if not isinstance(wanted, str) and (x is variable or values.get(id(wanted)) == path):
            return path, x
    known = ", ".join(path for path, _ in named)
    what = repr(wanted) if isinstance(wanted, str) else f"a {type(wanted).__name__} that is none of them"
    raise ValueError(f"wrt must name inputs or variables of the function: {known}; found {what}")


def _refuse_with_gradients(grad_ys: Any, wrt: Any) -> None:
    for key, value in (("grad_ys", grad_ys), ("wrt", wrt)):
        if value is not None:
            raise ValueError(
                f"{key} was given, and the function returns gradcheck.Gradients, which says that itself; "
                f"leave {key} out and put it into the Gradients ({'grad_ys' if key == 'grad_ys' else 'xs'}=...)"
            )


def _asked_by_gradients(
    result: Gradients, placed: Sequence[tuple[str, Any, Any]], variables: Sequence[tuple[str, Any]]
) -> Asked:
    ys = _listed(result.ys)
    xs = _listed(result.xs)
    stops = _listed(result.stop_gradients) if result.stop_gradients is not None else []
    if not ys or not xs:
        raise ValueError(f"Gradients needs at least one y and one x, found {len(ys)} ys and {len(xs)} xs")
    given = _listed(result.grad_ys) if result.grad_ys is not None else [None] * len(ys)
    if len(given) != len(ys):
        raise ValueError(f"grad_ys must have one entry (or None) per y: {len(ys)} ys, found {len(given)} in grad_ys")
    known = {id(x): path for path, x, _ in placed} | {id(v): path for path, v in variables}
    named = []
    for key, tensors in (("ys", ys), ("stop_gradients", stops)):
        for i, tensor in enumerate(tensors):
            if not tf.is_tensor(tensor) and structure.variable_of(tensor) is None:
                raise TypeError(f"{key}[{i}] of Gradients must be a tensor, found {type(tensor).__name__}")
    for i, x in enumerate(xs):
        if not tf.is_tensor(x) and structure.variable_of(x) is None:
            raise TypeError(f"xs[{i}] must be a tensor or a variable, found {type(x).__name__}")
        variable = structure.variable_of(x)
        named.append((known.get(id(x if variable is None else variable), f"xs[{i}]"), x))
    path = "ys" if len(ys) > 1 else "output"
    cotangents = [check_cotangent(g, t, f"ys[{i}]") for i, (g, t) in enumerate(zip(given, ys, strict=True))]
    return Asked(
        outputs=[(path, ys, cotangents)],
        xs=named,
        stops=stops,
        unconnected=unconnected_name(result.unconnected_gradients),
    )


def gradients_as_outputs(graph: Any, asked: Asked, seed: int) -> Asked:
    """The gradients themselves as what is differentiated, with the same xs."""
    rng = np.random.default_rng(seed)
    outputs: list[tuple[str, list[Any], list[Any]]] = []
    with graph.as_default():
        for path, tensors, given in asked.outputs:
            cotangents = [
                _signs(rng, t) if g is None else tf.constant(g, t.dtype) for t, g in zip(tensors, given, strict=True)
            ]
            xs = [structure.variable_of(x) if structure.variable_of(x) is not None else x for _, x in asked.xs]
            gradients = tf.gradients(tensors, xs, grad_ys=cotangents, stop_gradients=asked.stops or None)
            for (x_path, _), gradient in zip(asked.xs, gradients, strict=True):
                if gradient is not None:
                    outputs.append((f"gradient of {path} w.r.t. {x_path}", [tf.convert_to_tensor(gradient)], [None]))
    if not outputs:
        raise ValueError("order=2 needs a first gradient, and every gradient is None")
    return Asked(outputs=outputs, xs=asked.xs, stops=asked.stops, unconnected=asked.unconnected)


def _signs(rng: np.random.Generator, tensor: Any) -> Any:
    if tensor.shape.is_fully_defined():
        return tf.constant(rng.choice([-1.0, 0.5, 1.0], tensor.shape.as_list()), tensor.dtype)
    drawn = tf.random.stateless_uniform(tf.shape(tensor), rng.integers(0, 2**31, 2), 0, 3, tf.int32)
    return tf.gather(tf.constant([-1.0, 0.5, 1.0], tensor.dtype), drawn)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def unconnected_name(value: Any) -> str:
    """ "none" or "zero", from a string or from tf.UnconnectedGradients.

    Raises:
        ValueError: If it is neither.
    """
    name = getattr(value, "value", value)
    if name not in ("none", "zero"):
        raise ValueError(f'unconnected_gradients must be "none" or "zero", got {value!r}')
    return str(name)
