"""What agents and decompositions have in common: a configuration, metrics, and groups of parameters."""

from __future__ import annotations

import inspect
import math
from typing import Any, ClassVar, Self

from torch import nn

from rrd_lightning.errors import ParameterError
from rrd_lightning.networks import find_class


class Component(nn.Module):
    """A module that remembers how it was configured, so that a checkpoint can build it again.

    Its constructor takes the observation space, the action space, and keyword arguments that are
    plain numbers, strings, and lists and dictionaries of these. A class among them is remembered by its path.

    Attributes:
        metrics: what it logs: a description of each metric by its name, as docs/metrics.md has it.
    """

    init_args: dict[str, Any]
    metrics: ClassVar[dict[str, str]] = {}

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: D102 - documented by the class
        component = super().__new__(cls)
        if not (args or kwargs):
            return component  # a copy, whose attributes come from the original
        bound = inspect.signature(cls.__init__).bind(component, *args, **kwargs)
        bound.apply_defaults()
        # Without self, the observation space and the action space, which the module keeps.
        init_args = dict(list(bound.arguments.items())[3:])
        for parameter in inspect.signature(cls.__init__).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                init_args.update(init_args.pop(parameter.name))
        init_args = {name: plain(name, value) for name, value in init_args.items()}
        object.__setattr__(component, "init_args", init_args)
        return component

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The optimizer's groups: ``name``, ``params``, ``lr`` and any other option of Adam."""
        return []

    def loss_names(self) -> list[str]:
        """The names of its losses: those of its parameter groups, unless a subclass has more."""
        return [group["name"] for group in self.parameter_groups()]

    def configuration(self) -> dict[str, Any]:
        """The class path and arguments from which `build` makes a component like this one."""
        return {"class_path": _class_path(type(self)), "init_args": self.init_args}

    def require_importable(self, parameter: str) -> None:
        """Make sure that a checkpoint's class path leads back to this class, before any work.

        Args:
            parameter: that the component was given as; named by the error.

        Raises:
            ParameterError: if it does not, as where the class is defined within a function.
        """
        path = _class_path(type(self))
        try:
            found: Any = find_class(path, type(self))
        except ParameterError:
            found = None
        if found is not type(self):
            problem = "cannot be found again from a checkpoint: define the class at the top level of a module"
            raise ParameterError(parameter, path, problem)

    @classmethod
    def build(cls, configuration: dict[str, Any], observation_space: Any, action_space: Any) -> Self:
        """Make a component from what `configuration` returned.

        Raises:
            ParameterError: if the class path does not name a subclass of this class.
        """
        component_class = find_class(configuration["class_path"], cls)
        return component_class(observation_space, action_space, **configuration["init_args"])


def _class_path(found: type) -> str:
    return f"{found.__module__}.{found.__qualname__}"


def plain(name: str, value: Any) -> Any:
    """Return an argument as a checkpoint can hold it, and be read without unpickling objects."""
    if isinstance(value, list | tuple):
        return [plain(name, item) for item in value]
    if isinstance(value, dict):
        return {key: plain(name, item) for key, item in value.items()}
    if isinstance(value, type) and "<locals>" not in value.__qualname__:
        return _class_path(value)
    if isinstance(value, float) and math.isnan(value):
        raise ParameterError(name, value, "must be a number")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ParameterError(
        name,
        value,
        "must be a number, a string, a list or dictionary of these, or a module's class: checkpoints hold it",
    )
