"""Episodes with predicted rewards, and the figures of the prediction."""

from __future__ import annotations

import torch
from tensordict import TensorDict

from rrd_lightning import keys
from rrd_lightning.judging import judge


def make_judged(predicted: list[float], true: list[float], **more: float) -> dict[str, float]:
    length = len(true)
    episode = TensorDict(
        {
            keys.OBSERVATION: torch.zeros(length + 1, 1),
            keys.ACTION: torch.zeros(length, 1),
            keys.REWARD: torch.tensor(true),
            keys.EPISODE_RETURN: torch.tensor(float(sum(true))),
            keys.TERMINATED: torch.tensor(False),
            **{key: torch.tensor(value) for key, value in more.items()},
        },
        [],
    )
    return judge(episode, torch.tensor(predicted, dtype=torch.float32))
