"""A progress bar, for those who watch and only where there is something to wait for."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import Progress

_PATIENCE = 1.0  # seconds before the bar appears


@contextlib.contextmanager
def advancing(total: int) -> Iterator[Callable[[], None]]:
    """A function to call after each of `total` parts. The bar is drawn on stderr, if that is a terminal, and wiped."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda: None
        return
    # The user's prints go where the user sent them, not through the bar.
    progress = Progress(console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
    task = progress.add_task("checking", total=total)
    timer = threading.Timer(_PATIENCE, progress.start)
    timer.daemon = True
    timer.start()
    try:
        yield lambda: progress.advance(task)
    finally:
        timer.cancel()
        timer.join()
        progress.stop()
