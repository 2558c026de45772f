"""LIBERO observed by its state: what the numbers are, and that nothing is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rrd_lightning import Environment, ParameterError
from rrd_lightning.envs import libero_camera, libero_installation, libero_task
from tests.envs.libero_tasks import BOWL, DRAWER, SMALL, make, needs_libero, simulated

pytestmark = needs_libero
STOVE = "libero_goal/turn_on_the_stove"
MICROWAVE = "libero_90/KITCHEN_SCENE6_close_the_microwave"
FRONT = "libero_goal/push_the_plate_to_the_front_of_the_stove"
ZERO = np.zeros(7, np.float32)


def make_state(id: str = BOWL, **kwargs: Any) -> Any:
    return make(id, observations="state", **kwargs)


def named(env: Any, observation: dict[str, np.ndarray]) -> dict[str, float]:
    """The numbers of an observation by their names."""
    names = env.unwrapped.state_names
    return {
        name: float(number) for key in names for name, number in zip(names[key], observation[key], strict=True)
    }


def three(numbers: dict[str, float], name: str) -> np.ndarray:
    return np.array([numbers[f"{name} {axis}"] for axis in "xyz"])


@simulated
def test_each_number_has_a_name_before_there_is_a_simulator() -> None:
    env = make_state(STOVE)
    assert env.unwrapped._simulator is None
    names = env.unwrapped.state_names
    assert {key: space.shape for key, space in env.observation_space.items()} == {
        "robot": (21,),
        "objects": (25,),
    }
    assert names["robot"][0] == "position x"
    assert names["robot"][-1] == "joint 7"
    assert names["objects"][18:22] == [
        "flat_stove_1 button joint",
        *(f"flat_stove_1 button position {axis}" for axis in "xyz"),
    ]
    # The bowl, the region to put it on, which has a place alone, and the stove, which has the region.
    assert make_state().observation_space["objects"].shape == (18 + 6 + 25,)
    assert make_state(objects=["plate_1"]).observation_space["objects"].shape == (18,)
    assert set(make_state(objects=[]).observation_space.spaces) == {"robot"}
    assert set(make(observations="both", objects=[]).observation_space.spaces) == {"robot", "agentview"}


@simulated
def test_numbers_are_those_of_the_simulator() -> None:
    env = make_state()
    env.reset(seed=0)
    simulator = env.unwrapped._simulator
    # A quarter turn about z: x becomes y, y becomes −x.
    half = np.sqrt(0.5)
    simulator.sim.data.set_joint_qpos("akita_black_bowl_1_joint0", [0.1, 0.2, 1.3, half, 0, 0, half])
    simulator.sim.data.set_joint_qpos("flat_stove_1_button", 0.7)
    seen = env.unwrapped._state.read()
    numbers = named(env, seen)
    hand = three(numbers, "position")
    np.testing.assert_allclose(three(numbers, "akita_black_bowl_1 position"), [0.1, 0.2, 1.3], atol=1e-6)
    np.testing.assert_allclose(
        three(numbers, "akita_black_bowl_1 from hand"), [0.1, 0.2, 1.3] - hand, atol=1e-6
    )
    rotation = [
        numbers[f"akita_black_bowl_1 rotation {entry}"] for entry in ("xx", "yx", "zx", "xy", "yy", "zy")
    ]
    np.testing.assert_allclose(rotation, [0, 1, 0, -1, 0, 0], atol=1e-6)
    # The hand points down: its y and z axes are turned over. Of the bowl's axes, x is the world's y.
    relative = [numbers[f"akita_black_bowl_1 rotation in hand {entry}"] for entry in ("xx", "yx", "xy", "yy")]
    np.testing.assert_allclose(relative, [0, -1, -1, 0], atol=0.1)
    assert numbers["flat_stove_1 button joint"] == pytest.approx(0.7)
    # The knob is at the edge of the stove, the burner 15 cm away.
    stove, burner = (three(numbers, f"flat_stove_1{part} position") for part in ("", "_cook_region"))
    np.testing.assert_allclose(burner - stove, [0.15, 0, 0], atol=1e-6)
    assert np.linalg.norm(three(numbers, "flat_stove_1 button position") - stove) < 0.02


@simulated
def test_the_robot_agrees_with_proprioception_and_velocity_with_positions() -> None:
    env = make_state(proprioception=True)
    after, _ = env.reset(seed=0)
    action = np.array([0.5, -0.5, 0.3, 0, 0, 0.2, 1], np.float32)
    for _ in range(6):
        before = after
        after, *_ = env.step(action)
    numbers = named(env, after)
    speed = three(numbers, "velocity")
    assert np.linalg.norm(speed) > 0.05
    moved = (after["robot"][:3] - before["robot"][:3]) * 20
    np.testing.assert_allclose(speed, moved, atol=0.05)
    # Proprioception is robosuite's, of some milliseconds before.
    arm = after["proprioception"]
    np.testing.assert_allclose(after["robot"][:3], arm[:3], atol=2e-3)
    x, y, z, w = arm[3:7]
    columns = [1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w)]
    np.testing.assert_allclose(after["robot"][3:6], columns, atol=0.01)
    np.testing.assert_allclose(after["robot"][12:14], arm[7:], atol=1e-3)


@simulated
@pytest.mark.parametrize("task", [BOWL, DRAWER])
def test_observing_changes_nothing_and_a_recorded_state_gives_the_same_numbers(task: str) -> None:
    envs = {kind: make(task, observations=kind) for kind in ("images", "state", "both")}
    random = np.random.default_rng(0)
    for env in envs.values():
        env.reset(seed=1)
    for _ in range(8):
        action = random.uniform(-1, 1, 7).astype(np.float32)
        seen = {kind: env.step(action)[0] for kind, env in envs.items()}
        states = [env.unwrapped._simulator.get_sim_state() for env in envs.values()]
        assert np.array_equal(states[0], states[1])
        assert np.array_equal(states[0], states[2])
        assert np.array_equal(seen["state"]["objects"], seen["both"]["objects"])
        assert np.array_equal(seen["images"]["agentview"], seen["both"]["agentview"])
    again = envs["images"]  # at the same fixtures
    other = make_state(task)
    other.reset(seed=1)
    other.unwrapped._simulator.set_state(states[0])
    read = other.unwrapped._state.read()
    assert all(np.array_equal(read[key], seen["state"][key]) for key in ("robot", "objects"))
    for env in (*envs.values(), again, other):
        env.close()


@simulated
def test_nothing_is_drawn_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = make(observations="images")
    expected = shown.reset(seed=2)[0]["agentview"]
    env = Environment(BOWL, kwargs={**SMALL, "observations": "state"}).make(render_mode="rgb_array")
    env.reset(seed=2)
    # The state is of 2 ms later than an image, in which a falling bowl moves by less than a pixel.
    assert np.abs(env.render().astype(int) - expected.transpose(1, 2, 0)).mean() < 1
    monkeypatch.setattr(libero_camera.Camera, "__init__", lambda *args: pytest.fail("a renderer was started"))
    env = make_state()
    env.reset(seed=2)
    env.step(ZERO)
    assert env.render() is None


@simulated
def test_without_a_graphics_library_there_is_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libero_installation.ctypes.util, "find_library", lambda name: None)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert make_state().observation_space["robot"].shape == (21,)
    with pytest.raises(ParameterError, match="the library OSMesa"):
        make()


@simulated
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"observations": "sound"}, "observations='sound': must be one of images, state, both"),
        (
            {"objects": ["plate"]},
            "objects='plate': is not in the scene; valid ones, most similar first: plate_1, .*_cook_region",
        ),
    ],
)
def test_bad_options(option: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make(**option)


@simulated
@pytest.mark.parametrize("task", [MICROWAVE, DRAWER, FRONT])
def test_kinds_of_tasks(task: str) -> None:
    check(make_state(task))


@simulated
@pytest.mark.slow
@pytest.mark.parametrize("suite", libero_task.TIME_LIMITS)
def test_every_task(suite: str) -> None:
    for number in range(len(libero_task.task_names()[suite])):
        check(make_state(f"{suite}:{number}"))


def check(env: Any) -> None:
    """Build and step a task, and compare the joints that it names with those of the simulator."""
    env.reset(seed=0)
    observation, *_ = env.step(ZERO)
    assert observation in env.observation_space
    assert all(np.isfinite(part).all() for part in observation.values())
    for thing in env.unwrapped._things:
        if not thing.is_region:
            joints = env.unwrapped._simulator.env.get_object(thing.name).joints
            moving = [joint.removeprefix(f"{thing.name}_") for joint in joints if not joint.endswith("_joint0")]
            assert moving == list(thing.joints), thing
    env.close()
