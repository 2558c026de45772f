"""LIBERO: 130 tasks of a robot arm at a table, in hf-libero's simulator.

Liu et al., "LIBERO: Benchmarking Knowledge Transfer for Lifelong Robot Learning", 2023.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import difflib
import importlib.metadata
import importlib.util
import io
import logging
import os
import re
import runpy
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from gymnasium import Env, spaces
from gymnasium.envs.registration import EnvSpec
from packaging.specifiers import SpecifierSet

from rrd_lightning.errors import ParameterError, require_not_negative

# The time limits of OpenVLA's evaluation: somewhat above the longest demonstration of each suite.
TIME_LIMITS = {
    "libero_spatial": 220,
    "libero_object": 280,
    "libero_goal": 300,
    "libero_10": 520,
    "libero_90": 400,
}
CAMERAS = {"agentview": "agentview", "wrist": "robot0_eye_in_hand"}
PROPRIOCEPTION = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")
INITIAL_STATES = ("random", "cycled")
ASSETS_VARIABLE = "RRD_LIBERO_ASSETS"
# From 3.4 on, objects of libero_spatial come to rest elsewhere.
MUJOCO = SpecifierSet(">=3.2.7,<3.4")
MODULES = ("libero", "robosuite", "bddl", "numba", "cv2", "easydict", "future", "termcolor", "OpenGL")
RESET_ATTEMPTS = 10


class Task(NamedTuple):
    """One of the 130 tasks."""

    suite: str
    name: str

    @property
    def id(self) -> str:
        """Such as ``libero_goal/put_the_bowl_on_the_stove``."""
        return f"{self.suite}/{self.name}"

    def spec(self) -> EnvSpec:
        """Return what Gymnasium makes the environment from."""
        return EnvSpec(
            self.id,
            entry_point="rrd_lightning.envs.libero:Libero",
            max_episode_steps=TIME_LIMITS[self.suite],
            kwargs={"task": self.id},
        )

    def file(self, folder: str, ending: str) -> Path:
        """Return the path of one of the task's files in the installed package."""
        return _package() / folder / self.suite / f"{self.name}.{ending}"

    def instruction(self) -> str:
        """Return what the robot is told to do."""
        said = re.search(r"\(:language\s+([^)]*)\)", self.file("bddl_files", "bddl").read_text())
        return " ".join(said[1].split()) if said else self.name.replace("_", " ")

    def initial_states(self) -> np.ndarray[Any, Any]:
        """Return the benchmark's initial states of the simulator, ``[50, state size]``."""
        # What their pickled arrays are made of, under NumPy's old name of its core.
        rebuild = import_module("numpy._core.multiarray")._reconstruct
        array: list[Any] = [np.ndarray, np.dtype, np.dtypes.Float64DType]
        array.append((rebuild, "numpy.core.multiarray._reconstruct"))
        with torch.serialization.safe_globals(array):
            states = torch.load(self.file("init_files", "pruned_init"), weights_only=True)
        return np.asarray(states)


def find_task(id: str) -> Task | None:
    """Find the task that an id such as ``libero_goal/NAME`` or ``libero_goal:8`` stands for.

    Returns:
        None where the id is not one of LIBERO.

    Raises:
        ParameterError: if there is no such suite or task, or LIBERO is not installed.
    """
    if not id.startswith("libero_"):
        return None
    suite, _, name = id.replace(":", "/", 1).partition("/")
    if suite not in TIME_LIMITS:
        raise ParameterError("env.id", id, f"is of no suite of LIBERO; {_valid(suite, list(TIME_LIMITS))}")
    names = _task_names()[suite]
    if name.isdecimal() and int(name) < len(names):
        name = names[int(name)]
    if name not in names:
        numbers = f"or a number: {suite}:0 to {suite}:{len(names) - 1}"
        raise ParameterError("env.id", id, f"is no task of {suite}; {_valid(name, names)}; {numbers}")
    return Task(suite, name)


