"""The replay on disk: its space is taken at the start, and killed runs leave nothing behind for long."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from rrd_lightning import ParameterError
from rrd_lightning.disk import OWNER, discard, reserve, temporary_folder
from rrd_lightning.replay import EpisodeReplay, PairedSampler
from tests.episodes import make_episode
from tests.job import SOLE
from tests.runs import run

ON_DISK = {"storage": "memmap", "scratch_dir": "scratch", "capacity": 100_000}


def taken(folder: Path) -> tuple[int, int]:
    """Bytes that the files of a folder have, and that they take of the disk."""
    stats = [path.stat() for path in folder.rglob("*.memmap")]
    return sum(each.st_size for each in stats), sum(512 * each.st_blocks for each in stats)


@pytest.mark.parametrize(("env_id", "capacity"), [("Follow-v0", 100_000), ("Pixels-v0", 2000)])
def test_the_space_is_taken_before_anything_is_collected(env_id: str, capacity: int) -> None:
    sizes = []

    class Watch(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            sizes.append(taken(Path("scratch")))

    data = {**ON_DISK, "capacity": capacity}
    run(env_id, data=data, collect={"total_env_steps": 120}, callbacks=[Watch()])
    ((size, on_disk),) = sizes
    assert on_disk >= size > capacity * 12


def test_a_replay_alone_takes_its_space_with_the_first_episode() -> None:
    replay = EpisodeReplay(100_000, PairedSampler(8, 8, 4, True), "memmap", "scratch")
    replay.add_episode(make_episode(0, 5))
    size, on_disk = taken(Path("scratch"))
    assert on_disk >= size == 105_000 * 16
    assert len(replay) == 5
    assert torch.equal(next(replay.observations()), make_episode(0, 5)["observation"])


def test_a_disk_that_is_too_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=2_000_000))
    message = r"data.scratch_dir='scratch': the full replay takes 1.26 MB of disk space, and 2 MB are free"
    with pytest.raises(ParameterError, match=message):
        run(data=ON_DISK)


@pytest.mark.parametrize("number", [errno.EINVAL, None])
def test_where_space_cannot_be_asked_for_it_is_filled(
    monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, "not here")

    if number is None:
        monkeypatch.delattr(os, "posix_fallocate")
    else:
        monkeypatch.setattr(os, "posix_fallocate", refuse)
    folder = Path("sparse")
    folder.mkdir()
    with (folder / "one.memmap").open("wb") as file:
        file.truncate(2**20 + 5)
    assert taken(folder)[1] == 0
    reserve(folder, "data.scratch_dir")
    size, on_disk = taken(folder)
    assert on_disk >= size == 2**20 + 5


KILLED = """
from rrd_lightning.replay import EpisodeReplay, PairedSampler
replay = EpisodeReplay(100, PairedSampler(8, 8, 4, True), "memmap", "scratch")
print("made", flush=True)
input()
"""


def test_what_a_killed_run_left_behind_is_removed() -> None:
    others = [
        subprocess.Popen(
            [sys.executable, "-c", KILLED],
            env={**os.environ, **SOLE},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    try:
        for each in others:
            assert each.stdout is not None
            assert each.stdout.readline() == b"made\n"
        both = set(Path("scratch").iterdir())
        assert len(both) == 2
        others[0].send_signal(signal.SIGKILL)
        others[0].wait()
        unrelated = Path("scratch/replay-of-mine")
        unrelated.mkdir()
        own, lock = temporary_folder("replay-", Path("scratch"))
        left = set(Path("scratch").iterdir()) - {own, unrelated}
        assert len(left) == 1
        assert left < both
        assert unrelated.is_dir()
        discard(own, lock)
    finally:
        for each in others:
            each.kill()
            each.communicate()
    discard(*temporary_folder("replay-", Path("scratch")))
    assert list(Path("scratch").iterdir()) == [unrelated]


def test_a_folder_that_was_taken_for_abandoned_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another start removes the folder between its making and its lock."""
    from rrd_lightning import disk

    lock = disk._locked
    calls: list[Path] = []

    def late(file: Any) -> bool:
        calls.append(Path(file.name))
        if len(calls) == 1:
            Path(file.name).unlink()
        return lock(file)

    monkeypatch.setattr(disk, "_locked", late)
    folder, owner = temporary_folder("replay-", Path())
    assert (folder / OWNER).exists()
    assert len(calls) == 2
    assert folder != calls[0].parent
    owner.close()


def test_scratch_folder_that_cannot_be_made() -> None:
    Path("file").touch()
    with pytest.raises(ParameterError, match=r"data.scratch_dir='file/scratch': cannot be written to"):
        EpisodeReplay(100, PairedSampler(8, 8, 4, True), "memmap", "file/scratch")
