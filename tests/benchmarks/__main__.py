"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from pathlib import Path

from .outcome import Outcome
from .page import SHOWN, write
from .progress import progress

NAMES = (
    "figures",
    "truth",
    "power",
    "others",
    "programs",
    "plugin",
    "optimizers",
    "speed",
    "resnet",
    "watch",
    "watchdog",
    "trips",
    "tensorboard",
    "farm",
    "peers",
    "catches",
    "growth",
)


def main(arguments: list[str] | None = None) -> int:
    """Run benchmarks by name, all without one; 0 where every bound is kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(NAMES)}; without one all of them, with --page {', '.join(SHOWN)}",
    )
    parser.add_argument("--quick", action="store_true", help="a small part of each, in about a minute")
    parser.add_argument("--seed", type=int, default=0, help="of points, data and directions")
    parser.add_argument("--json", metavar="FILE", help="also write what was found")
    parser.add_argument(
        "--page", metavar="FILE", help="also write the tables as a page, in place of those of these names"
    )
    given = parser.parse_args(arguments)
    unknown = [name for name in given.names if name not in NAMES]
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(NAMES)}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported
    found = []
    for name in given.names or (SHOWN if given.page else NAMES):
        progress(name)
        # Relative, so that tests, which have no package above this one, can import it too.
        module = importlib.import_module(f".{name}", __package__)
        outcome = module.run(quick=given.quick, seed=given.seed)
        print(module.text_of(outcome), end="\n\n", flush=True)
        found.append((outcome, str(module.__doc__)))
        _write(given, found)
    progress("done")
    return 0 if all(outcome.ok for outcome, _ in found) else 1


def _write(given: argparse.Namespace, found: list[tuple[Outcome, str]]) -> None:
    """After each benchmark, so that one that is stopped leaves what was found before."""
    if given.json:
        outcomes = {"outcomes": [outcome.to_dict() for outcome, _ in found]}
        text = json.dumps({"where": _where(), "seed": given.seed, "quick": given.quick, **outcomes}, indent=1)
        Path(given.json).write_text(text + "\n", encoding="utf-8")
    if given.page:
        write(Path(given.page), found, {**_where(), "seed": given.seed, "quick": given.quick}, NAMES)


def _where() -> dict[str, object]:
    import numpy as np
    import tensorflow as tf

    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }


if __name__ == "__main__":
    sys.exit(main())
