"""Policies that play for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from rrd_lightning.record import Policy


class Random(Policy):
    """Acts at random."""

    def act(self, observation: dict[str, np.ndarray]) -> Any:
        assert set(self.env.state_names) <= set(observation)
        return self.generator.uniform(-1, 1, 7)


class Interrupted(Random):
    """Is interrupted in its second episode, the first time."""

    episodes = 0

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        type(self).episodes += 1
        if type(self).episodes == 2:
            raise KeyboardInterrupt


class Teleporting(Policy):
    """Turns the stove on at its third step, without touching it."""

    steps = 0

    def act(self, observation: dict[str, np.ndarray]) -> Any:
        self.steps += 1
        if self.steps == 3:
            self.env._simulator.sim.data.set_joint_qpos("flat_stove_1_button", 1.0)
        return np.zeros(7)
