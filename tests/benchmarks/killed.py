"""A process that records gradients until it is killed, and what can be read of them."""

import os
import signal
import subprocess
import sys
import time

from gradcheck.tensorboard import read_events

WRITES = """
import sys, itertools, tensorflow as tf
from gradcheck.tensorboard import SummaryWriter
w = tf.Variable(tf.ones([1000]), name="w")
count = tf.Variable(0, dtype=tf.int64)
writer = SummaryWriter(sys.argv[1])

@tf.function
def step():
    writer.gradients(count, [w * tf.cast(count, tf.float32)], [w])
    count.assign_add(1)

for k in itertools.count():
    step()
    print(k, flush=True)
"""


def steps_of_a_killed_writer(directory, seconds):
    """The last step that the process said to have recorded, and the steps that gradcheck and TensorBoard read.

    Args:
        directory: For the event file.
        seconds: Between the first step and the kill.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", WRITES, str(directory)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    with process:
        said = [process.stdout.readline()]
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            said.append(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        said += process.stdout.read().splitlines(keepends=True)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    last = max(int(line) for line in said if line.endswith("\n"))
    theirs = EventAccumulator(str(directory), {"tensors": 0}).Reload().Tensors("gradient_norm/w")
    ours = read_events(directory).scalars["gradient_norm/w"].steps
    return last, ours, tuple(event.step for event in theirs)
