"""An encoder that another run trained stands before the replay, and stays as it is."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from lightning.pytorch import Callback
from tensordict import TensorDict
from torch import nn

from rrd_lightning import Environment, ParameterError, RRDModule, keys
from rrd_lightning.agents import DQN, SAC
from rrd_lightning.export import export
from rrd_lightning.pretrained import PretrainedEncoder
from tests.resuming import StopAt, assert_same, fit
from tests.runs import SMALL, make_module, run


class Mean(nn.Module):
    """A user's encoder, with a weight that it might have read from a file."""

    def __init__(self, observation_space: Any, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, observation: Any) -> Any:
        images = torch.stack([observation["front"], observation["side"]], 1)
        return self.scale * images.float().mean((-3, -2, -1))


class Keep(Callback):
    """Keeps the episodes that were collected."""

    def __init__(self) -> None:
        self.episodes: list[Any] = []

    def on_episodes(self, trainer: Any, module: Any, episodes: list[Any]) -> None:
        self.episodes.extend(episodes)


@pytest.fixture
def trained(tmp_path: Path) -> tuple[str, RRDModule]:
    """A short run from images, and its checkpoint."""
    agent = partial(SAC, **SMALL, random_shift=2)
    trainer, module, _ = run("Pixels-v0", module={"agent": agent}, collect={"total_env_steps": 120})
    path = str(tmp_path / "seeing.ckpt")
    trainer.save_checkpoint(path)
    return path, module


def test_replay_and_networks_have_the_features_of_another_runs_encoder(trained: tuple[str, RRDModule]) -> None:
    path, seeing = trained
    keep = Keep()
    _, module, data = run(
        "Pixels-v0",
        module={"encoder": path, "normalize_observations": True},
        collect={"total_env_steps": 160},
        evaluate={"episodes": 1},
        callbacks=[keep],
    )
    assert module.encoder is not None
    assert module.model_spaces[0].shape == (seeing.agent.encoder.features,)
    assert module.episode_spaces[0] == seeing.model_spaces[0]
    assert_same(dict(module.encoder.encoder.state_dict()), dict(seeing.agent.encoder.state_dict()))
    collected = keep.episodes
    images = collected[-1][keys.OBSERVATION]
    features = seeing.eval().agent.encoder(images)
    stored = list(data.replay.observations())[-1]
    torch.testing.assert_close(stored, features)
    assert module.normalizer is not None
    seen = module.normalizer(features[:3])
    torch.testing.assert_close(module.act(images[:3]), module.agent.act(seen, explore=False))
    now, later = module.normalizer(features[:-1]), module.normalizer(features[1:])
    steps = {keys.OBSERVATION: now, keys.NEXT_OBSERVATION: later, keys.ACTION: collected[-1][keys.ACTION]}
    torch.testing.assert_close(module.episode_rewards(collected[-1]), module.decomposition.reward(steps))


def test_a_checkpoint_brings_the_encoder_along(trained: tuple[str, RRDModule]) -> None:
    path, _ = trained
    trainer, module, _ = run("Pixels-v0", module={"encoder": path}, collect={"total_env_steps": 120})
    trainer.save_checkpoint("policy.ckpt")
    Path(path).unlink()
    loaded = RRDModule.load_from_checkpoint("policy.ckpt")
    observation = module.observation_space.sample()
    np.testing.assert_array_equal(loaded.predict(observation), module.eval().predict(observation))


def test_a_run_with_a_pretrained_encoder_resumes_to_the_last_bit(trained: tuple[str, RRDModule]) -> None:
    options: dict[str, Any] = {"total": 160, "encoder": trained[0], "normalize_observations": True}
    whole = fit("Pixels-v0", "whole", **options)
    assert fit("Pixels-v0", "first", stop_at=StopAt(5), **options) == {}
    resumed = fit("Pixels-v0", "second", ckpt_path=Path("first/version_0/checkpoints/last.ckpt"), **options)
    assert_same(whole, resumed)


def test_stacks_of_frames_are_encoded_as_stacks() -> None:
    env = Environment("Pixels-v0", frame_stack=3)
    module = make_module(env, encoder={"bottleneck": True})
    assert module.encoder is not None
    for parameter in module.encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    images = {key: torch.randint(0, 256, (6, 3, 36, 36), dtype=torch.uint8) for key in ("front", "side")}
    observed = TensorDict({**images, "number": torch.rand(6, 1)}, [6])
    episode = TensorDict({keys.OBSERVATION: observed, keys.ACTION: torch.rand(5, 1)}, [])
    stored = module.encoded(episode)
    assert stored[keys.OBSERVATION].shape == (6, module.encoder.features)
    of_step = {1: [0, 0, 1], 5: [3, 4, 5]}
    for step, frames in of_step.items():
        stack = {
            **{key: image[frames][None] for key, image in images.items()},
            "number": observed["number"][[step]],
        }
        torch.testing.assert_close(stored[keys.OBSERVATION][[step]], module.encoder(stack))
    assert episode[keys.OBSERVATION] is observed


