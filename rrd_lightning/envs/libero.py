"""LIBERO: 130 manipulation tasks of a robot arm, in hf-libero's simulator.

Liu et al., "LIBERO: Benchmarking Knowledge Transfer for Lifelong Robot Learning", 2023.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal, get_args

import numpy as np
from gymnasium import Env, spaces

from rrd_lightning.envs.libero_camera import CAMERAS, Camera
from rrd_lightning.envs.libero_installation import ASSETS_VARIABLE, check_installation, quiet, simulator_module
from rrd_lightning.envs.libero_state import OBJECTS, ROBOT, ROBOT_NAMES, StateReader, find_things
from rrd_lightning.envs.libero_task import find_task
from rrd_lightning.errors import ParameterError, require_not_negative

PROPRIOCEPTION = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")
INITIAL_STATES = ("random", "cycled")
RESET_ATTEMPTS = 10
Observations = Literal["images", "state", "both"]


class Libero(Env[Any, Any]):
    """A LIBERO task, observed through cameras, or by the state of its simulator.

    Observations are a dictionary. Images: ``agentview`` and, optionally, ``wrist``, upright, uint8
    ``[3, size, size]``. State: ``robot``, float32 ``[21]``, and ``objects``, of what the task is about;
    `state_names` names each number. Optionally ``proprioception``, float32 ``[9]``: the end effector's position
    (metres), its orientation (quaternion x, y, z, w) and the two fingers' positions (metres).

    Actions, ``[7]`` in [-1, 1], translate the end effector (3), rotate it (3) and close the gripper (1).
    The reward is 1 at success, which ends the episode, and 0 before.

    All randomness comes from ``np_random``: with the same MuJoCo version, the generator's state and the
    actions reproduce an episode to the last bit. With ``initial_states="cycled"`` this also takes
    ``reset(options={"initial_state": …})``, with the number that the first reset reported.

    The simulator is built at the first reset, in the process that uses it.

    Args:
        task: an id that `find_task` accepts.
        observations: ``"images"``, ``"state"``, which needs no renderer, or ``"both"``.
        objects: names of the objects, fixtures and regions that the state describes; by default what the task's
            goal mentions. None at all leaves the robot alone.
        size: width and height of the images in pixels, 64 to 256.
        wrist: observe the wrist camera.
        proprioception: observe the end effector by nine numbers.
        initial_states: which of the benchmark's initial states an episode starts from: ``"random"``,
            ``"cycled"`` (one after another, starting with the seed), or a fixed number.
        settle_steps: steps with zero actions after a reset, while the objects fall onto the table.
        fast_rendering: render without shadows and reflections.
        assets: folder of LIBERO's assets; by default the environment variable ``RRD_LIBERO_ASSETS``, or
            else the assets that hf-libero has or downloads.
        render_mode: ``"rgb_array"`` lets `render` return an ``agentview`` image.

    Attributes:
        state_names: what each number of ``robot`` and ``objects`` is; see docs/libero.md.
        unseen: let steps return the observation of an earlier one, which saves the drawing of pictures.

    Raises:
        ParameterError: if an argument is out of range, or a requirement of LIBERO is not installed.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 - Gymnasium's

    def __init__(
        self,
        task: str,
        observations: Observations = "images",
        objects: Sequence[str] | None = None,
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
            raise ParameterError("task", task, "must be a LIBERO task, such as libero_goal:8")
        if observations not in get_args(Observations):
            raise ParameterError(
                "env.kwargs.observations", observations, f"must be one of {', '.join(get_args(Observations))}"
            )
        if not 64 <= size <= 256:
            raise ParameterError("env.kwargs.size", size, "must be between 64 and 256")
        require_not_negative(**{"env.kwargs.settle_steps": settle_steps})
        self.task = found
        self._states = found.initial_states()
        _check_initial_states(initial_states, len(self._states))
        self._assets = assets or os.environ.get(ASSETS_VARIABLE)
        self._draws = observations != "state" or render_mode is not None
        check_installation(self._assets, draws=self._draws)
        self.instruction = found.instruction()
        self.metadata = {**self.metadata, "instruction": self.instruction}
        self.render_mode = render_mode
        self.size = size
        self.initial_states = initial_states
        self.settle_steps = settle_steps
        self.fast_rendering = fast_rendering
        self._cameras = [] if observations == "state" else ["agentview", "wrist"] if wrist else ["agentview"]
        self._things = find_things(found.file("bddl_files", "bddl"), objects)
        self.state_names: dict[str, list[str]] = {}
        if observations != "images":
            self.state_names[ROBOT] = list(ROBOT_NAMES)
            if self._things:
                self.state_names[OBJECTS] = [name for thing in self._things for name in thing.names()]
        image = spaces.Box(0, 255, (3, size, size), np.uint8)
        parts: dict[str, spaces.Space[Any]] = dict.fromkeys(self._cameras, image)
        if proprioception:
            parts["proprioception"] = _vector(9)
        parts |= {key: _vector(len(names)) for key, names in self.state_names.items()}
        self.observation_space = spaces.Dict(parts)
        self.action_space = spaces.Box(-1, 1, (7,), np.float32)
        self._next_state = 0
        self._simulator: Any = None
        self._camera: Camera | None = None
        self._state: StateReader | None = None
        self.unseen = False
        self._simulated: dict[str, Any] = {}  # what robosuite observes
        self._observation: dict[str, np.ndarray[Any, Any]] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
        """Start an episode; ``options={"initial_state": number}`` chooses its initial state.

        Raises:
            RuntimeError: if LIBERO cannot place its objects without collisions.
        """
        super().reset(seed=seed)
        if seed is not None:
            self._next_state = seed
        state = self._choose_state(options or {})
        self._reset_simulator()
        self._simulated = self._simulator.set_init_state(self._states[state])
        for _ in range(self.settle_steps):
            self._simulated, *_ = self._simulator.step(np.zeros(7))
        info = {"initial_state": state, "success": bool(self._simulator.check_success())}
        return self.observe(), info

    def step(self, action: Any) -> tuple[dict[str, np.ndarray[Any, Any]], float, bool, bool, dict[str, Any]]:
        """Apply an action for a twentieth of a second."""
        self._simulated, _, success, _ = self._simulator.step(np.asarray(action, np.float64))
        success = bool(success)
        observation = deepcopy(self._observation) if self.unseen else self.observe()
        return observation, float(success), success, False, {"success": success}

    def render(self) -> np.ndarray[Any, Any] | None:
        """Return an ``agentview`` image, ``[size, size, 3]``: the latest observed, or one drawn for this."""
        if self.render_mode is None:
            return None
        image = self._observation["agentview"] if self._cameras else self._draw("agentview")
        return np.ascontiguousarray(image.transpose(1, 2, 0))

    def close(self) -> None:
        """Free the simulator."""
        if self._simulator is not None:
            if self._camera is not None:
                self._camera.close()
            self._simulator.close()
            self._simulator = self._camera = self._state = None

    @property
    def simulator_state(self) -> np.ndarray[Any, Any]:
        """MuJoCo's time, positions and velocities, as LIBERO's files store them."""
        state: np.ndarray[Any, Any] = self._simulator.get_sim_state()
        return state

    @property
    def fixtures(self) -> dict[str, list[float]]:
        """The place of each fixture, which is not part of the state: position and quaternion w, x, y, z."""
        model, bodies = self._simulator.sim.model, self._fixture_bodies()
        return {name: [*model.body_pos[body], *model.body_quat[body]] for name, body in bodies.items()}

    def root_body(self, name: str) -> str:
        """Return the name that the body of an object or fixture has in the scene."""
        return str(self._simulator.env.get_object(name).root_body)

    def restore(
        self, state: np.ndarray[Any, Any], fixtures: Mapping[str, Sequence[float]]
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Put the simulator into a recorded state, and observe it.

        There must have been a reset. What the arm's controller aims at is not part of the state, so that later
        steps are not those that once followed.

        Args:
            state: as `simulator_state`.
            fixtures: as `fixtures`; those left out stay where they are.
        """
        model, bodies = self._simulator.sim.model, self._fixture_bodies()
        for name, pose in fixtures.items():
            model.body_pos[bodies[name]], model.body_quat[bodies[name]] = pose[:3], pose[3:]
        self._simulated = self._simulator.set_init_state(state)
        return self.observe()

    def _fixture_bodies(self) -> dict[str, int]:
        robosuite = self._simulator.env
        return {name: robosuite.obj_body_id[name] for name in robosuite.fixtures_dict}

    def _choose_state(self, options: dict[str, Any]) -> int:
        drawn = int(self.np_random.integers(len(self._states)))
        kinds = {"random": drawn, "cycled": self._next_state % len(self._states)}
        state = int(options.get("initial_state", kinds.get(str(self.initial_states), self.initial_states)))
        self._next_state = state + 1
        return state

    def _reset_simulator(self) -> None:
        """Place the fixtures (stove, cabinet, rack), which are not part of the initial states."""
        for _ in range(RESET_ATTEMPTS):
            seed = int(self.np_random.integers(2**31))
            try:
                with quiet():
                    self._try_reset(seed)
            except simulator_module("robosuite.utils.errors").RandomizationError as error:
                cause = error
            else:
                return
        raise RuntimeError(
            f"{self.task.id}: objects could not be placed in {RESET_ATTEMPTS} attempts: {cause}"
        ) from cause

    def _try_reset(self, seed: int) -> None:
        if self._simulator is None:
            with _numpy_seeded(seed):
                self._simulator = self._build()
            if self._draws:
                # From this scene, which no episode shows: edges would differ by less than a pixel between an
                # episode whose own scene it was made from and others.
                self._camera = Camera(self._simulator.sim, self.fast_rendering)
        robosuite = self._simulator.env
        # LIBERO adds its samplers of open drawers and the like again at each reset, and all of them draw.
        robosuite.object_property_initializers.clear()
        # Otherwise robosuite frees the last model by a full garbage collection, which takes 0.2 s or more.
        robosuite.sim = None
        with _numpy_seeded(seed):
            robosuite.reset()
        if self._camera is not None:
            self._camera.look_at(robosuite.sim)
        self._state = StateReader(robosuite, self._things) if self.state_names else None

    def _build(self) -> Any:
        # Without its cameras, which would also render every settling step.
        return simulator_module("libero.libero.envs.env_wrapper", self._assets).ControlEnv(
            str(self.task.file("bddl_files", "bddl")),
            use_camera_obs=False,
            has_offscreen_renderer=False,
            ignore_done=True,
        )

    def observe(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the observation of this moment."""
        observation = {name: self._draw(name) for name in self._cameras}
        if "proprioception" in self.observation_space.spaces:  # type: ignore[attr-defined]
            parts = [self._simulated[name] for name in PROPRIOCEPTION]
            observation["proprioception"] = np.concatenate(parts).astype(np.float32)
        if self._state is not None:
            observation |= self._state.read()
        self._observation = observation
        return observation

    def _draw(self, name: str) -> np.ndarray[Any, Any]:
        assert self._camera is not None
        return self._camera.render(CAMERAS[name], self.size)


def _vector(size: int) -> spaces.Space[Any]:
    return spaces.Box(-np.inf, np.inf, (size,), np.float32)


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


@contextlib.contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, which LIBERO draws from, and restore its state afterwards."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
