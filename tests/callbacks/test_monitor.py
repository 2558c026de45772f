"""Success and predicted rewards of what is collected, and the warning of exploitation."""

from __future__ import annotations

import warnings
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from rrd_lightning import ParameterError, keys
from rrd_lightning.agents import SAC
from rrd_lightning.callbacks import Monitor, Plots
from rrd_lightning.decomposition import Decomposition
from rrd_lightning.phases import Phase
from tests.demonstrations import ScriptedReader
from tests.episodes import make_episode
from tests.resuming import rows
from tests.runs import run


class Module:
    """Predicts for each step of an episode its number from 0, times a scale."""

    device = torch.device("cpu")
    env_steps, scale = 0, 1.0

    def __init__(self) -> None:
        self.logged: dict[str, float] = {}

    def episode_rewards(self, episode: TensorDictBase) -> Tensor:
        return self.scale * episode[keys.OBSERVATION][:-1, 1]

    def logs_now(self) -> bool:
        return True

    def clock(self) -> int:
        return self.env_steps

    def log_dict(self, metrics: dict[str, float]) -> None:
        self.logged = metrics


def episodes(*outcomes: bool, length: int = 20) -> list[TensorDict]:
    made = [make_episode(0, length) for _ in outcomes]
    for episode, outcome in zip(made, outcomes, strict=True):
        episode[keys.SUCCESS] = torch.tensor(outcome)
    return made


def after(monitor: Monitor, module: Module, made: list[TensorDict]) -> dict[str, float]:
    trainer = SimpleNamespace(global_step=1, world_size=1)
    if not module.env_steps:
        monitor.on_fit_start(trainer, module)
    module.env_steps += 100
    monitor.on_episodes(trainer, module, made)
    monitor.on_train_batch_end(trainer, module, None, None, 0)
    return module.logged


def test_figures_by_hand() -> None:
    """Σ r̂ of an episode of T steps is T (T − 1) / 2."""
    monitor, module = Monitor(episodes=3), Module()
    unknown = make_episode(0, 5)
    logged = after(monitor, module, [*episodes(True, length=5), unknown, *episodes(False, length=20)])
    assert logged == {
        "monitor/success": 0.5,
        "monitor/predicted_return": 100,
        "monitor/predicted_return_success": 10,
        "monitor/predicted_return_failure": 190,
        # Of steps 10 to 19.
        "monitor/failure_tail": 14.5,
        "step": 100,
    }
    # The first two are not among the last three any more; what has no new data keeps its value.
    logged = after(monitor, module, episodes(False, False, False, length=2))
    assert logged["monitor/success"] == 0
    assert logged["monitor/failure_tail"] == 0.5
    assert logged["monitor/predicted_return_success"] == 10
    assert monitor.curve == [[100, 0.5, 100], [200, 0, 1]]


def test_the_warning_comes_once_in_a_while() -> None:
    monitor, module = Monitor(episodes=4), Module()
    good, bad = (True, True, True, True), (False, False, False, True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        after(monitor, module, episodes(*bad))
        after(monitor, module, episodes(*good))
        # Less success and less predicted return; and no fall that counts.
        module.scale = 0.9
        after(monitor, module, episodes(*bad))
        module.scale = 2.0
        after(monitor, module, episodes(*good))
        module.scale = 2.5
        after(monitor, module, episodes(*good, False))
    module.scale = 3.0
    with pytest.warns(UserWarning, match=r"EXPLOITED: after 600 .* is 0.25, it was 1.00, .* from 380 to 570"):
        after(monitor, module, episodes(*bad))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            after(monitor, module, episodes(*bad))
    with pytest.warns(UserWarning, match="EXPLOITED: after 1100"):
        after(monitor, module, episodes(*bad))
    assert monitor.warned == [600, 1100]


def test_nothing_is_said_without_success() -> None:
    monitor, module = Monitor(), Module()
    assert after(monitor, module, [make_episode(0, 5)]) == {}
    with pytest.raises(ParameterError, match="episodes=0"):
        Monitor(0)


class Misled(Decomposition):
    """Rewards what leads away from the goal, and never learns better."""

    def reward(self, transitions: TensorDictBase) -> Tensor:
        return -transitions[keys.NEXT_OBSERVATION].sum(-1)


def test_a_policy_that_exploits_a_frozen_reward_is_noticed() -> None:
    """A clone that succeeds sometimes learns to stay away from the goal, once cloning weighs less."""
    agent = partial(
        SAC,
        hidden_sizes=(32, 32),
        gamma=0.95,
        initial_temperature=0.01,
        cloning_weight=30.0,
        cloning_steps=1000,
        normalize_value=True,
        actor_learning_rate=1e-3,
        critic_learning_rate=1e-3,
    )
    monitor, plots = Monitor(), Plots()
    with pytest.warns(UserWarning, match="THE REWARD MODEL IS BEING EXPLOITED"):
        run(
            "Reach-v0",
            module={"agent": agent, "decomposition": Misled, "phases": [Phase("clone", 300, ["cloning"])]},
            data={
                "demonstrations": ScriptedReader(5, 2),
                "demonstration_share": 0.5,
                "train_batches": 10,
                "updates_per_step": 10,
                "batch_size": 64,
            },
            collect={"total_env_steps": 2000},
            evaluate={"episodes": 2, "every_n_env_steps": 1000},
            callbacks=[monitor, plots],
            log_every_n_steps=10,
        )
    assert monitor.warned
    _, success, predicted = zip(*monitor.curve, strict=True)
    assert max(success) > 0.3
    assert success[-1] < 0.1
    assert predicted[-1] > predicted[0]
    assert plots._path is not None
    assert plots._path.exists()
    assert any("monitor/failure_tail" in row for row in rows("logs"))
