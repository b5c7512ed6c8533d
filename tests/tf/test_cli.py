import contextlib
import json
import logging
import math
import os
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

import gradcheck
from gradcheck._errors import GradientMismatch
from gradcheck._report.gradient import Cost, GradientReport
from gradcheck._report.outcomes import Outcome, outcomes_from_plain, outcomes_to_plain
from gradcheck._results import Figure, Finding, Verdict
from gradcheck.cli import _progress, _quiet, main
from gradcheck.tensorboard import read_events

NUMBERS = {"analytic": 2.0, "error": 1e-12, "allowed": 1e-6, "dtype": "float64"}
RIGHT = Finding(verdict=Verdict.MATCH, ok=True, y="output", x="inputs[0]", numeric=2.0, **NUMBERS)
WRONG = Finding(verdict=Verdict.MISMATCH, ok=False, y="output", x="inputs[0]", numeric=1.0, index=(0,), **NUMBERS)
MET = Figure(label="loss", printed=0.5, computed=0.5, ok=True)
MISSED = Figure(label="accuracy", printed=0.9, computed=0.8, ok=False)


def report(finding, name="loss"):
    return GradientReport(name=name, findings=(finding,), mode="elementwise", seed=0, cost=Cost(evaluations=18))


@dataclass(frozen=True)
class StubSubject:
    name: str
    report: GradientReport
    figures: tuple[Figure, ...] = ()
    section: str = "2.1"
    summary: str = "a line about it"

    def check(self, mode="auto", seed=0):
        asked = GradientReport(name=self.name, findings=self.report.findings, mode=mode, seed=seed)
        return SimpleNamespace(report=asked, figures=self.figures)


BUNDLED = [StubSubject("logistic", report(RIGHT), (MET, MET)), StubSubject("softmax", report(RIGHT))]
WRONG_ON_PURPOSE = [StubSubject("logistic_times_two", report(WRONG), (MET, MISSED))]


@pytest.fixture
def subjects(monkeypatch):
    by_name = {subject.name: subject for subject in [*BUNDLED, *WRONG_ON_PURPOSE]}
    stub = SimpleNamespace(
        names=lambda: [subject.name for subject in BUNDLED],
        wrong_names=lambda: [subject.name for subject in WRONG_ON_PURPOSE],
        get=by_name.__getitem__,
    )
    monkeypatch.setattr(gradcheck, "subjects", stub, raising=False)


@pytest.fixture
def users_module(tmp_path, monkeypatch):
    """A function that writes a module and gives its name, a new one each time: Python imports a name once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    name = f"users_{tmp_path.name}"

    def write(source):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        return name

    yield write
    sys.modules.pop(name, None)


def _run(*arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-m", "gradcheck", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


SQUARES = """
    import sys
    import tensorflow as tf

    print("hello from the module")
    print("and to stderr", file=sys.stderr)

    @tf.custom_gradient
    def doubled(x):
        return x * x, lambda upstream: 4.0 * x * upstream

    def right():
        print("hello from the function")
        return lambda x: tf.reduce_sum(x * x), tf.constant([1.0, -2.0])

    def wrong():
        return lambda x: tf.reduce_sum(doubled(x)), [tf.constant([1.0, -2.0])], {"mode": "elementwise"}
