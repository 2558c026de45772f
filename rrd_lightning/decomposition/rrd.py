"""Randomized return decomposition: a reward model learned from a few steps of each episode.

Ren et al., "Learning Long-Term Reward Redistribution via Randomized Return Decomposition",
ICLR 2022, arXiv 2111.13485.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch
from gymnasium import Space
from tensordict import TensorDictBase
from torch import Tensor

from rrd_lightning import keys
from rrd_lightning.component import Metrics, vector_size
from rrd_lightning.decomposition import rrd_kernels
from rrd_lightning.decomposition.base import Decomposition
from rrd_lightning.decomposition.rrd_kernels import Steps
from rrd_lightning.errors import ParameterError, require_not_negative
from rrd_lightning.networks import MLP, Convolutions, Kernels, ObservationParts, Scratch, Tape

IMAGE_FEATURES = 512
FACTS = (keys.EPISODE_RETURN, keys.EPISODE_LENGTH, keys.WITH_REPLACEMENT)
Scale = Literal["per_step", "episode"]
Gradients: TypeAlias = tuple[Tensor, Tensor, Tensor | None]


def rrd_loss(
    predicted_reward: Tensor,
    episode_return: Tensor,
    episode_length: Tensor,
    *,
    bias_correction: bool = False,
    with_replacement: bool | Tensor = True,
    scale: Scale = "per_step",
) -> Tensor:
    r"""The loss of randomized return decomposition (Ren et al., 2022).

    With :math:`K` predictions :math:`p_{ij}` for steps of an episode of length :math:`T_i` and
    return :math:`R_i`, on the per-step scale

    .. math:: L = \frac{1}{N} \sum_i \Big(\frac{1}{K} \sum_j p_{ij} - \frac{R_i}{T_i}\Big)^2,

    and on the episode scale each term times :math:`T_i^2`. The bias correction (RRD-L(RD))
    subtracts :math:`S_i^2 c_i / K`, the variance that drawing adds to the square:
    :math:`S_i^2` is the unbiased variance of :math:`p_{i1} \dots p_{iK}`, and :math:`c_i` is 1
    for draws with replacement, :math:`1 - K / T_i` without, and 0 for :math:`T_i = 1`. In
    expectation the corrected loss is the least-squares loss over whole episodes.

    Args:
        predicted_reward: ``[N, K]``.
        episode_return: ``[N]``.
        episode_length: ``[N]``, in steps.
        bias_correction: subtract the variance of the draw.
        with_replacement: how the steps were drawn, for all episodes or for each ``[N]``. Draws of
            more steps than the episode has count as made with replacement.
        scale: ``"per_step"`` compares rewards, ``"episode"`` returns.

    Returns:
        The scalar loss. With the correction it may be negative.

    Raises:
        ParameterError: if the correction is asked for with a single step per subsequence, which
            has no variance.
    """
    length = episode_length.to(predicted_reward.dtype)
    sample_size = predicted_reward.shape[-1]
    loss = (predicted_reward.mean(-1) - episode_return / length).square()
    if bias_correction:
        _check_variance(sample_size)
        coefficient = _draw_coefficient(length, sample_size, with_replacement)
        loss = loss - predicted_reward.var(-1) * coefficient / sample_size
    if scale == "episode":
        loss = loss * length.square()
    return loss.mean()


def _check_variance(sample_size: int) -> None:
    if sample_size < 2:
        raise ParameterError("rrd_sample_size", sample_size, "must be at least 2 for the bias correction")


def _draw_coefficient(length: Tensor, sample_size: int, with_replacement: bool | Tensor) -> Tensor:
    """c_i: the share of the variance of independent draws that the draw has, ``[N]``."""
    independent = (length < sample_size) | torch.as_tensor(with_replacement, device=length.device)
    return torch.where(independent, 1.0, 1.0 - sample_size / length) * (length > 1)


class RRD(Decomposition):
    """A reward model r̂(s, a, s') trained by `rrd_loss`.

    The network sees [s, a, s - s']. Images go through convolutions first, as the channels [s, s - s'];
    the action, and what else there is of s and s - s', stand beside what comes out.

    Args:
        observation_space: a vector, an image, or a Dict of these.
        action_space: a vector.
        hidden_sizes: widths of the hidden layers.
        learning_rate: Adam's.
        bias_correction: remove the sampling variance from the loss (RRD-L(RD)).
        scale: of the loss, ``"per_step"`` or ``"episode"``. The latter weighs long episodes more
            and is larger by T²: 10⁶ times at T = 1000.

    Raises:
        ParameterError: if a space is another one, or the scale is unknown.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        hidden_sizes: Sequence[int] = (256, 256),
        learning_rate: float = 3e-4,
        bias_correction: bool = False,
        scale: Scale = "per_step",
    ) -> None:
        super().__init__(observation_space, action_space)
        if scale not in {"per_step", "episode"}:
            raise ParameterError("scale", scale, "must be 'per_step' or 'episode'")
        require_not_negative(learning_rate=learning_rate)
        self._parts = parts = ObservationParts(observation_space, self)
        self.compilable = not parts.channels
        inputs = 2 * parts.vector_size + vector_size(action_space, "action_space", self)
        if parts.channels:
            self.convolutions = Convolutions(2 * parts.channels, parts.image_size, IMAGE_FEATURES)
            inputs += IMAGE_FEATURES
        self.network = MLP([inputs, *hidden_sizes, 1])
        self._tape = Tape(self.network, Scratch())
        self._found = Scratch()
        self.learning_rate = learning_rate
        self.bias_correction = bias_correction
        self.scale: Scale = scale

    def check(self, rrd_sample_size: int) -> None:
        """Make sure that there is a variance to correct for."""
        if self.bias_correction:
            _check_variance(rrd_sample_size)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """One group, ``reward``."""
        return [{"name": "reward", "params": list(self.parameters()), "lr": self.learning_rate}]

    def reward(self, transitions: TensorDictBase) -> Tensor:
        """Predict the reward of each step, for any batch shape."""
        steps = self._steps(transitions)
        if torch.is_grad_enabled():
            reward: Tensor = self.network(steps.inputs()).squeeze(-1)
            return reward
        if kernels := self._kernels_for(steps):
            found = steps.action.new_empty(steps.action.shape[:-1])
            rrd_kernels.evaluate(kernels, self.network, steps, found)
            return found
        inputs = steps.inputs()
        return self._tape.forward(inputs.flatten(0, -2)).reshape(inputs.shape[:-1])

    def learn(self, subsequences: TensorDictBase) -> Metrics:
        """Set the gradient of `rrd_loss`, worked out by hand."""
        steps = self._steps(subsequences)
        self.check(steps.action.shape[-2])
        facts = [subsequences.get(key) for key in FACTS]
        with torch.no_grad():
            kernels = self._kernels_for(steps)
            update = self._compiled_update(kernels, steps, facts) if kernels else self._update(steps, facts)
        predicted, self.network.vector.grad, of_features = update
        if steps.features is not None:
            self.convolutions.zero_grad()
            steps.features.backward(of_features)  # type: ignore[no-untyped-call]
        return lambda: {
            "loss/reward": self._loss(predicted, *facts),
            "reward/predicted_mean": predicted.mean(),
            "reward/predicted_std": predicted.std(),
        }

    def _compiled_update(self, kernels: Kernels, steps: Steps, facts: list[Tensor]) -> Gradients:
        """Work out what `_update` does, in C++."""
        shape = steps.action.shape[:-1]
        predicted = self._found.take("predicted", shape, steps.action)
        of_network = self._found.take("network", self.network.vector.shape, steps.action)
        of_features = None
        if steps.features is not None:
            of_features = self._found.take("features", steps.features.shape, steps.action)
        rrd_kernels.learn(
            kernels,
            self.network,
            steps,
            facts,
            (predicted, of_network, of_features),
            bias_correction=self.bias_correction,
            episode_scale=self.scale == "episode",
        )
        return predicted, of_network, of_features

    def _update(self, steps: Steps, facts: list[Tensor]) -> Gradients:
        """Return the predictions ``[N, K]``, the network's gradient, and, for images, that of the features."""
        inputs = steps.inputs()
        predicted, seen = self._tape.record(inputs.flatten(0, 1))
        predicted = predicted.view(inputs.shape[:-1])
        of_predicted = self._gradient(predicted, *facts).flatten()
        of_features = None
        if steps.features is not None:
            columns = slice(-steps.features.shape[-1], None)
            of_features = self._tape.trace(seen, of_predicted, columns).view_as(steps.features)
        return predicted, self._tape.backward(seen, of_predicted), of_features

    def _loss(
        self, predicted: Tensor, episode_return: Tensor, length: Tensor, with_replacement: Tensor
    ) -> Tensor:
        return rrd_loss(
            predicted,
            episode_return,
            length,
            bias_correction=self.bias_correction,
            with_replacement=with_replacement,
            scale=self.scale,
        )

    def _gradient(
        self, predicted: Tensor, episode_return: Tensor, length: Tensor, with_replacement: Tensor
    ) -> Tensor:
        """The gradient of `rrd_loss` ``[N, K]``: 2 / (N K) (mean - R / T), and the correction's."""
        count, size = predicted.shape
        steps = length.to(predicted.dtype)
        mean = predicted.mean(-1)
        gradient = ((mean - episode_return / steps) * (2 / (count * size)))[:, None].expand(count, size)
        if self.bias_correction:
            share = _draw_coefficient(steps, size, with_replacement) * (2 / (count * size * (size - 1)))
            gradient = gradient - share[:, None] * (predicted - mean[:, None])
        if self.scale == "episode":
            gradient = gradient * steps.square()[:, None]
        return gradient

    def _steps(self, transitions: TensorDictBase) -> Steps:
        """What the network sees: numbers, and images after their convolutions."""
        observation, following = transitions.get(keys.OBSERVATION), transitions.get(keys.NEXT_OBSERVATION)
        features = None
        if self._parts.channels:
            images = self._parts.images(observation)
            change = images - self._parts.images(following)
            features = self.convolutions(torch.cat([images, change], -3))
        action = transitions.get(keys.ACTION)
        return Steps(self._parts.vector(observation), action, self._parts.vector(following), features)

    def _kernels_for(self, steps: Steps) -> Kernels | None:
        """The functions in C++, for steps that they can read."""
        kernels = self._tape.kernels()
        return kernels if kernels and steps.readable(self.network.sizes[0]) else None
