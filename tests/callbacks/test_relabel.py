"""Demonstrations relabelled by a reward model: what the table holds, and how it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rrd_lightning import RRDModule
from rrd_lightning.cli import main
from rrd_lightning.datasets import Demonstrations
from rrd_lightning.episode import episode_transitions
from tests.datasets.libero_files import write_file

parquet = pytest.importorskip("pyarrow.parquet")

CHECKPOINT = "runs/demonstrations/version_0/checkpoints/last.ckpt"
TINY = [
    *["--data.capacity=100", "--data.train_batches=1", "--data.iterations_per_epoch=2", "--data.batch_size=4"],
    *["--data.rrd_batch_size=4", "--data.rrd_sample_size=4", "--data.held_out=0.25", "--trainer.max_steps=2"],
    *[
        "--data.demonstrations.image_size=null",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
    ],
]


@pytest.fixture
def demonstrations() -> str:
    Path("demos").mkdir()
    write_file("demos/a.hdf5", demos=4, steps=6, size=40)
    write_file("demos/b.hdf5", demos=2, steps=5, size=40, obs_alignment="before")
    main(["fit", "--config=libero_offline", "--data.demonstrations.paths=demos", *TINY])
    return "demos"


def predict(*options: str) -> Any:
    main(["predict", "--ckpt_path", CHECKPOINT, "--trainer.accelerator=cpu", *options])
    return parquet.read_table("rewards.parquet").to_pylist()


def test_each_step_has_its_reward_and_the_sources_stay(demonstrations: str) -> None:
    before = {path: path.read_bytes() for path in Path(demonstrations).iterdir()}
    rows = predict()
    assert {path: path.read_bytes() for path in Path(demonstrations).iterdir()} == before
    assert sorted(path.name for path in Path().iterdir()) == ["demos", "rewards.parquet", "runs"]
    assert len(rows) == 4 * 5 + 2 * 4
    # Observations of a.hdf5 are from after their action: its first action has none before it.
    for file, demo, steps in (("a", "demo_3", range(1, 6)), ("b", "demo_1", range(4))):
        found = [row for row in rows if (row["source"], row["episode"]) == (f"demos/{file}.hdf5", demo)]
        assert [row["step"] for row in found] == list(steps)
        module = RRDModule.load_from_checkpoint(CHECKPOINT)
        reader = Demonstrations(f"demos/{file}.hdf5")
        spaces = module.observation_space, module.action_space
        entries = [entry for entry in reader.entries(spaces) if entry.episode == demo]
        ((_, episode),) = reader.read(entries, spaces)
        with torch.no_grad():
            expected = module.decomposition.reward(episode_transitions(episode))
        assert [row["predicted_reward"] for row in found] == pytest.approx(expected.tolist(), rel=1e-5)
    assert len({row["model_version"] for row in rows}) == 1


def test_a_stopped_run_goes_on(demonstrations: str, monkeypatch: pytest.MonkeyPatch) -> None:
    predicted: list[str] = []
    step = RRDModule.predict_step

    def count(module: RRDModule, named: Any, batch_idx: int) -> Any:
        if len(predicted) == 2:
            raise KeyboardInterrupt
        predicted.append(named[1])
        return step(module, named, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(RRDModule, "predict_step", count)
        with pytest.raises(SystemExit):
            predict()
    assert not Path("rewards.parquet").exists()
    # One of the two that are done is damaged: it is predicted again.
    part = min(Path("rewards.parquet.parts").glob("*.parquet"))
    damaged = bytearray(part.read_bytes())
    for byte in range(24, 30):
        damaged[byte] ^= 0xFF
    part.write_bytes(damaged)
    again: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(
            RRDModule, "predict_step", lambda module, named, i: again.append(named[1]) or step(module, named, i)
        )
        rows = predict()
    assert (len(predicted), len(again), len(rows)) == (2, 5, 28)
    assert rows == predict()


def test_repeated_actions_are_rows_at_a_stride(demonstrations: str) -> None:
    rows = predict("--env.action_repeat=2")
    steps = {name: [row["step"] for row in rows if row["source"] == f"demos/{name}.hdf5"] for name in "ab"}
    assert steps == {"a": [1, 3, 5] * 4, "b": [0, 2] * 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--relabel.output=rewards.csv"], "relabel.output='rewards.csv': must end in .parquet"),
        (["--relabel.output=/proc/no/rewards.parquet"], "relabel.output='/proc/no/.*': cannot be written to"),
        (["--data.demonstrations=nowhere"], "data.demonstrations='nowhere': is neither a file nor a folder"),
    ],
)
def test_bad_input(demonstrations: str, options: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=f"error: {message}"):
        predict(*options)


def test_recordings_are_seen_by_the_encoder_that_the_run_had(demonstrations: str) -> None:
    agent = ["--model.train_policy=true", "--trainer.default_root_dir=seeing"]
    main(["fit", "--config=libero_offline", "--data.demonstrations.paths=demos", *TINY, *agent])
    (seeing,) = Path("seeing").glob("*/version_0/checkpoints/last.ckpt")
    encoder = [f"--model.encoder={seeing}", "--trainer.default_root_dir=encoded", "--data.held_out=0.5"]
    main(["fit", "--config=libero_offline", "--data.demonstrations.paths=demos", *TINY, *encoder])
    (last,) = Path("encoded").glob("*/version_0/checkpoints/last.ckpt")
    main(["predict", f"--ckpt_path={last}", "--trainer.accelerator=cpu"])
    rows = parquet.read_table("rewards.parquet").to_pylist()
    module = RRDModule.load_from_checkpoint(last)
    assert module.model_spaces[0].shape == (64,)
    reader = Demonstrations("demos/b.hdf5")
    ((_, episode),) = reader.read(reader.entries(module.episode_spaces)[:1], module.episode_spaces)
    of_episode = [row for row in rows if (row["source"], row["episode"]) == ("demos/b.hdf5", "demo_0")]
    found = [row["predicted_reward"] for row in of_episode]
    assert found == pytest.approx(module.episode_rewards(episode).tolist(), abs=1e-6)
