"""The command line: ``rrd fit``, ``rrd validate``, ``rrd test`` and ``rrd predict``."""

from __future__ import annotations

import errno
import logging
import sys
import warnings
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import auto_cli
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from rrd_lightning.arguments import DEFAULT_ROOT, SECTIONS, expand
from rrd_lightning.callbacks import (
    Checkpoint,
    Collect,
    EnvStepProgressBar,
    Evaluate,
    Judge,
    Monitor,
    Plots,
    Relabel,
    Videos,
)
from rrd_lightning.checkpoint.files import require_writable
from rrd_lightning.checkpoint.format import read_checkpoint
from rrd_lightning.config_files import MergingConfigFile
from rrd_lightning.data import ReplayDataModule
from rrd_lightning.envs import Environment
from rrd_lightning.envs.environment import require_feedback
from rrd_lightning.errors import ParameterError
from rrd_lightning.export import export
from rrd_lightning.frames import stack_space
from rrd_lightning.module import RRDModule
from rrd_lightning.paths import local_path
from rrd_lightning.private import OpenCLI, SafeCSVLogger, accept_whole_numbers
from rrd_lightning.record import record
from rrd_lightning.run_folder import new_folder, run_folder, set_run_folder
from rrd_lightning.trainer_options import check_trainer_options, refused_by_lightning, require_precision

TRAINER_DEFAULTS = {
    "max_epochs": -1,  # collect.total_env_steps ends the run
    "devices": 1,
    "num_sanity_val_steps": 0,
    "default_root_dir": DEFAULT_ROOT,
    "enable_model_summary": False,
}


def report(args: list[str]) -> None:
    """Run ``rrd report``; what it needs beyond the rest is imported here.

    Raises:
        ParameterError: if pandas or scipy is missing.
    """
    if find_spec("pandas") is None or find_spec("scipy") is None:
        raise ParameterError("report", args, "needs pandas and scipy: pip install 'rrd-lightning[report]'")
    from rrd_lightning.report import main

    main(args)


class SaveConfig(SaveConfigCallback):
    """Writes the configuration into the run's folder and, without the trainer's section, into checkpoints."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "save_to_log_dir": False})

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder together with all processes."""
        run_folder(trainer)
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the file."""
        self.parser.save(self.config, run_folder(trainer) / self.config_filename, skip_none=False)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the configuration, from which `rrd test` rebuilds the run."""
        checkpoint["config"] = self._sections

    @cached_property
    def _sections(self) -> dict[str, Any]:
        # Once, since it is the same at every save.
        config = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        return {section: config[section] for section in SECTIONS}


class OptionalEnvironment(Environment):
    """The section ``env``; without an id it is false, and the run has no environment.

    Args:
        id: Gymnasium's id, such as ``HalfCheetah-v5``; ``module:Id-v0`` imports the module that registers
            it first. None to learn from demonstrations alone.
        frame_stack: let the images of so many steps be one observation. Episodes hold each once.
        feedback_every: give the return of every so many actions, instead of the episode's at its end.
        action_repeat: take each action this many times. Demonstrations are read likewise.
        options: as for `Environment`.
    """

    def __init__(
        self,
        id: str | None = None,
        frame_stack: int = 1,
        feedback_every: int | None = None,
        action_repeat: int = 1,
        **options: Any,
    ) -> None:
        require_feedback(frame_stack, feedback_every)
        self.id, self.frame_stack, self.feedback_every = "", frame_stack, feedback_every
        if id is not None:
            super().__init__(
                id,
                frame_stack=frame_stack,
                feedback_every=feedback_every,
                action_repeat=action_repeat,
                **options,
            )

    def __bool__(self) -> bool:
        return bool(self.id)


class ModelSpaces:
    """The spaces of the model: the environment's, or the demonstrations' in a run without one.

    Args:
        env: the environment; false if there is none.
        data: the DataModule, which may have demonstrations.

    Raises:
        ParameterError: if there are neither an environment nor demonstrations.
    """

    def __init__(self, env: OptionalEnvironment, data: ReplayDataModule) -> None:
        source = env or data.demonstrations
        if source is None:
            raise ParameterError(
                "env.id", None, "is missing: give the id of an environment, or data.demonstrations"
            )
        self.observation_space = source.observation_space
        if not env:
            self.observation_space = stack_space(self.observation_space, env.frame_stack)
        self.action_space = source.action_space


