"""The steps of random programs: lines of code that keep numbers of size 1 at size 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """A value of a program: what it is called, and its shape."""

    name: str
    shape: Shape


@dataclass(frozen=True)
class Line:
    """A step: the expression, the shape it gives, what it reads, and the helper function it calls, if any."""

    code: str
    shape: Shape
    reads: tuple[Value, ...]
    helper: str = ""


Step = Callable[[st.DrawFn, Sequence[Value]], Line | None]

_SAME_SHAPE = (
    "tf.sin({a})",
    "tf.tanh({a})",
    "tf.sigmoid({a})",
    "tf.nn.softplus({a})",
    "tf.exp(-{a} * {a})",
    "{a} / (1.0 + {a} * {a})",
    "tf.sqrt(1.0 + {a} * {a})",
    "tf.math.log1p({a} * {a})",
    "tf.math.erf({a})",
    "0.5 * {a} * {a}",
    "tf.function(lambda v: tf.cos(v) * v, autograph=False)({a})",
    "tf.cond(tf.reduce_mean({a}) < 100.0, lambda: tf.sin({a}), lambda: 2.0 * {a})",
    "tf.cond(tf.reduce_mean({a}) > 100.0, lambda: 2.0 * {a}, lambda: tf.tanh({a}) * {a})",
    "tf.while_loop(lambda i, s: i < 3, lambda i, s: (i + 1, 0.5 * s + 0.5 * tf.sin(s)), [0, {a}])[1]",
    "tf.while_loop(lambda i, s: i < 2, lambda i, s: (i + 1, tf.sin(s) * {a}), [0, {a}])[1]",
)
_OF_TWO = (
    "0.5 * ({a} + {b})",
    "0.5 * ({a} - {b})",
    "0.5 * {a} * {b}",
    "{a} / (1.0 + {b} * {b})",
    "tf.sin({a} * {b})",
)


def elementwise(draw: st.DrawFn, values: Sequence[Value]) -> Line | None:
    """A function of every entry, a conditional or a loop."""
    a = draw(st.sampled_from(values))
    return Line(draw(st.sampled_from(_SAME_SHAPE)).format(a=a.name), a.shape, (a,))


def binary(draw: st.DrawFn, values: Sequence[Value]) -> Line | None:
    """A function of two values that broadcast together."""
    pairs = [(a, b, shape) for a in values for b in values if (shape := _broadcast(a.shape, b.shape)) is not None]
    a, b, shape = draw(st.sampled_from(pairs))
    return Line(draw(st.sampled_from(_OF_TWO)).format(a=a.name, b=b.name), shape, (a, b))


def _broadcast(a: Shape, b: Shape) -> Shape | None:
    try:
        return tuple(np.broadcast_shapes(a, b))
    except ValueError:
        return None


def product(draw: st.DrawFn, values: Sequence[Value]) -> Line | None:
    """A product of matrices."""
    matrices = [v for v in values if len(v.shape) == 2]
    pairs = [(a, b, False) for a in matrices for b in matrices if a.shape[1] == b.shape[0]]
    pairs += [(a, b, True) for a in matrices for b in matrices if a.shape[1] == b.shape[1]]
    if not pairs:
        return None
    a, b, turned = draw(st.sampled_from(pairs))
    code = f"tf.matmul({a.name}, {b.name}{', transpose_b=True' if turned else ''}) / {float(a.shape[1])}"
    return Line(code, (a.shape[0], b.shape[0 if turned else 1]), (a, b))


def reduction(draw: st.DrawFn, values: Sequence[Value]) -> Line | None:
    """A mean, or a logarithm of a sum of exponentials, along an axis or all of them."""
    a = draw(st.sampled_from(values))
    axis = draw(st.sampled_from([None, *range(len(a.shape))]))
    op = draw(st.sampled_from(["tf.reduce_mean", "tf.reduce_logsumexp"]))
    shape = () if axis is None else tuple(n for k, n in enumerate(a.shape) if k != axis)
    return Line(f"{op}({a.name})" if axis is None else f"{op}({a.name}, axis={axis})", shape, (a,))


def softmax(draw: st.DrawFn, values: Sequence[Value]) -> Line | None:
    """A softmax, weighted so that its sum has a gradient."""
    vectors = [v for v in values if v.shape and v.shape[-1] > 1]
    if not vectors:
        return None
    a = draw(st.sampled_from(vectors))
    weights = [float(k + 1) for k in range(a.shape[-1])]
    return Line(f"tf.nn.softmax({a.name}) * tf.constant({weights}, {a.name}.dtype)", a.shape, (a,))


def arrangement(draw: st.DrawFn, values: Sequence[Value]) -> Line | None:
    """The same numbers, gathered with repetitions, transposed, joined, cut or in another shape."""
    several = [v for v in values if v.shape]
    if not several:
        return None
    a = draw(st.sampled_from(several))
    rows, rest = a.shape[0], a.shape[1:]
    picked = draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=3))
    ways = [
        Line(f"tf.gather({a.name}, {picked})", (len(picked), *rest), (a,)),
        Line(f"tf.transpose({a.name})", a.shape[::-1], (a,)),
        Line(f"tf.reshape({a.name}, [-1])", (int(np.prod(a.shape)),), (a,)),
        Line(f"tf.concat([{a.name}, tf.sin({a.name})], axis=0)[:{rows + 1}]", (rows + 1, *rest), (a,)),
        Line(f"tf.cumsum({a.name}) / {float(rows)}", a.shape, (a,)),
    ]
    return draw(st.sampled_from(ways))


STEPS: tuple[Step, ...] = (elementwise, binary, product, reduction, softmax, arrangement)

# Custom gradients of one and of two arguments: the value, the right gradient, and wrong ones.
CUSTOM: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "square": ("x * x", "up * 2.0 * x", ("up * 4.0 * x", "-up * 2.0 * x", "up * x", "2.0 * x")),
    "bell": (
        "tf.exp(-x * x)",
        "-up * 2.0 * x * tf.exp(-x * x)",
        ("up * 2.0 * x * tf.exp(-x * x)", "-up * tf.exp(-x * x)"),
    ),
    "wave": ("tf.sin(x)", "up * tf.cos(x)", ("-up * tf.cos(x)", "up * tf.cos(x) * 1.05", "up * tf.sin(x)", "up")),
    "times": (
        "x * y",
        "(up * y, up * x)",
        ("(up * x, up * y)", "(up * y, -up * x)", "(up * y, up * x * 1.1)", "(0.5 * up * y, up * x)"),
    ),
}


def custom(draw: st.DrawFn, values: Sequence[Value], name: str, serial: int) -> Line:
    """A call of a custom gradient."""
    two = "y" in CUSTOM[name][0].replace("tf.", "")
    a = draw(st.sampled_from(values))
    function = f"{name}_{serial}"
    if not two:
        return Line(f"{function}({a.name})", a.shape, (a,), function)
    b = draw(st.sampled_from([v for v in values if v.shape == a.shape]))
    return Line(f"{function}({a.name}, {b.name})", a.shape, (a, b), function)


def helper_source(function: str, gradient: str) -> str:
    """The code of a custom gradient."""
    value: Any = CUSTOM[function.rsplit("_", 1)[0]][0]
    arguments = "x, y" if function.startswith("times") else "x"
    return (
        f"@tf.custom_gradient\ndef {function}({arguments}):\n    def gradient(up):\n"
        "        up = tf.convert_to_tensor(up)  # from a gather it comes as IndexedSlices\n"
        f"        return {gradient}\n\n    return {value}, gradient\n"
    )
