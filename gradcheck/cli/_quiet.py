"""TensorFlow's start-up lines and log warnings, kept off the user's screen."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator

import gradcheck
from gradcheck.cli._misuse import MisuseError

_STDERR = 2
_LOGGERS = ("tensorflow", "absl")


def quiet_start() -> None:
    """Import TensorFlow without its chatter; MisuseError, which says what to install, where there is none.

    Devices are not touched: a user's module may still choose them as it is imported.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with _stderr_kept():
            _ = gradcheck.check_gradients
    except ImportError as error:
        raise MisuseError(str(error)) from error


def wake_devices() -> None:
    """Run a first op, at which TensorFlow looks for its devices and talks about them."""
    import tensorflow as tf

    if tf.executing_eagerly():
        with _stderr_kept():
            tf.constant(0.0)


@contextlib.contextmanager
def quiet_logging() -> Iterator[None]:
    """Only errors from TensorFlow's Python loggers; their levels come back at the end."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _stderr_kept() -> Iterator[None]:
    """File descriptor 2 into a file, shown only if what is inside fails.

    The descriptor, not `sys.stderr`: the lines come from C++, some of them before any log level is read.
    """
    try:
        terminal = os.dup(_STDERR)
    except OSError:  # the process was started without a standard error
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), _STDERR)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            kept.seek(0)
            os.write(terminal, kept.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, _STDERR)
            os.close(terminal)
