"""Each run has a folder of its own, whatever the logger and however many start at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import yaml
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from rrd_lightning import Environment, ParameterError
from rrd_lightning.arguments import find_checkpoint
from rrd_lightning.callbacks import Checkpoint, Plots
from rrd_lightning.cli import main
from rrd_lightning.run_folder import new_folder, run_folder
from tests.command_line import DEBUG
from tests.runs import make_collect, make_data, make_module, make_trainer

SHORT = [*DEBUG, "--collect.total_env_steps=600"]


class Remote(Logger):
    """A logger such as those of services: its folder, if any, is the same for all runs."""

    def __init__(self, save_dir: str | None = "service") -> None:
        super().__init__()
        self._save_dir = save_dir

    name, version = "service", "1"

    @property
    def save_dir(self) -> str | None:
        return self._save_dir

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Log nothing."""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Log nothing."""


def test_starts_at_the_same_moment_have_folders_of_their_own() -> None:
    barrier = Barrier(8)

    def start(_: int) -> Path:
        barrier.wait()
        return new_folder(Path("runs"), "Pendulum-v1")

    with ThreadPoolExecutor(8) as threads:
        folders = list(threads.map(start, range(8)))
    assert {folder.name for folder in folders} == {f"version_{number}" for number in range(8)}
    Path("runs/Pendulum-v1/version_old").mkdir()
    Path("runs/Pendulum-v1/version_11").mkdir()
    assert new_folder(Path("runs"), "Pendulum-v1").name == "version_12"


def test_a_folder_that_another_start_made_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line makes its folder, rather than to take a number and to write there later."""
    first = Path("runs/Pendulum-v1/version_0")
    look = Path.glob

    def late(path: Path, pattern: str) -> Any:
        found = list(look(path, pattern))
        if pattern == "version_*":
            first.mkdir(parents=True, exist_ok=True)
        return iter(found)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "glob", late)
        main(SHORT)
    assert not list(first.iterdir())
    second = Path("runs/Pendulum-v1/version_1")
    assert (second / "checkpoints/last.ckpt").is_file()
    assert (second / "config.yaml").is_file()
    assert (second / "metrics.csv").is_file()
    assert list(second.glob("events.*"))


@pytest.mark.parametrize(
    "logger",
    [
        {
            "class_path": "TensorBoardLogger",
            "init_args": {"save_dir": "board", "name": "mine", "version": "same"},
        },
        {"class_path": "tests.test_run_folder.Remote"},
        {"class_path": "tests.test_run_folder.Remote", "init_args": {"save_dir": None}},
        False,
    ],
)
def test_other_loggers(logger: Any) -> None:
    Path("mine.yaml").write_text(yaml.safe_dump({"trainer": {"logger": logger}}))
    for version in range(2):
        main([*SHORT, "--config=mine.yaml"])
        folder = Path(f"runs/Pendulum-v1/version_{version}")
        assert (folder / "checkpoints/last.ckpt").is_file()
        assert (folder / "config.yaml").is_file()
        assert list((folder / "plots").glob("*.png"))
    assert find_checkpoint("last", "runs", may_start=False) == f"{folder}/checkpoints/last.ckpt"
    assert {path.name for path in Path().iterdir()} <= {"runs", "board", "mine.yaml"}
    assert not list(Path("board").rglob("*.ckpt"))


@pytest.mark.parametrize("logger", [False, Remote(), Remote(None)])
def test_other_loggers_in_python(logger: Any) -> None:
    env = Environment("Follow-v0")
    for version in range(2):
        trainer = make_trainer(
            make_collect(env, total_env_steps=120),
            Checkpoint(),
            Plots(),
            logger=logger,
            default_root_dir="root",
            enable_checkpointing=True,
        )
        trainer.fit(make_module(env), make_data())
        assert run_folder(trainer) == Path(f"root/lightning_logs/version_{version}")
        assert (run_folder(trainer) / "checkpoints/last.ckpt").is_file()


def test_the_folder_of_a_file_logger_is_the_runs() -> None:
    for logger in (CSVLogger("logs", "a"), TensorBoardLogger("board", "b")):
        trainer = make_trainer(logger=logger)
        assert run_folder(trainer) == Path(logger.log_dir)
        assert run_folder(trainer) is run_folder(trainer)


def test_remote_folders_are_refused_in_python() -> None:
    env = Environment("Follow-v0")
    for options, message in (
        ({"logger": False, "default_root_dir": "memory://runs"}, "default_root_dir='memory://runs': is remote"),
        ({"logger": CSVLogger("memory://logs")}, "logger='memory://logs.*': is remote"),
    ):
        trainer = make_trainer(make_collect(env), Checkpoint(), enable_checkpointing=True, **options)
        with pytest.raises(ParameterError, match=message):
            trainer.fit(make_module(env), make_data())
        assert not list(Path().glob("memory:*"))
