"""The command line: check subjects, list them, show what was found before."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from gradcheck._report.outcomes import Outcome, outcomes_from_plain, outcomes_to_plain
from gradcheck._version import __version__
from gradcheck.cli._misuse import MisuseError
from gradcheck.cli._named import Named, bundled, resolve
from gradcheck.cli._progress import advancing
from gradcheck.cli._quiet import quiet_logging, quiet_start, wake_devices
from gradcheck.cli._replayed import replayed
from gradcheck.cli._tables import print_outcomes, print_subjects
from gradcheck.cli._workers import DASK, check_elsewhere, executor_for

ALL_OK, FINDINGS, MISUSE, INTERRUPTED = 0, 1, 2, 130

_EPILOG = """\
A module:function takes no arguments and returns (fn, inputs), (fn, inputs, options of check_gradients), a
GradientReport or a Subject. Modules are looked for in the current directory first.
Exit codes: 0 all ok, 1 findings, 2 misuse, also of one among many, whose reports are shown all the same.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (the process's own where None) and give its exit code."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as exit_:  # argparse has printed help, the version, or what is wrong
        return int(exit_.code or ALL_OK)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except MisuseError as error:
        print(f"gradcheck: {error}", file=sys.stderr)
        return MISUSE
    except KeyboardInterrupt:
        print("gradcheck: interrupted", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gradcheck", description="Tells whether TensorFlow gradients are right.")
    parser.add_argument("--version", action="version", version=f"gradcheck {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="run | list | show | replay")
    run = commands.add_parser(
        "run", help="check subjects", epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    run.add_argument(
        "specs", nargs="*", metavar="NAME | module:function", help="none: every bundled subject, without its figures"
    )
    run.add_argument("--json", action="store_true", help="write one JSON document, as `show` reads it")
    run.add_argument("--mode", choices=("auto", "directional", "elementwise", "jacobian"))
    run.add_argument("--seed", type=_seed, metavar="N", help="of the random directions; 0 unless given")
    run.add_argument("--logdir", metavar="DIR", help="write the reports for TensorBoard")
    workers = run.add_mutually_exclusive_group()
    workers.add_argument("--jobs", type=_jobs, metavar="N", help="check in N processes of this machine")
    workers.add_argument("--executor", type=_address, metavar="dask://HOST:PORT", help="check on a Dask cluster")
    run.set_defaults(command=_run)
    commands.add_parser("list", help="name the bundled subjects").set_defaults(command=_list)
    show = commands.add_parser("show", help="print what `run --json` wrote")
    show.add_argument("file", type=Path, metavar="FILE")
    show.set_defaults(command=_show)
    replay = commands.add_parser("replay", help="run the training step in a watchdog's bundle once more")
    replay.add_argument("bundle", type=Path, metavar="BUNDLE")
    replay.add_argument("spec", nargs="?", metavar="module:function", help="returns the step to run in place of it")
    replay.set_defaults(command=_replay)
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected an integer of at least 0, got {text!r}")
    return int(text)


def _jobs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text!r}")
    return int(text)


def _address(text: str) -> str:
    if not text.startswith(DASK) or text == DASK:
        raise argparse.ArgumentTypeError(f"expected {DASK}HOST:PORT of a Dask scheduler, got {text!r}")
    return text


def _run(arguments: argparse.Namespace) -> int:
    # A JSON document is alone on stdout: what the user's code prints goes to stderr then.
    prints_go = contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext()
    with quiet_logging(), prints_go:
        quiet_start()
        options = {"mode": arguments.mode, "seed": arguments.seed}
        named = resolve(arguments.specs, **options)
        with executor_for(arguments.executor, arguments.jobs) as executor:
            wake_devices()
            outcomes, unchecked = _checked(named, executor, options)
        if outcomes and arguments.logdir:
            unchecked += _written(outcomes, arguments.logdir)
    if outcomes and arguments.json:
        print(json.dumps(outcomes_to_plain(outcomes), allow_nan=False, indent=2))
    elif outcomes:
        print_outcomes(outcomes, met=bool(arguments.specs))
    if outcomes and arguments.logdir and not unchecked and not arguments.json:
        print(f"tensorboard --logdir {shlex.quote(arguments.logdir)}")
    for error in unchecked:
        print(f"gradcheck: {error}", file=sys.stderr)
    return MISUSE if unchecked else _exit_code(outcomes)


def _checked(
    named: Sequence[Named], executor: Executor | None, options: Mapping[str, Any]
) -> tuple[list[Outcome], list[MisuseError]]:
    """What the checks gave, and why the others could not be made."""
    outcomes, unchecked = [], []
    with advancing(len(named)) as advance:
        if executor is not None:
            found = check_elsewhere(executor, named, options, advance)
            return [o for o in found if isinstance(o, Outcome)], [e for e in found if isinstance(e, MisuseError)]
        for each in named:
            try:
                outcomes.append(each.check())
            except MisuseError as error:
                unchecked.append(error)
            advance()
    return outcomes, unchecked


def _written(outcomes: Sequence[Outcome], logdir: str) -> list[MisuseError]:
    """Write what TensorBoard shows; what is wrong with the directory, if anything."""
    from gradcheck.tensorboard._reports import write_outcomes
    from gradcheck.tensorboard._sink import FAILURES, said

    try:
        write_outcomes(outcomes, logdir, on_error="raise")
    except FAILURES as error:
        return [MisuseError(f"cannot write to {logdir!r}: {said(error)}")]
    return []


def _list(arguments: argparse.Namespace) -> int:
    del arguments  # the command takes none
    with quiet_logging():
        quiet_start()
        subjects = bundled()
    print_subjects(
        [subjects.get(name) for name in subjects.names()], [subjects.get(name) for name in subjects.wrong_names()]
    )
    return ALL_OK


def _show(arguments: argparse.Namespace) -> int:
    try:
        outcomes = outcomes_from_plain(json.loads(arguments.file.read_text(encoding="utf-8")))
    except OSError as error:
        raise MisuseError(f"cannot read {str(arguments.file)!r}: {error.strerror}") from error
    except ValueError as error:
        raise MisuseError(f"{str(arguments.file)!r} is not what `gradcheck run --json` writes: {error}") from error
    print_outcomes(outcomes)
    return _exit_code(outcomes)


def _replay(arguments: argparse.Namespace) -> int:
    with quiet_logging():
        quiet_start()
        return ALL_OK if replayed(arguments.bundle, arguments.spec) else FINDINGS


def _exit_code(outcomes: Sequence[Outcome]) -> int:
    return ALL_OK if all(outcome.ok for outcome in outcomes) else FINDINGS
