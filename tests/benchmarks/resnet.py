"""All 25.6 million parameters of ResNet-50, checked beside a plain training step of the same model in the same process.

Time and memory are those of two new processes: one takes steps, the other takes steps and checks, twice. The bounds are
ratios, so that what slows the machine down slows both sides; only the seconds of the first check are absolute.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from .outcome import Outcome
from .outcome import text_of as text_of

COLD_SECONDS, WARM_STEPS, MEMORY = 30.0, 12.0, 4.0
DIRECTIONS, BATCH = 4, 2
STEPS = 5


def run(*, quick: bool = False, seed: int = 0) -> Outcome:
    """Images of 224 x 224; with `quick` of 64 x 64."""
    size = 64 if quick else 224
    plain, checked = (_in_a_process(what, size, seed) for what in ("step", "check"))
    warm = checked["warm"] / DIRECTIONS / checked["step"]
    memory = checked["peak"] / plain["peak"]
    rows = (
        ("forward and backward, seconds", checked["step"], ""),
        ("first check, seconds", checked["cold"], f"<={COLD_SECONDS:g}"),
        ("second check, seconds", checked["warm"], ""),
        ("second check, steps per direction", warm, f"<={WARM_STEPS:g}"),
        ("peak memory of the steps, MB", plain["peak"] / 1e3, ""),
        ("peak memory of the check, in that of the steps", memory, f"<={MEMORY:g}"),
    )
    missed = [name for name, value, bound in rows if bound and value > float(bound[2:])]
    right = checked["verdict"] == "MATCH" and checked["findings"] == checked["variables"]
    return Outcome(
        name="resnet",
        columns=("what", "found", "target"),
        rows=rows,
        summary=f"resnet: {checked['verdict']}, {checked['findings']} of {checked['variables']} variables, "
        f"{checked['evaluations']} evaluations; targets missed: {', '.join(missed) or 'none'}",
        ok=right,
        figures={**checked, "plain": plain, "warm_steps": warm, "memory": memory, "missed": missed},
    )


def _in_a_process(what: str, size: int, seed: int) -> dict[str, Any]:
    code = f"import sys; sys.path[:0] = {sys.path!r}; from tests.benchmarks.resnet import measure; "
    code += f"measure({what!r}, {size}, {seed})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ)
    if ran.returncode:
        raise RuntimeError(ran.stderr[-2000:])
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def measure(what: str, size: int, seed: int) -> None:
    """Take steps and, where asked, check; print what it took as JSON."""
    import keras
    import numpy as np
    import tensorflow as tf

    import gradcheck

    keras.utils.set_random_seed(seed)
    model = keras.applications.ResNet50(weights=None, input_shape=(size, size, 3))
    x = np.random.default_rng(seed).normal(size=(BATCH, size, size, 3)).astype(np.float32)
    y = np.arange(BATCH)
    loss = keras.losses.SparseCategoricalCrossentropy()
    images, variables = tf.constant(x), [v.value for v in model.trainable_variables]

    @tf.function
    def step() -> Any:
        with tf.GradientTape() as tape:
            value = loss(y, model(images, training=False))
        return tape.gradient(value, variables)

    def check() -> Any:
        return gradcheck.check_model(model, x, y, loss=loss, directions=DIRECTIONS, mode="directional", seed=seed)

    def finished_step() -> Any:
        return step()[0].numpy()

    def steps() -> list[float]:
        return [_seconds(finished_step)[0] for _ in range(STEPS)]

    step()
    found: dict[str, Any] = {"step": median(steps())}
    if what == "check":
        found["cold"], report = _seconds(check)
        before = steps()
        found["warm"], report = _seconds(check)
        found["step"] = median(before + steps())  # on either side of what is compared with it
        found.update(verdict=report.verdict.name, findings=len(report.findings), variables=len(variables),
                     evaluations=report.cost.evaluations)  # fmt: skip
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps(found))


def _seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    found = call()
    return time.perf_counter() - started, found
