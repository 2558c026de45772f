"""LIBERO's HDF5 files: what is read, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict

from rrd_lightning import ParameterError, keys
from rrd_lightning.datasets import Demonstrations, LiberoReader
from tests.datasets.libero_files import DEMOS, SPACES, read_one, real, write_file
from tests.runs import make_data

h5py = pytest.importorskip("h5py")


@pytest.mark.parametrize(
    ("attributes", "option", "first_action"),
    [
        ({}, None, 1),  # LIBERO's way: obs[0] is from after action 0
        ({"obs_alignment": "obs[t] and states[t] are before actions[t]"}, None, 0),
        ({"obs_alignment": "after"}, "before", 0),
        ({"obs_alignment": "before"}, "after", 1),
    ],
)
def test_alignment(attributes: dict[str, str], option: Any, first_action: int) -> None:
    path = write_file("a.hdf5", steps=5, **attributes)
    episode = read_one(path, alignment=option)
    # Five observations are left for four actions: row t is observation t, whatever came before it.
    assert episode[keys.OBSERVATION, "agentview"][:, 2, 3, 1].tolist() == [10, 11, 12, 13, 14]
    actions = [0.0, 0.1, 0.2, 0.3, 0.4][first_action : first_action + 4]
    assert episode[keys.ACTION][:, 0].tolist() == pytest.approx(actions)
    assert episode[keys.REWARD].tolist() == [0.0, 0.0, 0.0, float(first_action)]
    # The success of the last action counts, also where its transition is lost.
    assert episode[keys.EPISODE_RETURN] == 1
    assert episode[keys.TERMINATED]
    assert episode[keys.SUCCESS]


def test_an_alignment_that_says_nothing_is_an_error() -> None:
    path = write_file("a.hdf5", obs_alignment="sideways")
    with pytest.raises(
        ParameterError,
        match=r"a.hdf5/data.obs_alignment.*sideways.*data.demonstrations.alignment of LiberoReader overrides",
    ):
        read_one(path)
    assert len(read_one(path, alignment="after")[keys.ACTION]) == 4


def test_success_is_the_return_and_the_attribute_wins() -> None:
    path = write_file("a.hdf5", demos=3)
    with h5py.File(path, "r+") as file:
        file["data/demo_2"].attrs["success"] = False
        file["data/demo_0/rewards"][...] = 1
    demonstrations = Demonstrations(str(path))
    episodes = [episode for _, episode in demonstrations.read(demonstrations.entries(SPACES), SPACES)]
    assert [float(episode[keys.EPISODE_RETURN]) for episode in episodes] == [1, 0, 0]
    assert episodes[0][keys.REWARD].tolist() == [1, 1, 1, 1]
    assert [bool(episode[keys.TERMINATED]) for episode in episodes] == [True, False, False]


def test_images_are_upright_and_cameras_and_proprioception_follow_the_spaces() -> None:
    parts = {key: Box(0, 255, (3, 4, 4), np.uint8) for key in ("agentview", "wrist")}
    spaces = Dict({**parts, "proprioception": Box(-9, 9, (9,), np.float32)}), SPACES[1]
    observation = read_one(write_file("a.hdf5"), spaces)[keys.OBSERVATION]
    assert observation.batch_size == (5,)
    for key, background in (("agentview", 0), ("wrist", 1)):
        image = observation[key][0]
        assert image.dtype == torch.uint8
        assert image[2, 3, 1] == 10 + background  # last row now, same column, blue
        assert (image != background).sum() == 1
    # robot_states is gripper, position, quaternion; the gripper goes last.
    expected = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.0, 0.1]
    assert observation["proprioception"][0].tolist() == pytest.approx(expected)


def test_spaces_of_the_files() -> None:
    path = str(write_file("a.hdf5"))
    observation_space, action_space = (
        Demonstrations(path).observation_space,
        Demonstrations(path).action_space,
    )
    assert (observation_space, action_space) == SPACES
    reader = LiberoReader(path, image_size=2, cameras=("wrist",), proprioception=True)
    shown: Any = Demonstrations(reader).observation_space
    assert {key: part.shape for key, part in shown.items()} == {"wrist": (3, 2, 2), "proprioception": (9,)}
    write_file("b.hdf5", size=8)
    with pytest.raises(ParameterError, match=r"b.hdf5.*LiberoReader resizes images"):
        _ = Demonstrations([path, "b.hdf5"]).observation_space
    with pytest.raises(ParameterError, match=r"data.demonstrations.image_size=0: must be greater than zero"):
        _ = Demonstrations(LiberoReader(path, image_size=0)).sources


def test_spaces_that_files_cannot_serve() -> None:
    write_file("a.hdf5")
    for spaces in (
        (Box(-1, 1, (3,)), SPACES[1]),
        (Dict({"depth": Box(0, 1, (3, 4, 4))}), SPACES[1]),
        (Dict({"proprioception": Box(-1, 1, (8,))}), SPACES[1]),
        (SPACES[0], Box(-1, 1, (6,))),
    ):
        with pytest.raises(ParameterError, match=r"a.hdf5': LIBERO's files provide"):
            Demonstrations("a.hdf5").entries(spaces)


@real
def test_real_files_become_episodes(caplog: pytest.LogCaptureFixture) -> None:
    demonstrations = Demonstrations(
        LiberoReader(str(DEMOS), image_size=32, proprioception=True, cache_dir="cache")
    )
    spaces = demonstrations.observation_space, demonstrations.action_space
    entries = demonstrations.entries(spaces)
    assert len(entries) == 72
    assert sum(bool(entry.facts.success) for entry in entries) == 36
    some = [entry for entry in entries if entry.episode in {"demo_0", "demo_5"}]
    replay = make_data().replay
    for (name, episode), entry in zip(demonstrations.read(some, spaces), some, strict=True):
        assert name == entry.name
        assert len(episode[keys.ACTION]) == entry.facts.length
        assert episode[keys.OBSERVATION, "agentview"].shape == (entry.facts.length + 1, 3, 32, 32)
        assert float(episode[keys.EPISODE_RETURN]) == entry.facts.success == ("_demo.hdf5" in name)
        replay.add_episode(episode)
    assert len(replay) == sum(entry.facts.length for entry in some)
    assert replay.sample()[keys.TRANSITIONS][keys.OBSERVATION, "agentview"].dtype == torch.uint8


@real
def test_real_pixels_and_arm() -> None:
    path = DEMOS / "turn_on_the_stove_demo.hdf5"
    demonstrations = Demonstrations(
        LiberoReader(str(path), cameras=("agentview", "wrist"), proprioception=True)
    )
    spaces = demonstrations.observation_space, demonstrations.action_space
    ((_, episode),) = demonstrations.read(demonstrations.entries(spaces)[:1], spaces)
    observation = episode[keys.OBSERVATION]
    with h5py.File(path) as file:
        demo = file["data/demo_0"]
        assert np.array_equal(observation["wrist"][7, 1], demo["obs/eye_in_hand_rgb"][7][::-1, :, 1])
        assert np.array_equal(episode[keys.ACTION], demo["actions"][:-1].astype(np.float32))
        arm = observation["proprioception"].numpy()
        assert np.allclose(arm[:, :3], demo["obs/ee_pos"][:], atol=1e-6)
        # The same rotation as the file's axis times angle, and a unit quaternion.
        angle = np.linalg.norm(demo["obs/ee_ori"][:], axis=1)
        assert np.allclose(arm[:, 6], np.cos(angle / 2), atol=1e-3)
        assert np.allclose(np.linalg.norm(arm[:, 3:7], axis=1), 1, atol=1e-5)
        assert np.allclose(arm[:, 7:], demo["obs/gripper_states"][:], atol=1e-4)
