"""When two recipes are one experiment, and what a run changed of its recipe."""

from collections.abc import Mapping
from typing import Any

# What does not decide an experiment: who it is, where it lies, and how fast it is computed.
_ASIDE = (
    "name",
    "seed",
    "precision",
    "optimizer.fused",
    "data.cache",
    "data.skip_bad",
)
_ASIDE_FOLDERS = ("reported", "step")
_NAMED_SOURCES = "fastcv.data.sources:"


def essence(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of a flat recipe what decides its result, but for the seed.

    Two recipes with the same essence are one experiment under two names. What is left out: name,
    seed, what was reported, where a named data set lies, precision and the other ways to be quick.
    Of one's own images the folder says which they are: it stays.
    """
    aside = (*_ASIDE, "data.path") if _named_source(flat) else _ASIDE
    return {
        key: value
        for key, value in flat.items()
        if key not in aside and key.partition(".")[0] not in _ASIDE_FOLDERS
    }


def _named_source(flat: Mapping[str, Any]) -> bool:
    """Whether the images are a data set that is the same wherever it lies."""
    source = str(flat.get("data.source", ""))
    return source.startswith(_NAMED_SOURCES) and not source.endswith("()")


def differences(flat: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """List what `other` has otherwise, by key: (value here, value there); None where it is not.

    To give folders of one's own to a recipe that names none is no difference.
    """
    here, there = essence(flat), essence(other)
    given = {"data.path"} if _open(here) or _open(there) else set()
    return {
        key: (here.get(key), there.get(key))
        for key in dict.fromkeys([*here, *there])
        # One that is not there differs from one that is None.
        if key not in given and (key in here, here.get(key)) != (key in there, there.get(key))
    }


def _open(essence: Mapping[str, Any]) -> bool:
    """Whether folders of one's own are asked for, and none is named."""
    return all(essence.get(key, "") is None for key in ("data.path", "data.source.path"))


def change(key: str, ours: Any, theirs: Any) -> str:
    """Say one of the `differences`: "schedule.0.epochs: 70 → 2"."""
    return f"{key}: {_value(ours)} → {_value(theirs)}"


def _value(value: Any) -> str:
    if isinstance(value, str) and ":" in value:
        return value.partition(":")[2]
    if isinstance(value, Mapping | list | tuple):
        return repr(value)
    return str(value)
