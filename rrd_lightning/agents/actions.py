"""The actions that agents serve."""

from __future__ import annotations

from typing import Any

from gymnasium import Space, spaces

from rrd_lightning.errors import ParameterError
from rrd_lightning.networks.observations import is_vector


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
    if not action_space.is_bounded():
        raise ParameterError("action_space", action_space, f"{name} needs finite bounds on every action")
    return int(action_space.shape[0])
