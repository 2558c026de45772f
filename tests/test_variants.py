"""Other networks, the package's and a user's: each trains, resumes to the last bit, and loads anywhere."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import Space
from torch import Tensor, nn

from rrd_lightning import RRDModule
from rrd_lightning.agents import SAC, TD3
from rrd_lightning.cli import main
from rrd_lightning.decomposition import RRD
from rrd_lightning.losses import Losses
from tests.resuming import StopAt, assert_same, fit
from tests.runs import SMALL


class Critic(nn.Module):
    """A user's: one hidden layer, with an argument of its own."""

    def __init__(self, inputs: int, outputs: int, width: int = 16) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, width)
        self.value = nn.Linear(width, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.value(torch.tanh(self.hidden(inputs)))


class Squares(nn.Module):
    """A user's encoder of observations: the numbers and their squares."""

    def __init__(self, observation_space: Space[Any]) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(observation_space.shape))

    def forward(self, observation: Tensor) -> Tensor:
        scaled = self.scale * observation
        return torch.cat([scaled, scaled.square()], -1)


class Bounded(RRD):
    """A user's reward model: never more than one."""

    def __init__(
        self, observation_space: Space[Any], action_space: Space[Any], *, most: float, **options: Any
    ) -> None:
        super().__init__(observation_space, action_space, **options)
        self.most = most

    def reward(self, transitions: Any) -> Tensor:
        return self.most * super().reward(transitions).tanh()


class Cautious(SAC):
    """A user's agent: one method."""

    def losses(self, transitions: Any, reward: Tensor, updates: int = 0) -> Losses:
        return super().losses(transitions, reward - 0.1, updates)


HERE = __name__
VARIANTS: dict[str, dict[str, Any]] = {
    "layer norm": {"agent": partial(SAC, **SMALL, layer_norm=True)},
    "dropout": {"agent": partial(SAC, **SMALL, layer_norm=True, dropout=0.1)},
    "two of five critics": {
        "agent": partial(SAC, **SMALL, num_critics=5, critics_in_target=2, actor_value="mean")
    },
    "critic": {
        "agent": partial(SAC, **SMALL, critic={"class_path": f"{HERE}.Critic", "init_args": {"width": 8}})
    },
    "actor": {"agent": partial(SAC, **SMALL, actor=f"{HERE}.Critic")},
    "encoder": {
        "agent": partial(SAC, **SMALL, encoder=Squares),
        "decomposition": partial(RRD, encoder=Squares),
    },
    "TD3 of a user's networks": {
        "agent": partial(TD3, num_critics=3, critics_in_target=2, actor=Critic, critic=Critic, encoder=Squares)
    },
    "agent": {"agent": partial(Cautious, **SMALL)},
    "reward network": {"decomposition": partial(RRD, network=Critic)},
    "reward model": {"decomposition": partial(Bounded, most=1.5, **SMALL)},
    "normalised": {"normalize_observations": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_trains_resumes_to_the_last_bit_and_loads_without_an_environment(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"total": 200, **VARIANTS[variant]}
    whole = fit("Pendulum-v1", "whole", **options)
    assert whole["updates"] == 16
    assert fit("Pendulum-v1", "first", stop_at=StopAt(9), **options) == {}
    last = Path("first/version_0/checkpoints/last.ckpt")
    assert_same(whole, fit("Pendulum-v1", "second", ckpt_path=last, **options))
    monkeypatch.setattr("gymnasium.make", None)
    loaded = RRDModule.load_from_checkpoint("second/version_0/checkpoints/last.ckpt")
    assert_same(loaded.state_dict(), whole["weights"])
    assert -2 <= loaded.predict(np.zeros(3)) <= 2
    assert loaded.reward(np.zeros(3), np.zeros(1), np.ones(3)).shape == ()


def test_a_user_s_critic_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_critics.py").write_text(
        "from torch import nn\n\n\n"
        "class MyCritic(nn.Sequential):\n"
        "    def __init__(self, inputs, outputs, width=12):\n"
        "        super().__init__(nn.Linear(inputs, width), nn.ELU(), nn.Linear(width, outputs))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    main(["fit", "--config", "debug", "--model.agent", "SAC", "--model.agent.critic", "my_critics.MyCritic"])
    path = "runs/Pendulum-v1/version_0/checkpoints/last.ckpt"
    module = RRDModule.load_from_checkpoint(path)
    assert module.agent.critic.members[1][0].out_features == 12
    assert module.agent.configuration()["init_args"]["critic"] == "my_critics.MyCritic"
    main(["test", "--ckpt_path", path])
