"""A process that records gradients until it is killed, and what can be read of them."""

import os
import signal
import subprocess
import sys
import time

from gradcheck.tensorboard import read_events

# In each way, and what it says to be on disk: all steps, of those that wait what was flushed.
WAYS = ("called", "recorded one by one", "recorded together")
WRITES = """
import sys, itertools, tensorflow as tf
from gradcheck.tensorboard import SummaryWriter
w = tf.Variable(tf.ones([1000]), name="w")
count = tf.Variable(0, dtype=tf.int64)

def step(writer):
    @tf.function
    def step():
        writer.gradients(count, [w * tf.cast(count, tf.float32)], [w])
    return step

called, one, together = SummaryWriter(sys.argv[1]), SummaryWriter(sys.argv[2], max_queue=1), SummaryWriter(sys.argv[3])
steps = step(called), one.record(step(one)), together.record(step(together))
flushed = -1
for k in itertools.count():
    count.assign(k)
    for each in steps:
        each()
    if k % 7 == 6:
        together.flush()
        flushed = k
    print(k, k, flushed, flush=True)
"""


def what_killed_writers_left(directory, seconds):
    """For each of `WAYS` the last step said to be on disk, and the steps that gradcheck and TensorBoard read.

    Args:
        directory: For the event files.
        seconds: Between the first step and the kill.
    """
    places = [os.path.join(directory, str(k)) for k in range(len(WAYS))]
    process = subprocess.Popen(
        [sys.executable, "-c", WRITES, *places], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    with process:
        said = [process.stdout.readline()]
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            said.append(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        said += process.stdout.read().splitlines(keepends=True)
    last = [line for line in said if line.endswith("\n")][-1].split()
    return {way: (int(step), *_read(place)) for way, step, place in zip(WAYS, last, places, strict=True)}


def lost_nothing(last, ours, theirs):
    """Whether both readers have all steps up to the last one, and no gaps after it."""
    return ours == theirs == tuple(range(len(ours))) and len(ours) > last


def _read(directory):
    if not os.path.isdir(directory):
        return (), ()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    theirs = EventAccumulator(directory, {"tensors": 0}).Reload()
    found = theirs.Tensors("gradient_norm/w") if "gradient_norm/w" in theirs.Tags()["tensors"] else ()
    ours = read_events(directory).scalars.get("gradient_norm/w")
    return ours.steps if ours else (), tuple(event.step for event in found)
