"""A reward model from stored episodes of HalfCheetah against the true reward, which it never sees.

    python -m benchmarks.known_truth

Trains SAC on the true reward for a while, with the episodes of all that time as the data set (from
falling about to running), writes them as a local Minari data set, learns a reward model offline from
their returns, and judges it on the episodes that were held out.
"""

from __future__ import annotations

import argparse

import gymnasium
import minari
import numpy as np
from lightning.pytorch import Trainer, seed_everything
from minari.data_collector import EpisodeBuffer

from rrd_lightning import Environment, ReplayDataModule, RRDModule, keys
from rrd_lightning.callbacks import Collect
from rrd_lightning.cli import main as rrd
from rrd_lightning.decomposition import EnvironmentReward

DATA_SET = "rrd/halfcheetah-mixed-v0"


def collect(steps: int) -> None:
    """Write the episodes of a run of SAC on the true reward."""
    seed_everything(0, verbose=False)
    env = Environment("HalfCheetah-v5")
    module = RRDModule(env.observation_space, env.action_space, decomposition=EnvironmentReward)
    data = ReplayDataModule(train_batches=50)
    trainer = Trainer(
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[Collect(env, warmup_steps=5000, total_env_steps=steps)],
    )
    trainer.fit(module, data)
    table = data.replay.episodes
    buffers = []
    for row in range(len(table)):
        records = data.replay.records(table["start"][row : row + 1], table["length"][row : row + 1])
        length = int(table["length"][row])
        ended = np.arange(length) == length - 1
        buffers.append(
            EpisodeBuffer(
                observations=records[keys.OBSERVATION].numpy().astype(np.float64),
                actions=records[keys.ACTION][:-1].numpy(),
                rewards=records[keys.REWARD][:-1].numpy().astype(np.float64),
                terminations=np.zeros(length, dtype=bool),
                truncations=ended,
            )
        )
    if DATA_SET in minari.list_local_datasets():
        minari.delete_dataset(DATA_SET)
    minari.create_dataset_from_buffers(DATA_SET, buffers, env=gymnasium.make("HalfCheetah-v5"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60_000, help="environment steps of the data set")
    parser.add_argument("--updates", type=int, default=20_000, help="of the reward model")
    arguments = parser.parse_args()
    collect(arguments.steps)
    options = ["--config=mujoco_offline", f"--data.demonstrations=minari:{DATA_SET}"]
    rrd(["fit", *options, f"--trainer.max_steps={arguments.updates}", "--trainer.accelerator=cpu"])


if __name__ == "__main__":
    main()
