"""A watched step: what stands for a training step, and writes nothing that is not finite."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import tensorflow as tf

from gradcheck._graph import structure
from gradcheck._graph.functions import name_of
from gradcheck._graph.guarded import read, write
from gradcheck._report.trip import TripReport
from gradcheck._watchdog.again import Again
from gradcheck._watchdog.dispatch import Dispatch
from gradcheck._watchdog.eager import EagerStep, shared_generators
from gradcheck._watchdog.ledger import LOGGER, Ledger
from gradcheck._watchdog.looking import counted
from gradcheck._watchdog.names import variable_names
from gradcheck._watchdog.reach import reachable_variables
from gradcheck._watchdog.seen import Seen

_NOT_AGAIN = "the op was not looked for: the trips just before this one have named theirs"
_STALE = (
    "NaN before step=%d variable=%s: %d of its entries; what was there before is no trip, and a layer may hide it, as "
    "a rectifier gives 0 for NaN"
)


class WatchedStep:
    """A training step under watch, called as the step is.

    Made by `Watchdog.watch`. It is also a context manager that gives itself, for `with gradcheck.watch(step) as step:`.

    Attributes:
        __wrapped__: The step itself.
        watchdog: The `Watchdog`, with `report`, `history`, `steps` and `trips`.
    """

    def __init__(
        self,
        step: Callable[..., Any],
        ledger: Ledger,
        variables: Callable[[], Sequence[Any]] | None,
        watchdog: Any = None,
    ) -> None:
        self.__wrapped__ = step
        self.watchdog = watchdog
        self.__name__ = name_of(step)
        self._ledger = ledger
        self._given = variables
        traced = hasattr(step, "get_concrete_function") or hasattr(step, "captured_inputs")
        self._dispatch = Dispatch(step, self._names, ledger.policy) if traced else None
        self._eager = EagerStep(step, self._changeable, ledger.policy)
        self._good: list[tuple[Any, Any]] = []  # handles with the values of the last good state
        self._since = 0  # healthy steps since then
        self._scales = Scales()
        self._looked = False  # whether weights that were NaN from the first have been told

    def __enter__(self) -> WatchedStep:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the step, and keep what it writes only where everything is finite.

        Returns:
            What the step returns, also after a trip that does not raise.

        Raises:
            NonfiniteTrip: As the watchdog's action says.
            ValueError: If it is called while a graph is being traced.
        """
        if not tf.executing_eagerly():
            raise ValueError(
                f"the watched step {self.__name__!r} was called while a tf.function is being traced, where nothing can "
                "be said to Python; watch the outermost function that is called from Python"
            )
        number = self._ledger.begin()
        if number % self._ledger.policy.every:
            return self.__wrapped__(*args, **kwargs)
        seen = self._run(number, args, kwargs)
        self._settle(number, seen)
        return seen.result

    def _run(self, number: int, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Seen:
        found = None
        if self._dispatch is not None and not tf.config.functions_run_eagerly():
            found = self._dispatch.find(args, kwargs)
        if found is None:
            self._keep_good_state(lambda: [structure.variable_of(v).handle for v in self._changeable(args, kwargs)])
            return self._eager.run(number, args, kwargs)
        traced, inputs = found
        self._keep_good_state(lambda: traced.guarded.handles(inputs))
        with self._ledger.step_running(traced.guarded.called):
            return traced.run(number, inputs)

    def _settle(self, number: int, seen: Seen) -> None:
        """What follows from a run."""
        stuck = self._scales.stuck(seen.scale, self._ledger.policy.max_skips) if seen.healthy else None
        if seen.healthy and stuck is None:
            self._since += 1
            self._ledger.healthy(seen.describe, seen.units)
            self._tell_what_was_nan(number)
            return
        looked = Again(notes=(stuck,)) if stuck else Again(notes=(_NOT_AGAIN,))
        if stuck is None and self._ledger.locates:
            looked = seen.again()
        report = TripReport(
            name=self.__name__, step=number, action="raise", found=() if stuck else seen.found(),
            nonfinite=looked.nonfinite, notes=looked.notes,
        )  # fmt: skip
        report = self._ledger.trip(report, seen.describe, partial(looked.dumped, self._ledger.policy.dump_dir))
        if report.action == "rollback":
            for handle, value in self._good:
                write(handle, value)

    def _keep_good_state(self, handles: Callable[[], Sequence[Any]]) -> None:
        policy = self._ledger.policy
        if policy.may_roll_back and (not self._good or self._since >= policy.snapshot_every):
            self._good = [(handle, read(handle)) for handle in handles()]
            self._since = 0

    def _tell_what_was_nan(self, number: int) -> None:
        """Log, after the first finite step, which weights hold NaN: they did before it."""
        if self._looked:
            return
        self._looked = True
        changeable = self._changeable((), {})
        names = variable_names(changeable)
        for weight in map(structure.variable_of, changeable):
            if not weight.trainable or weight.dtype.base_dtype not in structure.CONTINUOUS:
                continue
            name = names[id(weight.handle)]
            found = counted(name, weight.read_value(), None)
            if found is not None and found.nan:
                LOGGER.warning(_STALE, number, name, found.nan)

    def _changeable(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        if self._given is not None:
            return reachable_variables(self._given(), shared_generators())
        return reachable_variables(self.__wrapped__, args, kwargs, shared_generators())

    def _names(self) -> Mapping[int, str]:
        return variable_names(self._changeable((), {}))


class Scales:
    """The scale of a LossScaleOptimizer over time: that it skips a step and halves it is expected, but not for ever."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._halved = 0

    def stuck(self, scale: Sequence[float], most: int) -> str | None:
        """What to say where the scale fell more than `most` times in a row, below 1; else None."""
        if not scale:
            return None
        fell = self._last is not None and scale[0] < self._last
        self._halved = self._halved + 1 if fell else 0
        self._last = scale[0]
        if self._halved <= most or scale[0] >= 1:
            return None
        return (
            f"the LossScaleOptimizer has skipped {self._halved} steps in a row, and its scale has fallen to "
            f"{scale[0]:.3g}: the gradients are not finite whatever the scale"
        )
