"""One check alone and on two workers of a Dask cluster: the same report, and how much sooner.

TensorFlow uses all cores within one process, so that workers on the same machine have little to add to a plain run.
What more machines bring shows where every process has one thread: alone, and two workers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .outcome import Outcome
from .outcome import text_of as text_of
from .progress import progress

ROOT = Path(__file__).parents[2]
WORKERS = 2
_ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}
_FULL, _QUICK = 64, 6  # pixels of the pictures: more than 20 s on one thread, and a second


def run(*, quick: bool = False, seed: int = 0) -> Outcome:
    """A check of a convolutional net's kernels, entry by entry; each run in a process of its own."""
    size = _QUICK if quick else _FULL
    plain = _measured("alone", size, seed, {})
    one = _measured("alone", size, seed, _ONE_THREAD)

    def row(how: str, seconds: float, report: str = "") -> tuple[Any, ...]:
        return (how, seconds, plain["seconds"] / seconds, one["seconds"] / seconds, report)

    rows = [row("this process, all cores", plain["seconds"]), row("this process, one thread", one["seconds"])]
    ok = True
    for how in ("processes", "dask"):
        if how == "dask" and find_spec("distributed") is None:
            rows.append(("dask: not installed, left out", None, None, None, ""))
            continue
        progress(f"farm: {how}")
        spread = _measured(how, size, seed, _ONE_THREAD)
        same = spread["report"] == one["report"]
        ok &= same
        rows.append(row(f"{WORKERS} workers of one thread, {how}", spread["seconds"],
                        "same bits" if same else "ANOTHER REPORT"))  # fmt: skip
    return Outcome(
        name="farm",
        columns=("how", "seconds", "times as fast as all cores", "as one thread", "report"),
        rows=tuple(rows),
        summary=f"farm: {one['evaluations']} evaluations; beside one thread, {WORKERS} workers of one thread are "
        + ", ".join(f"{row[3]:.3g} times as fast ({row[0].rpartition(' ')[2]})" for row in rows[2:] if row[3]),
        ok=ok,
        figures={row[0]: row[1] for row in rows},
    )


def _measured(how: str, size: int, seed: int, environment: dict[str, str]) -> dict[str, Any]:
    """Seconds and report of the second of two checks, made by a fresh process; the first wakes the workers."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    found = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.farm", how, str(size), str(seed)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True, text=True, check=False, timeout=1800,
    )  # fmt: skip
    if found.returncode:
        raise RuntimeError(f"farm {how}: {found.stderr[-2000:]}")
    measured: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return measured


def _job(size: int, seed: int) -> Callable[[Any], Any]:
    import numpy as np

    import gradcheck

    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(3, 3, 8, 8)) / 8

    def check(executor: Any, size: int = size) -> Any:
        import tensorflow as tf

        pictures = tf.constant(rng.normal(size=(4, size, size, 8)))

        def loss(k: Any) -> Any:
            y = pictures
            for _ in range(4):
                y = tf.tanh(tf.nn.conv2d(y, k, 1, "SAME"))
            return tf.reduce_mean(y**2)

        return gradcheck.check_gradients(loss, [kernel], mode="elementwise", executor=executor, name="loss")

    return check


@contextmanager
def _executor(how: str) -> Iterator[Any]:
    if how == "alone":
        yield None
    elif how == "processes":
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield pool
    else:
        import distributed

        cluster = distributed.LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None)
        with cluster, distributed.Client(cluster) as client:
            yield client.get_executor()


def _main(how: str, size: int, seed: int) -> None:
    check = _job(size, seed)
    with _executor(how) as executor:
        check(executor, 4)
        started = time.perf_counter()
        report = check(executor)
        seconds = time.perf_counter() - started
    plain = report.to_dict()
    del plain["cost"]["seconds"]
    print(json.dumps({"seconds": seconds, "evaluations": report.cost.evaluations, "report": plain}))


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
