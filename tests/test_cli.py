"""The command line, as a user types it."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
import warnings
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from rrd_lightning import RRDModule
from rrd_lightning.agents import DDPG, TD3, DiscreteSAC
from rrd_lightning.cli import main
from rrd_lightning.networks import Normalization
from tests.command_line import DEBUG, error_of, metrics

CONFIG_PATHS = sorted(Path(str(files("rrd_lightning.configs"))).glob("*.yaml"))
# Those without an environment need demonstrations: see datasets/test_offline_runs; and libero needs LIBERO.
CONFIGS = [
    path.stem
    for path in CONFIG_PATHS
    if "env" in yaml.safe_load(path.read_text()) and not path.stem.startswith("libero")
]
FEW_STEPS = [
    "--collect.warmup_steps=300",
    "--collect.total_env_steps=600",
    "--collect.env_steps_per_iteration=100",
    "--data.train_batches=2",
    "--data.batch_size=64",
    "--evaluate.every_n_env_steps=400",
    "--evaluate.episodes=1",
    "--env.max_episode_steps=50",
    "--data.capacity=5000",
    "--trainer.accelerator=cpu",
    "--trainer.log_every_n_steps=1",
]


@pytest.mark.parametrize("config", CONFIGS)
def test_every_config_runs(config: str) -> None:
    if config == "atari":
        pytest.importorskip("ale_py")
    main(["fit", "--config", config, *FEW_STEPS])
    (folder,) = Path("runs").glob("*/version_0")
    assert (folder / "checkpoints/last.ckpt").is_file()
    assert (folder / "checkpoints/best.ckpt").is_file()
    assert (folder / "config.yaml").is_file()
    assert len(list((folder / "plots").glob("evaluation-*.png"))) == 2
    assert list(folder.glob("events.out.tfevents*"))
    assert metrics(env=folder.parent.name)[-1]["step"] == "600"


def test_configs_hold_what_they_are_named_for() -> None:
    folder = Path(str(files("rrd_lightning.configs")))
    sizes = ("train_batches", "batch_size", "rrd_batch_size", "rrd_sample_size")
    mujoco, paper = (yaml.safe_load((folder / f"{name}.yaml").read_text()) for name in ("mujoco", "paper"))
    assert [mujoco["data"][name] for name in sizes] == [25, 256, 256, 64]
    assert [paper["data"][name] for name in sizes] == [100, 256, 256, 64]
    assert paper["data"]["rrd_replacement"] is False
    assert paper["collect"] == {
        "env_steps_per_iteration": 100,
        "warmup_steps": 10_000,
        "total_env_steps": 3_000_000,
    }


def test_validate_and_test_build_the_run_from_its_checkpoint() -> None:
    main([*DEBUG, "--model.agent=SAC", "--model.agent.hidden_sizes=[16,16]", "--env.max_episode_steps=60"])
    best = "runs/Pendulum-v1/version_0/checkpoints/last.ckpt"
    main(["validate", "--ckpt_path", best, "--trainer.accelerator=cpu"])
    main(["test", f"--ckpt_path={best}", "--trainer.accelerator=cpu", "--evaluate.episodes=3"])
    last_fit = [row for row in metrics(0) if row["evaluate/return_mean"]][-1]
    (validated,), (tested,) = metrics(1), metrics(2)
    for name, value in validated.items():
        assert float(value) == pytest.approx(float(last_fit[name]), rel=1e-5)
    assert float(tested["evaluate/length_mean"]) == 60
    assert tested["evaluate/return_mean"] != validated["evaluate/return_mean"]
    # What the command line says wins over the checkpoint.
    config = yaml.safe_load(Path("runs/Pendulum-v1/version_2/config.yaml").read_text())
    assert config["evaluate"]["episodes"] == 3
    assert config["model"]["agent"]["init_args"]["hidden_sizes"] == [16, 16]


def test_a_component_chosen_by_name_has_its_own_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    """Not those of SAC and RRD, the defaults, nor those of one that a configuration names."""
    for name, agent in {"TD3": TD3, "DDPG": DDPG, "DiscreteSAC": DiscreteSAC}.items():
        for config in ("debug", "droq"):
            with pytest.raises(SystemExit):
                main(["fit", "--config", config, "--model.agent", name, "--print_config"])
            printed = yaml.safe_load(capsys.readouterr().out)["model"]["agent"]
            said = {"layer_norm", "dropout", "actor_value", "policy_delay"} if config == "droq" else set()
            signature = inspect.signature(agent).parameters.values()
            own = {each.name: each.default for each in signature if each.kind is each.KEYWORD_ONLY}
            for option in own.keys() - said:
                default = list(own[option]) if isinstance(own[option], tuple) else own[option]
                assert printed["init_args"][option] == default


def test_demonstrations_and_many_updates() -> None:
    """RLPD's configuration needs demonstrations, and DroQ's becomes REDQ's by the options that it names."""
    reader = "--data.demonstrations=tests.demonstrations.ScriptedReader"
    main(["fit", "--config=rlpd", "--env.id=Reach-v0", reader, "--data.batch_size=64", *FEW_STEPS])
    redq = {"num_critics": "10", "critics_in_target": "2", "dropout": "0", "layer_norm": "false"}
    options = [f"--model.agent.{name}={value}" for name, value in redq.items()]
    main(["fit", "--config=droq", "--env.id=Pendulum-v1", *options, *FEW_STEPS])
    first, second = (
        yaml.safe_load(Path(f"runs/{env}/version_0/config.yaml").read_text())["model"]["agent"]["init_args"]
        for env in ("Reach-v0", "Pendulum-v1")
    )
    assert {name: first[name] for name in redq} == {
        "num_critics": 10,
        "critics_in_target": 2,
        "dropout": 0,
        "layer_norm": True,
    }
    assert second["dropout"] == 0
    assert second["policy_delay"] == 20
    last = RRDModule.load_from_checkpoint("runs/Pendulum-v1/version_0/checkpoints/last.ckpt")
    assert last.agent.num_critics == 10


