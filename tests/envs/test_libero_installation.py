"""LIBERO's tasks by id, bad options, and what is said where something is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rrd_lightning import Environment, ParameterError
from rrd_lightning.envs import libero_installation, libero_task
from tests.envs.libero_tasks import BOWL, make, needs_libero, simulated

pytestmark = needs_libero


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
