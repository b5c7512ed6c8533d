"""Analytic gradients: what TensorFlow's differentiation gives, for many cotangents in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradcheck._derivatives.point import Point, Reals, as_reals, from_reals, wide_dtype
from gradcheck._graph.evaluate import Runner
from gradcheck._graph.program import Program
from gradcheck._graph.trace import Output

_BATCH_BYTES = 2**26  # stacked gradients above this are computed one after the other


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradient:
    """Gradients of one output with respect to one x, for several cotangents."""

    value: Reals | None  # [cotangents, n] as reals; float32 ones stay so; None where TensorFlow gives None
    fault: str | None = None  # what is wrong with its shape or dtype


def analytic(
    point: Point, a: int, cotangents: Reals, shapes: Sequence[tuple[int, ...]], *, wide: bool,
    moved: dict[str, Any] | None = None, rounding: tuple[Any, Callable[[Program], Program]] | None = None,
) -> list[Gradient]:  # fmt: skip
    """Gradients of output `a` with respect to every x.

    Args:
        point: Where.
        a: Which output.
        cotangents: [k, m] reals over the tensors of the output, one after the other.
        shapes: Shapes of those tensors.
        wide: Whether in the float64 twin.
        rounding: Makes the program round otherwise; with a key, under which that is kept, or None.
        moved: Values per argument, stacked along a first axis of length k, that differ from the base.

    Returns:
        One Gradient per x.
    """
    output = point.traced.outputs[a]
    wanted = [p for parts in output.sliced if parts is not None for p in parts]
    faults = [output.faults[x].reason if x in output.faults else None for x in range(len(point.traced.sources))]
    if not wanted:
        return [Gradient(value=None, fault=fault) for fault in faults]
    runner = point.runner(("gradient", a), wide, wanted, sharing=True)
    if rounding is not None:
        runner = _rounding_otherwise(point, a, runner, *rounding)
    stacked = dict(zip(output.cotangents, _stack(point, output, cotangents, shapes, wide), strict=True))
    stacked.update(moved or {})
    point.gradients += len(cotangents)
    values = point.values(runner.program, wide)
    size = sum(int(np.prod(s.shape)) for s in point.traced.sources) * 8 * len(cotangents)
    if size > _BATCH_BYTES:
        names = [argument.name for argument in runner.program.main.args]
        runs = []
        for k in range(len(cotangents)):
            at = [stacked[n][k] if n in stacked else v for n, v in zip(names, values, strict=True)]
            runs.append(runner.run(at))
        flat = []
        for position in range(len(wanted)):
            parts = [run[position] for run in runs]
            flat.append(_stacked(parts))
            for run in runs:
                run[position] = None  # two copies of a large model's gradients are too many
    else:
        flat = runner.run_batch(stacked, values)
    by_position = dict(zip(wanted, flat, strict=True))
    return [
        _gradient([by_position[p] for p in parts], s, wide=wide and point.narrow)
        if parts is not None
        else Gradient(value=None, fault=fault)
        for parts, s, fault in zip(output.sliced, point.traced.sources, faults, strict=True)
    ]


def _rounding_otherwise(
    point: Point, a: int, runner: Runner, key: Any, rounding: Callable[[Program], Program]
) -> Runner:
    def make() -> Runner:
        return Runner(rounding(runner.program), alive=point.traced.graph, sharing=True)

    made: Runner = make() if key is None else point.made((key, a), make)
    return made


def _stacked(parts: list[Any]) -> Any:
    """One array along a new first axis; a single one is not copied, and slices of several lengths stay apart."""
    if len(parts) == 1:
        return parts[0][None]
    return np.stack(parts) if len({p.shape for p in parts}) == 1 else parts


def _stack(point: Point, output: Output, cotangents: Reals, shapes: Sequence[tuple[int, ...]], wide: bool) -> list[Any]:
    result, first = [], 0
    for position, shape in zip(output.returns, shapes, strict=True):
        dtype = np_dtype(point.program(wide).main.returns[position].dtype)
        n = int(np.prod(shape)) * (2 if dtype.kind == "c" else 1)
        result.append(from_reals(cotangents[:, first : first + n], shape, dtype, lead=1))
        first += n
    return result


def np_dtype(enum: int) -> Any:
    """The NumPy dtype of a protobuf type."""
    import tensorflow as tf

    return np.dtype(tf.as_dtype(enum).as_numpy_dtype)


def _gradient(parts: list[Any], source: Any, *, wide: bool) -> Gradient:
    values = parts[0]
    shape, dtype = source.shape, np.dtype(source.dtype.as_numpy_dtype)
    found = np.asarray(values)
    if found.dtype != (wide_dtype(dtype) if wide else dtype):
        return Gradient(value=None, fault=f"the gradient has dtype {found.dtype.name}, and x has dtype {dtype.name}")
    if len(parts) == 2:  # IndexedSlices: rows at indices, duplicates add up
        return Gradient(value=_densify(found, np.asarray(parts[1]), shape))
    if found.shape[1:] == () and not found.any():
        found = np.zeros((len(found), *shape), found.dtype)  # what tf.py_function gives in place of None
    if found.shape[1:] != shape:
        return Gradient(
            value=None, fault=f"the gradient has shape {list(found.shape[1:])}, and x has shape {list(shape)}"
        )
    # Millions of float32 entries are not widened in vain.
    value: Any = found.reshape(len(found), -1) if found.dtype == np.float32 else as_reals(found, lead=1)
    return Gradient(value=value)


def _densify(rows: Any, indices: Any, shape: tuple[int, ...]) -> Reals:
    wide = rows.astype(wide_dtype(rows.dtype))
    dense = np.zeros((len(rows), *shape), wide.dtype)
    for k in range(len(rows)):
        np.add.at(dense[k], indices[k], wide[k])
    return as_reals(dense, lead=1)
