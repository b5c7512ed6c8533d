"""Checks whose points are run by an executor's workers: the same report, whatever happens to the workers."""

import multiprocessing
import os
import pickle
import signal
import sys
import time
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

import gradcheck
from gradcheck._errors import ExecutorFailed
from gradcheck._farm.arithmetic import adopt, arithmetic
from gradcheck._farm.parcels import Parcel
from gradcheck._farm.spread import spread
from gradcheck._graph.evaluate import Runner
from gradcheck._graph.program import from_concrete
from gradcheck._graph.wire import program_from_bytes, program_to_bytes

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 5))
W = RNG.normal(size=(5, 5)) / 3


def right(x, w):
    for _ in range(2):
        x = tf.tanh(x @ w)
    return tf.reduce_sum(x, axis=1)


@tf.custom_gradient
def _square(x):
    return x * x, lambda g: (2.0 + 0.001 * tf.cast(x > 1.0, x.dtype)) * g * x


def wrong(x, w):
    return tf.reduce_sum(_square(x @ w) * tf.cos(x @ w), axis=0)


def asserting(x, w):
    with tf.control_dependencies([tf.debugging.assert_less(tf.abs(x), tf.cast(3.0, x.dtype))]):
        return tf.exp(x) @ w


def looping(x, w):
    return tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, tf.sin(y) @ w), [0, x])[1]


class Recording(Executor):
    """Runs at once, on pickled copies, as another process would; and remembers what it was sent."""

    def __init__(self):
        self.sent = []

    def submit(self, fn, /, *args, **kwargs):
        self.sent.append(args[0])
        done = Future()
        fn, args = pickle.loads(pickle.dumps((fn, args)))
        done.set_result(pickle.loads(pickle.dumps(fn(*args, **kwargs))))
        return done

    @property
    def parcels(self):
        return [each for each in self.sent if isinstance(each, Parcel)]


class Losing(Recording):
    """Loses one parcel in so many, each once; with `every=1` all of them, always."""

    def __init__(self, error, every=3):
        super().__init__()
        self.error, self.every, self.lost = error, every, []

    def submit(self, fn, /, piece):
        done = super().submit(fn, piece)
        if self.every == 1 or (len(self.parcels) % self.every == 2 and not any(piece is each for each in self.lost)):
            self.lost.append(piece)
            done = Future()
            done.set_exception(self.error)
        return done


@pytest.fixture(scope="module")
def reports():
    """The reports of this process alone, each made once."""
    made = {}

    def report(fn, mode):
        if (fn, mode) not in made:
            made[fn, mode] = gradcheck.check_gradients(fn, [X, W], mode=mode)
        return made[fn, mode]

    return report


def same(one, other):
    """Bit for bit: as JSON writes them, every digit of every number."""
    plain, others = one.to_dict(), other.to_dict()
    plain["cost"]["seconds"] = others["cost"]["seconds"] = 0.0
    return plain == others


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("fn", [right, wrong, asserting, looping])
def test_threads_give_the_report_of_this_process(reports, fn, workers):
    with ThreadPoolExecutor(workers) as pool:
        assert same(gradcheck.check_gradients(fn, [X, W], executor=pool), reports(fn, "auto"))


@pytest.mark.parametrize("mode", ["directional", "elementwise", "jacobian"])
@pytest.mark.parametrize("fn", [right, wrong])
def test_every_mode_sends_points_away_and_gives_the_same_report(reports, fn, mode):
    executor = Recording()
    assert same(gradcheck.check_gradients(fn, [X, W], mode=mode, executor=executor), reports(fn, mode))
    assert len(executor.parcels) > 10


def test_a_wrong_answer_from_a_worker_is_seen(reports):
    """So the comparisons above can fail: what workers compute is what is judged."""

    class Lying(Recording):
        def submit(self, fn, /, *args, **kwargs):
            done = super().submit(fn, *args, **kwargs)
            found = done.result()
            if hasattr(found, "arrays") and isinstance(found.arrays[0], np.ndarray):
                found.arrays[0] *= 1.5
            return done

    assert not same(gradcheck.check_gradients(right, [X, W], executor=Lying()), reports(right, "auto"))


@pytest.mark.parametrize("error", [ConnectionError("gone"), CancelledError(), MemoryError()])
def test_what_a_lost_worker_had_is_run_again(reports, error):
    executor = Losing(error)
    assert same(gradcheck.check_gradients(right, [X, W], executor=executor), reports(right, "auto"))


def test_a_broken_executor_leaves_the_rest_to_this_process(reports):
    with pytest.warns(RuntimeWarning, match="takes no more work .*BrokenExecutor: a process died.* in this process"):
        report = gradcheck.check_gradients(wrong, [X, W], executor=Losing(BrokenExecutor("a process died"), every=20))
    assert same(report, reports(wrong, "auto"))


