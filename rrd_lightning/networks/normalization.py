"""Observations with zero mean and unit variance, by what was collected so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from rrd_lightning.errors import ParameterError, require_positive
from rrd_lightning.networks.observations import is_vector

SOLE = "observation"  # the name of a vector that is the whole observation


@dataclass(frozen=True)
class Normalization:
    """How vectors are normalised; the defaults are those of the original code.

    Args:
        smallest_std: what a smaller standard deviation counts as, in the units of the observation, so that what
            hardly varies is not blown up.
        clip: the largest absolute value, in standard deviations.

    Raises:
        ParameterError: if a number is not positive.
    """

    smallest_std: float = 0.01
    clip: float = 5.0

    def __post_init__(self) -> None:
        require_positive(**{f"normalize_observations.{name}": value for name, value in asdict(self).items()})


class RunningMoments(nn.Module):
    """Mean and variance of vectors, to which batches are added (Chan et al., 1979).

    Args:
        size: of the vectors.
        normalization: how they are normalised.

    Attributes:
        count: vectors so far, ``[]``.
        mean: ``[size]``.
        variance: ``[size]``; one before there is anything.
    """

    count: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, size: int, normalization: Normalization) -> None:
        super().__init__()
        self._normalization = normalization
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))

    def forward(self, vector: Tensor) -> Tensor:
        """Normalise ``[..., size]``."""
        std = self.variance.sqrt().clamp_min(self._normalization.smallest_std)
        clip = self._normalization.clip
        return ((vector - self.mean) / std).clamp(-clip, clip)

    @torch.no_grad()
    def add(self, count: float, total: Tensor, squares: Tensor) -> None:
        """Add a batch of vectors.

        Args:
            count: how many.
            total: the sum of their distances from the present mean, ``[size]``, in double precision.
            squares: the sum of the squares of these, ``[size]``.
        """
        seen = float(self.count)
        everything = seen + count
        shift = total / everything
        second_moment = (self.variance.cpu().double() * seen + squares) / everything
        self.mean.copy_(self.mean.cpu().double() + shift)
        self.variance.copy_((second_moment - shift.square()).clamp_min(0))
        self.count += int(count)


class ObservationNormalizer(nn.Module):
    """Normalises the vectors of observations and leaves everything else as it is.

    Args:
        observation_space: of a single environment.
        normalization: how vectors are normalised.

    Attributes:
        normalization: as given.
        moments: of each vector, by its name; a sole vector has the name ``observation``.

    Raises:
        ParameterError: if there is none.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        normalization: Normalization = Normalization(),
    ) -> None:
        super().__init__()
        self.normalization = normalization
        self._nested = isinstance(observation_space, spaces.Dict)
        parts: Any = {SOLE: observation_space}
        if isinstance(observation_space, spaces.Dict):
            parts = observation_space.spaces
        self.moments = nn.ModuleDict(
            {
                key: RunningMoments(part.shape[0], normalization)
                for key, part in parts.items()
                if is_vector(part)
            }
        )
        if not self.moments:
            problem = "must be false: the observations have no vector to normalise"
            raise ParameterError("normalize_observations", True, problem)

    def forward(self, observation: Any) -> Any:
        """Normalise observations ``[...]``."""
        if not self._nested:
            return self.moments[SOLE](observation)
        normalized = observation.copy()
        for key, moments in self._moments():
            normalized[key] = moments(observation[key])
        return normalized

    def sums(self, observations: Iterable[Any]) -> list[float]:
        """Return what `add` needs of observations ``[T, ...]`` each, as numbers that processes can add up."""
        numbers = [0.0] * (1 + 2 * sum(len(moments.mean) for _, moments in self._moments()))
        for observation in observations:
            found: list[float] = []
            for key, moments in self._moments():
                vector = observation[key] if self._nested else observation
                distance = vector.cpu().double() - moments.mean.cpu().double()
                found[:1] = [len(distance)]
                found += distance.sum(0).tolist() + distance.square().sum(0).tolist()
            numbers = [mine + other for mine, other in zip(numbers, found or numbers, strict=True)]
        return numbers

    def add(self, sums: list[float]) -> None:
        """Take account of observations, from the `sums` of all processes added up."""
        count, *numbers = sums
        rest = torch.tensor(numbers, dtype=torch.float64)
        for _, moments in self._moments() if count else ():
            size = len(moments.mean)
            moments.add(count, rest[:size], rest[size : 2 * size])
            rest = rest[2 * size :]

    def _moments(self) -> list[tuple[str, RunningMoments]]:
        return list(self.moments.items())  # type: ignore[arg-type]
