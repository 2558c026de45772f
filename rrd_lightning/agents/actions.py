"""The actions that agents serve."""

from __future__ import annotations

from typing import Any

from gymnasium import Space, spaces
from torch import Tensor

from rrd_lightning.errors import ParameterError
from rrd_lightning.networks.observations import is_vector
from rrd_lightning.spaces import has_finite_range


def count_continuous(action_space: Space[Any], agent: object) -> int:
    """Return the number of dimensions of continuous actions.

    Args:
        action_space: a bounded vector.
        agent: that serves it, for errors.

    Raises:
        ParameterError: if it is another space.
    """
    name = type(agent).__name__
    if not (isinstance(action_space, spaces.Box) and is_vector(action_space)):
        problem = f"{name} serves continuous vectors, a Box of one dimension and floating numbers"
        if isinstance(action_space, spaces.Discrete):
            problem += "; DQN and DiscreteSAC serve Discrete"
        raise ParameterError("action_space", action_space, problem)
    if not has_finite_range(action_space):
        problem = f"{name} needs finite bounds on every action: wrap the environment to give it some"
        raise ParameterError("action_space", action_space, problem)
    return int(action_space.shape[0])


class DiscreteActions:
    """The actions of a Discrete, of which networks give numbers in order, from the first to the last.

    Args:
        action_space: a Discrete, which may start anywhere.
        agent: that serves it, for errors.

    Attributes:
        count: how many there are.

    Raises:
        ParameterError: if it is another space.
    """

    def __init__(self, action_space: Space[Any], agent: object) -> None:
        if not isinstance(action_space, spaces.Discrete):
            problem = f"{type(agent).__name__} serves Discrete; SAC, TD3 and DDPG serve continuous vectors"
            raise ParameterError("action_space", action_space, problem)
        self.count = int(action_space.n)
        self._start = int(action_space.start)

    def chosen(self, values: Tensor, action: Tensor) -> Tensor:
        """Return the values ``[..., batch]`` of actions ``[batch]``, out of ``[..., batch, count]``."""
        place = (action.long() - self._start).expand(values.shape[:-1])
        return values.gather(-1, place[..., None]).squeeze(-1)

    def native(self, place: Tensor) -> Tensor:
        """Return the actions ``[...]`` at some places in the order, counted from 0."""
        return place + self._start
