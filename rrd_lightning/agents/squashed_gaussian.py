"""The squashed Gaussian policy.

Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", 2018, arXiv 1812.05905, appendix C.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

LOG_STD_RANGE = (-20.0, 2.0)
# Of log(1 - tanh(u)²), and of the standard normal density, for each action.
CONSTANT = 2 * math.log(2) + 0.5 * math.log(2 * math.pi)


class SquashedGaussian:
    """Actions tanh(u) of u = μ + σ ε, for an ε of a standard normal distribution.

    Args:
        outputs: ``[..., 2 * actions]`` of the policy's network, μ and log σ.
    """

    def __init__(self, outputs: Tensor) -> None:
        self.mean, log_std = outputs.chunk(2, -1)
        self.log_std = log_std.clamp(*LOG_STD_RANGE)

    def mode(self) -> Tensor:
        """Return the actions of ε = 0, ``[..., actions]``."""
        return self.mean.tanh()

    def sample(self) -> Tensor:
        """Draw actions ``[..., actions]``."""
        return (self.mean + self.log_std.exp() * torch.randn_like(self.mean)).tanh()

    def sample_with_log_prob(self) -> tuple[Tensor, Tensor]:
        """Draw actions, with a gradient to the network's outputs.

        Returns:
            The actions ``[..., actions]``, and the logarithms of their densities ``[...]``.
        """
        noise = torch.randn_like(self.mean)
        unsquashed = self.mean + self.log_std.exp() * noise
        # log(1 - tanh(u)²) = 2 (log 2 - u - log(1 + exp(-2u))), exact where tanh(u) rounds to 1.
        squashing = unsquashed + functional.softplus(-2 * unsquashed)
        log_prob = (2 * squashing - self.log_std - 0.5 * noise.square()).sum(-1)
        return unsquashed.tanh(), log_prob - CONSTANT * noise.shape[-1]
