"""How long it takes to run a dumped training step again, in a process that has run nothing before."""

import subprocess
import sys
import tempfile

import keras
import tensorflow as tf

import gradcheck

AGAIN = """
import sys, time
import tensorflow as tf
from gradcheck._replay import replay
tf.config.list_logical_devices()
started = time.perf_counter()
bundle, report = replay(sys.argv[1])
assert report == bundle.report and report.op_type == "SqrtGrad", report
print(time.perf_counter() - started)
"""


def seconds(layers: int, repeats: int) -> tuple[int, list[float]]:
    """How many ops a training step has, and how many seconds each first replay of it took."""
    keras.utils.set_random_seed(0)
    dense = [keras.layers.Dense(16, activation="tanh") for _ in range(layers)]
    model = keras.Sequential([keras.Input((16,)), *dense])
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(x, weight):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.sqrt(tf.reduce_sum((weight * model(x, training=True)) ** 2, 1)))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    batch = tf.random.stateless_normal([32, 16], (0, 0)), tf.constant(0.0)
    with tempfile.TemporaryDirectory() as dumps:
        watchdog = gradcheck.Watchdog("skip", dump_dir=dumps)
        watchdog.watch(step)(*batch)
        command = [sys.executable, "-c", AGAIN, watchdog.report.bundle]
        found = [float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(repeats)]
    return len(step.get_concrete_function(*batch).graph.get_operations()), found
