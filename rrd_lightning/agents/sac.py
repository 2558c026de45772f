"""Soft actor-critic with a learned temperature.

Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", 2018, arXiv 1812.05905.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any, ClassVar

import torch
from gymnasium import Space
from tensordict import TensorDictBase
from torch import Tensor, nn

from rrd_lightning import keys
from rrd_lightning.agents.actions import count_continuous
from rrd_lightning.agents.actor_critic import ActorCritic, cloning_metrics
from rrd_lightning.agents.squashed_gaussian import SquashedGaussian
from rrd_lightning.errors import require_not_negative, require_positive
from rrd_lightning.losses import Losses
from rrd_lightning.networks import Observation, frozen


def critic_loss(value: Tensor, target: Tensor) -> Tensor:
    """Equation 5: the squared error of values ``[critics, batch]`` to their target, summed over critics."""
    return (value - target).square().mean(-1).sum()


def actor_loss(temperature: Tensor, log_prob: Tensor, value: Tensor) -> Tensor:
    """Equation 7: the reparametrised policy against the critics' value of its actions, ``[batch]``."""
    return (temperature * log_prob - value).mean()


def temperature_loss(log_temperature: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """Equation 18, on log α: hold the policy's entropy near its target."""
    return -log_temperature * (log_prob.mean() + target_entropy)


class SAC(ActorCritic):
    """Soft actor-critic for vectors and images, and continuous actions in [-1, 1].

    A squashed Gaussian policy, an ensemble of critics, and a temperature that holds the policy's entropy near
    its target. All parts take their gradient step at once, from the same batch and the same parameters. The
    encoder of images learns from the critics' loss alone; the policy and the target critics use it as it is.

    Args:
        observation_space: a vector, an image, a Discrete, or a Dict of these.
        action_space: a vector between -1 and 1.
        initial_temperature: α at the start.
        target_entropy: in nats; minus the number of action dimensions by default.
        temperature_learning_rate: Adam's, for log α.
        entropy_in_target: let targets value the entropy of what follows, as equation 6 does.
        options: those of `ActorCritic`; the actor gives 2 * actions numbers, μ and log σ.

    Raises:
        ParameterError: if it cannot serve a space, or an option is out of range.
    """

    metrics: ClassVar[dict[str, str]] = {
        "loss/critic": "mean squared error to the soft target r̂ + γ (1 − terminated) (min Q' − α log π), "
        "summed over the critics",
        "loss/actor": "mean of α log π(a\\|s) − Q(s, a), a drawn from the policy, Q the minimum of the "
        "critics, or what `actor_value` says",
        "loss/temperature": "−log α · (mean log π + target entropy)",
        "agent/value_mean": "mean Q(s, a) of the batch's transitions, over the critics",
        "agent/entropy": "−mean log π(a\\|s), in nats, on the batch's observations",
        "agent/temperature": "α before the update",
        **cloning_metrics("mean squared error of the policy's mode"),
    }

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        initial_temperature: float = 1.0,
        target_entropy: float | None = None,
        temperature_learning_rate: float = 3e-4,
        entropy_in_target: bool = True,
        **options: Any,
    ) -> None:
        require_positive(initial_temperature=initial_temperature)
        require_not_negative(temperature_learning_rate=temperature_learning_rate)
        actions = count_continuous(action_space, self)
        super().__init__(
            observation_space,
            action_space,
            policy_outputs=2 * actions,
            action_inputs=actions,
            value_outputs=1,
            **options,
        )
        self.actions = actions
        self.entropy_in_target = entropy_in_target
        self.log_temperature = nn.Parameter(torch.tensor(math.log(initial_temperature)))
        self.temperature_learning_rate = temperature_learning_rate
        self.target_entropy = -float(self.actions) if target_entropy is None else target_entropy

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Three groups: ``actor``, ``critic``, ``temperature``."""
        temperature = {"params": [self.log_temperature], "lr": self.temperature_learning_rate}
        return [*super().parameter_groups(), {"name": "temperature", **temperature}]

    @torch.no_grad()
    def act(self, observation: Observation, *, explore: bool, env_steps: int = 0) -> Tensor:
        """Draw actions ``[..., actions]``, or return the policy's mode where not exploring."""
        policy = self.policy(self.encoder(observation))
        return policy.sample() if explore else policy.mode()

    def losses(self, transitions: TensorDictBase, reward: Tensor, updates: int = 0) -> Losses:
        """The losses of the critics, the policy and the temperature."""
        features = self.encoder(transitions[keys.OBSERVATION], augment=True)
        temperature = self.log_temperature.detach().exp()
        target = self.target(transitions, reward, temperature)
        value = self.values(self.critic, features, transitions[keys.ACTION])
        found = Losses(
            {"critic": critic_loss(value, target)},
            {"agent/value_mean": value.mean(), "agent/temperature": temperature},
        )
        if self.moves_policy(updates + 1):
            found |= self.policy_losses(features.detach(), temperature)
        return found

    def policy_losses(self, features: Tensor, temperature: Tensor) -> Losses:
        """The losses of the policy and the temperature α, for features ``[batch, features]``."""
        action, log_prob = self.policy(features).sample_with_log_prob()
        with frozen(self.critic):
            value = self.combine(self.values(self.critic, features, action))
        losses = {
            "actor": self.normalized(actor_loss(temperature, log_prob, value), value),
            "temperature": temperature_loss(self.log_temperature, log_prob.detach(), self.target_entropy),
        }
        return Losses(losses, {"agent/entropy": -log_prob.mean()})

    @torch.no_grad()
    def target(self, transitions: TensorDictBase, reward: Tensor, temperature: Tensor) -> Tensor:
        """Equation 6: the soft value ``[batch]`` that the critics learn, of the reward and what follows."""
        features = self.encoder(transitions[keys.NEXT_OBSERVATION], augment=True)
        action, log_prob = self.policy(features).sample_with_log_prob()
        value = self.pessimistic(self.values(self.target_critic, features, action))
        if self.entropy_in_target:
            value = value - temperature * log_prob
        return self.bootstrap(reward, transitions, value)

    def cloning_error(self, features: Tensor, action: Tensor) -> Tensor:
        """The squared error ``[batch]`` of the policy's mode, mean over the action's dimensions."""
        return (self.policy(features).mode() - action).square().mean(-1)

    def phase(self, updates: int) -> Hashable:
        """Tell the updates that train the policy from the others."""
        return self.moves_policy(updates + 1)

    def policy(self, features: Tensor) -> SquashedGaussian:
        """The distribution of actions for features ``[..., features]``."""
        return SquashedGaussian(self.actor(features))
