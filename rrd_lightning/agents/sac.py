"""Soft actor-critic with a learned temperature.

Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", 2018, arXiv 1812.05905.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

import torch
from gymnasium import Space, spaces
from tensordict import TensorDictBase
from torch import Tensor, nn

from rrd_lightning import keys
from rrd_lightning.agents import sac_kernels
from rrd_lightning.agents.base import Agent
from rrd_lightning.agents.squashed import LOG_STD_RANGE, SquashedDraw, mean_and_log_std
from rrd_lightning.component import Metrics, vector_size
from rrd_lightning.errors import ParameterError, require_not_negative, require_positive
from rrd_lightning.networks import (
    MLP,
    Convolutions,
    Kernels,
    Observation,
    ObservationParts,
    Scratch,
    Tape,
    random_shift,
)
from rrd_lightning.networks.kernels import readable

IMAGE_FEATURES = 64


class Update(NamedTuple):
    """Gradients of all parts of SAC, the features' for images alone, and what the metrics are made of."""

    actor: Tensor
    critic: Tensor
    temperature: Tensor
    features: Tensor | None
    alpha: Tensor
    value: Tensor
    target: Tensor
    lower_value: Tensor
    log_prob: Tensor

    def metrics(self) -> dict[str, Tensor]:
        """What there is to log."""
        return {
            "loss/critic": (self.value - self.target).square().mean(-1).sum(),
            "agent/value_mean": self.value.mean(),
            "loss/actor": (self.alpha * self.log_prob - self.lower_value).mean(),
            "loss/temperature": self.alpha.log() * self.temperature,
            "agent/entropy": -self.log_prob.mean(),
            "agent/temperature": self.alpha,
        }


