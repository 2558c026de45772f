"""Videos and pictures of evaluation episodes, looked at as files."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from imageio_ffmpeg import count_frames_and_secs
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensordict import TensorDict

from rrd_lightning.callbacks import Videos
from rrd_lightning.pictures import JudgedEpisode, animate, draw_episodes, frames_of
from tests.runs import run


def make_judged(success: bool | None, steps: int = 10, size: int = 64) -> JudgedEpisode:
    frames = np.zeros((steps + 1, size, size, 3), np.uint8)
    for step, frame in enumerate(frames):
        frame[:, :, 0] = 10 * step
    return JudgedEpisode(np.full(steps, 0.1, np.float32), float(bool(success)), success, frames)


def test_frames_are_the_first_image_with_its_channels_last() -> None:
    image = torch.randint(0, 256, (5, 3, 40, 36), dtype=torch.uint8)
    frames = frames_of(TensorDict({"vector": torch.zeros(5, 2), "image": image}, [5]))
    assert frames.shape == (5, 40, 36, 3)
    assert frames[2, 7, 8].tolist() == image[2, :, 7, 8].tolist()
    gray = frames_of(image[:, :1])
    assert gray[2, 7, 8].tolist() == [image[2, 0, 7, 8]] * 3
    assert frames_of(torch.zeros(5, 3)) is None


def test_a_curve_runs_beside_the_frames() -> None:
    video = animate(make_judged(True))
    assert video.shape[:2] == (11, 256)
    assert video.shape[2] % 2 == 0
    # The frame, enlarged, at the left; more and more of the orange curve at the right.
    assert (video[3, :, :256] == [30, 0, 0]).all()
    orange = (np.abs(video[:, :, 256:].astype(int) - [255, 127, 14]).sum(-1) < 60).sum((1, 2))
    assert (np.diff(orange) > 0).all()


def test_successes_and_failures_stand_side_by_side(tmp_path: Path) -> None:
    figure = draw_episodes([make_judged(True), make_judged(False, steps=20)])
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:2] == ["success: return 1, predicted 1", "failure: return 0, predicted 2"]
    assert len(figure.axes) == 6


def test_a_run_with_images_leaves_videos_and_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = TensorBoardLogger(".", name="logs")
    options = {"evaluate": {"episodes": 3, "every_n_env_steps": 1000}, "logger": logger}
    run("Pixels-v0", collect={"total_env_steps": 140}, callbacks=[Videos(episodes=2)], **options)
    folder = Path("logs/version_0")
    videos = sorted(folder.glob("videos/*.mp4"))
    assert [path.name for path in videos] == ["episode-0-000000140.mp4", "episode-1-000000140.mp4"]
    assert [count_frames_and_secs(video)[0] for video in videos] == [11, 11]
    assert imageio.imread(folder / "plots/reward-000000140.png").shape[2] == 4
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    assert {"episode-0", "episode-1", "reward"} <= set(events.Tags()["images"])
    assert events.Images("episode-0")[0].encoded_image_string.startswith(b"GIF")
    monkeypatch.setattr("rrd_lightning.callbacks.videos.find_spec", lambda name: None)
    with pytest.warns(
        UserWarning, match=r"videos are skipped, since ffmpeg is missing: pip install 'rrd-lightning\[video\]'"
    ):
        run("Pixels-v0", collect={"total_env_steps": 140}, callbacks=[Videos()], **options)
