"""A bundle is whole or absent, gives the same report in another process, and never runs code of its own."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradcheck import cli
from gradcheck._bundle import writing
from gradcheck._bundle.manifest import sha256_of
from gradcheck._bundle.reading import read_bundle
from gradcheck._bundle.writing import write_bundle
from gradcheck._diagnose.nonfinite import report_on
from gradcheck._errors import BundleDamaged, BundleNotWritten
from gradcheck._graph.rerun import of_concrete
from gradcheck._replay import replay

ROOT = Path(__file__).parents[2]


def tripped(step, *arguments):
    """A step that is run again, and its report."""
    rerun = of_concrete(step.get_concrete_function(*arguments), arguments, None, None)
    return rerun, report_on(rerun, tests=True)


def training_step():
    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dropout(0.5)])
    optimizer = keras.optimizers.Adam(0.1)
    optimizer.build(net.trainable_variables)
    optimizer.iterations.assign(40_000)

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            for _ in tf.range(2):
                x = tf.sqrt(x)
            y = net(x, training=True)
            loss = tf.reduce_mean(tf.sqrt(tf.reduce_sum(tf.square(y * 0.0), -1)))
        gradients = tape.gradient(loss, net.trainable_variables)
        optimizer.apply_gradients(zip(gradients, net.trainable_variables, strict=True))
        return {"loss": loss}

    return step


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dumps")
    rerun, report = tripped(training_step(), tf.ones([2, 3]))
    assert not report.ok
    return write_bundle(folder, rerun, report, step=40_000), rerun, report


@pytest.fixture
def bundle(written, tmp_path):
    """A copy that may be spoiled."""
    return Path(shutil.copytree(written[0], tmp_path / "bundle"))


def test_a_bundle_gives_the_same_report(written):
    path, rerun, report = written
    read, again = replay(path)
    assert again == report == read.report
    assert read.step == 40_000
    assert [g.label for g in read.given] == [g.label for g in rerun.given]
    for own, stored in zip(rerun.given, read.given, strict=True):
        np.testing.assert_array_equal(own.value, stored.value)
    assert str(report) in (path / "report.txt").read_text()
    assert {"tensorflow", "keras", "numpy", "python", "gradcheck"} <= read.versions.keys()
    assert "numpy" in json.loads((path / "rng.json").read_text())


def test_values_of_all_dtypes_come_back(tmp_path):
    counter = tf.Variable(7, dtype=tf.int64)
    half = tf.Variable([1.5, 2.5], dtype=tf.bfloat16)

    @tf.function
    def step(x, names, flags, z):
        counter.assign_add(1)
        kept = tf.where(flags, x, 0.0)
        return tf.math.log(kept), names, tf.cast(half, tf.float32), z

    values = (
        tf.constant([1.0, 2.0]), tf.constant(["a", "b\0"]), tf.constant([True, False]), tf.constant(1 + 2j),
    )  # fmt: skip
    rerun, report = tripped(step, *values)
    read, again = replay(write_bundle(tmp_path, rerun, report))
    assert again == report
    assert [g.value.dtype for g in read.given] == [g.value.dtype for g in rerun.given]
    assert read.given[1].value.numpy().tolist() == [b"a", b"b\0"]
    np.testing.assert_array_equal(read.given[-1].value, half)


def test_the_users_step_may_be_run_on_the_bundle(written, tmp_path, monkeypatch, capsys):
    path = written[0]
    (tmp_path / "mending.py").write_text(
        textwrap.dedent(
            """
            import tensorflow as tf
            from tests.tf.test_bundles import training_step

            def unchanged():
                return training_step()

            def needs(x):
                return x

            def mended():
                inner = training_step()
                def step(x):
                    inner.python_function(x)
                    return tf.constant(0.0)
                return step

            def nothing():
                return 3
            """
        )
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert cli.main(["replay", str(path), "mending:unchanged"]) == 1
    assert "SqrtGrad" in capsys.readouterr().out
    for spec, says in (
        ("mending:nothing", "returned a value of type int; it must return the training step"),
        ("mending:needs", "and is called without any; it must return the training step"),
        ("mending", "a step is named module:function, got 'mending'"),
        ("mending:absent", "has no 'absent'"),
    ):
        assert cli.main(["replay", str(path), spec]) == 2
        assert says in capsys.readouterr().err


def test_a_mended_step_is_all_ok(tmp_path):
    v = tf.Variable(0.0, name="v")
    rerun, report = tripped(tf.function(lambda x: tf.math.log(x * v)), tf.constant(1.0))
    path = write_bundle(tmp_path, rerun, report)
    _, again = replay(path, lambda x: tf.math.log(tf.maximum(x * v, 1e-6)))
    assert again.ok
    other = tf.Variable([1.0, 2.0], name="other")
    with pytest.raises(ValueError, match="the step must read the variables of the bundle, v; found other"):
        replay(path, lambda x: x * other)
    with pytest.raises(ValueError, match="the step must take the batch as 1 tensors at most"):
        replay(path, lambda x, y: x * y)
    path = write_bundle(tmp_path, *tripped(tf.function(lambda x: tf.math.log(1.0 * x)), tf.constant(0.0)))
    with pytest.raises(ValueError, match="the bundle, none; found other: in a bundle that a session's hook wrote"):
        replay(path, lambda x: x * other)


def test_a_step_without_a_portable_graph_is_stored_all_the_same(tmp_path, capsys):
    def step(x):
        return tf.math.log(tf.numpy_function(lambda v: v - v, [x], tf.float32))

    rerun, report = tripped(tf.function(step), tf.constant(1.0))
    path = write_bundle(tmp_path, rerun, report)
    assert not (path / "graph.pb").exists()
    assert read_bundle(path).given[0].value == 1.0
    assert cli.main(["replay", str(path)]) == 2
    assert "holds no graph, for the step holds PyFunc" in capsys.readouterr().err
    _, again = replay(path, step)
    assert again.op_type == "Log"


# --------------------------------------------------------------------------------------------- limits


def test_number_and_size_are_limited(tmp_path):
    rerun, report = tripped(tf.function(tf.math.log), tf.zeros([1000]))
    for _ in range(2):
        write_bundle(tmp_path, rerun, report, max_bundles=2)
    with pytest.raises(BundleNotWritten, match=r"holds 2 already, and max_bundles=2; remove those"):
        write_bundle(tmp_path, rerun, report, max_bundles=2)
    with pytest.raises(BundleNotWritten, match=r"it needs 4000 bytes, .* and max_bytes=4000"):
        write_bundle(tmp_path, rerun, report, max_bytes=4000)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_disk_that_is_full_leaves_nothing(tmp_path, monkeypatch):
    rerun, report = tripped(tf.function(tf.math.log), tf.zeros([10]))

    def full(*_):
        raise OSError(28, "No space left on device")

    for step in ("save_arrays", "_bring_to_disk", "_write_json"):
        with monkeypatch.context() as patch:
            patch.setattr(writing, step, full)
            with pytest.raises(BundleNotWritten, match="No space left on device"):
                write_bundle(tmp_path, rerun, report)
        assert not list(tmp_path.iterdir())
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(BundleNotWritten, match="no bundle was written to"):
        write_bundle(file, rerun, report)


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_whole_bundles_or_none_and_a_fresh_one_replays(written, tmp_path):
    program = textwrap.dedent(
        """
        import os, sys
        import tensorflow as tf
        from gradcheck import cli
        from gradcheck._bundle.writing import write_bundle
        from tests.tf.test_bundles import tripped

        for line in sys.stdin:  # TensorFlow is imported once; nothing of it has run where the process is forked
            child = os.fork()
            if not child and line != "write\\n":
                os._exit(10 + cli.main(["replay", line.strip()]))
            if not child:
                v = tf.Variable(tf.zeros([500_000]))
                rerun, report = tripped(tf.function(lambda x: tf.math.log(x * v)), tf.constant(1.0))
                print(os.getpid(), flush=True)
                while True:
                    write_bundle(sys.argv[1], rerun, report, max_bundles=10_000, max_bytes=2**40)
            print(os.waitpid(child, 0)[1], flush=True)
        """
    )
    rng = np.random.default_rng(0)
    command = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, bufsize=0) as run:
        for round_ in range(10):
            run.stdin.write(b"write\n")
            child = int(run.stdout.readline())
            time.sleep(rng.uniform(0.02, 0.3))
            os.kill(child, signal.SIGKILL)
            assert int(run.stdout.readline()) == signal.SIGKILL
            bundles = [path for path in tmp_path.iterdir() if path.name.startswith("trip-")]
            for path in bundles:
                assert replay(path)[1].op_type == "Log"
                shutil.rmtree(path)
            assert round_ or bundles
        path, _, report = written
        said, _ = run.communicate(f"{path}\n".encode())
    assert said.decode() == f"{report}\nthe same report as when it was written\n{11 << 8}\n"
    rerun, report = tripped(tf.function(tf.math.log), tf.zeros([10]))
    final = write_bundle(tmp_path, rerun, report)
    assert list(tmp_path.iterdir()) == [final]


# --------------------------------------------------------------------------------------------- damaged, or hostile


def reseal(folder):
    """Make the digests fit again, as someone who forges a bundle would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for entry in manifest["files"]:
        entry["sha256"] = sha256_of(folder / entry["file"])
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "file", ["report.json", "report.txt", "versions.json", "rng.json", "batch.npz", "variables.npz", "graph.pb"]
)
def test_a_file_that_is_missing_cut_or_changed_is_told(bundle, file):
    data = (bundle / file).read_bytes()
    for spoilt in (data[: len(data) // 2], data[:-1] + bytes([data[-1] ^ 1])):
        (bundle / file).write_bytes(spoilt)
        with pytest.raises(BundleDamaged, match=f"{file}: its bytes are not those that were written"):
            read_bundle(bundle)
    (bundle / file).unlink()
    with pytest.raises(BundleDamaged, match=f"{file}: missing"):
        read_bundle(bundle)
    (bundle / file).symlink_to("/etc/hostname")
    with pytest.raises(BundleDamaged, match=f"{file}: missing"):
        read_bundle(bundle)


@pytest.mark.parametrize("file", ["report.json", "batch.npz", "variables.npz", "graph.pb"])
def test_a_forged_file_is_told(bundle, file):
    rng = np.random.default_rng(0)
    data = (bundle / file).read_bytes()
    for spoilt in (b"", b"[]", data[: len(data) // 2], rng.bytes(500)):
        (bundle / file).write_bytes(spoilt)
        reseal(bundle)
        with pytest.raises(BundleDamaged, match=file):
            read_bundle(bundle)


def test_a_pickle_is_not_loaded(bundle, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    names = np.load(bundle / "batch.npz").files
    np.savez(bundle / "batch.npz", **{name: np.array([Trap()], dtype=object) for name in names})
    reseal(bundle)
    with pytest.raises(BundleDamaged, match=r"batch\.npz: cannot be read as arrays: Object arrays cannot be loaded"):
        read_bundle(bundle)
    assert not (tmp_path / "sprung").exists()


def claiming(shape):
    """An .npy file that holds 24 bytes, and says that it holds more."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue() + bytes(24)


@pytest.mark.parametrize(
    ("member", "compression", "says"),
    [(claiming((2**40, 2**10)), zipfile.ZIP_STORED, "Unable to allocate"),
     (claiming((2, 4)), zipfile.ZIP_STORED, "cannot be read as arrays"),
     (b"no array", zipfile.ZIP_STORED, "expected float32, found no array"),
     (claiming((10**7,)) + bytes(4 * 10**7), zipfile.ZIP_DEFLATED, "it is compressed")],
    ids=["too large", "cut", "no array", "bomb"],
)  # fmt: skip
def test_an_archive_that_claims_too_much_is_told(bundle, member, compression, says):
    names = np.load(bundle / "batch.npz").files
    with zipfile.ZipFile(bundle / "batch.npz", "w", compression) as archive:
        for name in names:
            archive.writestr(f"{name}.npy", member)
    reseal(bundle)
    with pytest.raises(BundleDamaged, match=says):
        read_bundle(bundle)


def test_a_manifest_that_is_no_file_is_not_waited_for(bundle):
    (bundle / "manifest.json").unlink()
    os.mkfifo(bundle / "manifest.json")
    with pytest.raises(BundleDamaged, match=r"manifest\.json: missing"):
        read_bundle(bundle)


def hostile(op, inputs, **attributes):
    """A function definition with an op that acts outside."""
    from tensorflow.core.framework import function_pb2, types_pb2

    library = function_pb2.FunctionDefLibrary()
    main = library.function.add()
    main.signature.name = "main"
    main.signature.input_arg.add(name="x", type=types_pb2.DT_FLOAT)
    main.signature.output_arg.add(name="y", type=types_pb2.DT_FLOAT)
    main.ret["y"] = "x"
    node = main.node_def.add(name="bad", op=op, input=inputs)
    for key, value in attributes.items():
        node.attr[key].CopyFrom(value)
    return library.SerializeToString()


@pytest.mark.parametrize(
    "op", ["PyFunc", "EagerPyFunc", "ReadFile", "WriteFile", "SaveV2", "RestoreV2", "MatchingFiles", "ImmutableConst",
           "RemoteCall", "DebugIdentityV2", "VarHandleOp", "TextLineReaderV2", "ImageSummary", "_HostSend", "NoSuchOp"],
)  # fmt: skip
def test_an_op_that_reaches_out_is_not_run(bundle, op):
    (bundle / "graph.pb").write_bytes(hostile(op, []))
    reseal(bundle)
    with pytest.raises(BundleDamaged, match=f"{op} 'bad' is not run: it may act outside of the graph"):
        read_bundle(bundle)


def test_a_graph_that_does_not_hold_together_is_told(bundle):
    (bundle / "graph.pb").write_bytes(hostile("Exp", ["absent:0"]))
    reseal(bundle)
    with pytest.raises(BundleDamaged, match="has no attribute 'T'"):
        read_bundle(bundle)


def test_a_manifest_that_is_none_is_told(bundle, tmp_path, capsys):
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    for change, says in (
        ({"format": 99}, "its format is not 1"),
        ({"files": manifest["files"][1:]}, "it must list"),
        ({"files": [{"file": "../secret", "sha256": ""}]}, "it must list"),
        ({"arguments": manifest["arguments"][1:]}, "expected 0 arrays"),
        ({"outputs": []}, "the manifest names"),
        ({"surprise": 1}, "manifest.surprise: unknown"),
    ):
        path.write_text(json.dumps({**manifest, **change}))
        with pytest.raises(BundleDamaged, match=says):
            read_bundle(bundle)
    path.write_text("{")
    assert cli.main(["replay", str(bundle)]) == 2
    assert "manifest.json: cannot be read" in capsys.readouterr().err
    assert cli.main(["replay", str(tmp_path / "absent")]) == 2
    assert "is no folder; give one that a watchdog wrote into its dump_dir" in capsys.readouterr().err