class Libero(Env[Any, Any]):
    """A task of LIBERO, seen through its cameras.

    Observations are a dictionary of ``agentview`` and, where asked for, ``wrist``: upright images,
    uint8 ``[3, size, size]``; and ``proprioception``, float32 ``[9]``: the end effector's position
    (metres), its orientation (quaternion x, y, z, w) and the two fingers' positions (metres).
    Actions, ``[7]`` in [-1, 1], move the end effector (3), turn it (3) and close the gripper (1). The
    reward is 1 at success, which ends the episode, and 0 before.

    All that is random comes from ``np_random``: an episode repeats to the last bit from the generator's
    state and the actions, where the MuJoCo version is the same. With ``initial_states="cycled"`` it
    needs ``reset(options={"initial_state": …})`` as well, with the number that the first reset reported.

    The simulator is built at the first reset, in the process that uses it.

    Args:
        task: an id that `find_task` knows.
        size: width and height of the images, in pixels, 64 to 256.
        wrist: whether the wrist camera is observed.
        proprioception: whether the end effector is observed.
        initial_states: which of the benchmark's initial states an episode starts from: ``"random"``,
            ``"cycled"`` (one after another, from the seed's number), or always that of a number.
        settle_steps: zero actions at the start, in which the objects, placed above the table, fall.
        fast_rendering: leave out shadows and reflections.
        assets: folder of LIBERO's assets; by default that of the environment variable
            ``RRD_LIBERO_ASSETS``, or else what hf-libero has or downloads.
        render_mode: ``"rgb_array"`` to let `render` return the latest ``agentview``.

    Raises:
        ParameterError: if an argument is out of range, or something that LIBERO needs is missing.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 - Gymnasium's

    def __init__(
        self,
        task: str,
        size: int = 128,
        wrist: bool = False,
        proprioception: bool = False,
        initial_states: str | int = "random",
        settle_steps: int = 15,
        fast_rendering: bool = False,
        assets: str | None = None,
        render_mode: str | None = None,
    ) -> None:
        found = find_task(task)
        if found is None:
            raise ParameterError("task", task, "must be an id such as libero_goal:8")
        if not 64 <= size <= 256:
            raise ParameterError("env.kwargs.size", size, "must be from 64 to 256")
        require_not_negative(**{"env.kwargs.settle_steps": settle_steps})
        self.task = found
        self._states = found.initial_states()
        _check_initial_states(initial_states, len(self._states))
        self._assets = assets or os.environ.get(ASSETS_VARIABLE)
        _check_installation(self._assets)
        self.instruction = found.instruction()
        self.metadata = {**self.metadata, "instruction": self.instruction}
        self.render_mode = render_mode
        self.size = size
        self.initial_states = initial_states
        self.settle_steps = settle_steps
        self.fast_rendering = fast_rendering
        self._cameras = ["agentview", "wrist"] if wrist else ["agentview"]
        image = spaces.Box(0, 255, (3, size, size), np.uint8)
        parts: dict[str, spaces.Space[Any]] = dict.fromkeys(self._cameras, image)
        if proprioception:
            parts["proprioception"] = spaces.Box(-np.inf, np.inf, (9,), np.float32)
        self.observation_space = spaces.Dict(parts)
        self.action_space = spaces.Box(-1, 1, (7,), np.float32)
        self._next_state = 0
        self._simulator: Any = None
        self._camera: Any = None
        self._observation: dict[str, np.ndarray[Any, Any]] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
        """Start an episode; ``options={"initial_state": number}`` chooses its initial state.

        Raises:
            RuntimeError: if LIBERO finds no place for its objects.
        """
        super().reset(seed=seed)
        if seed is not None:
            self._next_state = seed
        state = self._choose_state(options or {})
        self._reset_simulator()
        simulated = self._simulator.set_init_state(self._states[state])
        for _ in range(self.settle_steps):
            simulated, *_ = self._simulator.step(np.zeros(7))
        info = {"initial_state": state, "success": bool(self._simulator.check_success())}
        return self._observe(simulated), info

    def step(self, action: Any) -> tuple[dict[str, np.ndarray[Any, Any]], float, bool, bool, dict[str, Any]]:
        """Act for a twentieth of a second."""
        simulated, _, success, _ = self._simulator.step(np.asarray(action, np.float64))
        success = bool(success)
        return self._observe(simulated), float(success), success, False, {"success": success}

    def render(self) -> np.ndarray[Any, Any] | None:
        """Return the latest ``agentview`` image, ``[size, size, 3]``."""
        if self.render_mode is None:
            return None
        return np.ascontiguousarray(self._observation["agentview"].transpose(1, 2, 0))

    def close(self) -> None:
        """Free the simulator."""
        if self._simulator is not None:
            self._camera.close()
            self._simulator.close()
            self._simulator = self._camera = None

    def _choose_state(self, options: dict[str, Any]) -> int:
        drawn = int(self.np_random.integers(len(self._states)))
        kinds = {"random": drawn, "cycled": self._next_state % len(self._states)}
        state = int(options.get("initial_state", kinds.get(str(self.initial_states), self.initial_states)))
        self._next_state = state + 1
        return state

    def _reset_simulator(self) -> None:
        """Place the fixtures (stove, cabinet, rack), which the initial states do not hold."""
        for _ in range(RESET_ATTEMPTS):
            seed = int(self.np_random.integers(2**31))
            try:
                with _quiet():
                    self._try_reset(seed)
            except _simulator_module("robosuite.utils.errors").RandomizationError as error:
                cause = error
            else:
                return
        raise RuntimeError(
            f"{self.task.id}: no place for its objects in {RESET_ATTEMPTS} attempts: {cause}"
        ) from cause

    def _try_reset(self, seed: int) -> None:
        if self._simulator is None:
            with _numpy_seeded(seed):
                self._simulator = self._build()
            self._camera = _Camera(self._simulator.sim, self.fast_rendering)
        robosuite = self._simulator.env
        # LIBERO adds its samplers of open drawers and the like again at each reset; all would draw.
        robosuite.object_property_initializers.clear()
        # Its own way of letting go of the last model is a full garbage collection, 0.2 s and more.
        robosuite.sim = None
        with _numpy_seeded(seed):
            robosuite.reset()
        self._camera.look_at(robosuite.sim)

    def _build(self) -> Any:
        # Its cameras are off: they would take pictures at every step of the settling too.
        return _simulator_module("libero.libero.envs.env_wrapper", self._assets).ControlEnv(
            str(self.task.file("bddl_files", "bddl")),
            use_camera_obs=False,
            has_offscreen_renderer=False,
            ignore_done=True,
        )

    def _observe(self, simulated: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
        observation = {name: self._camera.picture(CAMERAS[name], self.size) for name in self._cameras}
        if "proprioception" in self.observation_space.spaces:  # type: ignore[attr-defined]
            parts = [simulated[name] for name in PROPRIOCEPTION]
            observation["proprioception"] = np.concatenate(parts).astype(np.float32)
        self._observation = observation
        return observation


class _Camera:
    """Takes pictures of one simulator after another, of the same scene.

    Robosuite makes a new graphics context at each reset, and uploads all meshes and textures again:
    0.4 s in software.
    """

    def __init__(self, sim: Any, fast: bool) -> None:
        binding = _simulator_module("robosuite.utils.binding_utils")
        self._context = binding.MjRenderContextOffscreen(sim, device_id=-1)
        # Collision shapes are of group 0, what is to be seen of group 1.
        self._context.vopt.geomgroup[:2] = 0, 1
        if fast:
            mujoco = import_module("mujoco")
            for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
                self._context.scn.flags[flag] = 0
        self.look_at(sim)

    def look_at(self, sim: Any) -> None:
        self._context.sim, self._context.model, self._context.data = sim, sim.model, sim.data

    def picture(self, camera: str, size: int) -> np.ndarray[Any, Any]:
        """Return the camera's picture, upright, uint8 ``[3, size, size]``."""
        context = self._context
        context.gl_ctx.make_current()  # another environment's may be
        context.render(size, size, context.model.camera_name2id(camera))
        bottom_up = context.read_pixels(size, size)
        return np.ascontiguousarray(bottom_up[::-1].transpose(2, 0, 1))

    def close(self) -> None:
        # What is freed is what the current context knows by these numbers.
        self._context.gl_ctx.make_current()
        self._context = None


