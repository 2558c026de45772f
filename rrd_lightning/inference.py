"""What a module is used for when it is trained: actions and rewards, for tensors and for NumPy."""

from __future__ import annotations

from typing import Any

import torch
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
from rrd_lightning.networks import Observation, ObservationNormalizer, evaluating

STEPS_AT_ONCE = 1000  # of an episode: long ones of images would take all memory


class Inference(LightningModule):
    """The part of `RRDModule` that acts and rewards, with normalised observations where that is asked for.

    Attributes:
        agent: chooses the actions.
        decomposition: gives the rewards.
        normalizer: of observations, if any.
        env_steps: environment steps of the run so far.
    """

    agent: Agent
    decomposition: Decomposition
    normalizer: ObservationNormalizer | None
    env_steps: int
    _adapter: SpaceAdapter
    _engine: Eager | None

    def _normalized(self, steps: Any) -> Any:
        """Return steps with their observations as agent and decomposition see them."""
        if self.normalizer is None:
            return steps
        normalized = steps.copy()
        for key in (keys.OBSERVATION, keys.NEXT_OBSERVATION):
            normalized[key] = self.normalizer(steps[key])
        return normalized

    def explore(self, observation: Observation) -> Tensor:
        """Choose actions to collect with, as `act` does, by the engine where training has begun."""
        if self._engine is None:
            return self.act(observation, explore=True)
        seen = observation if self.normalizer is None else self.normalizer(observation)
        return self._engine.act(seen, explore=True, env_steps=self.env_steps)

    def act(self, observation: Observation, *, explore: bool = False) -> Tensor:
        """Choose actions for observations of several environments.

        Args:
            observation: tensors ``[num_envs, ...]`` in single precision, on the module's device.
            explore: as for training; otherwise as well as the agent can.

        Returns:
            The actions ``[num_envs, ...]``, without gradient; continuous ones in [-1, 1].
        """
        seen = observation if self.normalizer is None else self.normalizer(observation)
        with evaluating(self.agent):
            return self.agent.act(seen, explore=explore, env_steps=self.env_steps)

    def rewards(self, transitions: TensorDictBase | dict[str, Any]) -> Tensor:
        """Predict the reward of each transition, without gradient.

        Args:
            transitions: ``[...]``, with the keys of `rrd_lightning.keys`; continuous actions in [-1, 1].

        Returns:
            ``[...]``.
        """
        with torch.no_grad(), evaluating(self.decomposition):
            return self.decomposition.reward(self._normalized(transitions))

    def episode_rewards(self, episode: TensorDictBase) -> Tensor:
        """Predict the reward of each step of a finished episode, ``[T]``, for some steps at a time.

        Args:
            episode: as `EpisodeReplay.add_episode` takes it.
        """
        length, space = len(episode.get(keys.ACTION)), self._adapter.model_spaces[0]
        parts = (range(first, min(first + STEPS_AT_ONCE, length)) for first in range(0, length, STEPS_AT_ONCE))
        return torch.cat([self.rewards(episode_transitions(episode, space, steps)) for steps in parts])

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
