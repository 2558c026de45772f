"""Independent seeds for every source of randomness, derived from the run's seed."""

from __future__ import annotations

import random
from zlib import crc32

import numpy as np
import torch


def derive_seed(purpose: str, rank: int = 0, env_steps: int = 0) -> int:
    """Derive a seed from torch's initial seed, which `lightning.seed_everything` sets.

    Args:
        purpose: what the seed is for; different purposes give independent seeds.
        rank: the process's rank, so that processes have different seeds.
        env_steps: environment steps so far, so that a resumed run does not repeat its beginning.
    """
    entropy = [torch.initial_seed(), crc32(purpose.encode()), rank, env_steps]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)


def seed_generators(seed: int) -> None:
    """Seed the process-wide generators of torch, NumPy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - it is the global generator that is seeded
    random.seed(seed)
