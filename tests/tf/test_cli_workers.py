"""`gradcheck run --jobs` and `--executor`: the same document, from other processes."""

import json
import subprocess
import sys
import textwrap
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace

import pytest

from gradcheck.cli import _workers, main
from gradcheck.cli._misuse import MisuseError
from gradcheck.cli._named import resolve

USERS = """
    import tensorflow as tf
    import gradcheck

    @tf.custom_gradient
    def square(x):
        return x * x, lambda g: 3.0 * g * x

    def wrong():
        print("a line of the user's")
        return (lambda x: tf.reduce_sum(square(x))), [tf.ones([6, 4])]

    def right():
        return (lambda x: tf.tanh(x) * x), [tf.ones([9])]

    def broken():
        raise KeyError("no such key")
"""


@pytest.fixture
def users(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "users_of_workers.py").write_text(textwrap.dedent(USERS), encoding="utf-8")
    yield "users_of_workers"
    sys.modules.pop("users_of_workers", None)


def document(text):
    found = json.loads(text)
    for each in found["subjects"]:
        each["report"]["cost"]["seconds"] = 0.0
    return found


def test_workers_check_by_name_and_the_outcomes_come_in_order(users):
    options = {"mode": None, "seed": 3}
    specs = [f"{users}:{name}" for name in ("wrong", "right", "broken")]
    advanced = []
    named = resolve(specs, **options)
    with ThreadPoolExecutor(1) as pool:  # one thread: they share what redirects the user's prints
        wrong, right, broken = _workers.check_elsewhere(pool, named, options, lambda: advanced.append(1))
    assert len(advanced) == 3
    assert isinstance(broken, MisuseError)
    assert "KeyError" in str(broken)
    assert [wrong, right] == [each.check() for each in named[:2]]
    assert not wrong.ok
    assert wrong.report.seed == 3


class Elsewhere(Executor):
    """Workers of a machine that lacks the user's module, or computes otherwise."""

    def __init__(self, **changes):
        self.changes = changes
        self.points = 0

    def submit(self, fn, /, order):
        done = Future()
        if fn is _workers.check_by_name:
            order = replace(order, **self.changes)
        self.points += fn.__name__ == "run_points"
        done.set_result(fn(order))
        return done


def test_points_are_spread_of_what_a_worker_cannot_import(users):
    options = {"mode": None, "seed": None}
    named = resolve([f"{users}:right", f"{users}:right"], **options)
    executor = Elsewhere(spec="not_there:right")
    found = _workers.check_elsewhere(executor, named, options, lambda: None)
    assert found == [each.check() for each in named]
    assert executor.points


def test_a_worker_that_computes_otherwise_is_misuse(users):
    from gradcheck._farm.arithmetic import arithmetic

    named = resolve([f"{users}:right"] * 2, mode=None, seed=None)
    executor = Elsewhere(arithmetic=replace(arithmetic(), threads=77))
    with pytest.raises(MisuseError, match="a worker cannot compute as this process does: threads is"):
        _workers.check_elsewhere(executor, named, {}, lambda: None)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--jobs", "0"], "expected an integer of at least 1, got '0'"),
        (["--jobs", "many"], "got 'many'"),
        (["--executor", "tcp://here:1"], "expected dask://HOST:PORT of a Dask scheduler, got 'tcp://here:1'"),
        (["--executor", "dask://"], "expected dask://HOST:PORT"),
        (["--executor", "dask://here:1", "--jobs", "2"], "not allowed with"),
    ],
)
def test_what_is_no_executor_is_refused(arguments, text, capsys):
    assert main(["run", *arguments]) == 2
    assert text in capsys.readouterr().err


def test_dask_that_is_not_installed_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main(["run", "grad-ys", "--executor", "dask://here:1"]) == 2
    assert 'pip install "gradcheck[dask]"' in capsys.readouterr().err


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch, capsys):
    pytest.importorskip("distributed")
    monkeypatch.setattr(_workers, "_SECONDS", "200ms")
    assert main(["run", "grad-ys", "--executor", "dask://127.0.0.1:9"]) == 2
    assert "no Dask scheduler answers at 127.0.0.1:9" in capsys.readouterr().err


@pytest.mark.slow
def test_processes_give_the_document_of_one(users, tmp_path, capsys):
    specs = ["grad-ys", "wrong-square", f"{users}:wrong"]
    done = subprocess.run(
        [sys.executable, "-m", "gradcheck", "run", "--json", "--jobs", "2", *specs],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr.strip() == "a line of the user's"
    assert main(["run", "--json", *specs]) == 1
    assert document(done.stdout) == document(capsys.readouterr().out)
