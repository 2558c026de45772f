"""The state of the process-wide random generators, as plain data."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import torch


def get_generators() -> dict[str, Any]:
    """Return the state of the generators of Python, NumPy, torch and CUDA, as tensors and text."""
    return {
        "python": json.dumps(random.getstate()),
        "numpy": json.dumps(np.random.get_state(legacy=False), default=np.ndarray.tolist),  # noqa: NPY002
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_generators(generators: dict[str, Any]) -> None:
    """Restore what `get_generators` returned; CUDA's only if the number of devices is the same."""
    version, internal, gauss = json.loads(generators["python"])
    random.setstate((version, tuple(internal), gauss))
    state = json.loads(generators["numpy"])
    state["state"]["key"] = np.array(state["state"]["key"], dtype=np.uint32)
    np.random.set_state(state)  # noqa: NPY002
    torch.set_rng_state(generators["torch"])
    if len(generators["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(generators["cuda"])
