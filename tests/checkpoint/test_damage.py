"""Damage to a file, as disks and networks do it: found when the file is read, and named."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch

from rrd_lightning import ParameterError, RRDModule
from rrd_lightning.checkpoint.files import read, write
from tests.resuming import assert_same, fit


def flip(path: Path, place: int, count: int = 64) -> None:
    content = bytearray(path.read_bytes())
    for byte in range(place, place + count):
        content[byte] ^= 0xFF
    path.write_bytes(content)


def test_bytes_that_flipped_in_a_replay_and_in_a_checkpoint() -> None:
    fit("Follow-v0", "first", stop_at=9)
    last = Path("first/version_0/checkpoints/last.ckpt")
    replay = last.parent / torch.load(last, weights_only=True)["replay"]
    for path in (min(replay.glob("rank-0/episodes-*")), replay / "rank-0/process.pt", last):
        intact = path.read_bytes()
        flip(path, len(intact) // 2)
        with pytest.raises(ParameterError, match=rf"{path.name}': is damaged or not a checkpoint"):
            fit("Follow-v0", "second", ckpt_path=last)
        if path == last:
            with pytest.raises(ParameterError, match=r"last.ckpt': is damaged"):
                RRDModule.load_from_checkpoint(path)
        path.write_bytes(intact)


def test_a_bit_in_the_data_is_found_wherever_it_is() -> None:
    """Each entry of the file has a checksum; around the entries are names and padding."""
    path = Path("a.pt")
    content: dict[str, Any] = {
        "numbers": torch.randn(300),
        "more": {"text": "words", "byte": torch.zeros(77, dtype=torch.uint8)},
    }
    write(content, path)
    assert_same(read(path), content)
    with ZipFile(path) as parts:
        places = [(part.header_offset, part.file_size) for part in parts.infolist()]
    assert sum(size for _, size in places) > 1200 + 77
    generator = random.Random(0)
    intact, messages = path.read_bytes(), []
    for _ in range(200):
        damaged = bytearray(intact)
        damaged[generator.randrange(len(intact))] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        try:
            assert_same(read(path), content)  # what lies between the entries does no harm
        except ParameterError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert all("a.pt': is damaged" in message for message in messages)
