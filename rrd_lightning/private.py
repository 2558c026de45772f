"""Every use of what Lightning, torch and TorchRL keep to themselves, in one place.

Checked with lightning 2.6.6, torch 2.13 and tensordict 0.14.3. Each names the tests that would notice a change.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import _typehints
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities.model_helpers import is_overridden
from tensordict import TensorDict
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

# Functions over nested containers. Noticed by: tests/envs.
__all__ = [
    "FindableCheckpoint",
    "OpenCLI",
    "SafeCSVLogger",
    "accept_whole_numbers",
    "count_step",
    "fingerprint",
    "has_hooks",
    "has_optimizer_hooks",
    "has_step_listeners",
    "has_tensor_hooks",
    "lerp_all",
    "log_as_of",
    "stop_by_evaluations",
    "tree_leaves",
    "tree_map",
    "unchecked_tensordict",
    "unheard_hooks",
    "write_summary",
]

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def has_hooks(module: nn.Module) -> bool:
    """Tell whether something was registered to be called with a module, or one that it is made of.

    Noticed by: tests/engines/test_choice.py.
    """
    return any(getattr(each, hooks) for each in module.modules() for hooks in HOOKS)


def fingerprint(modules: Sequence[nn.Module], parameters: Sequence[nn.Parameter]) -> list[Any]:
    """Return what tells whether modules have other parts, parameters, hooks or attributes than before.

    Noticed by: tests/engines/test_choice.py.

    Args:
        modules: all of a module's, itself among them.
        parameters: all of them.
    """
    return [
        [id(child) for module in modules for child in module._modules.values()],
        [id(own) for module in modules for own in module._parameters.values()],
        [len(vars(module)) for module in modules],
        [
            bool(module._forward_hooks or module._forward_pre_hooks)
            or bool(module._backward_hooks or module._backward_pre_hooks)
            for module in modules
        ],
        [(each.requires_grad, each.dtype, has_tensor_hooks(each)) for each in parameters],
    ]


def has_tensor_hooks(tensor: torch.Tensor) -> bool:
    """Tell whether something was registered to be called with the gradient of a tensor.

    Noticed by: tests/engines/test_choice.py.
    """
    return bool(tensor._backward_hooks or getattr(tensor, "_post_accumulate_grad_hooks", None))


def has_optimizer_hooks(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether something is called with the step of an optimizer, or takes its place.

    Noticed by: tests/engines/test_choice.py.
    """
    hooks = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    return bool(hooks) or "step" in vars(optimizer)


def has_step_listeners(module: Any) -> bool:
    """Tell whether a module, a callback, the strategy or the precision has its own idea of an optimizer's step.

    Noticed by: tests/test_module.py, test_a_callback_that_listens_hears_of_each_step.
    """
    trainer: Any = module.trainer
    strategy = trainer.strategy
    return (
        is_overridden("on_before_optimizer_step", module)
        or any(is_overridden("on_before_optimizer_step", each, Callback) for each in trainer.callbacks)
        or is_overridden("optimizer_step", strategy, Strategy)
        or is_overridden("optimizer_step", strategy.precision_plugin, Precision)
    )


