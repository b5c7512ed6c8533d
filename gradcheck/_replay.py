"""A bundle, run again: its own graph, or the user's step as it is now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from gradcheck._bundle.reading import Bundle, read_bundle
from gradcheck._diagnose.nonfinite import report_on
from gradcheck._errors import BundleDamaged, GraphUnavailable
from gradcheck._graph.rerun import Given, Rerun, of_concrete, with_variables
from gradcheck._report.nonfinite import NonfiniteReport

# What a session reads from a variable is fed to what is run again.
_OF_SESSION = ": in a bundle that a session's hook wrote, what was read from variables is part of the batch"


def replay(path: str | Path, step: Callable[..., Any] | None = None) -> tuple[Bundle, NonfiniteReport]:
    """Read a bundle and run the step in it once more, on the batch and the variables that it holds.

    Args:
        path: The bundle.
        step: A training step to run in place of the bundle's graph: called with the tensors of the batch, in order. Its
            variables take the stored values of those of the same name or, where names differ, in the same order.

    Returns:
        The bundle, with the report it was written with, and the report of this run.

    Raises:
        BundleDamaged: If the bundle cannot be used.
        GraphUnavailable: If it holds no graph and no `step` is given.
        ValueError: If the variables or arguments of `step` are not those of the bundle.
    """
    bundle = read_bundle(path)
    if step is not None:
        return bundle, _of_step(bundle, step)
    if bundle.rerun is None:
        raise GraphUnavailable(
            f"{str(path)!r} holds no graph, for {bundle.without}; give the step itself: "
            "gradcheck replay BUNDLE module:function"
        )
    try:
        return bundle, _report_on(bundle.rerun, bundle)
    except (tf.errors.OpError, KeyError, IndexError, ValueError, TypeError, RecursionError, StopIteration) as error:
        raise BundleDamaged(f"graph.pb cannot be run: {type(error).__name__}: {str(error)[:200]}") from error


def _of_step(bundle: Bundle, step: Callable[..., Any]) -> NonfiniteReport:
    batch = [given.value for given in bundle.given if given.variable is None]
    function = step if hasattr(step, "get_concrete_function") else tf.function(step)
    concrete, taken = _traced(function, batch)
    rerun = of_concrete(concrete, batch[:taken], None, None)
    stored = [given for given in bundle.given if given.variable is not None]
    return _report_on(with_variables(rerun, _matched([g for g in rerun.given if g.variable], stored)), bundle)


def _report_on(rerun: Rerun, bundle: Bundle) -> NonfiniteReport:
    """The report, in search of what was found then: it need not have reached anything."""
    return report_on(rerun, tests=True, anywhere=not bundle.report.ok and not bundle.report.reaches)


def _traced(function: Any, batch: Sequence[Any]) -> tuple[Any, int]:
    """The step traced on the batch; what a graph captured besides stands behind the batch among its arguments."""
    failure: Exception | None = None
    for taken in range(len(batch), -1, -1):
        try:
            return function.get_concrete_function(*batch[:taken]), taken
        except (TypeError, ValueError) as error:
            failure = failure or error
    raise ValueError(
        f"the step must take the batch as {len(batch)} tensors at most, in the order of the bundle: "
        f"{(str(failure).splitlines() or [''])[0][:200]}"
    ) from failure


def _matched(own: Sequence[Given], stored: Sequence[Given]) -> list[Given]:
    """The stored variables in the order of the step's own."""
    names = [given.label for given in stored]
    if len(set(names)) == len(names) and all(given.label in names for given in own):
        matched = [stored[names.index(given.label)] for given in own]
    else:
        matched = list(stored)
    shapes = [[tuple(g.value.shape) if g.value is not None else None for g in each] for each in (own, matched)]
    if len(own) != len(matched) or shapes[0] != shapes[1]:
        raise ValueError(
            f"the step must read the variables of the bundle, {', '.join(names) or 'none'}; found "
            f"{', '.join(given.label for given in own) or 'none'}{'' if names else _OF_SESSION}"
        )
    return matched
