"""What one library's checker does, asked for and answered as lines of JSON by a process of its own."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from .planted import data, planted
from .problems import Ops, problems
from .seeded import case, inputs_of

_PAGE = 4096


class Peer(Protocol):
    """A library, which checks gradients in one way or more."""

    ops: Ops

    def check(
        self, way: str, fn: Callable[..., Any], inputs: tuple[Any, ...], dtype: str, order: int
    ) -> tuple[bool, int | None]:
        """Whether the gradient was found right, and how often the function was evaluated, where that is known."""
        ...


def serve(peer: Peer) -> None:
    """Answer requests from standard input, one a line, until it ends."""
    answers = _Answers(peer)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(getattr(answers, asked.pop("do"))(**asked)), flush=True)


class _Answers:
    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._built: dict[tuple[str, str, str], Callable[..., Any]] = {}

    def load(self, way: str) -> dict[str, Any]:
        """One small check."""
        ok, _ = self._peer.check(way, self._peer.ops.tanh, inputs_of("nothing wrong", 1, 0), "float64", 1)
        return {"ok": ok}

    def time(self, way: str, problem: str, size: str, seed: int) -> dict[str, Any]:
        """Of one check; the first of a problem is cold, its function new, later ones use the same function."""
        (asked,) = (p for p in problems(seed, (size,)) if p.name == problem)
        key = (way, problem, size)
        fn = self._built.setdefault(key, asked.build(self._peer.ops))
        return {"entries": asked.entries, **self._timed(way, fn, asked.inputs, "float64")}

    def grow(self, way: str, entries: int, seed: int) -> dict[str, Any]:
        """A sum of x tanh(x) over so many entries."""
        import numpy as np

        ops = self._peer.ops
        x = np.random.default_rng(seed).normal(size=entries)
        return self._timed(way, lambda x: ops.sum(ops.tanh(x) * x), (x,), "float64")

    def seeded(self, way: str, kind: str, entries: int, dtype: str, seed: int) -> dict[str, Any]:
        """Whether a case of the seeded set is found wrong."""
        asked = case(kind)
        return self._judged(way, asked.build(self._peer.ops, entries, dtype), inputs_of(kind, entries, seed), dtype,
                            asked.order)  # fmt: skip

    def planted(self, way: str, function: str, defect: float, dtype: str, seed: int) -> dict[str, Any]:
        """Whether one entry of a thousand, too large by `defect` of itself, is found."""
        x, entry = data(seed)
        return self._judged(way, planted(self._peer.ops, function, entry, defect), (x,), dtype, 1)

    def _judged(self, way: str, fn: Callable[..., Any], inputs: tuple[Any, ...], dtype: str, order: int) -> Any:
        try:
            return {"ok": self._peer.check(way, fn, inputs, dtype, order)[0], "error": None}
        except Exception as error:
            return {"ok": False, "error": f"{type(error).__name__}: {error}"[:200]}

    def _timed(self, way: str, fn: Callable[..., Any], inputs: tuple[Any, ...], dtype: str) -> dict[str, Any]:
        with Peak() as peak:
            started = time.perf_counter()
            ok, evaluations = self._peer.check(way, fn, inputs, dtype, 1)
            seconds = time.perf_counter() - started
        return {"ok": ok, "evaluations": evaluations, "seconds": seconds, "megabytes": peak.megabytes}


class Counted:
    """A function, and how often it was called."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn
        self.calls = 0

    def __call__(self, *args: Any) -> Any:
        self.calls += 1
        return self._fn(*args)


class Peak:
    """How far the resident memory rises inside, in megabytes, looked at every few milliseconds."""

    def __enter__(self) -> Peak:
        self._first = self._most = _resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.megabytes = round((self._most - self._first) / 2**20, 1)

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self._most = max(self._most, _resident())


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE
