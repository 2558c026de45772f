"""Bags of steps: the parts of an episode whose returns are given one by one."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor

from rrd_lightning import keys
from rrd_lightning.errors import ParameterError

ROUNDING = 1e-3


def bags(episode: TensorDictBase, feedback_every: int | None) -> dict[str, Tensor]:
    """Return the rows of an episode in the table: one, or one for every so many steps.

    Args:
        episode: as `EpisodeReplay.add_episode` takes it.
        feedback_every: steps of a bag; the last one of an episode may have fewer. None for the whole episode.

    Returns:
        The columns ``length``, ``episode_return``, ``terminated``, ``success``, ``offset`` and ``ends`` of the
        `EpisodeTable`, ``[bags]`` each.

    Raises:
        ParameterError: if the rewards do not tell the returns of the bags, since they do not add up to the
            episode's.
    """
    rewards, episode_return = episode.get(keys.REWARD), episode.get(keys.EPISODE_RETURN)
    steps = len(rewards)
    offset = torch.arange(0, steps, feedback_every or steps)
    length = torch.cat([offset[1:], torch.tensor([steps])]) - offset
    ends = offset == offset[-1]
    success = int(episode.get(keys.SUCCESS)) if keys.SUCCESS in episode else -1
    if len(length) > 1:
        parts = rewards.double().split(length.tolist())
        returns = torch.stack([part.sum() for part in parts]).float()
        slack = ROUNDING * max(1.0, float(rewards.abs().sum()))
        if abs(float(returns.sum() - episode_return)) > slack:
            raise ParameterError(
                "env.feedback_every",
                feedback_every,
                f"the rewards of an episode add up to {float(returns.sum()):.6g}, not to its return, "
                f"{float(episode_return):.6g}: the returns of its parts are not known",
            )
    else:
        returns = episode_return[None]
    return {
        "length": length,
        "episode_return": returns,
        "terminated": ends & episode.get(keys.TERMINATED),
        "success": torch.full_like(length, success),
        "offset": offset,
        "ends": ends,
    }
