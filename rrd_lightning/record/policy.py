"""What plays the episodes to record: a policy of the user's, or a trained one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from rrd_lightning.envs.libero import Libero
from rrd_lightning.module import RRDModule

Observation = dict[str, np.ndarray[Any, Any]]


class Policy(ABC):
    """Plays one episode. A subclass of your own is chosen by its class path, and made anew for each episode.

    Args:
        env: the environment, after its reset; its `Libero.state_names` name the numbers that `act` is given.
        generator: for everything random.
    """

    def __init__(self, env: Libero, generator: np.random.Generator) -> None:
        self.env = env
        self.generator = generator

    @abstractmethod
    def act(self, observation: Observation) -> Any:
        """Return the next action, ``[7]`` in [-1, 1].

        Args:
            observation: ``robot``, ``objects`` and ``proprioception``, and the images if they are recorded.
        """


class Trained:
    """The policy of a module.

    Args:
        module: the module.
        explore: act as for training.
        repeat: times that each action is taken.
    """

    def __init__(self, module: RRDModule, explore: bool, repeat: int) -> None:
        self._module, self._explore, self._repeat = module, explore, repeat
        self._steps, self._action = 0, None

    def act(self, observation: Observation) -> Any:
        """Return the next action; what the module does not know is left out."""
        if self._steps % self._repeat == 0:
            space: Any = self._module.observation_space
            seen = {key: observation[key] for key in space.spaces}
            self._action = self._module.predict(seen, explore=self._explore)
        self._steps += 1
        return self._action
