"""Figures and video frames of the predicted rewards of episodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tensordict import TensorDictBase
from torch import Tensor

from rrd_lightning import keys
from rrd_lightning.judging import is_dense

FRAMES_BELOW = 8
VIDEO_HEIGHT = 256


@dataclass(frozen=True)
class JudgedEpisode:
    """A finished episode with the reward model's predictions.

    Args:
        predicted: ``[T]``, the predicted rewards.
        episode_return: R.
        success: whether the task succeeded, if known.
        frames: ``[T + 1, height, width, 3]``, uint8, if there are images.
        true: ``[T]``, the true rewards, if they are dense.
    """

    predicted: np.ndarray[Any, Any]
    episode_return: float
    success: bool | None
    frames: np.ndarray[Any, Any] | None
    true: np.ndarray[Any, Any] | None = None

    @classmethod
    def of(cls, episode: TensorDictBase, predicted: Tensor) -> JudgedEpisode:
        """Extract from an episode and its predicted rewards ``[T]`` what figures need."""
        success = bool(episode.get(keys.SUCCESS)) if keys.SUCCESS in episode else None
        film = episode.get(keys.FILM) if keys.FILM in episode else None
        frames = frames_of(episode.get(keys.OBSERVATION) if film is None else film)
        true = episode.get(keys.REWARD).cpu()
        return cls(
            predicted.float().cpu().numpy(),
            float(episode.get(keys.EPISODE_RETURN)),
            success,
            frames,
            true.numpy() if is_dense(true) else None,
        )

    @property
    def title(self) -> str:
        """The outcome, the return, and the predicted return."""
        kind = {None: "episode", True: "success", False: "failure"}[self.success]
        return f"{kind}: return {self.episode_return:.3g}, predicted {self.predicted.sum():.3g}"


@contextmanager
def drawing(path: Path) -> Iterator[None]:
    """Write a picture or a video: where that is not possible, on a full disk for example, only warn."""
    try:
        with suppress(OSError):  # which the writing finds out as well
            path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        rank_zero_warn(f"{path} is not drawn: {error}")
        with suppress(OSError):
            path.unlink(missing_ok=True)


def frames_of(observation: Tensor | TensorDictBase) -> np.ndarray[Any, Any] | None:
    """Return the first image of observations ``[T + 1, ...]`` as ``[T + 1, height, width, 3]``, or None."""
    parts = [observation] if isinstance(observation, Tensor) else list(observation.values(True, True))
    images = [part for part in parts if part.dtype == torch.uint8 and part.dim() in (3, 4)]
    if not images:
        return None
    image = images[0] if images[0].dim() == 4 else images[0].unsqueeze(1)
    if image.shape[1] > min(image.shape[1:]):
        image = image.movedim(-1, 1)  # the channels, the few, were last
    image = image[:, :3] if image.shape[1] >= 3 else image[:, :1].expand(-1, 3, -1, -1)
    frames: np.ndarray[Any, Any] = image.movedim(1, -1).cpu().numpy()
    return frames


def draw_episodes(episodes: list[JudgedEpisode]) -> Figure:
    """Plot the predicted reward and its cumulative sum for each episode, with frames below."""
    rows = [3, 3, 1.2] if any(episode.frames is not None for episode in episodes) else [3, 3]
    figure = Figure(figsize=(6 * len(episodes), sum(rows)), layout="constrained")
    axes = figure.subplots(len(rows), len(episodes), squeeze=False, height_ratios=rows, sharey="row")
    for column, episode in enumerate(episodes):
        reward, total, *strip = axes[:, column]
        steps = np.arange(len(episode.predicted))
        if episode.true is not None:
            reward.plot(steps, episode.true, color="0.6", linewidth=1, label="true (never seen in training)")
            total.plot(steps, episode.true.cumsum(), color="0.6", label="true")
        reward.plot(steps, episode.predicted, color="C1", linewidth=1, label="predicted")
        reward.legend(frameon=False)
        reward.set(title=episode.title, ylabel="reward per step")
        total.plot(steps, episode.predicted.cumsum(), color="C1", label="predicted")
        total.axhline(episode.episode_return, color="0.6", linewidth=1, label="return")
        total.set(xlabel="step of the episode", ylabel="cumulative")
        total.legend(frameon=False)
        for axis in (reward, total):
            axis.margins(x=0)
        for axis in strip:
            axis.axis("off")
            if episode.frames is not None:
                chosen = np.linspace(0, len(episode.frames) - 1, FRAMES_BELOW).round().astype(int)
                axis.imshow(np.concatenate(list(episode.frames[chosen]), axis=1), aspect="auto")
    return figure


def animate(episode: JudgedEpisode) -> np.ndarray[Any, Any]:
    """Show the cumulative predicted reward next to the frames of an episode, step by step.

    Returns:
        ``[T + 1, 256, width, 3]``, uint8; the width is even, as video codecs require.
    """
    if episode.frames is None:
        raise ValueError("the episode has no images")
    total = np.concatenate([[0.0], episode.predicted.cumsum()])
    figure = Figure(figsize=(3.6, 2.56), dpi=100, layout="constrained")
    axis = figure.subplots()
    (line,) = axis.plot(np.arange(len(total)), total, color="C1")
    axis.margins(x=0)
    axis.set_title(episode.title, fontsize=8)
    axis.set_xlabel("step of the episode", fontsize=8)
    axis.set_ylabel("cumulative predicted reward", fontsize=8)
    axis.tick_params(labelsize=7)
    # Drawn once with the curve and once without; each frame combines the two at its step.
    full = _rendered(figure)
    line.set_visible(False)
    empty = _rendered(figure)
    reached = axis.transData.transform(np.stack([np.arange(len(total)), total], -1))[:, 0].round().astype(int)
    columns = np.arange(full.shape[1])
    curves = np.where(columns[:, None] <= reached[:, None, None, None], full, empty)
    return np.concatenate([_enlarged(episode.frames), curves], axis=2)


def _rendered(figure: Figure) -> np.ndarray[Any, Any]:
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def _enlarged(frames: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Enlarge frames to the height of the curve by repeating pixels."""
    _, height, width, _ = frames.shape
    rows = np.arange(VIDEO_HEIGHT) * height // VIDEO_HEIGHT
    columns = np.arange(2 * (VIDEO_HEIGHT * width // height // 2)) * height // VIDEO_HEIGHT
    enlarged: np.ndarray[Any, Any] = frames[:, rows][:, :, np.minimum(columns, width - 1)]
    return enlarged
