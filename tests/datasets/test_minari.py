"""Minari's data sets."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.spaces import Box

from rrd_lightning import Environment, ParameterError, keys
from rrd_lightning.datasets import Demonstrations
from tests.datasets.libero_files import write_file
from tests.runs import make_data


def test_minari_episodes(pendulum: str) -> None:
    import minari

    demonstrations = Demonstrations(pendulum)
    env = Environment("Pendulum-v1")
    spaces = env.observation_space, env.action_space
    assert (demonstrations.observation_space, demonstrations.action_space) == spaces
    entries = demonstrations.entries(spaces)
    assert [entry.facts.length for entry in entries] == [30] * 12
    (name, episode), *_ = demonstrations.read(entries, spaces)
    assert name == f"{pendulum}/0"
    stored = minari.load_dataset("test/pendulum-v0")[0]
    assert np.array_equal(episode[keys.OBSERVATION], stored.observations)
    assert episode[keys.ACTION].abs().max() <= 1
    assert np.allclose(episode[keys.ACTION] * 2, stored.actions)  # Pendulum's bounds are -2 and 2
    assert float(episode[keys.EPISODE_RETURN]) == pytest.approx(stored.rewards.sum())
    assert not episode[keys.TERMINATED]
    make_data().replay.add_episode(episode)
    with pytest.raises(ParameterError, match="pendulum-v0/0/observation': has the space"):
        demonstrations.entries((Box(-1, 1, (4,)), spaces[1]))


def test_minari_that_is_not_here(pendulum: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParameterError, match=r"minari:no/such-v0.*minari download no/such-v0"):
        _ = Demonstrations("minari:no/such-v0").observation_space
    for module, place in (("minari", pendulum), ("h5py", str(write_file("a.hdf5")))):
        monkeypatch.setitem(__import__("sys").modules, module, None)
        with pytest.raises(ParameterError, match=rf"needs {module}: pip install .*\[demonstrations\]"):
            _ = Demonstrations(place).observation_space
