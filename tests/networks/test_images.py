"""Images from the environment through the replay into the networks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

from rrd_lightning import Environment, ParameterError, RRDModule, keys
from rrd_lightning.agents import SAC
from rrd_lightning.decomposition import RRD
from rrd_lightning.memory import MemoryPlan
from rrd_lightning.networks import Convolutions, ObservationParts, random_shift
from tests.resuming import StopAt, assert_same, fit
from tests.runs import SMALL, run

IMAGE = Box(0, 255, (3, 36, 40), np.uint8)
VECTOR = Box(-1, 1, (5,), np.float32)
ACTION = Box(-1, 1, (2,), np.float32)
BOTH = Dict({"image": IMAGE, "vector": VECTOR})


def random_observation(*shape: int) -> TensorDict:
    image = torch.randint(0, 256, (*shape, 3, 36, 40), dtype=torch.uint8)
    return TensorDict({"image": image, "vector": torch.randn(*shape, 5)}, shape)


def test_an_observation_is_taken_apart() -> None:
    parts = ObservationParts(Dict({"a": IMAGE, "b": VECTOR, "c": IMAGE, "d": VECTOR}), None)
    assert (parts.channels, parts.image_size, parts.vector_size) == (6, (36, 40), 10)
    first, second = random_observation(2, 4), random_observation(2, 4)
    observation = TensorDict(
        {"a": first["image"], "b": first["vector"], "c": second["image"], "d": second["vector"]}, [2, 4]
    )
    images = parts.images(observation)
    assert images.shape == (2, 4, 6, 36, 40)
    torch.testing.assert_close(images[..., 3:, :, :] * 255, second["image"].float())
    assert torch.equal(parts.vector(observation), torch.cat([first["vector"], second["vector"]], -1))
    # A lone vector is passed on as it is; a lone image has no numbers.
    vector = torch.randn(3, 5)
    assert ObservationParts(VECTOR, None).vector(vector) is vector
    assert ObservationParts(IMAGE, None).vector(first["image"]).shape == (2, 4, 0)


@pytest.mark.parametrize(
    "space",
    [
        Box(0, 1, (3, 36, 40), np.float32),
        Dict({"a": IMAGE, "b": Box(0, 255, (3, 64, 64), np.uint8)}),
        Dict({}),
    ],
)
def test_other_observations_are_refused(space: Any) -> None:
    with pytest.raises(ParameterError, match=r"observation_space=.*: RRD serves vectors"):
        RRD(space, ACTION)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_may_be_last(channels: int) -> None:
    """Of the same image, the same features."""
    torch.manual_seed(0)
    first = SAC(Box(0, 255, (channels, 36, 40), np.uint8), ACTION, **SMALL)
    torch.manual_seed(0)
    last = SAC(Box(0, 255, (36, 40, channels), np.uint8), ACTION, **SMALL)
    image = torch.randint(0, 256, (5, channels, 36, 40), dtype=torch.uint8)
    torch.testing.assert_close(first.act(image, explore=False), last.act(image.movedim(1, -1), explore=False))


def test_small_images_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"image_size=\(32, 40\): must be at least 36"):
        SAC(Box(0, 255, (3, 32, 40), np.uint8), ACTION)


def test_convolutions_have_the_sizes_of_dqn() -> None:
    """84 x 84 x 4 gives 64 maps of 7 x 7, and 512 features: 1,684,128 numbers in Mnih et al."""
    network = Convolutions(4, (84, 84), 512)
    assert network.linear.in_features == 64 * 7 * 7
    assert sum(parameter.numel() for parameter in network.parameters()) == 8224 + 32832 + 36928 + 1606144
    assert network(torch.zeros(2, 5, 4, 84, 84)).shape == (2, 5, 512)


@settings(deadline=None, max_examples=30)
@given(pixels=st.integers(0, 5), seed=st.integers(0, 1000))
def test_a_shift_moves_each_image_as_a_whole(pixels: int, seed: int) -> None:
    torch.manual_seed(seed)
    # The value of a pixel tells its row and column.
    rows, columns = torch.arange(9.0)[:, None], torch.arange(11.0)
    images = torch.stack([rows.expand(9, 11), columns.expand(9, 11)]).expand(16, 2, 9, 11)
    shifted = random_shift(images, pixels)
    row_of, column_of = shifted.unbind(1)
    for moved, original, axis in ((row_of, rows, 8), (column_of, columns, 10)):
        difference = moved - original
        inside = (moved > 0) & (moved < axis)
        for image, inner in zip(difference, inside, strict=True):
            moves = image[inner].unique()
            assert len(moves) <= 1
            assert moves.abs().le(pixels).all()
    if pixels:
        assert len((column_of[:, 4, 5] - 5).unique()) > 1


def test_reward_sees_images_and_numbers_and_how_they_change() -> None:
    model = RRD(BOTH, ACTION, **SMALL)
    step = {
        keys.OBSERVATION: random_observation(4, 6),
        keys.NEXT_OBSERVATION: random_observation(4, 6),
        keys.ACTION: torch.rand(4, 6, 2),
    }
    reward = model.reward(TensorDict(step, [4]))
    assert reward.shape == (4, 6)
    assert model.model.convolutions.filters[0].in_channels == 6
    for key in (keys.OBSERVATION, keys.NEXT_OBSERVATION):
        for part in ("image", "vector"):
            other = step[key].clone()
            other[part] = random_observation(4, 6)[part]
            assert not torch.equal(model.reward(TensorDict({**step, key: other}, [4])), reward)


def test_an_image_run_learns_from_bytes_and_is_used_without_its_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer, module, data = run(
        "Pixels-v0",
        module={"agent": partial(SAC, **SMALL, random_shift=2)},
        data={"capacity": 200},
        collect={"total_env_steps": 160},
        evaluate={"episodes": 1},
    )
    stored = data.replay.storage[:]["observation"]
    assert stored["front"].dtype == torch.uint8
    batch = data.replay.sample()
    assert batch[keys.SUBSEQUENCES][keys.NEXT_OBSERVATION]["side"].shape == (4, 8, 3, 36, 36)
    assert batch[keys.SUBSEQUENCES][keys.NEXT_OBSERVATION]["side"].dtype == torch.uint8
    assert trainer.global_step == 12
    trainer.save_checkpoint("pixels.ckpt")
    monkeypatch.setattr("gymnasium.make", None)
    loaded = RRDModule.load_from_checkpoint(Path("pixels.ckpt"))
    front = batch[keys.TRANSITIONS][keys.OBSERVATION]
    # Up to rounding: outside `fit` nothing is compiled.
    torch.testing.assert_close(loaded.agent.act(front, explore=False), module.agent.act(front, explore=False))


def test_a_stored_step_takes_little_more_than_its_observation() -> None:
    env = Environment("Pixels-v0")
    plan = MemoryPlan(env.observation_space, env.action_space, 1, 32, 1, 32, capacity=100_000)
    assert plan.replay / 100_000 <= 1.05 * (2 * 3 * 36 * 36 + 4 + 4 + 4)


def test_an_image_run_resumes_to_the_last_bit() -> None:
    options: dict[str, Any] = {"total": 160, "agent": partial(SAC, **SMALL, random_shift=2)}
    whole = fit("Pixels-v0", "whole", **options)
    assert fit("Pixels-v0", "first", stop_at=StopAt(5), **options) == {}
    resumed = fit("Pixels-v0", "second", ckpt_path=Path("first/version_0/checkpoints/last.ckpt"), **options)
    assert_same(whole, resumed)
