"""Soft actor-critic in C++."""

from __future__ import annotations

from ctypes import CDLL, Structure, byref, c_float, c_int, c_void_p
from typing import Any, ClassVar, NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor

from rrd_lightning import keys
from rrd_lightning.agents import SAC
from rrd_lightning.agents.squashed_gaussian import LOG_STD_RANGE
from rrd_lightning.engines.cpp.perceptron import (
    Gradient,
    Network,
    Perceptron,
    is_float,
    pointer,
    unsupported,
    widths,
)
from rrd_lightning.engines.exact import altered, learns
from rrd_lightning.networks import MLP, Encoder

# The only values that it serves of these options.
SERVED = {
    "actor_value": "min",
    "policy_delay": 1,
    "reward_scale": 1.0,
    "normalize_value": False,
    "entropy_in_target": True,
    "cloning_weight": 0.0,
}
METRICS = (
    "loss/critic",
    "loss/actor",
    "loss/temperature",
    "agent/value_mean",
    "agent/entropy",
    "agent/temperature",
)


class _Bounds(Structure):
    _fields_: ClassVar[Any] = [("low", c_float), ("high", c_float)]


class _SoftActorCritic(Structure):
    _fields_: ClassVar[Any] = [
        *((name, Network) for name in ("actor", "critic", "target_critic")),
        ("bounds", _Bounds),
        *((name, c_float) for name in ("gamma", "target_entropy")),
        ("rows", c_int),
        *((name, c_void_p) for name in ("feature", "following", "action", "reward", "terminated")),
        *((name, c_void_p) for name in ("noise", "next_noise", "log_temperature")),
        *((name, Gradient) for name in ("of_actor", "of_critic")),
        *((name, c_void_p) for name in ("of_temperature", "metrics")),
    ]


class Transitions(NamedTuple):
    """Transitions without gaps in memory: features of s and s' ``[batch, features]``, actions, terminations."""

    features: Tensor
    following: Tensor
    action: Tensor
    terminated: Tensor


class SACTwin:
    """What `SAC` does with two critics, for vectors.

    Args:
        agent: one that `unsupported` has no reason against.
        library: the functions.
    """

    def __init__(self, agent: SAC, library: CDLL) -> None:
        self._agent = agent
        self._library = library
        networks = agent.actor, agent.critic, agent.target_critic
        self._actor, self._critic, self._target = (
            Perceptron(network, learns=network is not agent.target_critic)
            for network in networks
            if isinstance(network, MLP)
        )
        self._of_temperature = torch.empty(())
        self._metrics = torch.empty(len(METRICS))

    @staticmethod
    def unsupported(agent: Any) -> str | None:
        """Return why the functions cannot serve an agent, or None if they can."""
        if reason := altered(agent, SAC) or altered(agent.encoder, Encoder):
            return reason
        if list(agent.encoder.parameters()):
            return "it serves vectors, and observations have images"
        if (agent.num_critics, agent.critics_in_target) != (2, 2):
            return f"it serves two critics, not {agent.critics_in_target} of {agent.num_critics}"
        for name, served in SERVED.items():
            if getattr(agent, name) != served:
                return f"it serves {name} {served}, not {getattr(agent, name)}"
        if agent.log_temperature.dtype != torch.float32:
            return "the temperature is not of float32"
        networks = {"the actor": agent.actor, "a critic": agent.critic, "a target critic": agent.target_critic}
        for name, network in networks.items():
            if reason := unsupported(network, name):
                return reason
        actor, critic, target = map(widths, networks.values())
        shapes = [
            [each.shape for each in network.parameters()] for network in (agent.critic, agent.target_critic)
        ]
        inputs = agent.encoder.features
        if actor != (inputs, 2 * agent.actions, None) or critic != (inputs + agent.actions, 1, 2):
            return f"it serves two critics and an actor of the usual widths, not {critic} and {actor}"
        if critic != target or shapes[0] != shapes[1]:
            return "the target critics have another shape than the critics"
        trained = learns(agent.actor) and learns(agent.critic) and learns(agent.log_temperature)
        return None if trained else "part of the agent is not trained"

    def read(self, transitions: TensorDictBase) -> Transitions | None:
        """Return what the functions see of transitions, or None if they cannot read it."""
        action, terminated = transitions.get(keys.ACTION), transitions.get(keys.TERMINATED)
        features, following = (
            self._agent.encoder(transitions.get(key)) for key in (keys.OBSERVATION, keys.NEXT_OBSERVATION)
        )
        rows = len(features)
        readable = (
            is_float(features, following, action)
            and terminated.dtype == torch.bool
            and features.shape == following.shape == (rows, self._actor.inputs)
            and action.shape == (rows, self._agent.actions)
            and terminated.shape == (rows,)
        )
        return (
            Transitions(*map(Tensor.contiguous, (features, following, action, terminated)))
            if readable
            else None
        )

    def gradients(self, transitions: Transitions, reward: Tensor) -> dict[str, Tensor]:
        """Work out the gradients of all losses, and return the metrics."""
        agent, (features, following, action, terminated) = self._agent, transitions
        next_noise, noise = torch.randn_like(action), torch.randn_like(action)
        given = features, following, action, reward.float().contiguous(), terminated, noise, next_noise
        agent.log_temperature.grad = self._of_temperature
        self._actor.give_gradients()
        self._critic.give_gradients()
        update = _SoftActorCritic(
            *(each.locate() for each in (self._actor, self._critic, self._target)),
            _Bounds(*LOG_STD_RANGE),
            agent.gamma,
            agent.target_entropy,
            len(action),
            *map(Tensor.data_ptr, (*given, agent.log_temperature)),
            self._actor.gradient,
            self._critic.gradient,
            self._of_temperature.data_ptr(),
            self._metrics.data_ptr(),
        )
        self._library.sac_gradient(byref(update))
        return dict(zip(METRICS, self._metrics.clone().unbind(), strict=True))

    @torch.no_grad()
    def act(self, observation: Tensor, *, explore: bool) -> Tensor:
        """Choose actions ``[num_envs, actions]``."""
        features = self._agent.encoder(observation)
        rows = features.reshape(-1, features.shape[-1]).contiguous()
        if not (is_float(rows) and rows.shape[1] == self._actor.inputs):
            return self._agent.act(observation, explore=explore)
        noise = torch.randn(len(rows), self._agent.actions) if explore else None
        action = torch.empty(len(rows), self._agent.actions)
        pointers = (c_void_p(pointer(each)) for each in (rows, noise, action))
        network = self._actor.locate()
        self._library.policy_act(byref(network), _Bounds(*LOG_STD_RANGE), len(rows), *pointers)
        return action.view(*features.shape[:-1], -1)
