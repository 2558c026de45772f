"""Networks from their configuration: the package's own, or a user's by class path."""

from __future__ import annotations

from importlib import import_module
from typing import Any, TypeAlias, TypeVar

import torch
from torch import nn

from rrd_lightning.errors import ParameterError
from rrd_lightning.networks.ensemble import Ensemble
from rrd_lightning.networks.mlp import MLP

# A class path, with its arguments if there are any: {"class_path": ..., "init_args": {...}}; from Python
# the class itself, too.
NetworkConfig: TypeAlias = str | dict[str, Any] | type[nn.Module]
Class = TypeVar("Class")


def find_class(class_path: str, kind: type[Class], parameter: str = "class_path") -> type[Class]:
    """Import the class that a path such as ``my_package.networks.MyCritic`` names.

    Args:
        class_path: module and class, separated by dots.
        kind: what the class must be a subclass of.
        parameter: named by the error.

    Raises:
        ParameterError: if the path does not name such a class.
    """
    module, _, name = class_path.rpartition(".")
    found, cause = None, ""
    try:
        found = getattr(import_module(module), name)
    except Exception as error:  # a user's module may raise anything
        cause = f" ({error})"
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise ParameterError(parameter, class_path, f"must name a subclass of {kind.__qualname__}{cause}")
    return found


def make_network(
    config: NetworkConfig | None, inputs: int, outputs: int, parameter: str, **options: Any
) -> nn.Module:
    """Make a network that maps ``[..., inputs]`` to ``[..., outputs]``.

    Args:
        config: of a user's module, whose constructor takes `inputs` and `outputs` before its own arguments;
            an `MLP` by default.
        inputs: width of the input.
        outputs: width of the output.
        parameter: that the configuration was given as; named by errors.
        options: of the `MLP`.

    Raises:
        ParameterError: if the configuration names no module, or one that does not map so.
    """
    if config is None:
        return MLP(inputs, outputs, **options)
    network = make_module(config, parameter, inputs, outputs)
    _require_shape(network, torch.zeros(2, inputs), (2, outputs), parameter, config)
    return network


def make_ensemble(
    config: NetworkConfig | None, members: int, inputs: int, outputs: int, parameter: str, **options: Any
) -> nn.Module:
    """Make independent networks that map ``[..., inputs]`` to ``[members, ..., outputs]`` together.

    Args:
        config: as for `make_network`.
        members: how many.
        inputs: width of the input.
        outputs: width of the output.
        parameter: that the configuration was given as; named by errors.
        options: of the `MLP`.

    Raises:
        ParameterError: as `make_network` does.
    """
    if config is None:
        return MLP(inputs, outputs, members=members, **options)
    return Ensemble(make_network(config, inputs, outputs, parameter) for _ in range(members))


def make_module(config: NetworkConfig, parameter: str, *sizes: Any) -> nn.Module:
    """Make a user's module.

    Args:
        config: which module, and its own arguments.
        parameter: that the configuration was given as; named by errors.
        sizes: what its constructor takes before its own arguments.

    Raises:
        ParameterError: if there is no such module, or it cannot be made.
    """
    found: Any = config
    arguments: Any = {}
    if isinstance(config, dict) and {"class_path"} <= config.keys() <= {"class_path", "init_args"}:
        found, arguments = config["class_path"], config.get("init_args") or {}
    if isinstance(found, str):
        found = find_class(found, nn.Module, parameter)
    if not (isinstance(found, type) and issubclass(found, nn.Module) and isinstance(arguments, dict)):
        problem = "must be the class path of a torch.nn.Module, or have class_path and init_args"
        raise ParameterError(parameter, config, problem)
    try:
        return found(*sizes, **arguments)
    except ParameterError:
        raise
    except Exception as error:  # a user's constructor may raise anything
        raise ParameterError(parameter, config, f"cannot be made: {error}") from error


def _require_shape(
    network: nn.Module, inputs: torch.Tensor, shape: tuple[int, ...], parameter: str, config: NetworkConfig
) -> None:
    outputs = evaluate(network, inputs, parameter, config)
    found = tuple(getattr(outputs, "shape", ()))
    if found != shape:
        raise ParameterError(
            parameter, config, f"must map {list(inputs.shape)} to {list(shape)}, and maps it to {list(found)}"
        )


def evaluate(network: nn.Module, inputs: Any, parameter: str, config: NetworkConfig) -> Any:
    """Evaluate a module that may be anything, as it is in evaluation."""
    training = network.training
    try:
        with torch.no_grad():
            return network.eval()(inputs)
    except Exception as error:
        raise ParameterError(parameter, config, f"cannot be evaluated: {error}") from error
    finally:
        network.train(training)
