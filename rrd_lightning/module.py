"""The LightningModule: reward model and agent, trained together by manual optimization."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import torch
from gymnasium import Space
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.model_helpers import is_overridden
from tensordict import TensorDictBase
from torch import Tensor
from torch.optim import Optimizer

from rrd_lightning import keys
from rrd_lightning.agents import SAC, Agent
from rrd_lightning.checkpoint.format import FORMAT, FORMAT_KEY, PATH_KEY, CheckpointFiles, read_checkpoint
from rrd_lightning.compilation import compiled
from rrd_lightning.component import Metrics
from rrd_lightning.decomposition import RRD, Decomposition
from rrd_lightning.distributed import average_gradients
from rrd_lightning.episode import episode_transitions
from rrd_lightning.errors import ParameterError, require_positive
from rrd_lightning.kernels import NotCompiledError
from rrd_lightning.networks import MLP, Kernels, compiled_kernels
from rrd_lightning.optimizer import LeanAdam
from rrd_lightning.seeding import derive_seed, seed_generators
from rrd_lightning.spaces import space_from_dict, space_to_dict

AgentFactory = Callable[[Space[Any], Space[Any]], Agent]
DecompositionFactory = Callable[[Space[Any], Space[Any]], Decomposition]


class RRDModule(LightningModule):
    """Learns a per-step reward from episodic returns, and a policy from that reward.

    An update is made of each paired batch: the decomposition's loss on the subsequences, the agent's
    losses on the transitions with the reward that the decomposition gave them before the update,
    one backward pass over the sum, one optimizer step.

    Args:
        observation_space: of a single environment.
        action_space: of a single environment.
        agent: makes the agent from the two spaces: an `Agent` class, or a ``functools.partial`` of
            one with other arguments.
        decomposition: makes the decomposition from the two spaces, likewise.
        train_policy: train the agent too; otherwise the reward model alone.
        gradient_clip: largest gradient norm per parameter group, such as ``{"critic": 10.0}``.
        matmul_precision: what `torch.set_float32_matmul_precision` is set to, such as ``"high"`` for
            TF32 on a GPU; left alone by default.
        compile_update: on the CPU, let functions in C++ make the update, which are compiled at the start
            in two or three seconds; by default where there is a C++ compiler. On a GPU, compile
            losses and gradients with `torch.compile` into CUDA graphs, at the first update, in about 20
            seconds, for vectors alone; not by default. Results differ by rounding.

    Attributes:
        env_steps: environment steps of the run so far, in all processes: the metrics' x axis, but
            for a run without an environment, whose x axis is updates.

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
        gradient_clip: dict[str, float] | None = None,
        matmul_precision: Literal["highest", "high", "medium"] | None = None,
        compile_update: bool | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.observation_space = observation_space
        self.action_space = action_space
        self.agent = agent(observation_space, action_space)
        self.decomposition = decomposition(observation_space, action_space)
        self.train_policy = train_policy
        self.gradient_clip = gradient_clip or {}
        self.matmul_precision = matmul_precision
        self.compile_update = compile_update
        self.env_steps = 0
        self._loaded_updates = 0
        self._updates_in_step = 1
        self._step_has_listeners = True
        self._learn = type(self).learn
        self._kernels: Kernels | None = None
        if not train_policy:
            self.agent.requires_grad_(False)
        names = [group["name"] for group in self._parameter_groups()]
        if not names:
            raise ParameterError("train_policy", train_policy, "without it this decomposition learns nothing")
        for name, limit in self.gradient_clip.items():
            if name not in names:
                raise ParameterError("gradient_clip", name, f"must be one of the groups {names}")
            require_positive(**{f"gradient_clip.{name}": limit})

    def _parameter_groups(self) -> list[dict[str, Any]]:
        groups = self.decomposition.parameter_groups()
        return groups + self.agent.parameter_groups() if self.train_policy else groups

    def setup(self, stage: str) -> None:
        """Say how large the networks are, and let checkpoints be whole and without pickle.

        Raises:
            ParameterError: if gradients would be scaled, as for 16-bit floating numbers, or the update
                cannot be compiled.
        """
        if stage == "fit":
            if self.trainer.precision == "16-mixed":
                raise ParameterError(
                    "trainer.precision",
                    "16-mixed",
                    "scales gradients, which are partly worked out by hand: use bf16-mixed",
                )
            if self.matmul_precision:
                torch.set_float32_matmul_precision(self.matmul_precision)
            self._compile(self.trainer.strategy.root_device)
            counts = {
                group["name"]: sum(each.numel() for each in group["params"])
                for group in self._parameter_groups()
            }
            rank_zero_info("Parameters: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
        # Unless the user chose another way.
        if type(self.trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            self.trainer.strategy.checkpoint_io = CheckpointFiles()

    def _compile(self, device: torch.device) -> None:
        self._learn = type(self).learn
        if device.type == "cpu":
            self.use(self._compiled_kernels())
        elif self.compile_update:
            for part in (self.agent, self.decomposition) if self.train_policy else (self.decomposition,):
                if not part.compilable:
                    problem = f"{type(part).__name__} cannot be compiled for {self.observation_space}"
                    raise ParameterError("model.compile_update", True, problem)
            self._learn = compiled(type(self).learn, device)

    def _compiled_kernels(self) -> Kernels | None:
        if self.compile_update is False:
            return None
        try:
            kernels = compiled_kernels()
        except NotCompiledError as error:
            if self.compile_update:
                raise ParameterError("model.compile_update", True, str(error)) from error
            rank_zero_info(f"Updates are slower than they could be: model.compile_update {error}")
            return None
        rank_zero_info("Updates: in C++, compiled for this processor")
        return kernels

    def use(self, kernels: Kernels | None) -> None:
        """Let functions in C++ do the work of the networks and Adam, or torch's operations without them."""
        self._kernels = kernels
        for network in self.modules():
            if isinstance(network, MLP):
                network.kernels = kernels

    def on_fit_start(self) -> None:
        """Let processes draw different noise: with the same seed they have the same weights."""
        if self.global_rank:
            seed_generators(derive_seed("process", self.global_rank, self.env_steps))

    def configure_optimizers(self) -> Optimizer:
        """One Adam with a group per part, so that global_step is the number of updates."""
        library = self._kernels.library if self._kernels else None
        return LeanAdam(self._parameter_groups(), library)

    def _step_is_overridden(self) -> bool:
        """Tell whether a callback, the strategy or the precision has its own idea of an optimizer's step."""
        trainer: Any = self.trainer
        strategy = trainer.strategy
        return (
            is_overridden("on_before_optimizer_step", self)
            or any(is_overridden("on_before_optimizer_step", each, Callback) for each in trainer.callbacks)
            or is_overridden("optimizer_step", strategy, Strategy)
            or is_overridden("optimizer_step", strategy.precision_plugin, Precision)
        )

    def on_train_start(self) -> None:
        """Let the configured options of Adam, such as learning rates, win over a checkpoint's."""
        self._step_has_listeners = self._step_is_overridden()
        optimizer: Any = self.optimizers()
        for group, own in zip(optimizer.param_groups, self._parameter_groups(), strict=True):
            group.update({option: value for option, value in own.items() if option != "params"})

    def training_step(self, batch: TensorDictBase | Sequence[TensorDictBase], batch_idx: int) -> None:
        """Make an update from a paired batch, or one from each of several."""
        batches = [batch] if isinstance(batch, TensorDictBase) else batch
        for each in batches:
            metrics = self._update(each)
        self._updates_in_step = len(batches)
        if self.logs_now():
            # Lightning's own count, by which it passes metrics on, is off by one after some resumes.
            trainer: Any = self.trainer
            logged = self.global_step - self.global_step % trainer.log_every_n_steps
            trainer.fit_loop.epoch_loop._batches_that_stepped = logged - 1
            self.log_dict({**metrics(), "step": self.clock()}, sync_dist=True)

    def _update(self, batch: TensorDictBase) -> Metrics:
        optimizer: Any = self.optimizers()
        metrics = self._learn(self, batch)
        average_gradients(self.trainer, self.parameters())
        for group in optimizer.param_groups:
            if limit := self.gradient_clip.get(group["name"]):
                torch.nn.utils.clip_grad_norm_(group["params"], limit)
        self._step(optimizer)
        if self.train_policy:
            self.agent.update_targets()
        return metrics

    def _step(self, optimizer: Any) -> None:
        """Take a step, and count it."""
        if self._step_has_listeners:
            optimizer.step()
            return
        # What remains of that where nobody overrides anything, 0.2 ms sooner.
        optimizer._on_before_step()
        optimizer.optimizer.step()
        optimizer._on_after_step()

    def logs_now(self) -> bool:
        """Tell whether metrics are logged: whether the training step's updates reached the next logging."""
        trainer: Any = self.trainer
        every = trainer.log_every_n_steps
        return bool(every) and self.global_step % every < self._updates_in_step

    def learn(self, batch: TensorDictBase) -> Metrics:
        """Set the gradient of each parameter from a paired batch, and return what there is to log."""
        of_reward = self.decomposition.learn(batch.get(keys.SUBSEQUENCES))
        if not self.train_policy:
            return of_reward
        transitions = batch.get(keys.TRANSITIONS)
        with torch.no_grad():
            reward = self.decomposition.reward(transitions)
        of_policy = self.agent.learn(transitions, reward)
        return lambda: {**of_reward(), **of_policy(), "reward/agent_mean": reward.mean()}

    def validation_step(self, episode: TensorDictBase, batch_idx: int) -> Tensor:
        """Predict the reward of each step of a finished episode, ``[T]``."""
        return self.decomposition.reward(episode_transitions(episode))

    def test_step(self, episode: TensorDictBase, batch_idx: int) -> Tensor:
        """Predict the reward of each step of a finished episode, ``[T]``."""
        return self.validation_step(episode, batch_idx)

    def predict_step(self, named: tuple[str, str, int, TensorDictBase], batch_idx: int) -> Tensor:
        """Predict the reward of each step of a named episode, ``[T]``."""
        return self.validation_step(named[-1], batch_idx)

    @property
    def progress(self) -> int:
        """Environment steps of the run so far; updates in a run without an environment."""
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
        checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY] = self._hyper_parameters()

    def _hyper_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": space_to_dict(self.observation_space),
            "action_space": space_to_dict(self.action_space),
            "agent": self.agent.configuration(),
            "decomposition": self.decomposition.configuration(),
            "train_policy": self.train_policy,
            "gradient_clip": self.gradient_clip,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the clock, and refuse weights and optimizers of another model.

        Raises:
            ParameterError: naming the file, and the space, the class, or the first parameter that
                differs.
        """
        path = checkpoint.get(PATH_KEY, "the checkpoint")
        self._require_same_kind(checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY], path)
        saved, own = (
            {name: tuple(value.shape) for name, value in state.items()}
            for state in (checkpoint["state_dict"], self.state_dict())
        )
        for name in sorted(saved.keys() | own.keys()):
            if saved.get(name) != own.get(name):
                raise ParameterError(
                    "ckpt_path",
                    path,
                    f"has {name} of shape {saved.get(name)}, and the model {own.get(name)}: give the "
                    "spaces, agent, decomposition and sizes that it was trained with",
                )
        names = [group["name"] for group in self._parameter_groups()]
        for state in checkpoint.get("optimizer_states", []):
            trained = [group["name"] for group in state["param_groups"]]
            if trained == names:
                continue
            raise ParameterError(
                "model.train_policy",
                self.train_policy,
                f"trains {names}, {path} was training {trained}: its optimizer cannot go on",
            )
        self.env_steps = checkpoint["env_steps"]
        self._loaded_updates = checkpoint.get("global_step", 0)  # Lightning counts on in fit alone

    def _require_same_kind(self, saved: dict[str, Any], path: str) -> None:
        own = self._hyper_parameters()
        for name in ("observation_space", "action_space"):
            if saved[name] != own[name]:
                raise ParameterError(name, own[name], f"{path} is of {saved[name]}: another environment")
        for name in ("agent", "decomposition"):
            trained, given = saved[name]["class_path"], own[name]["class_path"]
            if trained != given:
                raise ParameterError(f"model.{name}", given, f"{path} is of {trained}")

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
            saved["gradient_clip"],
        )
        module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"])
        return module.to(map_location).eval()
