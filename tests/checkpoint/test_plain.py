"""What a user's callback saves can be read back, or is refused by the first save."""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from rrd_lightning import ParameterError
from rrd_lightning.checkpoint.files import read, write
from rrd_lightning.checkpoint.plain import to_plain
from tests.resuming import fit

NUMPY = {
    "float": np.float64(0.1),
    "float16": np.float16(0.1),
    "bool": np.bool_(True),
    "uint32": np.arange(4, dtype=np.uint32),
    "complex": np.array([1 + 2j]),
    "big-endian": np.array([1, 2], ">i4"),
    "backwards": np.arange(3)[::-1],
    "without dimension": np.array(7),
    "none": np.zeros((0, 3)),
}


class Keeps(Callback):
    """A user's callback with a state."""

    def __init__(self, state: Any, stop_at: int = 10**9) -> None:
        self.state, self.stop_at = state, stop_at

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.stop_at:
            raise SystemExit

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.state = state_dict["kept"]


def test_numpy_is_saved_as_what_it_is() -> None:
    with pytest.raises(SystemExit):
        fit("Follow-v0", "first", stop_at=Keeps({**NUMPY, "nested": [(1, np.int8(3))]}, stop_at=9))
    later = Keeps(None)
    fit("Follow-v0", "second", ckpt_path=Path("first/version_0/checkpoints/last.ckpt"), stop_at=later)
    assert later.state.pop("nested") == [(1, 3)]
    assert later.state.keys() == NUMPY.keys()
    for name, value in NUMPY.items():
        assert type(later.state[name]) is type(value), name
        np.testing.assert_array_equal(later.state[name], value)
        assert later.state[name].dtype == np.asarray(value).dtype.newbyteorder("="), name


def test_what_cannot_be_read_back_is_refused_by_the_first_save() -> None:
    message = (
        r"^callbacks.Keeps.kept.1=datetime.date\(2024, 5, 6\): is datetime.date, which a checkpoint cannot"
    )
    with pytest.raises(ParameterError, match=message):
        fit("Follow-v0", "first", stop_at=Keeps(["a", date(2024, 5, 6)]))
    assert not list(Path("first").rglob("*.ckpt"))


@pytest.mark.parametrize(
    "value",
    [np.array(["a"]), np.array([None]), np.datetime64("2024-05-06"), {np.float64(1)}, Path("a"), range(3)],
)
def test_no_plain_data(value: Any) -> None:
    with pytest.raises(ParameterError, match=r"^one.0="):
        write({"one": [value]}, Path("file.pt"))
    assert not list(Path().iterdir())


def test_plain_data_is_left_alone() -> None:
    module = torch.nn.BatchNorm1d(2)
    content = {"state": module.state_dict(), "others": [1, "a", None, b"b", {1, 2}, (1.5, torch.ones(2))]}
    assert to_plain(content) is content
    assert to_plain({np.int64(3): 1}) == {3: 1}
    mixed = OrderedDict(one=np.float32(1))
    mixed.about = "kept"  # type: ignore[attr-defined]
    write({"mixed": mixed, **content}, Path("file.pt"))
    back = read(Path("file.pt"))
    assert back["mixed"].about == "kept"
    assert back["state"]._metadata == content["state"]._metadata  # type: ignore[attr-defined]
    assert back["others"][:5] == content["others"][:5]


def test_folders_that_cannot_be_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems refuse, and Windows does not open folders."""
    flush = os.fsync

    def refuse(file: Any) -> None:
        if os.path.isdir(f"/proc/self/fd/{file if isinstance(file, int) else file.fileno()}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        flush(file)

    monkeypatch.setattr(os, "fsync", refuse)
    assert fit("Follow-v0", "first")["env_steps"] == 300
    assert Path("first/version_0/checkpoints/last.ckpt").is_file()
