"""The options of a check, validated before anything runs."""

from __future__ import annotations

import math
import numbers
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

MODES = ("auto", "directional", "elementwise", "jacobian")
SAFETY = 10.0  # times the numeric error: measured over 660 unseen cases, docs/numerics.md


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked for, in one form."""

    mode: str = "auto"
    order: int = 1
    second: bool = False  # whether what is checked is a gradient
    rtol: float | None = None
    directions: int = 4
    seed: int = 0
    forward: bool = False
    all_named: bool = True  # whether wrong entries are named even where a direction shows enough

    def changed(self) -> list[str]:
        """What differs from the defaults, as it would be written; without the seed."""
        defaults = Options()
        keys = ("mode", "order", "rtol", "directions", "forward")
        return [f"{k}={getattr(self, k)!r}" for k in keys if getattr(self, k) != getattr(defaults, k)]


def options(
    *, mode: Any = "auto", order: Any = 1, rtol: Any = None, directions: Any = 4, seed: Any = 0, forward: Any = False
) -> Options:
    """The options, or an error that says what to write instead.

    Raises:
        ValueError: If a value is out of range.
        TypeError: If a value is of the wrong type.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(map(repr, MODES))}; got mode={mode!r}")
    _whole("order", order, 1)
    if order > 2:
        raise ValueError(f"order must be 1 or 2; got order={order!r}")
    _whole("directions", directions, 1)
    _whole("seed", seed, 0)
    if rtol is not None:
        if isinstance(rtol, bool) or not isinstance(rtol, numbers.Real):
            raise TypeError(f"rtol must be a positive number or None; got rtol={rtol!r}")
        rtol = float(rtol)
        if not (math.isfinite(rtol) and rtol > 0):
            raise ValueError(f"rtol must be a positive finite number, e.g. rtol=1e-6; got rtol={rtol!r}")
    if not isinstance(forward, bool):
        raise TypeError(f"forward must be True or False; got forward={forward!r}")
    return Options(mode=mode, order=int(order), rtol=rtol, directions=int(directions), seed=int(seed), forward=forward)


def verdict_only(asked: Options) -> Options:
    """The options for an op alone, of which only is asked whether it is wrong."""
    return replace(asked, mode="directional", order=1, forward=False, all_named=False)


def required_executor(executor: Any) -> Executor | None:
    """The executor, or an error that says what to write instead.

    Raises:
        TypeError: If it is none.
        ValueError: If its workers would be forked from this process.
    """
    if executor is None or isinstance(executor, Executor):
        context = getattr(executor, "_mp_context", None)
        if context is not None and context.get_start_method() == "fork":
            raise ValueError(
                "executor forks its processes, and TensorFlow does not work in a fork of a process that has used it; "
                'write ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"))'
            )
        return executor
    instead = "client.get_executor()" if hasattr(executor, "get_executor") else "ThreadPoolExecutor(), say"
    raise TypeError(
        f"executor must be a concurrent.futures.Executor or None; got {type(executor).__name__}; write {instead}"
    )


def called(name: Any, default: str) -> str:
    """What to call the subject of a check.

    Raises:
        TypeError: If the user's name for it is no string.
    """
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a string or None; got name={name!r}")
    return name or default


def _whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be a whole number; got {name}={value!r}")
    if int(value) < least:
        raise ValueError(f"{name} must be at least {least}; got {name}={value!r}")
