"""A run that is stopped and resumed ends with the same bits as one that never stopped."""

from __future__ import annotations

import shutil
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from rrd_lightning import Environment, ParameterError
from rrd_lightning.callbacks import Checkpoint, Collect, Evaluate
from rrd_lightning.checkpoint.files import write
from rrd_lightning.decomposition import RRD
from tests.resuming import KilledError, SignalAt, StopAt, StopAtEnvStep, assert_same, fit, rows
from tests.runs import SMALL, make_collect, make_data, make_module, make_trainer


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


def test_stopped_between_steps_of_several_updates() -> None:
    data = {"updates_per_step": 3}
    whole = fit("Follow-v0", "whole", data=data)
    fit("Follow-v0", "first", stop_at=15, data=data)  # in an iteration's middle: its steps are of 3 and 1
    resumed = fit("Follow-v0", "second", ckpt_path=Path("first/version_0/checkpoints/last.ckpt"), data=data)
    assert_same(whole, resumed)
    later = rows("second")
    assert later == rows("whole")[-len(later) :]


@pytest.mark.parametrize("num_envs", [1, 4])
@pytest.mark.parametrize("env_id", ["Pendulum-v1", "HalfCheetah-v5", "Follow-v0"])
def test_stopped_during_the_warm_up(env_id: str, num_envs: int) -> None:
    whole = fit(env_id, "whole", num_envs=num_envs)
    # The first save has no finished episode yet on Pendulum and HalfCheetah, the second stop has some.
    assert fit(env_id, "first", stop_at=StopAtEnvStep(40), num_envs=num_envs) == {}
    first = Path("first/version_0/checkpoints/last.ckpt")
    assert torch.load(first, weights_only=True)["env_steps"] == 20
    assert fit(env_id, "second", ckpt_path=first, stop_at=StopAtEnvStep(80), num_envs=num_envs) == {}
    second = Path("second/version_0/checkpoints/last.ckpt")
    assert_same(whole, fit(env_id, "third", ckpt_path=second, num_envs=num_envs))
    assert rows("third") == rows("whole")


