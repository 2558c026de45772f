"""Environment steps per second of collection, beside a plain loop over Gymnasium's SyncVectorEnv.

    python -m benchmarks.stepping [STEPS]

HalfCheetah-v5, in one process, on one thread. Ours is what `Collect` does: act, step, store the episodes.
The plain loop stores nothing. Both act by the same policy, 256 x 256, by the engine that a run would have, or
at random, and take turns.
"""

import logging
import platform
import statistics
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

import gymnasium
import torch

from benchmarks.spread import spread
from rrd_lightning import Environment, ReplayDataModule, RRDModule
from rrd_lightning.agents import SAC
from rrd_lightning.callbacks import Collect
from rrd_lightning.decomposition import RRD
from rrd_lightning.engines import Setting, choose_engine
from rrd_lightning.envs import Rollout

ID = "HalfCheetah-v5"
ROUNDS = 5
SLICE = 200  # steps of one, then of the other: other work on the machine slows both alike
Loop = Callable[[int], None]


def ours(module: RRDModule, num_envs: int, random: bool) -> Loop:
    env = Environment(ID)
    collect = Collect(env, num_envs)
    trainer = SimpleNamespace(world_size=1, datamodule=ReplayDataModule(capacity=100_000))
    rollout = Rollout(env.make_vector(num_envs))
    rollout.reset(0)

    def loop(steps: int) -> None:
        collect.env_steps_per_iteration = steps
        collect._collect(rollout, trainer, module, random=random)

    return loop


def plain(module: RRDModule, num_envs: int, random: bool) -> Loop:
    envs = gymnasium.make_vec(ID, num_envs=num_envs, vectorization_mode="sync")
    observation, _ = envs.reset(seed=0)

    def loop(steps: int) -> None:
        nonlocal observation
        for _ in range(steps // num_envs):
            if random:
                action = envs.action_space.sample()
            else:
                seen = torch.as_tensor(observation, dtype=torch.float32)
                action = module.explore(seen).numpy()
            observation, *_ = envs.step(action)

    return loop


def rates(loops: dict[str, Loop], steps: int) -> dict[str, list[float]]:
    """Steps per second of each loop, in turn."""
    measured: dict[str, list[float]] = {name: [] for name in loops}
    for loop in loops.values():
        loop(steps // 10)
    for _ in range(ROUNDS):
        seconds = dict.fromkeys(loops, 0.0)
        for _ in range(steps // SLICE):
            for name, loop in loops.items():
                start = time.perf_counter()
                loop(SLICE)
                seconds[name] += time.perf_counter() - start
        for name, spent in seconds.items():
            measured[name].append(steps / spent)
    return measured


def microseconds_per_act(module: RRDModule, num_envs: int, calls: int = 1000) -> float:
    observation = torch.randn(num_envs, 17)
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(calls):
            module.explore(observation)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds) / calls * 1e6


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    torch.set_num_threads(1)
    logging.getLogger("torchrl").setLevel(logging.WARNING)
    env = Environment(ID)
    module = RRDModule(env.observation_space, env.action_space, agent=SAC, decomposition=RRD)
    engine, said = choose_engine("auto", module, Setting(torch.device("cpu")))
    module._engine = engine(module, engine.make_optimizer(module._parameter_groups()))
    print(said)
    print(f"{platform.machine()}, torch {torch.__version__}, gymnasium {gymnasium.__version__}")
    print(f"{steps} steps, {ROUNDS} rounds in turn: median, and of the ratio the range\n")
    print("| actions | environments | ours, steps/s | plain loop, steps/s | ratio, pair by pair |")
    print("|---|---|---|---|---|")
    for actions in ("policy", "random"):
        for num_envs in (1, 8):
            random = actions == "random"
            loops = {make.__name__: make(module, num_envs, random) for make in (ours, plain)}
            measured = rates(loops, steps)
            ratios = [one / other for one, other in zip(*measured.values(), strict=True)]
            middles = " | ".join(f"{statistics.median(values):.0f}" for values in measured.values())
            print(f"| {actions} | {num_envs} | {middles} | {spread(ratios)} |")
    times = ", ".join(f"{microseconds_per_act(module, number):.0f} us for {number}" for number in (1, 8))
    print(f"\nOne `act`: {times}")


if __name__ == "__main__":
    main()
