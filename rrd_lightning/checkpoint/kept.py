"""Which checkpoints of a run are kept, and the replay folders that they need."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from rrd_lightning.checkpoint.files import link

BEST = "best.ckpt"


class KeptCheckpoints:
    """The folder of a run's checkpoints, of which those with the largest scores are kept.

    Args:
        most: how many checkpoints with a score to keep; -1 for all.

    Attributes:
        folder: where they are.
        scores: the score of each kept checkpoint that has one, by file name.
        replays: the name of each checkpoint's replay folder; None if it was saved without.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.folder = Path()
        self.scores: dict[str, float] = {}
        self.replays: dict[str, str | None] = {}

    def would_keep(self, score: float) -> bool:
        """Tell whether a checkpoint with this score would be kept; never with a score of NaN."""
        if self.most == -1 or len(self.scores) < self.most:
            return not math.isnan(score)
        return self.most > 0 and score > min(self.scores.values())

    def prune(self, *, writes: bool) -> None:
        """Forget the worst checkpoints; delete them, link ``best.ckpt``, and delete unneeded replays.

        Args:
            writes: whether this process changes files; the others only keep count.
        """
        while 0 <= self.most < len(self.scores):
            worst = min(self.scores, key=self.scores.__getitem__)
            del self.scores[worst], self.replays[worst]
            if writes:
                (self.folder / worst).unlink(missing_ok=True)
        if not writes:
            return
        if self.scores:
            link(self.folder / max(self.scores, key=self.scores.__getitem__), self.folder / BEST)
        for folder in self.folder.glob("replay-*"):
            if folder.name not in self.replays.values():
                shutil.rmtree(folder)

    def adopt(self, source: Path, *, writes: bool) -> None:
        """Link the kept checkpoints of the folder that the run was resumed from into its new folder."""
        self.scores = {name: score for name, score in self.scores.items() if (source / name).is_file()}
        if source.absolute() == self.folder.absolute():
            return
        self.replays = {name: self.replays[name] for name in self.scores}
        if not writes:
            return
        for name, replay in self.replays.items():
            if replay is not None and not (self.folder / replay).exists():
                shutil.copytree(source / replay, self.folder / replay, copy_function=_link)
            link(source / name, self.folder / name)
        self.prune(writes=True)

    def state_dict(self) -> dict[str, Any]:
        """Return scores and replay folders."""
        return {"returns": self.scores, "replays": self.replays}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore scores and replay folders."""
        self.scores, self.replays = state_dict["returns"], state_dict["replays"]


def _link(source: str, target: str) -> None:
    link(Path(source), Path(target))
