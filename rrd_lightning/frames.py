"""Stacks of frames: the images of the last steps as one observation.

An episode holds each frame once. What a network observes of it is made from them: in collection, in batches,
and when an episode is judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from tensordict import TensorDict
from torch import Tensor

from rrd_lightning.errors import ParameterError, require_positive


class StackedFrames(spaces.Box):
    """The last images of an episode, oldest first; before its start the first one is repeated.

    These are the observations of Gymnasium's ``FrameStackObservation(env, count, padding_type="reset")``.

    Args:
        frame: a single image.
        count: how many.

    Attributes:
        frame: as given.
        count: as given.
    """

    def __init__(self, frame: spaces.Box, count: int) -> None:
        low, high = (np.repeat(bound[None], count, 0) for bound in (frame.low, frame.high))
        super().__init__(low, high, dtype=frame.dtype)
        self.frame = frame
        self.count = count


def stack_space(space: Space[Any], count: int) -> Space[Any]:
    """Return an observation space whose images are stacks of so many frames; all else stays as it is.

    Raises:
        ParameterError: if the number is not positive, or there is no image to stack.
    """
    require_positive(frame_stack=count)
    if count == 1:
        return space
    found = _stack_images(space, count)
    if found == space:
        raise ParameterError("frame_stack", count, f"is of images of uint8, of which there are none in {space}")
    return found


def _stack_images(space: Space[Any], count: int) -> Space[Any]:
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: _stack_images(part, count) for key, part in space.spaces.items()})
    return StackedFrames(space, count) if is_image(space) else space  # type: ignore[arg-type]


def is_image(space: Space[Any]) -> bool:
    """Tell whether a space is one of images: uint8, with height, width, and channels first, last or absent."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3)


def frame_space(space: Space[Any]) -> Space[Any]:
    """Return what an episode holds of observations of a space: single frames instead of stacks."""
    if isinstance(space, spaces.Dict):
        parts = {key: frame_space(part) for key, part in space.spaces.items()}
        unchanged = all(parts[key] is part for key, part in space.spaces.items())
        return space if unchanged else spaces.Dict(parts)
    return space.frame if isinstance(space, StackedFrames) else space


def stack_counts(space: Space[Any] | None) -> Any:
    """Return how many frames an observation has, by the keys of a Dict; 1 where nothing is stacked."""
    if isinstance(space, spaces.Dict):
        return {key: stack_counts(part) for key, part in space.spaces.items()}
    return space.count if isinstance(space, StackedFrames) else 1


def observations(episode: Any, steps: range, space: Space[Any] | None) -> Any:
    """Return the observations ``[len(steps), ...]`` at successive steps of an episode.

    Args:
        episode: what it holds, ``[T + 1, ...]``.
        steps: which, one after another.
        space: of the observations; None where nothing is stacked.
    """
    if isinstance(space, spaces.Dict):
        parts = {key: observations(episode[key], steps, part) for key, part in space.spaces.items()}
        return TensorDict(parts, [len(steps)])
    if isinstance(space, StackedFrames):
        window: Tensor = episode[_window(steps.start - space.count + 1, steps.stop)]
        return window.unfold(0, space.count, 1).movedim(-1, 1)
    return episode[steps.start : steps.stop]


def _window(start: int, stop: int) -> Tensor:
    return torch.arange(start, stop).clamp_min_(0)


def latest(frames: Sequence[Any], space: Space[Any]) -> Any:
    """Return the observation after the last of an unfinished episode's frames, as NumPy."""
    if isinstance(space, spaces.Dict):
        return {key: latest([each[key] for each in frames], part) for key, part in space.spaces.items()}
    if isinstance(space, StackedFrames):
        missing = space.count - len(frames)
        return np.stack([frames[0]] * missing + list(frames[-space.count :]))
    return frames[-1]
