"""Resizing of images."""

from __future__ import annotations

import torch

from rrd_lightning.datasets.images import resize


def test_shrinking_takes_means_of_areas() -> None:
    image = torch.tensor([[0, 100, 10, 10], [100, 200, 10, 12]], dtype=torch.uint8)
    assert resize(image.expand(70, 3, 2, 4), (1, 2))[69, 0].tolist() == [[100, 10]]  # 10.5 to even
    assert resize(image.expand(1, 3, 2, 4), (2, 4))[0, 0].tolist() == image.tolist()
    assert resize(image.expand(1, 3, 2, 4), (4, 8)).shape == (1, 3, 4, 8)
