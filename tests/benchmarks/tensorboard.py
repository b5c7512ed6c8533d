"""What recording gradients for TensorBoard costs, beside the plain step and `tf.summary.histogram` in the same run.

Steps are taken in turns, so that what slows the machine down slows all of them: the medians of paired ratios, twice: of
the CPU time of one TensorFlow thread, by which targets are judged, and of the wall's time with TensorFlow's default
threads, each in a process of its own. Of each way there are four instances, since how one lies in memory decides some
percents. "norms and extremes alone" is what scalars cannot cost less than by TensorFlow's own ops: the norm, largest
and smallest number of each gradient and the norm of each variable that has more than 1,024 numbers, without a count, a
queue or a file. "with bins, alone" adds what histograms are drawn from.

Then a long run: the size of its event file beside that of `tf.summary`, and how much memory it took; and processes that
are killed while they record. Time decides nothing: the table says which target was missed. What has to hold is that
every step was recorded, and is read by gradcheck and by TensorBoard.
"""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradcheck.tensorboard import SummaryWriter, read_events

from .killed import lost_nothing, what_killed_writers_left
from .outcome import Outcome
from .outcome import text_of as text_of
from .paired import COLUMNS, Row, in_turns, missed, on_both_clocks
from .watch import MODELS, repeated

BLOCKS, STEPS = 40, 32  # as many steps as wait to be written: each block writes once
INSTANCES = 4
TARGETS = {"histograms": 1.35, "histograms, every 10th": 1.05, "scalars only": 1.10, "off-steps": 1.0}
VARIABLES, LONG, KILLS = 20, 10_000, 50
GROWTH = 64  # MB: more than the allocators' own ups and downs

Record = Callable[[Any, list[Any], list[Any]], None]


def run(*, quick: bool = False, seed: int = 0) -> Outcome:
    """The step of the MLP with and without recording; then the long run, and the kills."""
    measured = on_both_clocks(_steps, 3 if quick else BLOCKS, seed)
    rows: list[tuple[Any, ...]] = [(*row, TARGETS.get(row[1], "")) for row in measured]
    above = [row[1] for row in rows if missed(row)]
    steps = 200 if quick else LONG
    ours, growth, recorded = _long(steps, _by_gradcheck)
    theirs, _, _ = _long(steps, _by_tensorflow)
    rows += [
        (f"{VARIABLES} variables", f"bytes a step of {steps}: ours", "", ours / steps, "", "", ""),
        (f"{VARIABLES} variables", f"bytes a step of {steps}: tf.summary.histogram", "", theirs / steps, "", "", ""),
        (f"{VARIABLES} variables", f"MB of memory more after {steps} steps", "", growth, "", "", ""),
    ]
    kills = 1 if quick else KILLS
    survived = sum(_survives(np.random.default_rng([seed, k]).uniform(0, 0.5)) for k in range(kills))
    return Outcome(
        name="tensorboard",
        columns=(*COLUMNS, "target"),
        rows=tuple(rows),
        summary=f"tensorboard: targets missed: {', '.join(above) or 'none'}; {recorded} of {steps} steps read back; "
        f"{survived} of {kills} killed writers lost nothing",
        ok=recorded == steps and growth < GROWTH and survived == kills,
        figures={
            "missed": above,
            "bytes": ours,
            "bytes of tf.summary": theirs,
            "growth": growth,
            "steps": recorded,
            "kills": kills,
            "survived": survived,
        },
    )


def _steps(blocks: int, seed: int) -> list[Row]:
    """Several instances of each way, one drawn for each block: how an instance lies in memory decides some percents."""
    draw = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as directory:
        writers: list[SummaryWriter] = []

        def recorded(first_step: int = 0, within: bool = False, **options: Any) -> Any:
            writers.append(SummaryWriter(tempfile.mkdtemp(dir=directory), **options))
            step = _step(seed, writers[-1].gradients, within)[0]
            return writers[-1].record(step, first_step=first_step)

        ways: dict[str, Callable[[], Any]] = {
            "plain": lambda: _step(seed, None)[0],
            "plain again": lambda: _step(seed, None)[0],
            "histograms": recorded,
            "histograms, every 10th": lambda: recorded(every=10),
            "scalars only": lambda: recorded(histograms=False),
            "off-steps": lambda: recorded(1, every=10**9),
            "norms and extremes alone": lambda: _step(seed, _reduced)[0],
            "with bins, alone": lambda: _step(seed, _binned)[0],
            "handed to Python": lambda: _step(seed, _handed_over)[0],
            "histograms and updates": lambda: recorded(within=True),
            "tf.summary.histogram": lambda: _with_tf_summary(seed, directory),
        }
        batch = _step(seed, None)[1]
        calls = {}
        for how, made in ways.items():
            instances = [made() for _ in range(INSTANCES)]
            for instance in instances:
                for _ in range(10):  # both variants
                    instance(*batch)
            calls[how] = _one_of([repeated(instance, batch, STEPS) for instance in instances], draw)
        rows = in_turns("mlp", calls, blocks, STEPS)
        for writer in writers:
            writer.close()
        return rows


