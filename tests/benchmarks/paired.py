"""Several ways to take a step, in turns, on two clocks: the CPU time of one TensorFlow thread, and the wall's with all.

The CPU time of a pool counts threads that spin while they wait, and the wall's time counts whatever else the machine
does. With one thread none waits. So each measurement runs in two processes, one for each number of threads.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

COLUMNS = ("model", "how", "CPU ms", "ratio", "wall ms", "wall ratio")
SLACK = 0.02  # of the plain step beside itself

Row = tuple[str, str, float, float, float, float]


def on_both_clocks(measure: Callable[..., list[Row]], *args: Any) -> list[Row]:
    """What `measure`, a function of a module, gives: CPU time with one TensorFlow thread, wall time with the default.

    Args:
        measure: Gives rows of `in_turns`, the same ones in each process.
        args: What it takes; they are pickled.
    """
    one, every = (_in_a_process(threads, measure, args) for threads in (1, 0))
    return [(*cpu[:4], *wall[4:]) for cpu, wall in zip(one, every, strict=True)]


def in_turns(name: str, ways: Mapping[str, Callable[[], object]], blocks: int, steps: int) -> list[Row]:
    """Milliseconds per step of each way, and the median of its ratios to the first way in the same block.

    Args:
        name: Of the model.
        ways: By name; each takes so many steps when it is called.
        blocks: How many times each is called.
        steps: What a call takes.

    Returns:
        For each way the columns of `COLUMNS`, both clocks in the present process.
    """
    seconds = np.empty([blocks, len(ways), 2])
    order = np.random.default_rng(0)
    calls = list(ways.values())
    for block in seconds:
        for k in order.permutation(len(calls)):
            started = time.process_time(), time.perf_counter()
            calls[k]()
            block[k] = time.process_time() - started[0], time.perf_counter() - started[1]
    ratios = np.median(seconds / seconds[:, :1], 0)
    medians = 1000 / steps * np.median(seconds, 0)
    return [
        (name, how, *(float(v) for clock in range(2) for v in (medians[k, clock], ratios[k, clock])))
        for k, how in enumerate(ways)
    ]


def missed(row: tuple[Any, ...]) -> bool:
    """Whether a row that ends with its target is above it: by CPU time, or the wall's where there is only that."""
    return bool(row[-1]) and (row[3] or row[5]) > row[-1] + SLACK


def _in_a_process(threads: int, measure: Callable[..., list[Row]], args: tuple[Any, ...]) -> list[Row]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_set_threads, initargs=(threads,)) as pool:
        return pool.submit(measure, *args).result()


def _set_threads(threads: int) -> None:
    """Before TensorFlow starts any; 0 for as many as it likes."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
