"""The stream of paired batches, and what it says of memory."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from tensordict import TensorDict

from rrd_lightning import ParameterError, ReplayDataModule, RRDModule, keys
from rrd_lightning.decomposition import EpisodicReward
from rrd_lightning.memory import MemoryPlan, human, space_bytes
from tests.episodes import make_episode
from tests.runs import make_data, run

VECTOR, ACTION = Box(-1, 1, (2,)), Box(-1, 1, (1,))


class Whole(EpisodicReward):
    draws = "episodes"


def test_stream_is_sized_refilled_and_fresh() -> None:
    data = make_data(train_batches=4, iterations_per_epoch=3)
    added: list[int] = []

    def refill() -> None:
        data.replay.add_episode(make_episode(len(added), 5))
        added.append(len(added))

    data.refill = refill
    stream = data.train_dataloader()
    assert len(stream) == 12
    for index, batch in enumerate(stream):
        # Drawn after the iteration's refill, before the next one's.
        assert len(added) == index // 4 + 1
        assert data.batches_left == 3 - index % 4
        assert batch[keys.TRANSITIONS].batch_size == (32,)
        assert batch[keys.SUBSEQUENCES].batch_size == (4,)
        assert batch[keys.SUBSEQUENCES][keys.ACTION].shape == (4, 8, 1)
    assert index == 11


def test_a_step_of_several_updates() -> None:
    """Four batches by three are three and one; each iteration still begins with a refill."""
    data = make_data(train_batches=4, iterations_per_epoch=2, updates_per_step=3)
    data.replay.add_episode(make_episode(0, 5))
    refills: list[int] = []
    data.refill = lambda: refills.append(0)
    stream = data.train_dataloader()
    assert len(stream) == 4
    assert [(len(batches), len(refills)) for batches in stream] == [(3, 1), (1, 1), (3, 2), (1, 2)]


def test_an_epoch_that_is_cut_short_goes_on_with_its_iteration() -> None:
    data = make_data(train_batches=4, iterations_per_epoch=3)
    refills: list[int] = []
    data.replay.add_episode(make_episode(0, 5))
    data.refill = lambda: refills.append(0)
    for index, _ in enumerate(data.train_dataloader()):
        if index == 5:
            break
    assert len(refills) == 2
    later = make_data(train_batches=4)
    later.load_state_dict(data.state_dict())
    assert later.batches_left == 2
    for index, _ in enumerate(data.train_dataloader()):
        assert len(refills) == 2 + (index + 2) // 4


def test_the_seeds_example() -> None:
    """LIBERO's sizes in ../seed: 256 x 256 x 3 frames, 32 / 32 / 32, 64 batches per iteration."""
    plan = MemoryPlan(
        observation_space=Box(0, 255, (3, 256, 256), "uint8"),
        action_space=Box(-1, 1, (7,), "float32"),
        train_batches=64,
        batch_size=32,
        num_subsequences=32 // 32,
        rrd_sample_size=32,
        capacity=10_000,
    )
    frames = 32 * 256 * 256 * 3
    assert frames / 1e6 == pytest.approx(6.3, abs=0.01)  # the seed's ~6 MB
    # The seed counts observations once; a batch holds the next observations as well.
    assert plan.transitions == 2 * frames + 32 * (7 * 4 + 20)
    assert plan.subsequences == 2 * frames + 32 * 7 * 4 + 14
    assert 64 * (plan.transitions + plan.subsequences) / 2e6 == pytest.approx(805, abs=1)
    assert "Observations alone, each counted once: 12.6 MB a batch, 805 MB an iteration" in str(plan)
    assert plan.replay == 10_500 * (256 * 256 * 3 + 7 * 4 + 4)
    assert "Full replay of 10,000 transitions: 2.06 GB" in str(plan)


def test_plan_is_what_a_batch_takes() -> None:
    data = make_data()
    data.replay.add_episode(make_episode(0, 30))
    batch = data.replay.sample()
    plan = MemoryPlan(Box(-1, 1, (2,)), Box(-1, 1, (1,)), 4, 32, 4, 8, 2000)
    for part, expected in (
        (batch[keys.TRANSITIONS], plan.transitions),
        (batch[keys.SUBSEQUENCES], plan.subsequences),
    ):
        assert sum(leaf.nbytes for leaf in part.values()) == expected
    assert sum(leaf.nbytes for leaf in data.replay.storage[:].values()) == plan.record * 31


def test_plan_of_whole_episodes_is_what_a_batch_takes() -> None:
    """Four episodes of 1000 steps, in 125 rows of 8 steps each."""
    data = make_data()
    data.check(RRDModule(VECTOR, ACTION, decomposition=Whole))
    data.replay.add_episode(make_episode(0, 1000))
    part = data.replay.sample()[keys.SUBSEQUENCES]
    plan = MemoryPlan(VECTOR, ACTION, 4, 32, 4, 8, 2000, processes=2, draws="episodes")
    assert plan.rows == len(part) == 4 * 125
    assert sum(leaf.nbytes for leaf in part.values()) == plan.subsequences
    assert "\n  4 whole episodes in rows of 8 steps: 94.5 kB, assuming 1,000 steps per episode\n" in str(plan)
    assert "updates from 64 transitions and 8 whole episodes" in str(plan)


