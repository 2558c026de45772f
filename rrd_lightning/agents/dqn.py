"""Deep Q-networks.

Mnih et al., "Human-Level Control through Deep Reinforcement Learning", Nature 2015; van Hasselt et al., "Deep
Reinforcement Learning with Double Q-Learning", 2016, arXiv 1509.06461; Wang et al., "Dueling Network
Architectures for Deep Reinforcement Learning", 2016, arXiv 1511.06581.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from copy import deepcopy
from typing import Any, ClassVar

import torch
from gymnasium import Space
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.nn import functional

from rrd_lightning import keys
from rrd_lightning.agents.actions import DiscreteActions
from rrd_lightning.agents.base import Agent
from rrd_lightning.agents.targets import bootstrap, move
from rrd_lightning.errors import ParameterError, require_not_negative, require_positive, require_share
from rrd_lightning.losses import Losses
from rrd_lightning.networks import (
    Encoder,
    NetworkConfig,
    Observation,
    ObservationEncoder,
    make_encoder,
    make_network,
)


def value_loss(value: Tensor, target: Tensor) -> Tensor:
    """Mnih et al., Methods: the squared error ``[batch]``, whose gradient is clipped at 1: Huber's loss."""
    return functional.huber_loss(value, target)


def double_value(values: Tensor, target_values: Tensor) -> Tensor:
    """Van Hasselt et al., equation 4: by the target the value ``[batch]`` of what the network would do."""
    return target_values.gather(-1, values.argmax(-1, keepdim=True)).squeeze(-1)


def dueling_values(value: Tensor, advantages: Tensor) -> Tensor:
    """Wang et al., equation 9: ``[..., actions]`` of a value ``[..., 1]`` and advantages ``[..., actions]``."""
    return value + advantages - advantages.mean(-1, keepdim=True)


