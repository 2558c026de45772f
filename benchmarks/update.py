"""The update alone, beside the floor of its own matrix products.

    python -m benchmarks.update [--images]

An update is `RRDModule.learn`, compiled or not, Adam's step and the targets: SAC and the reward model,
networks of 256 x 256, float32. Vectors have HalfCheetah's sizes, batch 256, rrd 256 / 64; images have LIBERO's
(three channels, 9 numbers, 7 actions), batch 32, rrd 32 / 32.

The floor is the time of the update's products, and convolutions, at the fastest float32 rate that this
machine shows in the same run: of products of 256 x 256 matrices that stay in its caches, one by one and
in pairs, by both libraries that torch has (precisions "highest" and "medium", each with its error). The
operations are counted by torch's FlopCounterMode in the update itself. Rounds of everything take turns.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.spread import spread
from rrd_lightning import RRDModule, keys
from rrd_lightning.compilation import compiled

ROUNDS = 15
EXACT = 1e-6
ACTIONS, NUMBERS = 7, 9


def vector_module() -> tuple[RRDModule, TensorDict]:
    """HalfCheetah's sizes."""
    observation = spaces.Box(-np.inf, np.inf, (17,), np.float32)
    module = RRDModule(observation, spaces.Box(-1, 1, (6,), np.float32))
    return module, paired_batch(lambda *shape: torch.randn(*shape, 17), 6, 256, 4, 64)


def image_module(size: int) -> tuple[RRDModule, TensorDict]:
    """LIBERO's sizes."""
    image = spaces.Box(0, 255, (3, size, size), np.uint8)
    numbers = spaces.Box(-np.inf, np.inf, (NUMBERS,), np.float32)
    module = RRDModule(
        spaces.Dict({"image": image, "state": numbers}), spaces.Box(-1, 1, (ACTIONS,), np.float32)
    )

    def observe(*shape: int) -> TensorDict:
        pictures = torch.randint(256, (*shape, 3, size, size), dtype=torch.uint8)
        return TensorDict({"image": pictures, "state": torch.randn(*shape, NUMBERS)}, shape)

    return module, paired_batch(observe, ACTIONS, 32, 1, 32)


def paired_batch(observe, actions: int, size: int, count: int, steps: int) -> TensorDict:
    """A batch of random content."""

    def part(*shape: int) -> dict:
        return {
            keys.OBSERVATION: observe(*shape),
            keys.NEXT_OBSERVATION: observe(*shape),
            keys.ACTION: torch.rand(*shape, actions) * 2 - 1,
        }

    facts = {
        keys.EPISODE_RETURN: torch.randn(count) * 100,
        keys.EPISODE_LENGTH: torch.full((count,), 1000),
        keys.WITH_REPLACEMENT: torch.ones(count, dtype=torch.bool),
    }
    terminated = {keys.TERMINATED: torch.zeros(size, dtype=torch.bool)}
    return TensorDict(
        {
            keys.TRANSITIONS: TensorDict({**part(size), **terminated}, [size]),
            keys.SUBSEQUENCES: TensorDict({**part(count, steps), **facts}, [count]),
        },
        [],
    )


def make_update(module: RRDModule, batch: TensorDict, learn=RRDModule.learn):
    """One update, as a function."""
    optimizer = module.configure_optimizers()

    def update() -> None:
        learn(module, batch)
        optimizer.step()
        module.agent.update_targets()

    return update


def products() -> dict[str, tuple]:
    """Pieces of work whose operations are known: a function and its floating-point operations."""
    left, right, out = (torch.randn(256, 256) for _ in range(3))
    lefts, rights, outs = (torch.randn(2, 256, 256) for _ in range(3))

    def repeat(product, *factors, out):
        def work() -> None:
            for _ in range(20):
                product(*factors, out=out)

        return work

    single, pair = repeat(torch.mm, left, right, out=out), repeat(torch.bmm, lefts, rights, out=outs)
    return {"one product": (single, 20 * 2 * 256**3), "a pair": (pair, 40 * 2 * 256**3)}


def at(precision: str, work):
    """The work at one of torch's precisions."""

    def precise() -> None:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        work()
        torch.set_float32_matmul_precision(before)

    return precise


def product_error(precision: str) -> float:
    """The relative error of products of 256 x 256 matrices, one by one and in pairs."""
    left, right = torch.randn(2, 2, 256, 256)
    found = []
    at(precision, lambda: found.extend([left[0] @ right[0], left @ right]))()
    exact = [left[0].double() @ right[0].double(), left.double() @ right.double()]
    return max(float((each - true).norm() / true.norm()) for each, true in zip(found, exact, strict=True))


def seconds(work, repeats: int) -> float:
    """Of one call, in the mean of several."""
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - start) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", action="store_true", help="images instead of vectors")
    arguments = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}.\n")
    made = (
        {f"images {size}": image_module(size) for size in (84, 128, 256)}
        if arguments.images
        else {"vectors": vector_module()}
    )
    updates = {name: make_update(*parts) for name, parts in made.items()}
    operations = {}
    for name, update in updates.items():
        update()
        with FlopCounterMode(display=False) as counter:
            update()
        operations[name] = counter.get_total_flops()
    if not arguments.images:
        learn = compiled(RRDModule.learn, torch.device("cpu"))
        updates["vectors, compiled"] = make_update(*vector_module(), learn)
        updates["vectors, compiled"]()
        operations["vectors, compiled"] = operations["vectors"]
    rates = {
        (name, precision): (at(precision, work), count)
        for name, (work, count) in products().items()
        for precision in ("highest", "medium")
        if product_error(precision) < EXACT
    }
    timed = {name: [] for name in [*updates, *rates]}
    for _ in range(ROUNDS):
        for name, update in updates.items():
            timed[name].append(seconds(update, 2 if arguments.images else 10))
        for name, (work, _) in rates.items():
            timed[name].append(seconds(work, 2))

    print("| products | error | GFLOP/s: median (max) |\n|---|---|---|")
    for name, (_, count) in rates.items():
        median, fastest = statistics.median(timed[name]), min(timed[name])
        rates_seen = f"{count / median / 1e9:.0f} ({count / fastest / 1e9:.0f})"
        print(f"| {name[0]}, {name[1]!r} | {product_error(name[1]):.1e} | {rates_seen} |")
    print("\n| update | MFLOP | ms: median (min to max) | floor, ms | ratio: median (min to max) |")
    print("|---|---|---|---|---|")
    for name in updates:
        floors = [
            operations[name] / max(count / timed[which][turn] for which, (_, count) in rates.items())
            for turn in range(ROUNDS)
        ]
        ratios = [took / floor for took, floor in zip(timed[name], floors, strict=True)]
        print(
            f"| {name} | {operations[name] / 1e6:.0f} | {spread([1e3 * took for took in timed[name]])} "
            f"| {1e3 * statistics.median(floors):.2f} | {spread(ratios)} |"
        )


if __name__ == "__main__":
    main()
