"""What loading the pytest plugin costs a run of pytest that does not use it, in pairs of runs beside plain pytest."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .outcome import Outcome
from .outcome import text_of as text_of

_BOUND = 0.020  # seconds


def run(*, quick: bool = False, seed: int = 0) -> Outcome:
    """Run pytest on one empty test, with and without the plugin, in turns; `quick`: 5 pairs in place of 25."""
    del seed  # nothing is drawn
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_nothing.py").write_text("def test_nothing():\n    pass\n", encoding="utf-8")
        _seconds(folder, plugin=True)  # compiles
        pairs = [(_seconds(folder, plugin=False), _seconds(folder, plugin=True)) for _ in range(5 if quick else 25)]
    plain, with_plugin = (statistics.median(times) for times in zip(*pairs, strict=True))
    more = statistics.median(b - a for a, b in pairs)
    return Outcome(
        name="plugin",
        columns=("run", "median seconds"),
        rows=(("plain", plain), ("with the plugin", with_plugin)),
        summary=f"the plugin costs {more * 1e3:.1f} ms, median of {len(pairs)} pairs; bound {_BOUND * 1e3:.0f} ms",
        ok=more <= _BOUND,
        figures={"plain": plain, "with_plugin": with_plugin, "more": more},
    )


def _seconds(folder: str, *, plugin: bool) -> float:
    chosen = ["-p", "gradcheck.pytest_plugin"] if plugin else []
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling at every run is none of the plugin's cost
    environment["PYTHONPYCACHEPREFIX"] = folder
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen, folder]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment, cwd=folder)
    return time.perf_counter() - started
