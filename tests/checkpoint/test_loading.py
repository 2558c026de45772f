"""A module out of a checkpoint, without its run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from rrd_lightning import ParameterError, RRDModule
from rrd_lightning.agents import SAC
from rrd_lightning.callbacks import Checkpoint
from tests.runs import run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RRDModule]:
    folder = tmp_path_factory.mktemp("checkpoint")
    saver = ModelCheckpoint(folder, filename="last", enable_version_counter=False)
    _, module, _ = run(callbacks=[saver], enable_checkpointing=True, logger=False)
    return folder / "last.ckpt", module


def test_load_from_checkpoint(checkpoint: tuple[Path, RRDModule], monkeypatch: pytest.MonkeyPatch) -> None:
    path, trained = checkpoint
    # Where no environment is installed.
    monkeypatch.setattr("gymnasium.make", None)
    loaded = RRDModule.load_from_checkpoint(path)
    assert not loaded.training
    assert loaded.env_steps == trained.env_steps == 300
    assert loaded.observation_space == trained.observation_space
    for name, value in trained.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    observation = torch.randn(3, 1)
    # Up to rounding: outside `fit` nothing is compiled.
    torch.testing.assert_close(
        loaded.agent.act(observation, explore=False), trained.agent.act(observation, explore=False)
    )
    # The temperature etc. are as they were configured, not as the defaults are.
    assert loaded.agent.init_args["hidden_sizes"] == [32, 32]


def test_damaged_checkpoints_are_errors(checkpoint: tuple[Path, RRDModule], tmp_path: Path) -> None:
    content = checkpoint[0].read_bytes()
    for name, damaged in {
        "truncated": content[: len(content) // 2],
        "empty": b"",
        "text": b"not a checkpoint at all",
        "flipped": content[:200] + bytes(100) + content[300:],
    }.items():
        path = tmp_path / name
        path.write_bytes(damaged)
        with pytest.raises(ParameterError, match=r"ckpt_path=.*is damaged or not a checkpoint"):
            RRDModule.load_from_checkpoint(path)
    with pytest.raises(ParameterError, match="there is no such file"):
        RRDModule.load_from_checkpoint(tmp_path / "missing")
    torch.save({"weights": torch.ones(2)}, tmp_path / "other")
    with pytest.raises(ParameterError, match="is not a checkpoint of rrd_lightning"):
        RRDModule.load_from_checkpoint(tmp_path / "other")


def test_checkpoint_can_name_only_components(checkpoint: tuple[Path, RRDModule], tmp_path: Path) -> None:
    content = torch.load(checkpoint[0], weights_only=True)
    for class_path in ("os.system", "rrd_lightning.decomposition.RRD", "nowhere.Agent", "Agent"):
        content["hyper_parameters"]["agent"]["class_path"] = class_path
        torch.save(content, tmp_path / "changed")
        with pytest.raises(ParameterError, match=f"class_path='{class_path}': must name a subclass of Agent"):
            RRDModule.load_from_checkpoint(tmp_path / "changed")


def test_a_class_that_no_checkpoint_would_find_again_is_refused() -> None:
    class Local(SAC):
        pass

    with pytest.raises(ParameterError, match=r"model.agent=.*Local.*: cannot be found again from a checkpoint"):
        run(module={"agent": Local}, callbacks=[Checkpoint()], enable_checkpointing=True)
    run(module={"agent": Local}, collect={"total_env_steps": 120})  # that writes none
