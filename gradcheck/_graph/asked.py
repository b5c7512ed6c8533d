"""What is to be differentiated: outputs, cotangents and xs, from what the user gave and the function returned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck._errors import GraphUnavailable
from gradcheck._graph import structure
from gradcheck._graph.differentiate import ancestors, differentiate, name_of_x
from gradcheck._graph.reads import Read
from gradcheck._graph.trace import Asked, Gradients
from gradcheck._graph.values import Values


def outputs_of(
    result: Any, grad_ys: Any, graph: Any, name: str, fn: Any = None
) -> list[tuple[str, list[Any], list[Any]]]:
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
            f"return at least one tensor of a floating or complex dtype{_of_tape(fn, result)}"
        )
    given = _cotangents(grad_ys, [path for path, _ in outputs], [t for _, t in outputs], result)
    return [(path, [tensor], [cotangent]) for (path, tensor), cotangent in zip(outputs, given, strict=True)]


def _of_tape(fn: Any, result: Any) -> str:
    """What to write where a function that takes gradients gives None."""
    code = getattr(getattr(fn, "python_function", fn), "__code__", None)
    found = [leaf.value for leaf in structure.leaves(result, "")]
    if not found or any(value is not None for value in found) or "gradient" not in getattr(code, "co_names", ()):
        return ""
    return (
        "; tape.gradient gives None where the variable was read, or the value was computed, before "
        "`with tf.GradientTape()`: move that into it"
    )


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


def xs_of(
    placed: Sequence[tuple[str, Any, Any]],
    variables: Sequence[Read],
    wrt: Any,
    skipped: Sequence[str],
    inputs: Any,
    *,
    required: bool = True,
) -> list[tuple[str, Any]]:
    as_input = {id(x) for _, x, value in placed if value is None}
    others = [v for v in variables if id(v.variable) not in as_input]
    named = [(path, x) for path, x, _ in placed]
    named += [(v.path, v.variable) for v in others if v.trainable]
    frozen = [(v.path, v.variable) for v in others if not v.trainable]
    if wrt is None:
        if not named and required:
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
    wanted = wrt if isinstance(wrt, (list, tuple)) else [wrt]
    if not len(wanted):
        raise ValueError(
            "wrt must name at least one input or variable, found an empty list; leave it out for all of them"
        )
    selected = [each for w in wanted for each in _selected(w, named + frozen, inputs)]
    return list({path: (path, x) for path, x in selected}.values())


def _selected(wanted: Any, named: Sequence[tuple[str, Any]], inputs: Any) -> list[tuple[str, Any]]:
    """What one entry of wrt means: an input, all that is inside of one, or a variable."""
    if isinstance(wanted, str):
        found = _by_name(wanted, named, inputs)
    else:
        variable = structure.variable_of(wanted)
        values = {id(leaf.value): leaf.path for leaf in structure.leaves(inputs, "inputs")}
        found = [(path, x) for path, x in named if x is variable or values.get(id(wanted)) == path][:1]
    if found:
        return found
    known = ", ".join(path for path, _ in named)
    what = repr(wanted) if isinstance(wanted, str) else f"{_article(type(wanted).__name__)} that is none of them"
    instead = ""
    if isinstance(wanted, (int, np.integer)) and not isinstance(wanted, bool):
        what, instead = f"the number {wanted}", f'; the input at a position is written wrt="inputs[{wanted}]"'
    if isinstance(wanted, tf.Variable):
        instead = (
            "; read it inside the function, for a value that was read outside of it is a constant there (none of the "
            "function's constants looks like it, or like something simple that was computed from it)"
        )
    raise ValueError(f"wrt must name inputs or variables of the function: {known}; found {what}{instead}")


def _by_name(wanted: str, named: Sequence[tuple[str, Any]], inputs: Any) -> list[tuple[str, Any]]:
    exact = [(path, x) for path, x in named if path == wanted]
    keyed = f"inputs[{wanted!r}]" if isinstance(inputs, Mapping) and wanted in inputs else wanted
    if exact and keyed != wanted:
        raise ValueError(
            f'wrt={wanted!r} names an input and a variable; write wrt="{keyed}" for the input, or pass the variable'
        )
    return exact or [(path, x) for path, x in named if path == keyed or path.startswith((f"{keyed}[", f"{keyed}."))]


def _article(name: str) -> str:
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def shown_of(asked: Asked, result: Any, graph: Any, name: str) -> list[list[Any]]:
    """The tensors of a surrogate's result that stand in for each output.

    Raises:
        ValueError: If they do not match the outputs one by one; the text says where.
    """
    found = [(path, tensors) for path, tensors, _ in outputs_of(result, None, graph, name)]
    ours = [(path, tensors) for path, tensors, _ in asked.outputs]
    kinds = [[(path, t.dtype.name, t.shape) for path, (t,) in one] for one in (ours, found)]
    fits = len(found) == len(ours) and all(
        a[:2] == b[:2] and a[2].is_compatible_with(b[2]) for a, b in zip(*kinds, strict=True)
    )
    if not fits:
        texts = [", ".join(f"{path} {dtype} {shape}" for path, dtype, shape in one) for one in kinds]
        raise ValueError(f"surrogate must return what fn returns, {texts[0]}; found {texts[1]}")
    return [tensors for _, tensors in found]


def refuse_with_gradients(grad_ys: Any, wrt: Any) -> None:
    for key, value in (("grad_ys", grad_ys), ("wrt", wrt)):
        if value is not None:
            raise ValueError(
                f"{key} was given, and the function returns gradcheck.Gradients, which says that itself; "
                f"leave {key} out and put it into the Gradients ({'grad_ys' if key == 'grad_ys' else 'xs'}=...)"
            )


def asked_by_gradients(result: Gradients, placed: Sequence[tuple[str, Any, Any]], variables: Sequence[Read]) -> Asked:
    ys = _listed(result.ys)
    xs = _listed(result.xs)
    stops = _listed(result.stop_gradients) if result.stop_gradients is not None else []
    if not ys or not xs:
        raise ValueError(f"Gradients needs at least one y and one x, found {len(ys)} ys and {len(xs)} xs")
    given = _listed(result.grad_ys) if result.grad_ys is not None else [None] * len(ys)
    if len(given) != len(ys):
        raise ValueError(f"grad_ys must have one entry (or None) per y: {len(ys)} ys, found {len(given)} in grad_ys")
    known = {id(x): path for path, x, _ in placed} | {id(v.variable): v.path for v in variables}
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
            _refuse_loops_v1(graph, tensors, xs)
            built = differentiate(graph, tensors, xs, cotangents, asked.stops)
            for (x_path, _), gradient in zip(asked.xs, built.gradients, strict=True):
                if gradient is not None:
                    outputs.append((f"gradient of {path} w.r.t. {x_path}", [tf.convert_to_tensor(gradient)], [None]))
    if not outputs:
        raise ValueError("order=2 needs a first gradient, and every gradient is None")
    return Asked(outputs=outputs, xs=asked.xs, stops=asked.stops, unconnected=asked.unconnected)


def _refuse_loops_v1(graph: Any, ys: Sequence[Any], xs: Sequence[Any]) -> None:
    """Refuse what TensorFlow differentiates once only, and silently not at all the second time."""
    names, used = {(id(graph), name_of_x(graph, x)) for x in xs}, ancestors(ys)
    for op in graph.get_operations():
        entered = op.type in ("Enter", "RefEnter") and (id(graph), op.outputs[0].name) in used
        if entered and names & ancestors(op.inputs):
            raise GraphUnavailable(
                f"order=2 needs the gradient of a gradient, and TensorFlow has none for loops of control flow v1 such "
                f"as the one that {op.name!r} belongs to; call tf.compat.v1.enable_control_flow_v2() before the graph "
                "is built"
            )


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


def _signs(rng: np.random.Generator, tensor: Any) -> Any:
    if tensor.shape.is_fully_defined():
        return tf.constant(rng.choice([-1.0, 0.5, 1.0], tensor.shape.as_list()), tensor.dtype)
    drawn = tf.random.stateless_uniform(tf.shape(tensor), rng.integers(0, 2**31, 2), 0, 3, tf.int32)
    return tf.gather(tf.constant([-1.0, 0.5, 1.0], tensor.dtype), drawn)
