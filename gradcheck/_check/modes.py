"""The comparison of forward mode with reverse mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gradcheck._check.work import eps_of
from gradcheck._derivatives.forward import Products, forward_and_reverse
from gradcheck._results import EVERY_INPUT, Finding, Verdict

MEANING = (
    "forward mode agrees with reverse mode; that is evidence for a tf.custom_gradient, through which forward mode "
    "sees the ops inside, and none for TensorFlow's registered gradients, of which it is the transpose"
)


def compare_modes(
    fn: Callable[..., Any], inputs: Any, seed: int, dtype: str, variables: Sequence[Any] = ()
) -> tuple[list[Finding], list[str]]:
    """Findings where the two modes disagree, and notes.

    Args:
        fn: The function.
        inputs: Its inputs.
        seed: Of the direction.
        dtype: The narrowest dtype among the inputs, which sets the rounding.
        variables: Variables that move too.
    """
    try:
        products = forward_and_reverse(fn, inputs, seed, variables)
    except Exception as error:
        return [], [f"forward mode could not be run: {type(error).__name__}: {str(error).splitlines()[0][:160]}"]
    findings, notes = [], []
    for found in products:
        if found.forward is None or found.reverse is None:
            which = "forward" if found.forward is None else "reverse"
            notes.append(f"{which} mode gives None for {found.y}, and the other mode a value")
            continue
        allowed = eps_of(dtype) ** 0.5 * max(found.size, abs(found.reverse))
        if abs(found.forward - found.reverse) > allowed:
            findings.append(_disagreement(found, dtype, allowed))
        else:
            notes.append(MEANING)
    return findings, notes


def _disagreement(found: Products, dtype: str, allowed: float) -> Finding:
    return Finding(
        verdict=Verdict.MISMATCH,
        ok=False,
        y=found.y,
        x=EVERY_INPUT,
        analytic=found.reverse,
        numeric=found.forward,
        allowed=allowed,
        dtype=dtype,
        reason="forward mode and reverse mode disagree along a random direction; what is asked for is forward mode's "
        "(tf.autodiff.ForwardAccumulator)",
    )
