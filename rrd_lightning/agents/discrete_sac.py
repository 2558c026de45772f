"""Soft actor-critic for Discrete actions.

Christodoulou, "Soft Actor-Critic for Discrete Action Settings", 2019, arXiv 1910.07207.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any, ClassVar

import torch
from gymnasium import Space
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.distributions import Categorical

from rrd_lightning import keys
from rrd_lightning.agents.actions import DiscreteActions
from rrd_lightning.agents.actor_critic import ActorCritic, cloning_metrics
from rrd_lightning.agents.sac import critic_loss, temperature_loss
from rrd_lightning.errors import require_not_negative, require_positive
from rrd_lightning.losses import Losses
from rrd_lightning.networks import Observation

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
        initial_temperature: α at the start.
        target_entropy: in nats; by default 0.98 times that of uniform actions, log n.
        temperature_learning_rate: Adam's, for log α.
        entropy_in_target: let targets value the entropy of what follows, as equation 10 does.
        options: those of `ActorCritic`; the actor gives the logit of each action, a critic the value of each.

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
        **cloning_metrics("mean −log π(a\\|s)"),
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
        actions = DiscreteActions(action_space, self)
        count = actions.count
        super().__init__(
            observation_space,
            action_space,
            policy_outputs=count,
            action_inputs=0,
            value_outputs=count,
            **options,
        )
        self.actions = actions
        self.entropy_in_target = entropy_in_target
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

    def phase(self, updates: int) -> Hashable:
        """Tell the updates that train the policy from the others."""
        return self.moves_policy(updates + 1)

    def losses(self, transitions: TensorDictBase, reward: Tensor, updates: int = 0) -> Losses:
        """The losses of the critics, the policy and the temperature."""
        features = self.encoder(transitions[keys.OBSERVATION], augment=True)
        temperature = self.log_temperature.detach().exp()
        target = self.target(transitions, reward, temperature)
        values = self.critic(features)
        value = self.actions.chosen(values, transitions[keys.ACTION])
        found = Losses(
            {"critic": critic_loss(value, target)},
            {"agent/value_mean": value.mean(), "agent/temperature": temperature},
        )
        if not self.moves_policy(updates + 1):
            return found
        # The values of all actions do not depend on the policy, which needs no gradient through them.
        return found | self.policy_losses(features.detach(), temperature, self.combine(values.detach()))

    def policy_losses(self, features: Tensor, temperature: Tensor, values: Tensor) -> Losses:
        """The losses of the policy and the temperature α, for features and the values ``[batch, actions]``."""
        log_prob = self.log_policy(features)
        entropy = -expectation(log_prob, log_prob).mean()
        losses = {
            "actor": self.normalized(actor_loss(temperature, log_prob, values), values),
            "temperature": temperature_loss(self.log_temperature, -entropy.detach(), self.target_entropy),
        }
        return Losses(losses, {"agent/entropy": entropy})

    def cloning_error(self, features: Tensor, action: Tensor) -> Tensor:
        """The cross-entropy ``[batch]`` of the policy, −log π."""
        return -self.actions.chosen(self.log_policy(features), action)

    @torch.no_grad()
    def target(self, transitions: TensorDictBase, reward: Tensor, temperature: Tensor) -> Tensor:
        """The soft value ``[batch]`` that the critics learn, of the reward and what follows."""
        features = self.encoder(transitions[keys.NEXT_OBSERVATION], augment=True)
        values = self.pessimistic(self.target_critic(features))
        log_prob = self.log_policy(features)
        soft = self.entropy_in_target
        value = soft_value(temperature, log_prob, values) if soft else expectation(log_prob, values)
        return self.bootstrap(reward, transitions, value)

    def log_policy(self, features: Tensor) -> Tensor:
        """The log π ``[..., actions]`` of all actions, for features ``[..., features]``."""
        logits: Tensor = self.actor(features)
        return logits.log_softmax(-1)
