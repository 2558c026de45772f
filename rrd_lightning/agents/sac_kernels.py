"""Soft actor-critic in C++."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import Structure, byref, c_float, c_int, c_void_p
from typing import Any, ClassVar

from torch import Tensor

from rrd_lightning.networks import MLP, Kernels
from rrd_lightning.networks.kernels import Network, place


class Bounds(Structure):
    """Of log σ."""

    _fields_: ClassVar[Any] = [("low", c_float), ("high", c_float)]


class _Update(Structure):
    _fields_: ClassVar[Any] = [
        *((name, Network) for name in ("actor", "critic", "target_critic")),
        ("bounds", Bounds),
        *((name, c_float) for name in ("gamma", "target_entropy")),
        ("rows", c_int),
        *((name, c_void_p) for name in ("feature", "following", "action", "reward", "terminated")),
        *((name, c_void_p) for name in ("noise", "next_noise", "log_temperature")),
        *((name, c_void_p) for name in ("of_actor", "of_critic", "of_temperature", "of_features")),
        *((name, c_void_p) for name in ("temperature", "value", "target", "lower_value", "log_prob")),
    ]


def act(
    kernels: Kernels,
    actor: MLP,
    bounds: tuple[float, float],
    features: Tensor,
    noise: Tensor | None,
    action: Tensor,
) -> None:
    """Write the policy's actions.

    Args:
        kernels: the functions.
        actor: the policy's network.
        bounds: of log σ.
        features: ``[rows, features]``, without gaps.
        noise: ε ``[rows, actions]``; None for the policy's mode.
        action: where to write, ``[rows, actions]``.
    """
    places = place(features), place(noise), place(action)
    kernels.library.policy_act(byref(Network.of(actor)), Bounds(*bounds), len(features), *places)


def learn(
    kernels: Kernels,
    networks: Sequence[MLP],
    bounds: tuple[float, float],
    constants: tuple[float, float],
    given: Sequence[Tensor],
    found: Sequence[Tensor | None],
) -> None:
    """Write all gradients, and what the metrics are made of.

    Args:
        kernels: the functions.
        networks: actor, critics, target critics.
        bounds: of log σ.
        constants: γ and the target entropy.
        given: features and following ones ``[batch, features]``, actions ``[batch, actions]``, rewards and
            flags of termination ``[batch]``, the noise of the policy and of what follows ``[batch, actions]``,
            and log α ``[]``.
        found: where to write, as in `Update`; the gradient of the features may be None.
    """
    given = [each.contiguous() for each in given]
    update = _Update(
        *map(Network.of, networks),
        Bounds(*bounds),
        *constants,
        len(given[0]),
        *map(place, given),
        *map(place, found),
    )
    kernels.library.sac_learn(byref(update))
