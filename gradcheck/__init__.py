"""Tells, with proof, whether a TensorFlow gradient is right.

Importing this package costs milliseconds: TensorFlow is imported at the first use of a name that needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradcheck import strategies as strategies
    from gradcheck import subjects as subjects
    from gradcheck._check.compute import compute_gradient as compute_gradient
    from gradcheck._check.compute import max_error as max_error
    from gradcheck._check.gradients import assert_gradients as assert_gradients
    from gradcheck._check.gradients import check_gradients as check_gradients
    from gradcheck._check.tf_gradients import assert_tf_gradients as assert_tf_gradients
    from gradcheck._check.tf_gradients import check_tf_gradients as check_tf_gradients
    from gradcheck._errors import GradientMismatch as GradientMismatch
    from gradcheck._graph.trace import Gradients as Gradients
    from gradcheck._report.gradient import GradientReport as GradientReport
    from gradcheck._results import Finding as Finding
    from gradcheck._results import Verdict as Verdict
    from gradcheck._version import __version__ as __version__

__all__ = [
    "Finding",
    "GradientMismatch",
    "GradientReport",
    "Gradients",
    "Verdict",
    "__version__",
    "assert_gradients",
    "assert_tf_gradients",
    "check_gradients",
    "check_tf_gradients",
    "compute_gradient",
    "max_error",
    "strategies",
    "subjects",
]

_HOME = {
    "Finding": "_results",
    "GradientMismatch": "_errors",
    "GradientReport": "_report.gradient",
    "Gradients": "_graph.trace",
    "Verdict": "_results",
    "__version__": "_version",
    "assert_gradients": "_check.gradients",
    "assert_tf_gradients": "_check.tf_gradients",
    "check_gradients": "_check.gradients",
    "check_tf_gradients": "_check.tf_gradients",
    "compute_gradient": "_check.compute",
    "max_error": "_check.compute",
    "strategies": "strategies",
    "subjects": "subjects",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = importlib.import_module(f"{__name__}.{_HOME[name]}")
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        raise ImportError(_without_tensorflow(name), name="tensorflow") from error
    found = home if _HOME[name] == name else getattr(home, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _without_tensorflow(name: str) -> str:
    return (
        f"{__name__}.{name} needs TensorFlow, and there is none in this environment. Type one of\n"
        '  pip install "tensorflow-cpu>=2.18"\n'
        '  pip install "tensorflow>=2.18"\n'
        "or install any other build of TensorFlow that is as new."
    )
