"""What a recipe's numbers may be, checked where a value is made.

A bound that concerns one setting is checked here, when its value is made; what two settings must
have in common is checked when they are used, since `--set` replaces one after the other.
"""

import inspect
import math
import os
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any

LARGEST = 2**63 - 1  # the largest whole number that torch and numpy count with
WIDEST = 65_535  # pixels of a side: what JPEG allows
_LARGEST_FLOAT = 3.4e38  # of float32, in which nets are trained


def check_whole(name: str, value: Any, *, least: int = 0, most: int = LARGEST) -> None:
    """Raise a ValueError unless `value` is a whole number from `least` to `most`."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number, got {shown(value)}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {shown(value)}")
    if value > most:
        raise ValueError(f"{name} must be at most {most:,}, got {shown(value)}")


def check_number(
    name: str,
    value: Any,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> None:
    """Raise a ValueError unless `value` is a finite number within the bounds that are given.

    `least` and `most` belong to the range, `above` and `below` do not.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ValueError(f"{name} must be a number, got {shown(value)}")
    if not abs(value) <= _LARGEST_FLOAT:  # nor is NaN
        raise ValueError(f"{name} must be a finite number, got {shown(value)}")
    if not (least <= value <= most and above < value < below):
        raise ValueError(f"{name} must be {_range(least, above, most, below)}, got {shown(value)}")


def _range(least: float, above: float, most: float, below: float) -> str:
    if above == 0 and below == 1:
        return "a fraction between 0 and 1"
    if least == 0 and most == 1:
        return "a fraction from 0 to 1"
    if least == 0 and below == 1:
        return "a fraction from 0 to below 1"
    lower = f"at least {least:g}" if math.isfinite(least) else ""
    lower = f"above {above:g}" if math.isfinite(above) else lower
    upper = f"at most {most:g}" if math.isfinite(most) else ""
    upper = f"below {below:g}" if math.isfinite(below) else upper
    return " and ".join(filter(None, (lower, upper)))


def check_numbers(name: str, values: Any, count: int, **bounds: float) -> None:
    """Raise a ValueError unless `values` are `count` finite numbers within bounds."""
    if not isinstance(values, tuple | list) or len(values) != count:
        words = {2: "two", 3: "three"}.get(count, count)
        raise ValueError(f"{name} must be {words} numbers, got {shown(values)}")
    for value in values:
        check_number(f"each of {name}", value, **bounds)


def check_flags(owner: Any, *names: str) -> None:
    """Raise a ValueError unless these attributes of `owner` are True or False."""
    for name in names:
        if not isinstance(getattr(owner, name), bool):
            raise ValueError(f"{name} must be True or False, got {shown(getattr(owner, name))}")


def check_callable(name: str, value: Any, *, or_class: bool = False) -> None:
    """Raise a ValueError unless `value` can be called later.

    A dataclass whose parentheses were forgotten cannot stand for its value, unless `or_class`.
    """
    if isinstance(value, type) and is_dataclass(value) and not or_class:
        kind = value.__name__
        raise ValueError(
            f"{name} must be a value, got the class {kind}: call it, as {kind}() or with settings"
        )
    if not callable(value):
        raise ValueError(f"{name} must be something that can be called, got {shown(value)}")


def check_takes(name: str, value: Any, *taken: Any, **by_name: Any) -> None:
    """Raise a ValueError unless `value` can be called with these arguments; it is not called."""
    check_callable(name, value)
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # some functions written in C have none
        return
    try:
        signature.bind(*taken, **by_name)
    except TypeError as error:
        arguments = ", ".join([*map(str, taken), *(f"{each}=..." for each in by_name)])
        raise ValueError(
            f"{name} must be something to call with ({arguments}), got {shown(value)}: {error}"
        ) from error


def check_each(
    name: str, values: Any, room: str, example: str = "...", argument: str = "x"
) -> None:
    """Raise a ValueError unless `values` is a tuple of things to call with one argument.

    Of fastcv's own values, only those of one room are such things; others belong elsewhere.
    """
    if not isinstance(values, tuple):
        raise ValueError(f"{name} must be a tuple, as {name}=({example},), got {shown(values)}")
    for value in values:
        made = "" if isinstance(value, partial) else type(value).__module__
        if made.startswith("fastcv.") and not made.startswith(f"{room}."):
            raise ValueError(
                f"each of {name} must be a value such as {room} has, got {shown(value)}"
            )
        if getattr(value, "changes_labels", False):
            check_takes(f"each of {name}", value, argument, "y", classes=None)
        else:
            check_takes(f"each of {name}", value, argument)


def shown(value: Any) -> str:
    """Return a value as an error shows it: cut where it is long, a path later than others."""
    try:
        text = repr(value)
    except ValueError:  # Python does not write numbers of more than 4,300 digits
        text = f"a number of {abs(value).bit_length():,} bits" if type(value) is int else "a value"
    most = 300 if isinstance(value, str) and os.sep in value else 80
    return text if len(text) <= most else f"{text[: most - 3]}..."


def is_instance_of(value: Any, *classes: tuple[str, str]) -> bool:
    """Whether a value is of one of these classes, (package, name): plain values import no torch."""
    built = {(each.__module__.partition(".")[0], each.__name__) for each in type(value).__mro__}
    return not built.isdisjoint(classes)


def unless_none(check: Callable[..., None], name: str, value: Any, **bounds: float) -> None:
    """Apply a check to a setting that may be None."""
    if value is not None:
        check(name, value, **bounds)
