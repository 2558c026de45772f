"""Demonstrations as if each action had been held for several steps."""

from __future__ import annotations

import torch
from tensordict import TensorDict

from rrd_lightning import keys


def repeat_actions(episode: TensorDict, repeat: int) -> TensorDict:
    """Join every `repeat` steps of an episode into one, the last of them perhaps of fewer.

    Its action is the mean of theirs, its reward their sum; the observations in between are left out. Return,
    termination and success stay.

    Args:
        episode: of T steps, as `EpisodeReplay.add_episode` takes it, with continuous actions.
        repeat: steps to join.

    Returns:
        An episode of ⌈T / repeat⌉ steps; the same one if `repeat` is 1.
    """
    if repeat == 1:
        return episode
    action, reward = episode[keys.ACTION], episode[keys.REWARD]
    length = len(action)
    kept = torch.tensor([*range(0, length, repeat), length])
    joined = episode.copy()
    joined[keys.OBSERVATION] = episode[keys.OBSERVATION][kept]
    joined[keys.ACTION] = torch.stack([part.mean(0) for part in action.split(repeat)])
    joined[keys.REWARD] = torch.stack([part.sum() for part in reward.split(repeat)])
    return joined
