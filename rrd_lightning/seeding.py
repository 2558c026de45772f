"""Independent seeds for every source of randomness, all from the one that the user set."""

from __future__ import annotations

from zlib import crc32

import numpy as np
import torch


def derive_seed(purpose: str, rank: int = 0) -> int:
    """Derive a seed from torch's, which `lightning.seed_everything` sets.

    Args:
        purpose: what the seed is for; another purpose gives an independent seed.
        rank: of the process, whose seeds differ from those of others.
    """
    entropy = [torch.initial_seed(), crc32(purpose.encode()), rank]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)
