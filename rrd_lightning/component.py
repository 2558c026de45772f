"""What agents and decompositions have in common: a configuration, and groups of parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Self, TypeAlias

import numpy as np
from gymnasium import Space, spaces
from torch import Tensor, nn

from rrd_lightning.class_path import find_class
from rrd_lightning.errors import ParameterError

# Works out the detached scalars to log, which most updates do not; called before the next update.
Metrics: TypeAlias = Callable[[], dict[str, Tensor]]


class Component(nn.Module):
    """A module that remembers how it was configured, so that a checkpoint can build it again.

    Its constructor takes the observation space, the action space, and keyword arguments that are
    plain numbers, strings, and lists of these.

    Attributes:
        compilable: whether `torch.compile` can make one graph of how it learns, which it cannot of what
            calls autograd.
    """

    init_args: dict[str, Any]
    compilable = False

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
        init_args = {name: _plain(name, value) for name, value in init_args.items()}
        object.__setattr__(component, "init_args", init_args)
        return component

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The optimizer's groups: ``name``, ``params``, ``lr`` and any other option of Adam."""
        return []

    def differentiate(self, loss: Tensor, metrics: dict[str, Tensor]) -> Metrics:
        """Let autograd set the gradient of each parameter."""
        for parameter in self.parameters():
            parameter.grad = None
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        return lambda: metrics

    def configuration(self) -> dict[str, Any]:
        """The class path and arguments from which `build` makes a component like this one."""
        return {
            "class_path": f"{type(self).__module__}.{type(self).__qualname__}",
            "init_args": self.init_args,
        }

    @classmethod
    def build(cls, configuration: dict[str, Any], observation_space: Any, action_space: Any) -> Self:
        """Make a component from what `configuration` returned.

        Raises:
            ParameterError: if the class path does not name a subclass of this class.
        """
        component_class = cls.find(configuration["class_path"])
        return component_class(observation_space, action_space, **configuration["init_args"])

    @classmethod
    def find(cls, class_path: str) -> type[Self]:
        """Return the class that a class path names.

        Raises:
            ParameterError: if it is no subclass of this class.
        """
        return find_class(class_path, cls)


def vector_size(space: Space[Any], name: str, component: Component) -> int:
    """Return the size of a space of vectors.

    Raises:
        ParameterError: if it is another space, with the name of the component that cannot serve it.
    """
    floating = isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)
    if not (isinstance(space, spaces.Box) and floating and len(space.shape) == 1):
        kind = type(component).__name__
        problem = "serves continuous vectors, a Box of one dimension and floating numbers"
        raise ParameterError(name, space, f"{kind} {problem}")
    return space.shape[0]


def _plain(name: str, value: Any) -> Any:
    """Check that a checkpoint can hold an argument and be read without unpickling objects."""
    if isinstance(value, list | tuple):
        return [_plain(name, item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ParameterError(name, value, "must be a number, a string, or a list of these: checkpoints hold it")