def test_the_recipe_for_libero_serves_any_environment_with_demonstrations() -> None:
    phases = [
        {"name": name, "updates": 4, "train": [train]}
        for name, train in (("reward", "reward"), ("cloning", "cloning"), ("critics", "critic"))
    ]
    options = ["--env.id=Reach-v0", "--env.kwargs=null", f"--model.phases={json.dumps(phases)}", *FEW_STEPS]
    reader = "--data.demonstrations=tests.demonstrations.ScriptedReader"
    main(["fit", "--config=libero_policy", reader, *options])
    last = RRDModule.load_from_checkpoint("runs/Reach-v0/version_0/checkpoints/last.ckpt")
    assert last.env_steps == 600
    assert last.normalizer is not None
    assert last.normalizer.normalization == Normalization(smallest_std=0.02, clip=8.0)
    main(["test", "--ckpt_path=last", "--trainer.accelerator=cpu"])


def test_a_trainer_without_checkpoints_or_for_a_quick_look() -> None:
    main([*DEBUG, "--trainer.enable_checkpointing=false"])
    assert not Path("runs/Pendulum-v1/version_0/checkpoints").exists()
    main([*DEBUG, "--trainer.fast_dev_run=true"])
    assert not list(Path("runs").rglob("*.ckpt"))


def test_runs_without_a_logger_have_folders_of_their_own() -> None:
    for _ in range(2):
        main([*DEBUG, "--trainer.logger=false", "--collect.total_env_steps=600"])
    for version in range(2):
        assert Path(f"runs/Pendulum-v1/version_{version}/checkpoints/last.ckpt").is_file()
        assert Path(f"runs/Pendulum-v1/version_{version}/config.yaml").is_file()


def test_memory_mapped_replay_twice_in_one_new_folder() -> None:
    for _ in range(2):
        main(
            [*DEBUG, "--data.storage=memmap", "--data.scratch_dir=new/scratch", "--collect.total_env_steps=600"]
        )


def test_a_second_run_leaves_the_first_alone() -> None:
    main([*DEBUG, "--collect.total_env_steps=1000"])
    first = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    main([*DEBUG, "--collect.total_env_steps=1000"])
    assert all(path.read_bytes() == content for path, content in first.items())
    assert Path("runs/Pendulum-v1/version_1/checkpoints/last.ckpt").is_file()