class SafeCSVLogger(CSVLogger):
    """Lightning's CSVLogger, whose file is whole at each moment, also while it gets a new column.

    Noticed by: tests/callbacks/test_logging.py.
    """

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Return the writer, which stages a file with new columns."""
        writer: Any = super().experiment
        writer._rewrite_with_new_header = partial(_rewrite, Path(writer.metrics_file_path))
        return writer


def _rewrite(path: Path, names: list[str]) -> None:
    staged = path.with_name(path.name + ".part")
    with path.open(newline="") as file, staged.open("w", newline="") as wider:
        writer = csv.DictWriter(wider, fieldnames=names)
        writer.writeheader()
        writer.writerows(csv.DictReader(file))
    staged.replace(path)


UNHEARD = ("on_before_backward", "on_after_backward", "on_before_zero_grad")
UNHEARD_OF_MODULE = ("backward", "optimizer_step", "optimizer_zero_grad", "configure_gradient_clipping")


def unheard_hooks(module: Any) -> list[str]:
    """Return the hooks of Lightning that a module or a callback overrides, and that no engine calls.

    Noticed by: tests/test_module.py, test_hooks_that_are_never_called_are_told.
    """
    own = [
        f"{type(module).__name__}.{name}" for name in UNHEARD + UNHEARD_OF_MODULE if is_overridden(name, module)
    ]
    return own + [
        f"{type(callback).__name__}.{name}"
        for callback in module.trainer.callbacks
        for name in UNHEARD
        if is_overridden(name, callback, Callback)
    ]


def lerp_all(tensors: list[torch.Tensor], ends: list[torch.Tensor], share: float) -> None:
    """Move tensors by a share of the way to others, in one operation for all of them.

    Noticed by: tests/agents.
    """
    torch._foreach_lerp_(tensors, ends, share)


def count_step(optimizer: Any, step: Callable[[], Any]) -> None:
    """Take a step, and count and profile it as Lightning's optimizer does, without asking who listens.

    That takes 0.17 ms less.

    Noticed by: tests/test_module.py, test_updates_and_env_steps_are_counted.
    """
    optimizer._on_before_step()
    step()
    optimizer._on_after_step()


def forget_logged(trainer: Any) -> None:
    """Let what was logged earlier in this epoch not be logged again.

    Noticed by: tests/test_phases.py, which compares the rows of metrics.csv.
    """
    trainer.fit_loop.epoch_loop._results.reset()


def log_as_of(trainer: Any, update: int) -> None:
    """Let Lightning pass logged metrics on as those of an update.

    Its own count is off by one after some resumes.

    Noticed by: tests/checkpoint/test_resume.py, which compares the rows of metrics.csv.
    """
    trainer.fit_loop.epoch_loop._batches_that_stepped = update - 1


def unchecked_tensordict(parts: Mapping[str, Any], shape: tuple[int, ...]) -> TensorDict:
    """Make a TensorDict without checking its tensors, in 2 µs instead of 14.

    Noticed by: tests/replay.
    """
    return TensorDict._new_unsafe(parts, torch.Size(shape))


def write_summary(writer: Any, summary: Any, step: int) -> None:
    """Write a summary through torch's `SummaryWriter`, which has a method for some kinds only.

    Noticed by: tests/callbacks/test_videos.py.
    """
    writer._get_file_writer().add_summary(summary, step)


def stop_by_evaluations(trainer: Any) -> None:
    """Let `EarlyStopping` that watches an evaluation's metric look after evaluations, rather than after epochs.

    Noticed by: tests/callbacks/test_evaluate.py.
    """
    for callback in trainer.callbacks:
        if isinstance(callback, EarlyStopping) and callback.monitor.startswith("evaluate/"):
            callback._check_on_train_epoch_end = False


class FindableCheckpoint(ModelCheckpoint):
    """A callback whose checkpoints Lightning finds by ``ckpt_path="last"`` and ``"best"``.

    Nothing else is left of `ModelCheckpoint`: a subclass has its own hooks, and gives `best_model_path`.

    Noticed by: tests/checkpoint/test_names.py.
    """

    def __init__(self) -> None:
        Callback.__init__(self)

    state_key = Callback.state_key
    # The one hook of ModelCheckpoint that Checkpoint has no own of.
    on_train_batch_end = Callback.on_train_batch_end

    def find_last(self, trainer: Any) -> Path | None:
        """Return the latest checkpoint, if there is one. A subclass overrides it."""

    def _find_last_checkpoints(self, trainer: Any) -> set[str]:
        """Return the checkpoints among which Lightning takes the newest."""
        path = self.find_last(trainer)
        return set() if path is None else {str(path)}


class OpenCLI(LightningCLI):
    """LightningCLI with its sections and its treatment of ``ckpt_path`` open to subclasses.

    Noticed by: tests/test_cli.py and tests/checkpoint/test_command_line.py.
    """

    def section(self, name: str) -> Any:
        """Return what was made of a section of the configuration."""
        return self._get(self.config_init, name)

    def leave_out(self, name: str) -> None:
        """Leave out the callback of a section."""
        self._parser(self.subcommand).callback_keys.remove(name)

    def check_ckpt_path(self, path: str | None) -> None:
        """Check a checkpoint that is to be loaded, or that there is none. A subclass overrides it."""

    def _parse_ckpt_path(self) -> None:
        """Leave the configuration as it is, where Lightning would merge the checkpoint's hyper-parameters."""
        self.check_ckpt_path(self.config[self.config.subcommand].ckpt_path)


def accept_whole_numbers() -> None:
    """Let jsonargparse take ``1e3`` and 1000.0 for whole numbers, wherever one is meant.

    Noticed by: tests/test_options.py.
    """
    module: Any = _typehints
    module.adapt_typehints = _adapt


_adapt_as_before: Any = _typehints.adapt_typehints


def _adapt(value: Any, typehint: Any, *args: Any, **kwargs: Any) -> Any:
    if typehint is int and isinstance(value, str | float):
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        # Digits alone are read as they are: a large number has more of them than a float.
        if number.is_integer() and not str(value).strip().lstrip("+-").isdecimal():
            value = int(number)
    return _adapt_as_before(value, typehint, *args, **kwargs)
