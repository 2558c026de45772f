"""The interface of every format: names of episodes, facts about them, and the episodes themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, TypeAlias

import torch
from gymnasium import Space
from tensordict import TensorDict
from torch import Tensor

from rrd_lightning import keys
from rrd_lightning.errors import ParameterError

# Observation space and action space.
Spaces: TypeAlias = tuple[Space[Any], Space[Any]]

INSTALL = "pip install 'rrd-lightning[demonstrations]'"


class Facts(NamedTuple):
    """What is known of an episode before it is read.

    Args:
        length: T, in steps.
        success: the outcome, if known.
    """

    length: int
    success: bool | None


class Source(ABC):
    """The episodes of one file or data set, read one by one.

    Attributes:
        name: path of the file or id of the data set, unique in a run.
    """

    name: str

    @abstractmethod
    def spaces(self) -> Spaces:
        """Return observation and action space, for a run without an environment.

        They are those of the environment that the episodes come from: action bounds other than [-1, 1] are
        what a policy's actions are scaled to. `facts` and `read` are given the model's spaces, float32 and
        with actions in [-1, 1].

        Raises:
            ParameterError: if no episode is usable.
        """

    @abstractmethod
    def episodes(self) -> list[str]:
        """Return the names of the episodes, in a fixed order.

        Raises:
            ParameterError: if the file cannot be read.
        """

    @abstractmethod
    def facts(self, episode: str, spaces: Spaces) -> Facts:
        """Check an episode, as far as that is cheap, and return its length and outcome.

        Args:
            episode: name of the episode.
            spaces: observation and action space of an episode.

        Raises:
            ParameterError: naming file, episode and key, if it is damaged or does not fit the spaces.
        """

    @abstractmethod
    def read(self, episode: str, spaces: Spaces) -> TensorDict:
        """Read an episode, as `make_episode` builds it.

        Args:
            episode: name of the episode.
            spaces: observation and action space of an episode.

        Raises:
            ParameterError: naming file, episode and key, if it is damaged.
        """

    def first_step(self) -> int:
        """The row of the source with the action of an episode's first transition."""
        return 0

    def describe(self, spaces: Spaces) -> str:
        """Say in a line what was decided about how the source is read, for the log; nothing by default."""
        return ""

    def bad(self, episode: str, key: str, problem: str) -> ParameterError:
        """Return the error for a key of an episode; an empty string leaves a part out."""
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
    """Build an episode of T steps, as `EpisodeReplay.add_episode` takes it.

    Args:
        observation: ``[T + 1, ...]``, or a dictionary of these for a Dict space.
        action: ``[T, ...]``; continuous ones in [-1, 1].
        reward: ``[T]``, the true reward of each step, for evaluation alone; zeros if unknown.
        episode_return: R, the feedback to learn from.
        terminated: whether the task ended with the last step, rather than by a time limit.
        success: whether the task succeeded, if known.
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
