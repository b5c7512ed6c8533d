"""NonfiniteHook in monitored sessions: nothing is written in a step that trips, and no checkpoint of it is kept."""

import numpy as np
import pytest
import tensorflow as tf

import gradcheck
from gradcheck import NonfiniteTrip
from gradcheck._replay import replay

v1 = tf.compat.v1
X = [1.0, 2.0]


class Training:
    """Regression with slots, a moving average and a global step, built in the default graph."""

    def __init__(self, optimizer=None):
        self.step = v1.train.get_or_create_global_step()
        self.x = v1.placeholder(tf.float32, [2])
        self.w = v1.get_variable("w", initializer=[1.0, 1.0])
        self.mean = v1.get_variable("mean", initializer=0.0, trainable=False)
        average = self.mean.assign(0.9 * self.mean + 0.1 * tf.reduce_mean(self.x))
        self.loss = tf.reduce_sum(tf.sqrt(self.w * self.x))  # the root
        optimizer = optimizer or v1.train.AdamOptimizer(0.1)
        self.gradients = optimizer.compute_gradients(self.loss)
        with tf.control_dependencies([average]):
            self.train = optimizer.apply_gradients(self.gradients, global_step=self.step)

    def state(self, session):
        return [np.asarray(v).tobytes() for v in session.run(v1.global_variables())]


@pytest.fixture(params=["resource", "reference"])
def graph(request):
    before = v1.resource_variables_enabled()
    with tf.Graph().as_default():
        (v1.enable_resource_variables if request.param == "resource" else v1.disable_resource_variables)()
        yield
    (v1.enable_resource_variables if before else v1.disable_resource_variables)()


@pytest.mark.parametrize("bad", [[0.0, 1.0], [np.nan, 1.0], [np.inf, 1.0], [-1.0, 1.0]])
def test_a_step_that_trips_writes_nothing(graph, bad):
    training = Training()
    hook = gradcheck.hooks.NonfiniteHook(training.loss, training.gradients, action="skip")
    with v1.train.MonitoredSession(hooks=[hook]) as session:
        session.run(training.train, {training.x: X})
        before = training.state(session)
        session.run(training.train, {training.x: bad})
        assert training.state(session) == before
        assert hook.report.step == 2
        assert [s.number for s in hook.report.history] == [1, 2]
        first = hook.report.history[0]
        assert first.outputs[0][1] == pytest.approx(1 + np.sqrt(2))
        assert [(g.name, g.norm) for g in first.layers] == [("w", pytest.approx(np.sqrt(0.25 + 0.5)))]
        session.run(training.train, {training.x: X})
        assert training.state(session) != before
        assert session.run(training.step) == 2


def test_what_waits_for_an_update_goes_on_without_it(graph):
    training = Training(v1.train.MomentumOptimizer(0.1, 0.9))
    with tf.control_dependencies([training.train]):
        loss, step = tf.identity(training.loss), training.step + 0
    hook = gradcheck.hooks.NonfiniteHook(training.loss, training.gradients, action="skip")
    with v1.train.MonitoredSession(hooks=[hook]) as session:
        session.run(loss, {training.x: X})
        before = training.state(session)
        found = session.run([loss, step, training.train], {training.x: [-1.0, 1.0]})
        assert np.isnan(found[0])
        assert found[1] == 1
        assert training.state(session) == before
        assert session.run(step, {training.x: X}) == 2


def test_without_the_hook_the_same_step_loses_its_weights(graph):
    training = Training()
    with v1.train.MonitoredSession() as session:
        session.run(training.train, {training.x: [0.0, 1.0]})
        assert np.isnan(session.run(training.w)).any()


def test_the_error_names_the_op_the_line_and_the_step(graph):
    training = Training()
    hook = gradcheck.hooks.NonfiniteHook(training.loss, training.gradients)
    with v1.train.MonitoredSession(hooks=[hook]) as session:
        for _ in range(3):
            session.run(training.train, {training.x: X})
        with pytest.raises(NonfiniteTrip, match=r"^step 4 of session.run is not finite") as raised:
            session.run(training.train, {training.x: [-1.0, 1.0]})
    report = raised.value.report
    assert report.nonfinite.op_type == "Sqrt"
    assert "# the root" in report.nonfinite.place.source
    assert [f.name for f in report.found] == ["Sum:0", "gradient of w"]


def test_the_weights_are_the_same_as_without_the_hook_where_all_is_well(graph):
    weights = []
    for hooked in (False, True):
        with tf.Graph().as_default():
            training = Training()
            hooks = [gradcheck.hooks.NonfiniteHook(training.loss, training.gradients)] if hooked else []
            with v1.train.MonitoredSession(hooks=hooks) as session:
                for _ in range(5):
                    session.run(training.train, {training.x: X})
                weights.append(training.state(session))
    assert weights[0] == weights[1]


def test_a_checkpoint_holds_the_last_good_state(graph, tmp_path):
    training = Training()
    hook = gradcheck.hooks.NonfiniteHook(training.loss, training.gradients)
    with pytest.raises(NonfiniteTrip), v1.train.MonitoredTrainingSession(  # noqa: PT012
        checkpoint_dir=str(tmp_path), hooks=[hook], save_checkpoint_steps=1, save_summaries_steps=None,
        log_step_count_steps=None, summary_dir=None,
    ) as session:  # fmt: skip
        session.run(training.train, {training.x: X})
        session.run(training.train, {training.x: [0.0, 1.0]})
    saved = tf.train.load_checkpoint(str(tmp_path))
    assert all(np.isfinite(saved.get_tensor(name)).all() for name in saved.get_variable_to_shape_map())


