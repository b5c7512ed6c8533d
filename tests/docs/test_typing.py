"""The types of the installed package, as a user's own mypy sees them."""

import subprocess
import sys

import pytest

pytest.importorskip("mypy")

USERS = """
import gradcheck


def loss(x: float) -> float:
    return x * x


report = gradcheck.check_gradients(loss, [1.0])
reveal_type(report)
reveal_type(report.ok)
reveal_type(report.findings[0].verdict)
reveal_type(gradcheck.find_nonfinite(loss, [1.0]))
with gradcheck.watch(None, action="skip"):
    pass
gradcheck.check_gradients(loss, [1.0], modus="jacobian")
gradcheck.check_gradients(loss, 1.0, 2.0)
gradcheck.no_such_name
"""


@pytest.mark.slow
def test_public_names_have_types_and_wrong_calls_are_found(tmp_path):
    (tmp_path / "users.py").write_text(USERS, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "users.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    lines = [line.partition(": ")[2] for line in done.stdout.splitlines() if line.startswith("users.py")]
    assert lines[:4] == [
        'note: Revealed type is "gradcheck._report.gradient.GradientReport"',
        'note: Revealed type is "bool"',
        'note: Revealed type is "gradcheck._results.Verdict"',
        'note: Revealed type is "gradcheck._report.nonfinite.NonfiniteReport"',
    ], done.stdout
    errors = [line for line in lines if line.startswith("error")]
    assert len(errors) == 3, done.stdout
    assert 'Unexpected keyword argument "modus"' in errors[0]
    assert 'Too many positional arguments for "check_gradients"' in errors[1]
    assert 'no attribute "no_such_name"' in errors[2]
