"""What values learn: the reward and the value of what follows, by a network that lags behind."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from rrd_lightning import keys
from rrd_lightning.private import lerp_all


def bootstrap(reward: Tensor, transitions: TensorDictBase, value: Tensor, gamma: float) -> Tensor:
    """Return r + γ (1 − terminated) V, ``[batch]``, of what follows; a time limit does not terminate."""
    return reward + gamma * value.masked_fill(transitions[keys.TERMINATED], 0.0)


@torch.no_grad()
def move(target: nn.Module, source: nn.Module, share: float) -> None:
    """Move the parameters of a target network by a share of the way to its source; 1 copies them."""
    lerp_all(list(target.parameters()), list(source.parameters()), share)
