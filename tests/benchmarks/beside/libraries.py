"""The processes of the libraries, asked in turns, so that what slows the machine down slows all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
OURS = "gradcheck auto"
_MODULES = {"tensorflow": "of_tensorflow", "torch": "of_torch", "jax": "of_jax"}


@dataclass(frozen=True)
class Way:
    """A way to check gradients, the process that knows it, and the seeded kinds that its library puts right."""

    name: str
    process: subprocess.Popen[str]
    mended: tuple[str, ...]

    def ask(self, do: str, **what: Any) -> dict[str, Any]:
        """What the process answers."""
        return _ask(self.process, {"do": do, "way": self.name, **what})


@contextmanager
def ways() -> Iterator[list[Way]]:
    """All ways of the libraries that are installed, ours first."""
    with ExitStack() as stack:
        found = []
        for library, module in _MODULES.items():
            if find_spec(library) is not None:
                process = stack.enter_context(_process(module))
                hello = _ask(process, {"do": "hello"})
                found += [Way(name, process, tuple(hello["mended"])) for name in hello["ways"]]
        yield found


def absent() -> str:
    """What the summary says of libraries that are not installed; `pip install --group peers` brings them."""
    missing = [library for library in _MODULES if find_spec(library) is None]
    return f"left out, not installed: {', '.join(missing) or 'none'}"


@contextmanager
def _process(module: str) -> Iterator[subprocess.Popen[str]]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-m", f"tests.benchmarks.beside.{module}"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _ask(process: subprocess.Popen[str], request: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.startswith("{"):
            answer: dict[str, Any] = json.loads(line)
            return answer
    raise RuntimeError(f"{' '.join(map(str, process.args))} ended while it was asked {request}")  # type: ignore[arg-type]
