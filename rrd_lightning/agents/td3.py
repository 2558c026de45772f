"""Twin delayed deep deterministic policy gradient.

Fujimoto et al., "Addressing Function Approximation Error in Actor-Critic Methods", 2018, arXiv 1802.09477.
"""

from __future__ import annotations

from collections.abc import Hashable
from copy import deepcopy
from typing import Any, ClassVar

import torch
from gymnasium import Space
from tensordict import TensorDictBase
from torch import Tensor

from rrd_lightning import keys
from rrd_lightning.agents.actions import count_continuous
from rrd_lightning.agents.actor_critic import ActorCritic, Combination, cloning_metrics
from rrd_lightning.agents.targets import move
from rrd_lightning.errors import require_not_negative
from rrd_lightning.losses import Losses
from rrd_lightning.networks import Observation, frozen


def critic_loss(value: Tensor, target: Tensor) -> Tensor:
    """Algorithm 1: the squared error of values ``[critics, batch]`` to their target, summed over critics."""
    return (value - target).square().mean(-1).sum()


def actor_loss(value: Tensor) -> Tensor:
    """Algorithm 1, the deterministic policy gradient: raise the value ``[batch]`` of the actor's actions."""
    return -value.mean()


class TD3(ActorCritic):
    """Twin delayed deep deterministic policy gradient for vectors and images, and actions in [-1, 1].

    A deterministic policy, whose actions are a tanh, and an ensemble of critics. Targets take the minimum of
    the critics at an action with some noise. The policy, and all target networks, move in every
    `policy_delay`-th update; the policy takes its step together with the critics, by their parameters of before
    the update. The encoder of images learns from the critics' loss alone, and has no target of its own.

    Args:
        observation_space: a vector, an image, a Discrete, or a Dict of these.
        action_space: a vector between -1 and 1.
        actor_value: how the actor's loss combines the critics: the ``"first"`` alone, their ``"min"``, or their
            ``"mean"``.
        policy_delay: updates of the critics for each of the policy and the target networks.
        target_noise: standard deviation of the noise on the target's actions.
        target_noise_clip: the largest such noise.
        exploration_noise: standard deviation of the noise on actions that explore.
        options: those of `ActorCritic`; the actor gives one number for each action, before tanh.

    Attributes:
        target_actor: the moving average of the actor.

    Raises:
        ParameterError: if it cannot serve a space, or an option is out of range.
    """

    metrics: ClassVar[dict[str, str]] = {
        "loss/critic": "mean squared error to the target r̂ + γ (1 − terminated) min Q'(s', π'(s') + clipped "
        "noise), summed over the critics",
        "loss/actor": "−mean Q(s, π(s)), Q the first critic, or what `actor_value` says; only of updates that "
        "train the policy, every `policy_delay`-th",
        "agent/value_mean": "mean Q(s, a) of the batch's transitions, over the critics",
        **cloning_metrics("mean squared error of π(s)"),
    }

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        actor_value: Combination = "first",
        policy_delay: int = 2,
        target_noise: float = 0.2,
        target_noise_clip: float = 0.5,
        exploration_noise: float = 0.1,
        **options: Any,
    ) -> None:
        require_not_negative(
            target_noise=target_noise,
            target_noise_clip=target_noise_clip,
            exploration_noise=exploration_noise,
        )
        actions = count_continuous(action_space, self)
        super().__init__(
            observation_space,
            action_space,
            policy_outputs=actions,
            action_inputs=actions,
            value_outputs=1,
            actor_value=actor_value,
            policy_delay=policy_delay,
            **options,
        )
        self.actions = actions
        self.target_actor = deepcopy(self.actor).requires_grad_(False)
        self.target_noise, self.target_noise_clip = target_noise, target_noise_clip
        self.exploration_noise = exploration_noise

    @torch.no_grad()
    def act(self, observation: Observation, *, explore: bool, env_steps: int = 0) -> Tensor:
        """Return the policy's actions ``[..., actions]``, with noise where exploring."""
        action: Tensor = self.actor(self.encoder(observation)).tanh()
        if not explore:
            return action
        return (action + self.exploration_noise * torch.randn_like(action)).clamp(-1, 1)

    def losses(self, transitions: TensorDictBase, reward: Tensor, updates: int = 0) -> Losses:
        """The loss of the critics, and that of the policy in every `policy_delay`-th update."""
        features = self.encoder(transitions[keys.OBSERVATION], augment=True)
        target = self.target(transitions, reward)
        value = self.values(self.critic, features, transitions[keys.ACTION])
        losses = {"critic": critic_loss(value, target)}
        if self.moves_policy(updates + 1):
            action = self.actor(features.detach()).tanh()
            with frozen(self.critic):
                judged = self.combine(self.values(self.critic, features.detach(), action))
            losses["actor"] = self.normalized(actor_loss(judged), judged)
        return Losses(losses, {"agent/value_mean": value.mean()})

    @torch.no_grad()
    def target(self, transitions: TensorDictBase, reward: Tensor) -> Tensor:
        """Algorithm 1: the value ``[batch]`` that the critics learn, of the reward and what follows."""
        features = self.encoder(transitions[keys.NEXT_OBSERVATION], augment=True)
        action = self.smoothed(self.target_actor(features).tanh())
        value = self.pessimistic(self.values(self.target_critic, features, action))
        return self.bootstrap(reward, transitions, value)

    def smoothed(self, action: Tensor) -> Tensor:
        """Add clipped noise to the target's actions ``[..., actions]`` (section 5.3)."""
        if not self.target_noise:
            return action
        noise = self.target_noise * torch.randn_like(action)
        return (action + noise.clamp(-self.target_noise_clip, self.target_noise_clip)).clamp(-1, 1)

    def cloning_error(self, features: Tensor, action: Tensor) -> Tensor:
        """The squared error ``[batch]`` of the policy's action, mean over its dimensions."""
        error: Tensor = self.actor(features).tanh() - action
        return error.square().mean(-1)

    def after_update(self, updates: int) -> None:
        """Move the target networks a step of 1 - polyak, in the updates that train the policy."""
        if self.moves_policy(updates):
            super().after_update(updates)
            move(self.target_actor, self.actor, 1 - self.polyak)

    def phase(self, updates: int) -> Hashable:
        """Tell the updates that train the policy from the others."""
        return self.moves_policy(updates + 1)
