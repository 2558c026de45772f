"""Checkpoints on the command line: found, refused, and what they may name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from rrd_lightning import Environment, ParameterError, RRDModule
from rrd_lightning.cli import main
from tests.command_line import DEBUG, error_of
from tests.runs import make_collect, make_data, make_module, make_trainer, run


def test_fit_goes_on_from_the_last_checkpoint() -> None:
    main([*DEBUG, "--collect.total_env_steps=1000"])
    main(["fit", "--ckpt_path", "last", "--collect.total_env_steps=2000", "--trainer.accelerator=cpu"])
    main(DEBUG)
    resumed, whole = (
        torch.load(f"runs/Pendulum-v1/version_{version}/checkpoints/last.ckpt", weights_only=True)
        for version in (1, 2)
    )
    assert resumed["env_steps"] == whole["env_steps"] == 2000
    assert resumed["global_step"] == whole["global_step"]
    assert resumed["config"]["data"]["batch_size"] == 32
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name])


def test_what_the_command_line_says_wins_over_a_checkpoint() -> None:
    main([*DEBUG, "--collect.total_env_steps=1000"])
    changed = ["--model.agent.actor_learning_rate=1e-5", "--data.train_batches=7"]
    main(["fit", "--ckpt_path=last", *changed, "--collect.total_env_steps=1500", "--trainer.accelerator=cpu"])
    resumed = torch.load("runs/Pendulum-v1/version_1/checkpoints/last.ckpt", weights_only=True)
    rates = {group["name"]: group["lr"] for group in resumed["optimizer_states"][0]["param_groups"]}
    assert rates == {"reward": 3e-4, "actor": 1e-5, "critic": 3e-4, "temperature": 3e-4}
    with pytest.raises(SystemExit, match=r"error: model.train_policy=False: trains \['reward'\]"):
        main(["fit", "--ckpt_path=last", "--model.train_policy=false", "--trainer.accelerator=cpu"])


def test_missing_checkpoint_named_in_a_config(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text("env:\n  id: Pendulum-v1\nckpt_path: missing.ckpt\n")
    assert "ckpt_path='missing.ckpt': there is no such file" in error_of(
        ["fit", "--config", "mine.yaml"], capsys
    )


def test_a_checkpoint_of_python_is_tested_with_its_environment_named() -> None:
    _, module, _ = run("Pendulum-v1", collect={"warmup_steps": 200, "total_env_steps": 300})
    module.trainer.save_checkpoint("python.ckpt", weights_only=False)
    sizes = ["--model.agent.hidden_sizes=[32,32]", "--model.decomposition.hidden_sizes=[32,32]"]
    main(["test", "--ckpt_path=python.ckpt", "--env.id=Pendulum-v1", "--model.agent=SAC", *sizes])
    assert list(Path("runs/Pendulum-v1/version_0/plots").glob("*.png"))


def test_damaged_and_foreign_checkpoints(capsys: pytest.CaptureFixture[str]) -> None:
    Path("damaged.ckpt").write_bytes(b"PK\x03\x04 but no more")
    torch.save({"state_dict": {}}, "foreign.ckpt")
    for command in ("fit", "validate", "test"):
        config = ["--config", "debug"] if command == "fit" else []
        error = error_of([command, *config, "--ckpt_path", "damaged.ckpt"], capsys)
        assert "ckpt_path='damaged.ckpt': is damaged or not a checkpoint" in error
        error = error_of([command, *config, "--ckpt_path=foreign.ckpt"], capsys)
        assert "ckpt_path='foreign.ckpt': is not a checkpoint of rrd_lightning" in error


def test_checkpoint_of_another_network_size() -> None:
    main([*DEBUG, "--collect.total_env_steps=600"])
    checkpoint = "runs/Pendulum-v1/version_0/checkpoints/last.ckpt"
    shape = r"ckpt_path='.*last.ckpt': has agent.actor.* of shape \(8?.*\), and the model"
    for changed, message in (
        ("agent.hidden_sizes=[8]", shape),
        ("decomposition=EpisodicReward", r"model.decomposition='.*EpisodicReward': .*last.ckpt is of .*RRD"),
    ):
        with pytest.raises(SystemExit, match=f"error: {message}"):
            main(["test", "--ckpt_path", checkpoint, f"--model.{changed}", "--trainer.accelerator=cpu"])


def test_checkpoint_of_another_environment() -> None:
    """Two of one shape, such as HalfCheetah and Walker2d, are told apart by their names."""
    main([*DEBUG, "--env.id=Twin-v0", "--collect.total_env_steps=600"])
    checkpoint = "runs/Twin-v0/version_0/checkpoints/last.ckpt"
    for other, message in (
        ("OtherTwin-v0", "env.id='OtherTwin-v0': .*last.ckpt was trained on Twin-v0"),
        ("Pendulum-v1", "observation_space={.*}: .*last.ckpt is of {.*}: another environment"),
    ):
        with pytest.raises(SystemExit, match=f"error: {message}"):
            main(["fit", "--ckpt_path", checkpoint, f"--env.id={other}", "--trainer.accelerator=cpu"])


def test_checkpoint_of_a_newer_format() -> None:
    torch.save(
        {"rrd_lightning_format": 99, "state_dict": {}, "hyper_parameters": {}, "env_steps": 0}, "new.ckpt"
    )
    message = "error: ckpt_path='new.ckpt': has format 99, .* reads format 5: use a newer version"
    with pytest.raises(SystemExit, match=message):
        main(["test", "--ckpt_path", "new.ckpt"])


class Malicious:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("pickle-ran").absolute(),)


def test_nothing_in_a_checkpoint_is_run() -> None:
    main([*DEBUG, "--collect.total_env_steps=600"])
    checkpoint = Path("runs/Pendulum-v1/version_0/checkpoints/last.ckpt")
    content = torch.load(checkpoint, weights_only=True)
    (replay,) = checkpoint.parent.glob(f"{content['replay']}/rank-0/replay.pt")
    for key in ("optimizer_states", "extra"):
        torch.save({**content, key: Malicious()}, "bad.ckpt")
        torch.load("bad.ckpt", weights_only=False)
        Path("pickle-ran").unlink()  # it would run
        for load in (
            lambda: main(["fit", "--ckpt_path", "bad.ckpt"]),
            lambda: main(["test", "--ckpt_path", "bad.ckpt"]),
            lambda: RRDModule.load_from_checkpoint("bad.ckpt"),
            lambda: make_trainer(make_collect(Environment("Pendulum-v1"))).fit(
                make_module(Environment("Pendulum-v1")), make_data(), ckpt_path="bad.ckpt", weights_only=False
            ),
        ):
            with pytest.raises((SystemExit, ParameterError), match="is damaged or not a checkpoint"):
                load()
    for file in (replay, replay.with_name("process.pt"), next(replay.parent.glob("episodes-*"))):
        good = file.read_bytes()
        torch.save(Malicious(), file)
        with pytest.raises(SystemExit, match=f"{file.name}': is damaged or not a checkpoint"):
            main(["fit", "--ckpt_path", str(checkpoint), "--collect.total_env_steps=700"])
        file.write_bytes(good)
    assert not Path("pickle-ran").exists()


def test_the_configuration_in_a_checkpoint_names_components_alone() -> None:
    main([*DEBUG, "--collect.total_env_steps=600"])
    content = torch.load("runs/Pendulum-v1/version_0/checkpoints/last.ckpt", weights_only=True)
    kinds = {"agent": "Agent", "decomposition": "Decomposition", "sampler": "PairedSampler"}
    for part, kind in {**kinds, "demonstrations": "Reader"}.items():
        for class_path in ("os.system", "tests.environments.Follow", "rrd_lightning.datasets.Source"):
            config = copy.deepcopy(content["config"])
            section = "model" if part in config["model"] else "data"
            config[section][part] = {"class_path": class_path, "init_args": {}}
            torch.save({**content, "config": config}, "bad.ckpt")
            message = f"error: {section}.{part}='{class_path}': must name a .* {kind}"
            with pytest.raises(SystemExit, match=message):
                main(["test", "--ckpt_path", "bad.ckpt"])
    # Nor does it have a say in the trainer, whose callbacks may call anything.
    trainer = {"callbacks": [{"class_path": "LambdaCallback", "init_args": {"setup": "os.system"}}]}
    torch.save({**content, "config": {**content["config"], "trainer": trainer}}, "bad.ckpt")
    with pytest.raises(SystemExit, match=r"error: ckpt_path='bad.ckpt': has a configuration of other sections"):
        main(["test", "--ckpt_path", "bad.ckpt"])
    # Networks are checked by the components that they are of.
    for class_path in ("os.system", "builtins.int"):
        config = copy.deepcopy(content["config"])
        config["model"]["agent"]["init_args"]["critic"] = class_path
        torch.save({**content, "config": config}, "bad.ckpt")
        with pytest.raises(SystemExit, match=f"critic='{class_path}': must name a subclass of Module"):
            main(["test", "--ckpt_path", "bad.ckpt"])


def test_last_begins_a_run_where_there_is_none(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """So the same command begins a job and, after a restart, goes on with it."""
    job = [*DEBUG, "--trainer.default_root_dir=jobs/1", "--ckpt_path=last"]
    main([*job, "--collect.total_env_steps=600"])
    assert "No last.ckpt in jobs/1 yet: starting a new run" in caplog.text
    main([*job, "--collect.total_env_steps=700"])
    assert "Resumed at 600 environment steps" in caplog.text
    assert "ckpt_path='last': there is no runs/" in error_of(["test", "--ckpt_path", "last"], capsys)