def test_a_users_module_may_see() -> None:
    config = {"class_path": "tests.test_pretrained.Mean", "init_args": {"scale": 0.5}}
    trainer, module, data = run("Pixels-v0", module={"encoder": config}, collect={"total_env_steps": 120})
    assert module.model_spaces[0].shape == (2,)
    trainer.save_checkpoint("policy.ckpt")
    loaded = RRDModule.load_from_checkpoint("policy.ckpt")
    observation = {
        key: np.full((3, 36, 36), value, np.uint8) for key, value in {"front": 100, "side": 20}.items()
    }
    seen = loaded.seen({key: torch.from_numpy(part[None]) for key, part in observation.items()})
    assert torch.as_tensor(seen).tolist() == [[50.0, 10.0]]
    assert next(iter(data.replay.observations())).shape[1:] == (2,)


def test_an_encoder_is_handed_on_by_a_run_that_had_it_from_another(trained: tuple[str, RRDModule]) -> None:
    path, seeing = trained
    trainer, _, _ = run("Pixels-v0", module={"encoder": path}, collect={"total_env_steps": 120})
    trainer.save_checkpoint("policy.ckpt")
    encoder = PretrainedEncoder(Path("policy.ckpt"), seeing.model_spaces[0])
    assert_same(dict(encoder.encoder.state_dict()), dict(seeing.agent.encoder.state_dict()))


def test_without_weights_there_are_no_features(trained: tuple[str, RRDModule]) -> None:
    """The configuration of a resumed run may have a stand-in for a checkpoint that is gone."""
    _, seeing = trained
    encoder = PretrainedEncoder({"bottleneck": True}, seeing.model_spaces[0])
    observation = torch.utils._pytree.tree_map(torch.from_numpy, seeing.observation_space.sample())
    assert encoder(observation)[:64].isnan().all()


def test_programs_see_by_the_encoder(trained: tuple[str, RRDModule]) -> None:
    trainer, module, _ = run("Pixels-v0", module={"encoder": trained[0]}, collect={"total_env_steps": 120})
    trainer.save_checkpoint("policy.ckpt")
    observation = {key: part[None] for key, part in module.observation_space.sample().items()}
    policy = torch.export.load(export("policy.ckpt")[0]).module()
    found = policy({key: torch.from_numpy(part) for key, part in observation.items()})
    np.testing.assert_allclose(found.numpy(), module.eval().predict(observation), rtol=1e-4, atol=1e-5)


def test_the_encoder_of_a_q_network_is_taken() -> None:
    agent = partial(DQN, exploration_steps=100)
    trainer, module, _ = run("ChooseByImage-v0", module={"agent": agent}, collect={"total_env_steps": 120})
    trainer.save_checkpoint("seeing.ckpt")
    encoder = PretrainedEncoder("seeing.ckpt", module.model_spaces[0])
    assert encoder.features == 512
    image = torch.randint(0, 256, (2, *(module.observation_space.shape or ())), dtype=torch.uint8)
    torch.testing.assert_close(encoder(image), module.agent.network.encoder(image))


def test_what_cannot_be_taken_is_refused(trained: tuple[str, RRDModule]) -> None:
    path, seeing = trained
    space = seeing.model_spaces[0]
    with pytest.raises(ParameterError, match=re.escape("model.encoder='none.ckpt': cannot be read")):
        PretrainedEncoder("none.ckpt", space)
    with pytest.raises(ParameterError, match=r"model\.encoder.*its run observes"):
        PretrainedEncoder(path, Box(-1, 1, (3,), np.float32))
    with pytest.raises(ParameterError, match=r"model\.encoder='no\.such\.Module'"):
        PretrainedEncoder("no.such.Module", space)
    with pytest.raises(ParameterError, match=r"model\.encoder=.*checkpoints hold it"):
        PretrainedEncoder({"class_path": "tests.test_pretrained.Mean", "init_args": {"scale": space}}, space)
    agent = partial(SAC, **SMALL, encoder="tests.test_pretrained.Mean")
    options = {"agent": agent, "normalize_observations": True}
    trainer, module, _ = run("Pixels-v0", module=options, collect={"total_env_steps": 120})
    trainer.save_checkpoint("own.ckpt")
    with pytest.raises(ParameterError, match="is of normalised observations"):
        PretrainedEncoder("own.ckpt", space)
    trainer, module, _ = run(collect={"total_env_steps": 120})
    trainer.save_checkpoint("blind.ckpt")
    with pytest.raises(ParameterError, match="its SAC has not trained an encoder of images"):
        PretrainedEncoder("blind.ckpt", module.model_spaces[0])
