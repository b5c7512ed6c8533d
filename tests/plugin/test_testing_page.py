"""docs/testing.md: its examples pass as pytest runs them, and the run that it shows is a run."""

import re
from pathlib import Path

import pytest

from tests.docs.test_examples import blocks_of
from tests.plugin.test_plugin import _modules_loaded as _modules_loaded
from tests.plugin.test_plugin import project as project
from tests.plugin.test_plugin import run
from tests.plugin.users import RIGHT, WRONG

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"
BLOCKS = list(blocks_of(PAGE))
EXAMPLES = [block for block in BLOCKS if block.language == "python"]
(SHOWN,) = [block for block in BLOCKS if block.language == "text"]
# What differs from run to run and from machine to machine.
ENVIRONMENT = re.compile(r"^(platform|plugins:|rootdir:|configfile:|cachedir:| +\d+\.\d\d s ).*\n", re.MULTILINE)
TIMES = re.compile(r"in \d+\.\d+s|=+|\d+\.?\d*e[+-]?\d+ of what is allowed|<<lambda>.*>|\b0x[0-9a-f]+")
# Of several entries that are wrong alike, which is the worst, and by how much, is a matter of the last digit; so is the
# order of the checks that failed alike.
WORST = re.compile(r" *-?\d\.\d+e[+-]\d\d|(?<= at )\[\d\]|(?<=output entry )\[\d\]|(?<=order )\d|(?<=- Grad).*")
SUMMARY = re.compile(r"(?:^MISMATCH .*\n)+", re.MULTILINE)


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: block.name)
def test_an_example_passes(project, block):
    project.makepyfile(test_example=block.text)
    outcomes = run(project).parseoutcomes()
    assert set(outcomes) == {"passed"}
    assert outcomes["passed"] == len(re.findall(r"^def test_", block.text, re.MULTILINE)) + block.text.count(
        "parametrize"
    )


def test_the_run_that_is_shown_is_a_run(project, monkeypatch, request):
    monkeypatch.setenv("COLUMNS", "120")
    project.makepyfile(test_right=RIGHT, test_wrong=WRONG)
    printed = (
        run(project, "--gradcheck-durations=3", "-p", "no:randomly")
        .stdout.str()
        .replace(str(project.path), "/home/you/project")
    )
    if request.config.getoption("--write-reports"):
        page = PAGE.read_text(encoding="utf-8")
        kept = re.sub(r"^(rootdir|plugins).*\n", "", printed, flags=re.MULTILINE).strip()
        PAGE.write_text(page.replace(SHOWN.whole, f"```text\n{kept}\n```"), encoding="utf-8")
        return
    assert _settled(printed) == _settled(SHOWN.text)


def _settled(text):
    text = WORST.sub("#", TIMES.sub("#", ENVIRONMENT.sub("", text)))
    return SUMMARY.sub(lambda lines: "".join(sorted(lines[0].splitlines(keepends=True))), text).strip()
