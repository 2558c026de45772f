"""The environment of a run: an id and its options, from which one or many are made."""

from __future__ import annotations

import difflib
import multiprocessing
import signal
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from typing import Any, Literal

import gymnasium
from gymnasium import Env, Space, Wrapper
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import TimeLimit
from lightning.pytorch.utilities import rank_zero_warn

from rrd_lightning.envs.action_repeat import ActionRepeat
from rrd_lightning.envs.episodic import EpisodicFeedback
from rrd_lightning.envs.filmed import Filmed
from rrd_lightning.envs.libero_task import find_task
from rrd_lightning.envs.sequential import SequentialVectorEnv
from rrd_lightning.envs.workers import PlainErrors, Workers
from rrd_lightning.errors import ParameterError, require_positive
from rrd_lightning.frames import stack_space
from rrd_lightning.success import SuccessOf

Vectorization = Literal["sync", "async"]


class Environment:
    """A Gymnasium environment by its id, wrapped for episode-level feedback.

    Bounded continuous actions are given in [-1, 1] and scaled to the environment's bounds, float64
    observations become float32, and the reward is withheld until the episode ends (`EpisodicFeedback`).

    Args:
        id: Gymnasium's id, such as ``HalfCheetah-v5``; ``module:Id-v0`` imports the module that
            registers it first. Or a LIBERO task, such as ``libero_goal/NAME`` or ``libero_goal:8``.
        max_episode_steps: time limit in steps; the environment's own by default.
        kwargs: passed to the environment's constructor.
        wrappers: wrappers to put round it, the innermost first, such as Gymnasium's: their class paths, or
            dictionaries of ``class_path`` and ``init_args``.
        frame_stack: let the images of so many steps be one observation. Episodes hold each once.
        feedback_every: give the return of every so many actions, instead of the episode's at its end.
        success_of: the step whose ``success`` or ``is_success`` in the infos decides whether an episode is a
            success: its ``"last"``, or ``"any"``.
        action_repeat: take each action this many times, and see what follows the last. Steps are counted in
            the environment's own throughout, and a transition is one action.

    Raises:
        ParameterError: if no environment has the id, it cannot be made, or a number is not positive.
    """

    def __init__(
        self,
        id: str,
        max_episode_steps: int | None = None,
        kwargs: dict[str, Any] | None = None,
        wrappers: list[str | dict[str, Any]] | None = None,
        frame_stack: int = 1,
        feedback_every: int | None = None,
        success_of: SuccessOf = "last",
        action_repeat: int = 1,
    ) -> None:
        require_positive(action_repeat=action_repeat)
        if max_episode_steps is not None:
            require_positive(max_episode_steps=max_episode_steps)
        require_feedback(frame_stack, feedback_every)
        spec = _find_spec(id)
        self.id = spec.id
        own = tuple(_wrapper_spec(each) for each in wrappers or ())
        # A worker process may not have registered the id.
        self._spec = replace(spec, additional_wrappers=(*spec.additional_wrappers, *own))
        self.kwargs = kwargs or {}
        self._limit = max_episode_steps
        self.max_episode_steps = max_episode_steps or spec.max_episode_steps
        self.frame_stack = frame_stack
        self.feedback_every = feedback_every
        self.success_of: SuccessOf = success_of
        self.action_repeat = action_repeat

    def make(self, film: bool = False, **kwargs: Any) -> EpisodicFeedback:
        """Make one environment; `kwargs` such as ``render_mode`` are passed to its constructor.

        Its observations are single frames, where the model's are stacks. With `film` it is `Filmed`.
        """
        limit = self._limit
        if film:
            kwargs["render_mode"] = "rgb_array"
        try:
            # A time limit of the user's is outermost, in place of the environment's own.
            env = gymnasium.make(
                self._spec, max_episode_steps=-1 if limit else None, **{**self.kwargs, **kwargs}
            )
            env = TimeLimit(env, limit) if limit else env
        except ParameterError:
            raise
        except Exception as error:
            # An environment's constructor may raise anything.
            raise ParameterError("env.id", self.id, f"cannot be made: {error}") from error
        endless = not (limit or self._spec.max_episode_steps)
        if self.action_repeat > 1:
            env = ActionRepeat(env, self.action_repeat)
        if film:
            env = Filmed(env)
        return EpisodicFeedback(env, self.feedback_every, self.success_of, endless=endless)

    def make_vector(
        self, num_envs: int, vectorization: Vectorization = "sync", timeout: float = 300.0
    ) -> VectorEnv[Any, Any, Any]:
        """Make several environments, stepped together; an ended episode restarts within the same step.

        ``"async"`` starts worker processes. They import the running script, which therefore needs an
        ``if __name__ == "__main__":`` guard. A worker that fails, or does not answer within `timeout`
        seconds, is replaced (`Workers`), and so is an environment that raises an error in this process.
        """
        if vectorization == "async":
            return Workers(self._make_in_worker, num_envs, timeout)
        return SequentialVectorEnv([self.make] * num_envs)

    def _make_in_worker(self) -> Env[Any, Any]:
        # Only the main process handles Ctrl-C. It calls this method too, to learn the spaces.
        if multiprocessing.parent_process() is not None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        env = self.make()
        env.env = PlainErrors(env.env)  # innermost, so that its errors are plain wherever the wrapper calls it
        return env

    @cached_property
    def _spaces(self) -> tuple[Space[Any], Space[Any]]:
        env = self.make()
        if names := _with_running_statistics(env):
            rank_zero_warn(
                f"env.id={self.id!r}: {', '.join(names)} keeps running statistics, which begin anew in each "
                "environment, each evaluation and each resumed run: leave it out, and set "
                "model.normalize_observations for observations"
            )
        spaces_of_one = stack_space(env.env.observation_space, self.frame_stack), env.env.action_space
        env.close()
        return spaces_of_one

    @property
    def observation_space(self) -> Space[Any]:
        """The observation space of a single environment, without the wrapper, with frames stacked."""
        return self._spaces[0]

    @property
    def action_space(self) -> Space[Any]:
        """The action space of a single environment, with its own bounds."""
        return self._spaces[1]


