"""Episodes recorded in LIBERO's simulator: played, replayed, interrupted, and read back."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rrd_lightning import ParameterError, keys
from rrd_lightning.cli import main
from rrd_lightning.datasets import Demonstrations, LiberoReader
from rrd_lightning.envs.libero import Libero
from rrd_lightning.record import record
from tests.datasets.libero_files import DEMOS, real, write_file
from tests.envs.libero_tasks import needs_libero, simulated
from tests.record.policies import Interrupted

h5py = pytest.importorskip("h5py")
mujoco = pytest.importorskip("mujoco")
pytestmark = [*needs_libero, simulated]

STOVE = "libero_goal/turn_on_the_stove"
POLICIES = "tests.record.policies"
QUICK = {"settle_steps": 2, "size": 64, "fast_rendering": True}


def play(policy: str = "Random", output: str = "played", **options: Any) -> Path:
    defaults = {"task": STOVE, "observations": "state", "episodes": 2, "max_episode_steps": 4, "kwargs": QUICK}
    (path,) = record(output, policy=f"{POLICIES}.{policy}", **{**defaults, **options})
    return path


def read(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file["data"].visititems(
            lambda name, part: found.update({name: part[()]}) if hasattr(part, "dtype") else None
        )
    return found


def test_a_policy_plays_and_the_reader_gets_every_transition() -> None:
    path = play(observations="both")
    assert path == Path("played/turn_on_the_stove.hdf5")
    rows = read(path)
    assert rows["demo_0/actions"].shape == (5, 7)  # the last was not taken
    assert not rows["demo_0/actions"][-1].any()
    assert rows["demo_0/obs/agentview_rgb"].shape == (5, 64, 64, 3)
    with h5py.File(path) as file:
        names = list(file["data/demo_0/obs/objects"].attrs["names"])
        assert (len(names), names[18]) == (25, "flat_stove_1 button joint")
        assert [bool(demo.attrs["success"]) for demo in file["data"].values()] == [False, False]
    reader = LiberoReader(str(path), observations="both", proprioception=True)
    demonstrations = Demonstrations(reader)
    spaces = demonstrations.observation_space, demonstrations.action_space
    env = Libero(STOVE, observations="both", proprioception=True, initial_states="cycled", **QUICK)
    assert spaces[0] == env.observation_space
    (_, first), (_, second) = demonstrations.read(demonstrations.entries(spaces), spaces)
    assert len(first[keys.ACTION]) == 4
    # Played again from its seed, what is seen is the same to the last bit, also after the last action.
    observation, _ = env.reset(seed=10_001)
    for step in range(5):
        for key, seen in observation.items():
            assert np.array_equal(second[keys.OBSERVATION, key][step], seen), (step, key)
        if step < 4:
            observation, *_ = env.step(rows["demo_1/actions"][step])


def test_a_success_ends_the_episode() -> None:
    path = play("Teleporting", episodes=1, max_episode_steps=10)
    demonstrations = Demonstrations(LiberoReader(str(path), observations="state"))
    spaces = demonstrations.observation_space, demonstrations.action_space
    ((_, episode),) = demonstrations.read(demonstrations.entries(spaces), spaces)
    assert episode[keys.REWARD].tolist() == [0, 0, 1]
    assert episode[keys.TERMINATED]
    assert episode[keys.EPISODE_RETURN] == 1
    assert float(episode[keys.OBSERVATION, "objects"][-1, 18]) > 0.9


def test_states_replayed_are_seen_as_they_were_played() -> None:
    played = play()
    (replayed,) = record("replayed", demonstrations=str(played), observations="state", kwargs=QUICK)
    before, after = read(played), read(replayed)
    for key in before:
        if not key.endswith("robot_states"):  # which robosuite samples some milliseconds earlier
            assert np.array_equal(before[key], after[key]), key
    # Where the fixtures are is also known from the scene's XML alone, as in LIBERO's own files.
    with h5py.File(played, "r+") as file:
        for demo in file["data"].values():
            env = Libero(STOVE, **QUICK)
            env.reset(seed=0)
            env.restore(demo["states"][0], json.loads(demo.attrs["fixture_poses"]))
            mujoco.mj_saveLastXML("scene.xml", env._simulator.sim.model._model)
            demo.attrs["model_file"] = Path("scene.xml").read_text()
            del demo.attrs["fixture_poses"]
    (again,) = record("again", demonstrations=str(played), observations="state", kwargs=QUICK)
    found = read(again)
    for demo in ("demo_0", "demo_1"):
        np.testing.assert_allclose(found[f"{demo}/obs/objects"], before[f"{demo}/obs/objects"], atol=1e-5)
    with h5py.File(played, "r+") as file:
        file["data/demo_1"].attrs["model_file"] = ""
    with pytest.raises(ParameterError, match=r"demo_1/model_file.*missing, and so is fixture_poses: .*stove_1"):
        record("third", demonstrations=str(played), observations="state", kwargs=QUICK)


def test_an_interrupted_command_goes_on_with_what_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    Interrupted.episodes = 0
    with pytest.raises(KeyboardInterrupt):
        play("Interrupted", episodes=3)
    path = play("Interrupted", episodes=3)
    assert Interrupted.episodes == 4  # one was recorded, the second twice begun
    assert [each.name for each in Path("played").iterdir()] == [path.name]
    whole = read(play("Interrupted", "whole", episodes=3))
    assert all(np.array_equal(whole[key], value) for key, value in read(path).items())
    with caplog.at_level(logging.INFO):
        play("Interrupted", episodes=3)
    assert Interrupted.episodes == 7
    with pytest.raises(ParameterError, match=r"stove.hdf5': is there, recorded with other options"):
        play("Interrupted", episodes=2)


def test_a_checkpoint_plays_in_its_own_environment() -> None:
    fit = ["fit", "--config=mujoco", f"--env.id={STOVE}", "--env.kwargs.observations=state"]
    fit += ["--env.kwargs.settle_steps=2", "--env.action_repeat=2", "--env.max_episode_steps=6"]
    fit += ["--collect.warmup_steps=12", "--collect.env_steps_per_iteration=6", "--collect.total_env_steps=18"]
    fit += [
        "--data.train_batches=1",
        "--data.batch_size=4",
        "--data.rrd_batch_size=4",
        "--data.rrd_sample_size=4",
    ]
    main([*fit, "--data.capacity=100", "--evaluate.episodes=1", "--trainer.accelerator=cpu"])
    checkpoint = "runs/libero_goal-turn_on_the_stove/version_0/checkpoints/last.ckpt"
    played = ["--observations=images", "--kwargs.size=64", "--kwargs.fast_rendering=true", "--episodes=1"]
    main(["record", f"--ckpt_path={checkpoint}", "--output=played", *played])
    rows = read(Path("played/turn_on_the_stove.hdf5"))
    assert rows["demo_0/actions"].shape == (7, 7)
    pairs = rows["demo_0/actions"][:6].reshape(3, 2, 7)
    assert np.array_equal(pairs[:, 0], pairs[:, 1])
    assert not np.array_equal(pairs[0], pairs[1])
    assert set(rows) & {"demo_0/obs/agentview_rgb", "demo_0/obs/robot"} == {"demo_0/obs/agentview_rgb"}


@real
def test_real_demonstrations_get_their_state() -> None:
    source = DEMOS / "turn_on_the_stove_demo.hdf5"
    (path,) = record("recorded", demonstrations=str(source), observations="state")
    before, after = read(source), read(path)
    reader = Demonstrations(LiberoReader(str(path), observations="state"))
    spaces = reader.observation_space, reader.action_space
    assert all(entry.facts.success for entry in reader.entries(spaces))
    for demo in range(6):
        rows = {key: after[f"demo_{demo}/{key}"] for key in ("obs/robot", "obs/objects", "states", "actions")}
        assert np.array_equal(rows["states"], before[f"demo_{demo}/states"])
        assert np.array_equal(rows["actions"], before[f"demo_{demo}/actions"])
        np.testing.assert_allclose(rows["obs/robot"][:, :3], before[f"demo_{demo}/obs/ee_pos"], atol=5e-3)
        knob = rows["obs/objects"][:, 18]
        assert knob[0] == pytest.approx(0, abs=0.01)
        assert knob[-1] > 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "record=.*: give one of demonstrations, ckpt_path and policy"),
        ({"policy": "a.B", "demonstrations": "b"}, "give one of"),
        (
            {"policy": "a.B", "task": STOVE},
            "policy='a.B': must name a subclass of Policy .*No module named 'a'",
        ),
        ({"policy": f"{POLICIES}.Random"}, "task=None: must be a LIBERO task"),
        ({"policy": f"{POLICIES}.Random", "task": STOVE, "episodes": 0}, "episodes=0: must be greater"),
        ({"demonstrations": "nowhere"}, "'nowhere': is neither a file nor a folder"),
        ({"demonstrations": "a.hdf5"}, "a.hdf5/data.bddl_file_name': is missing: say with --task"),
        ({"demonstrations": "a.hdf5", "output": "."}, "output='a.hdf5': is the file to replay"),
        ({"demonstrations": "a.hdf5", "task": STOVE, "observations": "state"}, "demo_0/states': is missing"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    write_file("a.hdf5")
    with pytest.raises(ParameterError, match=message):
        record(**{"output": "recorded", **options})


def test_a_file_without_the_state_names_the_command() -> None:
    path = write_file("a.hdf5")
    reader = LiberoReader(str(path), observations="state")
    with pytest.raises(ParameterError, match=r"obs/robot': is missing: .* rrd record --demonstrations a.hdf5"):
        _ = Demonstrations(reader).observation_space


def test_the_policy_of_the_documentation_approaches_the_knob(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs/demonstrations.md").read_text()
    (example,) = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "record" in code]
    Path("documented_policy.py").write_text(example)
    monkeypatch.syspath_prepend(Path.cwd())
    (path,) = record(
        "played",
        policy="documented_policy.Nudge",
        task=STOVE,
        kwargs=QUICK,
        observations="state",
        episodes=1,
        max_episode_steps=8,
    )
    place = Libero(STOVE, observations="state").state_names["objects"].index("flat_stove_1 button from hand x")
    away = np.linalg.norm(read(path)["demo_0/obs/objects"][:, place : place + 3], axis=1)
    assert away[-1] < away[0] - 0.05
