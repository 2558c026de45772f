"""Episodes as transitions."""

from __future__ import annotations

import torch
from tensordict import TensorDict, TensorDictBase

from rrd_lightning import keys


def episode_transitions(episode: TensorDictBase) -> TensorDict:
    """View an episode, as `EpisodeReplay.add_episode` takes it, as its T transitions.

    Returns:
        The keys of a paired batch's ``transitions``, with batch size ``[T]``.
    """
    observation, action = episode.get(keys.OBSERVATION), episode.get(keys.ACTION)
    length = len(action)
    done = torch.arange(length, device=action.device) == length - 1
    return TensorDict(
        {
            keys.OBSERVATION: observation[:-1],
            keys.NEXT_OBSERVATION: observation[1:],
            keys.ACTION: action,
            keys.REWARD: episode.get(keys.REWARD),
            keys.DONE: done,
            keys.TERMINATED: done & episode.get(keys.TERMINATED),
            keys.EPISODE_RETURN: episode.get(keys.EPISODE_RETURN).expand(length),
            keys.EPISODE_LENGTH: torch.full((length,), length, device=action.device),
        },
        [length],
    )
