"""The state of a LIBERO task as vectors: the robot, and what the task is about."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rrd_lightning.errors import ParameterError

ROBOT, OBJECTS = "robot", "objects"
# What can be opened or turned, by kind, and the joints that move it.
JOINTS = {
    "wooden_cabinet": ("top_level", "middle_level", "bottom_level"),
    "white_cabinet": ("top_level", "middle_level", "bottom_level"),
    "microwave": ("microjoint",),
    "flat_stove": ("button",),
}
# Kinds that stay where they are in every episode.
GROUND = {"table", "kitchen_table", "living_room_table", "study_table", "coffee_table", "floor"}

POSITION = ("x", "y", "z")
ROTATION = ("xx", "yx", "zx", "xy", "yy", "zy")  # the first two columns of the rotation matrix
ROBOT_NAMES = (
    *(f"position {axis}" for axis in POSITION),
    *(f"rotation {entry}" for entry in ROTATION),
    *(f"velocity {axis}" for axis in POSITION),
    *(f"finger {number}" for number in (1, 2)),
    *(f"joint {number}" for number in range(1, 8)),
)

Vector = np.ndarray[Any, Any]


class Thing(NamedTuple):
    """An object, a fixture, or a region of one, such as the inside of a drawer.

    Args:
        name: its name in the task's file.
        is_region: whether it is a region, which has a place and nothing else.
        joints: names of the joints that move parts of it.
    """

    name: str
    is_region: bool = False
    joints: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """Name each number of its state, in order."""
        parts = [f"position {axis}" for axis in POSITION]
        if not self.is_region:
            parts += [f"rotation {entry}" for entry in ROTATION]
        parts += [f"from hand {axis}" for axis in POSITION]
        if not self.is_region:
            parts += [f"rotation in hand {entry}" for entry in ROTATION]
        for joint in self.joints:
            parts += [f"{joint} joint", *(f"{joint} position {axis}" for axis in POSITION)]
            parts += [f"{joint} from hand {axis}" for axis in POSITION]
        return [f"{self.name} {part}" for part in parts]


def find_things(bddl: Path, chosen: Sequence[str] | None = None) -> list[Thing]:
    """Find what a task is about, in the file that defines it.

    Args:
        bddl: the file.
        chosen: names of objects, fixtures and regions; by default those in the goal and of interest to the
            task, and what has the regions among them.

    Raises:
        ParameterError: if a name is not in the scene; the message lists those that are.
    """
    (problem,) = _parse(bddl.read_text())
    sections = {part[0]: part[1:] for part in problem if isinstance(part, list)}
    kinds = dict(_typed(sections[":fixtures"])) | dict(_typed(sections[":objects"]))
    regions = {}  # the name of each, and what has it
    for name, *attributes in sections[":regions"]:
        target = next(value for key, value in attributes if key == ":target")
        regions[f"{target}_{name}"] = target
    placed = {name: kind for name, kind in kinds.items() if kind not in GROUND}
    valid = [*placed, *regions]
    if chosen is None:
        mentioned = [*_words(sections[":goal"]), *_words(sections.get(":obj_of_interest", []))]
        mentioned += [regions[name] for name in mentioned if name in regions]
        chosen = [name for name in dict.fromkeys(mentioned) if name in valid]
    for name in chosen:
        if name not in valid:
            nearest_first = difflib.get_close_matches(name, valid, n=len(valid), cutoff=0)
            problem = f"is not in the scene; valid ones, most similar first: {', '.join(nearest_first)}"
            raise ParameterError("env.kwargs.objects", name, problem)
    return [Thing(name, name in regions, JOINTS.get(kinds.get(name, ""), ())) for name in chosen]


class StateReader:
    """Reads the state of a simulator: a function of its positions and velocities alone, to the last bit.

    After a step MuJoCo's poses are still those before its last substep, 2 ms ago. They are computed anew here,
    which changes nothing about what follows: the next step computes them again, too.

    Args:
        robosuite: robosuite's environment.
        things: what to read besides the robot.
    """

    def __init__(self, robosuite: Any, things: Sequence[Thing]) -> None:
        self._mujoco: Any = import_module("mujoco")
        self._model, self._data = robosuite.sim.model._model, robosuite.sim.data._data
        robot = robosuite.robots[0]
        self._hand = self._model.body(robot.robot_model.eef_name).id
        self._grip = int(robot.eef_site_id)
        self._fingers, self._arm = (
            np.array(indices)
            for indices in (robot._ref_gripper_joint_pos_indexes, robot._ref_joint_pos_indexes)
        )
        self._things = [
            (
                thing,
                self._id("site", thing.name)
                if thing.is_region
                else self._id("body", robosuite.get_object(thing.name).root_body),
                [self._id("joint", f"{thing.name}_{joint}") for joint in thing.joints],
            )
            for thing in things
        ]
        # Collision shapes of what a joint moves; the body's own position is that of the whole fixture.
        self._shapes = {
            joint: np.flatnonzero(
                (self._model.geom_bodyid == self._model.jnt_bodyid[joint]) & (self._model.geom_group == 0)
            )
            for _, _, joints in self._things
            for joint in joints
        }

    def _id(self, kind: str, name: str) -> int:
        return int(getattr(self._model, kind)(name).id)

    def read(self) -> dict[str, Vector]:
        """Return ``robot``, float32 ``[21]``, and ``objects``, float32 ``[len(names)]``, if there are any."""
        model, data = self._model, self._data
        for compute in ("mj_kinematics", "mj_comPos", "mj_comVel"):
            getattr(self._mujoco, compute)(model, data)
        hand, turned = data.site_xpos[self._grip], data.xmat[self._hand].reshape(3, 3)
        velocity = np.zeros(6)  # angular and linear
        self._mujoco.mj_objectVelocity(model, data, self._mujoco.mjtObj.mjOBJ_SITE, self._grip, velocity, 0)
        numbers = [hand, _columns(turned), velocity[3:], data.qpos[self._fingers], data.qpos[self._arm]]
        state = {ROBOT: np.concatenate(numbers).astype(np.float32)}
        numbers = [part for thing in self._things for part in self._read(*thing, hand, turned)]
        if numbers:
            state[OBJECTS] = np.concatenate(numbers).astype(np.float32)
        return state

    def _read(self, thing: Thing, id: int, joints: list[int], hand: Vector, turned: Vector) -> Iterator[Vector]:
        data = self._data
        if thing.is_region:
            yield from (data.site_xpos[id], data.site_xpos[id] - hand)
        else:
            position, rotation = data.xpos[id], data.xmat[id].reshape(3, 3)
            yield from (position, _columns(rotation), position - hand, _columns(turned.T @ rotation))
        for joint in joints:
            center = data.geom_xpos[self._shapes[joint]].mean(0)
            yield from (data.qpos[[self._model.jnt_qposadr[joint]]], center, center - hand)


def _columns(rotation: Vector) -> Vector:
    """Return the first two columns of a rotation matrix, continuous in it (Zhou et al., 2019)."""
    return rotation[:, :2].T.ravel()


def _parse(text: str) -> list[Any]:
    """Parse nested parentheses into nested lists of words."""
    stack: list[list[Any]] = [[]]
    for token in re.findall(r"[()]|[^\s()]+", re.sub(r";.*", "", text)):
        if token == "(":
            stack.append([])
        elif token == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(token)
    return stack[0]


def _typed(words: list[str]) -> Iterator[tuple[str, str]]:
    """Yield each name with its kind from ``a_1 a_2 - a b_1 - b``."""
    names: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "-":
            kind = next(rest)
            yield from ((name, kind) for name in names)
            names = []
        else:
            names.append(word)


def _words(nested: list[Any]) -> Iterator[str]:
    for part in nested:
        yield from _words(part) if isinstance(part, list) else [part]
