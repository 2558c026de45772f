"""Deep deterministic policy gradient.

Lillicrap et al., "Continuous Control with Deep Reinforcement Learning", 2016, arXiv 1509.02971.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from gymnasium import Space

from rrd_lightning.agents.actor_critic import cloning_metrics
from rrd_lightning.agents.td3 import TD3
from rrd_lightning.errors import require_not_negative


class DDPG(TD3):
    """Deep deterministic policy gradient for vectors and images, and actions in [-1, 1].

    TD3 without its three additions: one critic (equations 4 and 5), no noise on the target's actions, and a
    policy (equation 6) and target networks that move in every update. Other than in the paper, actions that
    explore have independent normal noise, which Fujimoto et al. found to be as good as an Ornstein-Uhlenbeck
    process, and the critic sees the action in its first layer. The paper's batch normalisation of observations
    is `normalize_observations` of the module.

    Args:
        observation_space: a vector, an image, a Discrete, or a Dict of these.
        action_space: a vector between -1 and 1.
        hidden_sizes: widths of the hidden layers of actor and critic.
        polyak: share of the target networks that stays at each update.
        exploration_noise: standard deviation of the noise on actions that explore.
        actor_learning_rate: Adam's, for the policy.
        critic_learning_rate: Adam's, for the critic and the encoder.
        critic_weight_decay: Adam's, for the critic and the encoder: so many times the parameters are added to
            their gradient.
        options: others of `ActorCritic`; the actor gives one number for each action, before tanh.

    Raises:
        ParameterError: if it cannot serve a space, or an option is out of range.
    """

    metrics: ClassVar[dict[str, str]] = {
        "loss/critic": "mean squared error to the target r̂ + γ (1 − terminated) Q'(s', π'(s')), without the "
        "weight decay",
        "loss/actor": "−mean Q(s, π(s))",
        "agent/value_mean": "mean Q(s, a) of the batch's transitions",
        **cloning_metrics("mean squared error of π(s)"),
    }

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        hidden_sizes: Sequence[int] = (400, 300),
        polyak: float = 0.999,
        exploration_noise: float = 0.1,
        actor_learning_rate: float = 1e-4,
        critic_learning_rate: float = 1e-3,
        critic_weight_decay: float = 1e-2,
        **options: Any,
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            hidden_sizes=hidden_sizes,
            num_critics=1,
            critics_in_target=None,
            actor_value="first",
            polyak=polyak,
            policy_delay=1,
            target_noise=0.0,
            target_noise_clip=0.0,
            exploration_noise=exploration_noise,
            actor_learning_rate=actor_learning_rate,
            critic_learning_rate=critic_learning_rate,
            **options,
        )
        require_not_negative(critic_weight_decay=critic_weight_decay)
        self.critic_weight_decay = critic_weight_decay

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Two groups: ``actor``, and ``critic`` with the encoder, whose weights decay."""
        actor, critic = super().parameter_groups()
        return [actor, {**critic, "weight_decay": self.critic_weight_decay}]
