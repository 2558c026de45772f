"""The LightningModule: reward model and agent, trained together by manual optimization."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import torch
from gymnasium import Space
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from tensordict import TensorDictBase
from torch import Tensor
from torch.optim import Adam, Optimizer

from rrd_lightning import keys
from rrd_lightning.adapter import SpaceAdapter
from rrd_lightning.agents import SAC, Agent
from rrd_lightning.checkpoint.format import FORMAT, FORMAT_KEY, CheckpointFiles, read_checkpoint
from rrd_lightning.checkpoint.model import require_same_model
from rrd_lightning.decomposition import RRD, Decomposition
from rrd_lightning.distributed import average_gradients, summed
from rrd_lightning.engines import Eager, EngineName, Setting, choose_engine
from rrd_lightning.engines.exact import overridden
from rrd_lightning.errors import ParameterError, require_not_negative, require_positive
from rrd_lightning.inference import Inference, seen_steps
from rrd_lightning.losses import Losses
from rrd_lightning.networks import Normalization, Observation, ObservationNormalizer
from rrd_lightning.phases import Phase, Phases
from rrd_lightning.pretrained import PretrainedEncoder
from rrd_lightning.private import count_step, forget_logged, has_step_listeners, log_as_of, unheard_hooks
from rrd_lightning.seeding import derive_seed, seed_generators
from rrd_lightning.spaces import space_from_dict, space_to_dict
from rrd_lightning.trainer_options import require_precision

AgentFactory = Callable[[Space[Any], Space[Any]], Agent]
DecompositionFactory = Callable[[Space[Any], Space[Any]], Decomposition]


class RRDModule(Inference):
    """Learns a per-step reward from episodic returns, and a policy from that reward.

    An update is made of each paired batch: the decomposition's losses, the agent's losses on the transitions
    with the reward that the decomposition gave them before the update, one backward pass over the sum, one
    optimizer step. `losses` is its definition; an engine carries it out.

    Args:
        observation_space: of a single environment, as it is.
        action_space: of a single environment, in its own bounds.
        agent: makes the agent from the two spaces as it sees them, observations in single precision and
            continuous actions in [-1, 1]: an `Agent` class, or a ``functools.partial`` of one with other
            arguments.
        decomposition: makes the decomposition from the two spaces, likewise.
        train_policy: train the agent too; otherwise the reward model alone.
        normalize_observations: let agent and decomposition see vectors with zero mean and unit variance, by
            all that was collected, or after phases by the demonstrations; clipped at five standard
            deviations, or as a `Normalization` says.
        gradient_clip: largest gradient norm per parameter group, such as ``{"critic": 10.0}``.
        matmul_precision: what `torch.set_float32_matmul_precision` is set to, such as ``"high"`` for
            TF32 on a GPU; left alone by default.
        engine: what carries updates out. ``"eager"``: torch, for everything. ``"cpp"``: functions in C++, for
            SAC and RRD on vectors on the CPU; they are compiled at the start, in two or three seconds.
            ``"cuda_graph"``: torch's operations recorded once, on a GPU. By default ``"auto"``: cpp where it
            can, else eager. Results differ by rounding.
        phases: parts of the run in which only some of the losses train. All but the last one are made of
            updates from the demonstrations, before the first step in the environment. By default all losses
            train from the beginning.
        encoder: what has learned to see already and stays as it is, a checkpoint of another run or the class
            path of a module: see `PretrainedEncoder`. Agent, decomposition and replay have its features
            instead of the observations.

    Attributes:
        env_steps: environment steps of the run so far, in all processes.
        collects: whether the run steps an environment; set by the collector.
        episode_spaces: observation and action space as finished episodes have them: the environment's, in
            single precision and with continuous actions in [-1, 1].
        model_spaces: the same as agent, decomposition and replay have them; features, if there is an encoder.

    Raises:
        ParameterError: if a part cannot serve the spaces, or a parameter group does not exist.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        agent: AgentFactory = SAC,
        decomposition: DecompositionFactory = RRD,
        train_policy: bool = True,
        normalize_observations: bool | Normalization = False,
        gradient_clip: dict[str, float] | None = None,
        matmul_precision: Literal["highest", "high", "medium"] | None = None,
        engine: EngineName = "auto",
        phases: list[Phase] | None = None,
        encoder: str | Path | dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.observation_space = observation_space
        self.action_space = action_space
        self._adapter = SpaceAdapter(observation_space, action_space)
        self.episode_spaces = self.model_spaces = self._adapter.spaces
        self.encoder: PretrainedEncoder | None = None
        if encoder is not None:
            self.encoder = PretrainedEncoder(encoder, self.episode_spaces[0])
            self.model_spaces = self.encoder.space, self.episode_spaces[1]
        self.agent = agent(*self.model_spaces)
        self.decomposition = decomposition(*self.model_spaces)
        self.normalizer: ObservationNormalizer | None = None
        if normalize_observations:
            chosen: Any = Normalization() if normalize_observations is True else normalize_observations
            if not isinstance(chosen, Normalization):
                problem = "must be true, false, or a Normalization"
                raise ParameterError("normalize_observations", chosen, problem)
            self.normalizer = ObservationNormalizer(self.model_spaces[0], chosen)
        self.train_policy = train_policy
        self.gradient_clip = gradient_clip or {}
        self.matmul_precision = matmul_precision
        self.engine: EngineName = engine
        self.env_steps = 0
        self.collects = False
        self._loaded_updates = 0
        self._saved_options: list[dict[str, Any]] | None = None
        self._updates_in_step = 1
        self._engine_class: type[Eager] = Eager
        self._engine: Eager | None = None
        if not train_policy:
            self.agent.requires_grad_(False)
        names = [group["name"] for group in self._parameter_groups()]
        for group in self._parameter_groups():
            require_not_negative(**{f"{group['name']}.lr": group.get("lr", 0.0)})
        if not names:
            raise ParameterError("train_policy", train_policy, "without it this decomposition learns nothing")
        for name, limit in self.gradient_clip.items():
            if name not in names:
                raise ParameterError("gradient_clip", name, f"must be one of the groups {names}")
            require_positive(**{f"gradient_clip.{name}": limit})
        self._given_phases = phases or []
        self.phases = Phases(self._given_phases, self.loss_names())
        self._phase: Phase | None = None
        self._logged: tuple[str, ...] = ()

    def _parameter_groups(self) -> list[dict[str, Any]]:
        groups = self.decomposition.parameter_groups()
        return groups + self.agent.parameter_groups() if self.train_policy else groups

    def loss_names(self) -> list[str]:
        """The names of all losses that train in some phase."""
        names = self.decomposition.loss_names()
        return names + self.agent.loss_names() if self.train_policy else names

    # What an update is.

    def prepare(self, batch: TensorDictBase) -> TensorDictBase:
        """Return a paired batch as the losses see it: with normalised observations, where that is asked for."""
        if self.normalizer is None:
            return batch
        prepared = batch.copy()
        for part in (keys.TRANSITIONS, keys.SUBSEQUENCES):
            if part in batch:
                prepared[part] = seen_steps(batch[part], self.normalizer)
        return prepared

    def losses(self, batch: TensorDictBase, updates: int = 0) -> Losses:
        """Return the losses of an update that train in its phase, each named like the group that it trains.

        Args:
            batch: a paired batch that `prepare` returned.
            updates: the number of updates made before this one.
        """
        phase, found = self.phases.at(updates), Losses()
        if phase.trains(self.decomposition.loss_names()):
            found = self.decomposition.losses(batch)
        if self.train_policy:
            found |= self._losses_of_agent(batch[keys.TRANSITIONS], phase, updates)
        return found if phase.train is None else found.only(phase.train)

    def _losses_of_agent(self, transitions: TensorDictBase, phase: Phase, updates: int) -> Losses:
        found = Losses()
        if phase.trains(name for name in self.agent.loss_names() if name != "cloning"):
            with torch.no_grad():
                reward = self.decomposition.reward(transitions)
            found = self.agent.losses(transitions, reward, updates)
            found |= Losses(metrics={"reward/agent_mean": reward.mean()})
        # Beside the actor's loss, which may be in some updates only; in every update where that does not train.
        if phase.trains(["cloning"]) and ("actor" in found.losses or not phase.trains(["actor"])):
            found |= self.agent.cloning(transitions)
        return found

    def after_update(self, updates: int) -> None:
        """Do what follows an optimizer step, of which so many were taken."""
        if self.train_policy:
            self.agent.after_update(updates)

    # Training.

    def setup(self, stage: str) -> None:
        """Choose the engine, say how large the networks are, and let checkpoints be whole and without pickle.

        Raises:
            ParameterError: if the precision is not one that observations and gradients have here, a component
                could not be found again from a checkpoint, or the engine cannot serve the run.
        """
        require_precision(self.trainer)
        if stage == "fit":
            if self.matmul_precision:
                torch.set_float32_matmul_precision(self.matmul_precision)
            self._engine = None
            setting = Setting(
                self.trainer.strategy.root_device,
                str(self.trainer.precision),
                has_step_listeners(self),
                overridden(self, RRDModule, ("losses", "prepare", "after_update")),
            )
            self._engine_class, said = choose_engine(self.engine, self, setting)
            self._warn_of_what_is_never_called()
            if self.trainer.checkpoint_callbacks:
                self.agent.require_importable("model.agent")
                self.decomposition.require_importable("model.decomposition")
            counts = {
                group["name"]: sum(each.numel() for each in group["params"])
                for group in self._parameter_groups()
            }
            rank_zero_info(said)
            rank_zero_info("Parameters: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
        # Unless the user chose another way.
        if type(self.trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            self.trainer.strategy.checkpoint_io = CheckpointFiles()

    def _warn_of_what_is_never_called(self) -> None:
        """Warn of hooks of Lightning's automatic optimization that the module or a callback overrides."""
        if names := unheard_hooks(self):
            rank_zero_warn(
                f"{', '.join(names)}: never called, since updates are made by RRDModule.losses and an engine; "
                "on_before_optimizer_step is called"
            )

    def on_fit_start(self) -> None:
        """Let processes draw different noise: with the same seed they have the same weights."""
        if self.global_rank:
            seed_generators(derive_seed("process", self.global_rank, self.env_steps))

    def configure_optimizers(self) -> Optimizer:
        """One Adam with a group per part, so that global_step is the number of updates."""
        return self._engine_class.make_optimizer(self._parameter_groups())

    def on_train_start(self) -> None:
        """Start the engine; an optimizer out of a checkpoint gets what was configured anew, and only that."""
        optimizer: Any = self.optimizers()
        if self._saved_options is not None and type(optimizer.optimizer) is Adam:
            self._update_options(optimizer.optimizer, self._saved_options)
        self._engine = self._make_engine(optimizer)

    def _update_options(self, optimizer: Adam, saved: list[dict[str, Any]]) -> None:
        """Let options of Adam win, such as learning rates, that were configured otherwise in the checkpoint."""
        for group, own, before in zip(optimizer.param_groups, self._own_options(), saved, strict=True):
            group["lr"] = float(group["lr"])  # another engine may have kept it in a tensor
            group.update({flag: optimizer.defaults[flag] for flag in ("fused", "capturable", "foreach")})
            group.update({option: value for option, value in own.items() if before.get(option) != value})

    def _own_options(self) -> list[dict[str, Any]]:
        """The options of each parameter group, as they are configured."""
        return [
            {option: value for option, value in group.items() if option != "params"}
            for group in self._parameter_groups()
        ]

    def _make_engine(self, optimizer: Any) -> Eager:
        listened = has_step_listeners(self)
        several = self.trainer.world_size > 1
        return self._engine_class(
            self,
            optimizer.optimizer,
            average_gradients=partial(average_gradients, self.trainer, self) if several else None,
            take_step=(lambda step: optimizer.step()) if listened else partial(count_step, optimizer),
        )

    def training_step(self, batch: TensorDictBase | Sequence[TensorDictBase], batch_idx: int) -> None:
        """Make an update from a paired batch, or one from each of several."""
        batches = [batch] if isinstance(batch, TensorDictBase) else batch
        self._announce_phase()
        if self.train_policy:
            self.agent.begin(self.env_steps)
        assert self._engine is not None
        self._engine.begin()
        for each in batches:
            metrics = self._engine.update(each, self.global_step)
        self._updates_in_step = len(batches)
        if self.logs_now():
            trainer: Any = self.trainer
            if tuple(metrics) != self._logged:
                forget_logged(trainer)  # what is not found any more would be logged again and again
                self._logged = tuple(metrics)
            log_as_of(trainer, self.global_step - self.global_step % trainer.log_every_n_steps)
            self.log_dict({**metrics, "step": self.clock()}, sync_dist=True)

    def _announce_phase(self) -> None:
        phase = self.phases.at(self.global_step)
        if phase is not self._phase and len(self.phases.phases) > 1:
            rank_zero_info(str(phase))
        self._phase = phase

    def on_fit_end(self) -> None:
        """Let go of the engine, and so of the optimizer."""
        self._engine = None

    def __getstate__(self) -> dict[str, Any]:
        """Let copies begin without an engine, which knows this module's parameters."""
        return {**super().__getstate__(), "_engine": None}

    def logs_now(self) -> bool:
        """Tell whether metrics are logged: whether the training step's updates reached the next logging."""
        trainer: Any = self.trainer
        every = trainer.log_every_n_steps
        return bool(every) and self.global_step % every < self._updates_in_step

    def observe(self, observations: Iterable[Observation]) -> None:
        """Take account of new observations in the replay, ``[T + 1, ...]`` of each episode, to normalise them.

        Several processes call it together, each with its own episodes. After phases it does nothing: what they
        have made of the demonstrations is to see the same numbers ever after.
        """
        done = self.phases.before_collection and self.global_step
        if self.normalizer is not None and not done:
            self.normalizer.add(summed(self.trainer, self.normalizer.sums(observations)))

    def validation_step(self, episode: TensorDictBase, batch_idx: int) -> Tensor:
        """Predict the reward of each step of a finished episode, ``[T]``."""
        return self.episode_rewards(episode)

    def test_step(self, episode: TensorDictBase, batch_idx: int) -> Tensor:
        """Predict the reward of each step of a finished episode, ``[T]``."""
        return self.validation_step(episode, batch_idx)

    def predict_step(self, named: tuple[str, str, int, TensorDictBase], batch_idx: int) -> Tensor:
        """Predict the reward of each step of a named episode, ``[T]``."""
        return self.validation_step(named[-1], batch_idx)

    @property
    def progress(self) -> int:
        """Environment steps of the run so far; updates in a run without an environment.

        In the phases before the first environment step it is the number of updates that are left, negative.
        """
        if self.collects and not self.env_steps:
            return min(self.global_step - self.phases.before_collection, 0)
        return self.env_steps or self.global_step or self._loaded_updates

    def clock(self) -> Tensor:
        """The x axis of metrics, `progress`. In double precision, exact beyond 2²⁴."""
        # Several processes average it, on their device; Apple's has no double precision.
        device = self.device if self.trainer.world_size > 1 else None
        return torch.tensor(self.progress, dtype=torch.float64, device=device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what `load_from_checkpoint` needs to build the module again, and the clock."""
        checkpoint[FORMAT_KEY] = FORMAT
        checkpoint["env_steps"] = self.env_steps
        checkpoint["optimizer_options"] = self._own_options()
        checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY] = self._hyper_parameters()

    def _hyper_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": space_to_dict(self.observation_space),
            "action_space": space_to_dict(self.action_space),
            "agent": self.agent.configuration(),
            "decomposition": self.decomposition.configuration(),
            "train_policy": self.train_policy,
            "normalize_observations": self.normalizer and asdict(self.normalizer.normalization),
            "gradient_clip": self.gradient_clip,
            "phases": [asdict(phase) for phase in self._given_phases],
            "encoder": self.encoder and self.encoder.configuration,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the clock, and refuse weights and optimizers of another model.

        Raises:
            ParameterError: naming the file, and the space, the class, or the first parameter that
                differs.
        """
        names = [group["name"] for group in self._parameter_groups()]
        require_same_model(checkpoint, self._hyper_parameters(), self.state_dict(), names)
        self.env_steps = checkpoint["env_steps"]
        self._saved_options = checkpoint["optimizer_options"]
        self._loaded_updates = checkpoint.get("global_step", 0)  # Lightning counts on in fit alone

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | Path, map_location: Any = "cpu"
    ) -> Self:
        """Build the trained module, in evaluation mode; no environment needs to be installed.

        Args:
            checkpoint_path: a checkpoint of this package.
            map_location: device to load to.

        Raises:
            ParameterError: if the file is not there, damaged, or not such a checkpoint.
        """
        checkpoint = read_checkpoint(checkpoint_path, map_location)
        saved = checkpoint[cls.CHECKPOINT_HYPER_PARAMS_KEY]
        module = cls(
            space_from_dict(saved["observation_space"]),
            space_from_dict(saved["action_space"]),
            partial(Agent.build, saved["agent"]),
            partial(Decomposition.build, saved["decomposition"]),
            saved["train_policy"],
            _normalization(saved["normalize_observations"]),
            saved["gradient_clip"],
            phases=[Phase(**phase) for phase in saved["phases"]],
            encoder=saved.get("encoder"),
        )
        module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"])
        return module.to(map_location).eval()


def _normalization(saved: dict[str, float] | bool | None) -> bool | Normalization:
    """Read what a checkpoint says of it; those of before there was a choice have true or false."""
    return Normalization(**saved) if isinstance(saved, dict) else bool(saved)
