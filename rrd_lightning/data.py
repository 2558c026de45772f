"""The DataModule: paired batches from the episode replay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from tensordict import TensorDict

from rrd_lightning.datasets import Demonstrations, Reader
from rrd_lightning.datasets.feeding import EpisodesToRelabel, HeldOutEpisodes, fill
from rrd_lightning.errors import ParameterError, require_positive
from rrd_lightning.memory import MemoryPlan
from rrd_lightning.replay import Draws, EpisodeReplay, LazyBatches, PairedSampler
from rrd_lightning.seeding import derive_seed


class ReplayDataModule(LightningDataModule):
    """Owns the replay, and yields paired batches of transitions and subsequences for training.

    One Lightning epoch is `iterations_per_epoch` iterations of `train_batches` batches. Before each
    iteration the dataloader calls `refill`, through which a collector adds new episodes. A training step
    gets one batch or, with `updates_per_step` above 1, a sequence of several. The decomposition's `draws`
    says whether the subsequences are random steps, whole episodes, or left out.

    Demonstrations, if there are any, are added to an empty replay first: with a collector they
    count as warm-up, without one they are the whole data. A replay that comes from a checkpoint
    holds them already.

    Args:
        capacity: largest number of transitions in the replay; when it is full, the oldest episodes leave.
            Several processes share it evenly, while all other sizes are per process.
        train_batches: batches, and so updates, per iteration.
        batch_size: transitions per batch, for the agent.
        rrd_batch_size: steps per batch for the reward model, over all subsequences.
        rrd_sample_size: steps per subsequence. A batch has ``rrd_batch_size // rrd_sample_size``
            subsequences, each from a different episode; or as many whole episodes, in rows of this many
            steps.
        rrd_replacement: draw the steps of a subsequence with replacement.
        iterations_per_epoch: iterations per Lightning epoch.
        updates_per_step: batches per training step; an iteration's last step may have fewer. The results
            are the same, with less of Lightning's overhead per update. Its callbacks and limits, such as
            ``max_steps``, take effect between steps.
        storage: keep the replay in ``"memory"``, or in files on disk: ``"memmap"``. By default in memory
            if the full replay fits there, else on disk.
        scratch_dir: folder in which the temporary folder of these files is made; the system's by default.
        sampler: class that draws the batches: `PairedSampler`, or a subclass.
        demonstrations: HDF5 files in LIBERO's layout, folders of them, or ``minari:<dataset id>``, one or
            several; or a `Reader` of another format or with arguments of its own.
        skip_bad: skip damaged files and episodes with a warning each, instead of an error.
        held_out: fraction of the demonstrations that is held out from training. They are what validation
            and testing use in a run without an environment.
        action_repeat: steps of a demonstration that make one transition, whose action is their mean; as many
            as an action is taken in the environment. From the command line ``env.action_repeat`` sets both.

    Attributes:
        replay: the replay.
        refill: called before each iteration; set by the collector.
        evaluation_episodes: the episodes to validate and test with: held-out demonstrations, or what an
            evaluation callback sets.
        batches_left: batches of the current iteration that have not been drawn yet.

    Raises:
        ParameterError: if a size is not positive, a subsequence is larger than the batch, or
            demonstrations are not there.
    """

    def __init__(
        self,
        capacity: int = 1_000_000,
        train_batches: int = 25,
        batch_size: int = 256,
        rrd_batch_size: int = 256,
        rrd_sample_size: int = 64,
        rrd_replacement: bool = True,
        iterations_per_epoch: int = 100,
        updates_per_step: int = 1,
        storage: Literal["auto", "memory", "memmap"] = "auto",
        scratch_dir: str | None = None,
        sampler: type[PairedSampler] = PairedSampler,
        demonstrations: Reader | str | list[str] | None = None,
        skip_bad: bool = False,
        held_out: float = 0.0,
        action_repeat: int = 1,
    ) -> None:
        super().__init__()
        require_positive(
            train_batches=train_batches,
            iterations_per_epoch=iterations_per_epoch,
            updates_per_step=updates_per_step,
            capacity=capacity,
        )
        self.train_batches = train_batches
        self.updates_per_step = updates_per_step
        self.iterations_per_epoch = iterations_per_epoch
        self.batch_size = batch_size
        self.capacity = capacity
        self.storage = storage
        self.scratch_dir = scratch_dir
        self._sampler = sampler(batch_size, rrd_batch_size, rrd_sample_size, rrd_replacement)
        self.replay = self._make_replay(capacity)
        self.refill: Callable[[], None] = no_collection
        self.batches_left = 0
        self.evaluation_episodes: Iterable[TensorDict] = NoEpisodes()
        self.demonstrations: Demonstrations | None = None
        if demonstrations:
            self.demonstrations = Demonstrations(demonstrations, skip_bad, held_out, action_repeat)
        if unused := rrd_batch_size % rrd_sample_size:
            rank_zero_warn(
                f"rrd_batch_size={rrd_batch_size} is not a multiple of rrd_sample_size={rrd_sample_size}: "
                f"{unused} of its steps are unused"
            )

    def _make_replay(self, capacity: int) -> EpisodeReplay:
        # Cheap, since storage is allocated with the first episode: `setup` replaces it if it must be on disk.
        storage = "memory" if self.storage == "auto" else self.storage
        return EpisodeReplay(capacity, self._sampler, storage, self.scratch_dir)

    def memory_plan(self, module: Any, trainer: Any = None) -> MemoryPlan:
        """Return the memory that a run with this module takes."""
        processes, here = (trainer.world_size, trainer.num_devices) if trainer else (1, 1)
        return MemoryPlan(
            observation_space=module.model_spaces[0],
            action_space=module.model_spaces[1],
            train_batches=self.train_batches,
            batch_size=self.batch_size,
            num_subsequences=self._sampler.num_subsequences,
            rrd_sample_size=self._sampler.rrd_sample_size,
            capacity=self.capacity,
            processes=processes,
            processes_here=here,
            draws=module.decomposition.draws,
        )

    def check(self, module: Any, trainer: Any = None) -> None:
        """Draw what the decomposition asks for, and make sure that it can use it and that the replay fits.

        Raises:
            ParameterError: if the decomposition cannot use the subsequences or asks for something unknown,
                or the full replay does not fit.
        """
        draws = module.decomposition.draws
        if draws not in get_args(Draws):
            raise ParameterError("decomposition.draws", draws, f"must be one of {get_args(Draws)}")
        module.decomposition.check(self._sampler.rrd_sample_size)
        self._sampler.draws = draws
        if not len(self.replay):
            plan = self.memory_plan(module, trainer)
            if self.storage == "auto":
                self.storage = plan.choose_storage()
                if self.storage == "memmap":
                    rank_zero_info("The full replay does not fit in the free memory: it is kept on disk")
            plan.check(self.storage, self.scratch_dir)
        if self.demonstrations:
            processes = trainer.world_size if trainer else 1
            self.demonstrations.check(_spaces(module), self.capacity, processes)

    def prefill(self) -> None:
        """Add the demonstrations to an empty replay."""
        if self.demonstrations and self.trainer and not len(self.replay):
            module: Any = self.trainer.lightning_module
            fill(self.replay, self.demonstrations, _spaces(module), self.trainer)
            module.observe(self.replay.observations())

    def setup(self, stage: str) -> None:
        """Print the memory plan, check the sizes, and make the replay of this process."""
        if self.trainer is None:
            return
        trainer, module = self.trainer, self.trainer.lightning_module
        if self.demonstrations and self.demonstrations.held_out:
            self.evaluation_episodes = HeldOutEpisodes(self.demonstrations, _spaces(module), trainer)
        if stage == "predict":
            if self.demonstrations is None:
                raise ParameterError("data.demonstrations", None, "is missing: give the data set to relabel")
            self.episodes_to_relabel = EpisodesToRelabel(self.demonstrations, _spaces(module), trainer)
        if stage != "fit":
            return
        rank_zero_info(str(self.memory_plan(module, trainer)))
        self.check(module, trainer)
        self._sampler.seed(derive_seed("replay", trainer.global_rank))
        if not len(self.replay):
            self.replay = self._make_replay(-(-self.capacity // trainer.world_size))

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the iteration, and the seed of the hold-out split."""
        seed = self.demonstrations and self.demonstrations.split_seed
        return {"batches_left": self.batches_left, "split_seed": seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the position in the iteration and the hold-out split."""
        self.batches_left = state_dict["batches_left"]
        if self.demonstrations and state_dict.get("split_seed") is not None:
            self.demonstrations.split_seed = state_dict["split_seed"]

    def train_dataloader(self) -> PairedBatches:
        """Return one epoch of paired batches."""
        return PairedBatches(self)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch to its device. On the CPU it is there already, which Lightning is slow to find out."""
        if device.type == "cpu":
            return batch
        if isinstance(batch, LazyBatches):
            return batch.to(device)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def val_dataloader(self) -> Iterable[TensorDict]:
        """Return the finished episodes that policy and reward model are evaluated on."""
        return self.evaluation_episodes

    def test_dataloader(self) -> Iterable[TensorDict]:
        """Return the same episodes as `val_dataloader`."""
        return self.evaluation_episodes

    def predict_dataloader(self) -> Iterable[Any]:
        """Return all demonstrations with their names, to be relabelled."""
        return self.episodes_to_relabel


class PairedBatches:
    """One epoch of paired batches, each drawn when the training step asks for it.

    It has a length so that Lightning does not prefetch: a batch that is fetched ahead would miss the episodes
    collected before it.
    """

    def __init__(self, data: ReplayDataModule) -> None:
        self._data = data

    def __len__(self) -> int:
        """Training steps per epoch."""
        return self._data.iterations_per_epoch * -(-self._data.train_batches // self._data.updates_per_step)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the position is part of the DataModule's state."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore nothing."""

    def __iter__(self) -> Iterator[TensorDict | Sequence[TensorDict]]:
        """Refill the replay before each iteration, and yield a batch, or several, per training step."""
        data = self._data
        data.prefill()
        for _ in range(len(self)):
            if not (data.batches_left and len(data.replay)):
                data.refill()
                data.batches_left = data.train_batches
            count = min(data.updates_per_step, data.batches_left)
            data.batches_left -= count
            yield data.replay.sample_several(count) if data.updates_per_step > 1 else data.replay.sample()


class NoEpisodes:
    """An empty dataloader, for a run without evaluation.

    It has no ``__len__``, because Lightning warns of a dataloader of length zero.
    """

    def __iter__(self) -> Iterator[TensorDict]:
        """Yield no episode."""
        return iter(())


def no_collection() -> None:
    """Leave the replay as it is, where there is no collector."""


def _spaces(module: Any) -> tuple[Any, Any]:
    spaces: tuple[Any, Any] = module.model_spaces
    return spaces
