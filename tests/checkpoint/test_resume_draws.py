"""Runs whose decomposition draws whole episodes, or nothing, resume to the last bit, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium import Space
from tensordict import TensorDictBase
from torch import Tensor, nn

from rrd_lightning import keys
from rrd_lightning.decomposition import Decomposition
from rrd_lightning.losses import Losses
from tests.resuming import assert_same, fit, rows


class LinearReturn(Decomposition):
    """Rewards linear in the observation, whose sum over an episode is to be its return."""

    draws = "episodes"

    def __init__(self, observation_space: Space[Any], action_space: Space[Any]) -> None:
        super().__init__(observation_space, action_space)
        self.linear = nn.Linear(observation_space.shape[0], 1)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"name": "reward", "params": list(self.parameters()), "lr": 1e-3}]

    def reward(self, transitions: TensorDictBase) -> Tensor:
        return self.linear(transitions[keys.OBSERVATION]).squeeze(-1)

    def losses(self, batch: TensorDictBase) -> Losses:
        subsequences = batch[keys.SUBSEQUENCES]
        of_row = (self.reward(subsequences) * subsequences[keys.MASK]).sum(-1)
        episode = subsequences[keys.EPISODE]
        first = torch.cat([episode.new_ones(1), episode.diff()]).bool()
        target = subsequences[keys.EPISODE_RETURN][first]
        predicted = torch.zeros_like(target).index_add(0, episode, of_row)
        return Losses({"reward": (predicted - target).square().mean()})


class ReturnEverywhere(Decomposition):
    """Each step gets its episode's return per step."""

    draws = "nothing"

    def reward(self, transitions: TensorDictBase) -> Tensor:
        return transitions[keys.EPISODE_RETURN] / transitions[keys.EPISODE_LENGTH]


@pytest.mark.parametrize("updates_per_step", [1, 3])
@pytest.mark.parametrize("decomposition", [LinearReturn, ReturnEverywhere])
def test_stopped_and_resumed(decomposition: type[Decomposition], updates_per_step: int) -> None:
    options: dict[str, Any] = {"decomposition": decomposition, "data": {"updates_per_step": updates_per_step}}
    whole = fit("Follow-v0", "whole", **options)
    assert fit("Follow-v0", "first", stop_at=15, **options) == {}
    resumed = fit("Follow-v0", "second", ckpt_path=Path("first/version_0/checkpoints/last.ckpt"), **options)
    assert_same(whole, resumed)
    later = rows("second")
    assert later == rows("whole")[-len(later) :]
    assert len(later) > 1
