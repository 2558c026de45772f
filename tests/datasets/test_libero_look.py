"""Which observation a row of LIBERO's files holds, and how its images are turned."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rrd_lightning import ParameterError, keys
from rrd_lightning.datasets import Demonstrations, LiberoReader
from rrd_lightning.datasets.libero_look import Look, correlate, find_look
from tests.datasets.libero_files import DEMOS, SPACES, read_one, real, write_file
from tests.envs.libero_tasks import INSTALLED, simulated

h5py = pytest.importorskip("h5py")
OWN = "assumed, as in LIBERO's own files"


def look_of(path: Path, **chosen: Any) -> Look:
    with h5py.File(path) as file:
        look = find_look(file["data"], chosen.get("alignment"), chosen.get("orientation"))
    assert isinstance(look, Look)
    return look


def add_angles(path: Path, shift: int) -> None:
    """Let the arm move, its observed angles `shift` rows ahead of the states."""
    with h5py.File(path, "r+") as file:
        demo = file["data/demo_0"]
        rows = len(demo["actions"])
        angles = np.linspace(0, 1, rows + 1)[:, None] * np.arange(1, 8)
        demo["states"] = np.concatenate([np.arange(rows)[:, None], angles[:rows], np.ones((rows, 2))], 1)
        demo["obs/joint_states"] = angles[shift : shift + rows] - 0.001


@pytest.mark.parametrize(
    ("attributes", "alignment", "orientation"),
    [
        ({}, ("after", OWN), ("upside_down", OWN)),
        (
            {"macros_image_convention": "opengl"},
            ("after", OWN),
            ("upside_down", "its image convention is opengl"),
        ),
        ({"macros_image_convention": "opencv"}, ("after", OWN), ("upright", "its image convention is opencv")),
        (
            {"obs_alignment": "before", "image_orientation": "as rendered: upside down"},
            ("before", "its attribute obs_alignment says so"),
            ("upside_down", "its attribute image_orientation says so"),
        ),
    ],
)
def test_attributes_and_assumptions(attributes: dict, alignment: Any, orientation: Any) -> None:
    look = look_of(write_file("a.hdf5", **attributes))
    assert ((look.alignment, look.reasons[0]), (look.orientation, look.reasons[1])) == (alignment, orientation)
    chosen = look_of(write_file("a.hdf5", **attributes), alignment="before", orientation="mirrored")
    assert chosen == Look("before", "mirrored", ("as you say", "as you say"))


@pytest.mark.parametrize(("shift", "alignment"), [(0, "before"), (1, "after")])
def test_joint_angles_tell_the_alignment(shift: int, alignment: str) -> None:
    path = write_file("a.hdf5")
    add_angles(path, shift)
    look = look_of(path)
    assert (look.alignment, look.reasons[0]) == (alignment, "its joint angles and simulator states say so")
    assert read_one(path)[keys.ACTION][0, 0] == pytest.approx(0.1 * shift)


def test_an_arm_that_rests_tells_nothing() -> None:
    path = write_file("a.hdf5")
    add_angles(path, 0)
    with h5py.File(path, "r+") as file:
        file["data/demo_0/states"][...] = 1
        file["data/demo_0/obs/joint_states"][...] = 1
    assert look_of(path).reasons[0] == OWN


@pytest.mark.parametrize(
    ("orientation", "pixel"),
    # Stored: the first row, second column of four. Turned upright, that is row and column:
    [("upside_down", (3, 1)), ("upright", (0, 1)), ("mirrored", (0, 2)), ("rotated", (3, 2))],
)
def test_orientation(orientation: Any, pixel: tuple[int, int]) -> None:
    path = write_file("a.hdf5")
    image = read_one(path, orientation=orientation)[keys.OBSERVATION, "agentview"][0, 2]
    assert (image != 0).nonzero().tolist() == [list(pixel)]
    with h5py.File(path, "r+") as file:
        file["data"].attrs["image_orientation"] = orientation
    assert look_of(path).orientation == orientation


def test_an_orientation_that_says_nothing_is_an_error() -> None:
    path = write_file("a.hdf5", image_orientation="sideways")
    message = r"image_orientation.*sideways.*upright, mirrored.*data.demonstrations.orientation of LiberoReader"
    with pytest.raises(ParameterError, match=message):
        read_one(path)


def test_correlations_by_hand() -> None:
    upright = np.array([[[1.0], [2.0]], [[3.0], [4.0]]])
    stored = upright[::-1]
    # Deviations from the mean are -1.5, -0.5, 0.5, 1.5; rows count four times as much as columns.
    expected = {"upside_down": 1.0, "upright": -0.6, "mirrored": -1.0, "rotated": 0.6}
    assert correlate(stored, upright) == pytest.approx(expected)


def test_the_run_tells_it_once_for_files_alike(caplog: pytest.LogCaptureFixture) -> None:
    Path("demos").mkdir()
    for name in "abc":
        write_file(f"demos/{name}.hdf5", obs_alignment="before" if name == "c" else "after")
    with caplog.at_level(logging.INFO):
        Demonstrations("demos").entries(SPACES)
    told = [record.getMessage() for record in caplog.records if "observations are" in record.getMessage()]
    rest = f"images are stored upside down ({OWN})"
    because = "(its attribute obs_alignment says so)"
    assert told == [
        f"demos/a.hdf5 and 1 more: observations are from after their action {because}, {rest}",
        f"demos/c.hdf5: observations are from before their action {because}, {rest}",
    ]


@real
def test_joint_angles_of_real_files_agree_with_their_attribute() -> None:
    for path in sorted(DEMOS.glob("*.hdf5")):
        shutil.copy(path, "a.hdf5")
        with h5py.File("a.hdf5", "r+") as file:
            del file["data"].attrs["obs_alignment"]
        assert look_of(Path("a.hdf5")).alignment == "before", path
        with h5py.File("a.hdf5", "r+") as file:  # as LIBERO's own: each observation a row earlier
            demo = file["data"][next(iter(file["data"]))]
            demo["obs/joint_states"][:-1] = demo["obs/joint_states"][1:]
        assert look_of(Path("a.hdf5")).alignment == "after", path


@real
@simulated
@pytest.mark.skipif(not INSTALLED, reason="hf-libero is not installed: make setup-libero")
@pytest.mark.libero
@pytest.mark.usefixtures("libero_assets")
def test_images_that_look_turned_beside_the_simulators_are_told() -> None:
    shutil.copy(DEMOS / "turn_on_the_stove_64_demo.hdf5", "a.hdf5")
    with h5py.File("a.hdf5", "r+") as file:
        images = file["data/demo_0/obs/agentview_rgb"]
        images[...] = images[()][:, ::-1, ::-1]
    demonstrations = Demonstrations("a.hdf5")
    spaces = demonstrations.observation_space, demonstrations.action_space
    with pytest.warns(UserWarning, match=r"a.hdf5: its images look mirrored .* give .*orientation=mirrored"):
        demonstrations.entries(spaces)
    Demonstrations(LiberoReader("a.hdf5", orientation="mirrored")).entries(spaces)  # a warning is an error
