"""Environments in processes of their own, which are replaced when they fail."""

from __future__ import annotations

import logging
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from gymnasium import Env, Wrapper
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch.utils._pytree import tree_map

DROPPED = "dropped"
MOST_FAILURES = 5
_log = logging.getLogger(__name__)
# Processes start from several threads; constructors of environments need not bear that.
_MAKING = threading.Lock()


class Workers(VectorEnv[Any, Any, Any]):
    """Steps environments at the same time, each in its process; an ended episode restarts at once.

    An environment that raises an error, whose process dies, or that gives no answer in time is made
    again in a new process, and its episode is lost. The step that comes upon it, or else the next one,
    reports ``info["dropped"][environment]`` and the first observation of a new episode.

    Each is an `AsyncVectorEnv` of one, so that it can be replaced while the others stay as they are.

    Args:
        make: makes an environment; called in this process too, to learn its spaces.
        num_envs: how many.
        timeout: seconds that an answer may take; a reset is one.

    Raises:
        RuntimeError: when one fails more than 5 times without ending an episode in between.
    """

    def __init__(self, make: Callable[[], Env[Any, Any]], num_envs: int, timeout: float = 300.0) -> None:
        self.num_envs = num_envs
        self.timeout = timeout
        self._make = make
        # A process may take seconds to import everything: all of them at the same time.
        with ThreadPoolExecutor(num_envs) as threads:
            self._workers = list(threads.map(lambda _: self._start(), range(num_envs)))
        self._latest: list[Any] = [None] * num_envs  # each one's observation, [1, ...]
        self._failures = [0] * num_envs
        self._lost: set[int] = set()  # those whose lost episode no step has reported yet
        one = self._workers[0]
        self.metadata, self.render_mode = one.metadata, one.render_mode
        self.single_observation_space = one.single_observation_space
        self.single_action_space = one.single_action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every environment, or in those of ``options["reset_mask"]``."""
        options = dict(options or {})
        mask = options.pop("reset_mask", np.ones(self.num_envs, dtype=bool))
        seeds = [seed + place for place in range(self.num_envs)] if isinstance(seed, int) else seed
        results = self._ask(
            lambda worker, place: worker.reset_async(seed=seeds and [seeds[place]], options=options),
            lambda worker, timeout: worker.reset_wait(timeout),
            np.flatnonzero(mask).tolist(),
        )
        infos: dict[str, Any] = {}
        for place, (self._latest[place], info) in results.items():
            infos = self._add_info(infos, _of_one(info), place)
        self._lost -= set(np.flatnonzero(mask).tolist())
        return self._observations(), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take a step in every environment, but for those whose episode was lost."""
        results = self._ask(
            lambda worker, place: worker.step_async(actions[place : place + 1]),
            lambda worker, timeout: worker.step_wait(timeout),
            [place for place in range(self.num_envs) if place not in self._lost],
        )
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), dtype=bool)
        infos: dict[str, Any] = {}
        for place, (observation, reward, *ends, info) in results.items():
            self._latest[place] = observation
            rewards[place] = reward[0]
            terminated[place], truncated[place] = ends[0][0], ends[1][0]
            if terminated[place] or truncated[place]:
                self._failures[place] = 0
            infos = self._add_info(infos, _of_one(info), place)
        for place in self._lost:
            infos = self._add_info(infos, {DROPPED: True}, place)
        self._lost.clear()
        return self._observations(), rewards, terminated, truncated, infos

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of every environment, or get an attribute."""
        return self._ask_until_answered(
            lambda worker, place: worker.call_async(name, *args, **kwargs),
            lambda worker, timeout: worker.call_wait(timeout)[0],
        )

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Get an attribute of every environment."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of every environment, to a list's or tuple's values or to the same."""
        each = values if isinstance(values, list | tuple) else [values] * self.num_envs
        self._ask_until_answered(
            lambda worker, place: worker.set_attr(name, [each[place]]), lambda worker, timeout: None
        )

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environments and end their processes."""
        for worker in self._workers:
            try:
                worker.close()
            except Exception:  # it may have failed in any way, and is not needed any more
                _kill(worker)

    def _ask_until_answered(self, begin: Callable[..., Any], wait: Callable[..., Any]) -> tuple[Any, ...]:
        answers: dict[int, Any] = {}
        while len(answers) < self.num_envs:
            answers |= self._ask(begin, wait, [place for place in range(self.num_envs) if place not in answers])
        return tuple(answers[place] for place in range(self.num_envs))

    def _ask(
        self, begin: Callable[..., Any], wait: Callable[..., Any], places: Iterable[int]
    ) -> dict[int, Any]:
        """Let environments do something at the same time.

        Args:
            begin: of a worker and its place, asks for it.
            wait: of a worker and the seconds that are left, returns the answer.
            places: of which environments.

        Returns:
            The answers of those that gave one; the others are replaced.
        """
        answers: dict[int, Any] = {}
        causes: dict[int, Exception] = {}
        deadline = time.monotonic() + self.timeout
        for place in places:
            try:
                begin(self._workers[place], place)
            except Exception as error:  # an environment may raise anything
                causes[place] = error
        for place in places:
            if place not in causes:
                try:
                    with warnings.catch_warnings():
                        # Gymnasium warns of an error that it is about to raise.
                        warnings.simplefilter("ignore", UserWarning)
                        answers[place] = wait(self._workers[place], max(deadline - time.monotonic(), 0))
                except Exception as error:
                    causes[place] = error
        for place in causes:
            _kill(self._workers[place])
        for place, cause in causes.items():
            self._replace(place, cause)
        return answers

    def _replace(self, place: int, cause: Exception) -> None:
        """Start an environment's process again, and an episode in it."""
        while True:
            self._failures[place] += 1
            reason = str(cause) or f"its process ended ({type(cause).__name__})"
            if self._failures[place] > MOST_FAILURES:
                raise RuntimeError(
                    f"environment {place} failed {self._failures[place]} times without ending an episode "
                    f"in between, the last time because: {reason}"
                ) from cause
            _log.warning("Environment %d failed and begins anew, its episode is dropped: %s", place, reason)
            try:
                self._workers[place] = worker = self._start()
                worker.reset_async()
                self._latest[place], _ = worker.reset_wait(self.timeout)
            except Exception as error:
                _kill(self._workers[place])
                cause = error
            else:
                self._lost.add(place)
                return

    def _start(self) -> AsyncVectorEnv[Any, Any]:
        make = partial(_make_alone, self._make)
        return AsyncVectorEnv([make], copy=False, autoreset_mode=AutoresetMode.SAME_STEP)

    def _observations(self) -> Any:
        return tree_map(lambda *rows: np.concatenate(rows), *self._latest)


class PlainErrors(Wrapper[Any, Any, Any, Any]):
    """Turns errors into such that reach another process: not every kind can be sent and made again."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        first: tuple[Any, dict[str, Any]] = self._plainly(lambda: self.env.reset(seed=seed, options=options))
        return first

    def step(self, action: Any) -> Any:
        """Take a step."""
        return self._plainly(lambda: self.env.step(action))

    def _plainly(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except Exception as error:
            traceback.print_exc()  # the message alone is sent
            raise RuntimeError(f"{type(error).__name__}: {error}") from error


def _make_alone(make: Callable[[], Env[Any, Any]]) -> Env[Any, Any]:
    with _MAKING:
        return make()


def _kill(worker: AsyncVectorEnv[Any, Any]) -> None:
    for process in worker.processes:
        process.kill()  # one that hangs may not listen to less
        process.join()
    worker.closed = True


def _of_one(info: dict[str, Any]) -> dict[str, Any]:
    """Return the information of a vector of one environment as that of the environment."""
    return {
        key: _of_one(value) if isinstance(value, dict) else value[0]
        for key, value in info.items()
        if not key.startswith("_")
    }
