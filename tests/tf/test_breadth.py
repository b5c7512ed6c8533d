"""What people build gets the verdict that it has earned: no false alarm, and no fault overlooked."""

import dataclasses
import inspect
import subprocess
import sys

import pytest

from gradcheck import Verdict
from tests.breadth import faults, models, ops

RIGHT = models.RIGHT + ops.RIGHT
# Where time is short, every so many-th case stands for the rest in mode auto; all of them, and more modes, are slow.
EVERY, EVERY_WRONG = 12, 8
OTHER = {"directional": {"mode": "directional", "seed": 1}, "elementwise": {"mode": "elementwise", "seed": 2}}


def parameters(cases, every):
    for k, case in enumerate(cases):
        modes = {"as it is": {}, **OTHER} if not {"mode", "order"} & set(case.options) else {"as it is": {}}
        for mode, options in modes.items():
            marks = [pytest.mark.slow] if case.slow or k % every or options else []
            yield pytest.param(case, options, marks=marks, id=f"{case.name}-{mode}")


@pytest.mark.parametrize(("case", "options"), list(parameters(RIGHT, EVERY)))
def test_a_right_subject_raises_no_alarm(case, options):
    report = case.report(**options)
    assert (report.verdict, report.ok) == (Verdict.MATCH, True), str(report)


def names_culprit(case, found):
    places = [found.blame, *found.also] if found.blame is not None else []
    places += [found.cut.place] if found.cut is not None else []
    wanted = case.culprit
    return any(
        place.op_type == wanted.op
        and wanted.source in (place.source or "")
        and wanted.function in (None, place.op)
        and place.file is not None
        for place in places
    )


def assert_caught(case, report):
    assert (report.verdict, report.ok) == (case.verdict, False), str(report)
    if case.x is not None:
        assert report.worst.x == case.x, str(report)
    if "mode" not in case.options:
        assert names_culprit(case, report.worst), str(report)


@pytest.mark.parametrize(("case", "options"), list(parameters(faults.WRONG, EVERY_WRONG)))
def test_a_planted_fault_is_caught(case, options):
    assert_caught(case, case.report(**options))


def test_an_expectation_that_is_not_met_is_seen():
    case = faults.WRONG[0]
    report = case.report()
    other = dataclasses.replace(case.culprit, source="another line")
    for wrong in (
        dataclasses.replace(case, verdict=Verdict.CUT),
        dataclasses.replace(case, x="inputs[7]"),
        dataclasses.replace(case, culprit=other),
    ):
        with pytest.raises(AssertionError):
            assert_caught(wrong, report)
    with pytest.raises(AssertionError):
        test_a_right_subject_raises_no_alarm(case, {})


def test_there_are_as_many_subjects_as_were_promised_and_every_fault_names_its_culprit():
    assert len(RIGHT) >= 240
    assert len(faults.WRONG) >= 95
    assert len({case.name for case in RIGHT}) == len(RIGHT)
    assert len({case.name for case in faults.WRONG}) == len(faults.WRONG)
    text = "".join(inspect.getsource(module) for module in (faults, ops))
    for case in faults.WRONG:
        assert case.culprit.source in text or case.culprit.source == "map_flat_values", case.name
        assert case.culprit.function is None or f"def {case.culprit.function}(" in text, case.name


MIRRORED = """
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import keras, numpy as np, gradcheck
from tests.breadth.faults import bad_square

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
x = np.float32([[0.3, -0.7, 1.1], [0.2, 0.5, -0.4]])
with strategy.scope():
    w = tf.Variable(np.float32([0.5, -1.0, 2.0]), name="w")
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="tanh"), keras.layers.Dense(1)])

def run(step):
    return lambda x: strategy.reduce("SUM", strategy.run(step, (x,)), axis=None)

right = gradcheck.check_gradients(run(lambda x: tf.reduce_sum(tf.sin(x * w))), [x])
assert right.ok and len(right.findings) == 3, right
wrong = gradcheck.check_gradients(run(lambda x: tf.reduce_sum(bad_square(x * w))), [x])
assert not wrong.ok and wrong.verdict.name == "MISMATCH" and len(wrong.findings) == 3, wrong
before = [v.numpy() for v in model.variables]
plain = gradcheck.check_model(model, x, np.zeros((2, 1)), loss="mse")
assert plain.ok and len(plain.findings) == 4, plain
step = gradcheck.check_gradients(run(lambda x: tf.reduce_sum(model(x) ** 2)), [x])
assert step.ok, step
assert all((a == v.numpy()).all() for a, v in zip(before, model.variables))
print("paths", [f.x for f in right.findings], [f.x for f in plain.findings])
"""


@pytest.mark.slow
def test_mirrored_variables_on_two_devices_are_checked():
    """In a process of its own, because devices are configured before TensorFlow starts."""
    ran = subprocess.run([sys.executable, "-c", MIRRORED], capture_output=True, text=True, check=False, timeout=180)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "['inputs[0]', 'w', 'w/replica_1']" in ran.stdout
