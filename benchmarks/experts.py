"""Scripted policies for tasks of libero_goal, for `rrd record`: waypoints of the hand, and noise.

rrd record --output demos --policy benchmarks.experts.TurnOnTheStove --task libero_goal/turn_on_the_stove
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from rrd_lightning.record import Policy

Vector = np.ndarray[Any, Any]
OPEN, CLOSE = -1.0, 1.0
NOISE = 0.1  # standard deviation of what is added to each action but the gripper's


class Expert(Policy):
    """Follows a script of waypoints.

    Attributes:
        miss: how far it aims beside what it should, in metres; for failures.
    """

    miss = 0.0

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        names = self.env.state_names
        self._place = {name: (key, row) for key in names for row, name in enumerate(names[key])}
        angle = self.generator.uniform(0, 2 * np.pi)
        self._error = self.miss * np.array([np.cos(angle), np.sin(angle), 0])
        self._actions = self.script()

    def act(self, observation: dict[str, Vector]) -> Vector:
        """Return the script's next action, with noise."""
        self._seen = observation
        action: Vector = next(self._actions)
        action[:6] += NOISE * self.generator.normal(size=6)
        return action

    def script(self) -> Iterator[Vector]:
        """Yield actions; at the end the hand stays where it is."""
        raise NotImplementedError

    def number(self, name: str) -> float:
        """Return a number of the state."""
        key, row = self._place[name]
        return float(self._seen[key][row])

    def place(self, name: str, offset: tuple[float, float, float]) -> Callable[[], Vector]:
        """Return where to put the hand: at an offset from something, wherever that is then."""

        def find() -> Vector:
            there = np.array([self.number(f"{name} {axis}") for axis in "xyz"])
            return there + offset + self._error

        return find

    def move(
        self, to: Callable[[], Vector], grip: float, *, steps: int = 40, near: float = 0.01, pitch: float = 0.0
    ) -> Iterator[Vector]:
        """Move the hand, and turn it about y until its x axis points down by `pitch`, a sine."""
        for _ in range(steps):
            way = to() - np.array([self.number(f"position {axis}") for axis in "xyz"])
            lean = pitch + self.number("rotation zx")
            if np.linalg.norm(way) < near:
                return
            yield np.array([*(10 * way).clip(-1, 1), 0, np.clip(2 * lean, -1, 1), 0, grip])

    def hold(self, grip: float, steps: int) -> Iterator[Vector]:
        """Stay, and open or close the gripper."""
        for _ in range(steps):
            yield np.array([0, 0, 0, 0, 0, 0, grip], np.float64)


class TurnOnTheStove(Expert):
    """Pushes the knob's ridge with the closed fingers."""

    def script(self) -> Iterator[Vector]:
        """Lean, go down beside the knob, and push."""
        knob = "flat_stove_1 button position"
        yield from self.move(self.place(knob, (0.035, -0.075, 0.11)), CLOSE, near=0.02, pitch=0.45)
        yield from self.move(self.place(knob, (0.035, -0.075, 0.025)), CLOSE, steps=20, pitch=0.45)
        yield from self.move(self.place(knob, (0.035, 0.12, 0.025)), CLOSE, steps=80, pitch=0.45)
        yield from self.hold(CLOSE, 1000)


class PickAndPlace(Expert):
    """Takes something from above and drops it elsewhere.

    Attributes:
        thing: what to take.
        grasp: where the hand takes it, from its position.
        target: where to drop it.
        above: where the hand drops it, from the target.
    """

    thing: str
    grasp: tuple[float, float, float]
    target: str
    above: tuple[float, float, float]

    def script(self) -> Iterator[Vector]:
        """Grasp, lift, carry, lower and let go."""
        x, y, z = self.grasp
        yield from self.move(self.place(f"{self.thing} position", (x, y, z + 0.1)), OPEN)
        yield from self.move(self.place(f"{self.thing} position", self.grasp), OPEN, steps=20, near=0.005)
        yield from self.move(self.place(f"{self.thing} position", self.grasp), CLOSE, steps=8, near=0)
        yield from self.move(self.place(f"{self.thing} position", (x, y, z + 0.15)), CLOSE, steps=10)
        x, y, z = self.above
        yield from self.move(self.place(f"{self.target} position", (x, y, z + 0.08)), CLOSE, near=0.015)
        yield from self.move(self.place(f"{self.target} position", self.above), CLOSE, steps=15)
        yield from self.hold(OPEN, 1000)


class PutTheCreamCheeseInTheBowl(PickAndPlace):
    """Takes the cream cheese by its sides."""

    thing, grasp = "cream_cheese_1", (0.0, 0.0, -0.005)
    target, above = "akita_black_bowl_1", (0.0, 0.0, 0.1)


class PutTheBowlOnTheStove(PickAndPlace):
    """Takes the bowl by its rim."""

    thing, grasp = "akita_black_bowl_1", (0.0, 0.05, 0.012)
    target, above = "flat_stove_1_cook_region", (0.0, 0.05, 0.06)


class FailAtTheStove(TurnOnTheStove):
    """Pushes beside the knob."""

    miss = 0.12


class FailAtTheBowl(PutTheBowlOnTheStove):
    """Grasps beside the bowl."""

    miss = 0.12


class FailAtTheCreamCheese(PutTheCreamCheeseInTheBowl):
    """Grasps beside the cream cheese."""

    miss = 0.12
