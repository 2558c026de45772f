"""Episodes whose images were resized, kept on disk for the next run."""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from tensordict import TensorDict, TensorDictBase

from rrd_lightning import keys
from rrd_lightning.checkpoint.files import read, require_writable, write
from rrd_lightning.errors import ParameterError


class EpisodeCache:
    """A folder of episodes, each under a key of all that decides what it holds.

    Args:
        folder: where; by default ``rrd_lightning`` in the user's cache folder.
    """

    def __init__(self, folder: str | None = None) -> None:
        self._folder = Path(folder).expanduser() if folder else default_folder()

    def get(self, source: Path, episode: str, view: object, make: Callable[[], TensorDict]) -> TensorDict:
        """Return an episode as it was made before, or make it and keep it.

        Args:
            source: the file that it comes from; another size or time of it makes another key.
            episode: its name in the file.
            view: what was asked for, such as sizes; its text is part of the key.
            make: makes the episode.

        Raises:
            ParameterError: if the folder cannot be written to, and what `make` raises.
        """
        status = source.stat()
        key = repr((str(source.resolve()), status.st_size, status.st_mtime_ns, view))
        path = self._folder / f"{source.stem}-{sha256(key.encode()).hexdigest()[:16]}" / f"{episode}.pt"
        if path.is_file():
            try:
                return _whole(read(path))
            except ParameterError:
                pass  # damaged: it is made anew
        made = make()
        require_writable("data.demonstrations.cache_dir", self._folder)
        write(made.to_dict(), path)
        return made


def default_folder() -> Path:
    """Return this package's folder in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "rrd_lightning"


def _whole(content: dict[str, Any]) -> TensorDict:
    """Give the episode's batch sizes back, which files do not hold."""
    episode = TensorDict(content, [])
    observation = episode.get(keys.OBSERVATION)
    if isinstance(observation, TensorDictBase):
        observation.batch_size = [len(episode.get(keys.ACTION)) + 1]
    return episode
