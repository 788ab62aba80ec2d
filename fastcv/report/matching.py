"""Which experiment a run was: its settings beside those of a recipe."""

import importlib
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from fastcv.recipe.flat import flat
from fastcv.recipe.identity import differences
from fastcv.recipe.values import Recipe


def changes(settings: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """List what a run had otherwise than a recipe of ours, by key: (ours, the run's).

    A setting that fastcv did not have yet when the run was made counts at its default.

    Args:
        settings: of the run's flat recipe.
        ours: the flat recipe to hold it against; it decides what is imported, the run does not.
    """
    return differences(ours, settings | _younger(settings, ours))


def planned_epochs(values: Mapping[str, Any]) -> int:
    """Sum the epochs of all stages of a flat recipe."""
    return sum(
        value
        for key, value in values.items()
        if key.startswith("schedule.") and key.endswith(".epochs") and isinstance(value, int)
    )


def _younger(settings: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of fields that ours has and the run, made by an older fastcv, has not."""
    added: dict[str, Any] = {}
    for key in ours:
        if key in settings or key in added:
            continue
        owner, _, name = key.rpartition(".")
        made = ours.get(owner, "")
        if owner and (settings | added).get(owner) != made:
            continue
        each = _field(made, name) if owner else _own_field(Recipe, name)
        if each is not None:
            added |= _default(each, key)
    return added


def _field(made: Any, name: str) -> Field | None:
    """The field of the class at an address like "module:Name()"."""
    if not (isinstance(made, str) and made.endswith("()")):
        return None
    module, _, qualified = made.removesuffix("()").partition(":")
    owner: Any = importlib.import_module(module)
    for part in qualified.split("."):
        owner = getattr(owner, part)
    return _own_field(owner, name)


def _own_field(owner: type, name: str) -> Field | None:
    return next((each for each in fields(owner) if each.name == name), None)


def _default(each: Field, key: str) -> dict[str, Any]:
    value = each.default if each.default_factory is MISSING else each.default_factory()
    if value is MISSING:
        return {}
    return flat({key: value})
