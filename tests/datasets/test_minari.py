"""Minari's data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box

from rrd_lightning import Environment, ParameterError, keys
from rrd_lightning.datasets import Demonstrations, MinariReader
from tests.datasets.libero_files import write_file
from tests.runs import make_data

h5py = pytest.importorskip("h5py")


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


def stored() -> Path:
    (path,) = Path.cwd().rglob("main_data.hdf5")
    return path


@pytest.mark.parametrize(
    ("key", "rows", "message"),
    [
        ("observations", 30, "3/observations': has 30 rows, must have 31"),
        ("actions", 29, "3/actions': has 29 rows, must have 30"),
        ("rewards", 31, "3/rewards': has 31 rows, must have 30"),
    ],
)
def test_arrays_of_another_length_are_found_before_a_run(
    pendulum: str, key: str, rows: int, message: str
) -> None:
    with h5py.File(stored(), "a") as file:
        file[f"episode_3/{key}"].resize(rows, axis=0)
    demonstrations = Demonstrations(pendulum)
    with pytest.raises(ParameterError, match=message):
        demonstrations.check((demonstrations.observation_space, demonstrations.action_space), 1000)


def test_success_of_the_last_step_or_of_any(pendulum: str) -> None:
    with h5py.File(stored(), "a") as file:
        for episode, told in ((1, [0.0] * 30 + [1.0]), (2, [0.0] * 10 + [1.0] * 10 + [0.0] * 11)):
            file[f"episode_{episode}/infos/success"] = np.array(told)
        file["episode_3/infos/is_success/task"] = np.zeros(31, bool)
        file["episode_3/infos/other"] = np.zeros(31)

    def told(reader: Any) -> list[Any]:
        demonstrations = Demonstrations(reader)
        spaces = demonstrations.observation_space, demonstrations.action_space
        read = demonstrations.read(demonstrations.entries(spaces)[:4], spaces)
        return [bool(episode[keys.SUCCESS]) for _, episode in read]

    # The first says nothing, in a data set where others do.
    assert told(pendulum) == [False, True, False, False]
    assert told(MinariReader(pendulum)) == [False, True, False, False]
    assert told(MinariReader([pendulum], success_of="any")) == [False, True, True, False]
    with h5py.File(stored(), "a") as file:
        file["episode_0/infos/success"] = np.full(31, np.nan)
    with pytest.raises(
        ParameterError, match=r"0/infos/success': has the success .*nan.*, must be true or false"
    ):
        told(pendulum)
