"""A run that is stopped and resumed ends with the same bits as one that never stopped."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

from rrd_lightning import Environment, ParameterError
from rrd_lightning.callbacks import Checkpoint, Collect, Evaluate
from tests.runs import make_collect, make_data, make_module, make_trainer


class StopAt(Callback):
    """Ends the process, as far as the run can tell, after an update."""

    def __init__(self, update: int) -> None:
        self.update = update

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.update:
            raise KilledError


class KilledError(BaseException):
    pass


def fit(
    env_id: str,
    name: str,
    *,
    ckpt_path: Path | None = None,
    stop_at: int | None = None,
    num_envs: int = 1,
    warmup: int = 100,
    every: int = 1,
    **module: Any,
) -> dict[str, Any]:
    """Run to the end or to the kill, and return everything that the run ended with."""
    torch.manual_seed(0 if ckpt_path is None else 12345)
    env = Environment(env_id, max_episode_steps=40 if env_id in {"Pendulum-v1", "HalfCheetah-v5"} else None)
    model, data = make_module(env, **module), make_data()
    total = 2 * warmup + 100
    collect = make_collect(env, num_envs=num_envs, warmup_steps=warmup, total_env_steps=total)
    callbacks = [collect, Evaluate(env, episodes=1, every_n_env_steps=100)]
    callbacks += [StopAt(stop_at)] if stop_at is not None else []
    trainer = make_trainer(
        *callbacks,
        Checkpoint(every_n_env_steps=every),
        logger=CSVLogger(".", name=name, flush_logs_every_n_steps=1),
        log_every_n_steps=2,
        enable_checkpointing=True,
    )
    try:
        trainer.fit(model, data, ckpt_path=ckpt_path)
    except KilledError:
        return {}
    return {
        "weights": model.state_dict(),
        "optimizer": trainer.optimizers[0].state_dict()["state"],
        "lengths": data.replay.episodes["length"].clone(),
        "replay": data.replay.records(data.replay.episodes["start"], data.replay.episodes["length"]),
        "generators": torch.get_rng_state(),
        "env_steps": model.env_steps,
        "updates": trainer.global_step,
        "return": trainer.callback_metrics["evaluate/return_mean"],
    }


def rows(name: str) -> list[dict[str, str]]:
    with Path(f"{name}/version_0/metrics.csv").open() as file:
        return [
            {key: value for key, value in row.items() if value and key != "collect/env_steps_per_second"}
            for row in csv.DictReader(file)
        ]


def assert_same(first: Any, second: Any) -> None:
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    else:
        assert first == second


@pytest.mark.parametrize("num_envs", [1, 4])
@pytest.mark.parametrize("env_id", ["Pendulum-v1", "HalfCheetah-v5", "Follow-v0"])
def test_stopped_twice_and_resumed(env_id: str, num_envs: int) -> None:
    options: dict[str, Any] = {"num_envs": num_envs}
    whole = fit(env_id, "whole", **options)
    # Epochs are of 12 updates: stopped in the middle of one and of an iteration, then near an end.
    assert fit(env_id, "first", stop_at=7, **options) == {}
    first = Path("first/version_0/checkpoints/last.ckpt")
    assert fit(env_id, "second", ckpt_path=first, stop_at=12, **options) == {}
    second = Path("second/version_0/checkpoints/last.ckpt")
    resumed = fit(env_id, "third", ckpt_path=second, **options)
    assert_same(whole, resumed)
    later = rows("third")
    assert later == rows("whole")[-len(later) :]
    assert len(later) > 3


@pytest.mark.parametrize("stop_at", [4, 8, 12, 13, 16, 24])
def test_stopped_at_any_point_of_an_epoch(stop_at: int) -> None:
    whole = fit("Follow-v0", "whole")
    fit("Follow-v0", "first", stop_at=stop_at)
    resumed = fit("Follow-v0", "second", ckpt_path=Path("first/version_0/checkpoints/last.ckpt"))
    assert_same(whole, resumed)
    later = rows("second")
    assert later == rows("whole")[-len(later) :]


def test_replay_that_wraps_is_saved_by_what_changed() -> None:
    fit("Follow-v0", "whole")
    folder = Path("whole/version_0/checkpoints")
    (replay,) = folder.glob("replay-*")
    files = sorted(path.name for path in replay.glob("episodes-*"))
    # The warm-up and the first iteration, then the two episodes of each iteration of 20 steps.
    assert files[0] == "episodes-0-12.pt"
    assert "episodes-12-14.pt" in files
    assert len(files) == 1 + (300 - 120) // 20
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt", replay.name]


def test_a_copy_of_the_folder_resumes() -> None:
    whole = fit("Follow-v0", "whole")
    fit("Follow-v0", "first", stop_at=9)
    shutil.copytree("first/version_0/checkpoints", "elsewhere")
    shutil.rmtree("first")
    assert_same(whole, fit("Follow-v0", "second", ckpt_path=Path("elsewhere/last.ckpt")))


def test_missing_and_damaged_replay_files_are_named() -> None:
    fit("Follow-v0", "first", stop_at=9)
    last = Path("first/version_0/checkpoints/last.ckpt")
    (replay,) = last.parent.glob("replay-*")
    path = sorted(replay.glob("episodes-*"))[0]
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(ParameterError, match=rf"{path.name}': is damaged"):
        fit("Follow-v0", "second", ckpt_path=last)
    path.unlink()
    with pytest.raises(ParameterError, match=r"replay-8': lacks the file with episode 0"):
        fit("Follow-v0", "third", ckpt_path=last)
    shutil.rmtree(replay)
    with pytest.raises(ParameterError, match=r"replay.pt': is missing: keep the replay folder"):
        fit("Follow-v0", "fourth", ckpt_path=last)


def test_environments_that_do_not_repeat_begin_anew() -> None:
    """Counter counts its resets outside its generator."""
    fit("Counter-v0", "first", stop_at=9)
    with pytest.warns(UserWarning, match=r"environments \[0\] do not repeat their episode"):
        resumed = fit("Counter-v0", "second", ckpt_path=Path("first/version_0/checkpoints/last.ckpt"))
    assert resumed["env_steps"] >= 300


def test_another_number_of_environments_begins_anew() -> None:
    fit("Follow-v0", "first", stop_at=9)
    with pytest.warns(UserWarning, match="num_envs=2 is not the checkpoint's"):
        resumed = fit(
            "Follow-v0", "second", ckpt_path=Path("first/version_0/checkpoints/last.ckpt"), num_envs=2
        )
    assert resumed["env_steps"] == 300


def test_without_evaluations_runs_are_saved_all_the_same() -> None:
    env = Environment("Follow-v0")
    evaluate = Evaluate(env, every_n_env_steps=50)
    trainer = make_trainer(
        make_collect(env), evaluate, Checkpoint(50), StopAt(20), limit_val_batches=0, enable_checkpointing=True
    )
    with pytest.raises(KilledError):
        trainer.fit(make_module(env), make_data())
    saved = torch.load("logs/version_0/checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == 20


def test_without_the_replay_a_new_one_is_filled() -> None:
    fit("Follow-v0", "first", stop_at=9)
    best = Path("first/version_0/checkpoints/best.ckpt")
    with pytest.warns(UserWarning, match="holds no replay: a new one is filled"):
        resumed = fit("Follow-v0", "second", ckpt_path=best)
    assert resumed["env_steps"] == 300


def test_a_save_that_fails_leaves_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    saves = []
    save = torch.save

    def fail_late(content: Any, file: Any) -> None:
        saves.append(file)
        if len(saves) > 6:
            raise OSError(28, "No space left on device")
        save(content, file)

    monkeypatch.setattr("rrd_lightning.replay.saving.torch.save", fail_late)
    with pytest.raises(OSError, match="No space left"):
        fit("Follow-v0", "first")
    monkeypatch.setattr("rrd_lightning.replay.saving.torch.save", save)
    whole = fit("Follow-v0", "whole")
    last = Path("first/version_0/checkpoints/last.ckpt")
    assert_same(whole, fit("Follow-v0", "second", ckpt_path=last))


def test_checkpoints_do_not_change_a_run() -> None:
    with_checkpoints = fit("Follow-v0", "whole")
    env = Environment("Follow-v0")
    torch.manual_seed(0)
    model, data = make_module(env), make_data()
    trainer = make_trainer(
        Collect(env, env_steps_per_iteration=20, warmup_steps=100, total_env_steps=300), logger=False
    )
    trainer.fit(model, data)
    assert_same(with_checkpoints["weights"], model.state_dict())
