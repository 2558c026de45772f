"""The squashed Gaussian policy, and its gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

LOG_STD_RANGE = (-20.0, 2.0)


def mean_and_log_std(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Take a network's outputs ``[..., 2 * actions]`` apart into the two halves of a Gaussian."""
    mean, log_std = outputs.chunk(2, -1)
    return mean, log_std.clamp(*LOG_STD_RANGE)


class SquashedDraw:
    """Actions tanh(u) of u = μ + σ ε, for an ε of a standard normal distribution.

    Haarnoja et al., 2018, arXiv 1812.05905, appendix C.

    Args:
        outputs: ``[batch, 2 * actions]`` of the policy's network, μ and log σ.
        noise: ε ``[batch, actions]``.

    Attributes:
        action: ``[batch, actions]``.
        log_prob: log-density of each action, ``[batch]``.
    """

    def __init__(self, outputs: Tensor, noise: Tensor) -> None:
        self._outputs = outputs
        mean, log_std = mean_and_log_std(outputs)
        self._spread = log_std.exp() * noise
        unsquashed = mean + self._spread
        self.action = unsquashed.tanh()
        # log(1 - tanh(u)²) = 2 (log 2 - u - log(1 + exp(-2u))), exact where tanh(u) rounds to 1.
        squashing = unsquashed + functional.softplus(-2 * unsquashed)
        per_action = torch.addcmul(2 * squashing - log_std, noise, noise, value=-0.5)
        constant = 2 * math.log(2) + 0.5 * math.log(2 * math.pi)
        self.log_prob = per_action.sum(-1) - constant * mean.shape[-1]

    def gradient(self, action_gradient: Tensor, log_prob_gradient: Tensor) -> Tensor:
        """Return the gradient of the network's outputs, with ε held.

        With a = tanh(u): da/du = 1 - a², dlog p/du = 2a; u gives dμ, and σ ε and -1 give dlog σ.

        Args:
            action_gradient: of the actions, ``[batch, actions]``.
            log_prob_gradient: of all log-densities alike, ``[]``.
        """
        action = self.action
        mean = action_gradient + action * (2 * log_prob_gradient - action * action_gradient)
        log_std = torch.addcmul(-log_prob_gradient, mean, self._spread)
        _, raw = self._outputs.chunk(2, -1)
        low, high = LOG_STD_RANGE
        clipped = (raw < low) | (raw > high)
        return torch.cat([mean, log_std.masked_fill_(clipped, 0.0)], -1)
