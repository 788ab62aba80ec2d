"""How a saved run names a class or a function, and which of these a run may have built.

What fastcv exports is written by its room and name, `fastcv.data:Images`, wherever its file lies;
of torchvision's builders and torch's modules the shortest public path is written likewise. A run
directory is data: reading one builds these and nothing else, unless its reader is trusted to.
"""

import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

ROOMS = ("fastcv.data", "fastcv.augment", "fastcv.learning", "fastcv.nets", "fastcv.recipe")
SHORT = ("torch.nn", "torchvision.models")  # where these packages export what lies below
# What an older fastcv called its exports.
RENAMED = {
    "Augmented": "WithAugment",
    "CentreCrop": "CenterCrop",
    "Flip": "HorizontalFlip",
    "Greyscale": "Grayscale",
    "Normalise": "Normalize",
    "Statistics": "Normalize",
    "Views": "TTA",
}
TRUST = "pass --trust (in Python trust=True) if you trust whoever wrote it"


def is_address(value: Any) -> bool:
    """Whether a value of a flat recipe reads "module:name" or, made of parts, "module:name()"."""
    if not isinstance(value, str) or value.count(":") != 1:
        return False
    return all(part.isidentifier() for each in _parts(value) for part in each.split("."))


def _parts(value: str) -> tuple[str, str]:
    module, _, name = value.removesuffix("()").partition(":")
    return module, name


def address(thing: Callable) -> str:
    """Return the shortest public path of a class or function, "module:name".

    Raises:
        ValueError: it has no name in a module, as a lambda.
    """
    name = getattr(thing, "__qualname__", "")
    if not name or "<" in name:
        raise ValueError(
            f"a callable in a recipe must be a named function or class of a module, got {thing!r}"
        )
    exported = public_names().get(name)
    if exported and pkgutil.resolve_name(exported) is thing:
        return exported
    for short in SHORT:
        below = thing.__module__.startswith(f"{short}.")
        if below and getattr(sys.modules.get(short), name, None) is thing:
            return f"{short}:{name}"
    return f"{thing.__module__}:{name}"


def current(value: str) -> str:
    """Return today's address of what an older fastcv wrote; other addresses stay as they are.

    Names are unique over all rooms, so that the name alone says what is meant.
    """
    module, name = _parts(value)
    called = "()" if value.endswith("()") else ""
    for short in SHORT:
        if module.startswith(f"{short}."):
            return f"{short}:{name}{called}"
    if module.partition(".")[0] != "fastcv":
        return value
    exported = public_names().get(RENAMED.get(name, name))
    return f"{exported}{called}" if exported else value


def resolve(value: str, *, trust: bool = False) -> Any:
    """Return what an address names.

    Args:
        value: "module:name"; "()" behind it is left out.
        trust: whether any module may be imported; else only what fastcv exports, model builders of
            torchvision and timm, and modules of torch.nn are found, and nothing else is imported.

    Raises:
        ValueError: there is no such thing, or it is none of these.
    """
    module, name = _parts(current(value))
    found = _public(module, name)
    if found is None and trust:
        try:
            found = pkgutil.resolve_name(f"{module}:{name}")
        except (ImportError, AttributeError) as error:
            raise ValueError(f"{value!r} must name something importable: {error}") from error
    if found is None:
        raise ValueError(
            f"a run may only name what fastcv exports, model builders of torchvision and timm, and "
            f"modules of torch.nn, got {value!r}: {TRUST}"
        )
    return found


def is_public(value: str) -> bool:
    """Whether an address names what a run may have built without being trusted."""
    try:
        return bool(resolve(value))
    except ValueError:
        return False


def loaded(value: str) -> Any:
    """Return what an address names if that needs no import of anybody's code; else None."""
    module, name = _parts(current(value))
    return getattr(sys.modules.get(module), name, None) or _public(module, name)


@cache
def public_names() -> dict[str, str]:
    """Return the addresses of all that fastcv exports: `{"SGD": "fastcv.learning:SGD"}`."""
    return {
        name: f"{room}:{name}" for room in ROOMS for name in importlib.import_module(room).__all__
    }


def _public(module: str, name: str) -> Any:
    """Return what a current address names if a run may build it; else None."""
    if module in ROOMS:
        exported = importlib.import_module(module)
        found = getattr(exported, name) if name in exported.__all__ else None
        # Its functions build recipes: called by a slot, `unflat(trust=True)` would undo all this.
        return found if module != "fastcv.recipe" or isinstance(found, type) else None
    if module == "torch.nn":
        from torch import nn

        found = getattr(nn, name, None)
        return found if isinstance(found, type) and issubclass(found, nn.Module) else None
    if module == "torchvision.models":
        from torchvision.models import get_model_builder, list_models

        return get_model_builder(name) if name in list_models() else None
    if module.startswith("timm.models"):
        try:
            import timm
        except ImportError as error:
            raise ValueError(
                f"a run of timm's {name!r} needs timm: pip install 'timm>=1,<2' ({error})"
            ) from error
        return timm.model_entrypoint(name) if timm.is_model(name) else None
    return None


def modules(values: Iterable[Any]) -> set[str]:
    """Return the modules that addresses among some values name."""
    return {value.partition(":")[0] for value in values if is_address(value)}
