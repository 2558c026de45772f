"""A disk cache of episodes whose images were resized."""

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
from rrd_lightning.paths import local_path

CACHE_DIR = "data.demonstrations.cache_dir"


class EpisodeCache:
    """A folder of episodes, each under a key of everything that determines its contents.

    Args:
        folder: path of the folder; ``rrd_lightning`` in the user's cache folder by default.
    """

    def __init__(self, folder: str | None = None) -> None:
        self._folder = local_path(CACHE_DIR, folder) if folder else default_folder()

    def get(self, source: Path, episode: str, view: object, make: Callable[[], TensorDict]) -> TensorDict:
        """Return a cached episode, or make it and add it to the cache.

        Args:
            source: the file it comes from; its path, size and modification time are part of the key.
            episode: its name in the file.
            view: what else determines the episode, such as image sizes; its `repr` is part of the key.
            make: makes the episode.

        Raises:
            ParameterError: if the folder cannot be written to, and whatever `make` raises.
        """
        status = source.stat()
        key = repr((str(source.resolve()), status.st_size, status.st_mtime_ns, view))
        path = self._folder / f"{source.stem}-{sha256(key.encode()).hexdigest()[:16]}" / f"{episode}.pt"
        if os.path.isfile(path):  # false where the folder must not be looked into, too
            try:
                return _restored(read(path))
            except ParameterError:
                pass  # damaged: overwritten below
        made = make()
        require_writable(CACHE_DIR, self._folder)
        write(made.to_dict(), path)
        return made


def default_folder() -> Path:
    """Return this package's folder in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME")
    return local_path(CACHE_DIR, base or "~/.cache") / "rrd_lightning"


def _restored(content: dict[str, Any]) -> TensorDict:
    """Restore the batch sizes, which the files do not store."""
    episode = TensorDict(content, [])
    observation = episode.get(keys.OBSERVATION)
    if isinstance(observation, TensorDictBase):
        observation.batch_size = [len(episode.get(keys.ACTION)) + 1]
    return episode
