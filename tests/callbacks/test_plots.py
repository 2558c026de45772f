"""Plots of evaluations."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from rrd_lightning.callbacks import Plots
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
