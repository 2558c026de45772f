"""Images as simulators store them, made into what the networks observe."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

# Bounds the memory for images as floating-point numbers.
FRAMES_AT_ONCE = 64


def upright(images: np.ndarray[Any, Any], rows: bool = True, columns: bool = False) -> np.ndarray[Any, Any]:
    """Turn rows or columns of images ``[T, H, W, 3]`` round, and return them as ``[T, 3, H, W]``."""
    turned = images[:, :: -1 if rows else 1, :: -1 if columns else 1]
    return np.ascontiguousarray(turned.transpose(0, 3, 1, 2))


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize uint8 images ``[T, 3, H, W]``: by area averaging to shrink, bilinearly to enlarge."""
    current = tuple(images.shape[-2:])
    if current == tuple(size):
        return images
    mode = "area" if math.prod(size) < math.prod(current) else "bilinear"
    parts = [interpolate(part.float(), tuple(size), mode=mode) for part in torch.split(images, FRAMES_AT_ONCE)]
    return torch.cat([part.round_().clamp_(0, 255).to(torch.uint8) for part in parts])
