"""Figures of a reward model, worked out by hand and by scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rrd_lightning.judging import auc, summarize
from tests.judged import make_judged


def test_judgement_of_an_episode_by_hand_and_by_scipy() -> None:
    predicted, true = [0.0, 1.0, 1.0, 4.0], [1.0, 2.0, 4.0, 3.0]
    figures = make_judged(predicted, true, success=True)
    assert figures["return"] == 10
    assert figures["length"] == 4
    assert figures["predicted_return"] == 6
    # Differences -1, -1, -3, 1; from R / T = 2.5: -1.5, -0.5, 1.5, 0.5.
    assert figures["reward_rmse"] == pytest.approx((12 / 4) ** 0.5)
    assert figures["reward_rmse_constant"] == pytest.approx((5 / 4) ** 0.5)
    assert figures["reward_pearson"] == pytest.approx(stats.pearsonr(predicted, true)[0], abs=1e-5)
    assert figures["reward_spearman"] == pytest.approx(stats.spearmanr(predicted, true)[0], abs=1e-5)
    assert figures["reward_kendall"] == pytest.approx(stats.kendalltau(predicted, true)[0], abs=1e-5)
    assert figures["success"] == 1


def test_constants_have_no_correlation() -> None:
    figures = make_judged([1.0, 1.0], [0.0, 2.0])
    assert "reward_pearson" not in figures
    assert "reward_pearson" not in make_judged([0.0, 2.0], [1.0, 1.0])
    assert "reward_pearson" not in summarize([figures])


def test_summary_of_an_evaluation_by_hand() -> None:
    summary = summarize([make_judged([1.0, 3.0], [2.0, 4.0]), make_judged([1.0, 1.0, 0.0], [0.0, 0.0, -1.0])])
    # Returns 6 and -1 over 2 and 3 steps; predicted 4 and 2; the constant is 5 / 5 = 1.
    assert summary["return_mean"] == 2.5
    assert summary["return_std"] == 3.5
    assert (summary["return_min"], summary["return_max"]) == (-1, 6)
    assert summary["length_mean"] == 2.5
    assert summary["return_error"] == pytest.approx((2 + 3) / 2)
    assert summary["return_error_constant"] == pytest.approx((4 + 4) / 2)
    # A perfect order in the first; the second is [1, 1, 0] against [0, 0, -1], perfect as well.
    assert summary["reward_pearson"] == pytest.approx(1, abs=1e-5)
    assert "success" not in summary


def test_progress_is_the_order_of_the_cumulative_prediction_in_successes() -> None:
    assert make_judged([1.0, 2.0, 3.0], [0.0, 0.0, 1.0], success=True)["progress"] == pytest.approx(1, abs=1e-5)
    assert make_judged([-1.0, -2.0, -3.0], [0.0, 0.0, 1.0], success=True)["progress"] == pytest.approx(
        -1, abs=1e-5
    )
    # The cumulative prediction 2, 1, 3: ranks 2, 1, 3 against 1, 2, 3.
    assert make_judged([2.0, -1.0, 2.0], [0.0, 0.0, 1.0], success=True)["progress"] == pytest.approx(
        0.5, abs=1e-5
    )
    assert "progress" not in make_judged([1.0, 2.0], [0.0, 0.0], success=False)


def test_a_reward_of_success_alone_has_no_correlation() -> None:
    assert "reward_pearson" not in make_judged(list(range(20)), [0.0] * 19 + [1.0])
    assert "reward_pearson" in make_judged(list(range(20)), [0.0] * 17 + [1.0, 2.0, 3.0])


def test_successes_against_failures_by_hand() -> None:
    judged = [
        make_judged([0.5, 0.4], [0.0, 1.0], success=True),
        make_judged([0.2, 0.2, 0.2, 0.2], [0.0, 0.0, 0.0, 1.0], success=True),
        make_judged([0.3, 0.2, 0.3, 0.05], [0.0] * 4, success=False),
    ]
    summary = summarize(judged)
    # Sums 0.9 and 0.8 against 0.85; means 0.45 and 0.2 against 0.2125.
    assert summary["success_auc_sum"] == 0.5
    assert summary["success_auc_mean"] == 0.5
    assert summary["success"] == pytest.approx(2 / 3)
    assert "success_auc_sum" not in summarize(judged[:2])


@given(st.lists(st.integers(0, 5), min_size=1), st.lists(st.integers(0, 5), min_size=1))
def test_auc_is_the_mann_whitney_statistic(successes: list[int], failures: list[int]) -> None:
    expected = stats.mannwhitneyu(successes, failures).statistic / (len(successes) * len(failures))
    assert auc(np.array(successes), np.array(failures)) == pytest.approx(expected)