class QNetwork(nn.Module):
    """The value of each action in an observation.

    Args:
        encoder: from observations to features.
        actions: how many.
        network: a user's network from features to one number for each action, if any.
        dueling: two such networks, one for the value of the state and one for the advantages of the actions.
        options: of the perceptrons otherwise.
    """

    def __init__(
        self,
        encoder: ObservationEncoder,
        actions: int,
        network: NetworkConfig | None,
        dueling: bool,
        **options: Any,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.actions = make_network(network, encoder.features, actions, "network", **options)
        self.state = make_network(network, encoder.features, 1, "network", **options) if dueling else None

    def forward(self, observation: Observation, *, augment: bool = False) -> Tensor:
        """Map observations ``[...]`` to values ``[..., actions]``; `augment` varies images at random."""
        features = self.encoder(observation, augment=augment)
        values: Tensor = self.actions(features)
        return values if self.state is None else dueling_values(self.state(features), values)


class DQN(Agent):
    """Deep Q-network for vectors and images, and Discrete actions.

    It acts greedily by its values but for a share ε of uniform actions. That share falls from `first_epsilon`
    to `last_epsilon` in even steps over `exploration_steps`. Targets are by a copy of the network, renewed
    every `target_update` updates.

    Args:
        observation_space: a vector, an image, a Discrete, or a Dict of these.
        action_space: a Discrete.
        hidden_sizes: widths of the layers between features and values; by default none behind the convolutions
            of images, whose last layer has 512 units, and otherwise (256, 256).
        activation: between them; see `rrd_lightning.networks.MLP`.
        layer_norm: normalise these layers.
        dropout: of these layers.
        double: let the network choose the action whose value the target takes from the copy.
        dueling: values as the sum of a state's value and the actions' advantages, each by layers of its own
            behind the features.
        network: class path of a module from features to values; with `dueling` of both.
        encoder: class path of a module from observations to features.
        gamma: discount factor.
        reward_scale: what the reward is multiplied by.
        target_update: updates from one copy of the network to the next.
        first_epsilon: ε at the start.
        last_epsilon: ε in the end.
        exploration_steps: environment steps over which ε falls.
        evaluation_epsilon: ε where not exploring, in evaluation and of exported policies.
        learning_rate: Adam's.
        adam_epsilon: Adam's ε.
        random_shift: for images: shift each one of a batch by up to so many pixels before the losses.

    Attributes:
        network: from observations ``[...]`` to values ``[..., actions]``.
        target_network: its copy.

    Raises:
        ParameterError: if it cannot serve a space, or an option is out of range.
    """

    metrics: ClassVar[dict[str, str]] = {
        "loss/value": "mean Huber loss of Q(s, a) to the target r̂ + γ (1 − terminated) max Q', or, with "
        "`double`, to the value by Q' of the best action by Q",
        "agent/value_mean": "mean Q(s, a) of the batch's transitions",
        "agent/value_max": "mean over the batch's observations of the largest Q(s, ·)",
    }

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        hidden_sizes: Sequence[int] | None = None,
        activation: str = "relu",
        layer_norm: bool = False,
        dropout: float = 0.0,
        double: bool = False,
        dueling: bool = False,
        network: NetworkConfig | None = None,
        encoder: NetworkConfig | None = None,
        gamma: float = 0.99,
        reward_scale: float = 1.0,
        target_update: int = 8000,
        first_epsilon: float = 1.0,
        last_epsilon: float = 0.01,
        exploration_steps: int = 250_000,
        evaluation_epsilon: float = 0.001,
        learning_rate: float = 6.25e-5,
        adam_epsilon: float = 1.5e-4,
        random_shift: int = 0,
    ) -> None:
        super().__init__(observation_space, action_space)
        require_share(
            gamma=gamma,
            evaluation_epsilon=evaluation_epsilon,
            first_epsilon=first_epsilon,
            last_epsilon=last_epsilon,
        )
        require_positive(
            reward_scale=reward_scale, target_update=target_update, exploration_steps=exploration_steps
        )
        require_not_negative(learning_rate=learning_rate, adam_epsilon=adam_epsilon)
        self.actions = DiscreteActions(action_space, self)
        seeing = make_encoder(encoder, observation_space, self, random_shift, bottleneck=False)
        if hidden_sizes is None:
            hidden_sizes = () if isinstance(seeing, Encoder) and seeing.sees_images else (256, 256)
        for name, value in {"layer_norm": layer_norm, "dropout": dropout}.items():
            if value and not hidden_sizes:
                raise ParameterError(name, value, "is of hidden layers, and there are none: set hidden_sizes")
        options = {
            "hidden_sizes": hidden_sizes,
            "activation": activation,
            "layer_norm": layer_norm,
            "dropout": dropout,
        }
        self.network = QNetwork(seeing, self.actions.count, network, dueling, **options)
        self.target_network = deepcopy(self.network).requires_grad_(False)
        self.double_q = double  # nn.Module has a method `double`
        self.gamma = gamma
        self.reward_scale = reward_scale
        self.target_update = target_update
        self.exploration_steps = exploration_steps
        self.evaluation_epsilon = evaluation_epsilon
        self.first_epsilon, self.last_epsilon = first_epsilon, last_epsilon
        self.learning_rate, self.adam_epsilon = learning_rate, adam_epsilon

    def parameter_groups(self) -> list[dict[str, Any]]:
        """One group: ``value``, with the encoder."""
        return [
            {
                "name": "value",
                "params": list(self.network.parameters()),
                "lr": self.learning_rate,
                "eps": self.adam_epsilon,
            }
        ]

    def epsilon(self, env_steps: int) -> float:
        """Return the share of uniform actions after so many environment steps."""
        done = min(env_steps / self.exploration_steps, 1.0)
        return self.first_epsilon + done * (self.last_epsilon - self.first_epsilon)

    @torch.no_grad()
    def act(self, observation: Observation, *, explore: bool, env_steps: int = 0) -> Tensor:
        """Return the best actions ``[...]``, or uniform ones with a probability of ε."""
        best = self.network(observation).argmax(-1)
        epsilon = self.epsilon(env_steps) if explore else self.evaluation_epsilon
        if epsilon:
            uniform = torch.rand(best.shape, device=best.device) < epsilon
            best = torch.where(uniform, torch.randint_like(best, self.actions.count), best)
        return self.actions.native(best)

    def losses(self, transitions: TensorDictBase, reward: Tensor, updates: int = 0) -> Losses:
        """The loss of the values."""
        values = self.network(transitions[keys.OBSERVATION], augment=True)
        value = self.actions.chosen(values, transitions[keys.ACTION])
        loss = value_loss(value, self.target(transitions, reward))
        metrics = {"agent/value_mean": value.mean(), "agent/value_max": values.amax(-1).mean()}
        return Losses({"value": loss}, metrics)

    @torch.no_grad()
    def target(self, transitions: TensorDictBase, reward: Tensor) -> Tensor:
        """What the value learns ``[batch]``, of the reward and what follows."""
        following = transitions[keys.NEXT_OBSERVATION]
        target_values: Tensor = self.target_network(following, augment=True)
        if self.double_q:
            value = double_value(self.network(following, augment=True), target_values)
        else:
            value = target_values.amax(-1)
        return bootstrap(self.reward_scale * reward, transitions, value, self.gamma)

    def after_update(self, updates: int) -> None:
        """Copy the network every `target_update` updates."""
        if updates % self.target_update == 0:
            move(self.target_network, self.network, 1.0)

    def phase(self, updates: int) -> Hashable:
        """Tell the updates that end with a copy from the others."""
        return (updates + 1) % self.target_update == 0
