"""Videos of evaluation episodes, and plots of their predicted rewards."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image

from rrd_lightning.errors import require_positive
from rrd_lightning.pictures import JudgedEpisode, animate, draw_episodes, drawing
from rrd_lightning.private import write_summary
from rrd_lightning.run_folder import run_folder


class Videos(Callback):
    """Shows episodes of each validation, among them a success and a failure if there are both.

    ``videos/`` of the run contains an MP4 of each shown episode with images: the frames, next to the
    cumulative predicted reward. ``plots/`` contains one figure: predicted reward and its cumulative sum
    for each episode, with frames below the axis. Both are also logged to TensorBoard and Weights &
    Biases. Episodes of an environment without images and without known success are left to `Plots`.

    Args:
        episodes: number of episodes to show.
        frames_per_second: frame rate of the videos.

    Raises:
        ParameterError: if a number is not positive.
    """

    def __init__(self, episodes: int = 2, frames_per_second: int = 20) -> None:
        require_positive(episodes=episodes, frames_per_second=frames_per_second)
        self.episodes = episodes
        self.frames_per_second = frames_per_second
        self._shown: list[JudgedEpisode] = []
        self._folder = Path()

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Find the run's folder; a collective call, so every process makes it."""
        self._folder = run_folder(trainer)

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Discard the episodes of the previous validation."""
        self._shown = []

    def on_validation_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the episode if it is to be shown."""
        if not trainer.is_global_zero:
            return
        episode = JudgedEpisode.of(batch, outputs)
        if episode.frames is None and episode.success is None and pl_module.env_steps:
            return
        kinds = [shown.success for shown in self._shown]
        if len(kinds) < self.episodes:
            self._shown.append(episode)
        elif episode.frames is None and self._shown[-1].frames is not None:
            return  # only the first episodes are filmed: their videos are worth more than another outcome
        elif episode.success not in kinds and len(kinds) > 1:
            self._shown[-1] = episode

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Write figure and videos."""
        if trainer.sanity_checking or not self._shown:
            return
        clock = pl_module.progress
        self._shown.sort(key=lambda episode: not episode.success)
        figure = draw_episodes(self._shown)
        path = self._folder / "plots" / f"reward-{clock:09d}.png"
        with drawing(path):
            figure.savefig(path, dpi=100)
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_figure("reward", figure, clock, close=False)
                elif isinstance(logger, WandbLogger):
                    logger.log_image("reward", [str(path)])
        for number, episode in enumerate(self._shown):
            if episode.frames is not None:
                self._write_video(trainer, animate(episode), f"episode-{number}", clock)

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_end = on_validation_end

    def _write_video(self, trainer: Any, frames: np.ndarray[Any, Any], name: str, clock: int) -> None:
        if find_spec("imageio_ffmpeg") is None:
            rank_zero_warn("videos are skipped, since ffmpeg is missing: pip install 'rrd-lightning[video]'")
            return
        path = self._folder / "videos" / f"{name}-{clock:09d}.mp4"
        with drawing(path):
            imageio.imwrite(path, frames, fps=self.frames_per_second, codec="libx264", macro_block_size=2)
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    _add_animation(logger.experiment, name, frames, clock, self.frames_per_second)
                elif isinstance(logger, WandbLogger):
                    logger.log_video(name, [str(path)])


def _add_animation(writer: Any, name: str, frames: np.ndarray[Any, Any], clock: int, rate: int) -> None:
    """Log an animated GIF to TensorBoard; its `add_video` needs the package moviepy."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    images = [Image.fromarray(frame) for frame in frames]
    encoded = io.BytesIO()
    images[0].save(encoded, "gif", save_all=True, append_images=images[1:], duration=1000 // rate, loop=0)
    height, width = frames.shape[1:3]
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded.getvalue())
    write_summary(writer, Summary(value=[Summary.Value(tag=name, image=image)]), clock)