"""


@pytest.mark.slow
def test_a_users_function_is_checked_and_only_the_user_is_heard(users_module, tmp_path):
    ran = _run("run", f"{users_module(SQUARES)}:right", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == "and to stderr\n"
    lines = ran.stdout.splitlines()
    assert lines[:2] == ["hello from the module", "hello from the function"]
    assert lines[-1] == "1 ok, 0 failed"


def test_a_users_wrong_gradient_is_found_and_shown(users_module, tmp_path):
    name = users_module(SQUARES)
    ran = _run("run", f"{name}:right", f"{name}:wrong", cwd=tmp_path)
    assert ran.returncode == 1, ran.stderr
    assert ran.stdout.splitlines()[-1] == "1 ok, 1 failed"
    assert "\nGradientMismatch: d " in ran.stdout


@pytest.mark.slow
def test_json_is_alone_on_stdout_and_show_renders_it(users_module, tmp_path):
    ran = _run("run", "--json", f"{users_module(SQUARES)}:wrong", cwd=tmp_path)
    assert ran.returncode == 1, ran.stderr
    (outcome,) = outcomes_from_plain(json.loads(ran.stdout))
    assert not outcome.ok
    assert "hello from the module" in ran.stderr
    (tmp_path / "found.json").write_text(ran.stdout, encoding="utf-8")
    shown = _run("show", "found.json", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (1, "")
    assert str(outcome.report) in shown.stdout


def test_what_tensorflow_says_is_shown_where_it_cannot_be_imported(tmp_path):
    (tmp_path / "tensorflow").mkdir()
    broken = 'import os\nos.write(2, b"chatter of a broken build\\n")\nraise ImportError("no such symbol")\n'
    (tmp_path / "tensorflow" / "__init__.py").write_text(broken, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    ran = _run("run", cwd=tmp_path, PYTHONPATH=path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "chatter of a broken build\ngradcheck: no such symbol\n"


def test_without_tensorflow_the_command_line_says_what_to_type(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['tensorflow'] = None\n", encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    ran = _run("list", cwd=tmp_path, PYTHONPATH=path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert 'pip install "tensorflow-cpu>=2.18"' in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.usefixtures("subjects")
class TestRun:
    def test_all_that_is_bundled_runs_where_no_name_is_given(self, capsys):
        assert main(["run"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "subject   verdict  worst  figures  evaluations",
            "logistic  MATCH    0      2 of 2   0",
            "softmax   MATCH    0      -        0",
            "2 ok, 0 failed",
        ]

    def test_a_subject_wrong_on_purpose_runs_by_name_and_fails(self, capsys):
        assert main(["run", "softmax", "logistic_times_two"]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines[1].startswith("softmax ")
        assert lines[2].split() == ["logistic_times_two", "MISMATCH", "1e+06", "1", "of", "2", "0"]
        assert "GradientMismatch: d logistic_times_two / d inputs[0] is wrong at [0]" in lines
        assert "  figure      accuracy: printed 0.9, computed 0.8" in lines
        assert lines[-1] == "1 ok, 1 failed"

    def test_a_figure_that_is_not_met_fails_a_subject_whose_gradient_is_right(self, capsys, monkeypatch):
        subject = StubSubject("softmax", report(RIGHT), (MISSED,))
        monkeypatch.setattr(gradcheck.subjects, "get", lambda name: subject)
        assert main(["run", "softmax"]) == 1
        assert capsys.readouterr().out.splitlines()[2:] == [
            "",
            "softmax",
            "  figure      accuracy: printed 0.9, computed 0.8",
            "0 ok, 1 failed",
        ]

    def test_a_subject_that_is_named_shows_the_figures_that_are_met(self, capsys):
        assert main(["run", "logistic"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[2:4] == ["", "logistic"]
        assert "  met         loss: printed 0.5, computed 0.5" in lines

    def test_mode_and_seed_reach_the_subject(self, capsys):
        assert main(["run", "--json", "--mode", "jacobian", "--seed", "7", "softmax"]) == 0
        (subject,) = json.loads(capsys.readouterr().out)["subjects"]
        assert (subject["report"]["mode"], subject["report"]["seed"]) == ("jacobian", 7)

    def test_a_log_directory_holds_the_reports_and_is_said_how_to_look_at(self, capsys, tmp_path):
        logdir = tmp_path / "my logs"
        assert main(["run", "logistic_times_two", "logistic", "--logdir", str(logdir)]) == 1
        assert capsys.readouterr().out.splitlines()[-1] == f"tensorboard --logdir '{logdir}'"
        found = read_events(logdir)
        assert found.scalars["checks/worst_error/logistic_times_two"].values == (1e6,)
        assert "MISMATCH" in found.texts["checks/report/logistic_times_two"].values[0]
        assert "| accuracy | 0.9 | 0.8 | MISSED |" in found.texts["checks/figures/logistic_times_two"].values[0]
        assert "checks/report/logistic" in found.texts

    def test_a_log_directory_that_cannot_be_written_is_misuse(self, capsys, tmp_path):
        (tmp_path / "file").write_text("")
        assert main(["run", "logistic", "--logdir", str(tmp_path / "file")]) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith(f"gradcheck: cannot write to {str(tmp_path / 'file')!r}: ")
        assert "tensorboard" not in printed.out
        assert printed.out.splitlines()[-1] == "1 ok, 0 failed"

    def test_piped_output_has_neither_colours_nor_wrapped_lines(self, capsys, monkeypatch):
        long = StubSubject("long_" * 60, report(RIGHT), (MET,))
        monkeypatch.setattr(gradcheck.subjects, "names", lambda: [long.name])
        monkeypatch.setattr(gradcheck.subjects, "get", lambda name: long)
        assert main(["run"]) == 0
        out = capsys.readouterr().out
        assert out.isascii()
        assert "\x1b" not in out
        assert len(out.splitlines()) == 3

    def test_the_test_above_can_fail(self, capsys, monkeypatch):
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm-256color")
        assert main(["run"]) == 0
        assert "\x1b[32mMATCH" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("logistik", "no subject is called 'logistik': did you mean logistic"),
            (
                "zzz",
                "no subject is called 'zzz': `gradcheck list` names them all. Your own are written module:function.",
            ),
        ],
    )
    def test_an_unknown_name_is_misuse(self, capsys, name, message):
        assert main(["run", "softmax", name]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(f"gradcheck: {message}")

    def test_list_names_what_is_bundled_and_apart_from_it_what_is_wrong(self, capsys):
        assert main(["list"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "subject   section  summary",
            "logistic  2.1      a line about it",
            "softmax   2.1      a line about it",
            "",
            "wrong on purpose, checked only by name:",
            "subject             section  summary",
            "logistic_times_two  2.1      a line about it",
        ]


class TestAUsersFunction:
    def test_it_is_called_and_its_options_give_way_to_the_command_line(self, users_module, monkeypatch):
        asked = []

        def check(fn, inputs, **options):
            asked.append((inputs, options))
            return report(RIGHT)

        monkeypatch.setattr(gradcheck, "check_gradients", check)
        name = users_module("def loss(): return abs, [1.0], {'mode': 'jacobian', 'seed': 3, 'rtol': 0.1}")
        assert main(["run", f"{name}:loss", "--seed", "5"]) == 0
        assert asked == [([1.0], {"mode": "jacobian", "seed": 5, "rtol": 0.1})]

    def test_it_may_return_a_report(self, users_module, capsys):
        name = users_module(
            """
            from gradcheck import Finding, GradientReport, Verdict
            def cut():
                finding = Finding(verdict=Verdict.CUT, ok=False, y="output", x="inputs[0]")
                return GradientReport(name="mine", findings=(finding,), mode="directional", seed=0)
            """
        )
        assert main(["run", f"{name}:cut"]) == 1
        assert "GradientCut: d mine / d inputs[0] is None" in capsys.readouterr().out

    @pytest.mark.usefixtures("subjects")
    def test_it_may_return_or_be_a_subject(self, users_module):
        name = users_module(
            """
            import gradcheck
            subject = gradcheck.subjects.get("logistic_times_two")
            def made(): return subject
            """
        )
        assert main(["run", f"{name}:subject"]) == main(["run", f"{name}:made"]) == 1

    def test_a_mismatch_it_raises_itself_is_a_finding(self, users_module, capsys, monkeypatch):
        name = users_module("import gradcheck\ndef asserted(): gradcheck.assert_gradients(abs, 1.0)")

        def refuse(fn, inputs):
            raise GradientMismatch(report(WRONG))

        monkeypatch.setattr(gradcheck, "assert_gradients", refuse)
        assert main(["run", f"{name}:asserted"]) == 1
        assert "GradientMismatch: d loss / d inputs[0] is wrong at [0]" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("nothing", "module '{name}' has no 'nothing'"),
            ("los", "module '{name}' has no 'los'; it has loss"),
            ("", "module '{name}' has no ''"),
            ("number", "{name}:number is of type int, not a function; it must return (fn, inputs), "),
            ("loss", "{name}:loss takes arguments, (x), and is called without any; it must return (fn, inputs), "),
            ("nonsense", "{name}:nonsense returned a value of type str; it must return (fn, inputs), "),
            ("swapped", "{name}:swapped returned (list, builtin_function_or_method); it must return (fn, inputs), "),
            ("raises", "{name}:raises could not be checked: ValueError at {file}:6: no data"),
        ],
    )
    def test_misuse_is_said_in_a_line(self, users_module, capsys, tmp_path, path, message):
        name = users_module(
            """
            number = 1
            def loss(x): return x
            def nonsense(): return "nonsense"
            def swapped(): return [1.0], abs
            def raises(): raise ValueError("no data")
            """
        )
        assert main(["run", f"{name}:{path}"]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(f"gradcheck: {message.format(name=name, file=tmp_path / f'{name}.py')}")
        assert len(captured.err.splitlines()) == 1

    @pytest.mark.parametrize("options", [[], ["--json"]])
    @pytest.mark.usefixtures("subjects")
    def test_what_cannot_be_checked_takes_nothing_from_the_others(self, users_module, capsys, options):
        name = users_module('def raises(): raise ValueError("no data")')
        assert main(["run", *options, "logistic", f"{name}:raises", "logistic_times_two"]) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith(f"gradcheck: {name}:raises could not be checked: ValueError at ")
        assert "logistic" in captured.out
        assert "logistic_times_two" in captured.out
        if options:
            assert [each.ok for each in outcomes_from_plain(json.loads(captured.out))] == [True, False]

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("import no_such_module_at_all", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
            ("1 / 0", "ZeroDivisionError: division by zero"),
            ("raise SystemExit(0)", "SystemExit: 0"),
        ],
    )
    def test_a_module_that_cannot_be_imported_is_misuse(self, users_module, capsys, source, message):
        name = users_module(source)
        assert main(["run", f"{name}:loss"]) == 2
        assert capsys.readouterr().err == f"gradcheck: cannot import module {name!r}: {message}\n"

    def test_a_file_for_a_module_is_corrected(self, users_module, capsys):
        name = users_module("def loss(): return abs, [1.0]")
        assert main(["run", f"{name}.py:loss"]) == 2
        assert capsys.readouterr().err.endswith(f"; write {name}:loss\n")

    @pytest.mark.parametrize("spec", [":loss", ".relative:loss"])
    def test_a_module_without_a_name_is_misuse(self, capsys, spec):
        assert main(["run", spec]) == 2
        assert capsys.readouterr().err.startswith("gradcheck: cannot import module ")


class TestShow:
    OUTCOMES = (
        Outcome(
            name="a:b", report=report(RIGHT), figures=(MET, Figure(label="x", printed=1, computed=math.inf, ok=True))
        ),
        Outcome(name="softmax", report=report(WRONG)),
    )

    def _file(self, tmp_path, data):
        file = tmp_path / "found.json"
        file.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
        return str(file)

    def test_outcomes_survive_json(self):
        data = json.loads(json.dumps(outcomes_to_plain(self.OUTCOMES), allow_nan=False))
        assert tuple(outcomes_from_plain(data)) == self.OUTCOMES

    @pytest.mark.parametrize(("chosen", "code"), [(slice(0, 1), 0), (slice(0, 2), 1)])
    def test_the_exit_code_says_whether_the_file_holds_failures(self, capsys, tmp_path, chosen, code):
        assert main(["show", self._file(tmp_path, outcomes_to_plain(self.OUTCOMES[chosen]))]) == code
        assert capsys.readouterr().out.splitlines()[-1] == f"1 ok, {code} failed"

    def test_a_report_on_its_own_is_shown_too(self, capsys, tmp_path):
        assert main(["show", self._file(tmp_path, report(WRONG).to_dict())]) == 1
        assert str(report(WRONG)) in capsys.readouterr().out

    def test_it_needs_no_tensorflow(self, tmp_path):
        file = self._file(tmp_path, outcomes_to_plain(self.OUTCOMES))
        code = f"import sys, gradcheck.cli as cli; cli.main(['show', {file!r}]); sys.exit('tensorflow' in sys.modules)"
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60)
        assert (ran.returncode, ran.stderr) == (0, b"")

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ("not json", "Expecting value: line 1 column 1 (char 0)"),
            ([], "document: expected an object, got []"),
            ({}, "document.format: missing"),
            ({"format": 2, "subjects": []}, "document.format: expected 1, got 2"),
            ({"format": 1}, "document: expected format and a list of subjects, got neither"),
            ({"format": 1, "subjects": {}}, "document: expected format and a list of subjects, got subjects"),
            ({"format": 1, "subjects": [{"name": "a"}]}, "subjects[0]: expected name, ok, report, figures, got name"),
            ({"format": 1, "findings": []}, "report.name: missing"),
        ],
    )
    def test_a_file_that_holds_something_else_is_misuse(self, capsys, tmp_path, data, message):
        file = self._file(tmp_path, data)
        assert main(["show", file]) == 2
        captured = capsys.readouterr()
        assert captured.err == f"gradcheck: {file!r} is not what `gradcheck run --json` writes: {message}\n"
        assert captured.out == ""

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"ok": False}, "subjects[0].ok: False contradicts its report and figures, which say True"),
            ({"name": 1}, "subjects[0].name: expected a string, got 1"),
            ({"figures": [{}]}, "subjects[0].figures[0].label: missing"),
            ({"report": {"format": 1}}, "subjects[0].report.name: missing"),
        ],
    )
    def test_a_contradiction_or_a_wrong_field_inside_is_named(self, change, message):
        data = outcomes_to_plain(self.OUTCOMES)
        data["subjects"][0].update(change)
        with pytest.raises(ValueError) as raised:  # noqa: PT011  the message is compared whole
            outcomes_from_plain(data)
        assert str(raised.value) == message

    @pytest.mark.parametrize(("name", "why"), [("none.json", "No such file or directory"), (".", "Is a directory")])
    def test_a_file_that_cannot_be_read_is_misuse(self, capsys, tmp_path, name, why):
        path = str(tmp_path / name)
        assert main(["show", path]) == 2
        assert capsys.readouterr().err == f"gradcheck: cannot read {path!r}: {why}\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 2),
        (["walk"], 2),
        (["run", "--mode", "fast"], 2),
        (["run", "--seed", "-1"], 2),
        (["run", "--seed", "x"], 2),
        (["show"], 2),
        (["--version"], 0),
        (["run", "--help"], 0),
    ],
)
def test_what_argparse_answers_becomes_an_exit_code(capsys, arguments, code):
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert bool(captured.out) == (code == 0)
    assert bool(captured.err) == (code == 2)


def test_an_interruption_is_no_traceback(capsys, monkeypatch, tmp_path):
    def interrupt(path, encoding):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.read_text", interrupt)
    assert main(["show", "found.json"]) == 130
    assert capsys.readouterr().err == "gradcheck: interrupted\n"


class TestQuiet:
    def test_what_is_written_to_the_descriptor_is_kept(self, capfd):
        with _quiet._stderr_kept():
            os.write(2, b"chatter\n")
        os.write(2, b"after\n")
        assert capfd.readouterr().err == "after\n"

    def test_it_is_shown_if_something_fails(self, capfd):
        with contextlib.suppress(ZeroDivisionError), _quiet._stderr_kept():
            os.write(2, b"chatter\n")
            _ = 1 / 0
        assert capfd.readouterr().err == "chatter\n"

    @pytest.mark.parametrize("name", ["tensorflow", "absl"])
    def test_log_warnings_are_silent_and_levels_come_back(self, name):
        logger = logging.getLogger(name)
        before = logger.level
        with _quiet.quiet_logging():
            assert not logger.isEnabledFor(logging.WARNING)
            assert logger.isEnabledFor(logging.ERROR)
        assert logger.level == before


class TestProgress:
    @pytest.fixture
    def terminal(self, monkeypatch):
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm-256color")

    @pytest.mark.usefixtures("terminal")
    def test_a_bar_appears_where_it_takes_long(self, capsys, monkeypatch):
        monkeypatch.setattr(_progress, "_PATIENCE", 0.0)
        with _progress.advancing(2) as advance:
            advance()
            time.sleep(0.3)
        captured = capsys.readouterr()
        assert "checking" in captured.err
        assert captured.out == ""

    @pytest.mark.usefixtures("terminal")
    def test_there_is_no_bar_where_it_is_quick(self, capsys):
        with _progress.advancing(2) as advance:
            advance()
        assert capsys.readouterr().err == ""

    def test_there_is_no_bar_without_a_terminal(self, capsys, monkeypatch):
        monkeypatch.delenv("FORCE_COLOR", raising=False)
        monkeypatch.setattr(_progress, "_PATIENCE", 0.0)
        with _progress.advancing(2) as advance:
            advance()
            time.sleep(0.3)
        assert capsys.readouterr().err == ""
