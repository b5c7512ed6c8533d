"""What runs in a worker: a program at some points."""

from __future__ import annotations

import os
import socket
import threading
from collections import OrderedDict
from collections.abc import Collection
from typing import Any

import numpy as np

from gradcheck._farm.arithmetic import adopt
from gradcheck._farm.parcels import Code, Kept, Lacking, Parcel, Refused, Unfit, Values
from gradcheck._farm.thin import thinned, whole
from gradcheck._graph.evaluate import RUN_ERRORS, Runner, offering_batches
from gradcheck._graph.nodes import op_def
from gradcheck._graph.wire import program_from_bytes

_NAME = f"{socket.gethostname()} {os.getpid()}"
_ROOM = 2**29  # bytes that a worker keeps from one parcel to the next


class _Store:
    """Runners and arrays by digest; the ones used longest ago go first."""

    def __init__(self) -> None:
        self._items: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, digests: Collection[str], contents: Any) -> dict[str, Any]:
        """What is there of the things asked for, after `contents` was put in."""
        with self._lock:
            for digest, content in contents.items():
                if digest not in self._items:
                    self._items[digest] = _unpacked(content)
            for digest in digests:
                if digest in self._items:
                    self._items.move_to_end(digest)
            found = {d: self._items[d][0] for d in digests if d in self._items}
            used = sum(size for _, size in self._items.values())
            while used > _ROOM and len(self._items) > len(found):
                used -= self._items.popitem(last=False)[1][1]
            return found

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._items.clear()


_store = _Store()


def _unpacked(content: Any) -> tuple[Any, int]:
    if isinstance(content, Code):
        return Runner(program_from_bytes(content.data), sharing=content.sharing), len(content.data)
    return np.array(content), int(content.nbytes)  # a copy: between threads it would be the caller's own


def run_points(parcel: Parcel) -> Values | Lacking | Refused | Unfit:
    """Run a parcel's program at its points."""
    differs = adopt(parcel.arithmetic)
    if differs is not None:
        return Unfit(why=differs)
    at_hand = _store.take(parcel.digests, parcel.contents)
    if len(at_hand) < len(parcel.digests):
        return Lacking(digests=frozenset(parcel.digests - at_hand.keys()), worker=_NAME)
    runner = at_hand[parcel.program.digest]
    unknown = _unknown_ops(runner)
    if unknown:
        return Unfit(why=f"TensorFlow there knows no op {', '.join(unknown)}: load the library that brings it there")
    values = [at_hand[v.digest] if isinstance(v, Kept) else v for v in parcel.values]
    moving = {name: whole(stack) for name, stack in parcel.moving.items()}
    with offering_batches(None), np.errstate(all="ignore"):
        try:
            return Values(arrays=[thinned(a) for a in runner.run_batch(moving, values)])
        except RUN_ERRORS:
            return Refused()


def wake(arithmetic: Any) -> str | None:
    """Start this worker; what it cannot compute as its caller does."""
    return adopt(arithmetic)


def forget() -> None:
    """Drop what this process keeps from parcels."""
    _store.clear()


def _unknown_ops(runner: Runner) -> list[str]:
    program = runner.program
    return sorted({n.op for b in (program.main, *program.functions.values()) for n in b.nodes if op_def(n.op) is None})
