"""Time of a paired batch, beside the bare gather of its bytes, and the memory of a stored step.

    python -m benchmarks.sampling

Vectors have HalfCheetah's sizes, batch 256, rrd 256 / 64; images have three channels, batch 32, rrd
32 / 32, in a ring of 10,000 frames. Batches are drawn alone, or together as for a training step of 25 updates;
large ones are then gathered one by one. The bare gather is one index_select of each observation and each
next observation out of the ring, by the indices of a batch. As in training, a batch is there until the next
one is. Rounds of everything take turns.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from itertools import cycle

import torch
from tensordict import TensorDict

from benchmarks.spread import spread
from rrd_lightning import keys
from rrd_lightning.replay import EpisodeReplay, PairedSampler

ROUNDS = 15
TOGETHER = 25  # batches of a training step in the configurations for vectors


def make_replay(observation, actions: int, transitions: int, length: int, sizes: tuple, replacement: bool):
    """A full replay of episodes of one length."""
    sampler = PairedSampler(*sizes, replacement)
    replay = EpisodeReplay(transitions, sampler)
    for _ in range(transitions // length):
        replay.add_episode(
            TensorDict(
                {
                    keys.OBSERVATION: observation(length + 1),
                    keys.ACTION: torch.rand(length, actions),
                    keys.REWARD: torch.rand(length),
                    keys.EPISODE_RETURN: torch.rand(()),
                    keys.TERMINATED: torch.tensor(False),
                }
            )
        )
    return replay


def bare_gather(replay: EpisodeReplay):
    """The bytes of a batch's observations, other ones each time, and nothing else."""
    stored = replay.storage[:].get(keys.OBSERVATION)
    indices = [replay.sampler.sample(replay.storage)[0] for _ in range(200)]
    turns = cycle([torch.cat([index, (index + 1) % len(stored)]) for index in indices])
    return lambda: stored.index_select(0, next(turns))


def one_by_one(make) -> None:
    """As many batches as are drawn together, alone."""
    for _ in range(TOGETHER):
        batch = make()  # noqa: F841 - held until the next is there


def one_after_another(replay: EpisodeReplay) -> None:
    """As many batches, drawn together."""
    for _ in replay.sample_several(TOGETHER):
        pass


def ratios(ours: list[float], others: list[float]) -> list[float]:
    """Round by round."""
    return [our / other for our, other in zip(ours, others, strict=True)]


def microseconds(works: dict, repeats: int) -> dict:
    """Of one call each, in rounds that take turns."""
    timed: dict = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(ROUNDS):
        for name, work in works.items():
            start = time.perf_counter()
            for _ in range(repeats):
                work()
            timed[name].append(1e6 * (time.perf_counter() - start) / repeats)
    return timed


def main() -> None:
    logging.getLogger("torchrl").setLevel(logging.WARNING)
    torch.manual_seed(0)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}.\n")
    print(f"| vectors, transitions in episodes of T | microseconds a batch | {TOGETHER} together | ratio |")
    print("|---|---|---|---|")
    replays = {}
    for transitions, length in ((10_000, 1000), (1_000_000, 1000), (1_000_000, 20)):
        for replacement in (True, False):
            name = f"{transitions:,}, T = {length}, with{'' if replacement else 'out'} replacement"
            replays[name] = make_replay(
                lambda count: torch.randn(count, 17), 6, transitions, length, (256, 256, 64), replacement
            )
    works = {(name, "alone"): partial(one_by_one, replay.sample) for name, replay in replays.items()}
    works |= {(name, "together"): partial(replay.sample_several, TOGETHER) for name, replay in replays.items()}
    timed = microseconds(works, 2)
    for name in replays:
        alone, together = ([each / TOGETHER for each in timed[name, how]] for how in ("alone", "together"))
        print(f"| {name} | {spread(alone, 0)} | {spread(together, 0)} | {spread(ratios(together, alone))} |")
    replay = replays["1,000,000, T = 1000, with replacement"]
    stored = sum(part.untyped_storage().nbytes() for part in replay.storage[:].values())
    one_step = 4 * (17 + 6) + 4 + 1  # observation, action, true reward, the flag of a termination
    print(
        f"\nMemory: {stored / 1e6:.1f} bytes per step of capacity, {stored / 1e6 / one_step:.3f} x {one_step}\n"
    )
    replays.clear()

    print("| images | microseconds a batch | of 25 | bare gather | alone / bare | of 25 / bare |")
    print("|---|---|---|---|---|---|")
    for size in (84, 128, 256):

        def observe(count: int, size: int = size) -> torch.Tensor:
            return torch.randint(256, (count, 3, size, size), dtype=torch.uint8)

        replay = make_replay(observe, 7, 10_000, 100, (32, 32, 32), True)
        works = {"alone": partial(one_by_one, replay.sample), "together": partial(one_after_another, replay)}
        works["bare"] = partial(one_by_one, bare_gather(replay))
        timed = {name: [each / TOGETHER for each in times] for name, times in microseconds(works, 1).items()}
        times = " | ".join(spread(timed[name], 0) for name in ("alone", "together", "bare"))
        shares = " | ".join(spread(ratios(timed[name], timed["bare"])) for name in ("alone", "together"))
        print(f"| {size} | {times} | {shares} |")


if __name__ == "__main__":
    main()
