"""What users write on command lines and in files: taken as it is meant, or refused in one line."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar

from rrd_lightning import Environment, ParameterError
from rrd_lightning.arguments import find_checkpoint
from rrd_lightning.callbacks import Relabel
from rrd_lightning.cli import RRDCLI, main
from rrd_lightning.config_files import merged
from rrd_lightning.datasets.cache import EpisodeCache
from rrd_lightning.datasets.files import find_files
from rrd_lightning.kernels import library
from tests.command_line import DEBUG, error_of
from tests.job import SOLE
from tests.runs import make_collect, make_data, make_module, make_trainer


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[RRDCLI]:
    """The command line's configurations, whose commands are not carried out."""
    made: list[RRDCLI] = []
    monkeypatch.setattr(RRDCLI, "_run_subcommand", lambda cli, command: made.append(cli))
    return made


def config_of(parsed: list[RRDCLI]) -> Any:
    return parsed[-1].config.fit


def test_dictionaries_of_several_files_merge(parsed: list[RRDCLI]) -> None:
    Path("one.yaml").write_text(
        "env:\n  id: Pendulum-v1\n  kwargs: {g: 9.0}\nmodel:\n  gradient_clip: {critic: 1}\n"
    )
    Path("two.yaml").write_text(
        "env:\n  kwargs: {render_mode: rgb_array}\nmodel:\n  gradient_clip: {actor: 2}\n"
    )
    files = ["--config", "one.yaml", "--config=two.yaml"]
    main([*DEBUG, *files, "--env.kwargs.g=8", "--data.capacity=2000"])
    assert config_of(parsed).env.kwargs == {"g": 8, "render_mode": "rgb_array"}
    assert config_of(parsed).model.gradient_clip == {"critic": 1.0, "actor": 2.0}
    main([*DEBUG, "--env.kwargs.g=8", *files])
    assert config_of(parsed).env.kwargs == {"g": 9.0, "render_mode": "rgb_array"}
    Path("three.yaml").write_text("env:\n  kwargs: null\n")
    main([*DEBUG, *files, "--config", "three.yaml"])
    assert config_of(parsed).env.kwargs is None


def test_dictionaries_that_merge() -> None:
    old = {"a": {"x": 1, "y": 2}, "b": 3}
    assert merged(old, {"a": {"y": 4}, "c": 5}) == {"a": {"x": 1, "y": 4}, "b": 3, "c": 5}
    one = {"class_path": "A", "init_args": {"x": 1}}
    assert merged(one, {"class_path": "A", "init_args": {"y": 2}})["init_args"] == {"x": 1, "y": 2}
    assert merged(one, {"class_path": "B"}) == {"class_path": "B"}


def test_whole_numbers_in_other_words(parsed: list[RRDCLI]) -> None:
    Path("mine.yaml").write_text("collect:\n  warmup_steps: 4e2\ndata:\n  capacity: 2000.0\n")
    options = ["--collect.total_env_steps=1E3", "--data.train_batches", "1e1", "--env.max_episode_steps=5e1"]
    main([*DEBUG, "--config=mine.yaml", *options, "--model.agent.hidden_sizes=[1.6e1,8]"])
    config = config_of(parsed)
    numbers = [config.collect.warmup_steps, config.data.capacity, config.collect.total_env_steps]
    numbers += [
        config.data.train_batches,
        config.env.max_episode_steps,
        *config.model.agent.init_args.hidden_sizes,
    ]
    assert numbers == [400, 2000, 1000, 10, 50, 16, 8]
    assert {type(number) for number in numbers} == {int}
    main([*DEBUG, "--wandb_project=null", "--data.scratch_dir=1e3", "--model.agent.gamma=1e0"])
    assert config_of(parsed).data.scratch_dir == "1e3"
    assert type(config_of(parsed).model.agent.init_args.gamma) is float


