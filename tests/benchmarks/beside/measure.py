"""What one library's checker does, measured in a process of its own and printed as JSON."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from .problems import DEFECTS, KINDS, Ops, Problem, data, kind, problems

_WARM = 3
_PAGE = 4096
_LONG = 60.0  # seconds after which a check is not repeated


class Peer(Protocol):
    """A library and the ways in which it checks gradients."""

    ops: Ops
    ways: tuple[str, ...]

    def check(self, way: str, fn: Callable[..., Any], inputs: tuple[Any, ...]) -> tuple[bool, int | None]:
        """Whether the gradient was found right, and how often the function was evaluated, where that is known."""
        ...

    def wrong(self, fn: Callable[[Any], Any], entry: int, defect: float) -> Callable[[Any], Any]:
        """The function with one entry of its gradient wrong."""
        ...


def measure(peer: Peer) -> None:
    """Measure as the command line asks, `seed quick`, and print what was found."""
    seed, quick = int(sys.argv[1]), sys.argv[2] == "True"
    speed = [
        {"problem": p.name, "size": p.size, "entries": p.entries, "way": way, **_timed(peer, way, p, quick=quick)}
        for p in problems(seed, ("small",) if quick else ("small", "medium", "large"))
        for way in peer.ways
    ]
    power = [
        {"way": way, "dtype": dtype, "defect": defect, **_caught(peer, way, dtype, defect, seed, 1 if quick else 6)}
        for way in peer.ways
        for dtype, defects in DEFECTS.items()
        for defect in (defects if not quick else (defects[0], defects[-1]))
    ]
    print(json.dumps({"speed": speed, "power": power}))


def _timed(peer: Peer, way: str, problem: Problem, *, quick: bool) -> dict[str, Any]:
    fn = problem.build(peer.ops)
    with Peak() as peak:
        cold, (ok, evaluations) = _seconds(peer, way, fn, problem.inputs)
    warm = [_seconds(peer, way, fn, problem.inputs)[0] for _ in range(1 if quick or cold > _LONG / _WARM else _WARM)]
    return {"ok": ok, "evaluations": evaluations, "cold": cold, "warm": median(warm), "megabytes": peak.megabytes}


def _seconds(peer: Peer, way: str, fn: Callable[..., Any], inputs: tuple[Any, ...]) -> tuple[float, Any]:
    started = time.perf_counter()
    found = peer.check(way, fn, inputs)
    return time.perf_counter() - started, found


def _caught(peer: Peer, way: str, dtype: str, defect: float, seed: int, rounds: int) -> dict[str, int]:
    tries = found = 0
    for k in range(rounds):
        for name in KINDS:
            x, entry = data(seed + k, dtype)
            subject = peer.wrong(kind(peer.ops, name), entry, defect)
            tries += 1
            found += not peer.check(way, subject, (x,))[0]
    return {"tries": tries, "not_ok": found}


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
