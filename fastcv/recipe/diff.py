"""Which settings differ between two experiments, and whether they are the same experiment.

Experiments are compared as flat recipes, so that a run whose code is gone can be compared too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from fastcv.recipe.addresses import loaded
from fastcv.recipe.flat import flat
from fastcv.recipe.values import Recipe

# Settings that do not decide a result: names, places, and ways to compute the same faster.
_ASIDE = ("name", "seed", "precision", "optimizer.fused", "data.cache", "data.skip_bad")
_ASIDE_FOLDERS = ("reported", "step", "metrics")
_NAMED_SOURCES = "fastcv.data:"


def diff(
    ours: Recipe | Mapping[str, Any], theirs: Recipe | Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ, as {key: (ours, theirs)}; None where one has no such key.

    Either is a `Recipe`, or one as `flat` writes it.

    Seeds, names, places of named data sets and choices that only decide speed do not count, nor
    does a data folder added to a recipe without one. A setting that `theirs`, written by an older
    fastcv, does not have yet counts at its default. Only classes that `ours` names are looked up.
    """
    ours, theirs = (flat(one) if isinstance(one, Recipe) else one for one in (ours, theirs))
    here, there = decisive(ours), decisive(with_defaults(theirs, ours))
    added = {"data.path"} if _without_folder(here) or _without_folder(there) else set()
    return {
        key: (here.get(key), there.get(key))
        for key in dict.fromkeys([*here, *there])
        # A missing key differs from a value of None.
        if key not in added and (key in here, here.get(key)) != (key in there, there.get(key))
    }


def same_experiment(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether two flat recipes are one experiment, maybe under two names and with two seeds."""
    return not diff(ours, theirs)


def decisive(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a flat recipe that decide its result, except the seed.

    A folder of images does; that of a named data set does not: the set is the same everywhere.
    """
    source = str(flat.get("data.source", ""))
    named = source.startswith(_NAMED_SOURCES) and not _is_object(source)
    aside = (*_ASIDE, "data.path") if named else _ASIDE
    return {
        key: value
        for key, value in flat.items()
        if key not in aside and key.partition(".")[0] not in _ASIDE_FOLDERS
    }


def with_defaults(settings: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Add the settings that an older fastcv did not write yet, at their defaults.

    Only classes that `ours`, the flat recipe to compare with, names are looked up.
    """
    added: dict[str, Any] = {}
    for key in ours:
        if key in settings or key in added:
            continue
        owner, _, name = key.rpartition(".")
        made = ours.get(owner, "")
        if owner and (settings.get(owner, added.get(owner)) != made):
            continue
        kind = _class(made) if owner else Recipe
        if kind is not None:
            added |= _default(kind, name, key)
    return {**settings, **added}


def has_settings(
    settings: Mapping[str, Any], ours: Mapping[str, Any], asked: Sequence[str]
) -> bool:
    """Whether a run's flat recipe has what was asked for, including what decides only speed.

    Args:
        settings: the run's flat recipe.
        ours: the flat recipe with what was asked for.
        asked: "key=value", as for `override`. Data folders are left to `diff`.
    """
    keys = {each.partition("=")[0].strip() for each in asked} - {"seed", "data.path"}

    def chosen(values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: value
            for key, value in values.items()
            if any(key == each or key.startswith(f"{each}.") for each in keys)
        }

    return chosen(with_defaults(settings, ours)) == chosen(ours)


def planned_epochs(values: Mapping[str, Any]) -> int:
    """Return the sum of the epochs of all stages of a flat recipe."""
    return sum(
        value
        for key, value in values.items()
        if key.startswith("schedule.")
        and key.endswith(".epochs")
        and ".callbacks." not in key
        and isinstance(value, int)
    )


def described(changes: Mapping[str, Sequence[Any]]) -> list[str]:
    """Describe what `diff` found, a line for each setting: "schedule.0.epochs: 70 → 2".

    A value that was replaced has its settings in parentheses instead of on lines of their own:
    "data.augment.0: None → HorizontalFlip(p=0.5)".
    """
    whole = [key for key, pair in changes.items() if any(map(_is_object, pair))]
    lines = {
        key: f"{key}: {_value(changes, key, 0)} → {_value(changes, key, 1)}"
        for key in changes
        if not any(key.startswith(f"{each}.") for each in whole)
    }
    # A setting that one recipe lacks and the other has empty follows from another line.
    told = [line for key, line in lines.items() if any(map(_says_something, changes[key]))]
    return told or list(lines.values())


def _value(changes: Mapping[str, Sequence[Any]], key: str, side: int) -> str:
    """Return one side of a change in words, with the settings below it that are not None."""
    value = changes[key][side]
    if not isinstance(value, str) or ":" not in value:
        return str(value)
    name = value.partition(":")[2]
    if not _is_object(value):
        return name
    below = {each: pair for each, pair in changes.items() if each.startswith(f"{key}.")}
    objects = [each for each, pair in below.items() if _is_object(pair[side])]
    settings = ", ".join(
        f"{each.removeprefix(f'{key}.')}={_value(changes, each, side)}"
        for each, pair in below.items()
        if pair[side] is not None and not any(each.startswith(f"{one}.") for one in objects)
    )
    return f"{name.removesuffix('()')}({settings})"


def _says_something(value: Any) -> bool:
    return value is not None and value != []


def _is_object(value: Any) -> bool:
    """Whether a value of a flat recipe is the address of a class whose settings lie below it."""
    return isinstance(value, str) and ":" in value and value.endswith("()")


def _without_folder(settings: Mapping[str, Any]) -> bool:
    """Whether the recipe takes a folder of images and names none."""
    return all(settings.get(key, "") is None for key in ("data.path", "data.source.path"))


def _class(made: Any) -> type | None:
    """Return the class at an address like "module:Name()"."""
    return loaded(made) if _is_object(made) else None


def _default(kind: type, name: str, key: str) -> dict[str, Any]:
    """Return the default of a field of a dataclass as a flat recipe has it at `key`, if any."""
    each = next((each for each in fields(kind) if each.name == name), None)
    if each is None:
        return {}
    value = each.default if each.default_factory is MISSING else each.default_factory()
    if value is MISSING:
        return {}
    # Below a single letter, because `flat` reads dots as the ends of parts.
    return {f"{key}{rest[1:]}": leaf for rest, leaf in flat({"_": value}).items()}
