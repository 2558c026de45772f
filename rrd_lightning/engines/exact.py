"""Whether an object does what its class defines, so that other code may stand in for it."""

from __future__ import annotations

from torch import nn

from rrd_lightning.private import has_hooks, has_tensor_hooks


def altered(part: nn.Module, kind: type[nn.Module]) -> str | None:
    """Return how an object differs from others of a class, or None if it does not.

    Args:
        part: the object.
        kind: the class itself, no subclass of which will do.
    """
    if type(part) is not kind:
        return f"it serves {kind.__name__} itself, not {type(part).__name__}"
    replaced = [name for name in vars(part) if callable(getattr(kind, name, None))]
    if replaced:
        return f"{kind.__name__}.{replaced[0]} was replaced"
    return f"{kind.__name__} has hooks" if has_hooks(part) else None


def overridden(part: object, kind: type, methods: tuple[str, ...]) -> str | None:
    """Return which of some methods of a class an object has its own of, or None."""
    for method in methods:
        if method in vars(part) or getattr(type(part), method) is not getattr(kind, method):
            return f"{type(part).__name__} has its own {method}"
    return None


def learns(part: nn.Module | nn.Parameter) -> bool:
    """Tell whether all of a part is trained, and nothing listens to its gradients."""
    parameters = [part] if isinstance(part, nn.Parameter) else list(part.parameters())
    return all(each.requires_grad and not has_tensor_hooks(each) for each in parameters)
