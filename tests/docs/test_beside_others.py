"""What the README says of other checkers is what docs/benchmarks.md, which a benchmark has written, says."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGE = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
LEFT_OUT = ("gradcheck directional",)  # a column that holds the planted rows alone
# The rows of each benchmark's table that are shown, by their first cell; None for all.
SHOWN = {
    "catches": (
        "all kinds, wrong",
        "one of 1,000 wrong by 1e-08, float64",
        "one of 1,000 wrong by 1e-05, float32",
        "all kinds, right",
        "right: relu at 0",
        "stop_gradient, not meant",
    ),
    "trips": None,
}


def table_of(name):
    """The lines of the table that the README shows."""
    section = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None, f"no section {name}: python -m tests.benchmarks {name} --page docs/benchmarks.md"
    table = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section[1].splitlines() if line[:1] == "|"
    ]
    kept = [k for k, title in enumerate(table[0]) if title not in LEFT_OUT]
    head, rule, *rows = [[row[k] for k in kept] for row in table]
    wanted = SHOWN[name]
    if wanted is not None:
        by_label = {row[0]: row for row in rows}
        rows = [by_label[label] for label in wanted]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


@pytest.mark.parametrize("name", SHOWN)
def test_the_table_is_that_of_the_benchmark_whose_command_stands_below(name, request):
    text = README.read_text(encoding="utf-8")
    pattern = re.compile(rf"(?:^\|.*\n)+(?=\n`python -m tests\.benchmarks {name}`)", re.MULTILINE)
    (found,) = pattern.finditer(text)
    table = table_of(name) + "\n"
    if request.config.getoption("--write-reports"):
        README.write_text(text[: found.start()] + table + text[found.end() :], encoding="utf-8")
        return
    assert found[0] == table
