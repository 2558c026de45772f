"""The hold-out split, and each process's share."""

from __future__ import annotations

import pytest

from rrd_lightning.datasets.split import held_out_rows, share_of


def test_split_holds_out_of_each_outcome() -> None:
    outcomes = [True] * 20 + [False] * 10 + [None] * 5
    rows = held_out_rows(outcomes, 0.2, seed=3)
    assert [sum(outcomes[row] is kind for row in rows) for kind in (True, False, None)] == [4, 2, 1]
    assert rows == held_out_rows(outcomes, 0.2, seed=3)
    assert any(rows != held_out_rows(outcomes, 0.2, seed=seed) for seed in range(5))
    for share in (0.01, 0.5, 0.99):  # two of each are enough for both sides
        rows = held_out_rows([True, False, True, False], share, seed=0)
        assert len(rows) == 2
        assert {row % 2 for row in rows} == {0, 1}
    assert held_out_rows([True, False, False], 0.5, seed=0) < {1, 2}
    assert held_out_rows(outcomes, 0, seed=0) == set()
    assert held_out_rows(outcomes, 1, seed=0) == set(range(35))


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_processes_share_without_loss_or_repetition(processes: int) -> None:
    shares = [share_of(range(7), process, processes) for process in range(processes)]
    assert sorted(item for share in shares for item in share) == list(range(7))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
