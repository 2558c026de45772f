"""Observations normalised by what was collected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict

from rrd_lightning import Environment, ParameterError, RRDModule, keys
from rrd_lightning.networks import Normalization, ObservationNormalizer
from tests.resuming import assert_same, fit
from tests.runs import make_module, run

VECTOR = Box(-np.inf, np.inf, (2,), np.float32)


def add(normalizer: ObservationNormalizer, *batches: list[Any]) -> None:
    for batch in batches:
        normalizer.add(normalizer.sums(batch))


@given(lengths=st.lists(st.lists(st.integers(1, 9), max_size=3), max_size=4), seed=st.integers(0, 100))
def test_moments_are_those_of_everything(lengths: list[list[int]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    batches = [[5 + 3 * torch.randn(n, 2, generator=generator) for n in batch] for batch in lengths]
    normalizer = ObservationNormalizer(VECTOR)
    add(normalizer, *batches)
    everything = torch.cat([torch.zeros(0, 2), *(each for batch in batches for each in batch)])
    moments = normalizer.moments["observation"]
    assert moments.count == len(everything)
    if len(everything):
        torch.testing.assert_close(moments.mean, everything.mean(0))
        torch.testing.assert_close(moments.variance, everything.var(0, correction=0), rtol=1e-4, atol=1e-4)


def test_by_hand() -> None:
    """Of 0 and 4 the mean is 2, and the standard deviation 2; the other number never varies."""
    normalizer = ObservationNormalizer(VECTOR)
    observation = torch.tensor([[3.0, 7.0]])
    assert torch.equal(normalizer(observation), torch.tensor([[3.0, 5.0]]))  # nothing seen yet: clipped alone
    add(normalizer, [torch.tensor([[0.0, 1.0], [4.0, 1.0]])])
    # Less than a standard deviation of 0.01 counts as that.
    assert normalizer(torch.tensor([[3.0, 1.001]]))[0].tolist() == pytest.approx([0.5, 0.1], abs=1e-3)
    torch.testing.assert_close(normalizer(torch.tensor([[-100.0, 1.0]])), torch.tensor([[-5.0, 0.0]]))


def test_the_smallest_deviation_and_the_clip_may_be_chosen() -> None:
    normalizer = ObservationNormalizer(VECTOR, Normalization(smallest_std=2.0, clip=3.0))
    add(normalizer, [torch.tensor([[0.0, 0.0], [2.0, 8.0]])])  # means 1 and 4, deviations 1 and 4
    assert normalizer(torch.tensor([5.0, 6.0])).tolist() == [2.0, 0.5]
    assert normalizer(torch.tensor([9.0, -99.0])).tolist() == [3.0, -3.0]
    with pytest.raises(ParameterError, match=r"normalize_observations\.clip=0: must be greater than zero"):
        Normalization(clip=0)
    with pytest.raises(
        ParameterError, match=r"normalize_observations=\{'clip': 8\}: must be true, false, or a"
    ):
        make_module(Environment("Follow-v0"), normalize_observations={"clip": 8})


def test_images_and_numbers_of_a_choice_stay_as_they_are() -> None:
    image = Box(0, 255, (3, 36, 36), np.uint8)
    normalizer = ObservationNormalizer(Dict({"image": image, "state": VECTOR, "choice": Discrete(3)}))
    assert list(normalizer.moments) == ["state"]
    observation = TensorDict(
        {
            "image": torch.randint(256, (4, 3, 36, 36), dtype=torch.uint8),
            "state": torch.full((4, 2), 9.0),
            "choice": torch.tensor([0, 1, 2, 0]),
        },
        [4],
    )
    add(normalizer, [observation])
    normalized = normalizer(observation)
    assert torch.equal(normalized["image"], observation["image"])
    assert torch.equal(normalized["choice"], observation["choice"])
    assert (normalized["state"] == 0).all()
    assert (observation["state"] == 9).all()
    with pytest.raises(ParameterError, match=r"normalize_observations=True: must be false: .* no vector"):
        ObservationNormalizer(image)


def test_what_was_collected_is_what_counts_and_all_that_look_see_the_same() -> None:
    trainer, module, data = run(
        "Counter-v0", module={"normalize_observations": True, "engine": "eager"}, evaluate={"episodes": 3}
    )
    replay = data.replay
    assert replay.episodes.appended == len(replay.episodes)  # nothing has left
    stored = replay.records(replay.episodes["start"], replay.episodes["length"])[keys.OBSERVATION]
    moments = module.normalizer.moments["observation"]
    # Every observation of the finished episodes, and none of the evaluation's.
    assert moments.count == len(stored)
    torch.testing.assert_close(moments.mean, stored.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moments.variance, stored.var(0, correction=0), rtol=1e-4, atol=1e-4)
    batch = replay.sample()
    prepared = module.prepare(batch)
    for part in (keys.TRANSITIONS, keys.SUBSEQUENCES):
        for key in (keys.OBSERVATION, keys.NEXT_OBSERVATION):
            torch.testing.assert_close(prepared[part, key], module.normalizer(batch[part, key]))
        assert torch.equal(prepared[part, keys.ACTION], batch[part, keys.ACTION])
    observation = batch[keys.TRANSITIONS, keys.OBSERVATION]
    seen = module.normalizer(observation)
    assert torch.equal(module.act(observation), module.agent.act(seen, explore=False))
    transitions = batch[keys.TRANSITIONS]
    torch.testing.assert_close(
        module.rewards(transitions), module.decomposition.reward(prepared[keys.TRANSITIONS])
    )
    trainer.save_checkpoint("normalized.ckpt")
    loaded = RRDModule.load_from_checkpoint("normalized.ckpt")
    assert torch.equal(loaded.act(observation), module.act(observation))


def test_a_resumed_run_is_the_same_to_the_last_bit() -> None:
    options: Any = {"normalize_observations": True}
    whole = fit("Follow-v0", "whole", **options)
    assert fit("Follow-v0", "first", stop_at=9, **options) == {}
    path = Path("first/version_0/checkpoints/last.ckpt")
    assert_same(whole, fit("Follow-v0", "second", ckpt_path=path, **options))
    assert whole["weights"]["normalizer.moments.observation.count"] > 100


def test_without_it_batches_are_what_the_replay_gives() -> None:
    module = make_module(Environment("Follow-v0"))
    batch = TensorDict({}, [])
    assert module.prepare(batch) is batch
    module.observe([])
