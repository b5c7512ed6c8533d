"""Subjects checked by the workers of an executor: each by its name, or its probes where a worker cannot find it."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gradcheck._errors import ExecutorFailed
from gradcheck._report.outcomes import Outcome, outcomes_from_plain, outcomes_to_plain
from gradcheck.cli._misuse import MisuseError
from gradcheck.cli._named import Named, resolve
from gradcheck.cli._quiet import quiet_logging, quiet_start, wake_devices

if TYPE_CHECKING:
    from gradcheck._farm.arithmetic import Arithmetic

DASK = "dask://"
_SECONDS = "10s"  # for a scheduler to answer


@contextlib.contextmanager
def executor_for(address: str | None, jobs: int | None) -> Iterator[Executor | None]:
    """What `--executor` or `--jobs` asks for; None where neither is given.

    Raises:
        MisuseError: If Dask is not installed, or nothing answers at the address.
    """
    if address is not None:
        with _dask(address) as executor:
            yield executor
    elif jobs is not None:
        from gradcheck._farm.arithmetic import arithmetic

        spawn = multiprocessing.get_context("spawn")
        threads = arithmetic().threads
        with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_start, initargs=(threads,)) as pool:
            yield pool
    else:
        yield None


def _start(threads: int) -> None:
    """Start TensorFlow in a process of our own, quietly."""
    quiet_start()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    wake_devices()


@contextlib.contextmanager
def _dask(address: str) -> Iterator[Executor]:
    try:
        distributed = import_module("distributed")
    except ImportError as error:
        raise MisuseError('--executor dask://... needs Dask: pip install "gradcheck[dask]"') from error
    where = address.removeprefix(DASK)
    try:
        client = distributed.Client(f"tcp://{where}", timeout=_SECONDS)
    except (OSError, ValueError) as error:
        raise MisuseError(
            f"no Dask scheduler answers at {where}: {error}; `dask scheduler` shows its address"
        ) from error
    with client:
        executor: Executor = client.get_executor()
        yield executor


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A subject to be checked by a worker, by name."""

    spec: str
    options: Mapping[str, Any]
    arithmetic: Arithmetic


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of an order: a document with one outcome, or why there is none."""

    document: Mapping[str, Any] | None = None
    misuse: str = ""
    absent: bool = False
    unfit: str = ""


def check_by_name(order: Order) -> Answer:
    """Check a subject in this process, a worker."""
    # What the user's code prints must not get into the parent's document.
    with quiet_logging(), contextlib.redirect_stdout(sys.stderr):
        quiet_start()
        from gradcheck._farm.arithmetic import adopt

        differs = adopt(order.arithmetic)
        if differs is not None:
            return Answer(unfit=differs)
        try:
            (named,) = resolve([order.spec], **order.options)
        except MisuseError:  # it was found where it was asked for: a module that this machine does not have
            return Answer(absent=True)
        wake_devices()
        try:
            return Answer(document=outcomes_to_plain([named.check()]))
        except MisuseError as error:
            return Answer(misuse=str(error))


def check_elsewhere(
    executor: Executor, named: Sequence[Named], options: Mapping[str, Any], advance: Callable[[], None]
) -> list[Outcome | MisuseError]:
    """The outcome of every subject, or why it could not be checked.

    Args:
        executor: Where they are checked: one subject by spreading its probes, several each as a whole.
        named: The subjects.
        options: `mode` and `seed`, as `resolve` takes them.
        advance: Called after each.
    """
    from gradcheck._farm.arithmetic import arithmetic
    from gradcheck._farm.crew import Crew

    answers: list[Answer] = [Answer(absent=True)] * len(named)
    try:
        if len(named) > 1:
            orders = [Order(spec=each.name, options=options, arithmetic=arithmetic()) for each in named]
            answers = Crew(executor).results(check_by_name, orders, lambda _, __, answer: _seen(answer, advance))
        return [
            _with_probes_spread(executor, each, advance) if answer.absent else _read(answer)
            for each, answer in zip(named, answers, strict=True)
        ]
    except (ExecutorFailed, ValueError) as error:  # the latter where the executor has come to its end
        raise MisuseError(str(error)) from error


def _seen(answer: Answer, advance: Callable[[], None]) -> None:
    if answer.unfit:
        raise ExecutorFailed(f"a worker cannot compute as this process does: {answer.unfit}")
    if not answer.absent:
        advance()


def _read(answer: Answer) -> Outcome | MisuseError:
    return MisuseError(answer.misuse) if answer.document is None else outcomes_from_plain(answer.document)[0]


def _with_probes_spread(executor: Executor, named: Named, advance: Callable[[], None]) -> Outcome | MisuseError:
    from gradcheck._farm.spread import spread

    try:
        with spread(executor) as notes:
            outcome = named.check()
    except MisuseError as error:
        return error
    finally:
        advance()
    return replace(outcome, report=replace(outcome.report, notes=(*outcome.report.notes, *notes)))
