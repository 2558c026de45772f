"""A seed of its own for each episode."""

from __future__ import annotations

from typing import Any

from gymnasium import Wrapper


class SeededEpisodes(Wrapper[Any, Any, Any, Any]):
    """Starts each episode from a new seed, which the generator of the environment draws.

    An environment may keep another generator to itself, as Atari's has one for sticky actions. From the
    episode's seed that one starts again as well, so that a resumed run can repeat the episode.
    """

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode from a seed, or from one that is drawn."""
        if seed is None:
            seed = int(self.unwrapped.np_random.integers(2**31))
        started: tuple[Any, dict[str, Any]] = self.env.reset(seed=seed, options=options)
        return started
