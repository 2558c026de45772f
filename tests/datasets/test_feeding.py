"""Demonstrations on their way into the replay and into validation."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from tensordict import TensorDict

from rrd_lightning import Environment, ParameterError, keys
from rrd_lightning.callbacks import Collect
from rrd_lightning.datasets import Demonstrations
from rrd_lightning.datasets.feeding import fill, warn_of_constant_returns
from tests.datasets.libero_files import SPACES, write_file
from tests.datasets.offline import offline
from tests.runs import make_collect, make_data, make_module, make_trainer

h5py = pytest.importorskip("h5py")


def test_returns_that_hardly_vary_are_told_loudly() -> None:
    for returns in ([1.0] * 5, [0.0] * 3, [100.0, 100.5], [7.0]):
        values = np.array(returns)
        with pytest.warns(UserWarning, match=r"HARDLY VARY .*constant reward explains.*Add failed episodes"):
            warn_of_constant_returns(values.mean(), np.square(values).mean())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_constant_returns(0.5, 0.5)  # half successes, half failures
        warn_of_constant_returns(-100.0, 100.0**2 + 4)


def test_a_replay_of_successes_alone_is_told_loudly() -> None:
    write_file("a.hdf5", demos=5)  # every second one fails
    process: Any = SimpleNamespace(world_size=1, global_rank=0, is_global_zero=True, progress_bar_callback=None)
    replay = make_data().replay

    def as_it_is(episode: TensorDict) -> TensorDict:
        return episode

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fill(replay, Demonstrations("a.hdf5"), SPACES, process, as_it_is)
    assert replay.episodes["episode_return"].tolist() == [1, 0, 1, 0, 1]
    with h5py.File("a.hdf5", "r+") as file:
        for demo in file["data"].values():
            demo.attrs["success"] = True
    with pytest.warns(UserWarning, match="HARDLY VARY"):
        fill(make_data().replay, Demonstrations("a.hdf5"), SPACES, process, as_it_is)


def test_held_out_episodes_are_validated_on_and_not_trained_on(pendulum: str) -> None:
    class Count(Callback):
        lengths: ClassVar[list[int]] = []

        def on_validation_batch_end(self, trainer: Any, module: Any, predicted: Any, *args: Any) -> None:
            self.lengths.append(len(predicted))

    data = make_data(demonstrations=pendulum, held_out=0.25)
    module = make_module(Demonstrations(pendulum))
    count = Count()
    trainer = make_trainer(count, max_steps=12)
    trainer.fit(module, data)
    assert count.lengths == [30] * 3  # after the epoch of twelve updates
    trained = data.replay.storage[:][keys.OBSERVATION].view(9, 31, 3)
    for episode in data.val_dataloader():
        assert not any(torch.equal(episode[keys.OBSERVATION], other) for other in trained)
    trainer.validate(module, data, verbose=False)
    trainer.test(module, data, verbose=False)
    assert count.lengths == [30] * 6


def test_a_replay_too_small_and_a_split_that_leaves_nothing(pendulum: str) -> None:
    with pytest.raises(ParameterError, match=r"data.capacity=300: .*: 360 is enough"):
        offline(pendulum, "run", capacity=300, held_out=0.0)
    with pytest.raises(
        ParameterError,
        match=r"data.held_out=1.0: leaves 0 demonstrations to train on, must leave one for each process",
    ):
        offline(pendulum, "run", held_out=1.0)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_share_must_be_a_share(share: float) -> None:
    write_file("a.hdf5")
    with pytest.raises(ParameterError, match=f"data.held_out={share}"):
        make_data(demonstrations="a.hdf5", held_out=share)


def test_demonstrations_are_the_start_of_an_online_run(pendulum: str) -> None:
    env = Environment("Pendulum-v1", max_episode_steps=30)
    data = make_data(demonstrations=pendulum)
    collect = make_collect(env, warmup_steps=300, total_env_steps=400)
    trainer = make_trainer(collect)
    trainer.fit(make_module(env), data)
    assert isinstance(collect, Collect)
    # 360 transitions make a warm-up needless: 20 steps and 4 updates at a time from the first on.
    assert trainer.global_step == 4 * 400 // 20
    assert len(data.replay.episodes) == 12 + 400 // 30
    assert data.replay.episodes["length"].tolist() == [30] * 25