def require_feedback(frame_stack: int, feedback_every: int | None) -> None:
    """Raise a `ParameterError` if one of the numbers is not positive."""
    require_positive(**{"env.frame_stack": frame_stack})
    if feedback_every is not None:
        require_positive(**{"env.feedback_every": feedback_every})


def _wrapper_spec(wrapper: str | dict[str, Any]) -> WrapperSpec:
    config: dict[str, Any] = {"class_path": wrapper} if isinstance(wrapper, str) else wrapper
    path = config.get("class_path")
    if not isinstance(path, str) or config.keys() - {"class_path", "init_args"}:
        problem = "must be a class path, or a dictionary of class_path and init_args"
        raise ParameterError("env.wrappers", wrapper, problem)
    module, _, name = path.rpartition(".")
    return WrapperSpec(name, f"{module}:{name}", config.get("init_args") or {})


def _with_running_statistics(env: Env[Any, Any]) -> list[str]:
    """Return the names of an environment's wrappers that normalise by what they have seen."""
    names = []
    while isinstance(env, Wrapper):
        if any(type(value).__name__ == "RunningMeanStd" for value in vars(env).values()):
            names.append(type(env).__name__)
        env = env.env
    return names


def _find_spec(id: str) -> EnvSpec:
    if task := find_task(id):
        return task.spec()
    if id.startswith("ALE/"):
        _register_atari(id)
    module, colon, name = id.rpartition(":")
    try:
        if colon:
            import_module(module)
        return gymnasium.spec(name)
    except ImportError as error:
        raise ParameterError(
            "env.id", id, f"the module before the colon cannot be imported: {error}"
        ) from error
    except gymnasium.error.Error as error:
        known = {known.lower(): known for known in gymnasium.registry}
        near = difflib.get_close_matches(name.lower(), known, n=5, cutoff=0.5)
        hint = (
            f"near matches: {', '.join(known[match] for match in near)}"
            if near
            else "no registered id is similar"
        )
        raise ParameterError("env.id", id, f"is not a registered environment; {hint}") from error


def _register_atari(id: str) -> None:
    try:
        import ale_py
    except ModuleNotFoundError as error:
        problem = "is a game of the Arcade Learning Environment: pip install 'rrd-lightning[atari]'"
        raise ParameterError("env.id", id, problem) from error
    gymnasium.register_envs(ale_py)