def _check_initial_states(initial_states: str | int, number: int) -> None:
    valid = initial_states in INITIAL_STATES or (
        isinstance(initial_states, int) and 0 <= initial_states < number
    )
    if not valid:
        raise ParameterError(
            "env.kwargs.initial_states",
            initial_states,
            f"must be one of {', '.join(INITIAL_STATES)}, or a number from 0 to {number - 1}",
        )


def _check_installation(assets: str | None) -> None:
    """Make sure, before any long work, that all that LIBERO needs is there.

    Raises:
        ParameterError: if not, with what to do about it.
    """
    missing = []
    if modules := [name for name in MODULES if importlib.util.find_spec(name) is None]:
        missing.append(f"the modules {', '.join(modules)}: {INSTALL}")
    if (version := importlib.metadata.version("mujoco")) not in MUJOCO:
        missing.append(f"MuJoCo {MUJOCO} instead of {version}: pip install 'mujoco{MUJOCO}'")
    _choose_graphics()
    if os.environ.get("MUJOCO_GL") == "osmesa" and not ctypes.util.find_library("OSMesa"):
        missing.append(
            "the library OSMesa, for pictures without a GPU: apt-get install libosmesa6 (with a GPU: "
            "export MUJOCO_GL=egl)"
        )
    if assets is not None and not (Path(assets) / "scenes").is_dir():
        missing.append(
            f"LIBERO's assets, which are not in {assets!r}: export {ASSETS_VARIABLE}=FOLDER, the one that "
            f"holds scenes/, or unset it to let hf-libero download them"
        )
    if missing:
        raise ParameterError("env.id", "libero", f"LIBERO lacks {'; and '.join(missing)}")


