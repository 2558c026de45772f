"""The wrapper of every environment: episodic feedback, scaled actions and float32."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from gymnasium import Env, Wrapper
from gymnasium.utils.seeding import np_random

from rrd_lightning.envs.action_repeat import EARLIER
from rrd_lightning.envs.failures import UnusableValueError
from rrd_lightning.spaces import single_precision, unit_actions
from rrd_lightning.success import SUCCESS_KEYS, SuccessOf, find_success, follow_success

TRUE_REWARD = "true_reward"
INITIAL_STATE = "initial_state"
NO_EPISODE_START = "[null, null]"  # `episode_start` before the first reset
# An episode of so many steps, in an environment without a time limit, is taken for one without an end.
ENDLESS = 10_000

Step = tuple[Any, float, bool, bool, dict[str, Any]]


class EpisodicFeedback(Wrapper[Any, Any, Any, Any]):
    """Withholds the reward until the episode ends, and then gives the sum of all rewards, the return.

    With `feedback_every` it gives the sum of the rewards since the last feedback, every so many steps and at
    the end.

    The environment's own reward of each step is in ``info["true_reward"]``, for evaluation. Of the
    environment's other infos only success is passed on, as ``info["success"]``: collecting unused infos
    at every step would take time. An environment that rewards only the last step is unchanged.

    Bounded continuous actions are float32 in [-1, 1] and scaled to the environment's bounds; float64
    observations become float32, the networks' precision. Separate wrappers for this would take a tenth
    of a fast simulator's time. Observations are copies, since many environments write the next one into the
    same array.

    Args:
        env: the environment.
        feedback_every: steps from one feedback to the next; by default the whole episode.
        success_of: the step that decides whether an episode is a success: its ``"last"``, or ``"any"``. A step
            that says nothing, after another one of the episode did, says false.
        endless: whether the environment has no time limit.

    Attributes:
        to_native: scales an action to the environment's bounds.
        episode_start: JSON of the generator's state, or the seed, at the last reset, and of the initial
            state, from which `fast_forward` repeats the reset.
        past: an `episode_start` and the actions since, for `fast_forward`.

    Raises:
        UnusableValueError: by `reset` and `step`, if an observation, a reward or a success cannot be read or is
            not finite, or an episode does not end.
    """

    def __init__(
        self,
        env: Env[Any, Any],
        feedback_every: int | None = None,
        success_of: SuccessOf = "last",
        *,
        endless: bool = False,
    ) -> None:
        super().__init__(env)
        self.action_space, self.to_native = unit_actions(env.action_space)
        self.observation_space, self._read = single_precision(env.observation_space)
        self._every = feedback_every or math.inf
        self._success_of: SuccessOf = success_of
        self._longest = ENDLESS if endless else math.inf
        self._episodes, self._steps, self._seed = 1, 0, ""
        self._return, self._unpaid = 0.0, 0  # since the last feedback
        self._success: bool | None = None
        self.episode_start = NO_EPISODE_START
        self.past: tuple[str, list[Any]] = (NO_EPISODE_START, [])

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode, and record how to repeat this reset.

        That is the generator's state or the seed and, if the environment reports ``info["initial_state"]``,
        the value to pass to ``reset(options={"initial_state": ...})``.
        """
        if seed is not None and isinstance(getattr(self.unwrapped, "np_random", None), np.random.Generator):
            # Some environments, such as Meta-World's, leave it to the caller.
            self.unwrapped.np_random, _ = np_random(seed)
        start = seed if seed is not None else _generator_state(self.unwrapped)
        self._return, self._unpaid, self._success = 0.0, 0, None
        self._episodes += self._steps > 0
        self._steps, self._seed = 0, "" if seed is None else f" (seed {seed})"
        observation, info = self.env.reset(seed=seed, options=options)
        chosen = {name: info[name] for name in (INITIAL_STATE,) if name in info}
        self.episode_start = json.dumps([start, chosen or None], default=_plain)
        return self._observation(observation), {}

    def fast_forward(self) -> tuple[Any, list[float]]:
        """Repeat the reset and the actions of `past`.

        An environment that is deterministic given its generator's state and the actions reaches the same
        state to the last bit. The caller compares the result with what was recorded.

        Returns:
            The observation after the last action, and the true reward of each step.
        """
        (start, options), actions = json.loads(self.past[0]), self.past[1]
        if isinstance(start, dict):
            self.unwrapped.np_random = _generator(start)
            observation, _ = self.reset(options=options)
        else:
            observation, _ = self.reset(seed=start, options=options)
        rewards = []
        for action in actions:
            observation, _, _, _, info = self.step(action)
            rewards.append(info[TRUE_REWARD])
        return observation, rewards

    def step(self, action: Any) -> Step:
        """Take a step; the reward is zero where there is no feedback."""
        return self.step_native(self.to_native(action))

    def step_native(self, action: Any) -> Step:
        """Take a step with an unscaled action."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._steps += 1
        observed, true_reward = self._observation(observation), self._number(reward)
        self._return += true_reward
        self._unpaid += 1
        ends, cut = bool(terminated), bool(truncated)
        if not (ends or cut) and self._steps >= self._longest:
            raise self._unusable(
                "an episode without an end, and it has no time limit: set env.max_episode_steps"
            )
        feedback = 0.0
        if ends or cut or self._unpaid == self._every:
            feedback, self._return, self._unpaid = self._return, 0.0, 0
        passed: dict[str, Any] = {TRUE_REWARD: true_reward}
        if self._success is not None or not info.keys().isdisjoint(SUCCESS_KEYS):
            self._follow_success(info)
        if self._success is not None:
            passed["success"] = self._success
        return observed, feedback, ends, cut, passed

    def _observation(self, value: Any) -> Any:
        try:
            return self._read(value)
        except (TypeError, ValueError) as error:
            raise self._unusable(f"an observation {error}") from error

    def _number(self, reward: Any) -> float:
        if not isinstance(reward, float | int):  # NumPy's float64 is a float
            array = np.asarray(reward)
            if array.size != 1 or array.dtype.kind not in "biuf":
                raise self._unusable(f"the reward {reward!r}, must be a number")
            reward = array.item()
        if not math.isfinite(reward):
            raise self._unusable(f"the reward {reward}, must be finite")
        return float(reward)

    def _follow_success(self, info: dict[str, Any]) -> None:
        try:
            for each in (*info.get(EARLIER, ()), info):
                self._success = follow_success(self._success, find_success(each), self._success_of)
        except ValueError as error:
            raise self._unusable(str(error)) from error

    def _unusable(self, what: str) -> UnusableValueError:
        return UnusableValueError(f"{what}; step {self._steps} of its episode {self._episodes}{self._seed}")


def _generator_state(env: Any) -> Any:
    """Return the state of an environment's generator, or None if it has none of NumPy's."""
    generator = getattr(env, "np_random", None)
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    return generator.bit_generator.state if isinstance(generator, np.random.Generator) else None


def _generator(state: dict[str, Any]) -> Any:
    """Return a generator of the kind and in the state that `_generator_state` returned."""
    if "has_gauss" in state:  # of a RandomState
        legacy = np.random.RandomState()  # as the environment has it
        legacy.set_state(
            {**state, "state": {**state["state"], "key": np.array(state["state"]["key"], np.uint32)}}
        )
        return legacy
    generator = getattr(np.random, state["bit_generator"])()
    generator.state = state
    return np.random.Generator(generator)


def _plain(value: Any) -> Any:
    """Convert the arrays and NumPy integers in the state of some bit generators."""
    return value.tolist()
