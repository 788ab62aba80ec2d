"""Single values of a recipe replaced, as `--set KEY=VALUE` asks."""

import ast
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from fastcv.recipe.addresses import ROOMS, address, is_address, public_names, resolve
from fastcv.recipe.bounds import shown
from fastcv.recipe.flat import as_tuples, flat
from fastcv.recipe.values import Recipe
from fastcv.suggest import did_you_mean

# What Python raises on text that is no literal, too deeply nested, or a set of lists.
_NO_LITERAL = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)
_WORDS = {"true": True, "false": False, "none": None}


def override(recipe: Recipe, *settings: str) -> Recipe:
    """Change values by their flat keys: `override(recipe, "schedule.0.epochs=5")`.

    A value is read by the type that it replaces, or by another one that the field's annotation
    allows. Where a value of fastcv is replaced, a public name is one, with its settings or without:
    `optimizer=SGD`, `model.net=LightResNet`, `data.augment=HorizontalFlip(), RandomCrop()`;
    "module:name" names anything else.

    Raises:
        ValueError: no such key, or a value of another type.
    """
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"a setting must read key=value, got {shown(setting)}")
        recipe = _replaced(recipe, key.strip().split("."), text.strip(), key.strip(), recipe)
    return recipe


def _replaced(value: Any, path: list[str], text: str, key: str, recipe: Recipe) -> Any:
    part, rest = path[0], path[1:]
    children = _children(value)
    if part not in children:
        hint = did_you_mean(key, list(flat(recipe)), cutoff=0)
        raise ValueError(f"no setting is called {shown(key)}.{hint}")
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
    allowed = _allowed_types(owner, part) | {type(old)}
    if is_address(text):
        found = _made(resolve(text, trust=True), text.endswith("()"), {}, key)
        return (found,) if tuple in allowed and not isinstance(found, tuple) else found
    takes_values = callable(old) or Callable in allowed or any(map(is_dataclass, allowed))
    if text.lower() in _WORDS:
        new: Any = _WORDS[text.lower()]
    else:
        try:
            new = as_tuples(ast.literal_eval(text))
        except _NO_LITERAL:
            new = text
            if takes_values or tuple in allowed:
                found = _expression(text, key)
                if found is not None:
                    return (found,) if tuple in allowed and not isinstance(found, tuple) else found
    if type(new) in allowed:
        return new
    if isinstance(new, int) and not isinstance(new, bool) and float in allowed:
        try:
            return float(new)
        except OverflowError as error:
            raise ValueError(f"{key} must be a finite number, got {shown(new)}") from error
    if str in allowed:
        return text
    if takes_values or (tuple in allowed and isinstance(new, str)):
        raise ValueError(f"{key} must be {_choices(old, text)}")
    names = " or ".join(sorted(each.__name__ for each in allowed - {types.NoneType}))
    raise ValueError(f"{key} must be {names}, got {shown(text)}")


def _expression(text: str, key: str) -> Any:
    """Read public names, with their settings or without; None where that is not what it is."""
    try:
        tree = ast.parse(text, mode="eval").body
    except _NO_LITERAL:
        return None
    return _value(tree, key)


def _value(node: ast.expr, key: str) -> Any:
    """The value of an expression of public names, calls with keywords, and plain data."""
    if isinstance(node, ast.Tuple | ast.List):
        items = [_value(each, key) for each in node.elts]
        return None if any(each is None for each in items) else tuple(items)
    if isinstance(node, ast.Name):
        found = _named(node.id)
        is_class = isinstance(found, type) and is_dataclass(found)  # not a value, as HALF_STATS
        return None if found is None else _made(found, is_class, {}, key)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
        found = _named(node.func.id)
        if found is None or any(each.arg is None for each in node.keywords):
            return None
        settings = {each.arg: _setting(each, found, key) for each in node.keywords}
        return _made(found, True, settings, key)
    return None


def _setting(keyword: ast.keyword, owner: Any, key: str) -> Any:
    """The value of a keyword: plain data, an expression of public names, or a word."""
    node = keyword.value
    try:
        return as_tuples(ast.literal_eval(node))
    except _NO_LITERAL:
        pass
    if (found := _value(node, key)) is not None:
        return found
    text, allowed = ast.unparse(node), _allowed_types(owner, keyword.arg)
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if isinstance(node, ast.Name) and str in allowed:
        return text
    hint = _near(text, list(public_names()), cutoff=0.6)
    raise ValueError(
        f"{key} must be made of plain values and public names of fastcv, "
        f"got {keyword.arg}={shown(text)}{hint}"
    )


def _named(name: str) -> Any:
    """What a bare name means: an export of fastcv, or one of torchvision's model builders."""
    if found := public_names().get(name):
        return resolve(found)
    try:
        return resolve(f"torchvision.models:{name}")
    except ValueError:
        return None


def _made(found: Any, called: bool, settings: dict[str, Any], key: str) -> Any:
    try:
        return found(**settings) if called else found
    except TypeError as error:
        raise ValueError(f"{key} must be a value whose settings fit, {error}") from error


def _choices(old: Any, text: str) -> str:
    """Name the public names that could stand where `old` does."""
    kind = old if isinstance(old, type) or not is_dataclass(old) else type(old)
    room = address(kind).partition(":")[0] if callable(kind) and kind is not type(None) else ""
    known = public_names()
    names = [name for name, each in known.items() if each.startswith(f"{room}:")] or list(known)
    where = room if room in ROOMS else "fastcv"
    hint = _near(text, names, cutoff=0.4)
    return f"a public name of {where} ({', '.join(sorted(names))}), got {shown(text)}{hint}"


def _near(text: str, names: list[str], *, cutoff: float) -> str:
    """Suggest the nearest name, as a sentence to append, or "" where none is near."""
    hint = did_you_mean(text.partition("(")[0][:80], names, cutoff=cutoff)
    return f".{hint}" if hint.startswith(" Did") else ""


def _allowed_types(owner: Any, part: str) -> set[Any]:
    if not is_dataclass(owner):
        return set()
    kind = owner if isinstance(owner, type) else type(owner)
    hint = typing.get_type_hints(kind).get(part)
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    options = typing.get_args(hint) if is_union else (hint,)
    origins = {typing.get_origin(option) or option for option in options}
    return {each for each in origins if isinstance(each, type)}
