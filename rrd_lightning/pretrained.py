"""An encoder of observations that has learned before the run, and stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box
from torch import Tensor, nn

from rrd_lightning.agents import Agent
from rrd_lightning.checkpoint.format import read_checkpoint
from rrd_lightning.component import plain
from rrd_lightning.errors import ParameterError
from rrd_lightning.networks import CustomEncoder, Encoder, Observation, ObservationEncoder, evaluating
from rrd_lightning.spaces import single_precision, space_from_dict, unit_actions

PARAMETER = "model.encoder"


class PretrainedEncoder(ObservationEncoder):
    """Maps observations to the features of an encoder that has learned already, without gradient.

    Args:
        source: a checkpoint, ``*.ckpt``: the encoder of its agent, or the one that stood before it. Or the
            class path of a module of the user's, with its arguments if there are any, that loads its own
            weights. Its constructor takes the observation space first, and it maps ``[batch, ...]`` to
            ``[batch, features]``.
        observation_space: of a single environment, in single precision.

    Attributes:
        features: how many there are.
        space: of the features, ``[features]``.
        configuration: a `source` that makes an encoder like this one, for weights to be loaded into.

    Raises:
        ParameterError: if there is no such file or module, its agent trained no encoder of images, or its
            observations are others.
    """

    def __init__(
        self, source: str | Path | dict[str, Any] | type[nn.Module], observation_space: Space[Any]
    ) -> None:
        super().__init__()
        self.configuration = plain(PARAMETER, str(source) if isinstance(source, Path) else source)
        if str(self.configuration).endswith(".ckpt"):
            self.encoder, self.configuration = _of_checkpoint(self.configuration, observation_space)
        else:
            self.encoder = _make(self.configuration, observation_space)
        self.requires_grad_(False)
        self.features = self.encoder.features
        self.space = Box(-np.inf, np.inf, (self.features,), np.float32)

    @torch.no_grad()
    def forward(self, observation: Observation, *, augment: bool = False) -> Tensor:
        """Map observations ``[...]`` to features ``[..., features]``; images are never varied."""
        with evaluating(self.encoder):
            features: Tensor = self.encoder(observation)
        return features


def _make(configuration: Any, observation_space: Space[Any]) -> Encoder | CustomEncoder:
    if not (isinstance(configuration, dict) and configuration.keys() == {"bottleneck"}):
        return CustomEncoder(configuration, observation_space, PARAMETER)
    encoder = Encoder(observation_space, PARAMETER, **configuration)
    for parameter in encoder.parameters():  # no features at all, rather than random ones, if none are loaded
        torch.nn.init.constant_(parameter, torch.nan)
    return encoder


def _of_checkpoint(path: str, observation_space: Space[Any]) -> tuple[Encoder | CustomEncoder, Any]:
    """Return a checkpoint's encoder, and the `source` that makes one like it."""
    try:
        checkpoint = read_checkpoint(path)
    except ParameterError as error:
        raise ParameterError(PARAMETER, path, f"cannot be read: {error}") from error
    saved = checkpoint["hyper_parameters"]
    space, _ = single_precision(space_from_dict(saved["observation_space"]))
    if space != observation_space:
        raise ParameterError(PARAMETER, path, f"its run observes {space}, and this one {observation_space}")
    encoder: Encoder | CustomEncoder
    if configuration := saved.get("encoder"):
        name, encoder = "encoder.encoder", _make(configuration, space)
    else:
        name, encoder, configuration = _of_agent(saved, space, path)
    weights = checkpoint["state_dict"]
    encoder.load_state_dict(
        {key.removeprefix(f"{name}."): weights[key] for key in weights if key.startswith(f"{name}.")}
    )
    return encoder, configuration


def _of_agent(
    saved: dict[str, Any], space: Space[Any], path: str
) -> tuple[str, Encoder | CustomEncoder, dict[str, Any]]:
    """Return the encoder that an agent trains: its name, itself without its weights, and its `source`."""
    agent = Agent.build(saved["agent"], space, unit_actions(space_from_dict(saved["action_space"]))[0])
    encoders = [
        (name, part)
        for name, part in agent.named_modules(prefix="agent")
        if isinstance(part, Encoder | CustomEncoder) and "target" not in name and list(part.parameters())
    ]
    kind = type(agent).__name__
    if len(encoders) != 1 or not saved["train_policy"]:
        raise ParameterError(PARAMETER, path, f"its {kind} has not trained an encoder of images")
    ((name, encoder),) = encoders
    if isinstance(encoder, Encoder):
        return name, encoder, {"bottleneck": encoder.bottleneck}
    if saved["normalize_observations"]:
        problem = f"the encoder of its {kind} is of normalised observations, which come after model.encoder"
        raise ParameterError(PARAMETER, path, problem)
    return name, encoder, saved["agent"]["init_args"]["encoder"]
