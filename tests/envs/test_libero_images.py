"""What LIBERO's cameras show, and how it is drawn."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import numpy as np
import pytest

from rrd_lightning import Environment
from rrd_lightning.envs import libero_camera
from tests.envs.libero_tasks import BOWL, make, needs_libero, simulated

pytestmark = needs_libero


@simulated
def test_observations_upright(capfd: pytest.CaptureFixture[str]) -> None:
    env = Environment(BOWL, kwargs={"size": 80, "wrist": True, "proprioception": True}).make(
        render_mode="rgb_array"
    )
    observation, _ = env.reset(seed=1)
    assert observation in env.observation_space
    assert env.unwrapped.instruction == env.unwrapped.metadata["instruction"] == "Put the bowl on the stove"
    view = observation["agentview"]
    np.testing.assert_array_equal(env.render(), view.transpose(1, 2, 0))
    # The grey wall behind the robot is above, the wooden table below: red exceeds blue in wood alone.
    redness = view[0].astype(int) - view[2]
    assert redness[:10].mean() < 5
    assert redness[-10:].mean() > 15
    # The black cabinet, at negative y, is to the left of a camera that looks along negative x.
    assert view[:, 30:60, :20].mean() < view[:, 30:60, -20:].mean() - 50
    position, fingers = observation["proprioception"][:3], observation["proprioception"][7:]
    assert np.linalg.norm(observation["proprioception"][3:7]) == pytest.approx(1, abs=1e-5)
    assert fingers[0] == pytest.approx(-fingers[1], abs=1e-3)
    up = np.array([0, 0, 1, 0, 0, 0, 1], np.float32)  # up, and close the gripper
    for _ in range(5):
        after, *_ = env.step(up)
    assert after["proprioception"][2] > position[2] + 0.01
    assert abs(after["proprioception"][7]) < abs(fingers[0])
    assert not np.array_equal(after["wrist"], observation["wrist"])
    env.close()
    assert capfd.readouterr() == ("", "")


@simulated
def test_only_what_is_asked_for_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    picture = libero_camera.Camera.render

    def spy(self: Any, camera: str, size: int) -> np.ndarray:
        drawn.append(camera)
        return picture(self, camera, size)

    monkeypatch.setattr(libero_camera.Camera, "render", spy)
    env = make(settle_steps=5)
    env.reset(seed=0)
    env.step(np.zeros(7, np.float32))
    env.close()
    assert drawn == ["agentview"] * 2


@simulated
def test_repeated_actions_draw_once_and_show_the_same() -> None:
    kwargs = {"observations": "both", "size": 64, "fast_rendering": True, "settle_steps": 5}
    once, twice = (
        Environment(BOWL, kwargs=kwargs, max_episode_steps=5, action_repeat=repeat).make() for repeat in (1, 2)
    )
    observations = [env.reset(seed=3)[0] for env in (once, twice)]
    down = np.array([0, 0, -1, 0, 0, 0, -1], np.float32)
    for steps in (2, 2, 1):  # the last action meets the time limit
        seen = [once.step(down) for _ in range(steps)][-1]
        held = twice.step(down)
        for key, part in seen[0].items():
            np.testing.assert_array_equal(held[0][key], part)
            assert not np.array_equal(observations[1][key], part)
        observations = [seen[0], held[0]]
        assert held[1:4] == seen[1:4]
    assert held[3]
    once.close(), twice.close()


@simulated
def test_no_context_is_left_current() -> None:
    """One that was destroyed while it was current made the process crash at a later one."""
    env = make()
    if os.environ.get("MUJOCO_GL") != "osmesa":
        pytest.skip("there is a GPU, and pictures do not come from OSMesa")
    env.reset(seed=0)
    current = importlib.import_module("OpenGL.osmesa").OSMesaGetCurrentContext
    assert not current()
    env.step(np.zeros(7, np.float32))
    assert not current()
    env.close()
    assert not current()


@simulated
def test_fast_rendering_changes_the_picture_alone() -> None:
    fast, slow = make(proprioception=True), make(proprioception=True, fast_rendering=False)
    seen = [env.reset(seed=0)[0] for env in (fast, slow)]
    assert np.array_equal(seen[0]["proprioception"], seen[1]["proprioception"])
    difference = np.abs(seen[0]["agentview"].astype(int) - seen[1]["agentview"])
    assert 0 < difference.mean() < 30
    fast.close()
    slow.close()
