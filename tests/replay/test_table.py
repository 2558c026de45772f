"""The table of the stored episodes, and the statistics that batches carry."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rrd_lightning import keys
from rrd_lightning.replay import EpisodeTable
from tests.episodes import make_episode, make_replay


def append(table: EpisodeTable, episode_return: float, length: int = 1) -> None:
    table.append(start=0, length=length, episode_return=episode_return, terminated=False, success=-1)


@given(st.lists(st.none() | st.floats(-1e6, 1e6, width=32), max_size=60))
def test_statistics_after_any_appends_and_removals(changes: list[float | None]) -> None:
    """None removes the oldest."""
    table, returns = EpisodeTable(), []
    for change in changes:
        if change is not None:
            append(table, change)
            returns.append(change)
        elif returns:
            table.pop_oldest()
            returns.pop(0)
        if returns:
            found = {name: each.item() for name, each in table.statistics().items()}
            assert found == {
                keys.RETURN_MIN: min(returns),
                keys.RETURN_MAX: max(returns),
                # All have one step.
                keys.MEAN_REWARD_MIN: min(returns),
                keys.MEAN_REWARD_MAX: max(returns),
                keys.NUM_EPISODES: len(returns),
                keys.NUM_SUCCESSES: 0,
                keys.NUM_FAILURES: 0,
            }


def test_statistics_are_computed_once_per_change() -> None:
    table = EpisodeTable()
    append(table, 1.0)
    first = table.statistics()
    assert table.statistics() is first
    append(table, 2.0)
    assert table.statistics() is not first
    assert first[keys.RETURN_MAX] == 1  # what a batch holds already stays as it was


def test_columns_grow_and_move() -> None:
    table = EpisodeTable()
    for number in range(5000):
        append(table, number, length=1 + number % 3)
        if number >= 10:
            table.pop_oldest()
    assert table["episode_return"].tolist() == list(range(4990, 5000))
    assert table.transitions == sum(1 + number % 3 for number in range(4990, 5000))
    assert table["begin"][0] == table.removed_transitions == sum(1 + number % 3 for number in range(4990))
    assert table.appended == 5000


@pytest.mark.parametrize("draws", ["steps", "episodes", "nothing"])
def test_batches_carry_the_statistics_of_the_moment_they_are_drawn(draws: str) -> None:
    """Returns 10 i + 30 of episodes of 30 steps, of which three fit."""
    replay = make_replay(100)
    replay.sampler.draws = draws
    for identity in range(5):
        replay.add_episode(make_episode(identity, 30))
        oldest = max(identity - 2, 0)
        for batch in [replay.sample(), *replay.sample_several(2)]:
            statistics = batch[keys.STATISTICS]
            assert statistics.batch_size == ()
            assert statistics[keys.RETURN_MIN] == 10 * oldest + 30
            assert statistics[keys.RETURN_MAX] == 10 * identity + 30
            assert statistics[keys.MEAN_REWARD_MIN] == torch.tensor(10 * oldest + 30) / 30
            assert statistics[keys.MEAN_REWARD_MAX] == torch.tensor(10 * identity + 30) / 30
            assert statistics[keys.NUM_EPISODES] == identity - oldest + 1
            assert [each.dtype for each in statistics.values()] == [*4 * [torch.float32], *3 * [torch.int64]]
