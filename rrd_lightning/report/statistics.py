"""What runs over several seeds say together."""

from __future__ import annotations

import warnings
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from rrd_lightning.judging import auc
from rrd_lightning.report.methods import LOWER_BOUND, UPPER_BOUND, Method
from rrd_lightning.report.runs import Run

Array = np.ndarray[Any, Any]
RESAMPLES = 2000


@dataclass(frozen=True)
class Curve:
    """A metric over the environment steps that all runs of a method have reached.

    Args:
        steps: ``[step]``.
        mean: ``[step]``, over the runs.
        low: ``[step]``, of the 95 % bootstrap interval of the mean; the mean itself for a single run.
        high: likewise.
    """

    steps: Array
    mean: Array
    low: Array
    high: Array


def curve(runs: tuple[Run, ...], metric: str) -> Curve | None:
    """Return the curve of a metric; None if some run never logged it."""
    lines = [run.evaluations[metric].dropna() for run in runs if metric in run.evaluations]
    if len(lines) < len(runs) or any(line.empty for line in lines):
        return None
    first, last = max(line.index[0] for line in lines), min(line.index[-1] for line in lines)
    steps = np.unique(np.concatenate([line.index.to_numpy(float) for line in lines]))
    steps = steps[(steps >= first) & (steps <= last)]
    if not len(steps):
        return None
    values = np.stack([np.interp(steps, line.index.to_numpy(float), line.to_numpy(float)) for line in lines])
    low, high = interval(np.mean, values)
    return Curve(steps, values.mean(0), low, high)


def interval(statistic: Any, *samples: Array) -> tuple[Any, Any]:
    """Return the 95 % bootstrap interval (percentiles) of a statistic of samples ``[run, ...]``.

    It is NaN where a sample has a single run; of the mean of a single run, the run itself.
    """
    if all(len(sample) == 1 for sample in samples):
        value = statistic(*samples, axis=0)
        return value, value
    if any(len(sample) == 1 for sample in samples):
        return np.nan, np.nan
    with warnings.catch_warnings():
        # That some resamples have no such statistic is said by NaN.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            samples, statistic, axis=0, n_resamples=RESAMPLES, method="percentile", vectorized=True, rng=0
        )
    return found.confidence_interval.low, found.confidence_interval.high


def horizon(methods: list[Method]) -> int:
    """Return the environment steps at which the methods of a task are compared.

    As far as the shortest of the runs that have ended; of all runs, if none has.
    """
    runs = [run for method in methods for run in method.runs]
    ended = [run for run in runs if run.env_steps >= run.budget]
    return min(run.env_steps for run in ended or runs)


def at(method: Method, metric: str, env_steps: int) -> Array:
    """Return a metric at the last evaluation up to some steps, ``[run]``, of the runs that go as far."""
    reached = [run for run in method.runs if run.env_steps >= env_steps and metric in run.evaluations]
    lines = [run.evaluations[metric].loc[:env_steps].dropna() for run in reached]
    return np.array([line.iloc[-1] for line in lines if len(line)])


def best(method: Method, env_steps: int) -> Array:
    """Return the largest mean return of an evaluation up to some steps, ``[run]``."""
    reached = [run for run in method.runs if run.env_steps >= env_steps]
    return np.array([run.evaluations["return_mean"].loc[:env_steps].max() for run in reached])


def interquartile_mean(values: Array, axis: int = 0) -> Any:
    """Return the mean without the lowest and the highest quarter; of less than four values, of all."""
    return stats.trim_mean(values, 0.25, axis=axis)


def share(values: Array, upper: Array, lower: Array, axis: int = -1) -> Any:
    """Return the share of the way from the lower bound to the upper: (mean − lower) / (upper − lower).

    It is NaN where the upper bound is not above the lower one.
    """
    low = lower.mean(axis)
    way = upper.mean(axis) - low
    return np.where(way > 0, (values.mean(axis) - low) / np.where(way > 0, way, 1), np.nan)


def finals_of_bounds(method: Method, methods: list[Method], env_steps: int) -> tuple[Array, Array] | None:
    """Return the returns of a method's upper and lower bound, ``[run]`` each, if it has both."""
    upper, lower = (method.bound(name, methods) for name in (UPPER_BOUND, LOWER_BOUND))
    if upper is None or lower is None:
        return None
    finals = at(upper, "return_mean", env_steps), at(lower, "return_mean", env_steps)
    return finals if all(map(len, finals)) else None


