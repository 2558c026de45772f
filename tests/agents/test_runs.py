"""Every agent in runs: it learns from returns alone, resumes to the last bit, loads, and is exported."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from rrd_lightning import Environment, RRDModule
from rrd_lightning.decomposition import RRD
from rrd_lightning.export import Policy, export
from rrd_lightning.spaces import zeros
from tests.agents.small import AGENTS
from tests.resuming import StopAt, assert_same, fit, rows
from tests.runs import run


@pytest.mark.parametrize("name", AGENTS)
def test_a_small_task_is_learned_from_its_return(name: str) -> None:
    small = AGENTS[name]
    trainer, _, _ = run(
        small.env_id,
        module={
            "agent": small.agent,
            "decomposition": partial(RRD, hidden_sizes=(32, 32), learning_rate=small.reward_learning_rate),
        },
        data={"train_batches": 20, "batch_size": 64, "rrd_batch_size": 128, "rrd_sample_size": 4},
        collect={"warmup_steps": 500, "total_env_steps": small.total_env_steps},
        evaluate={"episodes": 10, "every_n_env_steps": 10_000},
    )
    assert trainer.callback_metrics["evaluate/return_mean"] > small.learned


@pytest.mark.parametrize("name", AGENTS)
def test_a_resumed_run_is_the_same_to_the_last_bit(name: str) -> None:
    env_id, agent = AGENTS[name][:2]
    whole = fit(env_id, "whole", agent=agent)
    assert fit(env_id, "first", stop_at=StopAt(7), agent=agent) == {}
    last = Path("first/version_0/checkpoints/last.ckpt")
    resumed = fit(env_id, "second", ckpt_path=last, agent=agent)
    assert_same(whole, resumed)
    later = rows("second")
    assert later == rows("whole")[-len(later) :]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gymnasium.make", None)
        loaded = RRDModule.load_from_checkpoint(Path("second/version_0/checkpoints/last.ckpt"))
    assert_same(dict(loaded.state_dict()), whole["weights"])


@pytest.mark.filterwarnings("ignore:.*bfloat16.*:UserWarning")
@pytest.mark.parametrize("name", AGENTS)
def test_bfloat16_by_autocast(name: str) -> None:
    env_id, agent = AGENTS[name][:2]
    options = {"collect": {"total_env_steps": 140}, "module": {"agent": agent}}
    trainer, module, _ = run(env_id, precision="bf16-mixed", **options)
    assert trainer.global_step == 8
    assert all(each.dtype == torch.float32 and each.isfinite().all() for each in module.parameters())


@pytest.mark.parametrize("name", AGENTS)
def test_actions_are_the_environment_s_and_policies_are_exported(name: str) -> None:
    env_id, agent = AGENTS[name][:2]
    env = Environment(env_id)
    assert fit(env_id, "run", total=101, agent=agent)["updates"] > 0
    last = "run/version_0/checkpoints/last.ckpt"
    module = RRDModule.load_from_checkpoint(Path(last))
    for explore in (True, False):
        for _ in range(20):
            assert env.action_space.contains(module.predict(env.observation_space.sample(), explore=explore))
    written = export(last)
    policy = torch.export.load(written[0]).module()
    observation = zeros(env.observation_space, 5)
    torch.testing.assert_close(policy(observation), Policy(module)(observation))
