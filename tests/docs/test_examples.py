"""Every example in README.md, docs/ and the docstrings of public names, run; every output shown, compared."""

import contextlib
import doctest
import inspect
import itertools
import math
import re
import runpy
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

import gradcheck
from gradcheck import cli
from gradcheck._results import Verdict

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
FENCED = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)

# What differs from one machine's kernels to the next: the last digit, the size of errors, and what follows from errors
# (how far a measured derivative is off, which order was chosen, how often the function ran).
DERIVATIVE = re.compile(r" *-?\d\.\d{6}e[+-]\d\d")
MEASURED = re.compile(r" *(-?\d\.\d{6}e[+-]\d\d) ± (\d\.\de[+-]\d\d|inf)")
APART = re.compile(r"difference +(\S+), allowed (\S+)")
COUNT = re.compile(r"(?<=order )\d|\d+(?= evaluations)|(?<=  worst ).* of what is allowed.*|\d+(?=$)", re.MULTILINE)
SIZE = re.compile(r"\d\.\d+e[+-]\d\d")
LAST_DIGIT = 1e-6
SAFETY = 10.0  # errors that a measured derivative may be off by, as in a verdict
MAGNITUDES = 2.0  # powers of ten between the sizes of one error on two machines


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the ```text block right behind it, which is what it prints."""

    page: Path
    line: int
    language: str
    text: str
    whole: str  # both blocks as they stand in the page
    output: str | None = None

    @property
    def name(self):
        return f"{self.page.name}:{self.line}"


def blocks_of(page):
    source = page.read_text(encoding="utf-8")
    matches = list(FENCED.finditer(source))
    for match, following in itertools.zip_longest(matches, matches[1:]):
        shown = following and following["language"] == "text" and not source[match.end() : following.start()].strip()
        yield Block(
            page=page,
            line=source.count("\n", 0, match.start()) + 1,
            language=match["language"],
            text=match["text"],
            whole=source[match.start() : following.end() if shown else match.end()],
            output=following["text"] if shown else None,
        )


BLOCKS = [block for page in (README, *sorted(DOCS.glob("*.md"))) for block in blocks_of(page)]
BY_PYTEST = DOCS / "testing.md"  # its examples use a fixture: tests/plugin/test_testing_page.py runs them
PYTHON = [block for block in BLOCKS if block.language == "python" and block.page != BY_PYTEST]
COMMANDS = [block for block in BLOCKS if block.language == "console"]


def assert_same_output(printed, shown):
    """Equal but for what may differ between machines."""
    compared = {MEASURED: _is_same_measurement, APART: _is_as_far_apart, DERIVATIVE: _is_same_derivative}
    for pattern, is_close in compared.items():
        for one, other in zip(pattern.findall(printed), pattern.findall(shown), strict=False):
            assert is_close(_floats(one), _floats(other)), f"printed {one}, shown {other}\n{printed}"
        printed, shown = pattern.sub("#", printed), pattern.sub("#", shown)
    assert _without_counts(printed) == _without_counts(shown)


def _floats(found):
    return [float(each) for each in ([found] if isinstance(found, str) else found)]


def _is_same_derivative(one, other):
    return abs(one[0] - other[0]) <= 2 * LAST_DIGIT * max(abs(one[0]), abs(other[0]))


def _is_same_measurement(one, other):
    near = abs(one[0] - other[0]) <= SAFETY * (one[1] + other[1]) or _is_same_derivative(one, other)
    return near and _is_same_magnitude(one[1], other[1])


def _is_as_far_apart(one, other):
    allowed = max(one[1], other[1])
    return abs(one[0] - other[0]) <= allowed + 0.1 * max(one[0], other[0]) and _is_same_magnitude(one[1], other[1])


def _is_same_magnitude(one, other):
    return one == other or (0 < one / other < math.inf and abs(math.log10(one / other)) <= MAGNITUDES)


def _without_counts(text):
    return SIZE.sub("#", COUNT.sub("#", text)).strip()


def settle(block, printed, request):
    """Compare what a block printed with what its page shows, or write it there where the option says so."""
    if request.config.getoption("--write-reports"):
        with contextlib.suppress(AssertionError):
            assert_same_output(printed, block.output)
            return
        page = block.page.read_text(encoding="utf-8")
        head = block.whole[: FENCED.match(block.whole).end()]
        assert page.count(block.whole) == 1
        block.page.write_text(page.replace(block.whole, f"{head}\n\n```text\n{printed.strip()}\n```"), encoding="utf-8")
        return
    assert_same_output(printed, block.output)


@pytest.fixture
def empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.name)
def test_a_python_block_runs_and_prints_what_the_page_shows(block, empty_directory, capsys, request):
    if ">>>" in block.text:
        _run_doctest(doctest.DocTestParser().get_doctest(block.text, {}, block.name, str(block.page), block.line))
        return
    script = empty_directory / "example.py"
    script.write_text(block.text, encoding="utf-8")
    namespace = runpy.run_path(str(script))
    for test in [value for name, value in namespace.items() if name.startswith("test_")]:
        test()
    printed = capsys.readouterr().out
    if block.output is not None:
        settle(block, printed, request)


@pytest.mark.parametrize("block", COMMANDS, ids=lambda block: block.name)
def test_a_command_prints_what_the_page_shows(block, empty_directory, capsys, request):
    program, *arguments = shlex.split(block.text)
    assert program == "gradcheck"
    cli.main(arguments)
    settle(block, capsys.readouterr().out, request)


def _run_doctest(test):
    output = []
    failed, attempted = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=output.append)
    assert attempted
    assert not failed, "".join(output)


def _public_examples():
    homes = {name: getattr(gradcheck, name) for name in gradcheck.__all__ if name != "__version__"}
    rooms = ("callbacks", "hooks", "optimizers", "strategies", "subjects", "tensorboard")
    for room in (*(getattr(gradcheck, name) for name in rooms), gradcheck.tensorboard.v1):
        homes.update({f"{room.__name__}.{name}": getattr(room, name) for name in room.__all__})
    finder = doctest.DocTestFinder(recurse=False)
    for name, value in homes.items():
        if not inspect.ismodule(value):
            for test in finder.find(value, name, globs={}):
                if test.examples:
                    yield pytest.param(test, id=name)


@pytest.mark.parametrize("test", list(_public_examples()))
def test_the_example_in_a_docstring_runs(test):
    _run_doctest(test)


def test_the_setup_commands_are_the_first_two_bash_blocks_and_a_line_each():
    """They are pasted into fresh clones, by people and by .ci/run."""
    setup = [block.text for block in BLOCKS if block.page == README and block.language == "bash"][:2]
    assert setup == [
        'python3 -m venv .venv && .venv/bin/pip install -e ".[cpu]" && .venv/bin/gradcheck run\n',
        'python3 -m venv .venv && .venv/bin/pip install -e ".[cpu,test]" && .venv/bin/pytest -n 2\n',
    ]


@pytest.mark.parametrize("verdict", Verdict, ids=lambda verdict: verdict.name)
def test_each_verdict_has_a_row_in_the_readme_and_a_report_that_shows_it(verdict):
    assert f"| {verdict.name} |" in README.read_text(encoding="utf-8")
    shown = [block.output for block in BLOCKS if block.page == DOCS / "reading_a_report.md" and block.output]
    if verdict in (Verdict.MATCH, Verdict.UNCONNECTED):
        assert any(re.search(rf"\b{verdict.name.lower()}\b", output) for output in shown)
    else:
        assert any(f"Gradient{verdict.name.capitalize()}: " in output for output in shown)


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("is wrong at [0]", "is wrong at [1]"),
        ("analytic     1.000000e+00", "analytic     1.000003e+00"),
        ("analytic     1.000000e+00", "analytic    -1.000000e+00"),
        ("numeric      1.000000e+00 ± 2.0e-14", "numeric      1.000003e+00 ± 2.0e-14"),
        ("numeric      1.000000e+00 ± 2.0e-14", "numeric      1.000000e+00 ± 2.1e-12"),
        ("numeric      1.000000e+00 ± 2.0e-14", "numeric      1.000000e+00 ± inf"),
        ("difference   1.0e+00, allowed 2.0e-12", "difference   2.0e+00, allowed 2.0e-12"),
        ("analytic     1.000000e+00\nanalytic     1.000000e+00", "analytic     1.000000e+00"),
        ("at example.py:3 in loss", "at example.py:4 in loss"),
    ],
)
def test_an_output_that_differs_is_noticed(printed, shown):
    with pytest.raises(AssertionError):
        assert_same_output(printed, shown)


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("9 points, order 8, float64 twin", "9 points, order 2, float64 twin"),
        ("numeric      1.000000e+00 ± 2.0e-14", "numeric      1.000001e+00 ± 7.3e-13\n"),
        ("numeric      1.234567e-07 ± 2.0e-06", "numeric     -3.000000e-07 ± 7.3e-06\n"),
        ("difference   1.2e-06, allowed 1.3e-04", "difference   4.5e-08, allowed 1.1e-04"),
        ("(jacobian, 71 evaluations, seed 0)", "(jacobian, 75 evaluations, seed 0)"),
        ("  worst       0 of what is allowed: d f / d x", "  worst       1e-07 of what is allowed: d f / d y"),
        ("wrong-square  MISMATCH  3.6e+11  -        99", "wrong-square  MISMATCH  3.1e+10  -        97"),
    ],
)
def test_what_may_differ_between_machines_is_no_difference(printed, shown):
    assert_same_output(printed, shown)


def test_a_failing_example_is_noticed():
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    with pytest.raises(AssertionError, match="Expected:"):
        _run_doctest(test)
