"""Damaged files: named in the error, or skipped with a warning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rrd_lightning import ParameterError
from rrd_lightning.datasets import Demonstrations
from tests.datasets.libero_files import SPACES, change, read_one, write_file

h5py = pytest.importorskip("h5py")


BAD: list[tuple[str, Any, str]] = [
    ("actions", None, "actions': is missing"),
    ("actions", np.zeros((0, 7)), "actions': has no step"),
    ("actions", np.zeros((1, 7)), "actions': has one step"),
    ("actions", np.zeros((5, 6)), r"actions': has shape \[5, 6\], must be \[any, 7\]"),
    ("actions", np.full((5, 7), np.nan), "actions': holds a number that is not finite"),
    ("rewards", None, "rewards': is missing"),
    ("rewards", np.zeros(4), r"rewards': has shape \[4\], must be \[5\]"),
    ("rewards", np.array([b"x"] * 5), "rewards': holds .*not numbers"),
    ("obs/agentview_rgb", None, "obs/agentview_rgb': is missing"),
    ("obs/agentview_rgb", np.zeros((4, 4, 4, 3), np.uint8), r"obs/agentview_rgb': has shape \[4, 4, 4, 3\]"),
    ("obs/agentview_rgb", np.zeros((5, 4, 4, 3)), "obs/agentview_rgb': is float64 .*must be uint8"),
    ("obs", None, "obs/agentview_rgb': is missing"),
]


@pytest.mark.parametrize(("key", "value", "message"), BAD)
def test_a_bad_demonstration_is_named_or_skipped(key: str, value: Any, message: str) -> None:
    path = write_file("a.hdf5", demos=3)
    change(path, key, value)
    with pytest.raises(ParameterError, match=f"a.hdf5/demo_1/{message}"):
        Demonstrations("a.hdf5").entries(SPACES)
    with pytest.warns(UserWarning, match=f"skipped: .*a.hdf5/demo_1/{message}"):
        entries = Demonstrations("a.hdf5", skip_bad=True).entries(SPACES)
    assert [entry.name for entry in entries] == ["a.hdf5/demo_0", "a.hdf5/demo_2"]


def test_damage_in_the_pixels_is_found_when_they_are_read() -> None:
    path = write_file("a.hdf5", demos=2)
    with h5py.File(path, "r+") as file:
        del file["data/demo_0/obs/agentview_rgb"]
        images = file["data/demo_0/obs"].create_dataset(
            "agentview_rgb",
            data=np.random.default_rng(0).integers(0, 255, (5, 4, 4, 3), np.uint8),
            chunks=(5, 4, 4, 3),
            compression="gzip",
        )
        offset = images.id.get_chunk_info(0).byte_offset
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 20)
    with pytest.raises(ParameterError, match=r"a.hdf5/demo_0/obs/agentview_rgb': is damaged"):
        read_one(path)
    demonstrations = Demonstrations("a.hdf5", skip_bad=True)
    with pytest.warns(UserWarning, match="skipped"):
        read = dict(demonstrations.read(demonstrations.entries(SPACES), SPACES))
    assert list(read) == ["a.hdf5/demo_1"]


def test_a_damaged_file_is_named_or_skipped() -> None:
    Path("demos/deeper").mkdir(parents=True)
    write_file("demos/deeper/b.hdf5")
    whole = write_file("demos/a.hdf5").read_bytes()
    for content in (b"no HDF5", whole[: len(whole) // 2], b""):
        Path("demos/a.hdf5").write_bytes(content)
        with pytest.raises(ParameterError, match=r"demos/a.hdf5': is damaged or not an HDF5 file"):
            Demonstrations("demos").entries(SPACES)
    with pytest.warns(UserWarning, match="skipped: .*a.hdf5"):
        (entry,) = Demonstrations("demos", skip_bad=True).entries(SPACES)
    assert entry.name == "demos/deeper/b.hdf5/demo_0"
    with h5py.File("demos/a.hdf5", "w"):
        pass
    with pytest.raises(ParameterError, match=r"demos/a.hdf5/data': is missing"):
        Demonstrations("demos").entries(SPACES)
    with (
        pytest.warns(UserWarning, match="skipped"),
        pytest.raises(ParameterError, match="no usable demonstration in any of these"),
    ):
        Demonstrations("demos/a.hdf5", skip_bad=True).entries(SPACES)


def test_an_attribute_that_is_neither_true_nor_false() -> None:
    path = write_file("a.hdf5", demos=2)
    for value, message in (("False", "success 'False'"), (np.nan, "success .*nan"), (2, "success .*2")):
        with h5py.File(path, "a") as file:
            file["data/demo_0"].attrs["success"] = value
        with pytest.raises(
            ParameterError, match=f"a.hdf5/demo_0/success': has the {message}.*, must be true or"
        ):
            Demonstrations("a.hdf5").entries(SPACES)
    for value, success in ((0, False), (np.bool_(True), True), (np.array([1]), True)):
        with h5py.File(path, "a") as file:
            file["data/demo_0"].attrs["success"] = value
        assert Demonstrations("a.hdf5").entries(SPACES)[0].facts.success is success
