"""Any agent with any decomposition, and what makes no sense before anything is done."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rrd_lightning import Environment, ParameterError, RRDModule, agents, decomposition, keys
from rrd_lightning.agents import Agent
from rrd_lightning.decomposition import Decomposition, LearnedReward
from rrd_lightning.engines import Eager
from rrd_lightning.envs import Rollout
from rrd_lightning.episode import episode_transitions
from rrd_lightning.replay import EpisodeReplay, PairedSampler
from tests.runs import run

KINDS = {
    kind: [each for each in vars(room).values() if isinstance(each, type) and issubclass(each, kind)]
    for room, kind in ((agents, Agent), (decomposition, Decomposition))
}
AGENTS = [each for each in KINDS[Agent] if each not in (Agent, agents.ActorCritic)]
DECOMPOSITIONS = [each for each in KINDS[Decomposition] if each not in (Decomposition, LearnedReward)]
DISCRETE = (agents.DQN, agents.DiscreteSAC)
VECTOR, IMAGE = spaces.Box(-1, 1, (1,), np.float32), spaces.Box(0, 255, (1, 36, 36), np.uint8)


def env_of(agent: type[Agent]) -> str:
    return "Choose-v0" if agent in DISCRETE else "Follow-v0"


@pytest.fixture(scope="module")
def replays() -> dict[str, EpisodeReplay]:
    """Some episodes of both environments, of which some are said to have succeeded."""
    found = {}
    for env_id in ("Choose-v0", "Follow-v0"):
        replay = EpisodeReplay(1000, PairedSampler(8, 8, 4, True))
        rollout = Rollout(Environment(env_id).make_vector(1))
        rollout.reset(0)
        rollout.envs.action_space.seed(0)
        for _ in range(60):
            for episode in rollout.step(rollout.envs.action_space.sample()):
                replay.add_episode(episode.set(keys.SUCCESS, torch.tensor(len(replay) % 20 == 0)))
        found[env_id] = replay
    return found


@pytest.mark.parametrize("learned_from", DECOMPOSITIONS)
@pytest.mark.parametrize("agent", AGENTS)
def test_any_agent_goes_with_any_decomposition(
    agent: type[Agent], learned_from: type[Decomposition], replays: dict[str, EpisodeReplay]
) -> None:
    replay, env = replays[env_of(agent)], Environment(env_of(agent))
    module = RRDModule(env.observation_space, env.action_space, partial(agent, hidden_sizes=(8,)), learned_from)
    replay.sampler.draws = module.decomposition.draws
    before = [each.clone() for each in module.agent.parameters() if each.requires_grad]
    engine = Eager(module, Eager.make_optimizer(module._parameter_groups()))
    for update in range(2):
        metrics = engine.update(replay.sample(), update)
    assert all(each.isfinite() for each in metrics.values())
    assert {f"loss/{name}" for name in module.decomposition.loss_names()} <= metrics.keys()
    after = [each for each in module.agent.parameters() if each.requires_grad]
    assert not all(torch.equal(*pair) for pair in zip(before, after, strict=True))


@pytest.mark.parametrize("learned_from", DECOMPOSITIONS)
def test_the_reward_of_a_step_or_why_there_is_none(learned_from: type[Decomposition]) -> None:
    env = Environment("Follow-v0")
    module = RRDModule(env.observation_space, env.action_space, decomposition=learned_from)
    step = np.zeros(1, np.float32), np.zeros(1, np.float32), np.ones(1, np.float32)
    if module.decomposition.draws != "nothing":
        assert module.reward(*step).shape == ()
    else:
        with pytest.raises(ParameterError, match=rf"decomposition='{learned_from.__name__}': .* it needs \w+"):
            module.reward(*step)
    rollout = Rollout(env.make_vector(1))
    rollout.reset(0)
    episodes: list[Any] = []
    while not episodes:
        episodes = rollout.step(np.zeros((1, 1), np.float32))
    transitions = episode_transitions(episodes[0])
    assert set(module.decomposition.needs) <= transitions.keys()
    assert module.episode_rewards(episodes[0]).shape == (10,)


@pytest.mark.parametrize("agent", AGENTS)
def test_actions_of_the_other_kind(agent: type[Agent]) -> None:
    other = VECTOR if agent in DISCRETE else spaces.Discrete(3)
    serves = "DQN|SAC" if agent in DISCRETE else "DQN and DiscreteSAC"
    with pytest.raises(ParameterError, match=rf"action_space=.*{agent.__name__} serves .*({serves})"):
        RRDModule(VECTOR, other, agent)


ONE_STEP = {"rrd_batch_size": 8, "rrd_sample_size": 1}
WITHOUT_A_MODEL = [each for each in DECOMPOSITIONS if each.draws == "nothing"]
MAKES_NO_SENSE: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (
        {"decomposition": partial(decomposition.RRD, bias_correction=True)},
        ONE_STEP,
        "rrd_sample_size=1: must be",
    ),
    (
        {"decomposition": partial(decomposition.RRDEnsemble, bias_correction=True)},
        ONE_STEP,
        "rrd_sample_size=1: must be at least 2 for the bias correction",
    ),
    *(({"decomposition": each, "train_policy": False}, {}, "learns nothing") for each in WITHOUT_A_MODEL),
    ({"agent": partial(agents.SAC, random_shift=4)}, {}, "random_shift=4: is of images"),
    ({"agent": partial(agents.TD3, gamma=1.5)}, {}, "gamma=1.5"),
    ({"gradient_clip": {"value": 1.0}}, {}, "gradient_clip='value': must be one of the groups"),
    ({"engine": "cpp", "agent": agents.TD3}, {}, "engine='cpp': cannot serve.*TD3"),
    ({"engine": "cpp", "decomposition": decomposition.IRCR}, {}, "engine='cpp': cannot serve.*IRCR"),
    ({}, {"rrd_batch_size": 8, "rrd_sample_size": 16}, "rrd_sample_size=16: must be at most rrd_batch_size=8"),
]


@pytest.mark.parametrize(("module", "data", "message"), MAKES_NO_SENSE)
def test_what_makes_no_sense_is_an_error_before_anything_is_done(
    module: dict[str, Any], data: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rollout, "step", None)
    with pytest.raises(ParameterError, match=message):
        run(module=module, data=data)


def test_images_have_nothing_to_normalise() -> None:
    with pytest.raises(ParameterError, match="normalize_observations=True: must be false"):
        RRDModule(IMAGE, spaces.Discrete(2), agents.DQN, normalize_observations=True)


def test_no_update_is_made_of_episodes_whose_success_is_unknown() -> None:
    learned_from = {"agent": agents.DQN, "decomposition": decomposition.SuccessDiscriminator}
    with pytest.raises(ParameterError, match=r"SuccessDiscriminator.*none of the \d+ stored episodes says"):
        run("Choose-v0", module=learned_from)


def test_episodes_that_never_end_teach_nothing() -> None:
    message = "total_env_steps=300: is spent with 0 steps of finished episodes"
    with pytest.raises(ParameterError, match=message):
        run("Bounded-v0", module={"decomposition": decomposition.IRCR})
