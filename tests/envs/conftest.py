"""Fixtures of environments."""

from __future__ import annotations

import pytest

from rrd_lightning.envs.libero_installation import ASSETS_VARIABLE
from tests.envs.libero_tasks import ASSETS


@pytest.fixture
def libero_assets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let LIBERO find its assets."""
    monkeypatch.setenv(ASSETS_VARIABLE, str(ASSETS.absolute()))