def table(methods: list[Method]) -> tuple[pd.DataFrame, list[str]]:
    """Summarise the methods of one task, best first.

    Returns:
        A row for each method, and which runs it leaves out since they are shorter.
    """
    env_steps = horizon(methods)
    rows = [_row(method, methods, env_steps) for method in methods]
    shorter = [
        f"{run.name}: at {run.env_steps:,} of {run.budget:,} env steps, not in the table yet"
        for method in methods
        for run in method.runs
        if run.env_steps < env_steps
    ]
    found = pd.DataFrame([row for row in rows if row["seeds"]])
    return found.sort_values("final", ascending=False, ignore_index=True), shorter


def _row(method: Method, methods: list[Method], env_steps: int) -> dict[str, Any]:
    final, reached = at(method, "return_mean", env_steps), best(method, env_steps)
    row: dict[str, Any] = {"task": method.task, "method": method.name, "seeds": len(final)}
    if not len(final):
        return row
    low, high = interval(np.mean, final)
    row |= {"env_steps": env_steps, "final": final.mean(), "final_low": low, "final_high": high}
    row |= {"iqm": interquartile_mean(final), "best": reached.mean()}
    row |= {"share": np.nan, "share_low": np.nan, "share_high": np.nan}
    if bounds := finals_of_bounds(method, methods, env_steps):
        row["share"] = float(share(final, *bounds))
        if not method.is_bound:
            row["share_low"], row["share_high"] = interval(share, final, *bounds)
    correlation = np.array([]) if method.is_bound else at(method, "reward_pearson", env_steps)
    row["reward_pearson"] = correlation.mean() if len(correlation) else np.nan
    row["minutes"] = float(np.mean([run.seconds for run in method.runs])) / 60
    row["commits"] = " ".join(dict.fromkeys(commit for run in method.runs for commit in run.commits))
    return row


def probabilities(methods: list[Method]) -> pd.DataFrame:
    """Return the probability that a run of the row's method ends better than one of the column's.

    Over all pairs of runs, ties counted half, at the steps of the table. It is NaN for a single pair, which
    says who ended better and nothing of a probability.
    """
    env_steps = horizon(methods)
    finals = {method.name: at(method, "return_mean", env_steps) for method in methods}
    finals = {name: values for name, values in finals.items() if len(values)}
    ordered = sorted(finals, key=lambda name: -finals[name].mean())

    def probability(one: str, other: str) -> float:
        alone = one == other or len(finals[one]) == len(finals[other]) == 1
        return np.nan if alone else auc(finals[one], finals[other])

    rows = [[probability(one, other) for other in ordered] for one in ordered]
    return pd.DataFrame(rows, index=ordered, columns=ordered)


def overall(tasks: dict[str, list[Method]]) -> pd.DataFrame:
    """Summarise each method over all tasks on which it has a share of the upper bound, best first.

    The interquartile mean of the shares of all its runs, where the bounds are taken as they are; its interval
    resamples the runs of each task.
    """
    shares: dict[str, list[Array]] = defaultdict(list)
    for methods in tasks.values():
        env_steps = horizon(methods)
        for method in methods:
            final, bounds = at(method, "return_mean", env_steps), finals_of_bounds(method, methods, env_steps)
            if len(final) and bounds and not method.is_bound:
                found = share(final[:, None], *(bound[:, None].mean(0, keepdims=True) for bound in bounds))
                if np.isfinite(found).all():
                    shares[method.name].append(found)
    rows = []
    for name, samples in shares.items():
        runs = np.concatenate(samples)
        low, high = interval(_interquartile_mean_of_all, *samples)
        row = {"method": name, "tasks": len(samples), "runs": len(runs), "share": interquartile_mean(runs)}
        rows.append({**row, "share_low": low, "share_high": high})
    return (
        pd.DataFrame(rows).sort_values("share", ascending=False, ignore_index=True) if rows else pd.DataFrame()
    )


def _interquartile_mean_of_all(*samples: Array, axis: int = -1) -> Any:
    return interquartile_mean(np.concatenate(samples, axis), axis)
