"""Finding files."""

from __future__ import annotations

from pathlib import Path

import pytest

from rrd_lightning import ParameterError
from rrd_lightning.datasets import Demonstrations, LiberoReader
from rrd_lightning.datasets.files import find_files
from tests.datasets.libero_files import write_file


def test_places_that_hold_nothing() -> None:
    Path("empty").mkdir()
    for place, message in (
        ("empty", r"holds no \.hdf5 or \.h5 file"),
        ("nowhere", "neither a file nor a folder"),
    ):
        with pytest.raises(ParameterError, match=f"data.demonstrations='{place}': .*{message}"):
            find_files([place])
    write_file("a.hdf5")
    assert find_files(["a.hdf5", "."]) == [Path("a.hdf5")]
    with pytest.raises(ParameterError, match=r"data.demonstrations=\[\]: give a file or a folder"):
        _ = Demonstrations(LiberoReader()).sources


def test_places_are_read_once_and_in_their_order() -> None:
    write_file("a.hdf5")
    sources = Demonstrations(["minari:x/y-v0", "a.hdf5", ".", "minari:x/y-v0"]).sources
    assert [source.name for source in sources] == ["minari:x/y-v0", "a.hdf5"]