def test_checkpoints_go_on_with_good_states_also_where_only_every_third_run_is_looked_at(graph, tmp_path):
    training = Training()
    hook = gradcheck.hooks.NonfiniteHook(training.loss, training.gradients, action="log", every=3)
    with v1.train.MonitoredTrainingSession(
        checkpoint_dir=str(tmp_path), hooks=[hook], save_checkpoint_steps=1, save_summaries_steps=None,
        log_step_count_steps=None, summary_dir=None,
    ) as session:  # fmt: skip
        for x in (X, [0.0, 1.0], [np.nan, 1.0], [0.0, 1.0], X):
            session.run(training.train, {training.x: x})
    saved = tf.train.load_checkpoint(str(tmp_path))
    assert saved.get_tensor("global_step") == 2
    assert all(np.isfinite(saved.get_tensor(name)).all() for name in saved.get_variable_to_shape_map())


def test_stop_ends_the_session(graph):
    training = Training()
    hook = gradcheck.hooks.NonfiniteHook([training.loss], training.gradients, action="stop")
    with v1.train.MonitoredSession(hooks=[hook]) as session:
        session.run(training.train, {training.x: [0.0, 1.0]})
        assert session.should_stop()


def test_any_tensor_of_any_shape_and_only_every_nth_run(graph):
    x = v1.placeholder(tf.float32, [None])
    y = tf.math.log(x)
    hook = gradcheck.hooks.NonfiniteHook(y, every=2)
    with v1.train.MonitoredSession(hooks=[hook]) as session:
        session.run(y, {x: [0.0]})
        session.run(y, {x: [1.0]})
        session.run(x, {x: [0.0]})  # does not depend on what is tested
        session.run(y, {x: [0.0]})
        with pytest.raises(NonfiniteTrip) as raised:
            session.run(y, {x: [1.0, 0.0, 0.0]})
    assert [f.neginf for f in raised.value.report.found] == [2]


def test_the_op_is_named_on_the_batch_and_the_numbers_that_the_run_had(graph):
    batches = tf.data.Dataset.from_tensor_slices([[1.0, 2.0], [0.0, 1.0], [1.0, 2.0]])
    values = v1.data.make_one_shot_iterator(batches).get_next()
    w = v1.get_variable("w", initializer=[1.0, 1.0])
    noise = tf.random.uniform([2], 0.5, 1.0)
    loss = tf.reduce_sum(tf.math.log(w * values) * noise)  # the log
    train = v1.train.MomentumOptimizer(0.1, 0.9).minimize(loss)
    hook = gradcheck.hooks.NonfiniteHook(loss, action="skip")
    with v1.train.MonitoredSession(hooks=[hook]) as session:
        session.run(train)
        before = session.run(w)
        session.run(train)
        np.testing.assert_array_equal(session.run(w), before)
        session.run(train)
        assert (session.run(w) != before).all()
    found = hook.report.nonfinite
    assert (found.op_type, found.cause, found.index, hook.report.notes) == ("Log", "singularity", (0,), ())
    assert "# the log" in found.place.source


def test_the_iteration_of_a_loop_is_named_and_the_bundle_replays(graph, tmp_path):
    x = v1.placeholder(tf.float32, [])
    w = v1.get_variable("w", initializer=1.0)
    _, root = tf.while_loop(lambda i, a: i < 4, lambda i, a: (i + 1, tf.sqrt(a - 1.0)), [0, w * x])
    train = v1.train.GradientDescentOptimizer(0.1).minimize(root)
    hook = gradcheck.hooks.NonfiniteHook(root, action="skip", dump_dir=tmp_path)
    with v1.train.MonitoredSession(hooks=[hook]) as session:
        session.run(train, {x: 8.0})
    report = hook.report
    assert (report.nonfinite.op_type, report.nonfinite.cause) == ("Sqrt", "singularity")
    assert "iteration 3" in report.nonfinite.inside[-1]
    bundle, again = replay(report.bundle)
    assert again == report.nonfinite == bundle.report


def test_rollback_goes_to_the_values_that_were_kept(graph):
    training = Training()
    hook = gradcheck.hooks.NonfiniteHook(training.loss, training.gradients, action="rollback", snapshot_every=2)
    with v1.train.MonitoredSession(hooks=[hook]) as session:
        states = []
        for _ in range(3):  # values are kept before the first run and the third
            states.append(training.state(session))
            session.run(training.train, {training.x: X})
        session.run(training.train, {training.x: [0.0, 1.0]})
        assert session.run(training.step) == 2
        assert training.state(session) == states[2]


def test_misuse_is_refused(graph):
    loss = tf.reduce_sum(v1.placeholder(tf.float32, [2]))
    hook = gradcheck.hooks.NonfiniteHook
    with pytest.raises(TypeError, match=r"^loss must hold tensors of a tf.Graph .* found float$"):
        hook(1.0)
    with pytest.raises(TypeError, match=r"^loss must be floating or complex; found 'Const_.:0' of dtype int32$"):
        hook(tf.constant(1))
    with pytest.raises(
        TypeError, match=r"^gradients must be a list of tensors, or of pairs with variables; got SymbolicTensor$"
    ):
        hook(loss, loss)
    with pytest.raises(ValueError, match=r"^every must be at least 1; got every=0$"):
        hook(loss, every=0)
