"""Random differentiable TensorFlow programs, whose repr is code that can be pasted."""

from __future__ import annotations

import linecache
import zlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf
from hypothesis import strategies as st

from gradcheck.strategies._arguments import count_of, dtype_of
from gradcheck.strategies._steps import CUSTOM, STEPS, Line, Value, custom, helper_source
from gradcheck.strategies._values import tensors

_SHAPES = ((), (2,), (3,), (2, 3), (3, 2), (2, 2))
_DIFFERENT = 1e-2  # by which a wrong gradient of a program differs at least, relative, where it matters


class Program:
    """A function, what to call it with, and its source.

    Attributes:
        source: Python code that defines `program` and `inputs`.
        wrong: The name of the custom gradient that is wrong, or None.
    """

    def __init__(self, body: str, helpers: Mapping[str, tuple[str, str]], wrong: str | None) -> None:
        self._body, self._helpers = body, dict(helpers)
        self.wrong = wrong
        parts = [helper_source(name, gradient) for name, (gradient, _) in helpers.items()]
        self.source = "\n\n".join(["import numpy as np\nimport tensorflow as tf\n", *parts, body])

    def __repr__(self) -> str:
        return self.source

    def __call__(self, *inputs: Any) -> Any:
        """What the program computes: a list of tensors."""
        return self._namespace["program"](*inputs)

    @property
    def inputs(self) -> list[Any]:
        """Arrays to call it with."""
        return list(self._namespace["inputs"])

    @cached_property
    def _namespace(self) -> dict[str, Any]:
        file = f"program_{zlib.crc32(self.source.encode()):08x}.py"
        linecache.cache[file] = (len(self.source), None, self.source.splitlines(keepends=True), file)
        namespace: dict[str, Any] = {}
        exec(compile(self.source, file, "exec"), namespace)
        return namespace

    def repaired(self) -> Program:
        """The same program with right gradients."""
        return Program(self._body, {name: (right, right) for name, (_, right) in self._helpers.items()}, None)

    def matters(self) -> bool:
        """Whether the wrong gradient shows at the inputs, by a hundredth of the right one, as TensorFlow has both."""
        mine, right = self._gradients(), self.repaired()._gradients()
        size = max(np.max(np.abs(r), initial=0.0) for r in right)
        return any(np.max(np.abs(m - r), initial=0.0) > _DIFFERENT * size for m, r in zip(mine, right, strict=True))

    def _gradients(self) -> list[Any]:
        inputs = [tf.constant(x) for x in self.inputs]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = self(*inputs)
            # Weights, for sums of some outputs are constant.
            weighted = [tf.reduce_sum(y * tf.cast(_weights(y.shape), y.dtype)) for y in outputs]
        found = tape.gradient(tf.add_n(weighted), inputs, unconnected_gradients="zero")
        return [tf.convert_to_tensor(g).numpy().astype(np.float64) for g in found]


def _weights(shape: Any) -> Any:
    n = int(np.prod(shape))
    return (1.0 + 0.37 * np.arange(n) % 1.3).reshape(shape)


@st.composite
def programs(draw: st.DrawFn, *, wrong: bool = False, max_steps: int = 6, dtype: Any = "float64") -> Program:
    """Differentiable programs: elementwise ops, products, reductions, gathers, conditionals, loops, custom gradients.

    None has a kink or leaves the range in which its gradient can be measured. They shrink to few steps on zeros.

    Args:
        draw: Given by hypothesis.
        wrong: Whether one custom gradient is wrong, by so much that the program's gradient is.
        max_steps: The largest number of steps.
        dtype: float64 or float32, of all inputs, or a strategy for one.

    Raises:
        TypeError, ValueError: When a test draws, if an argument cannot be used.

    Example:
        >>> from gradcheck import strategies
        >>> strategies.programs(wrong=True)
        programs(wrong=True)
    """
    if not isinstance(wrong, bool):
        raise TypeError(f"wrong must be True or False; found {wrong!r}")
    most = count_of(draw, "max_steps", max_steps, 1)
    wanted = dtype_of(draw, dtype, ("float64", "float32"))
    made = _drawn(wrong, most, wanted)
    program: Program = draw(made.filter(Program.matters) if wrong else made)
    return program


@st.composite
def _drawn(draw: st.DrawFn, wrong: bool, most: int, dtype: Any) -> Program:
    arguments = [
        Value(f"x{k}", shape)
        for k, shape in enumerate(draw(st.lists(st.sampled_from(_SHAPES), min_size=1, max_size=2)))
    ]
    count = draw(st.integers(1, most))
    at_fault = draw(st.integers(0, count - 1)) if wrong else None
    lines: list[Line] = []
    helpers: dict[str, tuple[str, str]] = {}
    values = list(arguments)
    for k in range(count):
        line = None
        if k == at_fault or draw(st.integers(0, 5)) == 5:
            name = draw(st.sampled_from(sorted(CUSTOM)))
            line = custom(draw, values, name, k)
            _, right, wrongs = CUSTOM[name]
            helpers[line.helper] = (draw(st.sampled_from(wrongs)) if k == at_fault else right, right)
        else:
            line = draw(st.sampled_from(STEPS))(draw, values)
        if line is not None:
            lines.append(line)
            values.append(Value(f"t{len(lines) - 1}", line.shape))
    read = {value.name for line in lines for value in line.reads}
    returned = [f"t{k}" for k in range(len(lines)) if f"t{k}" not in read] or ["x0 * 1.0"]
    arrays = [draw(tensors(a.shape, dtype, min_value=-1.5, max_value=1.5)).numpy() for a in arguments]
    body = [
        f"def program({', '.join(a.name for a in arguments)}):",
        *(f"    t{k} = {line.code}" for k, line in enumerate(lines)),
        f"    return [{', '.join(returned)}]",
        "",
        "",
        "inputs = [",
        *(f"    np.array({a.tolist()}, {dtype.name!r})," for a in arrays),
        "]",
        "",
    ]
    fault = next((line.helper for line in lines if line.helper == f"{line.helper.rsplit('_', 1)[0]}_{at_fault}"), None)
    return Program("\n".join(body), helpers, fault)
