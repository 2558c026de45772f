"""The command ``rrd record``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info
from tqdm import tqdm

from rrd_lightning.datasets.files import find_files
from rrd_lightning.envs.libero import Observations
from rrd_lightning.errors import ParameterError, require_not_negative, require_positive
from rrd_lightning.record.job import Job
from rrd_lightning.record.played import scripted, trained
from rrd_lightning.record.replayed import ReplayedEpisodes
from rrd_lightning.record.writer import LiberoWriter


def record(
    output: str,
    demonstrations: str | list[str] | None = None,
    ckpt_path: str | None = None,
    policy: str | None = None,
    task: str | None = None,
    observations: Observations = "both",
    kwargs: dict[str, Any] | None = None,
    episodes: int = 10,
    max_episode_steps: int | None = None,
    seed: int = 10_000,
    explore: bool = False,
) -> list[Path]:
    """Record episodes in LIBERO's simulator: those of files again, a trained policy's, or a scripted one's.

    Give one of `demonstrations`, `ckpt_path` and `policy`. Successes and failures are recorded alike, each with
    its outcome. A command that was interrupted goes on with the episodes that are missing.

    Args:
        output: the folder to write into: a file named like each of `demonstrations`, or like the task.
        demonstrations: LIBERO's HDF5 files, or folders of them. The states that they hold are observed anew.
        ckpt_path: a checkpoint whose policy plays, in the environment that its configuration describes.
        policy: class path of a `Policy` that plays.
        task: such as ``libero_goal:8``; by default what the file or the checkpoint says.
        observations: what to record.
        kwargs: options of the environment, as ``env.kwargs``, such as ``size``.
        episodes: number of episodes to play.
        max_episode_steps: time limit in steps; the checkpoint's or the task's by default.
        seed: seed of the first episode. Evaluations of a run begin with 0.
        explore: let a checkpoint's policy act as for training.

    Returns:
        The files.

    Raises:
        ParameterError: if an argument, a file or the installation is not as it should be.
    """
    sources = {"demonstrations": demonstrations, "ckpt_path": ckpt_path, "policy": policy}
    if sum(source is not None for source in sources.values()) != 1:
        raise ParameterError("record", sources, "give one of demonstrations, ckpt_path and policy")
    require_positive(episodes=episodes)
    require_not_negative(seed=seed)
    if max_episode_steps is not None:
        require_positive(max_episode_steps=max_episode_steps)
    folder, kwargs = Path(output).expanduser(), kwargs or {}
    jobs: Iterator[Job]
    if demonstrations is not None:
        jobs = _replays(demonstrations, folder, task, observations, kwargs)
    else:
        played = {"task": task, "episodes": episodes, "seed": seed, "limit": max_episode_steps}
        if ckpt_path is not None:
            jobs = iter([trained(folder, ckpt_path, observations, kwargs, explore, **played)])
        else:
            assert policy is not None
            jobs = iter([scripted(folder, policy, observations, kwargs, **played)])
    return [_write(job) for job in jobs]


def _replays(
    demonstrations: str | list[str], folder: Path, task: str | None, kind: str, kwargs: dict[str, Any]
) -> Iterator[Job]:
    paths = find_files([demonstrations] if isinstance(demonstrations, str) else demonstrations)
    if len({path.name for path in paths}) < len(paths):
        raise ParameterError("demonstrations", [*map(str, paths)], "has files of the same name")
    for path in paths:
        yield ReplayedEpisodes(path, folder / path.name, task, kind, kwargs)


def _write(job: Job) -> Path:
    writer = LiberoWriter(job.path, job.options)
    successes = 0
    if not writer.finished:
        with tqdm(job.episodes, desc=job.path.name, unit=" episodes") as bar:
            for episode in bar:
                if writer.success_of(episode) is None:
                    writer.add(episode, job.record(episode), job.env.state_names)
                successes += bool(writer.success_of(episode))
                bar.set_postfix(successes=successes)
        writer.finish(job.episodes, job.attributes())
    job.env.close()
    rank_zero_info(f"Recorded: {job.path}")
    return job.path
