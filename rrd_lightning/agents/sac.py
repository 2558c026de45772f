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

from rrd_lightning import keys
from rrd_lightning.agents.base import Agent
from rrd_lightning.agents.squashed import SquashedDraw, mean_and_log_std
from rrd_lightning.component import Metrics, vector_size
from rrd_lightning.errors import ParameterError, require_not_negative, require_positive
from rrd_lightning.networks import (
    MLP,
    Convolutions,
    Observation,
    ObservationParts,
    Scratch,
    Tape,
    random_shift,
)

IMAGE_FEATURES = 64


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
        self.critic = MLP([observations + actions, *hidden_sizes, 1], members=2)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        scratch = Scratch()
        self._acting, self._foreseeing = Tape(self.actor, scratch), Tape(self.actor, scratch)
        self._judging, self._advising = Tape(self.critic, scratch), Tape(self.critic, scratch)
        self._promising = Tape(self.target_critic, scratch)
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
        mean, log_std = mean_and_log_std(self.actor(self._features(observation)))
        if explore:
            mean = mean + log_std.exp() * torch.randn_like(mean)
        return mean.tanh()

    def learn(self, transitions: TensorDictBase, reward: Tensor) -> Metrics:
        """Set the gradient of the critics', the actor's and the temperature's loss, worked out by hand.

        Each loss reaches its own parameters only.
        """
        features = self._features(transitions.get(keys.OBSERVATION), shift=self.random_shift)
        seen = features.detach()
        with torch.no_grad():
            temperature = self.log_temperature.exp()
            target = self._target(transitions, reward, temperature)
            metrics = self._learn_critic(seen, transitions.get(keys.ACTION), target)
            if self._parts.channels:
                gradient = self._judging.input_gradient(slice(seen.shape[-1]))
            of_policy = self._learn_policy(seen, temperature)
        if self._parts.channels:
            self.encoder.zero_grad()
            features.backward(gradient)  # type: ignore[no-untyped-call]
        return lambda: {**metrics(), **of_policy(), "agent/temperature": temperature}

    def _target(self, transitions: TensorDictBase, reward: Tensor, temperature: Tensor) -> Tensor:
        """The soft value ``[batch]`` that both critics learn, of the reward and what follows."""
        following = self._features(transitions.get(keys.NEXT_OBSERVATION), shift=self.random_shift)
        draw = SquashedDraw(self._foreseeing.forward(following, keep=False))
        value = self._promising.forward(torch.cat([following, draw.action], -1), keep=False).amin(0)
        value -= temperature * draw.log_prob
        return reward + self.gamma * value.masked_fill_(transitions.get(keys.TERMINATED), 0.0)

    def _learn_critic(self, features: Tensor, action: Tensor, target: Tensor) -> Metrics:
        """Equation 5: the squared error to the soft target, summed over both critics."""
        value = self._judging.forward(torch.cat([features, action], -1))
        error = value - target
        self._judging.backward(error * (2 / len(features)))
        return lambda: {
            "loss/critic": error.square().mean(-1).sum(),
            "agent/value_mean": value.mean(),
        }

    def _learn_policy(self, features: Tensor, temperature: Tensor) -> Metrics:
        """Equation 7: the reparametrised policy against the lower critic, whose weights stay."""
        batch = len(features)
        draw = SquashedDraw(self._acting.forward(features))
        values = self._advising.forward(torch.cat([features, draw.action], -1))
        value, lower = values.min(0)
        self._advising.backward(torch.zeros_like(values).scatter_(0, lower[None], -1 / batch), learn=False)
        action_gradient = self._advising.input_gradient(slice(features.shape[-1], None))
        self._acting.backward(draw.gradient(action_gradient, temperature / batch))
        excess = -(draw.log_prob.mean() + self.target_entropy)
        self.log_temperature.grad = excess
        return lambda: {
            "loss/actor": (temperature * draw.log_prob - value).mean(),
            "loss/temperature": temperature.log() * excess,
            "agent/entropy": -draw.log_prob.mean(),
        }

    @torch.no_grad()
    def update_targets(self) -> None:
        """Move the target critics a step of 1 - polyak towards the critics."""
        self.target_critic.vector.lerp_(self.critic.vector, 1 - self.polyak)

    def _features(self, observation: Observation, *, shift: int = 0) -> Tensor:
        """What actor and critics see ``[..., features]``: a vector, with the encoded images if there are."""
        vector = self._parts.vector(observation)
        if not self._parts.channels:
            return vector
        images = random_shift(self._parts.images(observation), shift)
        return torch.cat([self.encoder(images), vector], -1)
