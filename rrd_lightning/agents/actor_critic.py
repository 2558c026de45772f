"""What agents with an actor have in common: an encoder, the actor, and an ensemble of critics."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Literal, get_args

import torch
from gymnasium import Space
from tensordict import TensorDictBase
from torch import Tensor

from rrd_lightning.agents.base import Agent
from rrd_lightning.agents.targets import bootstrap, move
from rrd_lightning.errors import ParameterError, require_not_negative, require_positive, require_share
from rrd_lightning.networks import NetworkConfig, make_encoder, make_ensemble, make_network

Combination = Literal["min", "mean", "first"]


class ActorCritic(Agent):
    """An agent whose critics judge the actions of its actor.

    A subclass makes its parts by `make_encoder`, `make_actor` and `make_critics`, in this order, and gives the
    losses ``actor`` and ``critic``.

    Args:
        observation_space: of a single environment.
        action_space: of a single environment.
        gamma: discount factor.
        polyak: share of the target critics that stays at each update.

    Attributes:
        encoder: from observations ``[...]`` to features ``[..., features]``.
        actor: from features to what the policy is made of.
        critic: from features and a continuous action to its value ``[critics, ..., 1]``, or from features to
            the values ``[critics, ..., actions]`` of all actions of a Discrete.
        target_critic: the moving average of the critics.

    Raises:
        ParameterError: if a number is out of range.
    """

    def __init__(
        self, observation_space: Space[Any], action_space: Space[Any], *, gamma: float, polyak: float
    ) -> None:
        super().__init__(observation_space, action_space)
        require_share(gamma=gamma, polyak=polyak)
        self.observation_space = observation_space
        self.gamma = gamma
        self.polyak = polyak
        self.learning_rates: dict[str, float] = {}

    def make_encoder(self, encoder: NetworkConfig | None, random_shift: int) -> None:
        """Make the encoder: a user's, or one that passes vectors on and has convolutions for images."""
        self.encoder = make_encoder(encoder, self.observation_space, self, random_shift)
        self.features = self.encoder.features

    def make_actor(
        self,
        actor: NetworkConfig | None,
        outputs: int,
        learning_rate: float,
        hidden_sizes: Sequence[int],
        activation: str,
    ) -> None:
        """Make the actor, from features to so many numbers."""
        require_not_negative(actor_learning_rate=learning_rate)
        options = {"hidden_sizes": hidden_sizes, "activation": activation}
        self.actor = make_network(actor, self.features, outputs, "actor", **options)
        self.learning_rates["actor"] = learning_rate

    def make_critics(
        self,
        critic: NetworkConfig | None,
        inputs: int,
        outputs: int,
        num_critics: int,
        critics_in_target: int | None,
        actor_value: Combination,
        learning_rate: float,
        **options: Any,
    ) -> None:
        """Make the critics, between so many numbers, and their targets; `options` are the perceptrons'."""
        require_positive(num_critics=num_critics)
        require_not_negative(critic_learning_rate=learning_rate)
        chosen = num_critics if critics_in_target is None else critics_in_target
        if not 1 <= chosen <= num_critics:
            problem = f"must be from 1 to num_critics={num_critics}"
            raise ParameterError("critics_in_target", critics_in_target, problem)
        if actor_value not in get_args(Combination):
            raise ParameterError("actor_value", actor_value, "must be 'min', 'mean' or 'first'")
        self.critic = make_ensemble(critic, num_critics, inputs, outputs, "critic", **options)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        self.num_critics, self.critics_in_target = num_critics, chosen
        self.actor_value: Combination = actor_value
        self.learning_rates["critic"] = learning_rate

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Two groups: ``actor``, and ``critic`` with the encoder."""
        parameters = {
            "actor": list(self.actor.parameters()),
            "critic": [*self.critic.parameters(), *self.encoder.parameters()],
        }
        return [
            {"name": name, "params": parameters[name], "lr": rate} for name, rate in self.learning_rates.items()
        ]

    def values(self, critics: Any, features: Tensor, action: Tensor) -> Tensor:
        """Return the values ``[critics, ...]`` of continuous actions."""
        values: Tensor = critics(torch.cat([features, action], -1))
        return values.squeeze(-1)

    def combine(self, values: Tensor) -> Tensor:
        """Return what the actor is to raise ``[...]``, of the values ``[critics, ...]`` of its actions."""
        if self.actor_value == "first":
            return values[0]
        return values.amin(0) if self.actor_value == "min" else values.mean(0)

    def pessimistic(self, values: Tensor) -> Tensor:
        """Return the minimum ``[...]`` over the values of the critics that are drawn for this target."""
        if self.critics_in_target < self.num_critics:
            order = torch.rand(self.num_critics, device=values.device).argsort()
            values = values.index_select(0, order[: self.critics_in_target])
        return values.amin(0)

    def bootstrap(self, reward: Tensor, transitions: TensorDictBase, value: Tensor) -> Tensor:
        """Return r + γ (1 − terminated) V, ``[batch]``, of what follows; a time limit does not terminate."""
        return bootstrap(reward, transitions, value, self.gamma)

    def after_update(self, updates: int) -> None:
        """Move the target critics a step of 1 - polyak towards the critics."""
        move(self.target_critic, self.critic, 1 - self.polyak)
