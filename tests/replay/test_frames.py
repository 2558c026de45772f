"""Stacks of frames: stored once, put together where they are looked at, and never across an episode's start."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

from rrd_lightning import ParameterError, keys
from rrd_lightning.episode import episode_transitions
from rrd_lightning.frames import StackedFrames, frame_space, latest, stack_space
from rrd_lightning.memory import MemoryPlan
from rrd_lightning.replay import EpisodeReplay, PairedSampler
from rrd_lightning.spaces import space_from_dict, space_to_dict
from tests.episodes import make_episode

FRAME = spaces.Box(0, 255, (2, 3), np.uint8)
NUMBERS = spaces.Box(-np.inf, np.inf, (2,), np.float32)


def frame(identity: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """A picture that tells its episode and step, ``[..., 2, 3]``."""
    numbers = [identity, step, identity + step, identity, step, 7 * step]
    return torch.stack(numbers, -1).remainder(256).to(torch.uint8).unflatten(-1, (2, 3))


def filmed(identity: int, length: int) -> TensorDict:
    episode = make_episode(identity, length)
    numbers = episode[keys.OBSERVATION]
    parts = {"image": frame(*numbers.unbind(-1)), "numbers": numbers}
    episode[keys.OBSERVATION] = TensorDict(parts, [length + 1])
    episode[keys.EPISODE_RETURN] = episode[keys.REWARD].sum()
    return episode


def expected(numbers: torch.Tensor, count: int) -> torch.Tensor:
    """The stack of frames at a step, by hand: those before the first step are the first."""
    identity, step = numbers.unbind(-1)
    back = [(step - age).clamp(min=0) for age in reversed(range(count))]
    return torch.stack([frame(identity, each) for each in back], -3)


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=40),
    frames=st.integers(2, 5),
    every=st.sampled_from([None, 1, 4]),
    draws=st.sampled_from(["steps", "episodes", "nothing"]),
    together=st.booleans(),
    compiled=st.booleans(),
)
def test_batches_have_the_frames_of_their_own_episode(
    lengths: list[int], frames: int, every: int | None, draws: str, together: bool, compiled: bool
) -> None:
    """Round the ring's end, and across the bags of an episode."""
    space = stack_space(spaces.Dict({"image": FRAME, "numbers": NUMBERS}), frames)
    sampler = PairedSampler(16, 12, 4, True)
    sampler.draws = draws
    replay = EpisodeReplay(60, sampler, observation_space=space, feedback_every=every)
    for identity, length in enumerate(lengths):
        replay.add_episode(filmed(identity, length))
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr("rrd_lightning.replay.gather.library_here", lambda: None)
        if together:
            patch.setattr("rrd_lightning.replay.buffer.GATHERED_TOGETHER", 0)
        batches = [replay.sample(), *replay.sample_several(2)]
    for batch in batches:
        for part in [batch[keys.TRANSITIONS], *([batch[keys.SUBSEQUENCES]] if draws != "nothing" else [])]:
            for key in (keys.OBSERVATION, keys.NEXT_OBSERVATION):
                observed = part[key]
                assert torch.equal(observed["image"], expected(observed["numbers"], frames))
            assert torch.equal(
                part[keys.NEXT_OBSERVATION, "numbers"] - part[keys.OBSERVATION, "numbers"],
                torch.tensor([0.0, 1.0]).expand_as(part[keys.OBSERVATION, "numbers"]),
            )


def test_an_episode_is_viewed_with_the_same_stacks() -> None:
    space = stack_space(spaces.Dict({"image": FRAME, "numbers": NUMBERS}), 3)
    episode = filmed(5, 7)
    whole = episode_transitions(episode, space)
    for key in (keys.OBSERVATION, keys.NEXT_OBSERVATION):
        assert torch.equal(whole[key, "image"], expected(whole[key, "numbers"], 3))
    parts = [episode_transitions(episode, space, range(*ends)) for ends in ((0, 1), (1, 5), (5, 7))]
    assert (torch.cat(parts) == whole).all()
    frames = [
        {"image": picture.numpy(), "numbers": numbers.numpy()}
        for picture, numbers in zip(*episode[keys.OBSERVATION].values(), strict=True)
    ]
    for step in range(7):
        seen = latest(frames[max(step - 2, 0) : step + 1], space)
        assert (seen["image"] == whole[keys.OBSERVATION, "image"][step].numpy()).all()
        assert (seen["numbers"] == frames[step]["numbers"]).all()


def test_spaces_of_stacks_survive_a_checkpoint() -> None:
    space = stack_space(spaces.Dict({"image": FRAME, "numbers": NUMBERS}), 4)
    assert space["image"].shape == (4, 2, 3)
    assert space["image"].contains(np.zeros((4, 2, 3), np.uint8))
    again = space_from_dict(space_to_dict(space))
    assert again == space
    assert isinstance(again["image"], StackedFrames)
    assert frame_space(again) == spaces.Dict({"image": FRAME, "numbers": NUMBERS})
    assert stack_space(NUMBERS, 1) is NUMBERS
    with pytest.raises(ParameterError, match="frame_stack=4: is of images of uint8, of which there are none"):
        stack_space(NUMBERS, 4)
    with pytest.raises(ParameterError, match="frame_stack=0"):
        stack_space(FRAME, 0)


def test_a_million_frames_of_atari_take_seven_gigabytes() -> None:
    space = stack_space(spaces.Box(0, 255, (84, 84), np.uint8), 4)
    plan = MemoryPlan(space, spaces.Discrete(6), 25, 32, 1, 32, 1_000_000)
    # A frame, the number of an action, and the true reward; a twentieth more for the last observations.
    assert plan.record == 84 * 84 + 8 + 4
    assert plan.replay == 1_050_000 * 7068
    # Four frames and the next one, in a batch.
    assert plan.step == 5 * 84 * 84 + 8