def test_an_executor_shut_down_meanwhile_leaves_the_rest_to_this_process(reports):
    class Closing(Recording):
        def submit(self, fn, /, *args, **kwargs):
            if len(self.parcels) == 7:
                raise RuntimeError("cannot schedule new futures after shutdown")
            return super().submit(fn, *args, **kwargs)

    with pytest.warns(RuntimeWarning, match="cannot schedule new futures"):
        report = gradcheck.check_gradients(right, [X, W], executor=Closing())
    assert same(report, reports(right, "auto"))


def test_work_lost_again_and_again_is_an_error_that_names_the_cause():
    with pytest.raises(ExecutorFailed, match=r"undone 3 times: ConnectionError: no route.*leave executor= out"):
        gradcheck.check_gradients(right, [X, W], executor=Losing(ConnectionError("no route"), every=1))
    assert gradcheck.check_gradients(right, [X, W]).ok  # and the next check runs here again


def test_a_worker_that_computes_otherwise_is_refused():
    class Other(Recording):
        def submit(self, fn, /, piece, **kwargs):
            if isinstance(piece, Parcel):
                piece = replace(piece, arithmetic=replace(piece.arithmetic, threads=77))
            return super().submit(fn, piece, **kwargs)

    with pytest.raises(ExecutorFailed, match=r"threads is \d+ on the worker and 77 here: .*TF_NUM_INTRAOP_THREADS"):
        gradcheck.check_gradients(right, [X, W], executor=Other())


def test_how_a_process_computes_is_compared_field_by_field():
    assert adopt(arithmetic()) is None
    assert "tensorflow is" in adopt(replace(arithmetic(), tensorflow="2.1.0"))
    assert "gradcheck is" in adopt(replace(arithmetic(), gradcheck="0.0.0"))
    assert "TF_ENABLE_ONEDNN_OPTS" in adopt(replace(arithmetic(), onednn="other"))


def test_large_values_go_to_a_worker_once_and_batches_are_cut_by_their_size():
    weights = tf.Variable(RNG.normal(size=(100, 100)) / 10)
    executor = Recording()
    fn = lambda x: tf.tanh(tf.tanh(x @ weights) @ weights)  # noqa: E731
    inputs = RNG.normal(size=(4, 100))
    report = gradcheck.check_gradients(fn, inputs, wrt="inputs", mode="directional", executor=executor)
    assert same(report, gradcheck.check_gradients(fn, inputs, wrt="inputs", mode="directional"))
    assert len(executor.parcels) > 16
    sent = [digest for parcel in executor.parcels for digest in parcel.contents]
    assert len(sent) == len(set(sent))
    held = [c for p in executor.parcels for c in p.contents.values() if isinstance(c, np.ndarray)]
    assert [c.nbytes for c in held] == [80_000]


def test_an_array_that_is_changed_in_place_is_sent_anew():
    program = from_concrete(tf.function(lambda x, w: x @ w).get_concrete_function(X, np.zeros((5, 800))))
    runner, held = Runner(program), np.ones((5, 800))
    moving = {program.main.args[0].name: np.stack([X + k for k in range(9)])}
    with ThreadPoolExecutor(2) as pool, spread(pool):
        for _ in range(2):
            (found,) = runner.run_batch(moving, [None, held])
            assert np.array_equal(found, moving[program.main.args[0].name] @ held)
            held *= 2


def test_what_refuses_some_points_or_changes_shape_does_so_from_workers_too():
    with ThreadPoolExecutor(2) as pool:
        for executor in (None, pool):
            with pytest.raises(ValueError, match="outputs change shape"):
                gradcheck.check_gradients(
                    lambda x: tf.boolean_mask(x, x > 1.5), [np.array([1.5, 2.0])], executor=executor
                )
        near = np.full((6, 5), 2.9)
        alone, away = (gradcheck.check_gradients(asserting, [near, W], executor=e) for e in (None, pool))
    assert same(alone, away)


def test_python_functions_stay_here_and_the_report_says_so():
    def fn(x):
        return tf.py_function(lambda v: v * v, [x], tf.float64)

    executor = Recording()
    report = gradcheck.check_gradients(fn, X, mode="directional", executor=executor)
    alone = gradcheck.check_gradients(fn, X, mode="directional")
    assert not executor.parcels
    assert report.findings == alone.findings
    (note,) = set(report.notes) - set(alone.notes)
    assert note.startswith("run in this process, not by the executor: EagerPyFunc")


def test_tables_of_this_process_stay_here():
    keys = tf.lookup.KeyValueTensorInitializer(tf.constant([0, 1], tf.int64), tf.constant([2, 3], tf.int64))
    table = tf.lookup.StaticHashTable(keys, 0)
    executor = Recording()
    fn = lambda x: x * tf.cast(table.lookup(tf.constant([0, 1, 1], tf.int64)), x.dtype)  # noqa: E731
    report = gradcheck.check_gradients(fn, tf.constant([1.0, 2.0, 3.0]), mode="directional", executor=executor)
    assert report.ok
    assert not executor.parcels
    assert "only this process has" in report.notes[-1]