@pytest.mark.parametrize("value", ["1.5e0", "0.5", "1e", "nan", "inf", "1e-3"])
def test_numbers_that_are_not_whole(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*DEBUG, f"--data.train_batches={value}"])
    assert "data.train_batches" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"env:\n  id: [", "config='bad.yaml': is no YAML: .*line 2"),
        (b"env:\n\tid: Pendulum-v1\n", "config='bad.yaml': is no YAML: .*line 2"),
        ("env:\n  id: Pendelübung".encode("latin-1"), "config='bad.yaml': is not in UTF-8"),
        ("env:\n  id: a".encode("utf-16"), "config='bad.yaml': is not in UTF-8"),
        (b"trainer: 3\n", "trainer=3: in bad.yaml: must be a section"),
        (b"- env\n", r"config='bad.yaml': holds \['env'\], must hold sections"),
        (b"3\n", "config='bad.yaml': holds 3, must hold sections"),
        (b"env: 3\n", "env=3: in bad.yaml: must be a section"),
        (b"model: [1]\n", r"model=\[1\]: in bad.yaml: must be a section"),
    ],
)
def test_configuration_files_that_are_none(
    content: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.yaml").write_bytes(content)
    assert re.search(message, error_of([*DEBUG, "--config", "bad.yaml"], capsys))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("gradient_clip_val=1", r"trainer.gradient_clip_val=1: .* give model.gradient_clip"),
        (
            "accumulate_grad_batches=2",
            "accumulate_grad_batches=2: must be 1: give a larger data.batch_size",
        ),
        ("precision=64-true", "trainer.precision='64-true': must be one of 32-true, bf16-mixed"),
        ("precision=bf16-true", "trainer.precision='bf16-true': must be one of"),
        ("precision=16-true", "trainer.precision='16-true': must be one of"),
        ("strategy=ddp_spawn", "trainer.strategy='ddp_spawn': must be auto or ddp"),
        ("strategy=fsdp", "trainer.strategy='fsdp': must be auto or ddp"),
        ("accelerator=tpu", "trainer.accelerator='tpu': is not there: must be auto or one of .*cpu"),
        ("accelerator=nonsense", "trainer.accelerator='nonsense': is not there"),
        ("devices=0", "trainer={.*'devices': '0'.*}: cannot be made: "),
        ("default_root_dir=s3://bucket/runs", "default_root_dir='s3://bucket/runs': is remote, must be"),
        ("default_root_dir=memory://runs", "default_root_dir='memory://runs': is remote"),
        ("default_root_dir=~nobody-here/runs", "default_root_dir='~nobody-here/runs': there is no such home"),
    ],
)
def test_options_of_the_trainer(option: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(message, error_of([*DEBUG, f"--trainer.{option}"], capsys))
    assert not [path for path in Path().iterdir() if ":" in path.name or path.name == "s3"]


def test_precisions_are_refused_by_every_command() -> None:
    env = Environment("Follow-v0")
    for precision in ("64-true", "bf16-true"):
        trainer = make_trainer(make_collect(env), precision=precision)
        for command in (trainer.validate, trainer.test):
            with pytest.raises(ParameterError, match=f"trainer.precision='{precision}'"):
                command(make_module(env), make_data(), verbose=False)


def test_tasks_of_slurm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"NTASKS": "2", "JOB_ID": "1", "JOB_NAME": "run", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    error = error_of(DEBUG, capsys)
    assert "SLURM_NTASKS='2': is not what this job's trainer expects: give srun --ntasks-per-node" in error


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["--data.storage=memmap", "--data.scratch_dir=s3://bucket/scratch"],
            "data.scratch_dir='s3://bucket/scr.*rem",
        ),
        (
            ["--data.storage=memmap", "--data.scratch_dir=/proc/scratch"],
            "data.scratch_dir='/proc/scratch': cannot be",
        ),
        (["--ckpt_path=s3://bucket/last.ckpt"], "ckpt_path='s3://bucket/last.ckpt': is remote"),
        (["--config=gs://bucket/mine.yaml"], "config='gs://bucket/mine.yaml': is remote"),
        (["--relabel.output=s3://bucket/a.parquet"], "relabel.output='s3://bucket/a.parquet': is remote"),
    ],
)
def test_folders_that_cannot_be(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(message, error_of([*DEBUG, *args], capsys))


def test_the_home_folder_in_every_path(monkeypatch: pytest.MonkeyPatch, parsed: list[RRDCLI]) -> None:
    home = Path("home").absolute()
    (home / "runs/a/version_0/checkpoints").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    (home / "mine.yaml").write_text("data:\n  train_batches: 9\ntrainer:\n  default_root_dir: ~/runs\n")
    main([*DEBUG, "--config=~/mine.yaml", "--data.scratch_dir=~/scratch", "--relabel.output=~/a.parquet"])
    assert config_of(parsed).data.train_batches == 9
    assert parsed[-1].trainer.default_root_dir == str(home / "runs")
    assert parsed[-1].datamodule.scratch_dir == str(home / "scratch")
    assert Relabel("~/a.parquet").output == home / "a.parquet"
    assert EpisodeCache("~/cache")._folder == home / "cache"
    (home / "file.h5").touch()
    assert find_files(["~/file.h5"]) == [home / "file.h5"]
    last = home / "runs/a/version_0/checkpoints/last.ckpt"
    last.touch()
    assert find_checkpoint("last", str(home / "runs"), may_start=False) == str(last)
    for given in (["--ckpt_path=~/runs/a/version_0/checkpoints/last.ckpt"], ["--ckpt_path", "last"]):
        with pytest.raises(SystemExit, match=f"error: ckpt_path='{last}': is damaged"):
            main(["test", "--trainer.default_root_dir=~/runs", *given])
    with pytest.raises(SystemExit, match=f"error: ckpt_path='{home}/no.ckpt': there is no such file"):
        main(["export", "--ckpt_path=~/no.ckpt"])
    assert not Path("~").exists()


def test_a_bar_of_the_users_takes_the_place_of_ours(parsed: list[RRDCLI]) -> None:
    main([*DEBUG, "--trainer.callbacks=TQDMProgressBar"])
    bars = [each for each in parsed[-1].trainer.callbacks if isinstance(each, ProgressBar)]
    assert [type(each) for each in bars] == [TQDMProgressBar]


def test_an_environment_in_the_working_directory() -> None:
    """As with `python -m`; the command is installed elsewhere."""
    Path("my_envs_here.py").write_text("print('found')\nfrom tests import environments\n")
    command = "import sys; sys.path.remove(''); from rrd_lightning.cli import main; main()"
    args = ["fit", "--config=debug", "--env.id=my_envs_here:Nothing-v0"]
    done = subprocess.run(
        [sys.executable, "-c", command, *args], env={**os.environ, **SOLE}, capture_output=True, text=True
    )
    assert "found" in done.stdout
    assert "env.id='my_envs_here:Nothing-v0': is not a registered environment" in done.stderr


def test_a_compiler_with_an_open_quote(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "g++ 'a")
    library.compiled_library.cache_clear()
    with pytest.raises(library.NotCompiledError, match='cannot read CXX="g\\+\\+ \'a": No closing quotation'):
        library.compiled_library()
    library.compiled_library.cache_clear()


def test_a_disk_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "metrics.csv")

    monkeypatch.setattr(RRDCLI, "_run_subcommand", full)
    with pytest.raises(SystemExit, match=r"error: the disk is full: .*metrics.csv"):
        main(DEBUG)
