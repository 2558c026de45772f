"""A classifier that tells the steps of successful episodes from those of failed ones."""

from __future__ import annotations

from typing import Any, ClassVar

from gymnasium import Space
from lightning.pytorch.utilities import rank_zero_warn
from tensordict import TensorDictBase
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from rrd_lightning import keys
from rrd_lightning.decomposition.learned import LearnedReward
from rrd_lightning.errors import ParameterError
from rrd_lightning.losses import Losses

CLIP = 5.0  # log-odds: a probability of 0.993


def discriminator_loss(log_odds: Tensor, success: Tensor) -> Tensor:
    r"""Binary cross-entropy in which successes and failures weigh the same.

    With :math:`D = \sigma(\text{log-odds})` at a step, and expectations over the steps of each kind,

    .. math:: L = -\tfrac{1}{2} E_{success}[\log D] - \tfrac{1}{2} E_{failure}[\log(1 - D)],

    whose minimum is the logarithm of how many times likelier a step is in a success than in a failure,
    whatever the share of successes.

    Args:
        log_odds: ``[N, K]``.
        success: of the episodes, ``[N]``: 1, 0, or -1 where it is not known, which does not count.

    Returns:
        The scalar loss; 0, whose gradient is 0, where there is no success or no failure.
    """
    target = (success == 1).to(log_odds.dtype)
    of_episode = binary_cross_entropy_with_logits(
        log_odds, target[:, None].expand_as(log_odds), reduction="none"
    ).mean(-1)
    succeeded, failed = success == 1, success == 0
    both = succeeded.any() & failed.any()
    return both * (_mean_of(of_episode, succeeded) + _mean_of(of_episode, failed)) / 2


def _mean_of(values: Tensor, chosen: Tensor) -> Tensor:
    return (values * chosen).sum() / chosen.sum().clamp_min(1)


class SuccessDiscriminator(LearnedReward):
    """The log-odds that a step is of a successful episode rather than of a failed one, as its reward.

    The classifier has the reward model's network and learns by `discriminator_loss` from the subsequences of
    episodes whose success is known; it never sees a return. Its log-odds, log D − log(1 − D), are the reward of
    adversarial inverse reinforcement learning (Fu et al., 2018, arXiv 1710.11248), here of successes against
    failures instead of a demonstrator against the agent.

    A batch with one kind alone has no gradient. Where successes or failures are rare, more subsequences of
    fewer steps help: a larger `rrd_batch_size`, a smaller `rrd_sample_size`.

    Args:
        observation_space: a vector, an image, a Discrete, or a Dict of these.
        action_space: a vector, or a Discrete.
        options: of the reward model, as `LearnedReward` has them.

    Raises:
        ParameterError: if it cannot serve a space, or an option is out of range; when it is to learn, if no
            stored episode says whether it succeeded.
    """

    metrics: ClassVar[dict[str, str]] = {
        "loss/reward": "binary cross-entropy of the steps of successes and failures, which weigh the same; "
        "log 2 = 0.69 for a classifier that cannot tell them apart, and 0 for a batch with one kind alone",
        "reward/both_kinds": "1 if the batch has both successes and failures, so that there is something to "
        "learn, else 0",
        "reward/success_mean": "mean log-odds of the steps of the batch's successes; 0 if it has none",
        "reward/failure_mean": "mean log-odds of the steps of the batch's failures; 0 if it has none",
    }

    def __init__(self, observation_space: Space[Any], action_space: Space[Any], **options: Any) -> None:
        super().__init__(observation_space, action_space, **options)
        self._has_looked = False

    def check(self, num_subsequences: int, rrd_sample_size: int) -> None:
        """Make sure that a batch has room for a success and a failure."""
        if num_subsequences < 2:
            raise ParameterError(
                "data.rrd_sample_size",
                rrd_sample_size,
                "must be at most half of data.rrd_batch_size: a batch is to have a success and a failure",
            )

    def reward(self, transitions: TensorDictBase) -> Tensor:
        """Return the log-odds of each step, between -5 and 5, for any batch shape."""
        return super().reward(transitions).clamp(-CLIP, CLIP)

    def losses(self, batch: TensorDictBase) -> Losses:
        """`discriminator_loss` of the batch's subsequences."""
        if not self._has_looked:
            self._has_looked = True
            _look(batch[keys.STATISTICS])
        subsequences = batch[keys.SUBSEQUENCES]
        success = subsequences[keys.SUCCESS]
        log_odds = self.model(subsequences)
        seen, succeeded, failed = log_odds.detach().mean(-1), success == 1, success == 0
        metrics = {
            "reward/both_kinds": (succeeded.any() & failed.any()).to(seen.dtype),
            "reward/success_mean": _mean_of(seen, succeeded),
            "reward/failure_mean": _mean_of(seen, failed),
        }
        return Losses({"reward": discriminator_loss(log_odds, success)}, metrics)


def _look(statistics: TensorDictBase) -> None:
    """Say what the replay lacks at the first update. A GPU would have to wait for the answer at each."""
    total, successes, failures = (
        int(statistics[key]) for key in (keys.NUM_EPISODES, keys.NUM_SUCCESSES, keys.NUM_FAILURES)
    )
    if not successes and not failures:
        raise ParameterError(
            "model.decomposition",
            "SuccessDiscriminator",
            f"none of the {total} stored episodes says whether it succeeded: the last info of an episode must "
            "have success or is_success",
        )
    if not successes or not failures:
        rank_zero_warn(
            f"SuccessDiscriminator: of the {total} stored episodes {successes} succeeded and {failures} "
            "failed. It learns once there are both; reward/both_kinds tells when"
        )
