"""Frames per second of collection in LIBERO, and seconds per reset.

    python -m benchmarks.collection [TASK]

Random actions through the `Rollout` that collection uses; 128 x 128, one camera. The first reset of a
process, which imports and compiles, is not counted.
"""

import statistics
import sys
import time

from rrd_lightning import Environment
from rrd_lightning.envs import Rollout

STEPS = 40
REPEATS = 5


def frames_per_second(env: Environment, num_envs: int) -> list[float]:
    """Of all environments together, over steps without a reset."""
    rollout = Rollout(env.make_vector(num_envs, "async"))
    rollout.reset(0)
    rollout.step(rollout.envs.action_space.sample())
    rates = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(STEPS):
            rollout.step(rollout.envs.action_space.sample())
        rates.append(STEPS * num_envs / (time.perf_counter() - start))
    rollout.envs.close()
    return rates


def seconds_per_reset(env: Environment) -> list[float]:
    single = env.make()
    single.reset(seed=0)
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        single.reset()
        seconds.append(time.perf_counter() - start)
    single.close()
    return seconds


def main() -> None:
    task = sys.argv[1] if len(sys.argv) > 1 else "libero_goal/put_the_bowl_on_the_stove"
    for fast in (False, True):
        env = Environment(task, kwargs={"fast_rendering": fast})
        resets = seconds_per_reset(env)
        rates = {num_envs: frames_per_second(env, num_envs) for num_envs in (1, 2)}
        print(f"fast_rendering={fast}")
        print(f"  reset: {statistics.median(resets):.2f} s ({min(resets):.2f} to {max(resets):.2f})")
        for num_envs, values in rates.items():
            spread = f"{min(values):.1f} to {max(values):.1f}"
            print(f"  {num_envs} process(es): {statistics.median(values):.1f} frames/s ({spread})")


if __name__ == "__main__":
    main()
