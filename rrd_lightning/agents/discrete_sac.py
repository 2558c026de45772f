"""Soft actor-critic for Discrete actions.

Christodoulou, "Soft Actor-Critic for Discrete Action Settings", 2019, arXiv 1910.07207.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from gymnasium import Space
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.distributions import Categorical

from rrd_lightning import keys
from rrd_lightning.agents.actions import DiscreteActions
from rrd_lightning.agents.actor_critic import ActorCritic, Combination
from rrd_lightning.agents.sac import critic_loss, temperature_loss
from rrd_lightning.errors import require_not_negative, require_positive
from rrd_lightning.losses import Losses
from rrd_lightning.networks import NetworkConfig, Observation

TARGET_ENTROPY = 0.98  # of the largest there is: the author's own code


def expectation(log_prob: Tensor, numbers: Tensor) -> Tensor:
    """Return the mean ``[batch]`` of numbers ``[batch, actions]`` by a policy's log π, of the same shape."""
    return (log_prob.exp() * numbers).sum(-1)


def soft_value(temperature: Tensor, log_prob: Tensor, values: Tensor) -> Tensor:
    """Equation 10: the value ``[batch]`` of a state, of log π and values ``[batch, actions]``."""
    return expectation(log_prob, values - temperature * log_prob)


def actor_loss(temperature: Tensor, log_prob: Tensor, values: Tensor) -> Tensor:
    """Equation 12: the policy against the critics' values ``[batch, actions]``."""
    return expectation(log_prob, temperature * log_prob - values).mean()


