"""The processes of the checkers, asked in turns, so that what slows the machine down slows all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
MARK = "gradcheck"  # begins the names of our ways
OURS = f"{MARK} auto"
_MODULES = {"tensorflow": "of_tensorflow", "torch": "of_torch", "jax": "of_jax"}
_WAYS = {
    "of_tensorflow": (OURS, f"{MARK} directional", "tf.test.compute_gradient"),
    "of_torch": ("torch gradcheck slow", "torch gradcheck fast"),
    "of_jax": ("jax check_grads",),
}
# The seeded kinds that a library puts right by itself: autograd sums what a backward gives to the shape of the input.
_MENDED = {"of_torch": ("not summed over a broadcast axis",)}


class Way:
    """A way to check gradients, in a process of its own, begun when it is first asked.

    Attributes:
        name: Of the way.
        mended: The seeded kinds that its library puts right.
    """

    def __init__(self, name: str, module: str) -> None:
        self.name = name
        self.mended = _MENDED.get(module, ())
        self._module = module
        self._process: subprocess.Popen[str] | None = None

    def ask(self, do: str, *, limit: float = float("inf"), **what: Any) -> dict[str, Any] | None:
        """What the process answers; None where that takes more than `limit` seconds: then it is stopped."""
        if self._process is None:
            self._process = _begin(self._module)
            # Once before all figures: what a library loads at its first check.
            _ask(self._process, {"do": "load", "way": self.name})
        answer = _ask(self._process, {"do": do, "way": self.name, **what}, limit)
        if answer is None:
            self.end()
        return answer

    def end(self) -> None:
        """End the process; another begins when the way is asked again."""
        if self._process is not None:
            _end(self._process)
            self._process = None


@contextmanager
def ways() -> Iterator[list[Way]]:
    """All ways of the libraries that are installed, ours first."""
    modules = [module for library, module in _MODULES.items() if find_spec(library) is not None]
    found = [Way(name, module) for module in modules for name in _WAYS[module]]
    try:
        yield found
    finally:
        for way in found:
            way.end()


def absent() -> str:
    """What the summary says of libraries that are not installed; `pip install --group peers` brings them."""
    missing = [library for library in _MODULES if find_spec(library) is None]
    return f"left out, not installed: {', '.join(missing) or 'none'}"


def _begin(module: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.benchmarks.beside.{module}"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def _ask(process: subprocess.Popen[str], request: dict[str, Any], limit: float = float("inf")) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    late = threading.Event()

    def stop() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(min(limit, threading.TIMEOUT_MAX), stop)
    timer.daemon = True
    timer.start()
    try:
        with suppress(BrokenPipeError):  # it has ended: said below
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        for line in process.stdout:
            if line.startswith("{"):
                return json.loads(line)
    finally:
        timer.cancel()
    if late.is_set():
        return None
    raise RuntimeError(f"{' '.join(map(str, process.args))} ended while it was asked {request}")  # type: ignore[arg-type]
