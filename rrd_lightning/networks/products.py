"""Which way large matrix products of float32 go on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

MatmulPrecision = Literal["auto", "highest", "high", "medium"]
# Relative to the exact product. Sums of 256 rounded products have about 3e-7.
LARGEST_ERROR = 1e-6
# Below, the fixed cost of oneDNN's way outweighs its speed.
NARROWEST = 64

_large = "highest"


def choose_products(precision: MatmulPrecision) -> str:
    """Choose the way of products from here on, in this process, and say which in a line.

    Torch takes one of two libraries on a CPU. With its precision ``"medium"`` it takes oneDNN, which may
    then round its factors to bfloat16, and does so only on processors with a unit for it. ``"auto"`` takes
    that way for large products, where their error is that of float32: it depends on the processor alone,
    never on a measured time, so that a resumed run goes the same way.

    Args:
        precision: ``"auto"``, or what `torch.set_float32_matmul_precision` is to be set to.
    """
    global _large
    _large = "highest"
    if precision != "auto":
        torch.set_float32_matmul_precision(precision)
        return f"Matrix products: torch's precision {precision!r}"
    error = product_error("medium")
    if error <= LARGEST_ERROR:
        _large = "medium"
    way = "oneDNN for the large ones" if _large == "medium" else "torch's own choice"
    return f"Matrix products on the CPU: {way} (relative error of oneDNN's {error:.1e})"


def product_error(precision: str) -> float:
    """Return the largest relative error of products of 256 × 256 matrices and of pairs of them."""
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, 2, 256, 256, generator=generator)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    found = [left[0] @ right[0], left[0].T @ right[0], left[0] @ right[0].T, left @ right, left.mT @ right]
    torch.set_float32_matmul_precision(before)
    left, right = left.double(), right.double()
    exact = [left[0] @ right[0], left[0].T @ right[0], left[0] @ right[0].T, left @ right, left.mT @ right]
    errors = [(each - true).norm() / true.norm() for each, true in zip(found, exact, strict=True)]
    return float(max(errors))


def multiply(product: Callable[..., Tensor], *factors: Tensor, out: Tensor) -> Tensor:
    """Call a product of torch, such as `torch.addmm`, by the way that was chosen."""
    left, right = factors[-2:]
    narrow = min(left.shape[-1], right.shape[-1], left.shape[-2]) < NARROWEST
    if _large == "highest" or narrow or left.device.type != "cpu":
        return product(*factors, out=out)
    before: Any = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(_large)
    product(*factors, out=out)
    torch.set_float32_matmul_precision(before)
    return out
