"""The page of licences names every package that gradcheck asks for, and what its metadata says."""

from importlib.metadata import PackageNotFoundError, distribution

import licences
import pytest

PAGE = licences.PAGE.read_text(encoding="utf-8")
OWN = distribution("gradcheck")
ASKED = sorted(licences.requirements(OWN, frozenset(OWN.metadata.get_all("Provides-Extra"))))


@pytest.mark.parametrize("name", [name for name in ASKED if name not in ("gradcheck", "tensorflow")])
def test_a_required_package_is_listed_with_a_licence(name):
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {name} ")]
    assert line.split("|")[3].strip() not in ("", "not stated in its metadata")
    try:
        version = distribution(name).version
    except PackageNotFoundError:
        return
    if f"| {name} {version} |" in line:
        assert licences.licence(distribution(name)) in line


def test_the_page_says_what_the_package_itself_is_under():
    assert licences.licence(OWN) == "Apache-2.0"
    assert "Apache License 2.0" in PAGE


def test_the_version_comes_from_one_place():
    import gradcheck

    assert OWN.version == gradcheck.__version__
