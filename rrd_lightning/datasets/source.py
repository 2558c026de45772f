"""What every format offers: names of episodes, facts about them, and the episodes themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, TypeAlias

import torch
from gymnasium import Space
from tensordict import TensorDict
from torch import Tensor

from rrd_lightning import keys
from rrd_lightning.errors import ParameterError

# Of observations and of actions.
Spaces: TypeAlias = tuple[Space[Any], Space[Any]]

INSTALL = "pip install 'rrd-lightning[demonstrations]'"


class Facts(NamedTuple):
    """What is known of an episode before it is read: T in steps, and the outcome if there is one."""

    length: int
    success: bool | None


class Source(ABC):
    """The episodes of one file or data set, read one by one.

    Attributes:
        name: of the file or data set; with an episode's name it names the episode.
    """

    name: str

    @abstractmethod
    def spaces(self) -> Spaces:
        """Return the observation and the action space of the first episode that has them.

        Raises:
            ParameterError: if there is none.
        """

    @abstractmethod
    def episodes(self) -> list[str]:
        """Return the names of the episodes, in a fixed order.

        Raises:
            ParameterError: if the file cannot be read.
        """

    @abstractmethod
    def facts(self, episode: str, spaces: Spaces) -> Facts:
        """Check an episode as far as that is quick, and return what is known of it.

        Raises:
            ParameterError: naming file, episode and key, if it cannot serve the spaces.
        """

    @abstractmethod
    def read(self, episode: str, spaces: Spaces) -> TensorDict:
        """Read an episode, as `EpisodeReplay.add_episode` takes it.

        Raises:
            ParameterError: naming file, episode and key, if it is damaged.
        """

    def first_step(self) -> int:
        """The row of the file, or data set, that an episode's first transition takes its action from."""
        return 0

    def bad(self, episode: str, key: str, problem: str) -> ParameterError:
        """Return the error of one key of one episode."""
        return ParameterError("data.demonstrations", "/".join(filter(None, (self.name, episode, key))), problem)


def make_episode(
    observation: Tensor | dict[str, Tensor],
    action: Tensor,
    reward: Tensor,
    *,
    episode_return: float,
    terminated: bool,
    success: bool | None,
) -> TensorDict:
    """Put the parts of an episode together.

    Args:
        observation: ``[T + 1, ...]``, or several of these by name.
        action: ``[T, ...]``.
        reward: ``[T]``, the true ones.
        episode_return: R.
        terminated: whether the last step ended the task.
        success: whether the task succeeded, if that is known.
    """
    if isinstance(observation, dict):
        observation = TensorDict(observation, [len(action) + 1])
    episode = TensorDict(
        {
            keys.OBSERVATION: observation,
            keys.ACTION: action,
            keys.REWARD: reward,
            keys.EPISODE_RETURN: torch.tensor(episode_return, dtype=torch.float32),
            keys.TERMINATED: torch.tensor(terminated),
        },
        [],
    )
    if success is not None:
        episode[keys.SUCCESS] = torch.tensor(success)
    return episode
