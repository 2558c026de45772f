"""What agents with an actor have in common: an encoder, the actor, an ensemble of critics, and cloning."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Literal, get_args

import torch
from gymnasium import Space
from tensordict import TensorDictBase
from torch import Tensor

from rrd_lightning import keys
from rrd_lightning.agents.base import Agent
from rrd_lightning.agents.targets import bootstrap, move
from rrd_lightning.errors import ParameterError, require_not_negative, require_positive, require_share
from rrd_lightning.losses import Losses
from rrd_lightning.networks import NetworkConfig, make_encoder, make_ensemble, make_network

Combination = Literal["min", "mean", "first"]
SMALLEST_VALUE = 1e-6


def cloning_metrics(error: str) -> dict[str, str]:
    """What an agent logs that imitates demonstrations with such an error, for its `metrics`."""
    return {
        "loss/cloning": f"{error} over the batch's demonstrations that are not known to have failed, times "
        "`agent/cloning_weight`; while that is not zero",
        "agent/cloning_weight": "the weight of cloning; while it is not zero",
    }


class ActorCritic(Agent):
    """An agent whose critics judge the actions of its actor.

    A subclass says how large its networks are, passes its `options` on, and gives the losses ``actor`` and
    ``critic``, and `cloning_error` if it can imitate demonstrations.

    Args:
        observation_space: of a single environment: a vector, an image, a Discrete, or a Dict of these.
        action_space: of a single environment.
        policy_outputs: numbers that the actor gives for its policy.
        action_inputs: numbers of an action that the critics are given beside the features.
        value_outputs: values that each critic gives.
        hidden_sizes: widths of the hidden layers of actor and critics.
        activation: between them; see `rrd_lightning.networks.MLP`.
        layer_norm: normalise the critics' hidden layers.
        dropout: of the critics' hidden layers.
        num_critics: how many critics.
        critics_in_target: how many of them, drawn anew for each update, a target takes the minimum of; all by
            default.
        actor_value: how the actor's loss combines the critics: their ``"min"``, as in REDQ their ``"mean"``,
            or the ``"first"`` alone.
        actor: class path of a module for the policy, from features to the numbers of the policy.
        critic: class path of a module for each critic, from its inputs to its values.
        encoder: class path of a module from observations to features.
        gamma: discount factor.
        polyak: share of the target networks that stays when they move.
        policy_delay: updates of the critics for each of the policy.
        reward_scale: what the reward is multiplied by.
        normalize_value: divide the actor's loss by the mean absolute value of its actions, so that the weight
            of other terms does not depend on the scale of the reward: Fujimoto and Gu, "A Minimalist Approach
            to Offline Reinforcement Learning", 2021, arXiv 2106.06860, equation 5.
        cloning_weight: of the actor's error on successful demonstrations, see `cloning`.
        cloning_steps: environment steps over which this weight falls to zero; it stays by default.
        actor_learning_rate: Adam's, for the policy.
        critic_learning_rate: Adam's, for the critics and the encoder.
        random_shift: for images: shift each one of a batch by up to so many pixels before the losses.

    Attributes:
        encoder: from observations ``[...]`` to features ``[..., features]``.
        actor: from features to what the policy is made of.
        critic: from features and a continuous action to its value ``[critics, ..., 1]``, or from features to
            the values ``[critics, ..., actions]`` of all actions of a Discrete.
        target_critic: the moving average of the critics.
        cloning_now: the weight of cloning at present, ``[]``.

    Raises:
        ParameterError: if it cannot serve a space, or an option is out of range.
    """

    cloning_now: Tensor

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        policy_outputs: int,
        action_inputs: int,
        value_outputs: int,
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
        policy_delay: int = 1,
        reward_scale: float = 1.0,
        normalize_value: bool = False,
        cloning_weight: float = 0.0,
        cloning_steps: int | None = None,
        actor_learning_rate: float = 3e-4,
        critic_learning_rate: float = 3e-4,
        random_shift: int = 0,
    ) -> None:
        super().__init__(observation_space, action_space)
        require_share(gamma=gamma, polyak=polyak)
        require_positive(num_critics=num_critics, policy_delay=policy_delay, reward_scale=reward_scale)
        require_not_negative(
            actor_learning_rate=actor_learning_rate,
            critic_learning_rate=critic_learning_rate,
            cloning_weight=cloning_weight,
        )
        in_target = num_critics if critics_in_target is None else critics_in_target
        if not 1 <= in_target <= num_critics:
            problem = f"must be from 1 to num_critics={num_critics}"
            raise ParameterError("critics_in_target", critics_in_target, problem)
        if actor_value not in get_args(Combination):
            raise ParameterError("actor_value", actor_value, "must be 'min', 'mean' or 'first'")
        if cloning_weight and type(self).cloning_error is ActorCritic.cloning_error:
            problem = f"{type(self).__name__} has no cloning_error, so that it cannot imitate demonstrations"
            raise ParameterError("cloning_weight", cloning_weight, problem)
        if cloning_steps is not None:
            require_positive(cloning_steps=cloning_steps)
            if not cloning_weight:
                raise ParameterError("cloning_steps", cloning_steps, "needs a cloning_weight")
        layers: dict[str, Any] = {"hidden_sizes": hidden_sizes, "activation": activation}
        of_critics = {**layers, "layer_norm": layer_norm, "dropout": dropout}
        self.encoder = make_encoder(encoder, observation_space, self, random_shift)
        self.features = self.encoder.features
        self.actor = make_network(actor, self.features, policy_outputs, "actor", **layers)
        self.critic = make_ensemble(
            critic, num_critics, self.features + action_inputs, value_outputs, "critic", **of_critics
        )
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        self.learning_rates = {"actor": actor_learning_rate, "critic": critic_learning_rate}
        self.num_critics, self.critics_in_target = num_critics, in_target
        self.actor_value: Combination = actor_value
        self.gamma, self.polyak, self.policy_delay = gamma, polyak, policy_delay
        self.reward_scale, self.normalize_value = reward_scale, normalize_value
        self.cloning_weight, self.cloning_steps = cloning_weight, cloning_steps
        # A tensor, since recordings of an update hold plain numbers.
        self.register_buffer("cloning_now", torch.tensor(cloning_weight), persistent=False)
        self.clones = cloning_weight > 0

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Two groups: ``actor``, and ``critic`` with the encoder."""
        parameters = {
            "actor": list(self.actor.parameters()),
            "critic": [*self.critic.parameters(), *self.encoder.parameters()],
        }
        return [
            {"name": name, "params": parameters[name], "lr": rate} for name, rate in self.learning_rates.items()
        ]

    def loss_names(self) -> list[str]:
        """Those of the parameter groups, and ``cloning``, if it has a weight."""
        return super().loss_names() + (["cloning"] if self.cloning_weight else [])

    def values(self, critics: Any, features: Tensor, action: Tensor) -> Tensor:
        """Return the values ``[critics, ...]`` of continuous actions."""
        values: Tensor = critics(torch.cat([features, action], -1))
        return values.squeeze(-1)

    def combine(self, values: Tensor) -> Tensor:
        """Return what the actor is to raise ``[...]``, of the values ``[critics, ...]`` of its actions."""
        if self.actor_value == "first":
            return values[0]
        return values.amin(0) if self.actor_value == "min" else values.mean(0)

    def normalized(self, loss: Tensor, value: Tensor) -> Tensor:
        """Divide the actor's loss by the mean absolute value of its actions ``[...]``, if that is asked for."""
        return loss / value.detach().abs().mean().clamp(SMALLEST_VALUE) if self.normalize_value else loss

    def pessimistic(self, values: Tensor) -> Tensor:
        """Return the minimum ``[...]`` over the values of the critics that are drawn for this target."""
        if self.critics_in_target < self.num_critics:
            order = torch.rand(self.num_critics, device=values.device).argsort()
            values = values.index_select(0, order[: self.critics_in_target])
        return values.amin(0)

    def bootstrap(self, reward: Tensor, transitions: TensorDictBase, value: Tensor) -> Tensor:
        """Return r + γ (1 − terminated) V, ``[batch]``, of what follows; a time limit does not terminate."""
        return bootstrap(self.reward_scale * reward, transitions, value, self.gamma)

    def moves_policy(self, updates: int) -> bool:
        """Tell whether the last of so many updates trains the policy."""
        return updates % self.policy_delay == 0

    def after_update(self, updates: int) -> None:
        """Move the target critics a step of 1 - polyak towards the critics."""
        move(self.target_critic, self.critic, 1 - self.polyak)

    def begin(self, env_steps: int) -> None:
        """Let the weight of cloning fall."""
        share = max(1 - env_steps / self.cloning_steps, 0.0) if self.cloning_steps else 1.0
        self.cloning_now.fill_(self.cloning_weight * share)
        self.clones = self.cloning_weight * share > 0

    def cloning(self, transitions: TensorDictBase) -> Losses:
        """Return the actor's error on the batch's demonstrations, but for those known to have failed.

        The mean over their steps, times the weight of cloning. It reaches the actor alone.
        """
        if not self.clones:
            return Losses()
        with torch.no_grad():
            features = self.encoder(transitions[keys.OBSERVATION], augment=True)
        error = self.cloning_error(features, transitions[keys.ACTION])
        imitated = transitions[keys.DEMONSTRATION] & (transitions[keys.SUCCESS] != 0)
        mean = (error * imitated).sum() / imitated.sum().clamp(1)
        return Losses({"cloning": self.cloning_now * mean}, {"agent/cloning_weight": self.cloning_now.clone()})

    def cloning_error(self, features: Tensor, action: Tensor) -> Tensor:
        """Return the policy's error ``[batch]`` at actions to be imitated."""
        raise NotImplementedError
