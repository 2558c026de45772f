"""LIBERO in its real simulator: images, repetition, options, and what is said where something is missing."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import rrd_lightning
from rrd_lightning import Environment, ParameterError, RRDModule, keys
from rrd_lightning.cli import main
from rrd_lightning.envs import Rollout, libero, libero_installation, libero_task

ROOT = Path(rrd_lightning.__file__).parents[1]
ASSETS = Path(
    os.environ.get(libero_installation.ASSETS_VARIABLE) or ROOT.parent / "shared" / "libero" / "assets"
)
DEMOS = Path(os.environ.get("RRD_LIBERO_DEMOS", ROOT.parent / "shared" / "libero")) / "demos"
INSTALLED = importlib.util.find_spec("libero") is not None
BOWL = "libero_goal/put_the_bowl_on_the_stove"
DRAWER = "libero_90/KITCHEN_SCENE4_close_the_bottom_drawer_of_the_cabinet"
SMALL = {"size": 64, "settle_steps": 2, "fast_rendering": True}

pytestmark = [
    pytest.mark.libero,
    pytest.mark.skipif(not INSTALLED, reason="hf-libero is not installed: make setup-libero"),
]
simulated = pytest.mark.skipif(
    not (ASSETS / "scenes").is_dir(),
    reason=f"no LIBERO assets: export {libero_installation.ASSETS_VARIABLE}=FOLDER",
)


@pytest.fixture(autouse=True)
def _assets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(libero_installation.ASSETS_VARIABLE, str(ASSETS.absolute()))


def make(id: str = BOWL, **kwargs: Any) -> Any:
    return Environment(id, kwargs={**SMALL, **kwargs}).make()


def play(env: Any, steps: int = 6) -> list[np.ndarray]:
    """Act at random, but always alike; return all that is seen."""
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, 7)).astype(np.float32)
    return [part for action in actions for part in env.step(action)[0].values()]


def equal(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(np.array_equal(*pair) for pair in zip(first, second, strict=True))


def test_ids() -> None:
    by_number = Environment("libero_goal:9")
    assert by_number.id == f"libero_goal/{libero_task.task_names()['libero_goal'][9]}"
    assert Environment(BOWL).id == BOWL
    assert Environment(BOWL).max_episode_steps == 300
    assert Environment(BOWL, max_episode_steps=7).max_episode_steps == 7
    assert [len(names) for names in libero_task.task_names().values()] == [10, 10, 10, 10, 90]
    assert libero_task.find_task("Pendulum-v1") is None


def test_unknown_suites_and_tasks_list_the_valid_ones() -> None:
    with pytest.raises(
        ParameterError, match="is not in a LIBERO suite; valid ones, most similar first: libero_goal, "
    ) as error:
        Environment("libero_goals/x")
    assert all(suite in str(error.value) for suite in libero_task.TIME_LIMITS)
    with pytest.raises(
        ParameterError,
        match="not a task of libero_goal; valid ones, most similar first: put_the_bowl_on_the_stove, ",
    ) as error:
        Environment("libero_goal/put_the_bowl_on_the_stov")
    assert all(name in str(error.value) for name in libero_task.task_names()["libero_goal"])
    with pytest.raises(ParameterError, match="libero_goal:0 to libero_goal:9"):
        Environment("libero_goal:10")
    with pytest.raises(ParameterError, match="is not a task of libero_10; valid ones, most similar first: "):
        Environment("libero_10")


@simulated
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"size": 63}, r"env.kwargs.size=63: must be between 64 and 256"),
        ({"size": 257}, r"env.kwargs.size=257: must be between 64 and 256"),
        ({"settle_steps": -1}, r"env.kwargs.settle_steps=-1: must not be negative"),
        ({"initial_states": "first"}, r"initial_states='first': must be one of random, cycled, or a number"),
        ({"initial_states": 50}, r"initial_states=50: must be .* from 0 to 49"),
        ({"assets": "nowhere"}, r"LIBERO needs its assets, which are not in 'nowhere': export RRD_"),
        ({"no_such": 1}, r"cannot be made: .*no_such"),
    ],
)
def test_bad_options(option: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make(**option)


@simulated
def test_what_is_missing_is_one_error_with_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libero_installation.importlib.metadata, "version", lambda name: "3.10.0")
    monkeypatch.setattr(libero_installation.ctypes.util, "find_library", lambda name: None)
    monkeypatch.setattr(libero_installation, "MODULES", ("numba", "no_such_module"))
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(ParameterError) as error:
        make(assets="nowhere")
    commands = [
        "no_such_module: pip install 'rrd-lightning[libero]'",
        "instead of 3.10.0: pip install 'mujoco<3.4,>=3.2.7'",
        "apt-get install libosmesa6",
        "export RRD_LIBERO_ASSETS=",
    ]
    assert all(command in str(error.value) for command in commands), error.value


def test_no_package_is_an_error_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    libero_task.task_names.cache_clear()
    monkeypatch.setattr(libero_installation.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ParameterError, match=r"not installed: pip install 'rrd-lightning\[libero\]'"):
        Environment(BOWL)


@simulated
def test_first_use_asks_nothing_and_prints_nothing(tmp_path: Path) -> None:
    """Where LIBERO has no configuration yet, and there is nobody to answer a question."""
    code = f"""
