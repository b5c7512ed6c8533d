"""The site that Sphinx makes: every public name is in the API reference, every page in the table of contents."""

import inspect
import re
from pathlib import Path

import pytest

import gradcheck

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = (DOCS / "api.rst").read_text(encoding="utf-8")
DIRECTIVE = re.compile(r"^\.\. (auto\w+):: (\S+)", re.MULTILINE)
NAMES = [name for name in gradcheck.__all__ if name != "__version__"]


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_in_the_reference(name):
    documented = {target: directive for directive, target in DIRECTIVE.findall(REFERENCE)}
    value = getattr(gradcheck, name)
    if not inspect.ismodule(value):
        assert documented[name] in ("autofunction", "autoclass", "autoexception")
        assert value.__doc__
        return
    assert documented[value.__name__] == "automodule"
    for inner in getattr(value, "__all__", ()):
        assert getattr(value, inner).__doc__, inner


def test_the_reference_holds_no_name_that_is_gone():
    for _, target in DIRECTIVE.findall(REFERENCE):
        assert target.removeprefix("gradcheck.").split(".")[0] in NAMES, target


def test_every_page_is_in_the_table_of_contents():
    pages = {page.stem for page in DOCS.iterdir() if page.suffix in (".md", ".rst")} - {"index"}
    trees = re.findall(
        r":::\{toctree\}\n(?::[^\n]*\n)*\n(.*?):::", (DOCS / "index.md").read_text(encoding="utf-8"), re.S
    )
    listed = " ".join(trees).split()
    assert sorted(listed) == sorted(pages)
