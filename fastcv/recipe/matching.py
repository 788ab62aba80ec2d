"""Which experiment a run was: its settings beside those of a recipe."""

import importlib
from collections.abc import Mapping, Sequence
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
    return differences(ours, completed(settings, ours))


def completed(settings: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Add to the settings of an older fastcv's run what it did not have yet, at its default.

    Args:
        settings: of the run's flat recipe.
        ours: the flat recipe that it was a run of; it decides what is imported, the run does not.
    """
    return settings | _younger(settings, ours)


def as_asked(settings: Mapping[str, Any], ours: Mapping[str, Any], asked: Sequence[str]) -> bool:
    """Whether a run had what was asked for, also of what does not decide its result.

    Where the data lies does not count: `changes` knows when it does.

    Args:
        settings: of the run's flat recipe.
        ours: the flat recipe with what was asked for.
        asked: "key=value" as for `override`.
    """
    keys = {each.partition("=")[0].strip() for each in asked} - {"seed", "data.path"}

    def chosen(values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: value
            for key, value in values.items()
            if any(key == each or key.startswith(f"{each}.") for each in keys)
        }

    return chosen(completed(settings, ours)) == chosen(ours)


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
    # Below one key, of which `flat` takes dots for parts.
    return {f"{key}{rest[1:]}": leaf for rest, leaf in flat({"_": value}).items()}
