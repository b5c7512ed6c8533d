"""`torch.autograd.gradcheck` and `gradgradcheck`, slow and fast, with their own defaults; wider in narrow dtypes.

In float32, for which the manual says that their defaults do not fit, steps and tolerances are those of PyTorch's own
tests; in bfloat16, for which there are none, steps of 1/16 and tolerances of 0.1.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

from .measure import Counted, serve

torch.set_default_dtype(torch.float64)
_WIDE: dict[str, dict[str, float]] = {
    "float64": {},
    "float32": {"eps": 1e-3, "atol": 1e-2, "rtol": 1e-2},
    "bfloat16": {"eps": 1 / 16, "atol": 0.1, "rtol": 0.1},
}


class TorchOps:
    """As `problems.Ops` says."""

    tanh = staticmethod(torch.tanh)
    sigmoid = staticmethod(torch.sigmoid)
    sin = staticmethod(torch.sin)
    cos = staticmethod(torch.cos)
    exp = staticmethod(torch.exp)
    sqrt = staticmethod(torch.sqrt)
    relu = staticmethod(torch.relu)
    sum = staticmethod(torch.sum)
    where = staticmethod(torch.where)
    reshape = staticmethod(torch.reshape)

    @staticmethod
    def like(values: Any, x: Any) -> Any:
        return torch.as_tensor(values, dtype=x.dtype)

    @staticmethod
    def softmax(x: Any) -> Any:
        return torch.softmax(x, -1)

    @staticmethod
    def transpose(x: Any) -> Any:
        return x.T

    @staticmethod
    def roll(x: Any) -> Any:
        return torch.roll(x, 1, 0)

    @staticmethod
    def take(x: Any, indices: Any) -> Any:
        return x[torch.as_tensor(indices)]

    @staticmethod
    def conv(x: Any, kernel: Any) -> Any:
        return torch.conv2d(x.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1), padding="same").permute(0, 2, 3, 1)

    @staticmethod
    def stop(x: Any) -> Any:
        return x.detach()

    @staticmethod
    def noise(x: Any) -> Any:
        return torch.randn_like(x)

    @staticmethod
    def vjp(fn: Callable[[Any], Any], x: Any, up: Any) -> Any:
        with torch.enable_grad():
            inside = x.detach().requires_grad_()
            return torch.autograd.grad(fn(inside), inside, up)[0]

    @staticmethod
    def custom(fn: Callable[[Any], Any], backward: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
        falsified = backward

        class Subject(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Any) -> Any:
                ctx.save_for_backward(x)
                return fn(x)

            @staticmethod
            def backward(ctx: Any, upstream: Any) -> Any:
                return falsified(ctx.saved_tensors[0], upstream)

        return Subject.apply


class _Torch:
    ops = TorchOps()

    def check(
        self, way: str, fn: Callable[..., Any], inputs: tuple[Any, ...], dtype: str, order: int
    ) -> tuple[bool, int | None]:
        counted = Counted(fn)
        given = [torch.tensor(i, dtype=getattr(torch, dtype), requires_grad=True) for i in inputs]
        check = torch.autograd.gradcheck if order == 1 else torch.autograd.gradgradcheck
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ok = check(counted, given, fast_mode=way.endswith("fast"), raise_exception=False, **_WIDE[dtype])
        return bool(ok), counted.calls


if __name__ == "__main__":
    serve(_Torch())