def test_parts_are_chosen_by_name() -> None:
    main([*DEBUG, "--model.decomposition=EpisodicReward", "--model.gradient_clip.critic=1"])
    config = yaml.safe_load(Path("runs/Pendulum-v1/version_0/config.yaml").read_text())
    assert config["model"]["decomposition"]["class_path"].endswith("EpisodicReward")
    assert config["model"]["gradient_clip"] == {"critic": 1.0}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--env.id=Pendulumm-v1"], "env.id='Pendulumm-v1': .*near matches: .*Pendulum-v1"),
        (["--env.id=CartPole-v1"], r"action_space=Discrete\(2\): SAC serves continuous"),
        (["--data.batch_size=500"], "data.batch_size=500: must be at most collect.warmup_steps=400"),
        (["--data.batch_size=0"], "batch_size=0: must be greater than zero"),
        (["--data.rrd_sample_size=-4"], "rrd_sample_size=-4: must be greater than zero"),
        (["--data.rrd_sample_size=64"], "rrd_sample_size=64: must be at most rrd_batch_size=32"),
        (["--data.capacity=1"], "data.capacity=1: must be at least"),
        (["--data.capacity=190", "--collect.warmup_steps=100"], "must be at least the 200 steps of an episode"),
        (["--collect.num_envs=0"], "num_envs=0: must be greater than zero"),
        (["--collect.total_env_steps=-5"], "total_env_steps=-5: must be greater than zero"),
        (["--evaluate.episodes=0"], "episodes=0: must be greater than zero"),
        (["--model.gradient_clip.actors=1"], "gradient_clip='actors': must be one of"),
        (["--model.train_policy=false", "--model.decomposition=EpisodicReward"], "train_policy=False"),
        (["--data.btach_size=3"], "btach_size"),
        (["--collect.warmup_steps=many"], "warmup_steps"),
        (
            ["--config", "no_such_config"],
            r"config='no_such_config'.*mujoco, mujoco_offline, paper, quick",
        ),
        (["--data.demonstration_share=0.5"], "data.demonstration_share=0.5: needs data.demonstrations"),
        (["--data.demonstration_share=2"], "data.demonstration_share=2.0: must be between 0 and 1"),
        (["--model.agent=DQN", "--model.agent.cloning_weight=1"], "model.agent"),
        (["--model.agent=SAC", "--model.agent.cloning_weight=1"], "cloning_weight=1.0: needs data.demon"),
        (["--model.phases=[{name: a, updates: 5}]"], "phases=.*: learn from demonstrations"),
        (["--model.phases=[{name: a, train: [clone]}]"], r"phases.a.train=\['clone'\]: must be some of"),
        (["--ckpt_path", "missing.ckpt"], "ckpt_path='missing.ckpt': there is no such file"),
        (["--model.decomposition.bias_correction=true", "--data.rrd_sample_size=1"], "rrd_sample_size=1: must"),
        (["--data.capacity=100000000000000"], "data.capacity=1.*: the full replay takes"),
        (["--env.kwargs.no_such=1"], "env.id='Pendulum-v1': cannot be made: .*no_such"),
        (["--model.agent.critic_learning_rate=-1"], "critic_learning_rate=-1.0: must not be negative"),
        (["--wandb_project=mine"], "wandb_project='mine': needs wandb"),
        (["--checkpoint.every_n_env_steps=0"], "every_n_env_steps=0: must be greater than zero"),
    ],
)
def test_bad_input_is_one_line_before_any_work(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.search(message, error_of([*DEBUG, *args], capsys))


def test_runs_folder_that_cannot_be_written_to(capsys: pytest.CaptureFixture[str]) -> None:
    error = error_of([*DEBUG, "--trainer.default_root_dir=/proc/nowhere"], capsys)
    assert "trainer.default_root_dir='/proc/nowhere': cannot be written to" in error


def test_user_environment_from_the_command_line() -> None:
    main([*DEBUG, "--env.id=tests.environments:Follow-v0"])
    assert metrics(env="Follow-v0")[-1]["step"] == "2000"


def test_metrics_are_logged_where_an_epoch_is_shorter_than_their_interval() -> None:
    """Lightning would warn that they are not; the interval is of updates, in any epoch."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        main([*DEBUG, "--data.updates_per_step=5", "--trainer.log_every_n_steps=30"])
    assert not [each for each in caught if "logging interval" in str(each.message)]
    # 80 updates: five in each of 16 iterations.
    assert sum(bool(row["loss/reward"]) for row in metrics()) == 80 // 30


def test_help_names_the_sections() -> None:
    command = [sys.executable, "-m", "rrd_lightning", "fit", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in (
        "--env.id",
        "--collect.total_env_steps",
        "--evaluate.every_n_env_steps",
        "--data.train_batches",
    ):
        assert name in shown
    assert "--optimizer" not in shown
