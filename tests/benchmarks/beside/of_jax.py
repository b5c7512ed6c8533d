"""`jax.test_util.check_grads` in reverse mode, order 1, with its own defaults: one random direction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.test_util import check_grads

from .measure import measure

jax.config.update("jax_enable_x64", True)


class JaxOps:
    """As `problems.Ops` says."""

    array = staticmethod(jnp.asarray)
    tanh = staticmethod(jnp.tanh)
    sigmoid = staticmethod(jax.nn.sigmoid)
    sin = staticmethod(jnp.sin)
    exp = staticmethod(jnp.exp)
    softmax = staticmethod(jax.nn.softmax)
    sum = staticmethod(jnp.sum)
    reshape = staticmethod(jnp.reshape)
    transpose = staticmethod(jnp.transpose)

    @staticmethod
    def roll(x: Any) -> Any:
        return jnp.roll(x, 1, 0)

    @staticmethod
    def conv(x: Any, kernel: Any) -> Any:
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


class _Jax:
    ops = JaxOps()
    ways = ("jax check_grads",)

    def check(self, way: str, fn: Callable[..., Any], inputs: tuple[Any, ...]) -> tuple[bool, int | None]:
        calls = [0]

        def counted(*args: Any) -> Any:
            calls[0] += 1
            return fn(*args)

        try:
            check_grads(counted, tuple(map(jnp.asarray, inputs)), order=1, modes=["rev"])
        except AssertionError:
            return False, calls[0]
        return True, calls[0]

    def wrong(self, fn: Callable[[Any], Any], entry: int, defect: float) -> Callable[[Any], Any]:
        @jax.custom_vjp
        def subject(x: Any) -> Any:
            return fn(x)

        def backward(x: Any, upstream: Any) -> Any:
            (found,) = jax.vjp(fn, x)[1](upstream)
            return (found.at[entry].multiply(1 + defect),)

        subject.defvjp(lambda x: (fn(x), x), backward)
        return subject


if __name__ == "__main__":
    measure(_Jax())
