"""The update alone, by each engine that serves it on the CPU, beside the floor of its own matrix products.

    python -m benchmarks.update [--images | --agents]

An update is the gradients of all losses, Adam's step and the targets: SAC and the reward model, networks of
256 x 256, float32. Vectors have HalfCheetah's sizes, batch 256, rrd 256 / 64; images have LIBERO's (three
channels, 9 numbers, 7 actions), batch 32, rrd 32 / 32. With --agents it is every agent's, with its default
options: on vectors of these sizes, with six actions where they are Discrete, and DQN on Atari's four frames of
84 x 84, batch 32, rrd 32 / 32. Of an agent with delayed parts it is the mean of two.

The floor is the time of the update's products, and convolutions, at the fastest float32 rate that this
machine shows in the same run: of products of 256 x 256 matrices that stay in its caches, one by one and
in pairs, by both libraries that torch has (precisions "highest" and "medium") and by our own functions, each
with its error. The operations are counted by torch's FlopCounterMode in the eager update.
Rounds of everything take turns.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from ctypes import byref, c_void_p
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.spread import spread
from rrd_lightning import RRDModule, keys
from rrd_lightning.agents import DDPG, DQN, SAC, TD3, Agent, DiscreteSAC
from rrd_lightning.engines import CppTwin, Eager
from rrd_lightning.engines.cpp.perceptron import Perceptron
from rrd_lightning.frames import stack_space
from rrd_lightning.kernels import compiled_library
from rrd_lightning.networks import MLP

ROUNDS = 15
EXACT = 1e-6
ACTIONS, NUMBERS = 7, 9


def vector_module(agent: type[Agent] = SAC) -> tuple[RRDModule, TensorDict]:
    """HalfCheetah's sizes."""
    observation = spaces.Box(-np.inf, np.inf, (17,), np.float32)
    discrete = agent in (DQN, DiscreteSAC)
    actions = spaces.Discrete(6) if discrete else spaces.Box(-1, 1, (6,), np.float32)
    module = RRDModule(observation, actions, agent)
    act = choose if discrete else partial(steer, 6)
    return module, paired_batch(lambda *shape: torch.randn(*shape, 17), act, 256, 4, 64)


def atari_module() -> tuple[RRDModule, TensorDict]:
    """DQN on four frames."""
    frames = stack_space(spaces.Box(0, 255, (84, 84), np.uint8), 4)
    module = RRDModule(frames, spaces.Discrete(6), DQN)
    observe = partial(torch.randint, 256, dtype=torch.uint8)
    return module, paired_batch(lambda *shape: observe((*shape, 4, 84, 84)), choose, 32, 1, 32)


def choose(*shape: int) -> torch.Tensor:
    """Actions of a Discrete."""
    return torch.randint(6, shape)


def steer(actions: int, *shape: int) -> torch.Tensor:
    """Continuous actions."""
    return torch.rand(*shape, actions) * 2 - 1


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

    return module, paired_batch(observe, partial(steer, ACTIONS), 32, 1, 32)


