"""Relabelling of demonstrations with predicted rewards."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from rrd_lightning.checkpoint.files import require_writable
from rrd_lightning.errors import ParameterError
from rrd_lightning.paths import local_path


class Relabel(Callback):
    """Writes the predicted reward of every step of the demonstrations to a Parquet file.

    This is what ``rrd predict`` does. The columns are ``source`` (file or data set), ``episode``,
    ``step`` (the row of the action in the source; where actions are repeated, of the first of those that make
    one), ``predicted_reward`` and ``model_version`` (a hash of the reward model's parameters). The sources are
    only read. Each finished episode is written to ``<output>.parts/``, from which an interrupted run continues,
    but for what was damaged since; at the end the parts are merged.

    Args:
        output: path of the Parquet file.
    """

    def __init__(self, output: str = "rewards.parquet") -> None:
        self.output = local_path("relabel.output", output)
        self._parts = self.output.with_name(self.output.name + ".parts")
        self._version = ""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Check, before any work, that the file can be written."""
        if stage != "predict":
            return
        try:
            import pyarrow  # noqa: F401 - fails here rather than after the predictions
        except ModuleNotFoundError as error:
            install = "pip install 'rrd-lightning[demonstrations]'"
            raise ParameterError("relabel.output", str(self.output), f"needs pyarrow: {install}") from error
        if self.output.suffix != ".parquet":
            raise ParameterError("relabel.output", str(self.output), "must end in .parquet")
        require_writable("relabel.output", self._parts)

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """Skip the episodes that an interrupted run of this model has finished."""
        self._version = model_version(pl_module.decomposition)
        trainer.datamodule.episodes_to_relabel.is_done = lambda *name: _is_intact(self._part(*name))

    def on_predict_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write one episode's rewards."""
        import pyarrow
        from pyarrow import parquet

        source, name, first_step, stride, _ = batch
        rewards = outputs.float().cpu().numpy()
        table = pyarrow.table(
            {
                "source": [source] * len(rewards),
                "episode": [name] * len(rewards),
                "step": range(first_step, first_step + stride * len(rewards), stride),
                "predicted_reward": rewards,
                "model_version": [self._version] * len(rewards),
            }
        )
        part = self._part(source, name)
        staged = part.with_suffix(".part")
        parquet.write_table(table, staged, write_page_checksum=True)
        staged.replace(part)

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        """Merge the parts."""
        trainer.strategy.barrier("relabel")
        if not trainer.is_global_zero:
            return
        from pyarrow import parquet

        entries = trainer.datamodule.episodes_to_relabel.entries()
        parts = [self._part(entry.source.name, entry.episode) for entry in entries]
        present = [part for part in parts if part.exists()]  # skipped episodes have none
        staged = self.output.with_name(self.output.name + ".part")
        with parquet.ParquetWriter(staged, parquet.read_schema(present[0]), write_page_checksum=True) as writer:
            for part in present:
                writer.write_table(parquet.read_table(part, page_checksum_verification=True))
        staged.replace(self.output)
        shutil.rmtree(self._parts)
        rank_zero_info(f"Predicted rewards of {len(present)} episodes: {self.output}")

    def _part(self, source: str, name: str) -> Path:
        key = hashlib.sha256("\0".join([source, name, self._version]).encode()).hexdigest()
        return self._parts / f"{key[:24]}.parquet"


def _is_intact(part: Path) -> bool:
    """Tell whether an interrupted run has left an episode's rewards, with the checksums that it wrote."""
    from pyarrow import ArrowException, parquet

    try:
        parquet.read_table(part, page_checksum_verification=True)
    except (ArrowException, OSError):  # a missing file among them
        return False
    return True


def model_version(model: nn.Module) -> str:
    """Return a hash of the parameters."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
