"""`torch.autograd.gradcheck`, slow and fast, with its own defaults; in float32 with wider tolerances."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

from .measure import measure

torch.set_default_dtype(torch.float64)


class TorchOps:
    """As `problems.Ops` says."""

    array = staticmethod(torch.as_tensor)
    tanh = staticmethod(torch.tanh)
    sigmoid = staticmethod(torch.sigmoid)
    sin = staticmethod(torch.sin)
    exp = staticmethod(torch.exp)
    sum = staticmethod(torch.sum)
    reshape = staticmethod(torch.reshape)

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
    def conv(x: Any, kernel: Any) -> Any:
        return torch.conv2d(x.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1), padding="same").permute(0, 2, 3, 1)


class _Torch:
    ops = TorchOps()
    ways = ("torch gradcheck slow", "torch gradcheck fast")

    def check(self, way: str, fn: Callable[..., Any], inputs: tuple[Any, ...]) -> tuple[bool, int | None]:
        calls = [0]

        def counted(*args: Any) -> Any:
            calls[0] += 1
            return fn(*args)

        given = [torch.tensor(i, requires_grad=True) for i in inputs]
        # In float32 its defaults fail on every function, as its manual says; these are those of its own tests.
        wide = {"eps": 1e-3, "atol": 1e-2, "rtol": 1e-2} if given[0].dtype == torch.float32 else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ok = torch.autograd.gradcheck(counted, given, fast_mode=way.endswith("fast"), raise_exception=False, **wide)
        return bool(ok), calls[0]

    def wrong(self, fn: Callable[[Any], Any], entry: int, defect: float) -> Callable[[Any], Any]:
        class Subject(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Any) -> Any:
                ctx.save_for_backward(x)
                return fn(x)

            @staticmethod
            def backward(ctx: Any, upstream: Any) -> Any:
                (x,) = ctx.saved_tensors
                with torch.enable_grad():
                    inside = x.detach().requires_grad_()
                    (found,) = torch.autograd.grad(fn(inside), inside, upstream)
                factors = torch.ones_like(x)
                factors[entry] += defect
                return found * factors

        return Subject.apply


if __name__ == "__main__":
    measure(_Torch())