class Batch(NamedTuple):
    """What an update is made of: transitions, and the noise of the policy's actions in them and after them."""

    features: Tensor
    following: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    noise: Tensor
    next_noise: Tensor

    def readable(self, width: int, actions: int) -> bool:
        """Tell whether functions in C++ can read it, for critics of so many inputs and actions."""
        *numbers, terminated, noise, next_noise = self
        rows = len(self.features)
        return (
            readable(*numbers, noise, next_noise)
            and terminated.dtype == torch.bool
            and self.features.shape == self.following.shape == (rows, width - actions)
            and self.action.shape == (rows, actions)
            and self.reward.shape == terminated.shape == (rows,)
        )


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
        self.compilable = not parts.channels
        self.actions = actions = vector_size(action_space, "action_space", self)
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
        self._acting, self._judging, self._promising = (
            Tape(network, scratch) for network in (self.actor, self.critic, self.target_critic)
        )
        self._performing = Tape(self.actor, Scratch())
        self._found = Scratch()
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
        features = self._features(observation)
        shape = *features.shape[:-1], self.actions
        rows = features.reshape(-1, features.shape[-1])
        noise = None
        if explore:
            noise = torch.randn(len(rows), self.actions, dtype=rows.dtype, device=rows.device)
        if kernels := self._performing.kernels_for(rows):
            action = rows.new_empty(len(rows), self.actions)
            sac_kernels.act(kernels, self.actor, LOG_STD_RANGE, rows.contiguous(), noise, action)
            return action.view(shape)
        mean, log_std = mean_and_log_std(self._performing.forward(rows))
        if noise is not None:
            mean = mean + log_std.exp() * noise
        return mean.tanh().view(shape)

    def learn(self, transitions: TensorDictBase, reward: Tensor) -> Metrics:
        """Set the gradient of the critics', the actor's and the temperature's loss, worked out by hand.

        Each loss reaches its own parameters only.
        """
        features = self._features(transitions.get(keys.OBSERVATION), shift=self.random_shift)
        action = transitions.get(keys.ACTION)
        with torch.no_grad():
            following = self._features(transitions.get(keys.NEXT_OBSERVATION), shift=self.random_shift)
            next_noise, noise = torch.randn_like(action), torch.randn_like(action)
            terminated = transitions.get(keys.TERMINATED)
            batch = Batch(features.detach(), following, action, reward, terminated, noise, next_noise)
            kernels = self._judging.kernels()
            if kernels and batch.readable(self.critic.sizes[0], self.actions):
                update = self._compiled_update(kernels, batch)
            else:
                update = self._update(batch)
        self.critic.vector.grad = update.critic
        self.actor.vector.grad = update.actor
        self.log_temperature.grad = update.temperature
        if self._parts.channels:
            self.encoder.zero_grad()
            features.backward(update.features)  # type: ignore[no-untyped-call]
        return lambda: update.metrics()  # a bound method is what torch.compile cannot return

    def _compiled_update(self, kernels: Kernels, batch: Batch) -> Update:
        """Work out all gradients as `_update` does, in C++."""
        rows = len(batch.features)
        new = partial(self._found.take, like=batch.features)
        update = Update(
            actor=new("actor", self.actor.vector.shape),
            critic=new("critic", self.critic.vector.shape),
            temperature=new("temperature", ()),
            features=new("features", batch.features.shape) if self._parts.channels else None,
            alpha=new("alpha", ()),
            value=new("value", (2, rows)),
            target=new("target", (rows,)),
            lower_value=new("lower_value", (rows,)),
            log_prob=new("log_prob", (rows,)),
        )
        networks = self.actor, self.critic, self.target_critic
        constants = self.gamma, self.target_entropy
        sac_kernels.learn(kernels, networks, LOG_STD_RANGE, constants, (*batch, self.log_temperature), update)
        return update

    def _update(self, batch: Batch) -> Update:
        """Work out all gradients. It draws nothing and changes nothing."""
        temperature = self.log_temperature.exp()
        target = self._target(batch, temperature)
        value, of_critic, of_features = self._learn_critic(batch, target)
        lower_value, log_prob, of_actor = self._learn_policy(batch, temperature)
        of_temperature = -self.target_entropy - log_prob.mean()
        return Update(
            of_actor, of_critic, of_temperature, of_features, temperature, value, target, lower_value, log_prob
        )

    def _target(self, batch: Batch, temperature: Tensor) -> Tensor:
        """The soft value ``[batch]`` that both critics learn, of the reward and what follows."""
        draw = SquashedDraw(self._acting.forward(batch.following), batch.next_noise)
        value = self._promising.forward(torch.cat([batch.following, draw.action], -1)).amin(0)
        value.addcmul_(temperature, draw.log_prob, value=-1).masked_fill_(batch.terminated, 0.0)
        return batch.reward.add(value, alpha=self.gamma)

    def _learn_critic(self, batch: Batch, target: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Equation 5: the squared error to the soft target, summed over both critics.

        Returns:
            their values ``[2, batch]``, their gradient, and, for images, that of the features.
        """
        value, seen = self._judging.record(torch.cat([batch.features, batch.action], -1))
        of_value = (value - target) * (2 / len(value[0]))
        of_features = None
        if self._parts.channels:
            of_features = self._judging.trace(seen, of_value, slice(batch.features.shape[-1]))
        return value, self._judging.backward(seen, of_value), of_features

    def _learn_policy(self, batch: Batch, temperature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Equation 7: the reparametrised policy against the lower critic, whose weights stay.

        Returns:
            the lower critic's values and the log-densities of the policy's actions, ``[batch]`` each,
            and the policy's gradient.
        """
        features, rows = batch.features, len(batch.features)
        outputs, seen = self._acting.record(features)
        draw = SquashedDraw(outputs, batch.noise)
        values, seen_by_critics = self._judging.record(torch.cat([features, draw.action], -1))
        value, lower = values.min(0)
        chosen = torch.zeros_like(values).scatter_(0, lower[None], -1 / rows)
        of_action = self._judging.trace(seen_by_critics, chosen, slice(features.shape[-1], None))
        gradient = self._acting.backward(seen, draw.gradient(of_action, temperature / rows))
        return value, draw.log_prob, gradient

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
