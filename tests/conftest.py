"""Fixtures. Small environments are registered by `tests.environments`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import tests.environments  # noqa: F401 - registers the environments
from rrd_lightning.envs.libero_installation import ASSETS_VARIABLE
from tests.envs.libero_tasks import ASSETS


@pytest.fixture
def libero_assets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let LIBERO find its assets."""
    monkeypatch.setenv(ASSETS_VARIABLE, str(ASSETS.absolute()))


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs write into the working directory: give each test its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    torch.set_float32_matmul_precision("highest")
