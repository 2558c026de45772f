"""What agents for continuous actions have in common: an encoder, an actor, and an ensemble of critics."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Literal

import torch
from gymnasium import Space, spaces
from tensordict import TensorDictBase
from torch import Tensor

from rrd_lightning import keys
from rrd_lightning.agents.base import Agent
from rrd_lightning.errors import ParameterError, require_not_negative, require_positive
from rrd_lightning.networks import (
    ActionVector,
    CustomEncoder,
    Encoder,
    NetworkConfig,
    ObservationEncoder,
    make_ensemble,
    make_network,
)
from rrd_lightning.networks.observations import is_vector

Combination = Literal["min", "mean"]


class ActorCritic(Agent):
    """An agent whose critics judge the actions of its actor.

    A subclass makes its parts by `make_encoder`, `make_actor` and `make_critics`, in this order, and gives the
    losses ``actor`` and ``critic``.

    Args:
        observation_space: of a single environment.
        action_space: a vector between -1 and 1.
        gamma: discount factor.
        polyak: share of the target critics that stays at each update.

    Attributes:
        encoder: from observations ``[...]`` to features ``[..., features]``.
        actor: from features to what the policy is made of.
        critic: from features and actions to values ``[critics, ..., 1]``.
        target_critic: the moving average of the critics.
        actions: the number of action dimensions.

    Raises:
        ParameterError: if the actions are others, or a number is out of range.
    """

    def __init__(
        self, observation_space: Space[Any], action_space: Space[Any], *, gamma: float, polyak: float
    ) -> None:
        super().__init__(observation_space, action_space)
        name = type(self).__name__
        if not (isinstance(action_space, spaces.Box) and is_vector(action_space)):
            problem = f"{name} serves continuous vectors, a Box of one dimension and floating numbers"
            raise ParameterError("action_space", action_space, problem)
        if not action_space.is_bounded():
            raise ParameterError("action_space", action_space, f"{name} needs finite bounds on every action")
        for parameter, share in (("gamma", gamma), ("polyak", polyak)):
            if not 0 <= share <= 1:
                raise ParameterError(parameter, share, "must be between 0 and 1")
        self.observation_space = observation_space
        self.actions = ActionVector(action_space, self).size
        self.gamma = gamma
        self.polyak = polyak
        self.learning_rates: dict[str, float] = {}

    def make_encoder(self, encoder: NetworkConfig | None, random_shift: int) -> None:
        """Make the encoder: a user's, or one that passes vectors on and has convolutions for images."""
        require_not_negative(random_shift=random_shift)
        if encoder is not None and random_shift:
            raise ParameterError(
                "random_shift", random_shift, "is not of an encoder of your own: leave it at 0"
            )
        self.encoder: ObservationEncoder = (
            Encoder(self.observation_space, self, random_shift)
            if encoder is None
            else CustomEncoder(encoder, self.observation_space)
        )
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
        num_critics: int,
        critics_in_target: int | None,
        actor_value: Combination,
        learning_rate: float,
        **options: Any,
    ) -> None:
        """Make the critics and their targets; `options` are those of the perceptrons."""
        require_positive(num_critics=num_critics)
        require_not_negative(critic_learning_rate=learning_rate)
        chosen = num_critics if critics_in_target is None else critics_in_target
        if not 1 <= chosen <= num_critics:
            problem = f"must be from 1 to num_critics={num_critics}"
            raise ParameterError("critics_in_target", critics_in_target, problem)
        if actor_value not in ("min", "mean"):
            raise ParameterError("actor_value", actor_value, "must be 'min' or 'mean'")
        inputs = self.features + self.actions
        self.critic = make_ensemble(critic, num_critics, inputs, 1, "critic", **options)
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
        """Return the values ``[critics, ...]`` of actions."""
        values: Tensor = critics(torch.cat([features, action], -1))
        return values.squeeze(-1)

    def combine(self, values: Tensor) -> Tensor:
        """Return what the actor is to raise ``[batch]``, of the values ``[critics, batch]`` of its actions."""
        return values.amin(0) if self.actor_value == "min" else values.mean(0)

    def pessimistic(self, values: Tensor) -> Tensor:
        """Return the minimum ``[batch]`` over the values of the critics that are drawn for this target."""
        if self.critics_in_target < self.num_critics:
            order = torch.rand(self.num_critics, device=values.device).argsort()
            values = values.index_select(0, order[: self.critics_in_target])
        return values.amin(0)

    def bootstrap(self, reward: Tensor, transitions: TensorDictBase, value: Tensor) -> Tensor:
        """Return r + γ (1 − terminated) V, ``[batch]``, of what follows; a time limit does not terminate."""
        return reward + self.gamma * value.masked_fill(transitions[keys.TERMINATED], 0.0)

    @torch.no_grad()
    def after_update(self, updates: int) -> None:
        """Move the target critics a step of 1 - polyak towards the critics."""
        for target, source in zip(self.target_critic.parameters(), self.critic.parameters(), strict=True):
            target.lerp_(source, 1 - self.polyak)
