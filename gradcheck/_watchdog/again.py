"""A step that tripped, run again to find the op."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gradcheck._diagnose.nonfinite import locate
from gradcheck._report.nonfinite import NonfiniteReport

NOT_AGAIN = "the op was not looked for: trips just before this one have named theirs"
_FINITE = (
    "run again op by op, the step was finite: it draws random numbers that cannot be repeated, or TensorFlow "
    "computes it differently where ops are fused"
)


def located(
    function: Any, arguments: Sequence[Any], keywords: Mapping[str, Any] | None = None
) -> tuple[NonfiniteReport | None, tuple[str, ...]]:
    """The op where a concrete function is not finite, at the state that variables have now; or None and why not."""
    try:
        report = locate(function, list(arguments), keywords=keywords)
    except Exception as error:  # whatever goes wrong in looking closer must not hide the trip
        first = str(error).strip().partition("\n")[0][:200]
        return None, (f"the op could not be located: {type(error).__name__}: {first}",)
    return (None, (_FINITE,)) if report.ok else (report, ())
