"""Soft actor-critic with a learned temperature.

Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", 2018, arXiv 1812.05905.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from gymnasium import Space, spaces
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn

from rrd_lightning import keys
from rrd_lightning.agents.base import Agent
from rrd_lightning.component import vector_size
from rrd_lightning.errors import ParameterError, require_not_negative, require_positive
from rrd_lightning.networks import MLP, Convolutions, EnsembleMLP, Observation, ObservationParts, random_shift

IMAGE_FEATURES = 64
LOG_STD_RANGE = (-20.0, 2.0)


class SAC(Agent):
    """Soft actor-critic for vectors and images, and continuous actions in [-1, 1].

    A squashed Gaussian policy, two critics evaluated as one batched network, and a temperature
    that holds the policy's entropy near its target. All parts take their gradient step at once,
    from the same batch and the same parameters. Images go through one encoder, which learns from the
    critics' loss alone; the policy and the target critics use it as it is.

    Args:
        observation_space: a vector, an image, or a Dict of these.
        action_space: a vector between finite bounds. Actions are in [-1, 1]: the environment
            scales them to its bounds.
        hidden_sizes: widths of the hidden layers of actor and critics.
        gamma: discount factor.
        polyak: share of the target critics that stays at each update.
        initial_temperature: α at the start.
        target_entropy: in nats; minus the number of action dimensions by default.
        actor_learning_rate: Adam's, for the policy.
        critic_learning_rate: Adam's, for both critics.
        temperature_learning_rate: Adam's, for log α.
        random_shift: for images: shift each one of a batch by up to so many pixels before the losses.

    Raises:
        ParameterError: if a space is not what SAC can serve, or a number is out of range.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        hidden_sizes: Sequence[int] = (256, 256),
        gamma: float = 0.99,
        polyak: float = 0.995,
        initial_temperature: float = 1.0,
        target_entropy: float | None = None,
        actor_learning_rate: float = 3e-4,
        critic_learning_rate: float = 3e-4,
        temperature_learning_rate: float = 3e-4,
        random_shift: int = 0,
    ) -> None:
        super().__init__(observation_space, action_space)
        self._parts = parts = ObservationParts(observation_space, self)
        actions = vector_size(action_space, "action_space", self)
        if not (isinstance(action_space, spaces.Box) and action_space.is_bounded()):
            raise ParameterError("action_space", action_space, "SAC needs finite bounds on every action")
        require_positive(initial_temperature=initial_temperature)
        require_not_negative(
            actor_learning_rate=actor_learning_rate,
            critic_learning_rate=critic_learning_rate,
            temperature_learning_rate=temperature_learning_rate,
            random_shift=random_shift,
        )
        for name, share in (("gamma", gamma), ("polyak", polyak)):
            if not 0 <= share <= 1:
                raise ParameterError(name, share, "must be between 0 and 1")
        observations = parts.vector_size
        if parts.channels:
            observations += IMAGE_FEATURES
            self.encoder = nn.Sequential(
                Convolutions(parts.channels, parts.image_size, IMAGE_FEATURES),
                nn.LayerNorm(IMAGE_FEATURES),
                nn.Tanh(),
            )
        self.actor = MLP([observations, *hidden_sizes, 2 * actions])
        self.critic = EnsembleMLP(2, [observations + actions, *hidden_sizes, 1])
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(initial_temperature)))
        self.gamma = gamma
        self.random_shift = random_shift
        self.polyak = polyak
        self.target_entropy = -float(actions) if target_entropy is None else target_entropy
        self.learning_rates = {
            "actor": actor_learning_rate,
            "critic": critic_learning_rate,
            "temperature": temperature_learning_rate,
        }

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Three groups: ``actor``, ``critic``, ``temperature``."""
        parameters = {
            "actor": list(self.actor.parameters()),
            "critic": [*self.critic.parameters(), *(self.encoder.parameters() if self._parts.channels else [])],
            "temperature": [self.log_temperature],
        }
        return [
            {"name": name, "params": parameters[name], "lr": rate} for name, rate in self.learning_rates.items()
        ]

    @torch.no_grad()
    def act(self, observation: Observation, *, explore: bool) -> Tensor:
        """Draw actions ``[..., actions]``, or return the policy's mode where not exploring."""
        mean, log_std = self._policy(self._features(observation))
        if explore:
            mean = mean + log_std.exp() * torch.randn_like(mean)
        return mean.tanh()

    def losses(self, transitions: TensorDictBase, reward: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of the critic's, the actor's and the temperature's loss."""
        temperature = self.log_temperature.detach().exp()
        features = self._features(transitions.get(keys.OBSERVATION), shift=self.random_shift)
        critic, value = self._critic_loss(features, transitions, reward, temperature)
        actor, log_prob = self._actor_loss(features.detach(), temperature)
        temperature_loss = -self.log_temperature * (log_prob + self.target_entropy).mean()
        return critic + actor + temperature_loss, {
            "loss/critic": critic.detach(),
            "loss/actor": actor.detach(),
            "loss/temperature": temperature_loss.detach(),
            "agent/value_mean": value.mean(),
            "agent/entropy": -log_prob.mean(),
            "agent/temperature": temperature,
        }

    @torch.no_grad()
    def update_targets(self) -> None:
        """Move the target critics a step of 1 - polyak towards the critics."""
        average = get_ema_multi_avg_fn(self.polyak)  # type: ignore[no-untyped-call]
        average(list(self.target_critic.parameters()), list(self.critic.parameters()), None)

    def _features(self, observation: Observation, *, shift: int = 0) -> Tensor:
        """What actor and critics see ``[..., features]``: a vector, with the encoded images if there are."""
        vector = self._parts.vector(observation)
        if not self._parts.channels:
            return vector
        images = random_shift(self._parts.images(observation), shift)
        return torch.cat([self.encoder(images), vector], -1)

    def _critic_loss(
        self, features: Tensor, transitions: TensorDictBase, reward: Tensor, temperature: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Equation 5: the squared error to the soft target, summed over both critics."""
        with torch.no_grad():
            following = self._features(transitions.get(keys.NEXT_OBSERVATION), shift=self.random_shift)
            next_action, next_log_prob = self._sample(following)
            next_value = self._value(self.target_critic, following, next_action).amin(0)
            bootstrap = self.gamma * transitions.get(keys.TERMINATED).logical_not()
            target = reward + bootstrap * (next_value - temperature * next_log_prob)
        value = self._value(self.critic, features, transitions.get(keys.ACTION))
        return (value - target).square().mean(-1).sum(), value.detach()

    def _actor_loss(self, features: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
        """Equation 7: the reparametrised policy against the lower critic, whose weights stay."""
        action, log_prob = self._sample(features)
        value = self._value(self.critic, features, action, frozen=True).amin(0)
        return (temperature * log_prob - value).mean(), log_prob.detach()

    def _policy(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.actor(features).chunk(2, -1)
        return mean, log_std.clamp(*LOG_STD_RANGE)

    def _sample(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Draw actions ``[batch, actions]`` and their log-densities ``[batch]``."""
        mean, log_std = self._policy(features)
        noise = torch.randn_like(mean)
        unsquashed = mean + log_std.exp() * noise
        gaussian = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        # log(1 - tanh(u)²), exact where tanh(u) rounds to 1 (appendix C).
        squashing = 2 * (math.log(2) - unsquashed - functional.softplus(-2 * unsquashed))
        return unsquashed.tanh(), (gaussian - squashing).sum(-1)

    @staticmethod
    def _value(critic: EnsembleMLP, features: Tensor, action: Tensor, *, frozen: bool = False) -> Tensor:
        values: Tensor = critic(torch.cat([features, action], -1), frozen=frozen)
        return values.squeeze(-1)
