"""Read what an older fastcv saved, by today's names.

Renamed addresses are in `addresses.current`; here are the renamed fields, recipes and numbers.
"""

from collections.abc import Mapping
from typing import Any

from fastcv.recipe.addresses import current, is_address

# Parts of the keys of a flat recipe, by the slot that they are below.
FIELDS = {
    "data": {"normalise": "normalize"},
    "model": {"he_initialisation": "he_initialization"},
    "schedule": {"spread": "lr_mult"},
}
NAMES = {  # of recipes
    "mnist_cnn/regularised": "mnist_cnn/regularized",
    "transfer_efficientnet/one_cycle_256": "transfer_efficientnet/one_cycle",
}
METRICS = {"views_accuracy": "tta_accuracy"}

# Stages that were written without `callbacks`.
_STAGES = tuple(
    f"fastcv.learning:{name}()" for name in ("Constant", "Cosine", "Linear", "OneCycle", "Plateau")
)


def current_flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a flat recipe of any fastcv as today's would write it."""
    found = {
        _key(key): current(value) if is_address(value) else value for key, value in values.items()
    }
    if "name" in found:
        found["name"] = NAMES.get(found["name"], found["name"])
    _add_callbacks(found)
    # The name of a variant once decided whether its number is to be beaten.
    if found.get("reported") and "reported.to_beat" not in found:
        found["reported.to_beat"] = str(found.get("name", "")).endswith("/one_cycle")
    return found


def current_metrics(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return numbers by the names of today's metrics."""
    return {METRICS.get(name, name): value for name, value in values.items()}


def current_changes(changed: Mapping[str, Any]) -> dict[str, Any]:
    """Return a saved summary's changed settings, {key: (ours, theirs)}, by today's names."""
    return {
        _key(key): [current(each) if is_address(each) else each for each in pair]
        for key, pair in changed.items()
    }


def _add_callbacks(values: dict[str, Any]) -> None:
    """Add what older flat recipes lack: a stage's `first_epochs` and `views` became callbacks."""
    for stage in [key for key, value in values.items() if value in _STAGES]:
        after = values.pop(f"{stage}.first_epochs", None)
        views = _popped(values, f"{stage}.views")
        callbacks = []
        if after is not None:
            callbacks.append({"": "fastcv.learning:FreezeFirst()", ".after": after})
        if views.get("") is not None:
            callbacks.append(views)
        parts = {
            f".{number}{part}": value
            for number, each in enumerate(callbacks)
            for part, value in each.items()
        }
        _add_slot(values, f"{stage}.callbacks", parts)
    if "schedule.0" in values:  # a whole recipe
        for slot in ("callbacks", "metrics"):
            _add_slot(values, slot, {})


def _add_slot(values: dict[str, Any], slot: str, parts: Mapping[str, Any]) -> None:
    if not any(key == slot or key.startswith(f"{slot}.") for key in values):
        values |= {f"{slot}{part}": value for part, value in (parts or {"": []}).items()}


def _popped(values: dict[str, Any], key: str) -> dict[str, Any]:
    """Take a key and all keys below it out of a flat recipe; return them without that prefix."""
    below = [each for each in values if each == key or each.startswith(f"{key}.")]
    return {each.removeprefix(key): values.pop(each) for each in below}


def _key(key: str) -> str:
    first, *rest = key.split(".")
    renamed = FIELDS.get(first, {})
    return ".".join([first, *(renamed.get(part, part) for part in rest)])