def paired_batch(observe, act, size: int, count: int, steps: int) -> TensorDict:
    """A batch of random content."""

    def part(*shape: int) -> dict:
        return {
            keys.OBSERVATION: observe(*shape),
            keys.NEXT_OBSERVATION: observe(*shape),
            keys.ACTION: act(*shape),
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


def make_update(module: RRDModule, batch: TensorDict, engine: type[Eager]) -> Callable[[], object]:
    """Two updates, as a function."""
    module = copy.deepcopy(module)
    running = engine(module, engine.make_optimizer(module._parameter_groups()))

    def update() -> None:
        for number in range(2):
            running.update(batch, number)

    return update


class Product(NamedTuple):
    """A product of 256 x 256 matrices, or of two pairs of them: by whom, and a function that makes it once."""

    name: str
    count: int
    make: Callable[[], None]
    factors: tuple[torch.Tensor, torch.Tensor]
    result: torch.Tensor

    def work(self) -> None:
        """Make it twenty times."""
        for _ in range(20):
            self.make()

    @property
    def operations(self) -> int:
        """Of `work`."""
        return 20 * self.count * 2 * 256**3

    def error(self) -> float:
        """Relative to double precision."""
        self.make()
        exact = self.factors[0].double() @ self.factors[1].double()
        return float((self.result - exact).norm() / exact.norm())


def products() -> list[Product]:
    """Those whose error is that of float32."""
    found = []
    for name, shape, product in (("one", (), torch.mm), ("a pair", (2,), torch.bmm)):
        count = len(shape) + 1
        for precision in ("highest", "medium"):
            left, right, out = (torch.randn(*shape, 256, 256) for _ in range(3))
            make = at(precision, partial(product, left, right, out=out))
            found.append(Product(f'{name}, torch\'s "{precision}"', count, make, (left, right), out))
        network = MLP(256, 256, hidden_sizes=(), members=count)
        out, inputs = torch.empty(count, 256, 256), torch.randn(256, 256)
        weights = network.layers[0].weight.detach()
        make = partial(ours, Perceptron(network), inputs, out)
        found.append(Product(f"{name}, ours", count, make, (inputs.expand_as(weights), weights), out))
    return [each for each in found if each.error() < EXACT]


def ours(perceptron: Perceptron, inputs: torch.Tensor, out: torch.Tensor) -> None:
    """The product that a perceptron of one layer makes in C++."""
    pointers = (c_void_p(each.data_ptr()) for each in (inputs, out))
    compiled_library().perceptron_forward(byref(perceptron.locate()), len(inputs), *pointers)


def at(precision: str, work: Callable[[], object]) -> Callable[[], None]:
    """The work at one of torch's precisions."""

    def precise() -> None:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        work()
        torch.set_float32_matmul_precision(before)

    return precise


def seconds(work, repeats: int) -> float:
    """Of one call, in the mean of several."""
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - start) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--images", action="store_true", help="images instead of vectors")
    kinds.add_argument("--agents", action="store_true", help="every agent")
    arguments = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}.\n")
    cases = {"vectors": vector_module}
    if arguments.images:
        cases = {f"images, {size} pixels": partial(image_module, size) for size in (84, 128, 256)}
    if arguments.agents:
        cases = {each.__name__: partial(vector_module, each) for each in (SAC, TD3, DDPG, DQN, DiscreteSAC)}
        cases["DQN, four frames"] = atari_module
    slow = arguments.images or arguments.agents
    updates, operations = {}, {}
    for name, make in cases.items():
        module, batch = make()
        for engine in (Eager, CppTwin):
            if engine.unsupported(module, torch.device("cpu")) is None:
                update = updates[f"{name}, {engine.name}"] = make_update(module, batch, engine)
                update()
        with FlopCounterMode(display=False) as counter:
            updates[f"{name}, eager"]()
        for update in updates:
            operations.setdefault(update, counter.get_total_flops() / 2)
    rates = products()
    timed = {name: [] for name in [*updates, *(each.name for each in rates)]}
    for _ in range(ROUNDS):
        for name, update in updates.items():
            timed[name].append(seconds(update, 1 if slow else 5) / 2)
        for each in rates:
            timed[each.name].append(seconds(each.work, 2))

    print("| products of 256 x 256 | error | GFLOP/s: median (max) |\n|---|---|---|")
    for each in rates:
        median, fastest = statistics.median(timed[each.name]), min(timed[each.name])
        seen = f"{each.operations / median / 1e9:.0f} ({each.operations / fastest / 1e9:.0f})"
        print(f"| {each.name} | {each.error():.1e} | {seen} |")
    print("\n| update | MFLOP | ms: median (min to max) | floor, ms | ratio: median (min to max) |")
    print("|---|---|---|---|---|")
    for name in updates:
        floors = [
            operations[name] / max(each.operations / timed[each.name][turn] for each in rates)
            for turn in range(ROUNDS)
        ]
        ratios = [took / floor for took, floor in zip(timed[name], floors, strict=True)]
        print(
            f"| {name} | {operations[name] / 1e6:.0f} | {spread([1e3 * took for took in timed[name]])} "
            f"| {1e3 * statistics.median(floors):.2f} | {spread(ratios)} |"
        )


if __name__ == "__main__":
    main()
