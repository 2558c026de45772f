"""What a module is used for when it is trained: actions and rewards, for tensors and for NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from gymnasium import Space
from lightning.pytorch import LightningModule
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from rrd_lightning import keys
from rrd_lightning.adapter import SpaceAdapter
from rrd_lightning.agents import Agent
from rrd_lightning.decomposition import Decomposition
from rrd_lightning.engines import Eager
from rrd_lightning.episode import episode_transitions
from rrd_lightning.errors import ParameterError
from rrd_lightning.frames import observations
from rrd_lightning.networks import Observation, ObservationNormalizer, evaluating
from rrd_lightning.pretrained import PretrainedEncoder

STEPS_AT_ONCE = 1000  # of an episode: long ones of images would take all memory


class Inference(LightningModule):
    """The part of `RRDModule` that acts and rewards, with encoded and normalised observations if asked for.

    Attributes:
        agent: chooses the actions.
        decomposition: gives the rewards.
        encoder: of observations before the replay, if any.
        normalizer: of observations behind the replay, if any.
        episode_spaces: observation and action space as finished episodes have them.
        model_spaces: the same as the replay has them.
        env_steps: environment steps of the run so far.
    """

    agent: Agent
    decomposition: Decomposition
    encoder: PretrainedEncoder | None
    normalizer: ObservationNormalizer | None
    episode_spaces: tuple[Space[Any], Space[Any]]
    model_spaces: tuple[Space[Any], Space[Any]]
    env_steps: int
    _adapter: SpaceAdapter
    _engine: Eager | None

    def seen(self, observation: Observation) -> Observation:
        """Return observations ``[...]`` of `episode_spaces` as agent and decomposition see them."""
        encoded = observation if self.encoder is None else self.encoder(observation)
        return encoded if self.normalizer is None else self.normalizer(encoded)

    def encoded(self, episode: TensorDictBase) -> TensorDictBase:
        """Return a finished episode as the replay holds it: with the features of its observations.

        Args:
            episode: of `episode_spaces`, as `EpisodeReplay.add_episode` takes it.
        """
        if self.encoder is None:
            return episode
        space, length = self.episode_spaces[0], len(episode.get(keys.ACTION)) + 1
        parts = (observations(episode[keys.OBSERVATION], steps, space) for steps in _some_at_once(length))
        features = torch.cat([self.encoder(part.to(self.device)) for part in parts])
        return episode.copy().set(keys.OBSERVATION, features.to(episode.get(keys.ACTION).device))

    def explore(self, observation: Observation) -> Tensor:
        """Choose actions to collect with, as `act` does, by the engine where training has begun."""
        if self._engine is None:
            return self.act(observation, explore=True)
        return self._engine.act(self.seen(observation), explore=True, env_steps=self.env_steps)

    def act(self, observation: Observation, *, explore: bool = False) -> Tensor:
        """Choose actions for observations of several environments.

        Args:
            observation: tensors ``[num_envs, ...]`` in single precision, on the module's device.
            explore: as for training; otherwise as well as the agent can.

        Returns:
            The actions ``[num_envs, ...]``, without gradient; continuous ones in [-1, 1].
        """
        with evaluating(self.agent):
            return self.agent.act(self.seen(observation), explore=explore, env_steps=self.env_steps)

    def rewards(self, transitions: TensorDictBase | dict[str, Any]) -> Tensor:
        """Predict the reward of each transition, without gradient.

        Args:
            transitions: ``[...]``, with the keys of `rrd_lightning.keys`; continuous actions in [-1, 1].

        Returns:
            ``[...]``.
        """
        return self._rewards(transitions if self.encoder is None else seen_steps(transitions, self.encoder))

    def _rewards(self, encoded: Any) -> Tensor:
        steps = encoded if self.normalizer is None else seen_steps(encoded, self.normalizer)
        with torch.no_grad(), evaluating(self.decomposition):
            return self.decomposition.reward(steps)

    def episode_rewards(self, episode: TensorDictBase) -> Tensor:
        """Predict the reward of each step of a finished episode, ``[T]``, for some steps at a time.

        Args:
            episode: as `EpisodeReplay.add_episode` takes it.
        """
        encoded, length = self.encoded(episode), len(episode.get(keys.ACTION))
        parts = (episode_transitions(encoded, self.model_spaces[0], part) for part in _some_at_once(length))
        return torch.cat([self._rewards(part) for part in parts])

    def predict(self, observation: Any, *, explore: bool = False) -> Any:
        """Choose the action for an observation, or one for each of several.

        Args:
            observation: as the environment gives it, an array or a dictionary of arrays; several have one
                dimension in front.
            explore: as for training; otherwise as well as the agent can.

        Returns:
            The action as the environment takes it, within its own bounds, as an array of NumPy.
        """
        seen, several = self._adapter.observation(observation)
        action = self._adapter.native_action(self.act(seen.to(self.device), explore=explore))
        return action if several else action[0]

    def reward(self, observation: Any, action: Any, next_observation: Any) -> Any:
        """Predict the reward of a step, or of several.

        Args:
            observation: before the step, as the environment gives it; several have one dimension in front.
            action: as the environment takes it.
            next_observation: after the step.

        Returns:
            The reward, as an array of NumPy, ``[]`` or ``[steps]``.

        Raises:
            ParameterError: if the arrays are not of the spaces, or the decomposition needs to know more than
                these.
        """
        if self.decomposition.needs:
            name, needs = type(self.decomposition).__name__, ", ".join(self.decomposition.needs)
            problem = f"its reward is not of a step alone, it needs {needs}: use rewards, or episode_rewards"
            raise ParameterError("decomposition", name, problem)
        now, several = self._adapter.observation(observation)
        later, _ = self._adapter.observation(next_observation, "next_observation")
        acted = self._adapter.action(action)
        if not len(now) == len(later) == len(acted):
            counts = f"{len(now)} observations, {len(acted)} actions, {len(later)} next observations"
            raise ParameterError("reward", counts, "must be of the same steps")
        steps = {keys.OBSERVATION: now, keys.NEXT_OBSERVATION: later, keys.ACTION: acted}
        reward = self.rewards(TensorDict(steps, [len(acted)]).to(self.device)).cpu().numpy()
        return reward if several else reward[0]


def seen_steps(steps: Any, see: Callable[[Observation], Observation]) -> Any:
    """Return steps with their observations as `see` makes them."""
    changed = steps.copy()
    for key in (keys.OBSERVATION, keys.NEXT_OBSERVATION):
        changed[key] = see(steps[key])
    return changed


def _some_at_once(length: int) -> Iterator[range]:
    return (range(first, min(first + STEPS_AT_ONCE, length)) for first in range(0, length, STEPS_AT_ONCE))
