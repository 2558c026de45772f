"""Environments in worker processes, which are replaced when they fail."""

from __future__ import annotations

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

from rrd_lightning.envs.failures import DROPPED, Failures
from rrd_lightning.private import tree_map

# Workers start from several threads, but constructors of environments need not be thread-safe.
_MAKE_LOCK = threading.Lock()


class Workers(VectorEnv[Any, Any, Any]):
    """Steps environments in parallel, each in its worker; an ended episode restarts within the same step.

    An environment that raises an error, whose worker dies, or that does not answer in time is made again
    in a new worker, and its episode is dropped. The request that fails, or the next step, reports
    ``info["dropped"][environment]`` and the first observation of a new episode.

    Each worker is an `AsyncVectorEnv` of one environment, so that it can be replaced on its own.

    Args:
        make: makes an environment; also called in this process, to learn its spaces.
        num_envs: number of environments.
        timeout: seconds that a step, a reset or a call may take.

    Raises:
        FailedEnvironmentError: if an environment fails more than 5 times without finishing an episode in
            between, or gives what nothing can be learned from.
    """

    def __init__(self, make: Callable[[], Env[Any, Any]], num_envs: int, timeout: float = 300.0) -> None:
        self.num_envs = num_envs
        self.timeout = timeout
        self._make = make
        # In parallel, since importing everything may take a worker seconds.
        with ThreadPoolExecutor(num_envs) as threads:
            self._workers = list(threads.map(lambda _: self._start(), range(num_envs)))
        self._latest: list[Any] = [None] * num_envs  # latest observation of each, [1, ...]
        self._failures = Failures(num_envs)
        self._unreported: set[int] = set()  # environments whose dropped episode has not been reported yet
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
        seeds = [seed + index for index in range(self.num_envs)] if isinstance(seed, int) else seed
        results = self._request(
            lambda worker, index: worker.reset_async(seed=seeds and [seeds[index]], options=options),
            lambda worker, timeout: worker.reset_wait(timeout),
            np.flatnonzero(mask).tolist(),
        )
        infos: dict[str, Any] = {}
        for index, (self._latest[index], info) in results.items():
            infos = self._add_info(infos, _of_one(info), index)
        for index in self._unreported & set(np.flatnonzero(mask).tolist()):
            infos = self._add_info(infos, {DROPPED: True}, index)
            self._unreported.remove(index)
        return self._observations(), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take a step in every environment, except those whose dropped episode is still to be reported."""
        results = self._request(
            lambda worker, index: worker.step_async(actions[index : index + 1]),
            lambda worker, timeout: worker.step_wait(timeout),
            [index for index in range(self.num_envs) if index not in self._unreported],
        )
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), dtype=bool)
        infos: dict[str, Any] = {}
        for index, (observation, reward, *ends, info) in results.items():
            self._latest[index] = observation
            rewards[index] = reward[0]
            terminated[index], truncated[index] = ends[0][0], ends[1][0]
            if terminated[index] or truncated[index]:
                self._failures.forget(index)
            infos = self._add_info(infos, _of_one(info), index)
        for index in self._unreported:
            infos = self._add_info(infos, {DROPPED: True}, index)
        self._unreported.clear()
        return self._observations(), rewards, terminated, truncated, infos

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of every environment, or get an attribute."""
        return self._request_all(
            lambda worker, index: worker.call_async(name, *args, **kwargs),
            lambda worker, timeout: worker.call_wait(timeout)[0],
        )

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Get an attribute of every environment."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of every environment, to a list's or tuple's values or to the same."""
        each = values if isinstance(values, list | tuple) else [values] * self.num_envs
        self._request_all(
            lambda worker, index: worker.set_attr(name, [each[index]]), lambda worker, timeout: None
        )

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environments and end their processes."""
        for worker in self._workers:
            try:
                worker.close()
            except Exception:  # whatever is wrong with it, it is not needed any more
                _kill(worker)

    def _request_all(self, begin: Callable[..., Any], wait: Callable[..., Any]) -> tuple[Any, ...]:
        answers: dict[int, Any] = {}
        while len(answers) < self.num_envs:
            answers |= self._request(
                begin, wait, [index for index in range(self.num_envs) if index not in answers]
            )
        return tuple(answers[index] for index in range(self.num_envs))

    def _request(
        self, begin: Callable[..., Any], wait: Callable[..., Any], indices: Iterable[int]
    ) -> dict[int, Any]:
        """Make a request to several environments in parallel.

        Args:
            begin: sends the request; takes a worker and its index.
            wait: returns the answer; takes a worker and the remaining seconds.
            indices: indices of the environments.

        Returns:
            The answers by index. Environments that failed are replaced and have none.
        """
        answers: dict[int, Any] = {}
        causes: dict[int, Exception] = {}
        deadline = time.monotonic() + self.timeout
        for index in indices:
            try:
                begin(self._workers[index], index)
            except Exception as error:  # environments may raise anything
                causes[index] = error
        for index in indices:
            if index not in causes:
                try:
                    with warnings.catch_warnings():
                        # Gymnasium warns about an error before raising it.
                        warnings.simplefilter("ignore", UserWarning)
                        answers[index] = wait(self._workers[index], max(deadline - time.monotonic(), 0))
                except Exception as error:
                    causes[index] = error
        for index in causes:
            _kill(self._workers[index])
        for index, cause in causes.items():
            self._replace(index, cause)
        return answers

    def _replace(self, index: int, cause: Exception) -> None:
        """Start a new worker for an environment, and an episode in it."""
        while True:
            reason = str(cause) or f"its worker process died ({type(cause).__name__})"
            self._failures.add(index, cause, reason)
            try:
                self._workers[index] = worker = self._start()
                worker.reset_async()
                self._latest[index], _ = worker.reset_wait(self.timeout)
            except Exception as error:
                _kill(self._workers[index])
                cause = error
            else:
                self._unreported.add(index)
                return

    def _start(self) -> AsyncVectorEnv[Any, Any]:
        make = partial(_make_locked, self._make)
        return AsyncVectorEnv([make], copy=False, autoreset_mode=AutoresetMode.SAME_STEP)

    def _observations(self) -> Any:
        return tree_map(lambda *rows: np.concatenate(rows), *self._latest)


class PlainErrors(Wrapper[Any, Any, Any, Any]):
    """Raises errors as RuntimeErrors, since not every exception can be pickled."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        first: tuple[Any, dict[str, Any]] = self._raise_plainly(
            lambda: self.env.reset(seed=seed, options=options)
        )
        return first

    def step(self, action: Any) -> Any:
        """Take a step."""
        return self._raise_plainly(lambda: self.env.step(action))

    def _raise_plainly(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except Exception as error:
            traceback.print_exc()  # only the message reaches the main process
            raise RuntimeError(f"{type(error).__name__}: {error}") from error


def _make_locked(make: Callable[[], Env[Any, Any]]) -> Env[Any, Any]:
    with _MAKE_LOCK:
        return make()


def _kill(worker: AsyncVectorEnv[Any, Any]) -> None:
    for process in worker.processes:
        process.kill()  # a hanging worker may ignore SIGTERM
        process.join()
    worker.closed = True


def _of_one(info: dict[str, Any]) -> dict[str, Any]:
    """Convert the infos of a vector of one environment to those of the environment."""
    return {
        key: _of_one(value) if isinstance(value, dict) else value[0]
        for key, value in info.items()
        if not key.startswith("_")
    }
