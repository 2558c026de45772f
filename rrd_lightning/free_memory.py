"""How much memory this process may still take: the machine's, a container's, or that of a SLURM job."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil

CGROUP, MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# Limit, use, and the line of memory.stat with what of the use is given back when memory runs short: the
# page cache.
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = ("memory.max", "memory.current", "inactive_file")


def free_memory() -> int:
    """Return the bytes that may still be allocated, by the strictest of all limits."""
    limits = [psutil.virtual_memory().available, *_of_control_groups(CGROUP, MOUNT), *_of_slurm()]
    return max(min(limits), 0)


def _of_control_groups(own: Path, mount: Path) -> Iterator[int]:
    """What the limits of each control group leave that this process is in.

    Args:
        own: the file that lists them.
        mount: where they are mounted.
    """
    if not own.is_file():
        return
    for line in own.read_text().splitlines():
        _, controllers, path = line.split(":", maxsplit=2)
        if not controllers:
            names, top = VERSION_2, mount
        elif "memory" in controllers.split(","):
            names, top = VERSION_1, mount / "memory"
        else:
            continue
        # A container sees its own group at the top, whatever the path says.
        groups = [top, *(top / Path(*parts) for parts in _prefixes(path))]
        for group in groups:
            left = _left(group, *names)
            if left is not None:
                yield left


def _prefixes(path: str) -> Iterator[list[str]]:
    parts = [part for part in path.split("/") if part and part != ".."]
    for count in range(1, len(parts) + 1):
        yield parts[:count]


def _left(group: Path, limit: str, use: str, given_back: str) -> int | None:
    """What a group's limit leaves; None if it has none."""
    try:
        most, used = int((group / limit).read_text()), int((group / use).read_text())
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # not there, or "max"
        return None
    return most - used + int(statistics.get(given_back, 0))


def _of_slurm() -> Iterator[int]:
    """What SLURM was asked for, less what this process and its children use.

    It ends a job that takes more, also where it does not make control groups.
    """
    for memory, times in (
        ("SLURM_MEM_PER_NODE", None),
        ("SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"),
        ("SLURM_MEM_PER_GPU", "SLURM_GPUS_ON_NODE"),
    ):
        megabytes, count = os.environ.get(memory, ""), os.environ.get(times, "") if times else "1"
        # Zero stands for all of the node's memory.
        if megabytes.isdecimal() and count.isdecimal() and int(megabytes):
            yield int(megabytes) * int(count) * 2**20 - _used()


def _used() -> int:
    own = psutil.Process()
    used = 0
    for process in [own, *own.children(recursive=True)]:
        try:
            used += process.memory_info().rss
        except psutil.Error:  # it has ended
            continue
    return used
