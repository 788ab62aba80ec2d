"""A recipe as one level of JSON, back again, and with single values replaced."""

import ast
import difflib
import importlib
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from fastcv.recipe.values import Recipe


def flat(recipe: Recipe) -> dict[str, Any]:
    """Write a recipe as one level of JSON: `{"schedule.0.epochs": 25, ...}`.

    A function or class stands as "module:name", a value made of parts as "module:name()" with the
    parts below its key.

    Raises:
        ValueError: a value could not be built again from this.
    """
    return dict(_leaves(recipe, ""))


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    prefix = f"{key}." if key else ""
    if is_dataclass(value) and not isinstance(value, type):
        if key:
            yield key, f"{_address(type(value))}()"
        for each in fields(value):
            yield from _leaves(getattr(value, each.name), f"{prefix}{each.name}")
    elif isinstance(value, tuple | list) and not _is_plain(value):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{prefix}{index}")
    elif isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{prefix}{_part(name, key)}")
    elif isinstance(value, tuple | list):
        yield key, _as_lists(value)
    elif isinstance(value, Mapping):
        yield key, {}
    elif isinstance(value, Path | str):
        text = str(value)
        if _is_address(text):  # `unflat` would import it
            raise ValueError(
                f"text in a recipe must not read like the address of a callable, got {text!r} at "
                f"{key!r}: write it otherwise, as with a space"
            )
        yield key, text
    elif callable(value):
        yield key, _address(value)
    elif _is_plain(value):
        yield key, value
    else:
        raise ValueError(
            f"every value in a recipe must be plain data, a dataclass or a named callable, "
            f"got {type(value).__name__} at {key!r}"
        )


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


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(item) for item in value) if isinstance(value, tuple | list) else value


def _address(thing: Callable) -> str:
    name = getattr(thing, "__qualname__", "")
    if not name or "<" in name:
        raise ValueError(
            f"a callable in a recipe must be a named function or class of a module, got {thing!r}"
        )
    return f"{thing.__module__}:{name}"


def _is_address(value: Any) -> bool:
    if not isinstance(value, str) or value.count(":") != 1:
        return False
    module, _, name = value.removesuffix("()").partition(":")
    return all(part.isidentifier() for part in (*module.split("."), *name.split(".")))


def _at_address(address: str) -> Any:
    module, _, name = address.removesuffix("()").partition(":")
    try:
        thing = importlib.import_module(module)
        for part in name.split("."):
            thing = getattr(thing, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{address!r} must name something importable: {error}") from error
    return thing


def unflat(values: Mapping[str, Any]) -> Recipe:
    """Build the recipe that `flat` wrote: `unflat(flat(recipe)) == recipe`."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        node = tree
        for part in key.split("."):
            node = node.setdefault(part, {})
        node[""] = value  # the empty name holds what stands at the key itself
    return Recipe(**{name: _grow(node) for name, node in tree.items()})


def _grow(node: dict[str, Any]) -> Any:
    below = {name: _grow(child) for name, child in node.items() if name}
    here = node.get("")
    if _is_address(here):
        return _at_address(here)(**below) if here.endswith("()") else _at_address(here)
    if not below:
        return _as_tuples(here)
    if all(name.isdigit() for name in below):
        return tuple(below[str(index)] for index in range(len(below)))
    return below


def override(recipe: Recipe, *settings: str) -> Recipe:
    """Change values by their flat keys: `override(recipe, "schedule.0.epochs=5")`.

    A value is read by the type it replaces, or by another one that the field's annotation allows.

    Raises:
        ValueError: no such key, or a value of another type.
    """
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"a setting must read key=value, got {setting!r}")
        recipe = _replaced(recipe, key.strip().split("."), text.strip(), key.strip(), recipe)
    return recipe


def _replaced(value: Any, path: list[str], text: str, key: str, recipe: Recipe) -> Any:
    part, rest = path[0], path[1:]
    children = _children(value)
    if part not in children:
        keys = list(flat(recipe))
        nearest = difflib.get_close_matches(key, keys, n=1, cutoff=0)
        raise ValueError(f"no setting is called {key!r}. Did you mean {nearest[0]!r}?")
    old = children[part]
    new = _replaced(old, rest, text, key, recipe) if rest else _read(text, old, value, part, key)
    if is_dataclass(value):
        return replace(value, **{part: new})
    if isinstance(value, Mapping):
        return {**value, part: new}
    return tuple(new if name == part else item for name, item in children.items())


def _children(value: Any) -> dict[str, Any]:
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple | list):
        return {str(index): item for index, item in enumerate(value)}
    return {}


def _read(text: str, old: Any, owner: Any, part: str, key: str) -> Any:
    """Read `text` as the type of `old`, or as one that the annotation of `owner.part` allows."""
    if _is_address(text):
        named = _at_address(text)
        try:
            return named() if text.endswith("()") else named
        except TypeError as error:
            raise ValueError(f"{key} must be a value that needs no settings, {error}") from error
    try:
        literal = {"true": True, "false": False, "none": None}.get(text.lower())
        new = ast.literal_eval(text) if literal is None and text.lower() != "none" else literal
    except (ValueError, SyntaxError):
        new = text
    allowed = _allowed_types(owner, part) | {type(old)}
    new = _as_tuples(new)
    if type(new) in allowed:
        return new
    if isinstance(new, int) and not isinstance(new, bool) and float in allowed:
        return float(new)
    if str in allowed:
        return text
    names = " or ".join(sorted(each.__name__ for each in allowed - {types.NoneType}))
    raise ValueError(f"{key} must be {names}, got {text!r}")


def _allowed_types(owner: Any, part: str) -> set[type]:
    if not is_dataclass(owner):
        return set()
    hint = typing.get_type_hints(type(owner)).get(part)
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    origins = {typing.get_origin(option) or option for option in options}
    return {each for each in origins if isinstance(each, type)} - {Callable}


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)
