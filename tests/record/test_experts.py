"""The scripted experts of the benchmarks, in the simulator."""

from __future__ import annotations

from typing import Any

import pytest

from rrd_lightning.record import record
from tests.envs.libero_tasks import needs_libero, simulated

h5py = pytest.importorskip("h5py")
pytestmark = [*needs_libero, simulated]

BOWL, CHEESE = "put_the_bowl_on_the_stove", "put_the_cream_cheese_in_the_bowl"


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("expert", "task", "success"),
    [
        ("TurnOnTheStove", "turn_on_the_stove", True),
        ("FailAtTheStove", "turn_on_the_stove", False),
        slow("PutTheBowlOnTheStove", BOWL, True),
        slow("FailAtTheBowl", BOWL, False),
        slow("PutTheCreamCheeseInTheBowl", CHEESE, True),
        slow("FailAtTheCreamCheese", CHEESE, False),
    ],
)
def test_experts_do_what_they_are_named_for(expert: str, task: str, success: bool) -> None:
    (path,) = record(
        "played",
        policy=f"benchmarks.experts.{expert}",
        task=f"libero_goal/{task}",
        observations="state",
        episodes=1,
        max_episode_steps=120,
    )
    with h5py.File(path) as file:
        assert bool(file["data/demo_0"].attrs["success"]) is success