import sys
from rrd_lightning import Environment
env = Environment({BOWL!r}, kwargs={{"size": 64, "settle_steps": 0}})
assert env.observation_space["agentview"].shape == (3, 64, 64)
assert not {{"libero", "robosuite"}} & set(sys.modules), "spaces are known before the simulator is"
env = env.make()
env.reset(seed=0)
env.step(env.action_space.sample())
env.close()
"""
    environment = {**os.environ, "LIBERO_CONFIG_PATH": str(tmp_path / "new")}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


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
@pytest.mark.parametrize("task", [BOWL, DRAWER])
def test_episodes_repeat_to_the_last_bit(task: str) -> None:
    """In the same environment after other episodes, and in a new one that has played none."""
    kwargs = {"wrist": True, "proprioception": True}
    env, other = make(task, **kwargs), make(task, **kwargs)
    env.reset(seed=0)
    before = env.unwrapped.np_random.bit_generator.state
    first = [*env.reset()[0].values(), *play(env)]
    different = [*env.reset()[0].values(), *play(env)]
    assert not equal(first, different)
    for each in (env, other):
        each.unwrapped.np_random = np.random.default_rng()
        each.unwrapped.np_random.bit_generator.state = before
        assert equal(first, [*each.reset()[0].values(), *play(each)])
    # Each draws with its own graphics context, also where the other's was used last.
    env.close()
    assert equal(play(other), play_alone(task, kwargs, before))
    other.close()


def play_alone(task: str, kwargs: dict, generator: dict) -> list[np.ndarray]:
    env = make(task, **kwargs)
    env.unwrapped.np_random = np.random.default_rng()
    env.unwrapped.np_random.bit_generator.state = generator
    env.reset()
    play(env)
    seen = play(env)
    env.close()
    return seen


@simulated
def test_seeds_and_the_global_generator() -> None:
    env = make()
    first, again, other = (env.reset(seed=seed)[0]["agentview"] for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    np.random.seed(0)  # noqa: NPY002
    expected = np.random.rand()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    env.reset()
    assert np.random.rand() == expected  # noqa: NPY002
    env.close()


@simulated
def test_initial_states() -> None:
    env = gymnasium.make(libero_task.find_task(BOWL).spec(), **SMALL).unwrapped
    all_states = env._states

    def states(initial_states: str | int, number: int = 3) -> list[int]:
        env.initial_states, env._states = initial_states, all_states[:number]
        return [env.reset(seed=seed)[1]["initial_state"] for seed in (4, None, None, None)]

    assert states("cycled") == [1, 2, 0, 1]
    assert states(2) == [2] * 4
    assert len(set(states("random", 50))) > 1
    env.close()


@simulated
def test_relived_episode_goes_on_through_the_cycle() -> None:
    env, other = make(initial_states="cycled"), make(initial_states="cycled")
    env.reset(seed=5)
    env.reset()
    assert json.loads(env.episode_start)[1] == {"initial_state": 6}
    actions = [env.action_space.sample() for _ in range(3)]
    for action in actions:
        observation, *_ = env.step(action)
    other.reset(seed=0)
    other.past = (env.episode_start, actions)
    relived, _ = other.fast_forward()
    assert np.array_equal(observation["agentview"], relived["agentview"])
    assert np.array_equal(env.reset()[0]["agentview"], other.reset()[0]["agentview"])
    env.close()
    other.close()


@simulated
def test_only_what_is_asked_for_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    picture = libero._Camera.render

    def spy(self: Any, camera: str, size: int) -> np.ndarray:
        drawn.append(camera)
        return picture(self, camera, size)

    monkeypatch.setattr(libero._Camera, "render", spy)
    env = make(settle_steps=5)
    env.reset(seed=0)
    env.step(np.zeros(7, np.float32))
    env.close()
    assert drawn == ["agentview"] * 2


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


@simulated
def test_success_ends_the_episode_with_a_reward_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make()
    env.reset(seed=0)
    action = np.zeros(7, np.float32)
    assert env.step(action)[1:] == (0.0, False, False, {"true_reward": 0.0, "success": False})
    simulator = env.unwrapped._simulator
    bowl, stove = "akita_black_bowl_1_joint0", "flat_stove_1_cook_region"
    x, y, z = simulator.sim.data.get_site_xpos(stove)
    simulator.sim.data.set_joint_qpos(bowl, [x, y, z + 0.05, 1, 0, 0, 0])
    for _ in range(20):
        _, feedback, terminated, truncated, info = env.step(action)
        if terminated:
            break
    assert (feedback, terminated, truncated) == (1.0, True, False)
    assert info == {"true_reward": 1.0, "success": True}
    env.close()


@simulated
def test_resets_are_tried_a_bounded_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make()
    env.reset(seed=0)
    from robosuite.utils.errors import RandomizationError

    tries = []

    def crowded() -> None:
        tries.append(1)
        raise RandomizationError("the table is full")

    monkeypatch.setattr(env.unwrapped._simulator.env, "reset", crowded)
    with pytest.raises(
        RuntimeError, match=f"{BOWL}: objects could not be placed in 10 attempts: the table is full"
    ):
        env.reset()
    assert len(tries) == libero.RESET_ATTEMPTS


@simulated
def test_two_workers_collect_and_resume() -> None:
    environment = Environment(BOWL, max_episode_steps=3, kwargs={**SMALL, "proprioception": True})
    rollout, resumed = (Rollout(environment.make_vector(2, how)) for how in ("async", "sync"))
    rollout.reset(seed=0)
    rollout.envs.action_space.seed(0)
    episodes = [episode for _ in range(4) for episode in rollout.step(rollout.envs.action_space.sample())]
    assert len(episodes) == 2
    assert episodes[0][keys.OBSERVATION]["agentview"].shape == (4, 3, 64, 64)
    assert not episodes[0][keys.SUCCESS]
    assert resumed.load_state_dict(rollout.state_dict()) == []
    action = rollout.envs.action_space.sample()
    rollout.step(action)
    resumed.step(action)
    assert (rollout.observation == resumed.observation).all()
    rollout.envs.close()
    resumed.envs.close()


@simulated
@pytest.mark.slow
@pytest.mark.parametrize("suite", libero_task.TIME_LIMITS)
def test_every_task_builds_resets_and_steps(suite: str) -> None:
    for number, name in enumerate(libero_task.task_names()[suite]):
        env = make(f"{suite}:{number}")
        first, _ = env.reset(seed=0)
        assert first["agentview"].std() > 5, name
        assert env.unwrapped.instruction, name
        for _ in range(3):
            observation, feedback, terminated, _, info = env.step(env.action_space.sample())
            assert observation in env.observation_space, name
            assert (feedback, terminated, info["success"]) == (0, False, False), name
        again, _ = env.reset(seed=0)
        assert np.array_equal(again["agentview"], first["agentview"]), name
        env.close()


@simulated
def test_the_configuration_runs_to_a_checkpoint_a_video_and_a_table() -> None:
    few = ["--collect.warmup_steps=60", "--collect.total_env_steps=80", "--collect.env_steps_per_iteration=20"]
    few += [
        "--data.train_batches=2",
        "--evaluate.episodes=1",
        "--env.max_episode_steps=20",
        "--data.capacity=500",
    ]
    few += ["--env.kwargs.size=64", "--env.kwargs.settle_steps=2", "--trainer.accelerator=cpu"]
    main(["fit", "--config=libero", *few, "--trainer.log_every_n_steps=1"])
    folder = Path("runs/libero_goal-turn_on_the_stove/version_0")
    assert (folder / "checkpoints/last.ckpt").is_file()
    assert list(folder.glob("videos/episode-0-*.mp4"))
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[-1]["evaluate/success"] == "0.0"
    assert rows[0]["collect/replay_success"] == "0.0"
    module = RRDModule.load_from_checkpoint(folder / "checkpoints/last.ckpt")
    assert set(module.observation_space.spaces) == {"agentview", "proprioception"}


@pytest.mark.slow
@pytest.mark.skipif(not DEMOS.is_dir(), reason="RRD_LIBERO_DEMOS holds no folder demos")
def test_a_reward_model_of_demonstrations_tells_held_out_successes_from_failures() -> None:
    """Learned from successes and failures; from successes alone there is nothing to learn."""
    files = [str(DEMOS / f"turn_on_the_stove_64_{kind}.hdf5") for kind in ("demo", "failures")]
    fit = ["fit", "--config=libero_offline", "--data.held_out=0.25", "--trainer.max_steps=640"]
    main([*fit, f"--data.demonstrations.paths={json.dumps(files)}"])
    with Path("runs/demonstrations/version_0/metrics.csv").open() as file:
        last = [row for row in csv.DictReader(file) if row["evaluate/return_error"]][-1]
    assert float(last["evaluate/success_auc_mean"]) > 0.9
    with pytest.warns(UserWarning, match="THE RETURNS OF THE DEMONSTRATIONS HARDLY VARY"):
        main([*fit, f"--data.demonstrations.paths={files[0]}"])
