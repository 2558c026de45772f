"""The limits of containers and of SLURM."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from rrd_lightning import free_memory as module
from rrd_lightning.free_memory import free_memory
from tests.runs import run

GB = 10**9


def control_group(folder: Path, limit: int | str, used: int, cache: int, version: int) -> None:
    names = module.VERSION_1 if version == 1 else module.VERSION_2
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cache}\nother 7\n")


@pytest.fixture
def mount(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with no limit but those that a test sets."""
    for name in ("PER_NODE", "PER_CPU", "PER_GPU"):
        monkeypatch.delenv(f"SLURM_MEM_{name}", raising=False)
    monkeypatch.setattr(module, "CGROUP", Path("cgroup"))
    monkeypatch.setattr(module, "MOUNT", Path("mount"))
    Path("mount").mkdir()
    return Path("mount")


def test_without_limits(mount: Path) -> None:
    assert free_memory() == pytest.approx(psutil.virtual_memory().available, rel=0.2)


@pytest.mark.parametrize(
    ("cgroup", "groups", "version"),
    [
        # A container of version 2, with a namespace of its own.
        ("0::/\n", {"": (GB, 4 * 10**8, 10**8)}, 2),
        # A job of SLURM or systemd: the parent's limit counts.
        (
            "0::/slurm/job_7/step_0\n",
            {"slurm/job_7": (GB, 4 * 10**8, 10**8), "slurm/job_7/step_0": ("max", 1, 0)},
            2,
        ),
        # Version 1, and a container whose path is that of the host.
        ("5:cpu,cpuacct:/job\n3:memory:/job\n", {"memory/job": (GB, 4 * 10**8, 10**8)}, 1),
        ("3:memory:/docker/0123\n", {"memory": (GB, 4 * 10**8, 10**8)}, 1),
        # Version 1 writes a number near 2⁶³ where there is no limit.
        ("3:memory:/a\n", {"memory": (2**63 - 4096, 5, 0), "memory/a": (GB, 4 * 10**8, 10**8)}, 1),
    ],
)
def test_control_groups(
    cgroup: str, groups: dict[str, tuple[int | str, int, int]], version: int, mount: Path
) -> None:
    Path("cgroup").write_text(cgroup)
    for path, (limit, used, cache) in groups.items():
        control_group(mount / path, limit, used, cache, version)
    assert free_memory() == GB - 4 * 10**8 + 10**8


def test_a_group_beyond_its_limit(mount: Path) -> None:
    Path("cgroup").write_text("0::/\n")
    control_group(mount, 100, 200, 0, version=2)
    assert free_memory() == 0


@pytest.mark.parametrize(
    "variables",
    [
        {"MEM_PER_NODE": "1000"},
        {"MEM_PER_CPU": "250", "CPUS_ON_NODE": "4"},
        {"MEM_PER_GPU": "500", "GPUS_ON_NODE": "2"},
    ],
)
def test_what_slurm_was_asked_for(
    variables: dict[str, str], mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setattr(module, "_used", lambda: 2**20)
    assert free_memory() == 999 * 2**20
    monkeypatch.undo()
    assert module._used() > 2**20


def test_all_memory_of_a_node(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "0")
    assert free_memory() > 2**20


def test_a_replay_beyond_the_limit_of_a_container_is_kept_on_disk(mount: Path) -> None:
    Path("cgroup").write_text("0::/\n")
    control_group(mount, 25_199, 0, 0, version=2)
    _, _, data = run(collect={"total_env_steps": 120})  # of 25,200 bytes
    assert data.replay.storage[:].is_memmap()
