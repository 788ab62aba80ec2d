"""What an older fastcv saved, read with today's names.

Addresses are read by `addresses.current`. Here are the fields that were renamed, and the numbers.
"""

from collections.abc import Mapping
from typing import Any

from fastcv.recipe.addresses import current, is_address

# Parts of the keys of a flat recipe, by the slot they stand below.
FIELDS = {
    "data": {"normalise": "normalize"},
    "model": {"he_initialisation": "he_initialization"},
    "schedule": {"spread": "lr_mult"},
}
NAMES = {"mnist_cnn/regularised": "mnist_cnn/regularized"}  # of recipes
METRICS = {"views_accuracy": "tta_accuracy"}


def current_flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a flat recipe of any fastcv as today's would write it."""
    found = {
        _key(key): current(value) if is_address(value) else value for key, value in values.items()
    }
    if "name" in found:
        found["name"] = NAMES.get(found["name"], found["name"])
    # A variant's name used to say that its number is to be beaten.
    if found.get("reported") and "reported.to_beat" not in found:
        found["reported.to_beat"] = str(found.get("name", "")).endswith("/one_cycle")
    return found


def current_metrics(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return numbers by the names that metrics have today."""
    return {METRICS.get(name, name): value for name, value in values.items()}


def current_changes(changed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changed settings of a saved summary, {key: (ours, theirs)}, by today's names."""
    return {
        _key(key): [current(each) if is_address(each) else each for each in pair]
        for key, pair in changed.items()
    }


def _key(key: str) -> str:
    first, *rest = key.split(".")
    renamed = FIELDS.get(first, {})
    return ".".join([first, *(renamed.get(part, part) for part in rest)])
