"""Convolutions for images, and the random shift of their pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from rrd_lightning.errors import ParameterError

SMALLEST = 36


class Convolutions(nn.Module):
    """The three convolutions of DQN (Mnih et al., Nature 2015) and a linear layer.

    32 filters of 8 × 8 with stride 4, 64 of 4 × 4 with stride 2, 64 of 3 × 3, with ReLU after each and
    after the linear layer.

    Args:
        channels: of the input.
        image_size: its height and width.
        features: width of the output.

    Raises:
        ParameterError: if the images are smaller than 36 × 36 pixels.
    """

    def __init__(self, channels: int, image_size: tuple[int, int], features: int) -> None:
        super().__init__()
        if min(image_size) < SMALLEST:
            raise ParameterError("image_size", image_size, f"must be at least {SMALLEST} pixels")
        self.filters = nn.Sequential(
            nn.Conv2d(channels, 32, 8, 4),
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, 2),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, 1),
            nn.ReLU(),
            nn.Flatten(),
        )
        with torch.no_grad():
            flat = self.filters(torch.zeros(1, channels, *image_size)).shape[1]
        self.linear = nn.Linear(flat, features)
        for layer in (*self.filters, self.linear):
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[..., channels, height, width]`` to ``[..., features]``."""
        flat = self.filters(images.reshape(-1, *images.shape[-3:]))
        features: Tensor = functional.relu(self.linear(flat))
        return features.reshape(*images.shape[:-3], -1)


def random_shift(images: Tensor, pixels: int) -> Tensor:
    """Shift each image by up to some pixels in each direction, its edge repeated.

    Yarats et al., "Image Augmentation Is All You Need", ICLR 2021, arXiv 2004.13649.

    Args:
        images: ``[batch, channels, height, width]``.
        pixels: the largest shift; 0 leaves the images as they are.
    """
    if pixels == 0:
        return images
    batch, _, height, width = images.shape
    padded = functional.pad(images, (pixels,) * 4, mode="replicate")
    device = images.device
    rows = torch.randint(2 * pixels + 1, (batch, 1), device=device) + torch.arange(height, device=device)
    columns = torch.randint(2 * pixels + 1, (batch, 1), device=device) + torch.arange(width, device=device)
    # Channels last: the three indices stand together in front of a slice.
    moved = padded.movedim(1, -1)[
        torch.arange(batch, device=device)[:, None, None], rows[:, :, None], columns[:, None]
    ]
    return moved.movedim(-1, 1)
