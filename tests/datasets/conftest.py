"""Fixtures of data sets."""

from __future__ import annotations

import warnings
from pathlib import Path

import gymnasium
import pytest


@pytest.fixture
def pendulum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A local data set of twelve Pendulum episodes, by the name that `demonstrations` takes."""
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    env = gymnasium.make("Pendulum-v1", max_episode_steps=30)
    env.action_space.seed(0)
    buffers = []
    for index in range(12):
        observation, _ = env.reset(seed=index)
        episode = {"observations": [observation], "actions": [], "rewards": []}
        flags = {"terminations": [], "truncations": []}
        for _ in range(30):
            action = env.action_space.sample()
            observation, reward, *ended, _ = env.step(action)
            for key, value in zip(episode, (observation, action, reward), strict=True):
                episode[key].append(value)
            for key, value in zip(flags, ended, strict=True):
                flags[key].append(value)
        buffers.append(minari.data_collector.EpisodeBuffer(id=index, **episode, **flags))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the data set does not say of itself
        minari.create_dataset_from_buffers("test/pendulum-v0", buffer=buffers, env=env)
    return "minari:test/pendulum-v0"
