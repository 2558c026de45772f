"""The DataModule: paired batches from the episode replay."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from tensordict import TensorDict

from rrd_lightning import keys
from rrd_lightning.checkpoint.format import read_checkpoint
from rrd_lightning.dataloaders import NoEpisodes, PairedBatches
from rrd_lightning.datasets import Demonstrations, Reader
from rrd_lightning.datasets.feeding import EpisodesToRelabel, HeldOutEpisodes, fill
from rrd_lightning.errors import ParameterError, require_positive
from rrd_lightning.frames import frame_space
from rrd_lightning.memory import MemoryPlan
from rrd_lightning.paths import local_path
from rrd_lightning.replay import Draws, EpisodeReplay, LazyBatches, MixedSampler, PairedSampler
from rrd_lightning.seeding import derive_seed
from rrd_lightning.spaces import zeros


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
        sampler: class that draws the batches: `PairedSampler`, or a subclass; by default what the decomposition
            names.
        demonstrations: HDF5 files in LIBERO's layout, folders of them, or ``minari:<dataset id>``, one or
            several; or a `Reader` of another format or with arguments of its own.
        skip_bad: skip damaged files and episodes with a warning each, instead of an error.
        held_out: fraction of the demonstrations that is held out from training. They are what validation
            and testing use in a run without an environment.
        demonstration_share: share of each batch's transitions that comes from the demonstrations, which then
            never leave the replay; one half in RLPD. By default all stored transitions are alike, and the
            oldest leave first.
        demonstration_subsequences: let this share hold for the subsequences, too.
        balance_success: draw half of the subsequences from successful episodes and half from failed ones, as
            long as there are both.
        feedback_every: learn from the return of every so many steps, collected or demonstrated, instead of the
            episode's; a collector sets it to its environment's.
        action_repeat: steps of a demonstration that make one transition, whose action is their mean; as many
            as an action is taken in the environment. From the command line ``env.action_repeat`` sets both.

    Attributes:
        replay: the replay.
        refill: called before each iteration; set by the collector.
        before_step: called before each training step and its refill, when the step before is logged.
        evaluation_episodes: the episodes to validate and test with: held-out demonstrations, or what an
            evaluation callback sets.
        longest_episode: transitions of the longest episode to be collected, as far as that is known; set by the
            collector.
        batches_left: batches of the current iteration that have not been drawn yet.

    Raises:
        ParameterError: if a size is not positive, a subsequence is larger than the batch, or what is to be
            drawn from demonstrations cannot be.
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
        sampler: type[PairedSampler] | None = None,
        demonstrations: Reader | str | list[str] | None = None,
        skip_bad: bool = False,
        held_out: float = 0.0,
        demonstration_share: float | None = None,
        demonstration_subsequences: bool = False,
        balance_success: bool = False,
        feedback_every: int | None = None,
        action_repeat: int = 1,
    ) -> None:
        super().__init__()
        require_positive(
            train_batches=train_batches,
            iterations_per_epoch=iterations_per_epoch,
            updates_per_step=updates_per_step,
            capacity=capacity,
        )
        if feedback_every is not None:
            require_positive(feedback_every=feedback_every)
        self.train_batches = train_batches
        self.updates_per_step = updates_per_step
        self.iterations_per_epoch = iterations_per_epoch
        self.batch_size = batch_size
        self.capacity = capacity
        self.storage = storage
        self.scratch_dir = scratch_dir and str(local_path("data.scratch_dir", scratch_dir))
        self.keep_demonstrations = demonstration_share is not None
        self.longest_episode = 0
        mixed = self.keep_demonstrations or demonstration_subsequences or balance_success
        sizes = batch_size, rrd_batch_size, rrd_sample_size, rrd_replacement
        self._sampler: PairedSampler
        self._has_own_sampler = mixed or sampler is not None
        if mixed:
            self._sampler = mixed_sampler = _mixed(sampler or PairedSampler)(*sizes)
            mixed_sampler.mix(demonstration_share, demonstration_subsequences, balance_success)
        else:
            self._sampler = (sampler or PairedSampler)(*sizes)
        self.feedback_every = feedback_every
        self._observation_space: Any = None
        self.replay = self._make_replay(capacity)
        self.refill: Callable[[], None] = nothing
        self.before_step: Callable[[], None] = nothing
        self.batches_left = 0
        self.evaluation_episodes: Iterable[TensorDict] = NoEpisodes()
        self.demonstrations: Demonstrations | None = None
        if demonstrations:
            self.demonstrations = Demonstrations(demonstrations, skip_bad, held_out, action_repeat)
        elif demonstration_share is not None:
            raise ParameterError(
                "data.demonstration_share", demonstration_share, "needs data.demonstrations to draw from"
            )
        if unused := rrd_batch_size % rrd_sample_size:
            rank_zero_warn(
                f"rrd_batch_size={rrd_batch_size} is not a multiple of rrd_sample_size={rrd_sample_size}: "
                f"{unused} of its steps are unused"
            )

    def _make_replay(self, capacity: int) -> EpisodeReplay:
        # Cheap, since storage is allocated with the first episode: `setup` replaces it if it must be on disk.
        storage = "memory" if self.storage == "auto" else self.storage
        return EpisodeReplay(
            capacity,
            self._sampler,
            storage,
            self.scratch_dir,
            keep_demonstrations=self.keep_demonstrations,
            observation_space=self._observation_space,
            feedback_every=self.feedback_every,
        )

    def expect_feedback_every(self, steps: int | None) -> None:
        """Let episodes from now on have the return of every so many steps, as the environment gives it.

        Raises:
            ParameterError: if it was set to another number.
        """
        if self.feedback_every not in (None, steps):
            problem = f"differs from the environment's feedback_every={steps}"
            raise ParameterError("data.feedback_every", self.feedback_every, problem)
        self.feedback_every = self.replay.feedback_every = steps

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
            feedback_every=self.feedback_every,
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
        self._take_sampler(module.decomposition.sampler)
        module.decomposition.check(self._sampler.num_subsequences, self._sampler.rrd_sample_size)
        self._sampler.draws = draws
        self._observation_space = module.model_spaces[0]
        if not len(self.replay):
            plan = self.memory_plan(module, trainer)
            if self.storage == "auto":
                self.storage = plan.choose_storage()
                if self.storage == "memmap":
                    rank_zero_info("The full replay does not fit in the free memory: it is kept on disk")
            plan.check(self.storage, self.scratch_dir)
        if self.demonstrations is None:
            _refuse_without_demonstrations(module)

    def _take_sampler(self, kind: type[PairedSampler]) -> None:
        """Draw as the decomposition does, unless the user chose otherwise or the replay is in use."""
        if self._has_own_sampler or len(self.replay) or type(self._sampler) is kind:
            return
        own = self._sampler
        sizes = own.batch_size, own.num_subsequences * own.rrd_sample_size, own.rrd_sample_size
        self._sampler = kind(*sizes, own.rrd_replacement)
        self.replay = self._make_replay(self.capacity)

    def check_demonstrations(self, module: Any, trainer: Any = None, ckpt_path: Any = None) -> None:
        """Check every demonstration, as far as that is cheap, and that the replay can hold them.

        Args:
            module: the `RRDModule`.
            trainer: of the run, if there is one.
            ckpt_path: the checkpoint that the run goes on from, if any. If it brings its replay, and none are
                held out, the demonstrations are not looked for.

        Raises:
            ParameterError: as `Demonstrations.check` does, or if there is none to imitate.
        """
        if self.demonstrations is None:
            return
        if ckpt_path and not self.demonstrations.held_out and read_checkpoint(ckpt_path).get("replay"):
            return
        spaces = _spaces(module)
        processes = trainer.world_size if trainer else 1
        largest = self.demonstrations.check(spaces, self.capacity, processes)
        needed = (largest + self.longest_episode) * processes
        if self.keep_demonstrations and self.capacity < needed:
            raise ParameterError(
                "data.capacity",
                self.capacity,
                f"must be at least {needed}, with room for an episode beside the demonstrations, all kept",
            )
        if "cloning" in module.loss_names():
            training, _ = self.demonstrations.split(spaces)
            if all(entry.facts.success is False for entry in training):
                weight = module.agent.cloning_weight
                raise ParameterError(
                    "agent.cloning_weight", weight, "needs a demonstration that has not failed, to imitate"
                )

    def begin_iteration(self) -> None:
        """Collect, unless the run is in a phase before its first environment step, and count batches anew."""
        module: Any = self.trainer and self.trainer.lightning_module
        if left := module.phases.left(module.global_step) if module else 0:
            self.batches_left = min(self.train_batches, left)
            return
        self.refill()
        self.batches_left = self.train_batches

    def prefill(self) -> None:
        """Add the demonstrations to an empty replay."""
        if self.demonstrations and self.trainer and not len(self.replay):
            module: Any = self.trainer.lightning_module
            self.check_demonstrations(module, self.trainer)
            fill(self.replay, self.demonstrations, _spaces(module), self.trainer, module.encoded)
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
        if self.demonstrations and self.demonstrations.held_out:
            self.check_demonstrations(module, trainer)  # the others if the replay turns out to be empty
        self._sampler.seed(derive_seed("replay", trainer.global_rank))
        if not len(self.replay):
            # All processes have compared the free space with what they take together.
            trainer.strategy.barrier("replay is checked")
            self.replay = self._make_replay(-(-self.capacity // trainer.world_size))
            self.replay.reserve(_example_record(module))

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


def _mixed(sampler: type[PairedSampler]) -> type[MixedSampler]:
    if sampler is PairedSampler:
        return MixedSampler
    if issubclass(sampler, MixedSampler):
        return sampler
    raise ParameterError(
        "data.sampler",
        sampler.__name__,
        "draws in its own way, without data.demonstration_share and data.balance_success: leave these out, or "
        "make it a subclass of MixedSampler",
    )


def _refuse_without_demonstrations(module: Any) -> None:
    """Raise a `ParameterError` if phases or cloning have nothing to learn from."""
    if module.phases.before_collection:
        names = [phase.name for phase in module.phases.phases if phase.updates]
        raise ParameterError("model.phases", names, "learn from demonstrations: set data.demonstrations")
    if "cloning" in module.loss_names():
        weight = module.agent.cloning_weight
        raise ParameterError("agent.cloning_weight", weight, "needs data.demonstrations to imitate")


def nothing() -> None:
    """Do nothing, where there is no collector or no checkpoint."""


def _spaces(module: Any) -> tuple[Any, Any]:
    """What episodes hold: single frames, where the module sees stacks."""
    observation_space, action_space = module.episode_spaces
    return frame_space(observation_space), action_space


def _example_record(module: Any) -> TensorDict:
    observation, action = (zeros(frame_space(space), 1) for space in module.model_spaces)
    return TensorDict({keys.OBSERVATION: observation, keys.ACTION: action, keys.REWARD: torch.zeros(1)}, [1])
