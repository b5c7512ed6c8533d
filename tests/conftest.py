"""A quiet start of TensorFlow in tests, and the option that rewrites the reports shown in the documentation."""

import os

from hypothesis import settings

settings.register_profile("tests", deadline=None)  # a loaded machine is no defect
settings.load_profile("tests")

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"


def pytest_addoption(parser):
    parser.addoption(
        "--write-reports",
        action="store_true",
        help="write what examples print into README.md and docs/ instead of comparing it (without -n)",
    )
