"""Gradients of graphs of TensorFlow 1: among the summaries that `merge_all` merges, and by a hook."""

import pytest
import tensorflow as tf

from gradcheck.hooks import GradientSummaryHook
from gradcheck.tensorboard import read_events
from gradcheck.tensorboard.v1 import gradient_summaries

v1 = tf.compat.v1


@pytest.fixture
def graph():
    with tf.Graph().as_default() as graph:
        yield graph


def _loss(**options):
    x = v1.placeholder(tf.float32, [])
    w = v1.get_variable("w", initializer=[3.0, 4.0], **options)
    table = v1.get_variable("table", initializer=tf.ones([10, 2]))
    idle = v1.get_variable("idle", initializer=1.0)
    loss = x * (tf.reduce_sum(w**2) / 2 + tf.reduce_sum(tf.gather(table, [1, 1, 4])))
    return x, loss, [w, table, idle]


@pytest.mark.parametrize("use_resource", [True, False])
def test_merge_all_takes_them_and_a_file_writer_writes_them(use_resource, graph, tmp_path):
    x, loss, variables = _loss(use_resource=use_resource)
    gradient_summaries(tf.gradients(loss, variables), variables, weights=True)
    merged = v1.summary.merge_all()
    with v1.Session() as session, v1.summary.FileWriter(str(tmp_path)) as writer:
        session.run(v1.global_variables_initializer())
        for step, value in enumerate([1.0, 2.0, float("nan")]):
            writer.add_summary(session.run(merged, {x: value}), step)
    found = read_events(tmp_path)
    assert found.scalars["gradient_norm/w"].values[:2] == (5.0, 10.0)
    assert found.scalars["gradient_norm/table"].values[0] == pytest.approx(10**0.5)  # two rows, one of them twice
    assert found.scalars["gradient_nan/w"].values == (0, 0, 2)
    assert found.scalars["weight_norm/w"].values == (5.0, 5.0, 5.0)
    assert found.histograms["gradients/w"].values[1][:, 2].sum() == 2
    assert sorted(found.histograms) == ["gradients/table", "gradients/w", "weights/idle", "weights/table", "weights/w"]
    assert found.texts["gradients_none"].values == ("No gradient arrives at:\n\n- `idle`",)


def test_pairs_of_an_optimizer_and_collections_of_ones_own(graph):
    _, loss, _ = _loss()
    pairs = v1.train.GradientDescentOptimizer(0.1).compute_gradients(loss)
    tensor = gradient_summaries(pairs, histograms=False, collections=["mine"], name="health")
    assert v1.get_collection("mine") == [tensor]
    assert v1.summary.merge_all() is None
    assert tensor.name.startswith("health/summary")
    assert tensor.dtype == tf.string
    assert tensor.shape.rank == 0


def test_a_hook_records_each_so_many_steps_with_the_update_also_in_a_resumed_run(tmp_path):
    options = {"checkpoint_dir": str(tmp_path / "saved"), "save_summaries_steps": None, "log_step_count_steps": None}
    for steps in (3, 2):
        with tf.Graph().as_default():
            x, loss, variables = _loss()
            optimizer = v1.train.GradientDescentOptimizer(0.5)
            pairs = optimizer.compute_gradients(loss, variables)
            train = optimizer.apply_gradients(pairs, global_step=v1.train.get_or_create_global_step())
            hook = GradientSummaryHook(tmp_path / "logs", pairs, every=2)
            with v1.train.MonitoredTrainingSession(hooks=[hook], **options) as session:
                session.run(variables[0])  # computes no gradient, and feeds nothing
                for _ in range(steps):
                    session.run(train, {x: 1.0})
    found = read_events(tmp_path / "logs")
    assert found.scalars["gradient_norm/w"].steps == (0, 2, 4)
    assert found.scalars["gradient_norm/w"].values == (5.0, 1.25, 5 / 16)
    assert found.scalars["update_ratio/w"].values == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (TypeError, "must be pairs with variables, as compute_gradients gives them", ([tf.constant(1.0)],)),
        (ValueError, "found 2 variables and 1 gradients", ([tf.constant(1.0)], ["a", "b"])),
        (TypeError, "gradients must be tensors", (["x"], ["a"])),
    ],
)
def test_misuse_is_said(error, match, arguments, graph):
    with pytest.raises(error, match=match):
        gradient_summaries(*arguments)
    assert graph.get_operations() == []


def test_outside_of_a_graph_the_eager_way_is_named():
    with pytest.raises(ValueError, match=r"there is no tf\.Graph to add to; .*SummaryWriter"):
        gradient_summaries([tf.constant(1.0)], ["a"])
    with tf.Graph().as_default(), pytest.raises(ValueError, match="every must be at least 1"):
        GradientSummaryHook("logs", [tf.constant(1.0)], ["a"], every=0)
