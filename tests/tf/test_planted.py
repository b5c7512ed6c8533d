"""Faults planted in trainings, found through the watchdog; and healthy trainings, in which it is silent."""

import numpy as np
import pytest
import tensorflow as tf

from tests.watched.faults import PLANTED
from tests.watched.healthy import TRAININGS, health
from tests.watched.planting import Planted, Trial, answer

QUICK = ("log_of_product", "log_of_softmax", "in_python", "root_at_zero", "backward_through_a_while",
         "a_layer_that_takes_a_length", "clipped_by_a_norm_of_zero", "hidden_by_a_fused_dense_layer",
         "after_random_numbers_of_a_kernel")  # fmt: skip


def parameters(cases, quick):
    return [pytest.param(c, id=c.name, marks=[] if c.name in quick else pytest.mark.slow) for c in cases]


@pytest.mark.parametrize("fault", parameters(PLANTED, QUICK))
def test_op_line_cause_and_every_bit(fault):
    found = answer(fault)
    assert found.ok, f"{found}\n{found.text}"


def test_there_are_enough_of_them_and_each_has_its_line():
    assert len(PLANTED) >= 50
    assert len({fault.name for fault in PLANTED}) == len(PLANTED)
    assert all(fault.line or fault.cause == "input" for fault in PLANTED)
    assert sum(fault.hidden for fault in PLANTED) >= 3


def test_an_answer_that_is_wrong_is_told():
    """The tests above can fail."""

    def make():
        w, seen = tf.Variable(1.0), []

        def step(x):
            seen.append(x)
            w.assign_sub(tf.math.log(x))
            kept.assign(float(len(seen)))

        kept = tf.Variable(0.0)
        return Trial(step=step, good=(tf.constant(1.5),), bad=(tf.constant(0.0),), state=[w])

    wrong = answer(Planted(name="wrong", make=make, source=make, ops=("Sqrt",), cause="overflow"))
    assert (wrong.tripped, wrong.kept, wrong.op, wrong.cause, wrong.ok) == (True, True, False, False, False)
    healthy = Planted(name="none", make=lambda: _healed(make()), source=make, ops=("Log",), cause="singularity")
    assert not answer(healthy).tripped
    assert not np.isfinite(_lost(make()))


def _healed(trial):
    return Trial(step=trial.step, good=trial.good, bad=trial.good, state=trial.state)


def _lost(trial):
    trial.step(*trial.bad)
    return float(trial.state[0])


@pytest.mark.slow
@pytest.mark.parametrize("training", TRAININGS[::5], ids=lambda t: t.name)
def test_healthy_trainings_of_500_steps_are_left_in_peace(training):
    found = health(training)
    assert found.ok, found
