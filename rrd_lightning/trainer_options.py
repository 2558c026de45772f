"""Options of Lightning's Trainer that have another place here, or none."""

from __future__ import annotations

import os
from typing import Any

from lightning.pytorch.accelerators import AcceleratorRegistry

from rrd_lightning.errors import ParameterError

SECTION = "options-of-the-trainer"  # of docs/troubleshooting.md
# Observations are of single precision, and gradients are not scaled.
PRECISIONS = ("32-true", "bf16-mixed")
STRATEGIES = (
    "auto",
    "single_device",
    "ddp",
    "ddp_find_unused_parameters_false",
    "ddp_find_unused_parameters_true",
)


def require_precision(trainer: Any) -> None:
    """Raise a `ParameterError` unless observations and gradients have this precision here."""
    if trainer.precision not in PRECISIONS:
        raise ParameterError(
            "trainer.precision", trainer.precision, f"must be one of {', '.join(PRECISIONS)}", section=SECTION
        )


def check_trainer_options(options: Any) -> None:
    """Check what is given for the trainer, before it is made.

    Args:
        options: the section ``trainer``.

    Raises:
        ParameterError: naming the option, and what to give instead.
    """
    if options.gradient_clip_val:
        raise ParameterError(
            "trainer.gradient_clip_val",
            options.gradient_clip_val,
            "is not used here: give model.gradient_clip, such as --model.gradient_clip.critic 10",
            section=SECTION,
        )
    if options.accumulate_grad_batches not in (None, 1):
        raise ParameterError(
            "trainer.accumulate_grad_batches",
            options.accumulate_grad_batches,
            "must be 1: give a larger data.batch_size and data.rrd_batch_size",
            section=SECTION,
        )
    if isinstance(options.strategy, str) and options.strategy not in STRATEGIES:
        raise ParameterError("trainer.strategy", options.strategy, "must be auto or ddp", section=SECTION)
    _require_accelerator(options.accelerator)


def _require_accelerator(name: Any) -> None:
    registry: Any = AcceleratorRegistry
    there = {each for each in registry.available_accelerators() if registry[each]["accelerator"].is_available()}
    if there & {"cuda", "mps"}:
        there.add("gpu")
    if isinstance(name, str) and name not in {"auto", *there}:
        choice = ", ".join(sorted(there))
        raise ParameterError(
            "trainer.accelerator", name, f"is not there: must be auto or one of {choice}", section=SECTION
        )


def refused_by_lightning(options: Any, error: Exception) -> ParameterError:
    """Return the error that says which options Lightning cannot make a trainer of."""
    if "ntasks" in str(error) and (tasks := os.environ.get("SLURM_NTASKS")):
        return ParameterError(
            "SLURM_NTASKS",
            tasks,
            "is not what this job's trainer expects: give srun --ntasks-per-node, and trainer.devices and "
            f"trainer.num_nodes to match, or SLURM_JOB_NAME=bash for one process without srun ({error})",
            section=SECTION,
        )
    names = ("accelerator", "strategy", "devices", "num_nodes", "precision")
    return ParameterError(
        "trainer", {name: options.get(name) for name in names}, f"cannot be made: {error}", section=SECTION
    )
