"""The matrix products of a training step, recorded while it runs and run again bare: no step can be faster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward")
_ATTENTION = ("scaled_dot_product", "flash_attention", "efficient_attention", "cudnn_attention")


def is_product(name: str) -> bool:
    """Whether an operator of torch multiplies matrices; attention counts as one."""
    return name in _PRODUCTS or any(part in name for part in _ATTENTION)


class Recorder(TorchDispatchMode):
    """Takes down every product of matrices, forward and backward.

    Of each shape, stride and type the first tensor that is met is kept and stands for all others when the products are
    run again, so that attention gets numbers that fit each other.

    Attributes:
        calls: operator and arguments, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
        self._kept: dict[tuple[Any, ...], Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if is_product(func.overloadpacket.__name__.lstrip("_")):
            number = len(self.calls)
            keep = self._keeper(func, number)
            self.calls.append((func, tree_map(keep, args), tree_map(keep, kwargs)))
        return func(*args, **kwargs)

    def _keeper(self, func: Any, number: int) -> Callable[[Any], Any]:
        place = iter(range(10**6))

        def keep(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            key = (func, next(place), tuple(value.shape), value.stride(), value.dtype)
            if key not in self._kept:
                # The same strides: a transposed matrix stays one.
                copy = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)
                self._kept[key] = copy.copy_(value.detach())
            return self._kept[key]

        return keep

    def again(self) -> None:
        """Run them all, one after the other, and nothing else."""
        with torch.no_grad():
            for func, args, kwargs in self.calls:
                func(*args, **kwargs)
