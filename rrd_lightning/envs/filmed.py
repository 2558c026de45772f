"""Pictures of an episode, by the environment's own renderer."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import Env, Wrapper

HEIGHT = 256  # in pixels; pictures of twice as many rows or more are thinned out

Picture = np.ndarray[Any, Any]


class Filmed(Wrapper[Any, Any, Any, Any]):
    """Takes a picture of what each reset and step lead to.

    Args:
        env: an environment whose `render` returns pictures.

    Attributes:
        rolling: whether to take pictures.
        film: those of the last episode that ended with a reset, ``[T + 1, height, width, 3]`` in uint8; None if
            none were taken.
    """

    def __init__(self, env: Env[Any, Any]) -> None:
        super().__init__(env)
        self.rolling = True
        self.film: Picture | None = None
        self._pictures: list[Picture] = []

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Start an episode, and put away the film of the one before."""
        found = super().reset(**options)
        self.film = np.stack(self._pictures) if self._pictures else None
        self._pictures = []
        self._take()
        return found

    def step(self, action: Any) -> Any:
        """Take a step and a picture."""
        found = super().step(action)
        self._take()
        return found

    def _take(self) -> None:
        if self.rolling:
            picture: Any = self.render()
            every = max(len(picture) // HEIGHT, 1)
            self._pictures.append(picture[::every, ::every, :3].copy())
