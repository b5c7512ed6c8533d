"""Work given to an executor: what a lost worker had is given out again."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from typing import Any, TypeVar

from gradcheck._errors import ExecutorFailed

T = TypeVar("T")
WAIT = object()  # in place of a piece: send it again, as it was, once another has come back

_LOSSES = 3  # times that one piece of work may be lost
_HERE = (
    "the executor takes no more work ({}); what is left runs in this process, with the same result. If a worker ran "
    "out of memory, this process may too"
)


class Crew:
    """An executor, until it breaks; then this process.

    Args:
        executor: Where work goes.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor: Executor | None = executor

    def results(
        self, work: Callable[[T], Any], pieces: Sequence[T], more: Callable[[int, T, Any], Any] = lambda *_: None
    ) -> list[Any]:
        """What `work` returns for each piece, in their order.

        Args:
            work: A function of an importable module.
            pieces: What it is called with.
            more: Given the number of a piece, the piece and what came back, the piece to send in its place, or WAIT, or
                None where that was the result.

        Raises:
            ExecutorFailed: If a piece was lost again and again, or workers cannot run `work` at all.
        """
        pieces = list(pieces)
        found: list[Any] = [None] * len(pieces)
        losses: Counter[int] = Counter()
        running = {self._submit(work, piece): k for k, piece in enumerate(pieces)}
        waiting: list[int] = []
        try:
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    k = running.pop(future)
                    try:
                        result = future.result()
                    except BrokenExecutor as error:
                        self._give_up(error)
                    except (Exception, CancelledError) as error:
                        # Work raises nothing of its own that is not worth another try: a worker was lost on the way.
                        losses[k] += 1
                        if losses[k] >= _LOSSES:
                            raise ExecutorFailed(_lost(losses[k], error)) from error
                    else:
                        changed = more(k, pieces[k], result)
                        if changed is WAIT:
                            waiting.append(k)
                            continue
                        if changed is None:
                            found[k] = result
                            running.update({self._submit(work, pieces[j]): j for j in waiting})
                            waiting.clear()
                            continue
                        pieces[k] = changed
                    running[self._submit(work, pieces[k])] = k
        finally:
            for future in running:
                future.cancel()
        return found

    def _submit(self, work: Callable[[T], Any], piece: T) -> Future[Any]:
        if self._executor is not None:
            try:
                with warnings.catch_warnings():
                    # Dask warns of more than 10 MB at once, which a large model's variables are, once per worker.
                    warnings.filterwarnings("ignore", message="Sending large graph")
                    return self._executor.submit(work, piece)
            except Exception as error:
                self._give_up(error)
        done: Future[Any] = Future()
        done.set_result(work(piece))
        return done

    def _give_up(self, error: Exception) -> None:
        if self._executor is not None:
            self._executor = None
            warnings.warn(_HERE.format(_said(error)), RuntimeWarning, stacklevel=2)


def _lost(times: int, error: BaseException) -> str:
    return (
        f"work came back undone {times} times: {_said(error)}; see that every worker can import gradcheck and "
        "TensorFlow and has memory enough, or leave executor= out"
    )


def _said(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
