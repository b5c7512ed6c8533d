import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import gradcheck

NEED_TENSORFLOW = [
    "Gradients",
    "Watchdog",
    "assert_gradients",
    "callbacks",
    "check_gradients",
    "check_model",
    "check_tf_gradients",
    "compare_optimizers",
    "compute_gradient",
    "find_nonfinite",
    "hooks",
    "optimizers",
    "profile_precision",
    "strategies",
    "subjects",
    "tensorboard",
    "watch",
]
NEED_NONE = [
    "Finding",
    "GradientMismatch",
    "GradientReport",
    "NonfiniteReport",
    "NonfiniteTrip",
    "OptimizerReport",
    "PrecisionReport",
    "TripReport",
    "Verdict",
    "__version__",
]
BLOCKED = "import sys; sys.modules['tensorflow'] = None; "


def _python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)


def _modules_after(statement):
    ran = _python(f"{statement}; import sys; print(*{{name.partition('.')[0] for name in sys.modules}})")
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.split())


def _names_for_type_checkers():
    module = ast.parse(Path(inspect.getfile(gradcheck)).read_text(encoding="utf-8"))
    (block,) = (node for node in module.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name))
    return {
        alias.asname: f"{node.module}.{alias.name}" if node.module == "gradcheck" else node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_importing_gradcheck_loads_neither_tensorflow_nor_numpy():
    assert not {"tensorflow", "keras", "numpy", "rich"} & _modules_after("import gradcheck")


def test_the_test_above_can_fail():
    assert "numpy" in _modules_after("import numpy")


def test_reports_can_be_read_without_tensorflow_and_numpy():
    assert not {"tensorflow", "numpy"} & _modules_after("import gradcheck; gradcheck.GradientReport")


def test_the_public_names_their_homes_and_their_types_are_one_set():
    homes = {name: f"gradcheck.{home}" for name, home in gradcheck._HOME.items()}
    assert _names_for_type_checkers() == homes
    assert sorted(homes) == sorted(gradcheck.__all__)


def test_dir_has_every_public_name():
    assert set(gradcheck.__all__) <= set(dir(gradcheck))


@pytest.mark.parametrize("name", NEED_NONE)
def test_a_name_that_needs_no_tensorflow_is_there_without_it(name):
    ran = _python(f"{BLOCKED}import gradcheck; gradcheck.{name}")
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("name", NEED_TENSORFLOW)
def test_without_tensorflow_the_first_use_says_what_to_type(name):
    ran = _python(f"{BLOCKED}import gradcheck; gradcheck.{name}")
    assert ran.returncode == 1
    message = ran.stderr[ran.stderr.rindex("\nImportError: ") :]
    assert f"gradcheck.{name} needs TensorFlow" in message
    assert 'pip install "tensorflow-cpu>=2.18"' in message
    assert 'pip install "tensorflow>=2.18"' in message
    assert "tensorflow>=2.18" in message
    assert "direct cause of the following exception" in ran.stderr


def test_another_module_that_is_missing_is_not_called_tensorflow():
    ran = _python("import sys; sys.modules['gradcheck._results'] = None; import gradcheck; gradcheck.Verdict")
    assert ran.stderr.splitlines()[-1].startswith("ModuleNotFoundError: import of gradcheck._results halted")


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"^module 'gradcheck' has no attribute 'check_gradient'$"):
        _ = gradcheck.check_gradient


def test_a_name_is_looked_up_once():
    assert gradcheck.Verdict is vars(gradcheck)["Verdict"]
