"""A recipe as one level of JSON, and back again."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from fastcv.recipe.addresses import address, is_address, resolve
from fastcv.recipe.aliases import current_flat
from fastcv.recipe.bounds import shown
from fastcv.recipe.values import Partial, Recipe, Reported, Step


def flat(recipe: Recipe) -> dict[str, Any]:
    """Write a recipe as one level of JSON: `{"schedule.0.epochs": 25, ...}`.

    A function or class is written as "module:name", by its shortest public path; a value made of
    parts, as a dataclass or a `functools.partial`, as "module:name()" with its parts below its key.

    Raises:
        ValueError: a value could not be built again from this.
    """
    return dict(_leaves(recipe, ""))


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    prefix = f"{key}." if key else ""
    if is_dataclass(value) and not isinstance(value, type):
        if key:
            yield key, f"{address(type(value))}()"
        for each in fields(value):
            yield from _leaves(getattr(value, each.name), f"{prefix}{each.name}")
    elif isinstance(value, partial):
        yield key, f"{address(value.func)}()"
        for name, item in _keywords(value).items():
            yield from _leaves(item, f"{prefix}{_part(name, key)}")
    elif isinstance(value, tuple | list):
        if _is_plain(value):
            yield key, _as_lists(value)
            return
        for index, item in enumerate(value):
            yield from _leaves(item, f"{prefix}{index}")
    elif isinstance(value, Mapping):
        if not value:
            yield key, {}
        for name, item in value.items():
            yield from _leaves(item, f"{prefix}{_part(name, key)}")
    elif isinstance(value, Path | str):
        text = str(value)
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"text in a recipe must be UTF-8, got {shown(text)} at {key!r}: rename it"
            ) from error
        if is_address(text):  # `unflat` would import it
            raise ValueError(
                f"text in a recipe must not read like the address of a callable, got {text!r} at "
                f"{key!r}: write it otherwise, as with a space"
            )
        yield key, text
    elif callable(value):
        yield key, address(value)
    elif _is_plain(value):
        yield key, value
    else:
        frame = ": write it to a CSV file and name that" if hasattr(value, "to_csv") else ""
        raise ValueError(
            f"every value in a recipe must be plain data, a dataclass or a named callable, "
            f"got {type(value).__name__} at {key!r}{frame}"
        )


def _keywords(value: partial) -> dict[str, Any]:
    """The arguments of a partial call, all by name."""
    if not value.args:
        return value.keywords
    bound = signature(value.func).bind_partial(*value.args)
    return {**bound.arguments, **value.keywords}


def _part(name: Any, key: str) -> str:
    """A mapping's key as a part of a flat one."""
    if not isinstance(name, str) or not name or "." in name or name.isdigit():
        raise ValueError(
            f"the keys of a mapping in a recipe must be words without a dot, got {name!r} in "
            f"{key!r}: write it as a tuple, or as a dataclass"
        )
    return name


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, tuple | list) else value


def as_tuples(value: Any) -> Any:
    """Convert lists to tuples, at every depth."""
    return tuple(as_tuples(item) for item in value) if isinstance(value, tuple | list) else value


def unflat(values: Mapping[str, Any], *, trust: bool = False) -> Recipe:
    """Build the recipe that `flat` wrote, in any version: `unflat(flat(recipe)) == recipe`.

    `trust` is that of `addresses.resolve`.

    Raises:
        ValueError: it names something else, or something that is not there.
    """
    tree: dict[str, Any] = {}
    for key, value in current_flat(values).items():
        node = tree
        for part in key.split("."):
            if not part:
                raise ValueError(f"the keys of a flat recipe must be words and dots, got {key!r}")
            node = node.setdefault(part, {})
        node[""] = value  # the empty name holds what stands at the key itself
    return _recipe({name: _grow(node, trust) for name, node in tree.items()})


def _recipe(slots: dict[str, Any]) -> Recipe:
    """Make a recipe of what stands in its slots, which anybody may have written."""
    try:
        recipe = Recipe(**slots)
    except TypeError as error:  # slots of another version, or values of another type
        raise ValueError(f"a flat recipe must have other settings: {error}") from error
    stages = recipe.schedule if isinstance(recipe.schedule, tuple) else (recipe.schedule,)
    for value in (recipe.data, recipe.model, recipe.optimizer, recipe.loss, *stages):
        if isinstance(value, str | int | float | tuple | dict | None):
            raise ValueError(f"the parts of a recipe must be classes or functions, got {value!r}")
    for value, kind in ((recipe.step, Step), (recipe.reported, Reported | None)):
        if not isinstance(value, kind):
            raise ValueError(f"step and reported of a recipe must be made of parts, got {value!r}")
    return recipe


def _grow(node: dict[str, Any], trust: bool) -> Any:
    below = {name: _grow(child, trust) for name, child in node.items() if name}
    here = node.get("")
    if is_address(here):
        found = resolve(here, trust=trust)
        return _built(found, here, below) if here.endswith("()") else found
    if not below:
        return as_tuples(here)
    if not all(name.isdigit() for name in below):
        return below
    indices = [str(index) for index in range(len(below))]
    if set(indices) != set(below):
        raise ValueError(f"a flat recipe must count items from 0, got {', '.join(below)}")
    return tuple(below[index] for index in indices)


def _built(what: Any, address: str, settings: dict[str, Any]) -> Any:
    """Build the value "module:name()" with its settings: a dataclass, or else a `Partial`."""
    try:
        # An exported value of a dataclass is called later, as a function is.
        made = isinstance(what, type) and is_dataclass(what)
        return what(**settings) if made else Partial(what, **settings)
    except TypeError as error:  # settings of another version
        raise ValueError(f"{address} must have other settings: {error}") from error
