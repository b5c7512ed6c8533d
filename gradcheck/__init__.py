"""Tells, with proof, whether a TensorFlow gradient is right.

Importing this package costs milliseconds: TensorFlow is imported at the first use of a name that needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradcheck import callbacks as callbacks
    from gradcheck import hooks as hooks
    from gradcheck import optimizers as optimizers
    from gradcheck import strategies as strategies
    from gradcheck import subjects as subjects
    from gradcheck import tensorboard as tensorboard
    from gradcheck._check.compute import compute_gradient as compute_gradient
    from gradcheck._check.compute import max_error as max_error
    from gradcheck._check.gradients import assert_gradients as assert_gradients
    from gradcheck._check.gradients import check_gradients as check_gradients
    from gradcheck._check.model import check_model as check_model
    from gradcheck._check.tf_gradients import assert_tf_gradients as assert_tf_gradients
    from gradcheck._check.tf_gradients import check_tf_gradients as check_tf_gradients
    from gradcheck._compare.compare import compare_optimizers as compare_optimizers
    from gradcheck._diagnose.nonfinite import find_nonfinite as find_nonfinite
    from gradcheck._diagnose.precision import profile_precision as profile_precision
    from gradcheck._errors import GradientMismatch as GradientMismatch
    from gradcheck._errors import NonfiniteTrip as NonfiniteTrip
    from gradcheck._graph.trace import Gradients as Gradients
    from gradcheck._report.gradient import GradientReport as GradientReport
    from gradcheck._report.nonfinite import NonfiniteReport as NonfiniteReport
    from gradcheck._report.optimizer import OptimizerReport as OptimizerReport
    from gradcheck._report.precision import PrecisionReport as PrecisionReport
    from gradcheck._report.trip import TripReport as TripReport
    from gradcheck._results import Finding as Finding
    from gradcheck._results import Verdict as Verdict
    from gradcheck._version import __version__ as __version__
    from gradcheck._watchdog.watch import watch as watch
    from gradcheck._watchdog.watchdog import Watchdog as Watchdog

__all__ = [
    "Finding",
    "GradientMismatch",
    "GradientReport",
    "Gradients",
    "NonfiniteReport",
    "NonfiniteTrip",
    "OptimizerReport",
    "PrecisionReport",
    "TripReport",
    "Verdict",
    "Watchdog",
    "__version__",
    "assert_gradients",
    "assert_tf_gradients",
    "callbacks",
    "check_gradients",
    "check_model",
    "check_tf_gradients",
    "compare_optimizers",
    "compute_gradient",
    "find_nonfinite",
    "hooks",
    "max_error",
    "optimizers",
    "profile_precision",
    "strategies",
    "subjects",
    "tensorboard",
    "watch",
]

_HOME = {
    "Finding": "_results",
    "GradientMismatch": "_errors",
    "GradientReport": "_report.gradient",
    "Gradients": "_graph.trace",
    "NonfiniteReport": "_report.nonfinite",
    "NonfiniteTrip": "_errors",
    "PrecisionReport": "_report.precision",
    "OptimizerReport": "_report.optimizer",
    "TripReport": "_report.trip",
    "Verdict": "_results",
    "Watchdog": "_watchdog.watchdog",
    "__version__": "_version",
    "assert_gradients": "_check.gradients",
    "assert_tf_gradients": "_check.tf_gradients",
    "callbacks": "callbacks",
    "check_gradients": "_check.gradients",
    "check_model": "_check.model",
    "check_tf_gradients": "_check.tf_gradients",
    "compare_optimizers": "_compare.compare",
    "compute_gradient": "_check.compute",
    "find_nonfinite": "_diagnose.nonfinite",
    "hooks": "hooks",
    "max_error": "_check.compute",
    "optimizers": "optimizers",
    "profile_precision": "_diagnose.precision",
    "strategies": "strategies",
    "subjects": "subjects",
    "tensorboard": "tensorboard",
    "watch": "_watchdog.watch",
}


if not TYPE_CHECKING:  # with it in sight, a type checker would take any name for a public one

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            home = importlib.import_module(f"{__name__}.{_HOME[name]}")
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "tensorflow":
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
