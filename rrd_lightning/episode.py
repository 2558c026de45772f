"""Episodes as transitions."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import Space
from tensordict import TensorDict, TensorDictBase

from rrd_lightning import keys
from rrd_lightning.frames import observations


def episode_transitions(
    episode: TensorDictBase, observation_space: Space[Any] | None = None, steps: range | None = None
) -> TensorDict:
    """View an episode, as `EpisodeReplay.add_episode` takes it, as its T transitions.

    Args:
        episode: the episode.
        observation_space: of the transitions, for its stacks of frames; by default there are none.
        steps: successive steps to view; all by default.

    Returns:
        The keys of a paired batch's ``transitions``, with batch size ``[T]``, or as many as the steps.
    """
    observed, action = episode.get(keys.OBSERVATION), episode.get(keys.ACTION)
    length = len(action)
    now = range(length) if steps is None else steps
    later, count = range(now.start + 1, now.stop + 1), len(now)
    done = torch.arange(now.start, now.stop, device=action.device) == length - 1
    return TensorDict(
        {
            keys.OBSERVATION: observations(observed, now, observation_space),
            keys.NEXT_OBSERVATION: observations(observed, later, observation_space),
            keys.ACTION: action[now.start : now.stop],
            keys.REWARD: episode.get(keys.REWARD)[now.start : now.stop],
            keys.DONE: done,
            keys.TERMINATED: done & episode.get(keys.TERMINATED),
            keys.EPISODE_RETURN: episode.get(keys.EPISODE_RETURN).expand(count),
            keys.EPISODE_LENGTH: torch.full((count,), length, device=action.device),
        },
        [count],
    )