class DiscreteSAC(ActorCritic):
    """Soft actor-critic for vectors and images, and Discrete actions.

    A categorical policy, an ensemble of critics that value all actions at once, and a temperature that holds
    the policy's entropy near its target. What `SAC` draws actions for is here an exact mean over all of them.
    All parts take their gradient step at once, from the same batch and the same parameters. The encoder of
    images learns from the critics' loss alone; the policy and the target critics use it as it is.

    Args:
        observation_space: a vector, an image, a Discrete, or a Dict of these.
        action_space: a Discrete.
        hidden_sizes: widths of the hidden layers of actor and critics.
        activation: between them; see `rrd_lightning.networks.MLP`.
        layer_norm: normalise the critics' hidden layers.
        dropout: of the critics' hidden layers.
        num_critics: how many critics.
        critics_in_target: how many of them, drawn anew for each update, a target takes the minimum of; all by
            default.
        actor_value: how the actor's loss combines the critics: their ``"min"`` or ``"mean"``, or the
            ``"first"`` alone.
        actor: class path of a module for the policy, from features to the logit of each action.
        critic: class path of a module for each critic, from features to the value of each action.
        encoder: class path of a module from observations to features.
        gamma: discount factor.
        polyak: share of the target critics that stays at each update.
        initial_temperature: α at the start.
        target_entropy: in nats; by default 0.98 times that of uniform actions, log n.
        actor_learning_rate: Adam's, for the policy.
        critic_learning_rate: Adam's, for the critics and the encoder.
        temperature_learning_rate: Adam's, for log α.
        random_shift: for images: shift each one of a batch by up to so many pixels before the losses.

    Raises:
        ParameterError: if it cannot serve a space, or an option is out of range.
    """

    metrics: ClassVar[dict[str, str]] = {
        "loss/critic": "mean squared error of Q(s, a) to the soft target r̂ + γ (1 − terminated) Σ π (min Q' − "
        "α log π), summed over the critics",
        "loss/actor": "mean of Σ π(a\\|s) (α log π(a\\|s) − Q(s, a)) over all actions, Q the minimum of the "
        "critics, or what `actor_value` says",
        "loss/temperature": "−log α · (mean Σ π log π + target entropy)",
        "agent/value_mean": "mean Q(s, a) of the batch's transitions, over the critics",
        "agent/entropy": "mean of −Σ π log π, in nats, on the batch's observations",
        "agent/temperature": "α before the update",
    }

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        hidden_sizes: Sequence[int] = (256, 256),
        activation: str = "relu",
        layer_norm: bool = False,
        dropout: float = 0.0,
        num_critics: int = 2,
        critics_in_target: int | None = None,
        actor_value: Combination = "min",
        actor: NetworkConfig | None = None,
        critic: NetworkConfig | None = None,
        encoder: NetworkConfig | None = None,
        gamma: float = 0.99,
        polyak: float = 0.995,
        initial_temperature: float = 1.0,
        target_entropy: float | None = None,
        actor_learning_rate: float = 3e-4,
        critic_learning_rate: float = 3e-4,
        temperature_learning_rate: float = 3e-4,
        random_shift: int = 0,
    ) -> None:
        super().__init__(observation_space, action_space, gamma=gamma, polyak=polyak)
        require_positive(initial_temperature=initial_temperature)
        require_not_negative(temperature_learning_rate=temperature_learning_rate)
        self.actions = DiscreteActions(action_space, self)
        count = self.actions.count
        self.make_encoder(encoder, random_shift)
        self.make_actor(actor, count, actor_learning_rate, hidden_sizes, activation)
        self.make_critics(
            critic,
            self.features,
            count,
            num_critics,
            critics_in_target,
            actor_value,
            critic_learning_rate,
            hidden_sizes=hidden_sizes,
            activation=activation,
            layer_norm=layer_norm,
            dropout=dropout,
        )
        self.log_temperature = nn.Parameter(torch.tensor(math.log(initial_temperature)))
        self.temperature_learning_rate = temperature_learning_rate
        self.target_entropy = TARGET_ENTROPY * math.log(count) if target_entropy is None else target_entropy

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Three groups: ``actor``, ``critic``, ``temperature``."""
        temperature = {"params": [self.log_temperature], "lr": self.temperature_learning_rate}
        return [*super().parameter_groups(), {"name": "temperature", **temperature}]

    @torch.no_grad()
    def act(self, observation: Observation, *, explore: bool, env_steps: int = 0) -> Tensor:
        """Draw actions ``[...]``, or return the most probable ones where not exploring."""
        log_prob = self.log_policy(self.encoder(observation))
        if not explore:
            return self.actions.native(log_prob.argmax(-1))
        # A check of the numbers would wait for the device.
        policy: Any = Categorical(logits=log_prob, validate_args=False)
        return self.actions.native(policy.sample())

    def phase(self, updates: int) -> int:
        """All updates are alike."""
        return 0

    def losses(self, transitions: TensorDictBase, reward: Tensor, updates: int = 0) -> Losses:
        """The losses of the critics, the policy and the temperature."""
        features = self.encoder(transitions[keys.OBSERVATION], augment=True)
        temperature = self.log_temperature.detach().exp()
        target = self.target(transitions, reward, temperature)
        values = self.critic(features)
        value = self.actions.chosen(values, transitions[keys.ACTION])
        # The values of all actions do not depend on the policy, which needs no gradient through them.
        log_prob = self.log_policy(features.detach())
        entropy = -expectation(log_prob, log_prob).mean()
        losses = {
            "critic": critic_loss(value, target),
            "actor": actor_loss(temperature, log_prob, self.combine(values.detach())),
            "temperature": temperature_loss(self.log_temperature, -entropy.detach(), self.target_entropy),
        }
        metrics = {
            "agent/value_mean": value.mean(),
            "agent/entropy": entropy,
            "agent/temperature": temperature,
        }
        return Losses(losses, metrics)

    @torch.no_grad()
    def target(self, transitions: TensorDictBase, reward: Tensor, temperature: Tensor) -> Tensor:
        """The soft value ``[batch]`` that the critics learn, of the reward and what follows."""
        features = self.encoder(transitions[keys.NEXT_OBSERVATION], augment=True)
        values = self.pessimistic(self.target_critic(features))
        return self.bootstrap(reward, transitions, soft_value(temperature, self.log_policy(features), values))

    def log_policy(self, features: Tensor) -> Tensor:
        """The log π ``[..., actions]`` of all actions, for features ``[..., features]``."""
        logits: Tensor = self.actor(features)
        return logits.log_softmax(-1)
