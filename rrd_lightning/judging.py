"""Evaluation of a reward model on finished episodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchmetrics.functional import kendall_rank_corrcoef, pearson_corrcoef, spearman_corrcoef

from rrd_lightning import keys

# Figures of one episode; those that do not apply are left out.
FIGURES = (
    "return",
    "length",
    "success",
    "predicted_return",
    "reward_rmse",
    "reward_rmse_constant",
    "reward_pearson",
    "reward_spearman",
    "reward_kendall",
    "progress",
)
# A true reward that is zero in this fraction of steps or more is sparse: it indicates success.
SPARSE = 0.9


def judge(episode: TensorDictBase, predicted: Tensor) -> dict[str, float]:
    """Compare the predicted rewards ``[T]`` of an episode with its return and its true rewards.

    Correlations with the true reward are left out if it is constant or sparse, or if the prediction is
    constant. ``progress``, Spearman's correlation of the cumulative prediction with time, is left out
    unless the episode is a success.
    """
    true = episode.get(keys.REWARD)
    episode_return, length = float(episode.get(keys.EPISODE_RETURN)), len(true)
    constant = torch.full_like(true, episode_return / length)
    figures = {
        "return": episode_return,
        "length": float(length),
        "predicted_return": float(predicted.sum()),
        "reward_rmse": _rmse(predicted, true),
        "reward_rmse_constant": _rmse(constant, true),
    }
    if keys.SUCCESS in episode:
        figures["success"] = float(episode.get(keys.SUCCESS))
        if figures["success"] and length > 1:
            time = torch.arange(length, dtype=torch.float32, device=predicted.device)
            figures["progress"] = float(spearman_corrcoef(predicted.cumsum(0), time))
    if is_dense(true) and predicted.min() < predicted.max() and true.min() < true.max():
        figures["reward_pearson"] = float(pearson_corrcoef(predicted.double(), true.double()))
        figures["reward_spearman"] = float(spearman_corrcoef(predicted, true))
        figures["reward_kendall"] = float(kendall_rank_corrcoef(predicted, true))  # type: ignore[arg-type]
    return figures


def is_dense(true: Tensor) -> bool:
    """Tell whether true rewards ``[T]`` differ between steps, rather than indicating success alone."""
    return bool((true == 0).float().mean() < SPARSE)


def summarize(judged: list[dict[str, float]]) -> dict[str, float]:
    """Aggregate the figures of single episodes."""

    def column(name: str) -> np.ndarray[Any, Any]:
        return np.array([figures[name] for figures in judged if name in figures])

    returns, lengths, predicted = column("return"), column("length"), column("predicted_return")
    # Baseline: the same reward for every step, fitted to all returns.
    constant = returns.sum() / lengths.sum()
    summary = {
        "return_mean": returns.mean(),
        "return_std": returns.std(),
        "return_min": returns.min(),
        "return_max": returns.max(),
        "length_mean": lengths.mean(),
        "return_error": np.abs(predicted - returns).mean(),
        "return_error_constant": np.abs(constant * lengths - returns).mean(),
    }
    averaged = [name for name in FIGURES if name.startswith(("reward_", "progress", "success"))]
    summary.update({name: column(name).mean() for name in averaged if len(column(name))})
    success = column("success")
    if len(success) == len(judged) and 0 < success.sum() < len(judged):
        summary["success_auc_sum"] = auc(predicted[success == 1], predicted[success == 0])
        mean = predicted / lengths
        summary["success_auc_mean"] = auc(mean[success == 1], mean[success == 0])
    return {name: float(value) for name, value in summary.items()}


def auc(successes: np.ndarray[Any, Any], failures: np.ndarray[Any, Any]) -> float:
    """Return the probability that a success scores higher than a failure, counting ties half.

    Args:
        successes: scores ``[S]``.
        failures: scores ``[F]``.
    """
    difference = successes[:, None] - failures
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def _rmse(predicted: Tensor, true: Tensor) -> float:
    return float((predicted - true).square().mean().sqrt())
