"""What every decomposition must do: train an agent, resume to the last bit, load without an environment."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from rrd_lightning import RRDModule, keys
from rrd_lightning.agents import SAC
from tests.resuming import assert_same, fit, rows
from tests.runs import run

FAST = {"actor_learning_rate": 3e-3, "critic_learning_rate": 3e-3, "temperature_learning_rate": 3e-3}


def follow(decomposition: Any, seed: int = 0, env_id: str = "Follow-v0", **data: Any) -> float:
    """The mean return of the policy that SAC learns on Follow-v0, on the budget of tests/test_learning.py.

    Uniform actions get -6.7, zero actions -5, the best policy 0.
    """
    trainer, _, _ = run(
        env_id,
        seed=seed,
        module={
            "agent": partial(SAC, hidden_sizes=(32, 32), gamma=0.5, **FAST),
            "decomposition": decomposition,
        },
        data={"train_batches": 20, "batch_size": 64, "rrd_batch_size": 128, "rrd_sample_size": 4, **data},
        collect={"warmup_steps": 500, "total_env_steps": 2000},
        evaluate={"episodes": 10, "every_n_env_steps": 10_000},
    )
    return float(trainer.callback_metrics["evaluate/return_mean"])


def check_resumes_and_loads(decomposition: Any, monkeypatch: pytest.MonkeyPatch, **data: Any) -> RRDModule:
    options: dict[str, Any] = {"decomposition": decomposition, "data": data}
    whole = fit("Follow-v0", "whole", **options)
    assert fit("Follow-v0", "first", stop_at=15, **options) == {}
    last = Path("first/version_0/checkpoints/last.ckpt")
    assert_same(whole, fit("Follow-v0", "second", ckpt_path=last, **options))
    later = rows("second")
    assert later == rows("whole")[-len(later) :]
    assert len(later) > 1
    monkeypatch.setattr("gymnasium.make", None)
    loaded = RRDModule.load_from_checkpoint("second/version_0/checkpoints/last.ckpt")
    assert_same(loaded.state_dict(), whole["weights"])
    return loaded


def make_transitions(episode_return: list[float], episode_length: list[int]) -> TensorDict:
    """Transitions of which no more is known than what the return tells."""
    facts = {
        keys.EPISODE_RETURN: torch.tensor(episode_return, dtype=torch.float32),
        keys.EPISODE_LENGTH: torch.tensor(episode_length),
    }
    return TensorDict(facts, [len(episode_return)])
