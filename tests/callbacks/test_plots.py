"""Plots of evaluations."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from rrd_lightning.callbacks import Plots, Videos
from rrd_lightning.pictures import drawing
from tests.runs import run


def test_pictures_are_drawn_and_sent_to_tensorboard() -> None:
    tensorboard = TensorBoardLogger(".", "board", version=0)
    run(
        evaluate={"episodes": 2, "every_n_env_steps": 100},
        callbacks=[Plots()],
        logger=[CSVLogger(".", name="logs"), tensorboard],
    )
    pictures = sorted(Path("logs/version_0/plots").glob("*.png"))
    assert [path.name for path in pictures] == [f"evaluation-{step:09d}.png" for step in (120, 200, 300)]
    for path in pictures:
        pixels = matplotlib.image.imread(path)
        assert pixels.shape == (400, 1100, 4)
        # Both halves show something but white.
        assert (pixels[:, :550, :3].min(), pixels[:, 550:, :3].min()) < (0.5, 0.5)
    event_file = next(Path("board/version_0").glob("events*"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(event_file), size_guidance={"images": 0})
    events.Reload()
    assert [image.step for image in events.Images("evaluation")] == [120, 200, 300]
    assert "evaluate/return_mean" in events.Tags()["scalars"]


def test_a_full_disk_costs_a_picture_and_not_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.warns(UserWarning, match=r"(evaluation|reward)-000000120.png is not drawn: .*No space left"):
        _, module, _ = run(
            "Pixels-v0",
            collect={"total_env_steps": 120},
            evaluate={"episodes": 1, "every_n_env_steps": 100},
            callbacks=[Plots(), Videos()],
        )
    assert module.env_steps == 120


def test_a_picture_that_cannot_be_finished_is_removed() -> None:
    def draw_half(path: Path) -> None:
        with drawing(path):
            path.write_text("half of it")
            raise OSError("full")

    with pytest.warns(UserWarning, match=r"plots/one.png is not drawn: full"):
        draw_half(Path("plots/one.png"))
    assert not list(Path("plots").iterdir())
    Path("file").touch()
    with pytest.warns(UserWarning, match=r"file/two.png is not drawn"):
        draw_half(Path("file/two.png"))