def test_plan_without_subsequences() -> None:
    plan = MemoryPlan(VECTOR, ACTION, 4, 32, 4, 8, 2000, processes=2, draws="nothing")
    assert plan.subsequences == 0
    assert "subsequences" not in str(plan)
    assert str(plan).startswith("Paired batch: 1.28 kB\n  32 transitions: 1.28 kB\nIteration")


@pytest.mark.parametrize("draws", ["steps", "episodes", "nothing"])
def test_batches_have_what_the_decomposition_draws(draws: str, caplog: pytest.LogCaptureFixture) -> None:
    class Drawing(EpisodicReward):
        pass

    Drawing.draws = draws
    with caplog.at_level("INFO"):
        _, _, data = run(collect={"total_env_steps": 120}, module={"decomposition": Drawing})
    batch = data.replay.sample()
    assert (keys.SUBSEQUENCES in batch) == (draws != "nothing")
    assert (keys.MASK in batch.get(keys.SUBSEQUENCES, {})) == (draws == "episodes")
    assert ("4 whole episodes in rows of 8 steps" in caplog.text) == (draws == "episodes")


def test_a_decomposition_that_draws_something_unknown() -> None:
    class Drawing(EpisodicReward):
        draws = "half"

    with pytest.raises(ParameterError, match=r"decomposition.draws='half': must be one of \('steps', "):
        run(module={"decomposition": Drawing})


def test_bytes_of_spaces_and_units() -> None:
    assert space_bytes(Box(-1, 1, (3, 2))) == 24
    assert space_bytes(Discrete(7)) == 8
    assert space_bytes(Dict({"image": Box(0, 255, (4,), "uint8"), "x": Box(-1, 1, (2,))})) == 12
    assert [human(count) for count in (0, 999, 12_345, 1.5e6, 2e9, 3e12)] == [
        "0 B",
        "999 B",
        "12.3 kB",
        "1.5 MB",
        "2 GB",
        "3 TB",
    ]


def test_plan_is_printed_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        run(collect={"total_env_steps": 120})
    assert "Paired batch: 1.46 kB" in caplog.text
    assert "Iteration of 4 batches: 5.86 kB" in caplog.text
    assert "Full replay of 2,000 transitions: 25.2 kB" in caplog.text


def test_a_replay_that_cannot_fit_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"data.capacity=10{13}: .*a capacity of \d+ fits") as error:
        run(data={"capacity": 10**13, "storage": "memory"})
    fitting = int(str(error.value).split("a capacity of ")[1].split()[0])
    # 12 bytes a record; memory in use moves a little between the two looks at it.
    assert fitting * 12 * 1.05 == pytest.approx(psutil.virtual_memory().available, rel=0.1)
    with pytest.raises(ParameterError, match="free disk space"):
        run(data={"capacity": 10**13, "storage": "memmap"})


def test_a_replay_that_memory_would_not_hold_is_kept_on_disk(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=25_199))
    with caplog.at_level("INFO"):
        _, _, data = run(collect={"total_env_steps": 120})  # of 25,200 bytes
    assert "The full replay does not fit in the free memory: it is kept on disk" in caplog.text
    assert data.replay.storage[:].is_memmap()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=25_200))
    _, _, data = run(collect={"total_env_steps": 120})
    assert not data.replay.storage[:].is_memmap()


def test_unused_steps_are_told() -> None:
    with pytest.warns(UserWarning, match="rrd_sample_size=30: 10 of its steps are unused"):
        data = make_data(rrd_batch_size=100, rrd_sample_size=30)
    data.replay.add_episode(make_episode(0, 50))
    assert data.replay.sample()[keys.SUBSEQUENCES].batch_size == (3,)


@pytest.mark.parametrize(
    "name",
    [
        "capacity",
        "train_batches",
        "batch_size",
        "rrd_batch_size",
        "rrd_sample_size",
        "iterations_per_epoch",
        "updates_per_step",
    ],
)
def test_sizes_must_be_positive(name: str) -> None:
    for value in (0, -3):
        with pytest.raises(ParameterError, match=f"^{name}={value}: must be greater than zero"):
            make_data(**{name: value})


def test_subsequence_larger_than_the_batch_of_them() -> None:
    with pytest.raises(ParameterError, match="rrd_sample_size=64: must be at most rrd_batch_size=32"):
        ReplayDataModule(rrd_batch_size=32, rrd_sample_size=64)


def test_defaults_are_the_seeds_for_mujoco() -> None:
    data = ReplayDataModule()
    data.replay.add_episode(make_episode(0, 500))
    batch = data.replay.sample()
    assert data.train_batches == 25
    assert batch[keys.TRANSITIONS].batch_size == (256,)
    assert batch[keys.SUBSEQUENCES][keys.ACTION].shape == (4, 64, 1)
    assert isinstance(batch, TensorDict)
    assert batch[keys.SUBSEQUENCES][keys.WITH_REPLACEMENT].dtype == torch.bool