INSTALL = "pip install 'rrd-lightning[libero]' (beside a CPU-only torch, from a checkout: make setup-libero)"


def _choose_graphics() -> None:
    """Choose how MuJoCo draws, which it reads at its import, unless the user has chosen."""
    if sys.platform == "linux":
        os.environ.setdefault("MUJOCO_GL", "egl" if torch.cuda.device_count() else "osmesa")


def _package() -> Path:
    """Return the folder of hf-libero's files, without importing it.

    Raises:
        ParameterError: if it is not installed.
    """
    spec = importlib.util.find_spec("libero")
    if spec is None or spec.origin is None:
        raise ParameterError("env.id", "libero", f"LIBERO is not installed: {INSTALL}")
    return Path(spec.origin).parent / "libero"


@cache
def _task_names() -> dict[str, list[str]]:
    # A file of names alone, run by itself: its package would ask a question when imported.
    names = runpy.run_path(str(_package() / "benchmark" / "libero_suite_task_map.py"))
    return {suite: names["libero_task_map"][suite] for suite in TIME_LIMITS}


def _valid(name: str, names: list[str]) -> str:
    nearest_first = difflib.get_close_matches(name, names, n=len(names), cutoff=0)
    return f"valid, the nearest first: {', '.join(nearest_first)}"


def _simulator_module(name: str, assets: str | None = None) -> Any:
    """Import a module of LIBERO or robosuite, without question or print.

    Raises:
        ParameterError: if there are no assets, and they cannot be downloaded.
    """
    if name not in sys.modules:
        logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
        _write_configuration()
        with _quiet():
            libero: Any = import_module("libero.libero")
            if assets is not None:
                libero._assets_path_cache = assets
            elif not Path(libero.get_assets_path()).is_dir():
                raise ParameterError(
                    "env.kwargs.assets",
                    None,
                    "LIBERO's assets cannot be downloaded: connect this machine, or "
                    f"export {ASSETS_VARIABLE}=FOLDER",
                )
            import_module("libero.libero.envs")
    return import_module(name)


def _write_configuration() -> None:
    """Write LIBERO's default configuration where it has none: it would ask for it."""
    folder = Path(os.environ.get("LIBERO_CONFIG_PATH", "~/.libero")).expanduser()
    if (folder / "config.yaml").exists():
        return
    root = _package()
    places = {"bddl_files": "bddl_files", "init_states": "init_files", "datasets": "../datasets"}
    paths = {"benchmark_root": root, "assets": root / "assets"}
    paths.update({key: root / place for key, place in places.items()})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({key: str(path) for key, path in paths.items()}))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep LIBERO's prints and its dependencies' deprecations from the console."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, which LIBERO draws from, and leave it as it was."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
