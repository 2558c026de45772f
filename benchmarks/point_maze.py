"""Demonstrations of the way round a U, by a scripted policy with noise, as the Minari data set of `DATA_SET`.

    python -m benchmarks.point_maze [--episodes 20] [--noise 0.5]
    rrd fit --config benchmarks/point_maze.yaml --data.demonstrations minari:point-maze/scripted-v0

The policy steers from the centre of one cell to that of the next and brakes by its speed; normal noise is added
to its actions, which are then clipped. It also says how often uniform actions reach the goal.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import gymnasium
import gymnasium_robotics
import minari
import numpy as np
import yaml
from minari.data_collector import EpisodeBuffer

DATA_SET = "point-maze/scripted-v0"
CONFIG = Path(__file__).with_suffix(".yaml")
NEAR = 0.3  # of a centre, where the next one becomes the aim
STIFFNESS, DAMPING = 10.0, 1.0


def make_env():
    settings = yaml.safe_load(CONFIG.read_text())["env"]
    gymnasium.register_envs(gymnasium_robotics)
    name = settings["id"].rpartition(":")[2]
    return gymnasium.make(name, max_episode_steps=settings["max_episode_steps"], **settings["kwargs"])


def path(maze):
    """Centres of the free cells on the way from r to g, ``[cells, 2]``."""
    cells = {(row, column): cell for row, line in enumerate(maze.maze_map) for column, cell in enumerate(line)}
    (start,) = (place for place, cell in cells.items() if cell == "r")
    way = [start]
    while cells[way[-1]] != "g":
        row, column = way[-1]
        beside = [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
        way += [place for place in beside if cells[place] != 1 and place not in way][:1]
    return np.array([maze.cell_rowcol_to_xy(np.array(place)) for place in way])


class Scripted:
    """Follows the path to the goal."""

    def __init__(self, maze, noise, generator):
        self._path, self._noise, self._generator = path(maze), noise, generator
        self._aim = 1

    def act(self, observation):
        place, speed = np.split(observation["observation"], 2)
        aims = [*self._path[:-1], observation["desired_goal"]]
        if np.linalg.norm(aims[self._aim] - place) < NEAR:
            self._aim = min(self._aim + 1, len(aims) - 1)
        force = STIFFNESS * (aims[self._aim] - place) - DAMPING * speed
        noise = self._noise * self._generator.standard_normal(2)
        return (force + noise).clip(-1, 1).astype(np.float32)


def play(env, act, seed):
    """One episode."""
    observation, info = env.reset(seed=seed)
    steps = {
        key: [] for key in ("observations", "actions", "rewards", "terminations", "truncations", "success")
    }
    steps["observations"].append(observation)
    steps["success"].append(info["success"])
    done = False
    while not done:
        action = act(observation)
        observation, reward, terminated, truncated, info = env.step(action)
        done = terminated or truncated
        values = observation, action, float(reward), terminated, truncated, info["success"]
        for key, value in zip(steps, values, strict=True):
            steps[key].append(value)
    seen = {key: np.stack([each[key] for each in steps["observations"]]) for key in observation}
    return EpisodeBuffer(
        seed=seed,
        observations=seen,
        actions=np.stack(steps["actions"]),
        rewards=steps["rewards"],
        terminations=steps["terminations"],
        truncations=steps["truncations"],
        infos={"success": np.array(steps["success"])},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--noise", type=float, default=0.5, help="standard deviation, of actions within 1")
    parser.add_argument("--random", type=int, default=200, help="episodes of uniform actions, to compare")
    arguments = parser.parse_args()
    env, generator = make_env(), np.random.default_rng(0)
    demonstrations = [
        play(env, Scripted(env.unwrapped.maze, arguments.noise, generator).act, seed)
        for seed in range(arguments.episodes)
    ]
    env.action_space.seed(0)
    uniform = [play(env, lambda _: env.action_space.sample(), seed) for seed in range(arguments.random)]
    for name, episodes in (("scripted", demonstrations), ("uniform", uniform)):
        lengths = [len(each.rewards) for each in episodes]
        successes = sum(each.terminations[-1] for each in episodes)
        print(f"{name}: {successes} of {len(episodes)} reach the goal, in {np.mean(lengths):.0f} steps")
    if DATA_SET in minari.list_local_datasets():
        minari.delete_dataset(DATA_SET)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the data set does not say of itself
        minari.create_dataset_from_buffers(DATA_SET, demonstrations, env=env)
    print(f"minari:{DATA_SET}")


if __name__ == "__main__":
    main()
