"""How far a benchmark is, on standard error."""

from __future__ import annotations

import sys
import time

_STARTED = time.monotonic()


def progress(text: str) -> None:
    """Say it, with the minutes since the start."""
    print(f"{(time.monotonic() - _STARTED) / 60:6.1f} min  {text}", file=sys.stderr, flush=True)
