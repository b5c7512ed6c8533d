"""A traced function at its base point: values, in the function's own dtype and in float64, as vectors of reals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradcheck._graph.evaluate import Runner, lendable, returning
from gradcheck._graph.program import Program, Return
from gradcheck._graph.trace import Output, Source, Traced
from gradcheck._graph.twin import is_narrow, narrow_inside, promote

Reals = NDArray[np.float64]


def as_reals(array: Any, lead: int = 0) -> Reals:
    """The entries as float64, [.., n], after `lead` axes that stay; a complex entry counts as two reals."""
    array = np.asarray(array)
    first = array.shape[:lead]  # taken before the view below, which doubles the last axis, be it one of these
    if array.dtype.kind == "c":
        array = np.ascontiguousarray(array.astype(np.complex128, copy=False)).view(np.float64)
    return np.ascontiguousarray(array, dtype=np.float64).reshape(*first, -1) if array.size else np.zeros((*first, 0))


def from_reals(reals: Reals, shape: Sequence[int], dtype: Any, lead: int = 0) -> Any:
    """The inverse of `as_reals`, in the given NumPy dtype; several arrays along `lead` first axes."""
    shape = (*reals.shape[:lead], *shape)
    if np.dtype(dtype).kind == "c":
        return np.ascontiguousarray(reals).view(np.complex128).reshape(shape).astype(dtype, copy=False)
    return reals.reshape(shape).astype(dtype, copy=False)


def wide_dtype(dtype: Any) -> Any:
    """The float64 or complex128 beside a NumPy dtype; others as they are."""
    dtype = np.dtype(dtype)
    if dtype.kind == "c":
        return np.dtype(np.complex128)
    return np.dtype(np.float64) if dtype.kind in "fV" or dtype.name == "bfloat16" else dtype


@dataclass(slots=True)
class Point:
    """A traced function where it is to be checked.

    Attributes:
        traced: The function.
        narrow: Whether anything in it is narrower than float64.
        unpromoted: Ops of the twin that still round in their own dtype.
        evaluations, gradients: How many runs were made so far.
    """

    traced: Traced
    narrow: bool = False
    unpromoted: tuple[str, ...] = ()
    evaluations: int = 0
    gradients: int = 0
    _wide_values: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.narrow = self.made("narrow", lambda: is_narrow(self.traced.program))
        if not self.narrow:
            self.unpromoted = self.made("narrow inside", lambda: narrow_inside(self.traced.program))

    def made(self, key: Any, make: Callable[[], Any]) -> Any:
        """What was made of the program under this key, now or when the same trace was checked before."""
        compiled = self.traced.compiled
        if key not in compiled:
            compiled[key] = make()
        return compiled[key]

    # ------------------------------------------------------------------------------------------- programs

    def program(self, wide: bool) -> Program:
        """The program in its own dtype, or its float64 twin (itself, where nothing is narrower)."""
        if not (wide and self.narrow):
            return self.traced.program
        plain = replace(self.traced.program, main=replace(self.traced.program.main, kept=()))
        made: tuple[Program, tuple[str, ...]] = self.made("twin", lambda: promote(plain))
        self.unpromoted = made[1]
        return made[0]

    def values(self, program: Program, wide: bool, extra: Mapping[str, Any] | None = None) -> list[Any]:
        """Values for the arguments of a program that was made from this point's; None for those that have none."""
        known = self._widened() if wide and self.narrow else self.traced.values
        extra = extra or {}
        return [extra[a.name] if a.name in extra else known.get(a.name) for a in program.main.args]

    def _widened(self) -> dict[str, Any]:
        if not self._wide_values:
            for name, value in self.traced.values.items():
                self._wide_values[name] = _widen(value)
        return self._wide_values

    def runner(
        self, key: Any, wide: bool, returns: Sequence[Return] | Sequence[int], *, sharing: bool = False
    ) -> Runner:
        """A runner for some values of the program, by their positions or as references; kept by key."""
        program = self.program(wide)

        def make() -> Runner:
            chosen = tuple(program.main.returns[r] if isinstance(r, int) else r for r in returns)
            whole = returning(program, replace(program.main, returns=chosen))
            return Runner(whole, alive=self.traced.graph, sharing=sharing)

        made: Runner = self.made(("runner", key, wide and self.narrow), make)
        return made

    # ---------------------------------------------------------------------------------------- base values

    def source_value(self, source: Source, wide: bool = True) -> Any:
        """The base value of an x, as an array."""
        if source.argument is not None:
            value = (self._widened() if wide and self.narrow else self.traced.values)[source.argument]
            return np.asarray(value.numpy() if hasattr(value, "numpy") else value)
        if source.ref is None:  # a variable that the function never reads
            return np.zeros(source.shape, wide_dtype(source.dtype.as_numpy_dtype))
        position = self.returned(source.ref)
        runner = self.runner(("source", source.ref), wide, [position])
        return runner.run(self.values(runner.program, wide))[0]

    def returned(self, ref: str) -> int:
        """The position at which the traced program returns a reference."""
        return next(i for i, r in enumerate(self.traced.program.main.returns) if r.ref == ref)

    def outputs_at_base(self, wide: bool) -> list[list[Any]]:
        """For each output, the values of its tensors."""
        positions = [p for o in self.traced.outputs for p in o.returns]
        runner = self.runner("outputs", wide, positions)
        flat = iter(runner.run(self.values(runner.program, wide)))
        self.evaluations += 1
        return [[next(flat) for _ in o.returns] for o in self.traced.outputs]


def _widen(value: Any) -> Any:
    array = value if isinstance(value, np.ndarray) else None
    if array is None:
        if (
            not hasattr(value, "dtype")
            or not hasattr(value, "numpy")
            or value.dtype.name in ("resource", "variant", "string")
        ):
            return value
        array = value.numpy()
    array = np.asarray(array)
    wide = wide_dtype(array.dtype)
    return lendable(array, wide) if array.dtype != wide else value


def size_of(output: Output, values: Sequence[Any]) -> int:
    """How many reals the tensors of an output hold together."""
    return sum(as_reals(v).size for v in values)
