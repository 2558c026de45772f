"""Videos and pictures of evaluation episodes, looked at as files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import gymnasium
import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from imageio_ffmpeg import count_frames_and_secs
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensordict import TensorDict

from rrd_lightning import Environment, ParameterError, keys
from rrd_lightning.callbacks import Evaluate, Videos
from rrd_lightning.pictures import JudgedEpisode, animate, draw_episodes, frames_of
from tests.environments import Follow
from tests.runs import make_data, make_module, make_trainer, run


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


class Drawn(Follow):
    """Draws its step as a shade of red."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode

    def render(self) -> Any:
        assert self.render_mode == "rgb_array"
        picture = np.zeros((520, 300, 3), np.uint8)
        picture[..., 0] = 20 * self._time
        return picture


gymnasium.register("Drawn-v0", Drawn)


def test_the_first_episodes_are_filmed_by_the_environments_own_renderer() -> None:
    evaluate = Evaluate(Environment("Drawn-v0"), episodes=3, filmed_episodes=2)
    module, seen = make_module(evaluate.env), []

    class Look(Callback):
        def on_test_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
            seen.append(batch)

    trainer = make_trainer(evaluate, Look(), Videos(), logger=CSVLogger(".", name="logs"))
    (figures,) = trainer.test(module, make_data(), verbose=False)
    films = [batch.get(keys.FILM, None) for batch in seen]
    assert [None if film is None else tuple(film.shape) for film in films] == [(11, 260, 150, 3)] * 2 + [None]
    # What each of the ten actions led to, the last one too, which ends the episode.
    assert films[1][:, 0, 0, 0].tolist() == [20 * step for step in range(11)]
    videos = sorted(Path("logs/version_0").glob("videos/*.mp4"))
    assert [count_frames_and_secs(video)[0] for video in videos] == [11, 11]
    plain = make_trainer(Evaluate(evaluate.env, episodes=3), logger=False)
    assert plain.test(module, make_data(), verbose=False) == [figures]


def test_an_episode_that_was_not_filmed_takes_no_place_of_one_that_was(monkeypatch: pytest.MonkeyPatch) -> None:
    videos, failure = Videos(), make_judged(False)
    judged = [make_judged(True), make_judged(True), replace(failure, frames=None), failure]
    monkeypatch.setattr(JudgedEpisode, "of", lambda *_: judged[len(seen)])
    seen: list[list[bool | None]] = []
    for _ in judged:
        videos.on_validation_batch_end(SimpleNamespace(is_global_zero=True), None, None, None, 0)
        seen.append([episode.success for episode in videos._shown])
    assert seen == [[True], [True, True], [True, True], [True, False]]


def test_an_environment_without_a_renderer_is_refused_before_any_episode() -> None:
    env = Environment("Follow-v0")
    trainer = make_trainer(Evaluate(env, filmed_episodes=1), logger=False)
    message = r"evaluate.filmed_episodes=1: Follow-v0 cannot be filmed, must be 0: .*render_mode"
    with pytest.raises(ParameterError, match=message):
        trainer.test(make_module(env), make_data(), verbose=False)