def _one_of(calls: list[Callable[[], None]], draw: np.random.Generator) -> Callable[[], None]:
    def one() -> None:
        calls[draw.integers(len(calls))]()

    return one


def _step(seed: int, record: Any, within: bool = False) -> tuple[Any, tuple[Any, Any]]:
    """A new MLP's training step, and a batch. The update is taken within what `record` returns, if asked."""
    keras.utils.set_random_seed(seed)
    model, shape = MODELS["mlp"]()
    optimizer = keras.optimizers.SGD(0.001, momentum=0.9)
    variables = model.trainable_variables
    optimizer.build(variables)

    @tf.function
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        gradients = tape.gradient(loss, variables)
        recorded = None if record is None else record(optimizer.iterations, gradients, variables)
        if within:
            with recorded:
                optimizer.apply(gradients, variables)
        else:
            optimizer.apply(gradients, variables)
        return (loss, recorded) if tf.is_tensor(recorded) else loss

    return step, (tf.random.stateless_normal(shape, (seed, 1)), tf.random.stateless_normal([shape[0], 10], (seed, 2)))


def _reduced(step: Any, gradients: Any, variables: Any) -> Any:
    """What scalars cannot cost less than, by ops of TensorFlow: no zero is counted, and nothing is done with them."""
    gradients, variables = ([t for t in some if t.shape.num_elements() > 1024] for some in (gradients, variables))
    halves = [tf.nn.l2_loss(t) for t in (*gradients, *(tf.convert_to_tensor(v) for v in variables))]
    return tf.stack([*halves, *(extreme(g) for g in gradients for extreme in (tf.reduce_max, tf.reduce_min))])


def _binned(step: Any, gradients: Any, variables: Any) -> Any:
    """And histograms: how many numbers have which sign and exponent."""
    large = [g for g in gradients if g.shape.num_elements() > 1024]
    bits = [tf.bitcast(tf.reshape(g, [-1]), tf.uint32) for g in large]
    keys = [tf.bitcast(tf.bitwise.right_shift(b, tf.constant(23, tf.uint32)), tf.int32) for b in bits]
    bins = [tf.raw_ops.DenseBincount(input=k, size=512, weights=tf.zeros([0], tf.int32)) for k in keys]
    return tf.concat([_reduced(step, gradients, variables), tf.cast(tf.concat(bins, 0), tf.float32)], 0)


def _handed_over(step: Any, gradients: Any, variables: Any) -> None:
    """What recording cannot cost less than, however it is done in Python: it gets the gradients, and does nothing."""
    tf.numpy_function(lambda *arrays: None, list(gradients), [])


def _with_tf_summary(seed: int, directory: str) -> Any:
    theirs = tf.summary.create_file_writer(tempfile.mkdtemp(dir=directory))

    def record(step: Any, gradients: Any, variables: Any) -> None:
        with theirs.as_default():
            for gradient, variable in zip(gradients, variables, strict=True):
                tf.summary.histogram(variable.path, gradient, step=tf.cast(step, tf.int64))

    return _step(seed, record)[0]


def _long(steps: int, recorder: Callable[[str], Record]) -> tuple[int, float, int]:
    """Bytes of event files, MB of memory that the later nine tenths took, and steps that are read back."""
    with tempfile.TemporaryDirectory() as directory:
        record = recorder(directory)
        counter = tf.Variable(0, dtype=tf.int64)
        variables = [tf.Variable(tf.zeros([64]), name=f"layer{k}/kernel") for k in range(VARIABLES)]

        @tf.function
        def step() -> None:
            seeds = [tf.stack([counter, k]) for k in range(VARIABLES)]
            record(counter, [tf.random.stateless_normal([64], seed) for seed in seeds], variables)
            counter.assign_add(1)

        peaks = []
        for k in range(steps):
            step()
            if k == steps // 10:
                peaks.append(_peak())
        peaks.append(_peak())
        size = sum(path.stat().st_size for path in Path(directory).iterdir())
        histograms = read_events(directory).histograms
        return size, peaks[1] - peaks[0], min(len(series.steps) for series in histograms.values())


def _survives(seconds: float) -> bool:
    """Whether both readers have all steps that a killed process said to be on disk, in each way of recording."""
    with tempfile.TemporaryDirectory() as directory:
        left = what_killed_writers_left(directory, seconds)
    return all(lost_nothing(*one) for one in left.values())


def _by_gradcheck(directory: str) -> Record:
    writer = SummaryWriter(directory)

    def record(step: Any, gradients: list[Any], variables: list[Any]) -> None:
        writer.gradients(step, gradients, variables)

    return record


def _by_tensorflow(directory: str) -> Record:
    writer = tf.summary.create_file_writer(directory)

    def record(step: Any, gradients: list[Any], variables: list[Any]) -> None:
        with writer.as_default():
            for gradient, variable in zip(gradients, variables, strict=True):
                tf.summary.histogram(variable.name, gradient, step=step)
            writer.flush()

    return record


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
