"""`jax.test_util.check_grads` in reverse mode with its own defaults: one random direction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

from .measure import Counted, serve

jax.config.update("jax_enable_x64", True)


class JaxOps:
    """As `problems.Ops` says."""

    tanh = staticmethod(jnp.tanh)
    sigmoid = staticmethod(jax.nn.sigmoid)
    sin = staticmethod(jnp.sin)
    cos = staticmethod(jnp.cos)
    exp = staticmethod(jnp.exp)
    sqrt = staticmethod(jnp.sqrt)
    relu = staticmethod(jax.nn.relu)
    softmax = staticmethod(jax.nn.softmax)
    sum = staticmethod(jnp.sum)
    where = staticmethod(jnp.where)
    reshape = staticmethod(jnp.reshape)
    transpose = staticmethod(jnp.transpose)
    stop = staticmethod(jax.lax.stop_gradient)

    @staticmethod
    def like(values: Any, x: Any) -> Any:
        return jnp.asarray(values, x.dtype)

    @staticmethod
    def roll(x: Any) -> Any:
        return jnp.roll(x, 1, 0)

    @staticmethod
    def take(x: Any, indices: Any) -> Any:
        return x[jnp.asarray(indices)]

    @staticmethod
    def conv(x: Any, kernel: Any) -> Any:
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    @staticmethod
    def noise(x: Any) -> Any:
        return jnp.asarray(np.random.normal(size=x.shape), x.dtype)

    @staticmethod
    def vjp(fn: Callable[[Any], Any], x: Any, up: Any) -> Any:
        return jax.vjp(fn, x)[1](up)[0]

    @staticmethod
    def custom(fn: Callable[[Any], Any], backward: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
        @jax.custom_vjp
        def subject(x: Any) -> Any:
            return fn(x)

        subject.defvjp(lambda x: (fn(x), x), lambda x, up: (backward(x, up),))
        return subject


class _Jax:
    ops = JaxOps()

    def check(
        self, way: str, fn: Callable[..., Any], inputs: tuple[Any, ...], dtype: str, order: int
    ) -> tuple[bool, int | None]:
        counted = Counted(fn)
        try:
            check_grads(counted, tuple(jnp.asarray(i, dtype) for i in inputs), order=order, modes=["rev"])
        except AssertionError:
            return False, counted.calls
        return True, counted.calls


if __name__ == "__main__":
    serve(_Jax())