def test_models_and_graphs_take_an_executor():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(2)])
    x, y = RNG.normal(size=(3, 5)).astype("float32"), np.zeros((3, 2), "float32")
    executor = Recording()
    alone, away = (gradcheck.check_model(model, x, y, loss="mse", executor=e) for e in (None, executor))
    assert same(alone, away)
    assert executor.parcels
    executor = Recording()
    with tf.Graph().as_default():
        a = tf.constant(X)
        b = tf.sin(a) * a
        alone = gradcheck.check_tf_gradients(b, a)
        away = gradcheck.assert_tf_gradients(b, a, executor=executor)
    assert same(alone, away)
    assert executor.parcels


@pytest.mark.parametrize(
    ("executor", "error", "text"),
    [
        (lambda: 2, TypeError, "must be a concurrent.futures.Executor or None; got int"),
        (type("Client", (), {"get_executor": None}), TypeError, r"got Client; write client.get_executor\(\)"),
        (
            lambda: ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")),
            ValueError,
            "forks its processes.*spawn",
        ),
    ],
    ids=["number", "Dask's client", "fork"],
)
def test_what_is_no_executor_for_tensorflow_is_refused_before_anything_runs(executor, error, text):
    def never(x):
        raise AssertionError("called")

    with pytest.raises(error, match=text):
        gradcheck.check_gradients(never, X, executor=executor())
    with pytest.raises(error, match=text):
        gradcheck.check_model(None, X, executor=executor())
    with pytest.raises(error, match=text):
        gradcheck.check_tf_gradients(None, X, executor=executor())


def test_an_executor_that_is_shut_down_is_refused_before_anything_runs():
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(ValueError, match=r"executor takes no work: .*hand over one that is open"):
        gradcheck.check_gradients(lambda x: 1 / 0, X, executor=pool)


def test_programs_come_back_from_their_bytes():
    program = from_concrete(tf.function(asserting).get_concrete_function(X, W))
    program = replace(program, main=replace(program.main, kept=(program.main.nodes[-1].name,)))
    data = program_to_bytes(program)
    again = program_from_bytes(data)
    assert program_to_bytes(again) == data
    assert again.main.kept == program.main.kept
    with pytest.raises(ValueError, match="one function 'main'"):
        program_from_bytes(b"")


def test_one_program_may_be_run_by_several_threads_from_the_start():
    body = lambda i, y: (i + 1, tf.cond(tf.reduce_sum(y) > 0, lambda: tf.sin(y), lambda: y))  # noqa: E731
    fn = tf.function(lambda x: tf.while_loop(lambda i, _: i < 3, body, [0, x])[1])
    program = from_concrete(fn.get_concrete_function(tf.TensorSpec([3], tf.float64)))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            for _ in range(20):
                runner, moving = Runner(program), {program.main.args[0].name: np.ones((2, 3))}
                found = [pool.submit(runner.run_batch, moving, [None]) for _ in range(8)]
                assert {each.result()[0].shape for each in found} == {(2, 3)}
    finally:
        sys.setswitchinterval(interval)


# ---------------------------------------------------------------------------------------- real processes


class _Killing(Executor):
    """Passes on to another executor, and kills a process in the middle."""

    def __init__(self, executor, pid, after):
        self.executor, self.pid, self.after, self.count = executor, pid, after, 0

    def submit(self, fn, /, *args, **kwargs):
        self.count += 1
        if self.count == self.after:
            os.kill(self.pid, signal.SIGKILL)
        return self.executor.submit(fn, *args, **kwargs)


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


@pytest.mark.slow
def test_processes_give_the_same_report_also_when_one_is_killed(reports):
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert same(gradcheck.check_gradients(wrong, [X, W], executor=pool), reports(wrong, "auto"))
        pid = pool.submit(os.getpid).result()
        with pytest.warns(RuntimeWarning, match="BrokenProcessPool"):
            report = gradcheck.check_gradients(right, [X, W], executor=_Killing(pool, pid, after=9))
    assert same(report, reports(right, "auto"))


@pytest.mark.slow
def test_a_dask_cluster_gives_the_same_report_also_when_a_worker_is_killed(reports):
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    )
    with cluster, distributed.Client(cluster) as client:
        executor = client.get_executor()
        for fn in (right, wrong):
            assert same(gradcheck.check_gradients(fn, [X, W], executor=executor), reports(fn, "auto"))
        pids = client.run(os.getpid)
        assert len(set(pids.values()) | {os.getpid()}) == 3
        victim = min(pids.values())
        report = gradcheck.check_gradients(wrong, [X, W], executor=_Killing(executor, victim, after=40))
        assert same(report, reports(wrong, "auto"))
        wait_for(lambda: victim not in client.run(os.getpid).values())
