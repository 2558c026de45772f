"""Resized episodes on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict
from tensordict import TensorDict

from rrd_lightning import ParameterError, keys
from rrd_lightning.datasets.cache import EpisodeCache, default_folder
from rrd_lightning.datasets.libero import LiberoFile
from tests.datasets.libero_files import SPACES, read_one, write_file
from tests.resuming import assert_same


def test_resized_episodes_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_file("a.hdf5", size=8)
    reads: list[str] = []
    read = LiberoFile._read
    monkeypatch.setattr(LiberoFile, "_read", lambda self, *args: (reads.append(args[0]), read(self, *args))[1])

    def get(size: int, **options: Any) -> TensorDict:
        spaces = Dict({"agentview": Box(0, 255, (3, size, size), np.uint8)}), SPACES[1]
        return read_one(path, spaces, cache_dir="cache", **options)

    first, second = get(4), get(4)
    assert len(reads) == 1
    assert second[keys.OBSERVATION].batch_size == (5,)
    assert_same(first.to_dict(), second.to_dict())
    for options in ({"size": 2}, {"size": 4, "alignment": "before"}):
        get(**options)
    assert len(reads) == 3
    os.utime(path, ns=(1, 1))  # another file, as far as anyone can tell
    get(4)
    assert len(reads) == 4
    for file in Path("cache").rglob("*.pt"):
        file.write_bytes(b"damaged")
    assert_same(get(4).to_dict(), first.to_dict())
    assert len(reads) == 5
    get(8)
    assert len(list(Path("cache").rglob("*.pt"))) == 4  # the files' own size needs no copy
    assert not list(Path("cache").rglob("*.part"))


def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_folder() == Path("/somewhere/rrd_lightning")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder() == Path.home() / ".cache/rrd_lightning"
    path = write_file("a.hdf5")
    with pytest.raises(
        ParameterError, match=r"data.demonstrations.cache_dir='/proc/nowhere': cannot be written to"
    ):
        EpisodeCache("/proc/nowhere").get(path, "demo_0", "", lambda: read_one(path))
