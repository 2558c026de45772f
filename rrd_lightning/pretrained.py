"""An encoder of observations that has learned before the run, and stays as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box
from torch import Tensor

from rrd_lightning.agents import Agent
from rrd_lightning.checkpoint.format import read_checkpoint
from rrd_lightning.errors import ParameterError
from rrd_lightning.networks import Encoder, Observation, ObservationEncoder, evaluating, make_encoder
from rrd_lightning.spaces import single_precision, space_from_dict, unit_actions

PARAMETER = "model.encoder"


class PretrainedEncoder(ObservationEncoder):
    """Maps observations to the features of an encoder that has learned already, without gradient.

    Args:
        source: a checkpoint, ``*.ckpt``, whose agent's encoder it takes; or the class path of a module of the
            user's, with its arguments if there are any, that loads its own weights. Its constructor takes the
            observation space first, and it maps ``[batch, ...]`` to ``[batch, features]``.
        observation_space: of a single environment, in single precision.

    Attributes:
        features: how many there are.
        space: of the features, ``[features]``.
        configuration: a `source` that makes an encoder like this one, for weights to be loaded into.

    Raises:
        ParameterError: if there is no such file or module, its agent trained no encoder of images, or its
            observations are others.
    """

    def __init__(self, source: str | dict[str, Any], observation_space: Space[Any]) -> None:
        super().__init__()
        self.configuration = source
        if isinstance(source, str) and source.endswith(".ckpt"):
            self.encoder, self.configuration = _of_checkpoint(source, observation_space)
        else:
            self.encoder = _make(source, observation_space)
        self.requires_grad_(False)
        self.features = self.encoder.features
        self.space = Box(-np.inf, np.inf, (self.features,), np.float32)

    @torch.no_grad()
    def forward(self, observation: Observation, *, augment: bool = False) -> Tensor:
        """Map observations ``[...]`` to features ``[..., features]``; images are never varied."""
        with evaluating(self.encoder):
            features: Tensor = self.encoder(observation)
        return features


def _make(source: str | dict[str, Any], observation_space: Space[Any]) -> ObservationEncoder:
    if isinstance(source, dict) and source.keys() == {"bottleneck"}:
        return Encoder(observation_space, PretrainedEncoder, **source)
    return make_encoder(source, observation_space, PretrainedEncoder, 0)


def _of_checkpoint(path: str, observation_space: Space[Any]) -> tuple[ObservationEncoder, str | dict[str, Any]]:
    """Return the encoder of a checkpoint's agent, and the `source` that makes one like it."""
    try:
        checkpoint = read_checkpoint(path)
    except ParameterError as error:
        raise ParameterError(PARAMETER, path, f"cannot be read: {error}") from error
    saved = checkpoint["hyper_parameters"]
    space, _ = single_precision(space_from_dict(saved["observation_space"]))
    if space != observation_space:
        raise ParameterError(PARAMETER, path, f"its run observes {space}, and this one {observation_space}")
    agent = Agent.build(saved["agent"], space, unit_actions(space_from_dict(saved["action_space"]))[0])
    encoders = {
        name: part
        for name, part in agent.named_modules()
        if isinstance(part, ObservationEncoder) and list(part.parameters())
    }
    if not encoders or not saved["train_policy"]:
        raise ParameterError(
            PARAMETER, path, f"its {type(agent).__name__} has not trained an encoder of images"
        )
    name, encoder = next(iter(encoders.items()))
    prefix = f"agent.{name}."
    weights = checkpoint["state_dict"]
    encoder.load_state_dict(
        {key.removeprefix(prefix): weights[key] for key in weights if key.startswith(prefix)}
    )
    own = saved["agent"]["init_args"].get("encoder")
    return encoder, own or {"bottleneck": encoder.bottleneck}
