"""Whether the policy exploits the reward model: success and predicted reward of what is collected."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_warn
from tensordict import TensorDict

from rrd_lightning import keys
from rrd_lightning.distributed import summed
from rrd_lightning.errors import require_positive

TAIL = 10  # steps
FALL = 0.3  # of the success rate; less may be chance in 20 episodes
WARNING_INTERVAL = 5  # times the episodes


class Monitor(Callback):
    """Logs success and predicted rewards Σ r̂ of the episodes collected last, and warns of exploitation.

    A policy exploits a reward model if it finds what is rewarded and is no success: Σ r̂ rises while the
    success rate falls to half of the largest so far, and Σ r̂ is larger than it was then. The
    predictions are those of the moment at which an episode ends. Nothing is logged where success is unknown.

    Args:
        episodes: how many episodes are the last, over all processes.

    Attributes:
        curve: environment steps, success rate and mean Σ r̂ at each logging.
        warned: environment steps of the warnings.

    Raises:
        ParameterError: if the number is not positive.
    """

    def __init__(self, episodes: int = 20) -> None:
        require_positive(episodes=episodes)
        self.episodes = episodes
        self.curve: list[list[float]] = []
        self.warned: list[int] = []
        self._recent: deque[list[float]] = deque()  # success, Σ r̂ and mean r̂ of the last steps
        self._count = 0
        self._latest: dict[str, float] = {}
        self._quiet_until = 0.0
        self._best: list[float] | None = None  # success rate and mean Σ r̂

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Share the episodes out among the processes."""
        self._recent = deque(self._recent, maxlen=-(-self.episodes // trainer.world_size))

    def on_episodes(self, trainer: Any, pl_module: Any, episodes: Sequence[TensorDict]) -> None:
        """Predict the rewards of new episodes, once the reward model has learned something."""
        if not trainer.global_step:
            return
        for episode in episodes:
            if keys.SUCCESS in episode:
                predicted = pl_module.episode_rewards(episode.to(pl_module.device))
                tail = float(predicted[-TAIL:].mean())
                self._recent.append([float(episode[keys.SUCCESS]), float(predicted.sum()), tail])
                self._count += 1

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the figures, and warn if they say so."""
        if not pl_module.logs_now() or not pl_module.env_steps:
            return
        rows = list(self._recent)
        failures = [row for row in rows if not row[0]]
        of_successes = sum(row[1] for row in rows if row[0])
        sums = [len(rows), len(rows) - len(failures), of_successes, self._count]
        sums += [sum(row[1] for row in failures), sum(row[2] for row in failures)]
        count, succeeded, of_successes, finished, of_failures, tails = summed(trainer, sums)
        if not count:
            return
        rate, mean = succeeded / count, (of_successes + of_failures) / count
        metrics = {"monitor/success": rate, "monitor/predicted_return": mean}
        if succeeded:
            metrics["monitor/predicted_return_success"] = of_successes / succeeded
        if failed := count - succeeded:
            metrics["monitor/predicted_return_failure"] = of_failures / failed
            metrics["monitor/failure_tail"] = tails / failed
        # A metric without new data keeps its value, as Lightning's do within an epoch.
        self._latest |= metrics
        pl_module.log_dict({**self._latest, "step": pl_module.clock()})
        self.curve.append([pl_module.env_steps, rate, mean])
        if count >= self.episodes:
            self._compare(rate, mean, finished, pl_module.env_steps)

    def _compare(self, rate: float, mean: float, finished: float, env_steps: int) -> None:
        if self._best is None or rate >= self._best[0]:
            self._best = [rate, mean]
        best_rate, mean_then = self._best
        fell = rate <= best_rate / 2 and rate <= best_rate - FALL
        if not fell or mean <= mean_then or finished < self._quiet_until:
            return
        self._quiet_until = finished + WARNING_INTERVAL * self.episodes
        self.warned.append(env_steps)
        rank_zero_warn(
            f"THE REWARD MODEL IS BEING EXPLOITED: after {env_steps} environment steps the success rate "
            f"of the last {self.episodes} episodes is {rate:.2f}, it was {best_rate:.2f}, while their "
            f"predicted return rose from {mean_then:.3g} to {mean:.3g}. Let the reward model learn from what "
            "is collected, and see docs/phases.md"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the curve, the warnings, and what later episodes are compared with."""
        return {
            "curve": self.curve,
            "warned": self.warned,
            "quiet_until": self._quiet_until,
            "best": self._best,
            "latest": self._latest,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        self.curve, self.warned = state_dict["curve"], state_dict["warned"]
        self._quiet_until, self._best = state_dict["quiet_until"], state_dict["best"]
        self._latest = state_dict["latest"]

    def process_state_dict(self) -> dict[str, Any]:
        """Return the figures of this process's last episodes."""
        return {"recent": list(self._recent), "count": self._count}

    def load_process_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the figures."""
        self._recent, self._count = deque(state_dict["recent"]), state_dict["count"]