class RRDCLI(OpenCLI):
    """LightningCLI with sections for the environment, collection, evaluation and checkpoints."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Offer fit, validate, test and predict."""
        commands = LightningCLI.subcommands()
        return {name: commands[name] for name in ("fit", "validate", "test", "predict")}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Let dictionaries of several configuration files merge, and whole numbers be written as 1e6."""
        accept_whole_numbers()
        parser = self.parser_class(**kwargs)
        help = "A configuration file, or the name of a packaged one. Several merge."
        parser.add_argument("-c", "--config", action=MergingConfigFile, help=help)
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the sections, and link the environment to the parts that need it."""
        parser.add_class_arguments(OptionalEnvironment, "env")
        parser.add_lightning_class_args(Collect, "collect")
        parser.add_lightning_class_args(Evaluate, "evaluate")
        parser.add_lightning_class_args(Checkpoint, "checkpoint")
        parser.add_lightning_class_args(Relabel, "relabel")
        parser.add_argument(
            "--wandb_project", type=str | None, help="Log to this Weights & Biases project too."
        )
        parser.link_arguments("env.feedback_every", "data.feedback_every")
        parser.link_arguments("env", "collect.env", apply_on="instantiate")
        parser.link_arguments("env", "evaluate.env", apply_on="instantiate")
        parser.link_arguments("env.action_repeat", "data.action_repeat")
        parser.add_class_arguments(ModelSpaces, "spaces")
        parser.link_arguments("env", "spaces.env", apply_on="instantiate")
        parser.link_arguments("data", "spaces.data", apply_on="instantiate")
        for space in ("observation_space", "action_space"):
            parser.link_arguments(f"spaces.{space}", f"model.{space}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse `args` without LightningCLI's warning that they replace `sys.argv`."""
        # Another class than the default one would keep that one's defaults for options of the same name.
        found = parser.parse_args([arg for arg in args if not arg.startswith("--print_config")])
        for part in ("agent", "decomposition"):
            if path := getattr(found[found.subcommand].model[part], "class_path", None):
                self._parser(found.subcommand).set_defaults({f"model.{part}": {"class_path": path}})
        self.config = parser.parse_args(args)

    def check_ckpt_path(self, path: str | None) -> None:
        """Only check the checkpoint, since `expand` has merged its configuration already.

        Raises:
            ParameterError: if it does not exist or is damaged, or an untrained model would be judged.
        """
        if path is not None:
            read_checkpoint(path)
        elif (command := self.config.subcommand) != "fit":
            problem = f"rrd {command} needs a trained model: give the path of a checkpoint, last or best"
            raise ParameterError("ckpt_path", path, problem)

    def before_fit(self) -> None:
        """Check what involves several sections, before the run's folder is made."""
        if self.section("env"):
            self.section("collect").check(self.datamodule, self.trainer.world_size)
        elif self.trainer.max_steps == -1 and self.trainer.max_epochs == -1:
            raise ParameterError(
                "trainer.max_steps", -1, "a run without an environment needs a limit: give a number of updates"
            )
        self.datamodule.check(self.model, self.trainer)
        self.datamodule.check_demonstrations(self.model, self.trainer, self.section("ckpt_path"))
        self._begin()

    def _begin(self) -> None:
        """Make a new folder ``root/env-id/version_N``, and the default loggers in it."""
        trainer: Any = self.trainer
        env = self.section("env")
        require_precision(trainer)
        root = Path(trainer.default_root_dir)
        require_writable("trainer.default_root_dir", root)
        if trainer.fast_dev_run:
            return
        name = env.id.replace("/", "-") if env else "demonstrations"
        folder = new_folder(root, name) if trainer.is_global_zero else root / name / "version_of_first_process"
        set_run_folder(trainer, folder)
        if self.section("trainer").logger in (None, True):
            trainer.loggers = self._loggers(folder)

    before_validate = before_test = before_predict = _begin

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the default callbacks."""
        config = self.section("trainer")
        if (project := self.section("wandb_project")) and find_spec("wandb") is None:
            raise ParameterError("wandb_project", project, "needs wandb: pip install wandb")
        callbacks: list[Callback] = [Videos()]
        if self.section("env"):
            callbacks += [Monitor(), Plots()]
        else:
            callbacks.append(Judge())
            for section in ("collect", "evaluate"):
                self.leave_out(section)
        own = config.callbacks if isinstance(config.callbacks, list) else [config.callbacks]
        if config.enable_progress_bar is not False and not any(isinstance(each, ProgressBar) for each in own):
            callbacks.append(EnvStepProgressBar())
        if config.enable_checkpointing is False:
            self.leave_out("checkpoint")
        self.trainer_defaults["callbacks"] = callbacks
        if config.logger in (None, True):
            kwargs["logger"] = False  # they are made with the run's folder, once everything is checked
        root = local_path("trainer.default_root_dir", config.default_root_dir)
        kwargs["default_root_dir"] = str(root)
        check_trainer_options(config)
        try:
            return super().instantiate_trainer(**kwargs)
        except ParameterError:
            raise
        except (MisconfigurationException, ImportError, RuntimeError, TypeError, ValueError) as error:
            raise refused_by_lightning(config, error) from error

    def _loggers(self, folder: Path) -> list[Logger]:
        place: dict[str, Any] = {
            "save_dir": folder.parent.parent,
            "name": folder.parent.name,
            "version": folder.name,
        }
        loggers: list[Logger] = [
            SafeCSVLogger(**place, flush_logs_every_n_steps=1),
            TensorBoardLogger(**place, default_hp_metric=False),
        ]
        if project := self.section("wandb_project"):
            loggers.append(WandbLogger(project=project, save_dir=folder))
        return loggers


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: the arguments; `sys.argv` by default.
    """
    logging.getLogger("torchrl").setLevel(logging.WARNING)
    # Lightning 2.6 uses what torch 2.13 deprecates; a user can do nothing about it.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    # The interval counts updates across epochs; Lightning compares it with an epoch's training steps.
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*", category=UserWarning)
    # So that modules in the working directory are found, as by python -m.
    if not sys.flags.safe_path and not {"", str(Path.cwd())} & set(sys.path):
        sys.path.insert(0, str(Path.cwd()))
    args = list(sys.argv[1:] if args is None else args)
    try:
        if args[:1] == ["export"]:
            auto_cli(export, args=args[1:], as_positional=False, prog="rrd export")
            return
        if args[:1] == ["record"]:
            auto_cli(record, args=args[1:], as_positional=False, prog="rrd record")
            return
        if args[:1] == ["report"]:
            report(args[1:])
            return
        RRDCLI(
            RRDModule,
            ReplayDataModule,
            save_config_callback=SaveConfig,
            trainer_defaults=dict(TRAINER_DEFAULTS),
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=expand(args),
        )
    except (ParameterError, MisconfigurationException) as error:
        sys.exit("error: " + " ".join(str(error).split()))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        sys.exit(f"error: the disk is full: {error}")