@pytest.mark.parametrize("stop", [None, SignalAt(signal.SIGTERM, update=5)])
def test_metrics_are_written_before_the_checkpoint_that_comes_after_them(
    stop: SignalAt | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no kill loses a row: what comes after the checkpoint is repeated."""
    seen: list[tuple[int, int]] = []

    def look(checkpoint: dict[str, Any], path: Path) -> None:
        training = (
            [row for row in rows("whole") if "loss/critic" in row] if checkpoint["global_step"] > 1 else []
        )
        seen.append((checkpoint["global_step"], len(training)))
        write(checkpoint, path)

    monkeypatch.setattr("rrd_lightning.checkpoint.format.write", look)
    with suppress(SystemExit):
        fit("Follow-v0", "whole", stop_at=stop)
    assert len(seen) > 3
    assert seen[-1][0] == (40 if stop is None else 6)
    # Every second update is logged.
    assert [count for _, count in seen] == [updates // 2 for updates, _ in seen]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_replay_that_wraps_is_saved_by_what_changed() -> None:
    # Evaluations at 120, 200 and 300 steps; the replay holds the episodes of 100 steps.
    fit("Follow-v0", "whole", data={"capacity": 100}, checkpoint={"save_top_k": -1})
    folder = Path("whole/version_0/checkpoints")
    moments = {"env_steps=120.ckpt": "replay-120-4", "env_steps=200.ckpt": "replay-200-20"}
    last = "replay-300-40"
    assert names(folder) == sorted(
        [*moments, *moments.values(), last, "best.ckpt", "env_steps=300.ckpt", "last.ckpt"]
    )
    files = {moment: names(folder / moment / "rank-0") for moment in [*moments.values(), last]}
    # The two episodes of each 20 steps have a file; the live ones are the latest ten.
    for moment, newest in (("replay-120-4", 12), ("replay-200-20", 20), (last, 30)):
        expected = [f"episodes-{first}-{first + 2}.pt" for first in range(newest - 10, newest, 2)]
        assert files[moment] == sorted([*expected, "process.pt", "replay.pt"])
    shared = "rank-0/episodes-10-12.pt"
    assert (folder / "replay-120-4" / shared).samefile(folder / "replay-200-20" / shared)
    # The ring has wrapped since; what an older checkpoint needs is still there.
    for name, replay in moments.items():
        wrapped = fit("Follow-v0", replay, ckpt_path=folder / name, data={"capacity": 100})
        assert wrapped["env_steps"] == 300


def test_the_best_are_kept_and_the_rest_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    returns = iter([1.0, 5.0, 3.0, 4.0, 2.0])
    monkeypatch.setattr(
        "rrd_lightning.callbacks.judge.summarize", lambda judged: {"return_mean": next(returns)}
    )
    fit("Follow-v0", "whole", checkpoint={"save_top_k": 2}, warmup=200, every=10**6)
    folder = Path("whole/version_0/checkpoints")
    # Evaluated at 220, 300, 400 and 500 steps: 1, 5, 3 and 4.
    assert names(folder) == sorted(
        ["best.ckpt", "env_steps=300.ckpt", "env_steps=500.ckpt", "last.ckpt", "replay-300-20", "replay-500-60"]
    )
    assert (folder / "best.ckpt").samefile(folder / "env_steps=300.ckpt")
    # A resumed run has them too: another that is better takes the place of the worse.
    fit("Follow-v0", "second", ckpt_path=folder / "last.ckpt", checkpoint={"save_top_k": 2}, warmup=200)
    assert {"env_steps=300.ckpt", "env_steps=500.ckpt"} <= set(names(Path("second/version_0/checkpoints")))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"save_top_k": 0}, ["last.ckpt", "replay-300-40"]),
        ({"save_top_k": 0, "save_replay": False}, ["last.ckpt"]),
        ({"save_top_k": 0, "save_last": False}, []),
    ],
)
def test_only_what_was_asked_for_is_saved(options: dict[str, Any], expected: list[str]) -> None:
    fit("Follow-v0", "whole", checkpoint=options)
    assert names(Path("whole/version_0/checkpoints")) == expected


def test_top_k_is_checked() -> None:
    with pytest.raises(ParameterError, match="save_top_k=-2: must be -1, for all, or at least 0"):
        Checkpoint(save_top_k=-2)


def test_a_copy_of_the_folder_resumes() -> None:
    whole = fit("Follow-v0", "whole")
    fit("Follow-v0", "first", stop_at=9)
    shutil.copytree("first/version_0/checkpoints", "elsewhere")
    shutil.rmtree("first")
    assert_same(whole, fit("Follow-v0", "second", ckpt_path=Path("elsewhere/last.ckpt")))


def test_missing_and_damaged_replay_files_are_named() -> None:
    fit("Follow-v0", "first", stop_at=9)
    last = Path("first/version_0/checkpoints/last.ckpt")
    replay = last.parent / torch.load(last, weights_only=True)["replay"]
    path = min(replay.glob("rank-0/episodes-*"))
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(ParameterError, match=rf"{path.name}': is damaged"):
        fit("Follow-v0", "second", ckpt_path=last)
    path.unlink()
    with pytest.raises(ParameterError, match=r"replay-[0-9-]+.rank-0': lacks the file with episode 0"):
        fit("Follow-v0", "third", ckpt_path=last)
    shutil.rmtree(replay)
    with pytest.raises(ParameterError, match=r"replay-[0-9-]+': is missing: keep this folder"):
        fit("Follow-v0", "fourth", ckpt_path=last)


def test_environments_that_do_not_repeat_begin_anew() -> None:
    """Counter counts its resets outside its generator."""
    fit("Counter-v0", "first", stop_at=9)
    with pytest.warns(UserWarning, match=r"environments \[0\] could not be fast-forwarded"):
        resumed = fit("Counter-v0", "second", ckpt_path=Path("first/version_0/checkpoints/last.ckpt"))
    assert resumed["env_steps"] >= 300


def test_another_number_of_environments_begins_anew() -> None:
    fit("Follow-v0", "first", stop_at=9)
    with pytest.warns(UserWarning, match="num_envs=2 differs from the checkpoint.s 1"):
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
    fit("Follow-v0", "first", stop_at=9, checkpoint={"save_replay": False})
    last = Path("first/version_0/checkpoints/last.ckpt")
    with pytest.warns(UserWarning, match="was saved without its replay: a new warm-up"):
        resumed = fit("Follow-v0", "second", ckpt_path=last)
    assert resumed["env_steps"] == 300


def test_a_run_at_its_end_is_resumed_at_its_end() -> None:
    whole = fit("Follow-v0", "whole")
    again = fit("Follow-v0", "second", ckpt_path=Path("whole/version_0/checkpoints/last.ckpt"))
    assert whole.pop("return") is not None
    assert again.pop("return") is None
    # Lightning counts the epoch that the run did not finish as finished.
    del whole["loops"], again["loops"]
    assert_same(whole, again)


class FillDisk(Callback):
    """Lets one file of a later save be on a full disk."""

    def __init__(self, file: str) -> None:
        self.file = file

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 11:
            full = Path("first/version_0/checkpoints") / f"{self.file}.part"
            full.parent.mkdir(parents=True, exist_ok=True)
            full.symlink_to("/dev/full")


@pytest.mark.parametrize("file", ["last.ckpt", "replay-160-12.part/rank-0/episodes-14-16.pt"])
def test_a_full_disk_leaves_the_save_before(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Path.mkdir
    with monkeypatch.context() as patch:
        # The save makes its folders itself: let what stands for the full disk be there before.
        patch.setattr("shutil.rmtree", lambda *_, **__: None)
        patch.setattr(Path, "mkdir", lambda path, *_, **__: make(path, parents=True, exist_ok=True))
        with pytest.raises(ParameterError, match=rf"{Path(file).name}.*No space left.*earlier checkpoints"):
            fit("Follow-v0", "first", stop_at=FillDisk(file))
    whole = fit("Follow-v0", "whole")
    assert_same(whole, fit("Follow-v0", "second", ckpt_path=Path("first/version_0/checkpoints/last.ckpt")))


def test_a_folder_that_cannot_be_written_to_is_refused_at_the_start() -> None:
    trainer = make_trainer(
        make_collect(Environment("Follow-v0")),
        Checkpoint(),
        logger=False,
        default_root_dir="/proc/nowhere",
        enable_checkpointing=True,
    )
    with pytest.raises(ParameterError, match="default_root_dir='/proc/nowhere': cannot be written to"):
        trainer.fit(make_module(Environment("Follow-v0")), make_data())


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


class SetRate(Callback):
    """A schedule of a user's own: another learning rate from an update on."""

    def __init__(self, update: int, rate: float) -> None:
        self.update, self.rate = update, rate

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.update:
            trainer.optimizers[0].param_groups[0]["lr"] = self.rate


def test_a_learning_rate_that_a_callback_has_set_is_resumed_and_one_configured_anew_wins() -> None:
    whole = fit("Follow-v0", "whole", stop_at=SetRate(5, 1e-2))

    class Both(StopAt):
        def on_train_batch_start(self, trainer: Any, *rest: Any) -> None:
            SetRate(5, 1e-2).on_train_batch_start(trainer, *rest)
            super().on_train_batch_start(trainer, *rest)

    assert fit("Follow-v0", "first", stop_at=Both(17)) == {}
    last = Path("first/version_0/checkpoints/last.ckpt")
    assert_same(whole["weights"], fit("Follow-v0", "second", ckpt_path=last)["weights"])
    decomposition = partial(RRD, **SMALL, learning_rate=0.0)
    stopped = fit("Follow-v0", "third", ckpt_path=last, decomposition=decomposition)["weights"]
    saved = torch.load(last, weights_only=True)["state_dict"]
    name = "decomposition.model.network.layers.0.weight"
    assert torch.equal(stopped[name], saved[name])
    assert not torch.equal(whole["weights"][name], saved[name])


@pytest.mark.parametrize(("first", "second"), [("eager", "cpp"), ("cpp", "eager")])
def test_another_engine_goes_on_from_a_checkpoint(first: str, second: str) -> None:
    whole = fit("Follow-v0", "whole", engine=first)
    assert fit("Follow-v0", "first", stop_at=17, engine=first) == {}
    last = Path("first/version_0/checkpoints/last.ckpt")
    resumed = fit("Follow-v0", "second", ckpt_path=last, engine=second)
    torch.testing.assert_close(whole["weights"], resumed["weights"], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(whole["optimizer"], resumed["optimizer"], rtol=1e-2, atol=1e-4)
